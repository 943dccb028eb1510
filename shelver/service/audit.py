"""The audit: who changed what, and when. Rows are written with the change itself, and never changed."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Any

import structlog
from fastapi import APIRouter, Query
from pydantic import BaseModel, Field
from sqlalchemy import or_, select
from sqlalchemy.orm import Session

from shelver.service.accounts.identity import Identity, allowed
from shelver.service.db import SessionDep
from shelver.service.problems import not_found, responses
from shelver.service.tables.accounts import AuditEntry

router = APIRouter(tags=["audit"])


def audit(
    session: Session, identity: Identity | None, action: str, subject: str, detail: Mapping[str, Any] | None = None
) -> None:
    """Note a change; it stands in the audit if the change does.

    Args:
        session: the transaction of the change.
        identity: who made it; None where it was the command line.
        action: such as `user.role`.
        subject: what was changed, such as a user's id.
        detail: what is worth to know, without secrets.
    """
    session.add(
        AuditEntry(
            user_id=identity.user_id if identity else None,
            action=action,
            subject=subject,
            detail=json.dumps(detail or {}, ensure_ascii=False, sort_keys=True),
            request_id=structlog.contextvars.get_contextvars().get("request_id"),
        )
    )


class AuditLine(BaseModel):
    """One change."""

    id: str
    at: datetime
    user_id: str | None = Field(description="Who made it; null where it was the command line.")
    action: str = Field(examples=["user.role"])
    subject: str = Field(examples=["0f2c5b7e9a514f0ab3a6e1c1a7d0f1aa"])
    detail: dict[str, Any] = Field(examples=[{"role": "reviewer"}])
    request_id: str | None


class AuditPage(BaseModel):
    """Changes, the newest first."""

    items: list[AuditLine]
    next: str | None = Field(description="Give it as `after` for the next page; null where there is none.")


@router.get("/v1/audit", dependencies=[allowed("admin")], responses=responses("not_found"))
def list_audit(
    session: SessionDep,
    action: str | None = None,
    subject: str | None = None,
    after: str | None = None,
    limit: Annotated[int, Query(ge=1, le=500)] = 100,
) -> AuditPage:
    """Changes that were made, the newest first."""
    wanted = select(AuditEntry).order_by(AuditEntry.at.desc(), AuditEntry.id.desc()).limit(limit + 1)
    if action is not None:
        wanted = wanted.where(AuditEntry.action == action)
    if subject is not None:
        wanted = wanted.where(AuditEntry.subject == subject)
    if after is not None:
        last = session.get(AuditEntry, after)
        if last is None:
            raise not_found("audit line of that id")
        wanted = wanted.where(or_(AuditEntry.at < last.at, (AuditEntry.at == last.at) & (AuditEntry.id < last.id)))
    rows = list(session.scalars(wanted))
    lines = [
        AuditLine(
            id=row.id,
            at=row.at,
            user_id=row.user_id,
            action=row.action,
            subject=row.subject,
            detail=json.loads(row.detail),
            request_id=row.request_id,
        )
        for row in rows[:limit]
    ]
    return AuditPage(items=lines, next=lines[-1].id if len(rows) > limit else None)
