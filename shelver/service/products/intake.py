"""Pictures that come with products: two are decoded at a time, a few wait for a moment, others are refused.

A picture of some kilobytes may need a hundred megabytes while it is decoded.
"""

from __future__ import annotations

import base64
import binascii
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Final

from shelver.service.problems import ServiceError
from shelver.service.products.payloads import PictureIn
from shelver.service.products.picture_store import PictureStore, Stored

AT_ONCE: Final = 2
WAITING: Final = 6
"""Threads that wait serve nobody else."""
WAIT_S: Final = 2.0
_PLACES: Final = threading.BoundedSemaphore(AT_ONCE)
_COMERS: Final = threading.BoundedSemaphore(AT_ONCE + WAITING)


def put_all(store: PictureStore, pictures: Sequence[PictureIn]) -> list[Stored | str]:
    """Put new pictures into the store; of those that are there already their hashes.

    Raises:
        ServiceError: one is no base64, or has neither bytes nor hash; or too many come at once.
        ImageError: one cannot be used.
    """
    found: list[Stored | str] = []
    for picture in pictures:
        if (picture.base64 is None) == (picture.hash is None):
            raise ServiceError(
                "invalid_input", "a picture with neither or both", allowed="base64 or hash", remedy="Send one."
            )
        found.append(picture.hash or put(store, _decoded(picture.base64 or "")))
    return found


def put(store: PictureStore, data: bytes) -> Stored:
    """Put a picture into the store; raises as `put_all`."""
    with _place():
        return store.put(data)


@contextmanager
def _place() -> Iterator[None]:
    if not _COMERS.acquire(blocking=False):
        raise _busy()
    try:
        if not _PLACES.acquire(timeout=WAIT_S):
            raise _busy()
        try:
            yield
        finally:
            _PLACES.release()
    finally:
        _COMERS.release()


def _busy() -> ServiceError:
    return ServiceError(
        "busy",
        "a picture while others are looked at",
        allowed=f"{AT_ONCE} pictures at a time, and {WAITING} that wait",
        remedy="Try again after the time that Retry-After names.",
        retry_after_s=2,
    )


def _decoded(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise ServiceError(
            "invalid_input",
            "a picture that is no base64",
            allowed="the file's bytes as base64",
            remedy="Encode it.",
        ) from error
