"""The log of predictions: each answer is written down by one thread, many in one transaction.

`PredictionLog.write` returns at once, and what it has taken outlives the process: it stands in a journal, which a
loss of power may take. An entry is *safe* from that too when it is in the database, or, while that is down, in a
file on disk (`shelver.service.records.spill`) from which it goes to the database when that is back. Either way it
is stored once, by its id, also where a process is killed between the two.
"""

from __future__ import annotations

import math
import threading
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final, Self

import structlog

from shelver.service.db import Database
from shelver.service.drivers import DOWN
from shelver.service.problems import ServiceError
from shelver.service.records.entries import (
    Also,
    Entry,
    can_be_read,
    delete_before,
    entry_of,
    insert_entries,
    line_of,
)
from shelver.service.records.spill import Journal, Spill

__all__ = ["GROUP", "MAX_WAITING", "WAIT_MS", "Entry", "LogFigures", "LogFullError", "PredictionLog"]

GROUP: Final = 256
"""Entries a transaction."""
WAIT_MS: Final = 50
"""How long the first entry of a group waits for others."""
MAX_WAITING: Final = 50_000
"""Entries in memory; beyond it `write` refuses. Only reached where neither database nor disk can be written."""

_RETRY_S: Final = 1.0
_RETENTION_S: Final = 3600.0
_ADOPT_S: Final = 60.0
_REJECTED: Final = "rejected.txt"
_DOWN: Final = (*DOWN, OSError)
_log = structlog.get_logger("shelver.service.records.log")


class LogFullError(ServiceError):
    """The log takes no more: neither the database nor the disk could be written for long, or it was stopped."""

    def __init__(self, received: str) -> None:
        super().__init__(
            "busy",
            received,
            allowed=f"at most {MAX_WAITING} entries that wait",
            remedy="Send the request again later; the operator finds the reason in the server's log.",
            retry_after_s=5,
        )


@dataclass(frozen=True, slots=True)
class LogFigures:
    """What the writer did since it started.

    Attributes:
        n_waiting: entries in memory, not yet safe.
        n_stored: entries written to the database.
        n_spilled: entries written to disk because the database was down.
        n_rejected: entries that the database refuses for what they are; they lie in `rejected.txt`.
        database_up: whether the last try succeeded.
    """

    n_waiting: int
    n_stored: int
    n_spilled: int
    n_rejected: int
    database_up: bool


class PredictionLog:
    """The writer. `start` it once a process, `stop` it at the end; both are done by `with`.

    Args:
        database: where the entries go.
        folder: where entries wait while it is down; processes may share one.
        keep_days: older entries are deleted; None keeps all.
        also: what else is written of entries, in their transaction; see `insert_entries`.
        max_waiting: entries in memory at most.
    """

    def __init__(
        self,
        database: Database,
        folder: Path,
        *,
        keep_days: float | None = None,
        also: Also | None = None,
        max_waiting: int = MAX_WAITING,
    ) -> None:
        self._database = database
        self._folder = folder
        self._spill = Spill(folder)
        self._journal = Journal(folder)
        self._journal_works = True
        self._keep_days = keep_days
        self._also = also
        self._max_waiting = max_waiting
        self._changed = threading.Condition()
        self._queue: deque[Entry] = deque()
        self._ids: set[str] = set()
        self._n_written = self._n_safe = 0
        self._n_stored = self._n_spilled = self._n_rejected = 0
        self._hurry = self._stopping = False
        # The thread's own; times are of the monotonic clock.
        self._up = self._something_on_disk = True
        self._retry_at = self._retention_at = self._adopt_at = self._next_turn = 0.0
        self._thread = threading.Thread(target=self._run, name="shelver-log", daemon=True)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        """Begin to write, what an earlier process left on disk too."""
        self._thread.start()

    def stop(self, timeout_s: float = 30.0) -> bool:
        """Make every entry safe and end; True where that was done in time."""
        with self._changed:
            self._stopping = True
            self._changed.notify_all()
        if self._thread.ident is not None:
            self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def write(self, entry: Entry) -> int:
        """Hand over an entry; returns at once.

        Returns:
            The entry's number, for `safe`.

        Raises:
            LogFullError: too many entries wait, or the log was stopped.
        """
        with self._changed:
            if self._stopping or len(self._queue) >= self._max_waiting:
                raise LogFullError(
                    "a log that was stopped" if self._stopping else f"{len(self._queue)} entries wait for the log"
                )
            self._n_written += 1
            self._note(entry)
            self._queue.append(entry)
            self._ids.add(entry.id)
            if len(self._queue) in (1, GROUP):
                self._changed.notify_all()
            return self._n_written

    def safe(self, number: int | None = None, *, timeout_s: float = 5.0) -> bool:
        """Wait until an entry, and all before it, survive a crash; all so far where no number is given.

        Returns:
            False where the time was not enough.
        """
        with self._changed:
            wanted = self._n_written if number is None else number
            if self._n_safe < wanted:
                self._hurry = True
                self._changed.notify_all()
            return self._changed.wait_for(lambda: self._n_safe >= wanted, timeout_s)

    def settle(self, entry_id: str, *, timeout_s: float = 2.0) -> None:
        """Wait for an entry that was written a moment ago, so that it can be read from the database."""
        if entry_id in self._ids:
            self.safe(timeout_s=timeout_s)

    def figures(self) -> LogFigures:
        """What the writer did since it started."""
        with self._changed:
            return LogFigures(
                n_waiting=self._n_written - self._n_safe,
                n_stored=self._n_stored,
                n_spilled=self._n_spilled,
                n_rejected=self._n_rejected,
                database_up=self._up,
            )

    def _note(self, entry: Entry) -> None:
        """Into the journal; where the disk does not take it, predictions go on all the same."""
        try:
            self._journal.write(line_of(entry), self._n_written)
        except OSError as error:
            if self._journal_works:
                _log.warning("the log has no journal: what is killed now may lose entries", error=str(error))
            self._journal_works = False
        else:
            self._journal_works = True

    def _run(self) -> None:
        while True:
            group = self._take()
            try:
                if group:
                    self._make_safe(group)
                elif self._stopping:
                    break
                self._tend()
            except Exception:
                _log.exception("neither the database nor the disk takes the log", folder=str(self._folder))
                if self._stopping:  # the process must end all the same, and says what that costs
                    _log.critical("entries of the log are left in the journal", n=self._n_written - self._n_safe)
                    break
                time.sleep(_RETRY_S)
        self._spill.close()
        with self._changed:
            self._journal.close(keep=self._n_safe < self._n_written)

    def _take(self) -> list[Entry]:
        """The next group, which stays in the queue until it is safe; empty where there is other work."""
        with self._changed:
            if not self._queue and not self._stopping:
                self._changed.wait(max(0.0, self._next_turn - time.monotonic()))
            if self._queue:
                self._changed.wait_for(
                    lambda: len(self._queue) >= GROUP or self._hurry or self._stopping, WAIT_MS / 1000
                )
            return [self._queue[i] for i in range(min(GROUP, len(self._queue)))]

    def _make_safe(self, group: Sequence[Entry]) -> None:
        """To the database, or to the disk while that is down."""
        if time.monotonic() < self._retry_at or not self._store(group):
            self._spill.append([line_of(entry) for entry in group])
            self._something_on_disk = True
            self._n_spilled += len(group)
        with self._changed:
            for _ in group:
                self._ids.discard(self._queue.popleft().id)
            self._n_safe += len(group)
            self._journal.safe(self._n_safe)
            if self._n_safe == self._n_written:
                self._hurry = False
            self._changed.notify_all()

    def _tend(self) -> None:
        """What is due beside new entries: a group from the disk, a look for files of others, old entries."""
        clock = time.monotonic()
        if self._something_on_disk and clock >= self._retry_at:
            lines = self._spill.next_lines(GROUP)
            if not lines:
                self._something_on_disk = False
            elif self._store([entry for entry in map(self._entry_of, lines) if entry is not None], again=True):
                self._spill.done()
        if clock >= self._adopt_at:
            self._something_on_disk, self._adopt_at = True, clock + _ADOPT_S
        if clock >= self._retention_at and self._up:
            self._retention_at = clock + (0 if self._delete_old() else _RETENTION_S)
        self._next_turn = min(
            self._adopt_at, self._retention_at, self._retry_at if self._something_on_disk else math.inf
        )

    def _store(self, group: Sequence[Entry], *, again: bool = False) -> bool:
        """Whether the group is in the database, or for what it is never will be; False where that is down.

        Args:
            again: some of the group may be there already.
        """
        try:
            self._n_stored += insert_entries(self._database, group, again=again, also=self._also)
        except Exception as error:
            if isinstance(error, _DOWN) or not can_be_read(self._database):
                if self._up:
                    _log.warning("the database is down, the log goes to the disk", error=type(error).__name__)
                self._up, self._retry_at = False, time.monotonic() + _RETRY_S
                return False
            # One of them is there already, or cannot be stored: find out which.
            if len(group) == 1 and again:
                self._reject(group[0])
                return True
            return all(self._store([entry], again=True) for entry in group)
        if not self._up:
            _log.warning("the database is back")
        self._up = True
        return True

    def _delete_old(self) -> bool:
        """Delete some of the entries that were kept long enough; whether there may be more."""
        if self._keep_days is None:
            return False
        try:
            return delete_before(self._database, datetime.now(UTC) - timedelta(days=self._keep_days))
        except _DOWN:
            return False

    def _entry_of(self, line: str) -> Entry | None:
        try:
            return entry_of(line)
        except ValueError:  # the disk lost a part of it
            self._reject(line)
            return None

    def _reject(self, what: Entry | str) -> None:
        """Keep what the database refuses where a person finds it, and what follows is not held up."""
        line = what if isinstance(what, str) else line_of(what)
        with (self._folder / _REJECTED).open("a", encoding="utf-8", errors="replace") as file:
            file.write(f"{line}\n")
        self._n_rejected += 1
        _log.error("an entry of the log cannot be stored", see=str(self._folder / _REJECTED))
