"""Parts of a picture, and what a network sees of it without one of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from shelver.errors import ImageError
from shelver.pipeline import Image2Emb, Prepared
from shelver.windows import Window, placed_views

GRID: Final = 5
SIDE: Final = 2
"""A region is SIDE x SIDE cells of a grid of GRID x GRID. Smaller ones seldom carry an answer alone, and of larger
ones any carries it about as well as the best."""
REGIONS: Final[tuple[Window, ...]] = tuple(
    (x / GRID, y / GRID, (x + SIDE) / GRID, (y + SIDE) / GRID)
    for y in range(GRID - SIDE + 1)
    for x in range(GRID - SIDE + 1)
)


@dataclass(frozen=True, slots=True)
class Seen:
    """A picture as a model sees it.

    Attributes:
        prepared: each look.
        windows: what each look shows of the picture.
    """

    prepared: Prepared
    windows: tuple[Window, ...]


def see(data: bytes, image2emb: Image2Emb) -> Seen | str:
    """An encoded picture as a model sees it, or the code that says why it cannot be used."""
    try:
        placed = placed_views(data, image2emb.looks)
    except ImageError as error:
        return error.code
    return Seen(Prepared(tuple(look for look, _ in placed)), tuple(window for _, window in placed))


def without_region(seen: Seen, region: Window) -> Prepared:
    """What the model would see if a region had the picture's mean colour."""
    return Prepared(
        tuple(
            _painted(look, window, region) for look, window in zip(seen.prepared.looks, seen.windows, strict=True)
        )
    )


def _painted(look: NDArray[np.uint8], window: Window, region: Window) -> NDArray[np.uint8]:
    shown = look[_pixels(look, window, (0.0, 0.0, 1.0, 1.0))]
    if not shown.size:
        return look
    painted = look.copy()
    painted[_pixels(look, window, region)] = shown.reshape(-1, 3).mean(axis=0).round().astype(np.uint8)
    return painted


def _pixels(look: NDArray[np.uint8], window: Window, region: Window) -> tuple[slice, slice]:
    """Where a look shows a region of the picture; empty where it does not."""
    height, width = look.shape[:2]
    rows, columns = (
        slice(*(min(max(round((region[side + end] - window[side]) * scale), 0), n_px) for end in (0, 2)))
        for side, n_px, scale in (
            (1, height, height / (window[3] - window[1])),
            (0, width, width / (window[2] - window[0])),
        )
    )
    return rows, columns
