"""Users, for administrators: find them, make them, change what they may; and the token that sets a password."""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal, cast, get_args

from fastapi import APIRouter, Query, Request, Response
from pydantic import ValidationError
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from shelver.service.accounts import users
from shelver.service.accounts.payloads import (
    AccountState,
    NewUser,
    PasswordToken,
    PersonRole,
    UserChange,
    UserFilters,
)
from shelver.service.accounts.users import Admin
from shelver.service.db import SessionDep, undo
from shelver.service.pages.accounts import Text, retry_of, told
from shelver.service.pages.render import page, redirect
from shelver.service.problems import ServiceError
from shelver.service.state import Service, ServiceDep
from shelver.service.tables.accounts import SignIn
from shelver.service.tables.declarative import now
from shelver.service.tables.openid import OpenIdLink

_ROLES: Final = (*get_args(PersonRole), "service")
_A_PAGE: Final = 50
_Short = Annotated[str, Query(max_length=200)]
router = APIRouter()


@router.get("/users", include_in_schema=False)
def show_users(
    request: Request,
    session: SessionDep,
    _admin: Admin,
    q: _Short = "",
    role: _Short = "",
    state: _Short = "",
    after: _Short = "",
) -> Response:
    """People, the newest first; machines where they are asked for."""
    filters = UserFilters(
        q=q[:100] or None,
        role=cast(Any, role) if role in _ROLES else None,
        state=cast(Any, state) if state in get_args(AccountState) else None,
        after=after or None,
        limit=_A_PAGE,
    )
    rows, following = users.find_users(session, filters, machines=filters.role == "service")
    new = users.new_of(session, [row.id for row in rows])
    query = {name: value for name, value in (("q", q), ("role", role), ("state", state)) if value}
    return page(
        request,
        "users.html",
        rows=rows,
        new=new,
        next=following,
        query=query,
        q=q,
        role=role,
        state=state,
        first=not after,
    )


@router.get("/users/new", include_in_schema=False)
def show_form(request: Request, _admin: Admin) -> Response:
    """The form for a new account."""
    return _form(request)


@router.post("/users/new", include_in_schema=False)
def make(
    request: Request,
    service: ServiceDep,
    session: SessionDep,
    identity: Admin,
    email: Text = "",
    name: Text = "",
    role: Text = "seller",
) -> Response:
    """Make an account. The answer itself shows its token, this once: an address would keep it."""
    try:
        body = NewUser(email=email, name=name, role=cast(Any, role))
        made = users.create_user(body, identity, service, session)
    except (ValidationError, ServiceError) as error:
        undo(session)
        wrong, problem = told(request, service, error)
        status = error.http_status if isinstance(error, ServiceError) else 422
        return _form(request, status=status, email=email, name=name, role=role, wrong=wrong, problem=problem)
    return _token_page(request, session, made, is_new=True)


@router.get("/users/{user_id}", include_in_schema=False)
def show_user(request: Request, session: SessionDep, _admin: Admin, user_id: str) -> Response:
    """One account, and what can be done with it."""
    return _user_page(request, session, user_id)


@router.post("/users/{user_id}/role", include_in_schema=False)
def change_role(
    request: Request, service: ServiceDep, session: SessionDep, identity: Admin, user_id: str, role: Text = ""
) -> Response:
    """Give a role."""
    if role not in get_args(PersonRole):
        return _user_page(request, session, user_id, status=422)
    return _changed(request, service, session, identity, user_id, UserChange(role=cast(Any, role)), "role-changed")


@router.post("/users/{user_id}/disable", include_in_schema=False)
def disable(request: Request, service: ServiceDep, session: SessionDep, identity: Admin, user_id: str) -> Response:
    """Keep somebody out."""
    return _changed(
        request, service, session, identity, user_id, UserChange(role=None, disabled=True), "user-disabled"
    )


@router.post("/users/{user_id}/enable", include_in_schema=False)
def enable(request: Request, service: ServiceDep, session: SessionDep, identity: Admin, user_id: str) -> Response:
    """Let somebody in again."""
    return _changed(
        request, service, session, identity, user_id, UserChange(role=None, disabled=False), "user-enabled"
    )


@router.post("/users/{user_id}/password-token", include_in_schema=False)
def make_token(
    request: Request, service: ServiceDep, session: SessionDep, identity: Admin, user_id: str
) -> Response:
    """A token with which somebody sets his password, shown this once."""
    made = users.create_password_token(user_id, identity, service, session)
    return _token_page(request, session, made, is_new=False)


@router.post("/users/{user_id}/end-sign-ins", include_in_schema=False)
def end_sign_ins(service: ServiceDep, session: SessionDep, identity: Admin, user_id: str) -> Response:
    """Sign somebody out everywhere."""
    users.end_sign_ins(user_id, identity, service, session)
    return redirect(f"/users/{user_id}", done="user-signed-out")


def _changed(
    request: Request,
    service: Service,
    session: Session,
    identity: Admin,
    user_id: str,
    change: UserChange,
    done: Literal["role-changed", "user-disabled", "user-enabled"],
) -> Response:
    try:
        users.change_user(user_id, change, identity, service, session)
    except ServiceError as error:
        if error.code != "last_admin":
            raise
        undo(session)
        return _user_page(request, session, user_id, status=error.http_status, problem=error)
    return redirect(f"/users/{user_id}", done=done)


def _form(
    request: Request,
    *,
    status: int = 200,
    email: str = "",
    name: str = "",
    role: str = "seller",
    wrong: dict[str, str] | None = None,
    problem: ServiceError | None = None,
) -> Response:
    return page(
        request,
        "user_new.html",
        status=status,
        headers=retry_of(problem),
        email=email,
        name=name,
        role=role,
        wrong=wrong or {},
        problem=problem,
    )


def _user_page(
    request: Request, session: Session, user_id: str, *, status: int = 200, problem: ServiceError | None = None
) -> Response:
    user = users.user_named(session, user_id)
    going_on = select(func.count(SignIn.id), func.max(SignIn.created_at)).where(
        SignIn.user_id == user.id, SignIn.revoked_at.is_(None), SignIn.expires_at > now()
    )
    n_sign_ins, last = session.execute(going_on).one()
    link = select(OpenIdLink.issuer).where(OpenIdLink.user_id == user.id).limit(1)
    return page(
        request,
        "user.html",
        status=status,
        user=user,
        is_new=bool(users.new_of(session, [user.id])),
        n_sign_ins=n_sign_ins,
        last=last,
        issuer=session.scalar(link),
        problem=problem,
    )


def _token_page(request: Request, session: Session, made: PasswordToken, *, is_new: bool) -> Response:
    return page(
        request,
        "user_token.html",
        user=users.user_named(session, made.user_id),
        made=made,
        is_new=is_new,
        link=f"{request.base_url}reset?token={made.token}",
    )
