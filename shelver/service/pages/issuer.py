"""Sign in through the issuer of OpenID Connect: there by a link, and back with a cookie."""

from __future__ import annotations

from typing import Annotated, cast

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import RedirectResponse
from sqlalchemy.orm import Session

from shelver.service.accounts import openid
from shelver.service.accounts.identity import Role, allowed
from shelver.service.pages.accounts import sign_in_page, welcome
from shelver.service.pages.navigation import home_of
from shelver.service.pages.render import HEADERS
from shelver.service.pages.session import own_path
from shelver.service.problems import ServiceError
from shelver.service.state import ServiceDep
from shelver.service.tables.accounts import User

router = APIRouter()


@router.get("/sign-in/openid/start", include_in_schema=False, dependencies=[allowed("public")])
def begin_at_issuer(
    request: Request,
    service: ServiceDep,
    following: Annotated[str, Query(alias="next", max_length=2000)] = "",
) -> Response:
    """To the issuer. A link, since a browser lets no form of ours be sent on to another site."""
    try:
        address, keep = openid.begin(request, service, following=own_path(following, ""))
    except ServiceError as error:
        return sign_in_page(request, service, following=following, problem=error)
    answer = RedirectResponse(address, 303, {**HEADERS, "Referrer-Policy": "no-referrer"})
    keep(answer)
    return answer


@router.get(openid.PAGE, include_in_schema=False, dependencies=[allowed("public")])
def back_from_issuer(request: Request, service: ServiceDep, back: Annotated[openid.Back, Query()]) -> Response:
    """Back from it, with a code in the address, which works once: a cookie, and on to a page without it."""
    following = openid.began_by_page(request, service)
    if following is None and openid.has_begun(request, service):
        return RedirectResponse(f"{openid.CALLBACK}?{request.url.query}", 303)

    def started(session: Session, user: User) -> Response:
        return welcome(request, service, session, user, own_path(following or "", home_of(cast(Role, user.role))))

    try:
        answer = openid.finish(request, service, back, started)
    except ServiceError as error:
        return sign_in_page(request, service, following=following or "", problem=error)
    openid.forget_begun(service, answer)
    return answer
