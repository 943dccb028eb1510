"""Tokens that work once: they make the first administrator, or let a user set his password."""

from __future__ import annotations

from datetime import timedelta
from typing import Any, Literal

from sqlalchemy import select, update
from sqlalchemy.orm import Session

from shelver.service.accounts.tokens import ONE_TIME_PREFIX, hash_of, random_token
from shelver.service.problems import ServiceError
from shelver.service.tables.accounts import OneTimeToken, User
from shelver.service.tables.declarative import now

Kind = Literal["first_admin", "password", "mailed"]
"""`password` comes from an administrator, `mailed` by mail: who asks for a mail must not end the other."""


def make_token(session: Session, kind: Kind, *, user_id: str | None, lives_s: int) -> str:
    """A new token; those of the same kind and user that were made before end."""
    session.execute(_unused(kind, user_id).values(used_at=now()))
    token = random_token(ONE_TIME_PREFIX)
    expires_at = now() + timedelta(seconds=lives_s)
    session.add(OneTimeToken(kind=kind, user_id=user_id, hash=hash_of(token), expires_at=expires_at))
    return token


def find_token(session: Session, token: str, *kinds: Kind) -> OneTimeToken:
    """The row of a token that can be used.

    Raises:
        ServiceError: it cannot.
    """
    row = session.scalar(select(OneTimeToken).where(OneTimeToken.hash == hash_of(token)))
    if row is None or row.kind not in kinds or row.used_at is not None or row.expires_at <= now():
        raise unusable()
    return row


def use_token(session: Session, row: OneTimeToken) -> None:
    """Use a token up.

    Raises:
        ServiceError: somebody was faster.
    """
    mine = update(OneTimeToken).where(OneTimeToken.id == row.id, OneTimeToken.used_at.is_(None))
    if session.execute(mine.values(used_at=now())).rowcount == 0:  # type: ignore[attr-defined]
        raise unusable()


def end_tokens(session: Session, user_id: str) -> None:
    """End all tokens of a user that were not used."""
    mine = update(OneTimeToken).where(OneTimeToken.user_id == user_id, OneTimeToken.used_at.is_(None))
    session.execute(mine.values(used_at=now()))


def has_admin(session: Session) -> bool:
    """Whether somebody administrates this installation."""
    return session.scalar(active_admins().limit(1)) is not None


def active_admins() -> Any:
    """Users who can administrate."""
    admins = select(User.id).where(User.role == "admin", User.disabled_at.is_(None), User.deleted_at.is_(None))
    return admins.order_by(User.id)  # who locks them does so in one order


def unusable() -> ServiceError:
    """The refusal of a token, whatever is wrong with it."""
    return ServiceError(
        "token_unusable",
        "a token that cannot be used",
        allowed="one that has not been used, revoked or expired",
        remedy="Ask for a new one, or sign in again.",
    )


def _unused(kind: Kind, user_id: str | None) -> Any:
    return update(OneTimeToken).where(
        OneTimeToken.kind == kind, OneTimeToken.user_id == user_id, OneTimeToken.used_at.is_(None)
    )
