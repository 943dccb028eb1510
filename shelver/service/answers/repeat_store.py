"""Answers that were given under an Idempotency-Key, in the database: every server finds them, for a day."""

from __future__ import annotations

import asyncio
import hashlib
import time
import zlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import timedelta
from typing import Final, Generic, TypeVar

import structlog
from prometheus_client import CollectorRegistry, Counter
from sqlalchemy import delete, insert, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from shelver.service.db import Database
from shelver.service.problems import ServiceError
from shelver.service.tables.declarative import now
from shelver.service.tables.repeats import RepeatRow

KEPT_S: Final = 24 * 3600.0
MAX_ROWS: Final = 1_000_000
"""Beyond it the oldest are forgotten earlier."""
PATIENCE_S: Final = 5.0
"""A prediction waits no longer for a database that hangs, and the next ones as long do not wait at all."""
_AWAY_S: Final = 1.0
"""How long nobody asks a database that did not answer."""
_DELETED_AT_ONCE: Final = 1000
_GROUP: Final = 64

In = TypeVar("In")
Out = TypeVar("Out")
log = structlog.get_logger("shelver.service")


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer under the name of its caller and key, with the hash of what was asked."""

    name: str
    body_hash: str
    body: bytes


def name_of(caller: str, key: str) -> str:
    """SHA-256 of caller and key: it has the same length for all, and tells nobody who it was."""
    return hashlib.sha256(f"{caller}\0{key}".encode()).hexdigest()


def repeated(session: Session, caller: str, key: str, body_hash: str) -> bytes | None:
    """The answer that was given under this key, if there was one.

    Raises:
        ServiceError: the key came with another body.
    """
    found = _found(session, [name_of(caller, key)])
    for answer in found.values():
        if answer.body_hash != body_hash:
            raise key_reused()
        return answer.body
    return None


def remember(session: Session, caller: str, key: str, body_hash: str, body: bytes) -> None:
    """Keep an answer, in the transaction that makes it true; of several with this key one is committed.

    Raises:
        ServiceError: the same request is being answered elsewhere; nothing of this one may be kept.
    """
    try:
        _insert(session, [Answer(name_of(caller, key), body_hash, body)])
    except IntegrityError as error:
        raise ServiceError(
            "conflict",
            "a request whose first sending is answered just now",
            allowed="one request with this Idempotency-Key at a time",
            remedy="Send it again, for the first one's answer.",
            retry_after_s=1,
        ) from error


def forget_old(session: Session) -> int:
    """Delete answers that were kept for a day, and the oldest of too many; how many were deleted."""
    before = now() - timedelta(seconds=KEPT_S)
    too_many = session.scalar(select(RepeatRow.at).order_by(RepeatRow.at.desc()).offset(MAX_ROWS).limit(1))
    old = select(RepeatRow.name).where(RepeatRow.at <= max(before, too_many or before))
    names = session.scalars(old.order_by(RepeatRow.at).limit(_DELETED_AT_ONCE)).all()
    if names:
        session.execute(delete(RepeatRow).where(RepeatRow.name.in_(names)))
    return len(names)


class _Together(Generic[In, Out]):
    """Does work in a thread, for all who asked while it was busy at once."""

    def __init__(self, threads: ThreadPoolExecutor, work: Callable[[Sequence[In]], list[Out]]) -> None:
        self._threads = threads
        self._work = work
        self._waiting: list[tuple[In, asyncio.Future[Out | Exception]]] = []
        self._task: asyncio.Task[None] | None = None

    def do(self, one: In) -> asyncio.Future[Out | Exception]:
        """What the work gives for this one, or the error that it ends in."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Out | Exception] = loop.create_future()
        self._waiting.append((one, future))
        if self._task is None or self._task.done():
            self._task = loop.create_task(self._run())
        return future

    async def _run(self) -> None:
        while self._waiting:
            group, self._waiting = self._waiting[:_GROUP], self._waiting[_GROUP:]
            asked = [one for one, _ in group]
            given: Sequence[Out | Exception]
            try:
                given = await asyncio.get_running_loop().run_in_executor(self._threads, self._work, asked)
            except Exception as error:
                given = [error] * len(group)
            for (_, future), answer in zip(group, given, strict=True):
                if not future.done():  # who asked may have left
                    future.set_result(answer)


class RepeatStore:
    """Finds and keeps answers for an event loop; those that come together share transactions.

    Args:
        database: where they are. While it does not answer, nothing is found or kept.
        metrics: tells how often that was so.
    """

    def __init__(self, database: Database, metrics: CollectorRegistry) -> None:
        self._database = database
        self._missed = Counter(
            "shelver_repeats_missed", "Idempotency-Keys that the database did not take.", registry=metrics
        )
        self._threads = ThreadPoolExecutor(2, thread_name_prefix="shelver-repeats")
        self._finding: _Together[str, Answer | None] = _Together(self._threads, self._find_all)
        self._keeping: _Together[Answer, Answer] = _Together(self._threads, self._keep_all)
        self._away_until = 0.0

    def close(self) -> None:
        """End what is at work."""
        self._threads.shutdown()

    async def find(self, name: str) -> Answer | None:
        """The answer of this name, if there is one."""
        return await self._patiently(self._finding, name, None)

    async def keep(self, answer: Answer) -> Answer:
        """Keep an answer; the one that was kept first under its name."""
        return await self._patiently(self._keeping, answer, answer)

    async def _patiently(self, together: _Together[In, Out], one: In, otherwise: Out) -> Out:
        if time.monotonic() >= self._away_until:
            try:
                async with asyncio.timeout(PATIENCE_S):
                    done = await together.do(one)
            except TimeoutError as error:
                done = error
            if not isinstance(done, Exception):
                return done
            # Whatever it is: predictions go on.
            away_s = PATIENCE_S if isinstance(done, TimeoutError) else _AWAY_S
            self._away_until = time.monotonic() + away_s
            log.warning("an Idempotency-Key is kept in memory only", error=type(done).__name__)
        self._missed.inc()
        return otherwise

    def _find_all(self, names: Sequence[str]) -> list[Answer | None]:
        with self._database.reading() as session:
            found = _found(session, names)
        return [found.get(name) for name in names]

    def _keep_all(self, answers: Sequence[Answer]) -> list[Answer]:
        try:
            with self._database.writing() as session:
                kept = _found(session, [answer.name for answer in answers])
                new = {answer.name: answer for answer in answers if answer.name not in kept}
                _insert(session, list(new.values()))
                return [(new | kept)[answer.name] for answer in answers]
        except IntegrityError:  # another server was first, with one of them
            if len(answers) > 1:
                return [self._keep_all([answer])[0] for answer in answers]
            with self._database.reading() as session:
                return [_found(session, [answer.name])[answer.name] for answer in answers]


def _found(session: Session, names: Sequence[str]) -> dict[str, Answer]:
    kept = select(RepeatRow.name, RepeatRow.body_hash, RepeatRow.answer)
    kept = kept.where(RepeatRow.name.in_(names), RepeatRow.at > now() - timedelta(seconds=KEPT_S))
    return {
        row.name: Answer(row.name, row.body_hash, zlib.decompress(row.answer)) for row in session.execute(kept)
    }


def _insert(session: Session, answers: Sequence[Answer]) -> None:
    if not answers:
        return
    at = now()
    names = [answer.name for answer in answers]
    outdated = at - timedelta(seconds=KEPT_S)
    session.execute(delete(RepeatRow).where(RepeatRow.name.in_(names), RepeatRow.at <= outdated))
    rows = [
        {"name": one.name, "body_hash": one.body_hash, "answer": zlib.compress(one.body, 1), "at": at}
        for one in answers
    ]
    session.execute(insert(RepeatRow), rows)


def key_reused() -> ServiceError:
    """The key came with another request."""
    return ServiceError(
        "key_reused",
        "an Idempotency-Key that came with another request before",
        allowed="a new key for each new request",
        remedy="Send a key that was never used, or the same request again.",
    )
