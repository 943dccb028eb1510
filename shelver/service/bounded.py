"""How much may go on at once, of each caller and in all, of what takes long."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from shelver.service.problems import ServiceError


class Bounded:
    """Counts what goes on; used from one event loop.

    Attributes:
        a_caller, in_all: how much may go on at once.

    Args:
        what: its name, for people.
    """

    def __init__(self, what: str, *, a_caller: int, in_all: int) -> None:
        self.a_caller, self.in_all = a_caller, in_all
        self._what = what
        self._open: Counter[str] = Counter()

    @contextmanager
    def one(self, caller: str) -> Iterator[None]:
        """Counts one as long as the block runs.

        Raises:
            ServiceError: the caller has as many as he may, or all together have.
        """
        self.enter(caller)
        try:
            yield
        finally:
            self.leave(caller)

    def enter(self, caller: str) -> None:
        """Begin one; raises as `one`."""
        own = self._open[caller]
        if own >= self.a_caller or self._open.total() >= self.in_all:
            raise ServiceError(
                "too_many_requests",
                f"{own} {self._what} of this account at once",
                allowed=f"{self.a_caller} of an account, {self.in_all} in all",
                remedy="Try again when one of them has ended.",
                retry_after_s=10,
            )
        self._open[caller] += 1

    def leave(self, caller: str) -> None:
        """End one."""
        self._open[caller] -= 1
        if self._open[caller] <= 0:
            del self._open[caller]
