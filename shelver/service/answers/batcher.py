"""Micro-batching: requests wait a moment side by side, and the classifier answers several at once.

A caller takes *places* first, of which there are few: when they are gone the next one is refused at once, so
nobody waits long, and work that could not be finished is never begun. What is submitted waits in its caller's own
line; a worker thread takes batches from all lines in turn. While it is busy the next batch gathers by itself, so a
lone request waits for nobody; only where several came lately does it wait a few milliseconds for as many.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Final, Generic, TypeVar

from shelver.service.problems import ServiceError

MAX_BATCH: Final = 32
MAX_WAIT_MS: Final = 5.0
N_PLACES: Final = 128
N_SPARE: Final = 16
"""Beyond these: places that are held while a picture is decoded cannot be taken from anybody."""
LATELY_S: Final = 0.1
"""For so long the size of the last batch says how many may come again."""

Item = TypeVar("Item")
Answer = TypeVar("Answer")

_log = logging.getLogger(__name__)


class BusyError(ServiceError):
    """All places are taken; a moment later there may be one."""

    def __init__(self, n_places: int) -> None:
        super().__init__(
            "busy",
            "a request while all places are taken",
            allowed=f"{n_places} products at work at a time",
            remedy="Try again after the time that Retry-After names.",
            retry_after_s=1,
        )


class StoppingError(ServiceError):
    """The service is going down and takes nothing new."""

    def __init__(self) -> None:
        super().__init__(
            "not_ready",
            "a request while the service stops",
            allowed="requests to a running service",
            remedy="Try again after the time that Retry-After names.",
            retry_after_s=5,
        )


@dataclass(frozen=True, slots=True)
class BatchSeen:
    """What is told of an answered batch: its items, how many were left in the lines, how long each of its items
    had waited, and how long the answer took."""

    n_items: int
    n_waiting: int
    waited_s: tuple[float, ...]
    took_s: float


@dataclass(eq=False, slots=True)
class _Entry(Generic[Item, Answer]):
    item: Item
    places: Places[Item, Answer]
    future: asyncio.Future[Answer]
    since_s: float = field(default_factory=time.monotonic)


class Batcher(Generic[Item, Answer]):
    """Collects items of many callers and has them answered in batches, in threads of its own.

    Attributes:
        n_places: how many items may be at work at a time, from a caller's reservation to its answer.
        max_batch: so many are answered at once, at most.
    """

    def __init__(
        self,
        answer: Callable[[Sequence[Item]], Sequence[Answer | Exception]],
        *,
        max_batch: int = MAX_BATCH,
        max_wait_ms: float = MAX_WAIT_MS,
        n_places: int = N_PLACES,
        n_spare: int = 0,
        n_workers: int = 1,
        seen: Callable[[BatchSeen], None] | None = None,
    ) -> None:
        """Start the workers.

        Args:
            answer: N items to N answers, or what went wrong with an item in place of its answer. Where it raises,
                it is asked again for each item alone, so one item cannot fail others.
            max_batch: so many items are answered at once, at most.
            max_wait_ms: so long a worker waits for others, at most, and only where several came lately.
            n_places: how many items may be at work at a time.
            n_spare: so many more, of callers who have none at work.
            n_workers: threads that call `answer`.
            seen: told of every batch, in the worker's thread.
        """
        self.n_places = n_places
        self._n_spare = n_spare
        self.max_batch = max_batch
        self._answer = answer
        self._max_wait_s = max_wait_ms / 1000
        self._seen = seen
        self._changed = threading.Condition()
        self._gathering = threading.Lock()
        self._lines: OrderedDict[str, deque[_Entry[Item, Answer]]] = OrderedDict()
        self._n_waiting = 0
        self._wanted = 1
        self._held: Counter[str] = Counter()
        self._n_held = 0
        self._last = (0, 0.0)
        self._closing = self._stopped = False
        self._workers = ThreadPoolExecutor(n_workers, thread_name_prefix="shelver-batch")
        for _ in range(n_workers):
            self._workers.submit(self._work)

    @property
    def n_waiting(self) -> int:
        """Items in the lines."""
        return self._n_waiting

    @property
    def n_held(self) -> int:
        """Places that are taken."""
        return self._n_held

    def has_room(self, caller: str) -> bool:
        """Whether a caller would get a place now; cheap enough to ask before anything is read of a request."""
        with self._changed:
            return self._n_held < self._room(caller) or self._greedier_than(caller) is not None

    def reserve(self, caller: str, n: int = 1) -> Places[Item, Answer]:
        """Take places for what is going to be submitted; leave them with `with`.

        Where all are taken, a caller who asks for one and has none gets one of the spare ones. Else he gets it
        from the caller who has most: the newest of those of its items that still wait is refused instead, as long
        as it then has no fewer.

        Args:
            caller: who is asking; lines are by caller.
            n: how many items will be submitted at a time.

        Raises:
            BusyError: there is no room.
            StoppingError: the batcher is closing.
        """
        displaced: _Entry[Item, Answer] | None = None
        with self._changed:
            if self._closing:
                raise StoppingError
            if self._n_held + n > self._room(caller, n):
                greedy = self._greedier_than(caller) if n == 1 else None
                if greedy is None:
                    raise BusyError(self.n_places)
                displaced = self._lines[greedy][-1]
                self._remove(displaced)
                displaced.places.n -= 1
                self._give_back(greedy, 1)
            self._held[caller] += n
            self._n_held += n
        if displaced is not None:
            _deliver([(displaced, BusyError(self.n_places))])
        return Places(self, caller, n)

    async def submit(self, item: Item, *, caller: str) -> Answer:
        """The answer to one item; raises as `reserve` and `Places.submit` do."""
        with self.reserve(caller) as places:
            return await places.submit(item)

    def close(self, timeout_s: float = 10.0) -> None:
        """Take nothing new, answer what is at work, and end the workers. Blocks; what is not through in time is
        refused."""
        until = time.monotonic() + timeout_s
        with self._changed:
            self._closing = True
            self._changed.notify_all()
            while self._n_held and (left := until - time.monotonic()) > 0:
                self._changed.wait(left)
            self._stopped = True
            left_over = [entry for line in self._lines.values() for entry in line]
            self._lines.clear()
            self._n_waiting = 0
            self._changed.notify_all()
        _deliver([(entry, StoppingError()) for entry in left_over])
        self._workers.shutdown(wait=True)

    def _put(self, entry: _Entry[Item, Answer]) -> None:
        with self._changed:
            if self._stopped:
                raise StoppingError
            self._lines.setdefault(entry.places.caller, deque()).append(entry)
            self._n_waiting += 1
            if self._n_waiting >= self._wanted:
                self._changed.notify_all()

    def _forget(self, entry: _Entry[Item, Answer]) -> None:
        """Take an entry whose caller left out of its line, if it is still there."""
        with self._changed:
            if entry in self._lines.get(entry.places.caller, ()):
                self._remove(entry)

    def _remove(self, entry: _Entry[Item, Answer]) -> None:
        caller = entry.places.caller
        self._lines[caller].remove(entry)
        self._n_waiting -= 1
        if not self._lines[caller]:
            del self._lines[caller]

    def _give_back(self, caller: str, n: int) -> None:
        with self._changed:
            self._n_held -= n
            self._held[caller] -= n
            if not self._held[caller]:
                del self._held[caller]
            if self._closing:
                self._changed.notify_all()

    def _room(self, caller: str, n: int = 1) -> int:
        """How many places there are for a caller."""
        return self.n_places + (self._n_spare if n == 1 and not self._held[caller] else 0)

    def _greedier_than(self, caller: str) -> str | None:
        """The one with most places among those who wait, where `caller` with one more has no more than it."""
        waiting = [(self._held[name], name) for name in self._lines if name != caller]
        held, name = max(waiting, default=(0, caller))
        return name if held > self._held[caller] + 1 else None

    def _work(self) -> None:
        while True:
            with self._gathering:
                batch, n_left = self._gather()
            if batch:
                self._answer_all(batch, n_left)
            elif self._stopped:
                return

    def _gather(self) -> tuple[list[_Entry[Item, Answer]], int]:
        """The next batch, empty where all who waited have left or all is over; and how many are left waiting."""
        with self._changed:
            self._wanted = 1
            while not self._n_waiting and not self._stopped:
                self._changed.wait()
            until = time.monotonic() + self._max_wait_s
            self._wanted = self._expected()
            while self._n_waiting < self._wanted and not self._closing:
                left = until - time.monotonic()
                if left <= 0 or not self._changed.wait(left):
                    break
            batch: list[_Entry[Item, Answer]] = []
            while self._lines and len(batch) < self.max_batch:
                caller, line = self._lines.popitem(last=False)
                entry = line.popleft()
                self._n_waiting -= 1
                if line:
                    self._lines[caller] = line  # behind all others
                if not entry.future.cancelled():
                    batch.append(entry)
            self._last = (len(batch), time.monotonic())
            return batch, self._n_waiting

    def _expected(self) -> int:
        """How many are worth waiting for: those on the way, or as many as came lately."""
        n, when_s = self._last
        return min(self.max_batch, max(self._n_held, n if time.monotonic() - when_s < LATELY_S else 1))

    def _answer_all(self, batch: list[_Entry[Item, Answer]], n_left: int) -> None:
        started = time.monotonic()
        _deliver(list(zip(batch, self._answers([entry.item for entry in batch]), strict=True)))
        if self._seen is not None:
            waited_s = tuple(started - entry.since_s for entry in batch)
            try:
                self._seen(BatchSeen(len(batch), n_left, waited_s, time.monotonic() - started))
            except Exception:  # a worker that ends would leave everybody waiting
                _log.exception("what watches the batches failed")

    def _answers(self, items: Sequence[Item]) -> Sequence[Answer | Exception]:
        try:
            answers = self._answer(items)
            assert len(answers) == len(items), f"{len(answers)} answers to {len(items)} items"
        except Exception as error:
            return [error] if len(items) == 1 else [self._answers([item])[0] for item in items]
        return answers


class Places(Generic[Item, Answer]):
    """Places that a caller holds; `with` gives them back.

    Attributes:
        caller: who holds them.
        n: how many; so many items may be submitted at a time.
    """

    def __init__(self, batcher: Batcher[Item, Answer], caller: str, n: int) -> None:
        self.caller = caller
        self.n = n
        self._batcher = batcher

    def __enter__(self) -> Places[Item, Answer]:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._batcher._give_back(self.caller, self.n)

    async def submit(self, item: Item) -> Answer:
        """The answer to one item; who is cancelled meanwhile is skipped.

        Raises:
            BusyError: a caller with fewer places needed this one.
            StoppingError: the batcher was closed and could not wait.
            Exception: what the item's answer raised.
        """
        entry: _Entry[Item, Answer] = _Entry(item, self, asyncio.get_running_loop().create_future())
        self._batcher._put(entry)
        try:
            return await entry.future
        except asyncio.CancelledError:
            self._batcher._forget(entry)
            raise


def _deliver(answers: Sequence[tuple[_Entry[Item, Answer], Answer | Exception]]) -> None:
    """Give the answers to those who wait, once for each event loop: waking one costs more than the rest."""
    by_loop: dict[asyncio.AbstractEventLoop, list[tuple[asyncio.Future[Any], Any]]] = {}
    for entry, answer in answers:
        by_loop.setdefault(entry.future.get_loop(), []).append((entry.future, answer))
    for loop, settled in by_loop.items():
        try:
            loop.call_soon_threadsafe(_settle, settled)
        except RuntimeError:  # the loop is closed: nobody waits there any more
            _log.info("%d answers came after those who asked had gone", len(settled))


def _settle(settled: Sequence[tuple[asyncio.Future[Any], Any]]) -> None:
    for future, answer in settled:
        if future.done():
            continue
        if isinstance(answer, Exception):
            future.set_exception(answer)
        else:
            future.set_result(answer)
