"""The audit: who changed what, and when. Rows are written with the change itself, and never changed."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Annotated, Any

import structlog
from fastapi import APIRouter, Query
from sqlalchemy import ColumnElement, select
from sqlalchemy.orm import Session

from shelver.service.accounts.identity import Identity, allowed
from shelver.service.accounts.payloads import AuditFilters, AuditLine, AuditPage
from shelver.service.db import SessionDep
from shelver.service.paging import page_of
from shelver.service.problems import responses
from shelver.service.tables.accounts import AuditEntry, User

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


@router.get("/v1/audit", dependencies=[allowed("admin")], responses=responses("invalid_input"))
def list_audit(filters: Annotated[AuditFilters, Query()], session: SessionDep) -> AuditPage:
    """Changes that were made, the newest first."""
    return find_changes(session, filters)


def find_changes(session: Session, filters: AuditFilters, *, by: ColumnElement[bool] | None = None) -> AuditPage:
    """The changes that the filters mean; with `by`, a condition on users, of whom one made it."""
    wanted = select(AuditEntry)
    if by is not None:
        wanted = wanted.where(AuditEntry.user_id.in_(select(User.id).where(by)))
    for column, value in (
        (AuditEntry.action, filters.action),
        (AuditEntry.subject, filters.subject),
        (AuditEntry.user_id, filters.user_id),
    ):
        if value is not None:
            wanted = wanted.where(column == value)
    if filters.start is not None:
        wanted = wanted.where(AuditEntry.at >= filters.start)
    if filters.end is not None:
        wanted = wanted.where(AuditEntry.at < filters.end)
    rows, following = page_of(session, wanted, AuditEntry.at, AuditEntry.id, filters)
    who = {row.user_id for row in rows if row.user_id is not None}
    names = {user.id: user.name for user in session.scalars(select(User).where(User.id.in_(who)))}
    lines = [
        AuditLine(
            id=row.id,
            at=row.at,
            user_id=row.user_id,
            user_name=names.get(row.user_id or ""),
            action=row.action,
            subject=row.subject,
            detail=json.loads(row.detail),
            request_id=row.request_id,
        )
        for row in rows
    ]
    return AuditPage(items=lines, next=following)
