"""The states of a job, as workers change them: taken, kept, given back, ended. Every change is one transaction.

A worker that takes a job gets a token. Whoever writes for the job shows the token in the very transaction that
writes: an attempt whose lease was taken away, or that another has followed, can write nothing.

::

    queued ──claim──► running ──finish──► done
      ▲  ╲              │  │  ╲──refuse─► failed
      │   ╲──cancel──►  │  ╰──cancelled─► cancelled
      ╰──give_back, put_back, lease ran out (after the last attempt: failed)
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final, Literal

from sqlalchemy import and_, func, select, true, update
from sqlalchemy.engine import CursorResult
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session, aliased

from shelver.errors import ShelverError
from shelver.service.db import Database
from shelver.service.jobs.events import happened
from shelver.service.jobs.payloads import FINAL
from shelver.service.tables.accounts import AuditEntry, User
from shelver.service.tables.declarative import new_id, now
from shelver.service.tables.work import JobRow

DatabaseError = SQLAlchemyError
"""What is raised where the database does not answer, for those who do not know it otherwise."""
MAX_WAIT_S: Final = 60.0
"""Between two attempts, at most; the first waits are shorter."""
_AT_ONCE: Final = 10
_CODE: Final = "internal"


class LeaseLostError(ShelverError):
    """Another attempt may have the job by now; this one must stop."""

    def __init__(self, job_id: str) -> None:
        super().__init__(
            f"the lease of job {job_id} was lost",
            allowed="one attempt at a time",
            remedy="Nothing: another worker goes on with the job.",
        )


@dataclass(frozen=True, slots=True)
class Lease:
    """One attempt at a job.

    Attributes:
        job_id, kind, owner_id, params: of the job.
        token: shows that this is the attempt that may write.
        attempt: 1 for the first.
        lease_s: how long a worker may be silent.
    """

    job_id: str
    kind: str
    owner_id: str
    params: dict[str, Any]
    token: str
    attempt: int
    lease_s: float


def claim(database: Database, *, worker: str, lease_s: float, kinds: tuple[str, ...] = ()) -> Lease | None:
    """Take the job that has waited longest, of an owner who has fewest at work; None where none waits.

    Args:
        database: where the jobs are.
        worker: a name for people.
        lease_s: the job goes back to the queue when nothing was heard of it for this long.
        kinds: only of these; of all where there are none.
    """
    other = aliased(JobRow)
    at_work = (
        select(func.count())
        .where(other.owner_id == JobRow.owner_id, other.state == "running")
        .correlate(JobRow)
        .scalar_subquery()
    )
    ready = and_(JobRow.state == "queued", JobRow.not_before <= now())
    waiting = select(JobRow.id).where(ready, JobRow.kind.in_(kinds) if kinds else true())
    silent = select(JobRow.id).where(JobRow.state == "running", JobRow.lease_until < now()).limit(_AT_ONCE)
    # Looked for without a lock: workers with nothing to do keep nobody from writing.
    with database.reading() as session:
        lost = session.scalars(silent).all()
        # Who has few jobs at work comes before who has many.
        first = session.scalars(waiting.order_by(at_work, JobRow.created_at, JobRow.id).limit(_AT_ONCE)).all()
    for job_id in lost:
        with database.writing() as session:
            late = select(JobRow).where(JobRow.id == job_id, JobRow.state == "running", JobRow.lease_until < now())
            job = session.scalar(late.with_for_update(skip_locked=True))
            if job is not None:
                _after_attempt(session, job, "nothing was heard of its worker any more")
    for job_id in first:
        with database.writing() as session:
            mine = select(JobRow).where(JobRow.id == job_id, ready)
            job = session.scalar(mine.with_for_update(skip_locked=True))
            if job is not None:  # nobody was faster
                return _taken(session, job, worker, lease_s)
    return None


def _taken(session: Session, job: JobRow, worker: str, lease_s: float) -> Lease:
    token = new_id()
    job.state, job.lease_token, job.worker = "running", token, worker
    job.lease_until = now() + timedelta(seconds=lease_s)
    job.started_at = job.started_at or now()
    job.attempts += 1
    happened(session, job, "started")
    return Lease(job.id, job.kind, job.owner_id, job.params, token, job.attempts, lease_s)


@contextmanager
def holding(database: Database, lease: Lease) -> Iterator[tuple[Session, JobRow]]:
    """A transaction that is committed only if the lease is still this attempt's; the job's row is locked in it.

    Raises:
        LeaseLostError: it is not; nothing was written.
    """
    with database.writing() as session:
        mine = select(JobRow).where(
            JobRow.id == lease.job_id, JobRow.lease_token == lease.token, JobRow.state == "running"
        )
        job = session.scalar(mine.with_for_update())
        if job is None:
            raise LeaseLostError(lease.job_id)
        yield session, job


def extend(database: Database, lease: Lease) -> None:
    """Say that the attempt is alive.

    Raises:
        LeaseLostError: it is no longer the one that may write.
    """
    with database.writing() as session:
        changed = session.execute(
            update(JobRow)
            .where(JobRow.id == lease.job_id, JobRow.lease_token == lease.token, JobRow.state == "running")
            .values(lease_until=now() + timedelta(seconds=lease.lease_s))
        )
        assert isinstance(changed, CursorResult)
        if changed.rowcount != 1:
            raise LeaseLostError(lease.job_id)


def watch(database: Database, lease: Lease) -> Literal["go_on", "cancel", "ended", "lost"]:
    """What the attempt should do, from a look that changes nothing; nobody works for whoever has left."""
    seen = (
        select(JobRow.state, JobRow.lease_token, JobRow.cancel_at, User.disabled_at)
        .join(User, User.id == JobRow.owner_id)
        .where(JobRow.id == lease.job_id)
    )
    with database.reading() as session:
        row = session.execute(seen).one_or_none()
    if row is not None and row.state in ("done", "failed") and row.lease_token == lease.token:
        return "ended"
    if row is None or row.state != "running" or row.lease_token != lease.token:
        return "lost"
    return "cancel" if row.cancel_at is not None or row.disabled_at is not None else "go_on"


def is_over(database: Database, job_id: str) -> bool:
    """Whether the job has ended, so that nobody needs what it worked with."""
    with database.reading() as session:
        state = session.scalar(select(JobRow.state).where(JobRow.id == job_id))
    return state is None or state in FINAL


def tell(database: Database, lease: Lease, *, fraction: float | None, phase: str, words: str) -> None:
    """Note how far the attempt came.

    Raises:
        LeaseLostError: it is no longer the one that may write.
    """
    with holding(database, lease) as (session, job):
        told(session, job, fraction=fraction, phase=phase, words=words)


def told(session: Session, job: JobRow, *, fraction: float | None, phase: str, words: str, **data: Any) -> None:
    """As `tell`, in a transaction that `holding` gave; the event has `data`, too."""
    job.fraction, job.phase, job.words = fraction, phase[:64], words[:2000]
    happened(session, job, "progress", fraction=fraction, phase=job.phase, words=job.words, **data)


def finish(database: Database, lease: Lease, result: Mapping[str, Any]) -> None:
    """The job is done.

    Raises:
        LeaseLostError: the attempt is no longer the one that may write; the result is dropped.
    """
    with holding(database, lease) as (session, job):
        job.result, job.fraction = dict(result), 1.0
        if job.kind == "train":
            detail = json.dumps({**result, "job": job.id}, ensure_ascii=False, sort_keys=True)
            version = str(result.get("model_version"))
            session.add(AuditEntry(user_id=job.owner_id, action="model.register", subject=version, detail=detail))
        _end(session, job, "done", result=job.result)


def refuse(database: Database, lease: Lease, *, code: str, detail: str) -> None:
    """The job failed for a reason that another attempt would meet again; raises as `finish`."""
    with holding(database, lease) as (session, job):
        _fail(session, job, code, detail)


def stopped(database: Database, lease: Lease) -> None:
    """The job was cancelled and its process has ended; raises as `finish`."""
    with holding(database, lease) as (session, job):
        _end(session, job, "cancelled")


def give_back(database: Database, lease: Lease) -> None:
    """The worker stops; the attempt does not count. Raises as `finish`."""
    with holding(database, lease) as (session, job):
        job.attempts -= 1
        _requeue(session, job, "given_back", wait_s=0.0)


def put_back(database: Database, lease: Lease, reason: str) -> None:
    """The attempt ended without a result; the job waits for the next one, if there is one. Raises as `finish`."""
    with holding(database, lease) as (session, job):
        _after_attempt(session, job, reason)


def owner_may(database: Database, lease: Lease) -> str | None:
    """The role of the owner now; None where the account was disabled or deleted."""
    with database.reading() as session:
        user = session.get(User, lease.owner_id)
        return None if user is None or user.disabled_at is not None or user.deleted_at is not None else user.role


def _after_attempt(session: Session, job: JobRow, reason: str) -> None:
    if job.cancel_at is not None:
        _end(session, job, "cancelled")
    elif job.attempts >= job.max_attempts:
        last = f"attempt {job.attempts} of {job.max_attempts} ended without a result: {reason}"
        _fail(session, job, _CODE, f"{last}. Start the job again, or see the worker's log.")
    else:
        _requeue(session, job, "put_back", wait_s=min(2.0 ** (job.attempts - 1), MAX_WAIT_S), reason=reason)


def _requeue(session: Session, job: JobRow, kind: str, *, wait_s: float, **data: Any) -> None:
    if job.cancel_at is not None:
        _end(session, job, "cancelled")
        return
    job.state, job.lease_token, job.lease_until, job.worker = "queued", None, None, None
    job.not_before = now() + timedelta(seconds=wait_s)
    happened(session, job, kind, **data)


def _fail(session: Session, job: JobRow, code: str, detail: str) -> None:
    job.error_code, job.error = code, detail[:4000]
    _end(session, job, "failed", code=code, detail=job.error)


def _end(session: Session, job: JobRow, state: Literal["done", "failed", "cancelled"], **data: Any) -> None:
    # The token stays: so an attempt can see that it was its own end.
    job.state, job.ended_at, job.lease_until = state, now(), None
    happened(session, job, state, **data)
