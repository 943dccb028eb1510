"""Limits by caller: so many requests a minute, and locks after failures in a row.

They are kept in memory: each server counts by itself, and forgets when it stops.
"""

from __future__ import annotations

import ipaddress
import math
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Final

from fastapi import Request

from shelver.service.problems import ServiceError

_KEPT: Final = 100_000


class Limits:
    """Counts by key; safe to use from several threads.

    Args:
        clock: seconds that only grow.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()  # what is left, and when that was
        self._failures: OrderedDict[str, tuple[int, float]] = OrderedDict()  # how many, forgotten when
        self._known: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def take(self, key: str, per_minute: int, *, n: int = 1) -> None:
        """Count n requests of a caller, who may make so many a minute, all at once if he likes.

        Raises:
            ServiceError: he has made them; says when to come back.
        """
        with self._lock:
            at = self._clock()
            left, since = self._buckets.pop(key, (float(per_minute), at))
            left = min(per_minute, left + (at - since) * per_minute / 60)
            enough = left >= min(n, per_minute)  # more at once than there ever are: he waits for them afterwards
            self._buckets[key] = (left - n if enough else left, at)
            _shorten(self._buckets)
        if not enough:
            raise _too_many(
                f"at most {per_minute} a minute", math.ceil((min(n, per_minute) - left) * 60 / per_minute)
            )

    def refuse_locked(self, key: str, failures: int) -> None:
        """Refuse a caller who has failed so often.

        Raises:
            ServiceError: he is locked out; says when to come back.
        """
        with self._lock:
            n, until = self._failures.get(key, (0, 0.0))
            left_s = until - self._clock()
        if n >= failures and left_s > 0:
            raise _too_many(f"{failures} failures in a row", math.ceil(left_s))

    def failed(self, key: str, lock_s: int) -> int:
        """Count a failure; each is forgotten, with those before, when none came after it for `lock_s`.

        Returns:
            How many there were, with this one.
        """
        with self._lock:
            at = self._clock()
            n, until = self._failures.pop(key, (0, 0.0))
            n = (n if until > at else 0) + 1
            self._failures[key] = (n, at + lock_s)
            _shorten(self._failures)
        return n

    def succeeded(self, key: str) -> None:
        """Forget the failures."""
        with self._lock:
            self._failures.pop(key, None)

    def remember(self, key: str) -> None:
        """Keep a key in mind, as long as there is room."""
        with self._lock:
            self._known.pop(key, None)
            self._known[key] = (0.0, 0.0)
            _shorten(self._known)

    def remembers(self, key: str) -> bool:
        """Whether a key is in mind."""
        return key in self._known


def address_of(request: Request) -> str:
    """Whom a limit counts: an IPv4 address, or an IPv6 network of /64, which one caller has whole."""
    host = request.client.host if request.client else ""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is not None:
            return str(address.ipv4_mapped)
        return str(ipaddress.ip_network((address, 64), strict=False))
    return str(address)


def _shorten(kept: OrderedDict[str, tuple[float, float]] | OrderedDict[str, tuple[int, float]]) -> None:
    while len(kept) > _KEPT:
        kept.popitem(last=False)


def _too_many(allowed: str, retry_after_s: int) -> ServiceError:
    return ServiceError(
        "too_many_requests",
        "too many attempts",
        allowed=allowed,
        remedy="Wait, then try again.",
        retry_after_s=max(retry_after_s, 1),
    )
