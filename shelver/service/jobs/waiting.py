"""What people ask of jobs that go on: what happened last, and whether anybody works on them at all."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any, Final

from pydantic import BaseModel, ConfigDict
from sqlalchemy import exists, or_, select
from sqlalchemy.orm import Session

from shelver.service.tables.declarative import now
from shelver.service.tables.work import JobEventRow, JobRow

PATIENCE: Final = timedelta(seconds=20)
"""A worker that runs takes a job that waits much sooner, unless it is at work on others."""
N_EVENTS: Final = 50


class JobEvent(BaseModel):
    """Something that happened in a job."""

    model_config = ConfigDict(from_attributes=True, frozen=True)

    number: int
    at: datetime
    kind: str
    data: dict[str, Any]


def nobody_works(session: Session) -> bool:
    """Whether a job has waited for longer than a worker needs to take it, and none is being worked on."""
    moment = now()
    waits = exists().where(JobRow.state == "queued", JobRow.not_before < moment - PATIENCE)
    silent = exists().where(JobRow.state == "running", JobRow.lease_until < moment - PATIENCE)
    works = exists().where(JobRow.state == "running", JobRow.lease_until >= moment - PATIENCE)
    return bool(session.scalar(select(or_(waits, silent) & ~works)))


def latest_events(session: Session, job_id: str, n: int = N_EVENTS) -> Sequence[JobEvent]:
    """What happened in a job, the latest first."""
    rows = select(JobEventRow).where(JobEventRow.job_id == job_id).order_by(JobEventRow.number.desc()).limit(n)
    return [JobEvent.model_validate(row) for row in session.scalars(rows)]
