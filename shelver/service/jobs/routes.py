"""Jobs: what takes longer than a request. A route writes a row; `shelver worker` does the work."""

from __future__ import annotations

import hashlib
import json
from typing import Annotated, Any, Final

from fastapi import APIRouter, Header, Query, Request, Response
from fastapi import Path as InPath
from fastapi.responses import FileResponse
from sqlalchemy import ColumnElement, func, select, true
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session
from starlette.concurrency import run_in_threadpool

from shelver.service.accounts.identity import Identity, allowed
from shelver.service.audit import audit
from shelver.service.db import SessionDep
from shelver.service.jobs.checks import check_params
from shelver.service.jobs.events import EventStream, happened, stream
from shelver.service.jobs.keeping import FILES, job_folder
from shelver.service.jobs.payloads import (
    FINAL,
    FOR_ADMINISTRATORS,
    JobFilters,
    JobIn,
    JobPage,
    JobProblem,
    JobProgress,
    JobRead,
)
from shelver.service.paging import page_of
from shelver.service.problems import ServiceError, not_found, responses
from shelver.service.products.pictures import SEES_ALL
from shelver.service.state import Service, ServiceDep
from shelver.service.tables.accounts import User
from shelver.service.tables.declarative import now
from shelver.service.tables.work import JobRow

MAX_PARAMS_CHARS: Final = 32 * 2**10
_SENT: Final[dict[str, Any]] = {
    "X-Content-Type-Options": "nosniff",
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; img-src data:; sandbox",
}
JobId = Annotated[
    str, InPath(pattern=r"^[0-9a-f]{32}$", examples=["7c9e6b1f4d2a4e0f8b3c5d6a7e8f9a0b"], description="Its id.")
]
Starter = Annotated[Identity, allowed("seller", "admin", "service")]
Reader = Annotated[Identity, allowed("seller", "reviewer", "admin", "service")]
router = APIRouter(tags=["jobs"])


@router.post(
    "/v1/jobs",
    status_code=201,
    summary="Start a job",
    responses=responses("not_found", "not_allowed", "key_reused", "too_large", "too_many_requests", "not_ready"),
)
def start_job(
    body: JobIn,
    response: Response,
    session: SessionDep,
    service: ServiceDep,
    identity: Starter,
    idempotency_key: Annotated[
        str | None,
        Header(
            min_length=1,
            max_length=255,
            description="The same key with the same body gives the same job again, as long as the job is kept.",
            examples=["import-2026-11-21"],
        ),
    ] = None,
) -> JobRead:
    """Put a job into the queue. Sellers and machines import and predict; the rest is for administrators."""
    assert identity.user_id is not None  # no rule above lets anybody else in
    if body.kind in FOR_ADMINISTRATORS and identity.role != "admin":
        raise ServiceError(
            "not_allowed",
            f"a job of the kind {body.kind} from an account with the role {identity.role}",
            allowed="import_products and predict",
            remedy="Ask an administrator to start it.",
        )
    params = body.model_dump(mode="json")
    said = json.dumps(params, sort_keys=True)
    if len(said) > MAX_PARAMS_CHARS:
        raise ServiceError(
            "too_large",
            f"{len(said):,} characters of parameters",
            allowed=f"{MAX_PARAMS_CHARS:,}",
            remedy="Name fewer columns and attributes.",
        )
    key = body_hash = None
    if idempotency_key is not None:
        key = _sha256(f"{identity.user_id}\0{idempotency_key}")
        body_hash = _sha256(said)
        if (before := _repeated(session, key, body_hash)) is not None:
            response.headers["Idempotency-Replayed"] = "true"
            return _read(before)
    check_params(session, service, identity, body)
    # Of jobs that are started at once, each sees the one before.
    session.execute(select(User.id).where(User.id == identity.user_id).with_for_update())
    waiting = session.scalar(
        select(func.count())
        .select_from(JobRow)
        .where(JobRow.owner_id == identity.user_id, JobRow.state.in_(("queued", "running")))
    )
    most = service.settings.jobs_waiting
    if (waiting or 0) >= most:
        raise ServiceError(
            "too_many_requests",
            f"{waiting} jobs of this account that wait or run",
            allowed=f"{most} at a time",
            remedy="Wait until one of them has ended, or cancel it.",
            retry_after_s=30,
        )
    job = JobRow(
        owner_id=identity.user_id,
        kind=body.kind,
        params=params,
        state="queued",
        attempts=0,
        n_events=0,
        max_attempts=service.settings.job_attempts,
        repeat_key=key,
        body_hash=body_hash,
    )
    try:
        with session.begin_nested():
            session.add(job)
    except IntegrityError:  # the same key came twice at once
        before = _repeated(session, key or "", body_hash or "")
        if before is None:
            raise
        response.headers["Idempotency-Replayed"] = "true"
        return _read(before)
    happened(session, job, "queued")
    audit(session, identity, "job.start", job.id, {"kind": job.kind})
    return _read(job)


@router.get("/v1/jobs", summary="List jobs", responses=responses("invalid_input"))
def list_jobs(filters: Annotated[JobFilters, Query()], session: SessionDep, identity: Reader) -> JobPage:
    """One's own jobs, newest first; reviewers and administrators see everybody's."""
    wanted = select(JobRow).where(_seen_by(identity))
    for column, value in (
        (JobRow.kind, filters.kind),
        (JobRow.state, filters.state),
        (JobRow.owner_id, filters.owner_id),
    ):
        if value is not None:
            wanted = wanted.where(column == value)
    rows, following = page_of(session, wanted, JobRow.created_at, JobRow.id, filters)
    return JobPage(items=[_read(row) for row in rows], next=following)


@router.get("/v1/jobs/{job_id}", summary="A job", responses=responses("not_found"))
def read_job(job_id: JobId, session: SessionDep, identity: Reader) -> JobRead:
    """A job: how far it came, what came of it, or why it failed."""
    return _read(_found(session, identity, job_id))


@router.post("/v1/jobs/{job_id}/cancel", summary="Cancel a job", responses=responses("not_found"))
def cancel_job(job_id: JobId, session: SessionDep, identity: Starter) -> JobRead:
    """Stop a job. One that runs ends within some seconds; what it has stored by then stays. One that has ended is
    left as it is."""
    job = _found(session, identity, job_id, lock=True)
    if job.state not in FINAL and job.cancel_at is None:
        job.cancel_at = now()
        audit(session, identity, "job.cancel", job.id, {"kind": job.kind})
        if job.state == "queued":
            job.state, job.ended_at = "cancelled", now()
            happened(session, job, "cancelled")
        else:
            happened(session, job, "cancel_requested")
        session.flush()
    return _read(job)


@router.get(
    "/v1/jobs/{job_id}/events",
    status_code=200,
    summary="What happens in a job",
    response_class=EventStream,
    responses={
        200: {
            "description": "Server-sent events, until the last one",
            "content": {
                "text/event-stream": {
                    "example": 'id: 1\nevent: queued\ndata: {"state": "queued", "attempt": 0}\n\n',
                }
            },
        },
        204: {"description": "The job has ended, and the caller has its last event"},
        **responses("not_found", "too_many_requests"),
    },
)
async def follow_job(
    job_id: JobId,
    request: Request,
    service: ServiceDep,
    identity: Reader,
    last_event_id: Annotated[
        int | None,
        Header(ge=0, lt=2**31, description="Of the last event that the caller has; the next one is sent first."),
    ] = None,
    after: Annotated[
        int, Query(ge=0, lt=2**31, description="The same, for who cannot send the header.", examples=[0])
    ] = 0,
) -> Response:
    """The events of a job as they happen, each with a number, from the first one or after `Last-Event-ID`.

    `queued`, `started`, `progress`, `given_back` and `put_back` (another attempt follows), `cancel_requested`, and
    at last `done`, `failed` or `cancelled`. A stream ends after 15 minutes at most; connect again to go on.
    """
    last = after if last_event_id is None else last_event_id
    caller = identity.user_id or ""
    if await run_in_threadpool(_has_all, service, identity, job_id, last):
        return Response(status_code=204)
    service.streams.enter(caller)

    def stopping() -> bool:
        return bool(getattr(request.app.state, "stopping", False))

    events = stream(service.follower, service.database, job_id, last, stopping)
    return EventStream(events, lambda: service.streams.leave(caller))


@router.get(
    "/v1/jobs/{job_id}/files/{name}",
    summary="A file of a job",
    status_code=200,
    response_class=FileResponse,
    responses={
        200: {
            "description": "The bytes",
            "content": {
                "application/octet-stream": {
                    "schema": {"type": "string", "contentMediaType": "application/octet-stream"}
                }
            },
        },
        **responses("not_found"),
    },
)
def read_job_file(
    job_id: JobId,
    name: Annotated[str, InPath(pattern=r"^[a-z0-9][a-z0-9_.-]{0,99}$", examples=["rejected.jsonl"])],
    session: SessionDep,
    service: ServiceDep,
    identity: Reader,
) -> FileResponse:
    """A file that a job has written; the job lists their names."""
    job = _found(session, identity, job_id)
    path = job_folder(service.settings.data, job.id) / FILES / name
    if name not in _files_of(job) or not path.is_file():
        raise not_found(f"file {name} of job {job_id}")
    kind = "text/html" if path.suffix == ".html" else "application/octet-stream"
    return FileResponse(path, media_type=kind, filename=name, headers=_SENT)


def _seen_by(identity: Identity) -> ColumnElement[bool]:
    return true() if identity.role in SEES_ALL else JobRow.owner_id == identity.user_id


def _found(session: Session, identity: Identity, job_id: str, *, lock: bool = False) -> JobRow:
    wanted = select(JobRow).where(JobRow.id == job_id, _seen_by(identity))
    job = session.scalar(wanted.with_for_update() if lock else wanted)
    if job is None:
        raise not_found(f"job {job_id}")
    return job


def _has_all(service: Service, identity: Identity, job_id: str, last: int) -> bool:
    with service.database.reading() as session:
        job = _found(session, identity, job_id)
        return job.state in FINAL and last >= job.n_events


def _repeated(session: Session, key: str, body_hash: str) -> JobRow | None:
    job = session.scalar(select(JobRow).where(JobRow.repeat_key == key))
    if job is not None and job.body_hash != body_hash:
        raise ServiceError(
            "key_reused",
            "an Idempotency-Key that came with another job before",
            allowed="a new key for each new job",
            remedy="Send a key that was never used, or the same job again.",
        )
    return job


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _files_of(job: JobRow) -> list[str]:
    return list((job.result or {}).get("files", ()))


def _read(job: JobRow) -> JobRead:
    result = None if job.result is None else {name: v for name, v in job.result.items() if name != "files"}
    said: dict[str, Any] = {
        name: getattr(job, name)
        for name in (
            "id",
            "kind",
            "state",
            "owner_id",
            "params",
            "created_at",
            "started_at",
            "ended_at",
            "attempts",
            "max_attempts",
            "n_events",
        )
    }
    return JobRead(
        **said,
        cancel_requested=job.cancel_at is not None,
        progress=JobProgress(fraction=job.fraction, phase=job.phase, words=job.words),
        result=result,
        files=_files_of(job),
        problem=None if job.error_code is None else JobProblem(code=job.error_code, detail=job.error or ""),
    )
