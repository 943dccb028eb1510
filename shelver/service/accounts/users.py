"""Users, as administrators see them: find, make, change role, disable, reset a password, end sign-ins."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Annotated, Any

from fastapi import APIRouter, Query, Response
from sqlalchemy import ColumnElement, exists, or_, select
from sqlalchemy.orm import Session

from shelver.service.accounts import one_time, sign_ins
from shelver.service.accounts.identity import Identity, allowed
from shelver.service.accounts.payloads import Account, NewUser, PasswordToken, UserChange, UserFilters, UserPage
from shelver.service.accounts.routes import add_user, keep_an_admin, locked_user
from shelver.service.audit import audit
from shelver.service.db import SessionDep, after_commit
from shelver.service.paging import page_of
from shelver.service.problems import ServiceError, not_found, responses
from shelver.service.state import ServiceDep
from shelver.service.tables.accounts import User
from shelver.service.tables.declarative import now
from shelver.service.tables.openid import OpenIdLink

router = APIRouter(tags=["users"])
Admin = Annotated[Identity, allowed("admin")]


@router.get("/v1/users", dependencies=[allowed("admin")], responses=responses("invalid_input"))
def list_users(filters: Annotated[UserFilters, Query()], session: SessionDep) -> UserPage:
    """Accounts that were not deleted, the newest first."""
    rows, following = find_users(session, filters)
    return UserPage(items=[Account.model_validate(row) for row in rows], next=following)


def find_users(
    session: Session, filters: UserFilters, *, machines: bool = True
) -> tuple[Sequence[User], str | None]:
    """The accounts that the filters mean, with or without those of machines, and the cursor of the next page."""
    wanted = select(User).where(User.deleted_at.is_(None))
    if not machines:
        wanted = wanted.where(User.role != "service")
    if filters.role is not None:
        wanted = wanted.where(User.role == filters.role)
    if filters.state is not None:
        is_off = filters.state == "disabled"
        wanted = wanted.where(User.disabled_at.is_not(None) if is_off else User.disabled_at.is_(None))
    if filters.state == "new":
        wanted = wanted.where(_is_new())
    if filters.email is not None:
        wanted = wanted.where(User.email == filters.email.strip().lower())
    if filters.q is not None and (q := filters.q.strip()):
        wanted = wanted.where(is_called(q))
    return page_of(session, wanted, User.created_at, User.id, filters)


def is_called(q: str) -> ColumnElement[bool]:
    """Whether these words are a part of a person's name or e-mail address."""
    return or_(*(one.icontains(q, autoescape=True) for one in (User.name, User.email)))


def new_of(session: Session, user_ids: Sequence[str]) -> set[str]:
    """Which of these accounts have no password yet, nor an account at the issuer."""
    return set(session.scalars(select(User.id).where(User.id.in_(user_ids), _is_new())))


def _is_new() -> Any:
    linked = exists().where(OpenIdLink.user_id == User.id)
    return (User.role != "service") & User.password_hash.is_(None) & ~linked


@router.post("/v1/users", status_code=201, responses=responses("account_exists"))
def create_user(body: NewUser, identity: Admin, service: ServiceDep, session: SessionDep) -> PasswordToken:
    """Make an account; the answer has the token with which its owner sets the password."""
    user = add_user(session, body.email, body.name, body.role, password_hash=None, by=identity)
    return _password_token(session, user, service.settings.one_time_s)


@router.get("/v1/users/{user_id}", dependencies=[allowed("admin")], responses=responses("not_found"))
def read_user(user_id: str, session: SessionDep) -> Account:
    """One account."""
    return Account.model_validate(user_named(session, user_id))


@router.patch("/v1/users/{user_id}", responses=responses("last_admin", "not_found"))
def change_user(
    user_id: str, body: UserChange, identity: Admin, service: ServiceDep, session: SessionDep
) -> Account:
    """Change a role, disable an account or enable it again; its tokens end at once."""
    user = user_named(session, user_id)
    if user.role == "admin" and (body.disabled or body.role not in (None, "admin")):
        keep_an_admin(session, user)  # locks the administrators, before the user is locked
    user = user_named(session, user_id, lock=True)
    if body.role is not None and body.role != user.role:
        if user.role == "service":
            raise ServiceError(
                "invalid_input",
                "a role for a machine",
                allowed="the role service, which machines keep",
                remedy="Make an account for the person.",
            )
        audit(session, identity, "user.role", user.id, {"from": user.role, "to": body.role})
        user.role = body.role
        user.version += 1
    if body.disabled is True and user.disabled_at is None:
        audit(session, identity, "user.disabled", user.id)
        user.disabled_at = now()
        user.version += 1
        sign_ins.end(service, session, user.id)
    if body.disabled is False and user.disabled_at is not None:
        audit(session, identity, "user.enabled", user.id)
        user.disabled_at = None
    session.flush()
    after_commit(session, lambda: service.identities.forget(user.id))
    return Account.model_validate(user)


@router.post("/v1/users/{user_id}/password-token", status_code=201, responses=responses("not_found"))
def create_password_token(
    user_id: str, identity: Admin, service: ServiceDep, session: SessionDep
) -> PasswordToken:
    """A token with which a user sets his password; tokens for him that were made before end."""
    user = user_named(session, user_id)
    if user.role == "service":
        raise not_found("person of that id")
    audit(session, identity, "user.password_token", user.id)
    return _password_token(session, user, service.settings.one_time_s)


@router.post("/v1/users/{user_id}/end-sign-ins", status_code=204, responses=responses("not_found"))
def end_sign_ins(user_id: str, identity: Admin, service: ServiceDep, session: SessionDep) -> Response:
    """End all sign-ins of a user, at once; he may sign in again. Machines have keys instead."""
    user = user_named(session, user_id)
    audit(session, identity, "user.sign_ins_ended", user.id)
    sign_ins.end(service, session, user.id)
    return Response(status_code=204)


def user_named(session: Session, user_id: str, *, lock: bool = False) -> User:
    """An account that was not deleted.

    Raises:
        ServiceError: there is none of that id.
    """
    user = locked_user(session, user_id) if lock else session.get(User, user_id)
    if user is None or user.deleted_at is not None:
        raise not_found("user of that id")
    return user


def _password_token(session: Session, user: User, lives_s: int) -> PasswordToken:
    token = one_time.make_token(session, "password", user_id=user.id, lives_s=lives_s)
    return PasswordToken(user_id=user.id, token=token, expires_at=now() + timedelta(seconds=lives_s))
