"""How far a long job came, told some four times a second."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

_TICK_S = 0.25
_SURE_AFTER_S = 2.0  # a rate of the first moments foretells nothing


@dataclass(frozen=True, slots=True)
class Tick:
    """Where a running ingest is.

    Attributes:
        phase: `read` the feed, then `split` and write.
        rows: rows settled in this phase, also by an earlier run that was interrupted.
        total: rows of the feed, from its line ends or its metadata; None where they cannot be known (gzip).
            Line ends within quotes make it too high.
        rows_per_s: since this run began.
        seconds_left: None where `total` or the rate is unknown, and in the first two seconds.
    """

    phase: Literal["read", "split"]
    rows: int
    total: int | None
    rows_per_s: float
    seconds_left: float | None


class Clock:
    """Counts rows and calls `progress` now and then."""

    def __init__(
        self,
        progress: Callable[[Tick], None] | None,
        phase: Literal["read", "split"],
        total: int | None,
        done: int,
    ) -> None:
        self._progress, self._phase, self._total = progress, phase, total
        self._done = self._at_start = done
        self._started = self._last = time.monotonic()

    def step(self, rows: int) -> None:
        self._done += rows
        if self._progress is not None and (now := time.monotonic()) - self._last >= _TICK_S:
            self._last = now
            self._tick(now)

    def end(self) -> None:
        if self._progress is not None:
            self._total = self._done
            self._tick(time.monotonic())

    def _tick(self, now: float) -> None:
        assert self._progress is not None
        rate = (self._done - self._at_start) / max(now - self._started, 1e-6)
        left: float | None = None
        if self._total is not None and rate > 0 and now - self._started >= _SURE_AFTER_S:
            left = max(0.0, (self._total - self._done) / rate)
        self._progress(Tick(self._phase, self._done, self._total, rate, left))
