"""Register, sign in and sign out in a browser."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from typing import Annotated, Final, cast

from fastapi import APIRouter, Depends, Form, Query, Request, Response
from pydantic import ValidationError
from sqlalchemy.orm import Session

from shelver.service.accounts import sign_ins
from shelver.service.accounts.identity import Identity, Role, allowed, known_identity
from shelver.service.accounts.passwords import MAX_CHARACTERS, password_turn
from shelver.service.accounts.payloads import Registration
from shelver.service.accounts.routes import register, user_with_password
from shelver.service.db import SessionDep, undo
from shelver.service.pages.forms import wrong_fields
from shelver.service.pages.locales import mark, words_of
from shelver.service.pages.navigation import home_of
from shelver.service.pages.render import page, redirect
from shelver.service.pages.session import OWN_FORM, forget_session, keep_session, own_path
from shelver.service.problems import ServiceError
from shelver.service.state import Service, ServiceDep
from shelver.service.tables.accounts import User

Text = Annotated[str, Form(max_length=2000)]
Person = Annotated[Identity, allowed("seller", "reviewer", "admin")]
_WRONG: Final[Mapping[str, str]] = {
    "email": mark("Type an e-mail address such as ann@example.org."),
    "name": mark("Type a name of at most 100 characters."),
    "password": mark("Type a password."),
    "token": mark("Paste the whole token; it begins with sho_."),
}


async def _turn(request: Request) -> AsyncIterator[ServiceError | None]:
    turn = password_turn(request)
    try:
        await anext(turn)
    except ServiceError as error:
        yield error
        return
    try:
        yield None
    finally:
        await turn.aclose()


Turn = Annotated[ServiceError | None, Depends(_turn, scope="function")]
"""A turn to handle a password; or the refusal of one, which the form itself shows: the handler raises it."""
_UNFIT: Final = mark("This cannot be used.")
router = APIRouter()


@router.get("/sign-in", include_in_schema=False)
def show_sign_in(
    request: Request,
    service: ServiceDep,
    identity: Annotated[Identity, allowed("public")],
    following: Annotated[str, Query(alias="next", max_length=2000)] = "",
) -> Response:
    """The form to sign in."""
    if identity.via == "password":  # a machine with a key has no pages
        return redirect(own_path(following, home_of(identity.role)))
    return sign_in_page(request, service, following=following)


@router.post("/sign-in", include_in_schema=False, dependencies=[allowed("public"), OWN_FORM])
def sign_in(
    request: Request,
    service: ServiceDep,
    session: SessionDep,
    refused: Turn,
    email: Text = "",
    password: Text = "",
    following: Annotated[str, Form(alias="next", max_length=2000)] = "",
) -> Response:
    """Sign in with e-mail address and password."""
    try:
        proceed(refused)
        user = user_with_password(request, service, session, email, password)
    except ServiceError as error:
        undo(session)
        return sign_in_page(request, service, email=email, following=following, problem=error)
    return welcome(request, service, session, user, own_path(following, home_of(cast(Role, user.role))))


@router.get("/register", include_in_schema=False, dependencies=[allowed("public")])
def show_register(request: Request, service: ServiceDep) -> Response:
    """The form to register."""
    return _register_page(request, service)


@router.post("/register", include_in_schema=False, dependencies=[allowed("public"), OWN_FORM])
def register_here(
    request: Request,
    service: ServiceDep,
    session: SessionDep,
    refused: Turn,
    email: Text = "",
    name: Text = "",
    password: Text = "",
) -> Response:
    """Make an account for oneself, and sign in with it."""
    try:
        proceed(refused)
        account = register(Registration(email=email, name=name, password=password), service, session)
    except (ValidationError, ServiceError) as error:
        undo(session)
        return _register_page(request, service, email=email, name=name, error=error)
    return welcome(request, service, session, session.get_one(User, account.id), "/sell", done="registered")


@router.post("/sign-out", include_in_schema=False)
def sign_out(request: Request, service: ServiceDep, session: SessionDep, identity: Person) -> Response:
    """End this sign-in."""
    assert identity.user_id is not None
    sign_ins.end(service, session, identity.user_id, identity.sign_in_id)
    answer = redirect("/", done="signed-out")
    forget_session(request, answer)
    return answer


def proceed(refused: ServiceError | None) -> None:
    """Go on where there is a turn.

    Raises:
        ServiceError: there is none.
    """
    if refused is not None:
        raise refused


def welcome(
    request: Request, service: Service, session: Session, user: User, path: str, *, done: str | None = None
) -> Response:
    """Sign a user in, with a cookie of its own; whoever had signed in with this browser before is signed out."""
    before = known_identity(request)
    if before.user_id is not None and before.sign_in_id is not None:
        sign_ins.end(service, session, before.user_id, before.sign_in_id)
    answer = redirect(path, done=done)
    token = sign_ins.begin_pages(service, session, user, request)
    keep_session(request, answer, token, service.settings.refresh_s)
    return answer


def sign_in_page(
    request: Request,
    service: Service,
    *,
    email: str = "",
    following: str = "",
    problem: ServiceError | None = None,
) -> Response:
    """The form to sign in, with what came of the last attempt."""
    return page(
        request,
        "sign_in.html",
        status=200 if problem is None else problem.http_status,
        headers=retry_of(problem),
        email=email,
        following=own_path(following, ""),
        problem=problem,
        issuer=service.issuer is not None,
        registration=service.settings.registration == "open",
    )


def retry_of(problem: ServiceError | None) -> dict[str, str]:
    """The header that says when to try again."""
    if problem is None or problem.retry_after_s is None:
        return {}
    return {"Retry-After": str(problem.retry_after_s)}


def told(
    request: Request, service: Service, error: ValidationError | ServiceError
) -> tuple[dict[str, str], ServiceError | None]:
    """What a form says that comes back: what is wrong with which field, or else the refusal as a whole."""
    _ = words_of(request)
    if isinstance(error, ValidationError):
        names = {name.removeprefix("new_") for name in wrong_fields(error)}
        return {name: _(_WRONG.get(name, _UNFIT)) for name in names}, None
    if error.code == "password_unfit":
        bounds = {"least": service.settings.password_characters, "most": MAX_CHARACTERS}
        return {"password": _("A password has %(least)s to %(most)s characters.", **bounds)}, None
    if error.code == "account_exists":
        return {"email": _("This address has an account already.")}, None
    return {}, error


def _register_page(
    request: Request,
    service: Service,
    *,
    email: str = "",
    name: str = "",
    error: ValidationError | ServiceError | None = None,
) -> Response:
    wrong, problem = ({}, None) if error is None else told(request, service, error)
    closed = service.settings.registration == "closed"
    return page(
        request,
        "register.html",
        status=200 if error is None else error.http_status if isinstance(error, ServiceError) else 422,
        headers=retry_of(problem),
        open=not closed,
        least=service.settings.password_characters,
        email=email,
        name=name,
        wrong=wrong,
        problem=None if closed else problem,
    )
