"""Tables of accounts: users, sign-ins and their refresh tokens, API keys, one-time tokens; and the audit.

No token or password stands here, only their hashes.
"""

from __future__ import annotations

from datetime import datetime
from typing import Final

from sqlalchemy import ForeignKey, String, Text
from sqlalchemy.dialects.mysql import MEDIUMTEXT
from sqlalchemy.orm import Mapped, mapped_column

from shelver.service.tables.declarative import Base, WithId, now


class User(WithId, Base):
    """A person, or a machine (role `service`, without e-mail and password).

    A deleted user keeps his row, without anything that tells who he was, so that what refers to him stays whole.
    """

    __tablename__ = "users"

    email: Mapped[str | None] = mapped_column(String(254), unique=True)  # lower case
    name: Mapped[str] = mapped_column(String(100))
    password_hash: Mapped[str | None] = mapped_column(String(255))
    role: Mapped[str] = mapped_column(String(16))
    version: Mapped[int] = mapped_column(default=1)  # raised by each change that ends his access tokens
    created_at: Mapped[datetime] = mapped_column(default=now)
    disabled_at: Mapped[datetime | None]
    deleted_at: Mapped[datetime | None]


AGENT_CHARS: Final = 200


class SignIn(WithId, Base):
    """One sign-in and all tokens that came of it; revoking it ends them.

    `address` and `agent` say where it began, so that its owner can tell it from one that is not his.
    """

    __tablename__ = "sign_ins"

    user_id: Mapped[str] = mapped_column(ForeignKey("users.id"), index=True)
    created_at: Mapped[datetime] = mapped_column(default=now)
    expires_at: Mapped[datetime] = mapped_column(index=True)
    revoked_at: Mapped[datetime | None]
    address: Mapped[str | None] = mapped_column(String(64))
    agent: Mapped[str | None] = mapped_column(String(AGENT_CHARS))


class RefreshToken(WithId, Base):
    """A refresh token; each is used once, and one that is used twice revokes its sign-in."""

    __tablename__ = "refresh_tokens"

    sign_in_id: Mapped[str] = mapped_column(ForeignKey("sign_ins.id", ondelete="CASCADE"), index=True)
    hash: Mapped[str] = mapped_column(String(64), unique=True)
    created_at: Mapped[datetime] = mapped_column(default=now)
    used_at: Mapped[datetime | None]


class ApiKey(WithId, Base):
    """A key of a machine; `hint` is its beginning, so that people can tell keys apart."""

    __tablename__ = "api_keys"

    user_id: Mapped[str] = mapped_column(ForeignKey("users.id"), index=True)
    hash: Mapped[str] = mapped_column(String(64), unique=True)
    hint: Mapped[str] = mapped_column(String(16))
    created_at: Mapped[datetime] = mapped_column(default=now)
    expires_at: Mapped[datetime | None]
    revoked_at: Mapped[datetime | None]


class OneTimeToken(WithId, Base):
    """A token that makes the first administrator, or sets a user's password anew; it works once."""

    __tablename__ = "one_time_tokens"

    kind: Mapped[str] = mapped_column(String(16))
    user_id: Mapped[str | None] = mapped_column(ForeignKey("users.id"), index=True)
    hash: Mapped[str] = mapped_column(String(64), unique=True)
    created_at: Mapped[datetime] = mapped_column(default=now)
    expires_at: Mapped[datetime]
    used_at: Mapped[datetime | None]


class AuditEntry(WithId, Base):
    """Who changed what and when; rows are only ever added."""

    __tablename__ = "audit"

    at: Mapped[datetime] = mapped_column(default=now, index=True)
    user_id: Mapped[str | None] = mapped_column(ForeignKey("users.id"), index=True)  # None: the command line
    action: Mapped[str] = mapped_column(String(64), index=True)
    subject: Mapped[str] = mapped_column(String(255))
    detail: Mapped[str] = mapped_column(Text().with_variant(MEDIUMTEXT(), "mysql", "mariadb"))  # JSON
    request_id: Mapped[str | None] = mapped_column(String(64))
