"""OpenID Connect: a shop's own user database signs people in.

A browser begins at /v1/openid/start, signs in at the issuer, and comes back to /v1/openid/callback with a code,
which is changed for the same pair of tokens as /v1/login gives. What belongs to a sign-in that has begun stands in
a cookie of the browser that began it, signed, for ten minutes; nobody can finish it in another browser.

An account belongs to a person by issuer and subject. It is never found by an e-mail address: an address in an
account of ours was not verified, so whoever registers with a stranger's address would wait there for the stranger.
"""

from __future__ import annotations

import base64
import hmac
import secrets
from collections.abc import Callable
from datetime import timedelta
from functools import partial
from typing import Annotated, Any, Final, TypeVar, cast

import jwt
import structlog
from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import JSONResponse, RedirectResponse
from pydantic import BaseModel, Field
from sqlalchemy import select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from shelver.service.accounts import sign_ins
from shelver.service.accounts.identity import allowed, identity_of
from shelver.service.accounts.issuer import Issuer, error_named, refuse
from shelver.service.accounts.payloads import (
    Beginning,
    Role,
    SignInOptions,
    TokenPair,
    checked_email,
    checked_name,
)
from shelver.service.accounts.routes import add_user, is_last_admin, locked_user
from shelver.service.accounts.tokens import ALGORITHM
from shelver.service.audit import audit
from shelver.service.db import after_commit
from shelver.service.limits import address_of
from shelver.service.problems import ServiceError, responses
from shelver.service.state import Service, ServiceDep
from shelver.service.tables.accounts import User
from shelver.service.tables.declarative import now
from shelver.service.tables.openid import OpenIdLink
from shelver.settings import ServiceSettings

T = TypeVar("T")
START: Final = "/v1/openid/start"
CALLBACK: Final = "/v1/openid/callback"
PAGE: Final = "/sign-in/openid"
"""Where a page comes back to. The issuer may send browsers to either: each hands on what the other began."""
_BEGUN_S: Final = 600
_AUDIENCE: Final = "shelver-openid"
_RANKS: Final = ("seller", "reviewer", "admin")
_Given = Annotated[str | None, Field(max_length=4000)]
log = structlog.get_logger("shelver.service")
router = APIRouter(tags=["accounts"])


class Back(BaseModel):
    """What an issuer sends a browser back with."""

    code: _Given = None
    state: _Given = None
    iss: _Given = None
    error: _Given = None


@router.get("/v1/openid", dependencies=[allowed("public")], summary="How to sign in")
def read_sign_in_options(service: ServiceDep) -> SignInOptions:
    """Whether an issuer of OpenID Connect signs people in, and where a browser begins."""
    return SignInOptions(openid=service.issuer is not None, start=START if service.issuer is not None else None)


@router.get(
    START,
    dependencies=[allowed("public")],
    summary="Sign in at the issuer",
    response_model=Beginning,
    responses={
        303: {"description": "To the issuer"},
        **responses("issuer_unavailable", "not_found", "too_many_requests"),
    },
)
def begin_openid(
    request: Request,
    service: ServiceDep,
    redirect: Annotated[bool, Query(description="Go there; else the answer has the address.")] = True,
) -> Response:
    """Send a browser to the issuer. The cookie that it gets is needed to come back."""
    address, keep = begin(request, service)
    shown = Beginning(address=address).model_dump()
    answer = RedirectResponse(address, 303) if redirect else JSONResponse(shown)
    keep(answer)
    return answer


@router.get(
    CALLBACK,
    dependencies=[allowed("public")],
    summary="Come back from the issuer",
    response_model=TokenPair,
    responses={
        303: {"description": "On, where a page began the sign-in"},
        **responses("issuer_unavailable", "not_found", "openid_failed", "too_many_requests"),
    },
)
def finish_openid(request: Request, service: ServiceDep, back: Annotated[Back, Query()]) -> Response:
    """Change what the issuer gave the browser for a pair of tokens; the first time, this makes an account."""
    if began_by_page(request, service) is not None:
        return RedirectResponse(f"{PAGE}?{request.url.query}", 303)
    pair = finish(request, service, back, partial(sign_ins.begin, service, request=request))
    answer = JSONResponse(pair.model_dump())
    forget_begun(service, answer)
    return answer


def begin(
    request: Request, service: Service, *, following: str | None = None
) -> tuple[str, Callable[[Response], None]]:
    """Begin a sign-in.

    Args:
        request: of the browser.
        service: which has an issuer.
        following: where a page goes on afterwards; None where it is no page that begins.

    Returns:
        The address of the issuer to go to, and what puts the cookie into the answer.

    Raises:
        ServiceError: there is no issuer, or it does not answer, or too many begin.
    """
    issuer = _issuer(service, request)
    state = secrets.token_urlsafe(32)
    address = issuer.begin(state, *_derived(service, state))
    claims = {"aud": _AUDIENCE, "state": state, "exp": now() + timedelta(seconds=_BEGUN_S)}
    claims |= {} if following is None else {"next": following}
    token = jwt.encode(claims, service.tokens.derived(_AUDIENCE), ALGORITHM)

    def keep(answer: Response) -> None:
        answer.set_cookie(
            _cookie_of(issuer),
            token,
            max_age=_BEGUN_S,
            secure=issuer.redirect.startswith("https:"),
            httponly=True,
            samesite="lax",  # the way back is a link from another site
        )

    return address, keep


def has_begun(request: Request, service: Service) -> bool:
    """Whether this browser has begun a sign-in, by a page or without."""
    return service.issuer is not None and _begun(service, request) is not None


def began_by_page(request: Request, service: Service) -> str | None:
    """Where the page goes on that began this browser's sign-in; None where no page did."""
    begun = _begun(service, request) if service.issuer is not None else None
    return begun.get("next") if begun is not None else None


def finish(request: Request, service: Service, back: Back, started: Callable[[Session, User], T]) -> T:
    """Sign in whoever the issuer has signed in.

    Args:
        request: of the browser that began.
        service: which has an issuer.
        back: what the issuer sends with it.
        started: begins the sign-in, in the transaction that finds the account or makes it.

    Raises:
        ServiceError: it cannot be believed.
    """
    issuer = _issuer(service, request)
    begun = _begun(service, request)
    state = back.state or ""
    if begun is None or not hmac.compare_digest(str(begun["state"]).encode(), state.encode("utf-8", "replace")):
        refuse("a sign-in that this browser did not begin")
    if back.iss is not None and back.iss != issuer.address:
        refuse("an answer of another issuer")
    if back.code is None or back.error is not None:
        refuse(f"the issuer did not sign in: {error_named(back.error)}")
    return _signed_in(service, issuer, issuer.finish(back.code, *_derived(service, state)), started)


def forget_begun(service: Service, answer: Response) -> None:
    """Let the browser forget that it began."""
    assert service.issuer is not None
    secure = service.issuer.redirect.startswith("https:")
    answer.delete_cookie(_cookie_of(service.issuer), secure=secure, httponly=True)


def _issuer(service: Service, request: Request) -> Issuer:
    if service.issuer is None:
        raise ServiceError(
            "not_found",
            "no issuer of OpenID Connect",
            allowed="a service that was set up with one",
            remedy="Sign in at /v1/login.",
        )
    service.limits.take(f"sign-in:{address_of(request)}", service.settings.sign_ins_per_minute)
    return service.issuer


def _cookie_of(issuer: Issuer) -> str:
    """With the prefix no other host of the same domain can set it."""
    return "__Host-shelver-openid" if issuer.redirect.startswith("https:") else "shelver-openid"


def _derived(service: Service, state: str) -> tuple[str, str]:
    """The nonce and the verifier of a sign-in: nobody but us can tell them from its state."""

    def derived(purpose: str) -> str:
        digest = hmac.digest(service.tokens.derived(purpose), state.encode("utf-8", "replace"), "sha256")
        return base64.urlsafe_b64encode(digest).rstrip(b"=").decode()

    return derived("openid nonce"), derived("openid verifier")


def _begun(service: Service, request: Request) -> dict[str, Any] | None:
    """What stands in the cookie of a browser that has begun."""
    assert service.issuer is not None
    try:
        found: dict[str, Any] = jwt.decode(
            request.cookies.get(_cookie_of(service.issuer), ""),
            service.tokens.derived(_AUDIENCE),
            algorithms=[ALGORITHM],
            audience=_AUDIENCE,
            options={"require": ["exp", "aud", "state"]},
        )
    except (jwt.InvalidTokenError, ValueError):
        return None
    return found


def _signed_in(
    service: Service, issuer: Issuer, claims: dict[str, Any], started: Callable[[Session, User], T]
) -> T:
    """The sign-in of whom the issuer has signed in."""
    email = _verified_email(claims)
    domains = {domain.lower().removeprefix("@") for domain in service.settings.openid_domains}
    if domains and (email is None or email.rpartition("@")[2] not in domains):
        refuse("a person without a verified e-mail address of an allowed domain")
    for last in (False, True):
        try:
            with service.database.writing() as session:
                user = _user_of(service, session, issuer.address, claims, email)
                return started(session, user)
        except (IntegrityError, ServiceError) as error:
            # The same person came twice at once, or somebody registered with this address meanwhile.
            if last or (isinstance(error, ServiceError) and error.code != "account_exists"):
                raise
    raise AssertionError


def _user_of(service: Service, session: Session, issuer: str, claims: dict[str, Any], email: str | None) -> User:
    role = role_of(service.settings, claims)
    of_person = OpenIdLink.issuer == issuer, OpenIdLink.subject == claims["sub"]
    user_id = session.scalar(select(OpenIdLink.user_id).where(*of_person))
    known = session.get(User, user_id) if user_id is not None else None
    if (
        known is not None
        and known.role == "admin"
        and role not in (None, "admin")
        and is_last_admin(session, known)
    ):
        # Without him nobody could mend what made the issuer say so.
        log.warning(
            "the issuer takes the role of the last administrator, who keeps it", user_id=known.id, said=role
        )
        role = None
    user = locked_user(session, user_id) if user_id is not None else None
    if user is None:
        if email is not None and session.scalar(select(User.id).where(User.email == email)) is not None:
            email = None
        user = add_user(session, email, _name_of(claims), role or "seller", password_hash=None, by=None)
        session.add(OpenIdLink(issuer=issuer, subject=claims["sub"], user_id=user.id))
        audit(session, identity_of(user, "anonymous"), "user.openid", user.id, {"issuer": issuer})
        return user
    if user.disabled_at is not None or user.deleted_at is not None:
        refuse("an account that is disabled")
    if role is not None and role != user.role:
        audit(session, identity_of(user, "anonymous"), "user.role", user.id, {"from": user.role, "to": role})
        user.role = role
        user.version += 1
        changed = user.id
        after_commit(session, lambda: service.identities.forget(changed))
    return user


def role_of(settings: ServiceSettings, claims: dict[str, Any]) -> Role | None:
    """The highest role that the settings give for what a claim names; None where the issuer has no say in it."""
    claim = settings.openid_role_claim
    if claim is None:
        return None
    found: Any = claims
    if claim in claims:
        found = claims[claim]
    else:  # such as realm_access.roles
        for part in claim.split("."):
            found = found.get(part) if isinstance(found, dict) else None
    named = [found] if isinstance(found, str) else found if isinstance(found, list) else []
    roles = {
        settings.openid_roles[name] for name in named if isinstance(name, str) and name in settings.openid_roles
    }
    return cast(Role, max(roles or {"seller"}, key=_RANKS.index))


def _verified_email(claims: dict[str, Any]) -> str | None:
    if claims.get("email_verified") not in (True, "true") or not isinstance(claims.get("email"), str):
        return None
    try:
        return checked_email(claims["email"])
    except ValueError:
        return None


def _name_of(claims: dict[str, Any]) -> str:
    for claim in ("name", "preferred_username", "nickname"):
        said = claims.get(claim)
        if isinstance(said, str):
            try:
                return checked_name(said[:100])
            except ValueError:
                continue
    return "a person without a name"
