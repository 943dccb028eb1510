"""Tokens that work once: they set a password, or make the first administrator; and who forgot his asks for one.

A link that is mailed or copied has its token in the address. The page takes it from there at once: it answers with
a redirect to the same page without it and a cookie for ten minutes, so that neither the address bar, nor what the
page links to, nor a log has it.
"""

from __future__ import annotations

import re
from typing import Annotated, Final

from fastapi import APIRouter, Query, Request, Response
from pydantic import ValidationError
from sqlalchemy.orm import Session

from shelver.service.accounts import mail, one_time
from shelver.service.accounts.identity import allowed
from shelver.service.accounts.payloads import FirstAdmin, Forgotten, Reset
from shelver.service.accounts.routes import first_admin, reset_password
from shelver.service.db import SessionDep, undo
from shelver.service.pages.accounts import Text, Turn, proceed, retry_of, told, welcome
from shelver.service.pages.render import page, redirect
from shelver.service.pages.session import OWN_FORM
from shelver.service.problems import ServiceError
from shelver.service.state import Service, ServiceDep
from shelver.service.tables.accounts import User

COOKIE: Final = "shelver_token"
_KEPT_S: Final = 600
_FORM: Final = re.compile(r"[\w-]{1,100}", re.ASCII)
_Token = Annotated[str, Query(max_length=200)]
router = APIRouter()
_anybody: Final = allowed("public")


@router.get("/forgot", include_in_schema=False, dependencies=[_anybody])
def show_forgot(request: Request, service: ServiceDep) -> Response:
    """Ask for a mail; or whom to ask, where none is sent."""
    return page(
        request, "forgot.html", mail=service.mail is not None, asked=False, email="", wrong={}, problem=None
    )


@router.post("/forgot", include_in_schema=False, dependencies=[_anybody, OWN_FORM])
def ask_for_token(request: Request, service: ServiceDep, email: Text = "") -> Response:
    """Let a mail be sent, if there is such an account; what the page says is the same where there is none."""
    wrong, problem, status = dict[str, str](), None, 200
    try:
        mail.ask_for_mail(request, service, Forgotten(email=email).email)
    except (ValidationError, ServiceError) as error:
        wrong, problem = told(request, service, error)
        status = error.http_status if isinstance(error, ServiceError) else 422
    return page(
        request,
        "forgot.html",
        status=status,
        headers=retry_of(problem),
        mail=service.mail is not None,
        asked=status == 200,
        email=email,
        wrong=wrong,
        problem=problem,
    )


@router.get("/reset", include_in_schema=False, dependencies=[_anybody])
def show_reset(request: Request, service: ServiceDep, session: SessionDep, token: _Token = "") -> Response:
    """The form to set a password."""
    if _FORM.fullmatch(token):
        return _taken(request, "/reset", token)
    kept = request.cookies.get(COOKIE, "")
    email, problem = "", None
    if kept:
        try:
            row = one_time.find_token(session, kept, "password", "mailed")
            user = session.get(User, row.user_id) if row.user_id else None
            email = (user.email if user else None) or ""
        except ServiceError as error:
            kept, problem = "", error
    return _reset_page(request, service, token=kept, email=email, problem=problem)


@router.post("/reset", include_in_schema=False, dependencies=[_anybody, OWN_FORM])
def set_password(
    request: Request,
    service: ServiceDep,
    session: SessionDep,
    refused: Turn,
    token: Text = "",
    password: Text = "",
    email: Text = "",
) -> Response:
    """Set the password; all sign-ins end, and one signs in with the new one."""
    try:
        proceed(refused)
        reset_password(Reset(token=token.strip(), new_password=password), service, session)
    except (ValidationError, ServiceError) as error:
        undo(session)
        wrong, problem = told(request, service, error)
        good = "password" in wrong or (problem is not None and problem.code == "too_many_requests")
        return _reset_page(
            request,
            service,
            token=token if good else "",
            email=email if good else "",
            wrong=wrong,
            problem=problem,
        )
    answer = redirect("/sign-in", done="password-set")
    answer.delete_cookie(COOKIE, path="/reset", httponly=True)
    return answer


@router.get("/first-admin", include_in_schema=False, dependencies=[_anybody])
def show_first_admin(request: Request, service: ServiceDep, session: SessionDep, token: _Token = "") -> Response:
    """The form for the first administrator."""
    if _FORM.fullmatch(token):
        return _taken(request, "/first-admin", token)
    return _first_admin_page(request, service, session, token=request.cookies.get(COOKIE, ""))


@router.post("/first-admin", include_in_schema=False, dependencies=[_anybody, OWN_FORM])
def make_first_admin(
    request: Request,
    service: ServiceDep,
    session: SessionDep,
    refused: Turn,
    token: Text = "",
    email: Text = "",
    name: Text = "",
    password: Text = "",
) -> Response:
    """Make the account, and sign in with it."""
    try:
        proceed(refused)
        body = FirstAdmin(token=token.strip(), email=email, name=name, password=password)
        account = first_admin(body, service, session)
    except (ValidationError, ServiceError) as error:
        undo(session)
        return _first_admin_page(request, service, session, token=token, email=email, name=name, error=error)
    answer = welcome(request, service, session, session.get_one(User, account.id), "/dashboard", done="registered")
    answer.delete_cookie(COOKIE, path="/first-admin", httponly=True)
    return answer


def _taken(request: Request, path: str, token: str) -> Response:
    """The token out of the address, into a cookie that only this page gets."""
    answer = redirect(path)
    answer.headers["Referrer-Policy"] = "no-referrer"
    secure = request.url.scheme == "https"
    answer.set_cookie(COOKIE, token, max_age=_KEPT_S, path=path, httponly=True, samesite="lax", secure=secure)
    return answer


def _reset_page(
    request: Request,
    service: Service,
    *,
    token: str,
    email: str = "",
    wrong: dict[str, str] | None = None,
    problem: ServiceError | None = None,
) -> Response:
    return page(
        request,
        "reset.html",
        status=problem.http_status if problem is not None else 422 if wrong else 200,
        headers=retry_of(problem),
        token=token,
        email=email,
        least=service.settings.password_characters,
        wrong=wrong or {},
        problem=problem,
    )


def _first_admin_page(
    request: Request,
    service: Service,
    session: Session,
    *,
    token: str,
    email: str = "",
    name: str = "",
    error: ValidationError | ServiceError | None = None,
) -> Response:
    wrong, problem = ({}, None) if error is None else told(request, service, error)
    return page(
        request,
        "first_admin.html",
        status=200 if error is None else error.http_status if isinstance(error, ServiceError) else 422,
        headers=retry_of(problem),
        there_is_one=one_time.has_admin(session),
        token="" if problem is not None and problem.code == "token_unusable" else token,
        email=email,
        name=name,
        least=service.settings.password_characters,
        wrong=wrong,
        problem=problem,
    )
