"""What arrives encoded: pictures as base64 or bytes, rows of numbers as base64.

Threads of their own take pictures out of base64, away from the event loop; processes that can be killed decode
them.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import hashlib
from collections import OrderedDict, deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final, TypeVar

import numpy as np
from numpy.typing import NDArray

from shelver.explain import Seen
from shelver.pipeline import Embedding, Image2Emb, Prepared
from shelver.service.answers.payloads import Encoding
from shelver.service.answers.picture_processes import LIMIT_S, PictureProcesses
from shelver.service.problems import ServiceError

T = TypeVar("T")
MAX_PICTURE_BYTES: Final = 8 * 2**20
_TYPES: Final = {"float32": "<f4", "float16": "<f2", "list": "<f4"}


@dataclass(frozen=True, slots=True)
class Unfetched:
    """In place of a picture that was to be fetched: the code that says why there is none."""

    code: str


Source = str | bytes | Unfetched
"""A picture as base64, as its bytes, or why there is none."""


@dataclass(frozen=True, slots=True, eq=False)
class Picture:
    """A picture and what a model sees of it.

    Attributes:
        data: its encoded bytes.
        sha256: of them, in hex; None where there is no picture.
        looks: `Image2Emb.looks` that it was prepared for; None where the model uses no pictures.
        prepared: what the model sees, or the code that says why the picture cannot be used.
    """

    data: bytes
    sha256: str | None
    looks: object
    prepared: Prepared | str | None
    _processes: PictureProcesses = field(repr=False)

    def seen_by(self, image2emb: Image2Emb) -> Prepared | str:
        """As a model sees it; decoded again where that is not the model it was decoded for."""
        if isinstance(self.prepared, str) or (self.prepared is not None and self.looks == image2emb.looks):
            return self.prepared
        return _prepared(self._processes, self.data, image2emb)


class Decoders:
    """Threads that take pictures out of what was sent, and processes that decode them; used from one event loop.

    Callers take turns: who sends many pictures, or such as take long, keeps nobody else waiting for all of them.

    Args:
        n: processes, one for each core that is to decode.
        limit_s: for a picture; see `PictureProcesses`.
    """

    def __init__(self, n: int, *, limit_s: float = LIMIT_S) -> None:
        self.processes = PictureProcesses(n, limit_s=limit_s)
        # One more, so that a process need not wait for the next picture to be taken out of its base64.
        self._n_free = n + 1
        self._threads = ThreadPoolExecutor(n + 1, thread_name_prefix="shelver-picture")
        self._lines: OrderedDict[str, deque[asyncio.Future[None]]] = OrderedDict()

    async def decode(self, source: Source, image2emb: Image2Emb | None, *, caller: str = "") -> Picture:
        """A picture as a model sees it.

        Raises:
            ServiceError: it is too large, or no base64. A picture that cannot be decoded is no error.
        """
        if isinstance(source, Unfetched):
            return Picture(b"", None, None, source.code, self.processes)
        return await self._in_turn(caller, lambda: self._decoded(source, image2emb))

    async def see(self, source: Source, image2emb: Image2Emb, *, caller: str = "") -> Seen | str:
        """A picture as a model sees it, and what of it that is; or the code that says why it cannot be used.

        Raises:
            ServiceError: as `decode`.
        """
        if isinstance(source, Unfetched):
            return source.code
        return await self._in_turn(caller, lambda: self._placed(source, image2emb))

    async def _in_turn(self, caller: str, work_of: Callable[[], T]) -> T:
        loop = asyncio.get_running_loop()
        await self._turn(caller, loop)
        try:
            work = self._threads.submit(work_of)
        except BaseException:
            self._next()
            raise
        # Whoever leaves does not stop the thread: the turn lasts as long as that.
        work.add_done_callback(lambda _: _soon(loop, self._next))
        return await asyncio.wrap_future(work)

    async def _turn(self, caller: str, loop: asyncio.AbstractEventLoop) -> None:
        if self._n_free:
            self._n_free -= 1
            return
        turn: asyncio.Future[None] = loop.create_future()
        self._lines.setdefault(caller, deque()).append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self._next()
            raise

    def _next(self) -> None:
        """Give a turn to the first of the next caller's line; cancelled ones are skipped."""
        while self._lines:
            caller, line = self._lines.popitem(last=False)
            turn = line.popleft()
            if line:
                self._lines[caller] = line  # behind all others
            if not turn.done():
                turn.set_result(None)
                return
        self._n_free += 1

    def _decoded(self, source: str | bytes, image2emb: Image2Emb | None) -> Picture:
        data = picture_bytes(source)
        sha256 = hashlib.sha256(data).hexdigest()
        if image2emb is None:
            return Picture(data, sha256, None, None, self.processes)
        return Picture(data, sha256, image2emb.looks, _prepared(self.processes, data, image2emb), self.processes)

    def _placed(self, source: str | bytes, image2emb: Image2Emb) -> Seen | str:
        found = self.processes.place(picture_bytes(source), image2emb.looks)
        return found if isinstance(found, str) else Seen(Prepared(found[0]), found[1])

    def close(self) -> None:
        """End the threads and the processes."""
        self._threads.shutdown(wait=True, cancel_futures=True)
        self.processes.close()


def _soon(loop: asyncio.AbstractEventLoop, then: Callable[[], None]) -> None:
    with suppress(RuntimeError):  # the loop is closed: nobody waits there
        loop.call_soon_threadsafe(then)


def _prepared(processes: PictureProcesses, data: bytes, image2emb: Image2Emb) -> Prepared | str:
    seen = processes.prepare(data, image2emb.looks)
    return seen if isinstance(seen, str) else Prepared(seen)


def picture_bytes(source: str | bytes) -> bytes:
    """The bytes of a picture that came as base64, perhaps as a data URL, or as they are.

    Raises:
        ServiceError: too many, or no base64.
    """
    # Four letters for three bytes, and some room for line breaks and what stands before them.
    if len(source) > MAX_PICTURE_BYTES * (1.4 if isinstance(source, str) else 1):
        raise _too_large(f"a picture of {len(source)} {'letters' if isinstance(source, str) else 'bytes'}")
    if isinstance(source, bytes):
        return source
    if source.startswith("data:"):
        source = source.partition(",")[2]
    data = _plain_bytes(source, "picture_unusable", "a picture that is no base64")
    if len(data) > MAX_PICTURE_BYTES:
        raise _too_large(f"a picture of {len(data)} bytes")
    return data


def encoded(values: NDArray[np.float32], encoding: Encoding) -> str | list[float]:
    """A row of numbers as it leaves; only float16 loses anything."""
    if encoding == "list":
        numbers: list[float] = values.tolist()
        return numbers
    return base64.b64encode(values.astype(_TYPES[encoding]).tobytes()).decode("ascii")


def decoded(rows: Sequence[str | list[float] | None], encoding: Encoding, width: int, what: str) -> Embedding:
    """Rows of numbers as they came; null is a row that is not present.

    Raises:
        ServiceError: a row is no base64, has another width, or holds what is no finite number.
    """
    result = Embedding.absent(len(rows), width)
    for i, row in enumerate(rows):
        if row is None:
            continue
        if isinstance(row, str):
            data = _plain_bytes(row, "invalid_input", f"{what} {i} that is no base64")
            kind = np.dtype(_TYPES[encoding])
            if len(data) != width * kind.itemsize:
                raise _wrong_row(
                    f"{what} {i} of {len(data)} bytes", f"{width * kind.itemsize} bytes of {encoding}"
                )
            values = np.frombuffer(data, kind).astype(np.float32)
        else:
            if len(row) != width:
                raise _wrong_row(f"{what} {i} of {len(row)} numbers", f"{width} numbers")
            with np.errstate(over="ignore"):
                values = np.array(row, np.float64).astype(np.float32)
        if not np.isfinite(values).all():
            raise _wrong_row(f"{what} {i} with numbers that are not finite", "finite numbers")
        result.values[i] = values
        result.present[i] = True
    return result


def _plain_bytes(text: str, code: str, received: str) -> bytes:
    if not text.isascii() or any(space in text for space in "\n\r\t "):
        text = "".join(text.split())
    try:
        return binascii.a2b_base64(text, strict_mode=True) if text else b""
    except ValueError as error:
        raise ServiceError(
            code, received, allowed="standard base64 with its padding", remedy="Encode the bytes again."
        ) from error


def _too_large(received: str) -> ServiceError:
    return ServiceError(
        "too_large",
        received,
        allowed=f"at most {MAX_PICTURE_BYTES} bytes",
        remedy="Send a smaller picture; 1,000 pixels a side are plenty.",
    )


def _wrong_row(received: str, allowed: str) -> ServiceError:
    return ServiceError(
        "invalid_input", received, allowed=allowed, remedy="Take the rows from the same model's own answers."
    )
