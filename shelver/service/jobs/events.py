"""What happened in a job: rows that are numbered without a gap, and a stream of them that outlives a connection.

A stream holds neither a thread nor a session while it waits: one look, twice a second, serves all of them.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any, Final

from fastapi.responses import StreamingResponse
from sqlalchemy import select
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session
from starlette.concurrency import run_in_threadpool
from starlette.types import Receive, Scope, Send

from shelver.service.db import Database
from shelver.service.jobs.payloads import FINAL
from shelver.service.tables.declarative import now
from shelver.service.tables.work import JobEventRow, JobRow

LOOK_EVERY_S: Final = 0.5
HEARTBEAT_S: Final = 15.0
STREAM_S: Final = 900.0
"""A stream ends after this time, so that whoever goes on with it shows again who he is."""
_AT_ONCE: Final = 200


def happened(session: Session, job: JobRow, kind: str, **data: Any) -> None:
    """Note an event in the transaction of what it tells; the row of the job must be locked by it, or be new."""
    job.n_events += 1
    moment = now()
    said = {"state": job.state, "attempt": job.attempts, "at": moment.isoformat(), **data}
    session.add(JobEventRow(job_id=job.id, number=job.n_events, at=moment, kind=kind, data=said))


class Follower:
    """Looks at all jobs that somebody follows, together and twice a second; used from one event loop."""

    def __init__(self) -> None:
        self._followed: Counter[str] = Counter()
        self._n_events: dict[str, int] = {}
        self._looking: asyncio.Task[None] | None = None

    @contextmanager
    def following(self, database: Database, job_id: str) -> Iterator[None]:
        """Look at a job, too, as long as the block runs."""
        self._followed[job_id] += 1
        if self._looking is None or self._looking.done():
            self._looking = asyncio.get_running_loop().create_task(self._look(database))
        try:
            yield
        finally:
            self._followed[job_id] -= 1
            if not self._followed[job_id]:
                del self._followed[job_id]
                self._n_events.pop(job_id, None)

    def moved(self, job_id: str, after: int) -> bool:
        """Whether there are events after this number, as far as is known; or the job is gone."""
        return self._n_events.get(job_id, 0) != after

    async def _look(self, database: Database) -> None:
        while self._followed:
            with suppress(SQLAlchemyError):  # it may be back in a moment
                wanted = list(self._followed)
                found = await run_in_threadpool(_counts, database, wanted)
                self._n_events.update({job_id: found.get(job_id, -1) for job_id in wanted})
            await asyncio.sleep(LOOK_EVERY_S)


class EventStream(StreamingResponse):
    """A stream that tells of its end, however it ends."""

    media_type = "text/event-stream"

    def __init__(self, content: AsyncIterator[str], ended: Callable[[], None]) -> None:
        super().__init__(content, headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"})
        self._ended = ended

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._ended()


async def stream(
    follower: Follower, database: Database, job_id: str, after: int, stopping: Callable[[], bool]
) -> AsyncIterator[str]:
    """The events of a job after a number, as server-sent events, until the last one.

    Args:
        follower: looks for new ones.
        database: where they are.
        job_id: the job.
        after: number of the last event that the caller has.
        stopping: whether the server is about to stop; then the stream ends, and the caller comes back.
    """
    began = said = time.monotonic()
    looked = False
    yield "retry: 2000\n\n"
    with follower.following(database, job_id):
        while not stopping() and time.monotonic() - began < STREAM_S:
            if not looked or follower.moved(job_id, after):
                looked = True
                try:
                    rows, over = await run_in_threadpool(_events, database, job_id, after)
                except SQLAlchemyError:
                    return  # whoever reads comes back, with the number of the last event
                for row in rows:
                    yield _text_of(row)
                    after, said = row.number, time.monotonic()
                if over:
                    return
                if len(rows) == _AT_ONCE:
                    continue
            if time.monotonic() - said > HEARTBEAT_S:
                said = time.monotonic()
                yield ": still here\n\n"
            await asyncio.sleep(LOOK_EVERY_S)


def _counts(database: Database, job_ids: Sequence[str]) -> dict[str, int]:
    with database.reading() as session:
        rows = session.execute(select(JobRow.id, JobRow.n_events).where(JobRow.id.in_(job_ids)))
        return {row.id: row.n_events for row in rows}


def _events(database: Database, job_id: str, after: int) -> tuple[Sequence[JobEventRow], bool]:
    """The next events, and whether none will come after them."""
    wanted = (
        select(JobEventRow)
        .where(JobEventRow.job_id == job_id, JobEventRow.number > after)
        .order_by(JobEventRow.number)
        .limit(_AT_ONCE)
    )
    with database.reading() as session:
        # The job first: what is final when it is read has all its events already.
        state = session.scalar(select(JobRow.state).where(JobRow.id == job_id))
        rows = session.scalars(wanted).all()
    return rows, (state is None or state in FINAL) and len(rows) < _AT_ONCE


def _text_of(row: JobEventRow) -> str:
    # JSON has no line ends of its own, so one line of data is enough.
    return f"id: {row.number}\nevent: {row.kind}\ndata: {json.dumps(row.data)}\n\n"
