"""The picture part "colour": which colours the product has, and where, told without a network.

Networks trained on ImageNet learn to look past colour; these features put it back. Three looks at the product
stand side by side: a histogram of all its colours, one of the colours at its middle, and a coarse grid of mean
colours over the box that it fills, which tells a shirt from the trousers below it and from the hair above. Beside
them stands the whole picture on such a grid, background and all.

Product and background are told apart by colour alone. The background is taken to have the colour of the picture's
edges: the median of the top and bottom edges, and that of the left and right ones, as margins stand at two sides
only. A pixel counts as product the more its colour differs from both. So does one that has product on all four
sides, as a white shirt before a white wall has its outline. Where nothing differs, as in a picture that is all
product, all pixels count alike.
"""

from __future__ import annotations

from functools import cache
from typing import Final

import numpy as np
from numpy.typing import NDArray

from shelver.foreground import codes, lab_table

COLOUR_ID: Final = "colour-v2"
"""Names these features in caches and manifests; raise the version when they change."""

_SIDE_PX: Final = 64
"""Pictures are averaged down to at most this: colours need no detail."""

_BITS: Final = 5
"""Of each of red, green and blue; what follows from a colour is then looked up."""

# Where a histogram's bins have their centres, in CIE Lab; a colour is shared out among the bins around it. They
# lie closest where shops have most names for colours: dark, and nearly grey.
_LIGHTNESS: Final = np.array([6.0, 16.0, 27.0, 39.0, 52.0, 66.0, 80.0, 92.0])
_A: Final = np.array([-38.0, -15.0, -3.0, 5.0, 16.0, 32.0, 55.0])
_B: Final = np.array([-45.0, -20.0, -8.0, 0.0, 8.0, 20.0, 45.0])
N_BINS: Final = len(_LIGHTNESS) * len(_A) * len(_B)
"""Of each of the two histograms."""

# Differences in Lab from the background: below the first a pixel is background, above the second product.
_SAME: Final = 2.0
_OTHER: Final = 8.0
_LEAST: Final = 0.02
_SPECKLE: Final = 1.6
"""A pixel is as much product as this times the mean of 3 by 3 pixels around it, at most."""

_TRIM: Final = 0.02
"""The share of the product that its box leaves out at each side."""

GRID: Final = (8, 6)
"""Cells of the grids over the box and over the picture, down and across."""

COLOUR_WIDTH: Final = 2 * N_BINS + (4 + 3) * GRID[0] * GRID[1] + 13
"""Two histograms; of each cell of the box Lab and how much of it is product; of each cell of the picture Lab; the
box, the product's share as told three ways, and Lab of the background at two sides each."""

_BATCH: Final = 32
"""Pictures at a time: more would leave the processor's cache."""


def colours(pictures: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Colour features of pictures.

    Args:
        pictures: uint8, shape (N, H, W, 3), RGB, as `shelver.images.fit` gives them; H and W multiples of 32.

    Returns:
        float32, shape (N, COLOUR_WIDTH): the square roots of two histograms of the product's colours, of all of it
        and of its middle, the bins of each summing to 1; then the product's grid, row by row, a colour being 0
        where a cell has no product; then the picture's grid; then the box (top, bottom, left, right) and the
        shares, all in 0..1; then the background. Lab is divided by 100.

    Source:
        Swain and Ballard 1991, "Color indexing". The square root: Arandjelović and Zisserman 2012, "Three things
        everyone should know to improve object retrieval". The grid: Lazebnik et al. 2006, "Beyond bags of
        features: spatial pyramid matching".
    """
    result = np.zeros((len(pictures), COLOUR_WIDTH), np.float32)
    for start in range(0, len(pictures), _BATCH):
        rows = slice(start, start + _BATCH)
        result[rows] = _of_some(_reduced(pictures[rows]))
    return result


def _of_some(pictures: NDArray[np.uint8]) -> NDArray[np.float32]:
    of = codes(pictures, _BITS)
    lab = lab_table(_BITS)[of]
    backgrounds = _backgrounds(lab)
    soft, solid, filled = _product(lab, backgrounds)
    weights = np.maximum(soft, filled) + np.float32(_LEAST)
    box = np.concatenate([_extent(solid.sum(axis=2)), _extent(solid.sum(axis=1))], axis=1)
    central = weights * (
        _bell(box[:, :2], lab.shape[1])[:, :, None] * _bell(box[:, 2:], lab.shape[2])[:, None] + np.float32(1e-6)
    )
    shares = [mask.mean(axis=(1, 2))[:, None] for mask in (solid, filled, soft)]
    return np.concatenate(
        [
            _histograms(of, weights, central),
            _grid(lab, weights, box),
            _thumbnail(lab),
            box,
            *shares,
            backgrounds.reshape(len(lab), -1) / 100,
        ],
        axis=1,
    )


def _backgrounds(lab: NDArray[np.float32]) -> NDArray[np.float32]:
    """Median colour of the edges, top and bottom, left and right: shape (N, 2, 3)."""
    across = np.concatenate([lab[:, 0], lab[:, -1]], axis=1)
    down = np.concatenate([lab[:, :, 0], lab[:, :, -1]], axis=1)
    medians: NDArray[np.float32] = np.stack([np.median(across, axis=1), np.median(down, axis=1)], axis=1)
    return medians


def _product(
    lab: NDArray[np.float32], backgrounds: NDArray[np.float32]
) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]:
    """How much each pixel is product, each (N, H, W) in 0..1: by colour; without speckles; with holes filled."""
    nearest = np.minimum(*(np.square(lab - backgrounds[:, side, None, None]).sum(axis=3) for side in (0, 1)))
    soft = ((np.sqrt(nearest) - _SAME) / (_OTHER - _SAME)).clip(0, 1)
    padded = np.pad(soft, ((0, 0), (1, 1), (1, 1)), mode="edge")
    down = padded[:, :-2] + padded[:, 1:-1] + padded[:, 2:]
    around = (down[:, :, :-2] + down[:, :, 1:-1] + down[:, :, 2:]) * (_SPECKLE / 9)
    solid = np.minimum(soft, around)
    filled = np.minimum(_between(solid, 1), _between(solid, 2))
    return soft, solid, filled


def _between(mask: NDArray[np.float32], axis: int) -> NDArray[np.float32]:
    """What the mask holds on both sides of a pixel along an axis, or in it: the lesser of the two greatest."""
    before = np.maximum.accumulate(mask, axis=axis)
    after = np.flip(np.maximum.accumulate(np.flip(mask, axis), axis=axis), axis)
    return np.minimum(before, after)


def _extent(profile: NDArray[np.float32]) -> NDArray[np.float32]:
    """Where the product begins and ends along one side, in 0..1, shape (N, 2).

    Args:
        profile: how much product each row or column has, shape (N, side).
    """
    side = profile.shape[1]
    running = (profile + np.float32(1e-4)).cumsum(axis=1)
    running /= running[:, -1:]
    first = np.minimum((running < _TRIM).sum(axis=1), side - 2)
    last = np.maximum((running < 1 - _TRIM).sum(axis=1) + 1, first + 2).clip(max=side)
    return np.stack([first / side, last / side], axis=1).astype(np.float32)


def _bell(extent: NDArray[np.float32], side: int) -> NDArray[np.float32]:
    """How near each row or column is to the middle of the box, shape (N, side)."""
    bell: NDArray[np.float32] = np.exp(np.float32(-0.5) * np.square((_places(extent, side) - 0.5) / 0.25))
    return bell


def _places(extent: NDArray[np.float32], side: int) -> NDArray[np.float32]:
    """The middle of each row or column in shares of the box, shape (N, side)."""
    middles = (np.arange(side, dtype=np.float32) + 0.5) / side
    return (middles - extent[:, :1]) / (extent[:, 1:] - extent[:, :1])


def _histograms(of: NDArray[np.int32], *weightings: NDArray[np.float32]) -> NDArray[np.float32]:
    """Square roots of histograms, one a weighting, side by side.

    A picture has a few hundred coarse colours at most: what each counts is summed first, and then shared out.
    """
    bins_of, shares_of = _tables()
    result = np.empty((len(of), len(weightings) * N_BINS), np.float32)
    for row, pixels in enumerate(of.reshape(len(of), -1)):
        found, place = _numbered(pixels)
        bins, shares = bins_of[found].ravel(), shares_of[found]
        for number, weights in enumerate(weightings):
            counts = np.bincount(place, weights[row].ravel() / weights[row].sum(), len(found))
            shared = np.bincount(bins, (counts[:, None] * shares).ravel(), N_BINS)
            result[row, number * N_BINS : (number + 1) * N_BINS] = shared
    return np.sqrt(result)


def _numbered(pixels: NDArray[np.int32]) -> tuple[NDArray[np.intp], NDArray[np.int32]]:
    """The distinct colours, ascending, and for each pixel which of them it has."""
    seen = np.zeros(1 << 3 * _BITS, np.bool_)
    seen[pixels] = True
    found = np.flatnonzero(seen)
    number = np.empty(1 << 3 * _BITS, np.int32)
    number[found] = np.arange(len(found), dtype=np.int32)
    return found, number[pixels]


def _grid(lab: NDArray[np.float32], weights: NDArray[np.float32], box: NDArray[np.float32]) -> NDArray[np.float32]:
    """Mean Lab of the product in each cell of the box, and how much product the cell has; shape (N, cells * 4)."""
    n, height, width = weights.shape
    down, across = _cells(box[:, :2], height, GRID[0]), _cells(box[:, 2:], width, GRID[1])
    seen = np.empty((n, height, width, 4), np.float32)
    np.multiply(lab, weights[..., None], out=seen[..., :3])
    seen[..., 3] = weights
    rows = (down @ seen.reshape(n, height, -1)).reshape(n, GRID[0], width, 4)
    sums = across[:, None] @ rows
    area = down.sum(axis=2)[:, :, None] * across.sum(axis=2)[:, None]
    held = sums[..., 3:]
    means = np.where(held > _LEAST * area[..., None], sums[..., :3] / np.maximum(held, 1e-3), 0) / 100
    return np.concatenate([means, held / area[..., None]], axis=3).reshape(n, -1)


def _thumbnail(lab: NDArray[np.float32]) -> NDArray[np.float32]:
    """Mean Lab in each cell of the picture, shape (N, cells * 3)."""
    n, height, width = lab.shape[:3]
    whole = np.array([[0, 1]], np.float32)
    down, across = _cells(whole, height, GRID[0])[0], _cells(whole, width, GRID[1])[0]
    rows = (down @ lab.reshape(n, height, -1)).reshape(n, GRID[0], width, 3)
    area = 100 * down.sum(axis=1)[:, None] * across.sum(axis=1)
    means: NDArray[np.float32] = (across @ rows) / area[:, :, None]
    return means.reshape(n, -1)


def _cells(extent: NDArray[np.float32], side: int, n_cells: int) -> NDArray[np.float32]:
    """How much each row or column of the box counts in each cell, shape (N, n_cells, side).

    One between the middles of two cells counts in both.
    """
    places = _places(extent, side)
    inside = (places > 0) & (places < 1)
    at = (places * n_cells - 0.5).clip(0, n_cells - 1)
    near = (1 - np.abs(at[:, None] - np.arange(n_cells, dtype=np.float32)[:, None])).clip(0)
    return near * inside[:, None] + np.float32(1e-6)


def _reduced(pictures: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Averaged over squares of a power of two."""
    height, width = pictures.shape[1:3]
    step = 1
    while max(height, width) > _SIDE_PX * step and height % (2 * step) == width % (2 * step) == 0:
        step *= 2
    if step == 1:
        return pictures
    total = np.zeros((len(pictures), height // step, width // step, 3), np.uint32)
    for down in range(step):
        for right in range(step):
            total += pictures[:, down::step, right::step]
    return (total // step**2).astype(np.uint8)


@cache
def _tables() -> tuple[NDArray[np.intp], NDArray[np.float32]]:
    """For each coarse colour: the eight bins around it, and its share in each."""
    lab = lab_table(_BITS)
    bins = np.zeros((len(lab), 1), np.intp)
    shares = np.ones((len(lab), 1), np.float32)
    for channel, centres in enumerate((_LIGHTNESS, _A, _B)):
        value = lab[:, channel].clip(centres[0], centres[-1])
        below = np.searchsorted(centres, value, side="right").clip(1, len(centres) - 1) - 1
        part = ((value - centres[below]) / (centres[below + 1] - centres[below])).astype(np.float32)
        ends = np.stack([below, below + 1], axis=1)
        bins = (bins[:, :, None] * len(centres) + ends[:, None]).reshape(len(lab), -1)
        shares = (shares[:, :, None] * np.stack([1 - part, part], axis=1)[:, None]).reshape(len(lab), -1)
    return bins, shares
