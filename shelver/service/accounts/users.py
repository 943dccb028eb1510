"""Users, as administrators see them: list, make, change role, disable, reset a password."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Annotated, Literal

from fastapi import APIRouter, Query
from pydantic import BaseModel, Field
from sqlalchemy import select
from sqlalchemy.orm import Session

from shelver.service.accounts import one_time, sign_ins
from shelver.service.accounts.identity import Identity, allowed
from shelver.service.accounts.payloads import Account, Email, Name
from shelver.service.accounts.routes import add_user, keep_an_admin, locked_user
from shelver.service.audit import audit
from shelver.service.db import SessionDep, after_commit
from shelver.service.problems import ServiceError, not_found, responses
from shelver.service.state import ServiceDep
from shelver.service.tables.accounts import User
from shelver.service.tables.declarative import now

router = APIRouter(tags=["users"])
Admin = Annotated[Identity, allowed("admin")]
PersonRole = Literal["seller", "reviewer", "admin"]


class UserPage(BaseModel):
    """Users, by id."""

    items: list[Account]
    next: str | None = Field(description="Give it as `after` for the next page; null where there is none.")


class NewUser(BaseModel):
    """An account that an administrator makes for somebody, who sets the password himself."""

    email: Email
    name: Name
    role: PersonRole = "seller"


class UserChange(BaseModel):
    """What an administrator may change; what is left out stays."""

    role: PersonRole | None = Field(None, examples=["reviewer"])
    disabled: bool | None = None


class PasswordToken(BaseModel):
    """A token that sets a password at /v1/reset; it is shown once."""

    user_id: str
    token: str = Field(examples=["sho_nFc8lY0yZkq"])
    expires_at: datetime


@router.get("/v1/users", dependencies=[allowed("admin")])
def list_users(
    session: SessionDep,
    role: Literal["seller", "reviewer", "admin", "service"] | None = None,
    email: str | None = None,
    after: str | None = None,
    limit: Annotated[int, Query(ge=1, le=500)] = 100,
) -> UserPage:
    """Accounts that were not deleted."""
    wanted = select(User).where(User.deleted_at.is_(None)).order_by(User.id).limit(limit + 1)
    if role is not None:
        wanted = wanted.where(User.role == role)
    if email is not None:
        wanted = wanted.where(User.email == email.strip().lower())
    if after is not None:
        wanted = wanted.where(User.id > after)
    rows = list(session.scalars(wanted))
    items = [Account.model_validate(row) for row in rows[:limit]]
    return UserPage(items=items, next=items[-1].id if len(rows) > limit else None)


@router.post("/v1/users", status_code=201, responses=responses("account_exists"))
def create_user(body: NewUser, identity: Admin, service: ServiceDep, session: SessionDep) -> PasswordToken:
    """Make an account; the answer has the token with which its owner sets the password."""
    user = add_user(session, body.email, body.name, body.role, password_hash=None, by=identity)
    return _password_token(session, user, service.settings.one_time_s)


@router.get("/v1/users/{user_id}", dependencies=[allowed("admin")], responses=responses("not_found"))
def read_user(user_id: str, session: SessionDep) -> Account:
    """One account."""
    return Account.model_validate(_user(session, user_id))


@router.patch("/v1/users/{user_id}", responses=responses("last_admin", "not_found"))
def change_user(
    user_id: str, body: UserChange, identity: Admin, service: ServiceDep, session: SessionDep
) -> Account:
    """Change a role, disable an account or enable it again; its tokens end at once."""
    user = _user(session, user_id)
    if user.role == "admin" and (body.disabled or body.role not in (None, "admin")):
        keep_an_admin(session, user)  # locks the administrators, before the user is locked
    user = _user(session, user_id, lock=True)
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
    user = _user(session, user_id)
    if user.role == "service":
        raise not_found("person of that id")
    audit(session, identity, "user.password_token", user.id)
    return _password_token(session, user, service.settings.one_time_s)


def _user(session: Session, user_id: str, *, lock: bool = False) -> User:
    user = locked_user(session, user_id) if lock else session.get(User, user_id)
    if user is None or user.deleted_at is not None:
        raise not_found("user of that id")
    return user


def _password_token(session: Session, user: User, lives_s: int) -> PasswordToken:
    token = one_time.make_token(session, "password", user_id=user.id, lives_s=lives_s)
    return PasswordToken(user_id=user.id, token=token, expires_at=now() + timedelta(seconds=lives_s))
