"""Requests that are sent again with the same Idempotency-Key are answered as before, for a day.

Two ways. `Repeats.once` is for what changes nothing, such as predictions: the answer is stored before it leaves;
of two servers that make one at the same time, the first to store it is right, and the other gives that answer too.
While the database does not answer, a server remembers by itself. `repeat_store.repeated` and `remember` are for
what changes something: the answer is stored in the transaction of the change: there is either both or neither.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

from shelver.service.answers.repeat_store import KEPT_S, Answer, RepeatStore, key_reused, name_of

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
        store: where all servers keep theirs; without it this process remembers, as long as it runs.
        clock: seconds that only grow.
        max_kept, max_bytes: in memory; beyond this the oldest are only in the store.
    """

    def __init__(
        self,
        store: RepeatStore | None = None,
        *,
        clock: Callable[[], float] = time.monotonic,
        max_kept: int = MAX_KEPT,
        max_bytes: int = MAX_KEPT_BYTES,
    ) -> None:
        self._store = store
        self._clock = clock
        self._max_kept = max_kept
        self._max_bytes = max_bytes
        self._kept: OrderedDict[str, _Kept] = OrderedDict()
        self._n_bytes = 0

    def close(self) -> None:
        """End what is at work at the store."""
        if self._store is not None:
            self._store.close()

    async def once(
        self, caller: str, key: str, body_hash: str, answer: Callable[[], Awaitable[bytes]]
    ) -> tuple[bytes, bool]:
        """The answer, made now or as it was made before; and whether it was.

        Only answers are kept: who was refused may try again. A second request that comes while the first is still
        at work waits for its answer.

        Raises:
            ServiceError: the key came with another body.
        """
        name = name_of(caller, key)
        while (kept := self._kept.get(name)) is not None and kept.until_s > self._clock():
            if kept.body_hash != body_hash:
                raise key_reused()
            try:
                return await asyncio.shield(kept.answer), True
            except asyncio.CancelledError:
                if not kept.answer.cancelled():
                    raise  # this request was given up, not the first
            # else the first was refused: this one is the first now
        return await self._make(name, body_hash, answer)

    async def _make(self, name: str, body_hash: str, answer: Callable[[], Awaitable[bytes]]) -> tuple[bytes, bool]:
        self._forget(name)
        kept = _Kept(body_hash, asyncio.get_running_loop().create_future(), self._clock() + KEPT_S)
        self._kept[name] = kept
        try:
            made, again = await self._found_or_made(name, body_hash, answer)
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
        return made, again

    async def _found_or_made(
        self, name: str, body_hash: str, answer: Callable[[], Awaitable[bytes]]
    ) -> tuple[bytes, bool]:
        if self._store is None:
            return await answer(), False
        found = await self._store.find(name)
        if found is not None:
            return _the_same(found, body_hash), True
        made = await answer()
        first = await self._store.keep(Answer(name, body_hash, made))
        return _the_same(first, body_hash), first.body != made

    def _forget(self, name: str) -> None:
        gone = self._kept.pop(name, None)
        self._n_bytes -= gone.n_bytes if gone is not None else 0


def _the_same(answer: Answer, body_hash: str) -> bytes:
    if answer.body_hash != body_hash:
        raise key_reused()
    return answer.body
