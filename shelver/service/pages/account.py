"""My account: name, password, sign-ins, language and theme; one's data as a file; and the end of the account."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Form, Request, Response
from pydantic import ValidationError
from sqlalchemy.orm import Session

from shelver.service.accounts import personal
from shelver.service.accounts.identity import Identity
from shelver.service.accounts.payloads import Confirmation, NewPassword, Rename
from shelver.service.accounts.routes import change_password, rename_me, user_of
from shelver.service.db import SessionDep, undo
from shelver.service.pages.accounts import Person, Text, Turn, proceed, retry_of, told, welcome
from shelver.service.pages.render import page, redirect
from shelver.service.pages.session import forget_session
from shelver.service.problems import ServiceError
from shelver.service.state import Service, ServiceDep

router = APIRouter()


@router.get("/account", include_in_schema=False)
def show_account(request: Request, service: ServiceDep, session: SessionDep, identity: Person) -> Response:
    """My account."""
    return _page(request, service, session, identity)


@router.post("/account/name", include_in_schema=False)
def rename(
    request: Request, service: ServiceDep, session: SessionDep, identity: Person, name: Text = ""
) -> Response:
    """Change my name."""
    try:
        rename_me(Rename(name=name), identity, service, session)
    except ValidationError as error:
        return _page(request, service, session, identity, error=error, form="name")
    return redirect("/account", done="renamed")


@router.post("/account/password", include_in_schema=False)
def renew_password(
    request: Request,
    service: ServiceDep,
    session: SessionDep,
    identity: Person,
    refused: Turn,
    old_password: Text = "",
    password: Text = "",
) -> Response:
    """Change my password. All sign-ins end; this browser gets a new one."""
    try:
        proceed(refused)
        body = NewPassword(old_password=old_password, new_password=password)
        change_password(request, body, identity, service, session)
    except (ValidationError, ServiceError) as error:
        undo(session)
        return _page(request, service, session, identity, error=error, form="password")
    user = user_of(session, identity)
    return welcome(request, service, session, user, "/account", done="password-changed")


@router.post("/account/end-other-sign-ins", include_in_schema=False)
def end_others(service: ServiceDep, session: SessionDep, identity: Person) -> Response:
    """End all my sign-ins but this one."""
    personal.end_other_sign_ins(identity, service, session)
    return redirect("/account", done="sign-ins-ended")


@router.get("/account/data", include_in_schema=False)
def download(service: ServiceDep, session: SessionDep, identity: Person) -> Response:
    """Everything that is stored about me, as a file."""
    answer = personal.export_me(identity, service, session)
    answer.headers["Content-Disposition"] = 'attachment; filename="my-data.json"'
    return answer


@router.get("/account/delete", include_in_schema=False)
def show_deletion(request: Request, session: SessionDep, identity: Person) -> Response:
    """What it means to delete my account, before I do."""
    return _deletion_page(request, session, identity)


@router.post("/account/delete", include_in_schema=False)
def delete(
    request: Request,
    service: ServiceDep,
    session: SessionDep,
    identity: Person,
    refused: Turn,
    password: Annotated[str, Form(max_length=1000)] = "",
) -> Response:
    """Delete my account."""
    try:
        proceed(refused)
        personal.delete_me(request, Confirmation(password=password or None), identity, service, session)
    except ServiceError as error:
        undo(session)
        return _deletion_page(request, session, identity, error)
    answer = redirect("/", done="account-deleted")
    forget_session(request, answer)
    return answer


def _page(
    request: Request,
    service: Service,
    session: Session,
    identity: Identity,
    *,
    error: ValidationError | ServiceError | None = None,
    form: str = "",
) -> Response:
    wrong, problem = ({}, None) if error is None else told(request, service, error)
    user = user_of(session, identity)
    return page(
        request,
        "account.html",
        status=200 if error is None else error.http_status if isinstance(error, ServiceError) else 422,
        headers=retry_of(problem),
        user=user,
        has_password=user.password_hash is not None,
        least=service.settings.password_characters,
        sign_ins=personal.list_sign_ins(identity, session).items,
        form=form,
        wrong=wrong,
        problem=problem,
    )


def _deletion_page(
    request: Request, session: Session, identity: Identity, problem: ServiceError | None = None
) -> Response:
    user = user_of(session, identity)
    return page(
        request,
        "account_delete.html",
        status=200 if problem is None else problem.http_status,
        headers=retry_of(problem),
        email=user.email or "",
        has_password=user.password_hash is not None,
        problem=problem,
    )
