"""What arrives encoded: pictures as base64 or bytes, rows of numbers as base64.

Pictures are decoded in threads, away from the event loop, within the limits of `shelver.images`. Processes that
can be killed come later.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import hashlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from shelver.pipeline import Embedding, Image2Emb
from shelver.pipeline.image import Prepared
from shelver.service.payloads import Encoding
from shelver.service.problems import ServiceError

MAX_PICTURE_BYTES: Final = 8 * 2**20
_TYPES: Final = {"float32": "<f4", "float16": "<f2", "list": "<f4"}


@dataclass(frozen=True, slots=True, eq=False)
class Picture:
    """A picture and what a model sees of it.

    Attributes:
        data: its encoded bytes.
        sha256: of them, in hex.
        looks: `Image2Emb.looks` that it was prepared for; None where the model uses no pictures.
        prepared: what the model sees, or the code that says why the picture cannot be used.
    """

    data: bytes
    sha256: str
    looks: object
    prepared: Prepared | str | None

    @classmethod
    def of(cls, data: bytes, image2emb: Image2Emb | None) -> Picture:
        """Decode a picture for a model."""
        sha256 = hashlib.sha256(data).hexdigest()
        if image2emb is None:
            return cls(data, sha256, None, None)
        return cls(data, sha256, image2emb.looks, image2emb.prepare(data))

    def seen_by(self, image2emb: Image2Emb) -> Prepared | str:
        """As a model sees it; decoded again where that is not the model it was decoded for."""
        if self.prepared is None or self.looks != image2emb.looks:
            return image2emb.prepare(self.data)
        return self.prepared


class Decoders:
    """Threads that decode pictures."""

    def __init__(self, n_threads: int) -> None:
        self._threads = ThreadPoolExecutor(n_threads, thread_name_prefix="shelver-picture")

    async def decode(self, source: str | bytes, image2emb: Image2Emb | None) -> Picture:
        """A picture from base64 or bytes.

        Raises:
            ServiceError: it is too large, or no base64. A picture that cannot be decoded is no error.
        """
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._threads, lambda: Picture.of(picture_bytes(source), image2emb))

    def close(self) -> None:
        """End the threads."""
        self._threads.shutdown(wait=True, cancel_futures=True)


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
