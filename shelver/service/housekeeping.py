"""The regular work of a server: what has ended, was used up or is shown by nobody is deleted.

The log of predictions deletes its own old entries, workers delete jobs. Several servers may do the same at once.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, Final, Self

import structlog
from prometheus_client import CollectorRegistry, Counter, Gauge
from sqlalchemy import delete, select

from shelver.service.accounts.personal import erased
from shelver.service.answers.repeat_store import forget_old
from shelver.service.db import Database
from shelver.service.jobs.keeping import days_ago, drop_old_uploads
from shelver.service.products.picture_store import PictureStore
from shelver.service.products.pictures import swept
from shelver.service.tables.accounts import OneTimeToken, SignIn, User
from shelver.service.tables.declarative import now
from shelver.settings import ServiceSettings

HOUR_S: Final = 3600.0
DAY_S: Final = 24 * HOUR_S
_FIRST_S: Final = 120.0
"""A server that has just started has better things to do."""
_AT_ONCE: Final = 500
_STOP_S: Final = 10.0
log = structlog.get_logger("shelver.service")


@dataclass(frozen=True)
class Part:
    """A part of the work.

    Attributes:
        name: of what is deleted.
        every_s: how often.
        do: does it step by step, and says after each how many were deleted.
    """

    name: str
    every_s: float
    do: Callable[[], Iterator[int]]


class Housekeeping:
    """Does each part in its turn, in one thread. `with` starts and stops it."""

    def __init__(self, parts: Sequence[Part], metrics: CollectorRegistry, *, first_s: float = _FIRST_S) -> None:
        self._parts = parts
        self._first_s = first_s
        self._last = Gauge(
            "shelver_housekeeping_done_at", "When it was last done, in Unix time.", ("part",), registry=metrics
        )
        self._deleted = Counter("shelver_housekeeping_deleted", "What was deleted.", ("part",), registry=metrics)
        self._failed = Counter("shelver_housekeeping_failures", "What went wrong.", ("part",), registry=metrics)
        for part in parts:
            self._failed.labels(part.name)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="shelver-housekeeping", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(_STOP_S)

    def do(self, part: Part) -> bool:
        """Do one part now; False where it failed, which harms no other."""
        n_deleted = 0
        try:
            for n in part.do():
                n_deleted += n
                if self._stop.is_set():
                    return True
        except Exception as error:  # whatever it was: the next turn may go well
            self._failed.labels(part.name).inc()
            log.error("housekeeping failed", part=part.name, error=type(error).__name__, exc_info=error)
            return False
        finally:
            self._deleted.labels(part.name).inc(n_deleted)
        self._last.labels(part.name).set(time.time())
        if n_deleted:
            log.info("housekeeping", part=part.name, n_deleted=n_deleted)
        return True

    def _run(self) -> None:
        # Servers that were started together must not all sweep together.
        due = {part.name: time.monotonic() + self._first_s * random.uniform(0.5, 1.5) for part in self._parts}
        while not self._stop.wait(max(0.0, min(due.values()) - time.monotonic())):
            part = min(self._parts, key=lambda one: due[one.name])
            self.do(part)
            due[part.name] = time.monotonic() + part.every_s * random.uniform(0.9, 1.1)


def parts_of(settings: ServiceSettings, database: Database, pictures: PictureStore) -> tuple[Part, ...]:
    """The parts of an installation."""
    return (
        Part("sign_ins", HOUR_S, lambda: _expired(database, SignIn)),
        Part("one_time_tokens", HOUR_S, lambda: _expired(database, OneTimeToken)),
        Part("answers", HOUR_S, lambda: _old_answers(database)),
        Part("deleted_accounts", HOUR_S, lambda: _erased(database, pictures, settings.data)),
        Part("uploads", HOUR_S, lambda: _old_uploads(database, settings)),
        Part("pictures", DAY_S, lambda: swept(pictures, database)),
    )


def _expired(database: Database, table: Any) -> Iterator[int]:
    """What has expired a day ago; with a sign-in go its refresh tokens."""
    before = now() - timedelta(days=1)
    while True:
        with database.writing() as session:
            ids = session.scalars(select(table.id).where(table.expires_at < before).limit(_AT_ONCE)).all()
            session.execute(delete(table).where(table.id.in_(ids)))
        yield len(ids)
        if len(ids) < _AT_ONCE:
            return


def _erased(database: Database, pictures: PictureStore, data: Path) -> Iterator[int]:
    """What people who have deleted their account left: where a process ended meanwhile, or the log came later."""
    recently = User.deleted_at > now() - timedelta(days=7)
    with database.reading() as session:
        gone = session.scalars(select(User.id).where(recently)).all()
    for user_id in gone:
        yield from erased(database, pictures, data, user_id)


def _old_answers(database: Database) -> Iterator[int]:
    n_deleted = 1
    while n_deleted:
        with database.writing() as session:
            n_deleted = forget_old(session)
        yield n_deleted


def _old_uploads(database: Database, settings: ServiceSettings) -> Iterator[int]:
    yield drop_old_uploads(database, settings.data, days_ago(settings.job_keep_days))
