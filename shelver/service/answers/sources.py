"""Before an answer: the pictures of a request, sent or fetched, and the places that it waits for."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import Final

from shelver.pipeline import Image2Emb, Prepared
from shelver.service.answers.answering import Answered, Asked
from shelver.service.answers.batcher import BusyError, Places
from shelver.service.answers.decoding import Source
from shelver.service.answers.fetching import BATCH_S, N_OF_CALLER
from shelver.service.state import Service

_N_TRIES: Final = 20
_PAUSE_S: Final = 0.05


async def source_of(
    service: Service, image_base64: str | None, image_url: str | None, caller: str, *, until_s: float | None = None
) -> Source | None:
    """A picture as it was sent, fetched where it came as an address and the model looks at pictures.

    Raises:
        ServiceError: as `Fetching.fetch`.
    """
    if image_base64 is not None or image_url is None or service.answering.current().classifier.image2emb is None:
        return image_base64
    with service.answering.figures.stage("fetch"):
        return await service.fetching.fetch(image_url, caller, until_s=until_s)


async def place(service: Service, caller: str, n: int = 1) -> Places[Asked, Answered]:
    """Places for who has waited for something else before, after some tries.

    Raises:
        BusyError: there were none.
    """
    batcher = service.answering.batcher
    for _ in range(_N_TRIES):
        with suppress(BusyError):
            return batcher.reserve(caller, n)
        await asyncio.sleep(_PAUSE_S)
    return batcher.reserve(caller, n)


async def prepared(
    service: Service, image2emb: Image2Emb, images: Sequence[tuple[str | None, str | None]], caller: str
) -> list[Prepared | str | None]:
    """What a model sees of pictures, each base64 or an address, or why it sees nothing.

    Each takes a place only while it is decoded; a few are at work at a time.

    Raises:
        ServiceError: one is too large or no base64, or there was no place.
    """
    turns, until_s = asyncio.Semaphore(N_OF_CALLER), time.monotonic() + BATCH_S

    async def one(image_base64: str | None, image_url: str | None) -> Prepared | str | None:
        async with turns:
            source = await source_of(service, image_base64, image_url, caller, until_s=until_s)
            if source is None:
                return None
            with await place(service, caller):
                return (await service.answering.decoders.decode(source, image2emb, caller=caller)).prepared

    return await asyncio.gather(*(one(*image) for image in images))
