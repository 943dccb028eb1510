"""Requests that are sent again with the same Idempotency-Key are answered as before.

Kept in the memory of this process for a day, so many at most; a restart forgets them, and a second server does not
know of them.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

from shelver.service.problems import ServiceError

KEPT_S: Final = 24 * 3600.0
MAX_KEPT: Final = 10_000
MAX_KEPT_BYTES: Final = 64 * 2**20


@dataclass(slots=True, eq=False)
class _Kept:
    body_hash: str
    answer: asyncio.Future[bytes]
    until_s: float
    n_bytes: int = 0


class Repeats:
    """Answers by caller and key; used from one event loop.

    Args:
        clock: seconds that only grow.
        max_kept, max_bytes: beyond this the oldest are forgotten.
    """

    def __init__(
        self,
        *,
        clock: Callable[[], float] = time.monotonic,
        max_kept: int = MAX_KEPT,
        max_bytes: int = MAX_KEPT_BYTES,
    ) -> None:
        self._clock = clock
        self._max_kept = max_kept
        self._max_bytes = max_bytes
        self._kept: OrderedDict[tuple[str, str], _Kept] = OrderedDict()
        self._n_bytes = 0

    async def once(
        self, caller: str, key: str, body_hash: str, answer: Callable[[], Awaitable[bytes]]
    ) -> tuple[bytes, bool]:
        """The answer, made now or as it was made before; and whether it was.

        Only answers are kept: who was refused may try again. A second request that comes while the first is still
        at work waits for its answer.

        Raises:
            ServiceError: the key came with another body.
        """
        name = (caller, key)
        while (kept := self._kept.get(name)) is not None and kept.until_s > self._clock():
            if kept.body_hash != body_hash:
                raise ServiceError(
                    "key_reused",
                    "an Idempotency-Key that came with another request before",
                    allowed="a new key for each new request",
                    remedy="Send a key that was never used, or the same request again.",
                )
            try:
                return await asyncio.shield(kept.answer), True
            except asyncio.CancelledError:
                if not kept.answer.cancelled():
                    raise  # this request was given up, not the first
            # else the first was refused: this one is the first now
        return await self._make(name, body_hash, answer), False

    async def _make(self, name: tuple[str, str], body_hash: str, answer: Callable[[], Awaitable[bytes]]) -> bytes:
        self._forget(name)
        kept = _Kept(body_hash, asyncio.get_running_loop().create_future(), self._clock() + KEPT_S)
        self._kept[name] = kept
        try:
            made = await answer()
        except BaseException:
            if self._kept.get(name) is kept:
                self._forget(name)
            kept.answer.cancel()
            raise
        kept.answer.set_result(made)
        if self._kept.get(name) is kept:
            kept.n_bytes = len(made)
            self._n_bytes += len(made)
        while len(self._kept) > self._max_kept or self._n_bytes > self._max_bytes:
            self._forget(next(iter(self._kept)))
        return made

    def _forget(self, name: tuple[str, str]) -> None:
        gone = self._kept.pop(name, None)
        self._n_bytes -= gone.n_bytes if gone is not None else 0
