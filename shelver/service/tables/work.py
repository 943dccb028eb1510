"""Tables of long work: jobs, what happened in them, and the feeds that people uploaded for them."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import JSON, ForeignKey, Index, String, Text, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from shelver.service.tables.declarative import Base, WithId, now
from shelver.service.tables.records import ID_CHARS, NAME_CHARS, WORD_CHARS


class JobRow(WithId, Base):
    """A job: queued, running, done, failed or cancelled; the last three are final.

    While it runs, `lease_token` names the one attempt that may write; `lease_until` is when it is taken away from
    a worker that no longer says it is alive. `cursor` counts the records of a feed that are settled, `n_events`
    the events. `repeat_key` is the hash of its owner and his Idempotency-Key, `body_hash` that of what came with
    it.
    """

    __tablename__ = "jobs"

    owner_id: Mapped[str] = mapped_column(ForeignKey("users.id"))
    kind: Mapped[str] = mapped_column(String(WORD_CHARS))
    params: Mapped[dict[str, Any]] = mapped_column(JSON)
    state: Mapped[str] = mapped_column(String(WORD_CHARS), default="queued")
    created_at: Mapped[datetime] = mapped_column(default=now)
    not_before: Mapped[datetime] = mapped_column(default=now)
    started_at: Mapped[datetime | None]
    ended_at: Mapped[datetime | None]
    cancel_at: Mapped[datetime | None]
    lease_token: Mapped[str | None] = mapped_column(String(ID_CHARS))
    lease_until: Mapped[datetime | None]
    worker: Mapped[str | None] = mapped_column(String(NAME_CHARS))
    attempts: Mapped[int] = mapped_column(default=0)
    max_attempts: Mapped[int]
    fraction: Mapped[float | None]
    phase: Mapped[str | None] = mapped_column(String(WORD_CHARS))
    words: Mapped[str | None] = mapped_column(Text)
    cursor: Mapped[int] = mapped_column(default=0)
    n_events: Mapped[int] = mapped_column(default=0)
    result: Mapped[dict[str, Any] | None] = mapped_column(JSON(none_as_null=True))
    error_code: Mapped[str | None] = mapped_column(String(WORD_CHARS))
    error: Mapped[str | None] = mapped_column(Text)
    repeat_key: Mapped[str | None] = mapped_column(String(64), unique=True)
    body_hash: Mapped[str | None] = mapped_column(String(64))

    __table_args__ = (
        Index(None, "state", "created_at", "id"),
        Index(None, "owner_id", "created_at", "id"),
        Index(None, "created_at", "id"),
    )


class JobEventRow(Base):
    """Something that happened in a job; numbers count from 1 without a gap, in the order of the commits."""

    __tablename__ = "job_events"

    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    at: Mapped[datetime] = mapped_column(default=now)
    kind: Mapped[str] = mapped_column(String(WORD_CHARS))
    data: Mapped[dict[str, Any]] = mapped_column(JSON)


class UploadRow(WithId, Base):
    """A file that somebody uploaded; the bytes lie in the data folder under their SHA-256."""

    __tablename__ = "uploads"

    owner_id: Mapped[str] = mapped_column(ForeignKey("users.id"))
    hash: Mapped[str] = mapped_column(String(64), index=True)
    name: Mapped[str] = mapped_column(String(NAME_CHARS))
    n_bytes: Mapped[int]
    created_at: Mapped[datetime] = mapped_column(default=now)

    __table_args__ = (UniqueConstraint("owner_id", "hash"), Index(None, "owner_id", "created_at", "id"))
