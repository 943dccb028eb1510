"""What was read of the database a moment ago, for pages that ask the same again and again."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, TypeVar, cast

FRESH_S: Final = 5.0
_KEPT: Final = 8
_T = TypeVar("_T")


@dataclass
class Kept:
    """What was read of the log a moment ago: a slider that moves asks the same again and again."""

    _found: dict[tuple[object, ...], tuple[float, object]] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def get(self, key: tuple[object, ...], read: Callable[[], _T]) -> _T:
        """What was read under this key, if that was a moment ago; else it is read."""
        now = time.monotonic()
        with self._lock:
            found = self._found.get(key)
        if found is not None and now - found[0] < FRESH_S:
            return cast(_T, found[1])
        made = read()
        with self._lock:
            self._found.pop(key, None)
            self._found[key] = now, made
            while len(self._found) > _KEPT:
                del self._found[next(iter(self._found))]
        return made
