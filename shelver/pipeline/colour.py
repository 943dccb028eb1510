"""The picture part "colour": which colours the product has, told without a network.

Networks trained on ImageNet learn to look past colour; a histogram of the product's colours puts it back.

Product and background are told apart by colour alone. The background is taken to have the colour of the picture's
edges: the median of the top and bottom edges, and that of the left and right ones, as margins stand at two sides
only. A pixel counts as product the more its colour differs from both. Where nothing does, as in a picture that is
all product, all pixels count alike.
"""

from __future__ import annotations

from functools import cache
from typing import Final

import numpy as np
from numpy.typing import NDArray

COLOUR_ID: Final = "colour-v1"
"""Names these features in caches and manifests; raise the version when they change."""

_SIDE_PX: Final = 64
"""Pictures are averaged down to at most this: colours need no detail."""

_BITS: Final = 5
"""Of each of red, green and blue; what follows from a colour is then looked up."""

# Where the histogram's bins have their centres, in CIE Lab; a colour is shared out among the bins around it.
_LIGHTNESS: Final = np.array([12.0, 34.0, 56.0, 76.0, 95.0])
_A: Final = np.array([-38.0, -12.0, 2.0, 20.0, 50.0])
_B: Final = np.array([-42.0, -14.0, 2.0, 18.0, 48.0])
_N_BINS: Final = len(_LIGHTNESS) * len(_A) * len(_B)

# Differences in Lab from the background: below the first a pixel is background, above the second product.
_SAME: Final = 2.0
_OTHER: Final = 8.0
_LEAST: Final = 0.02

COLOUR_WIDTH: Final = _N_BINS + 17
"""Bins; then mean, spread and mean at the centre of Lab, that of the background, and the product's share twice."""


def colours(pictures: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Colour features of pictures.

    Args:
        pictures: uint8, shape (N, H, W, 3), RGB, as `shelver.images.fit` gives them; H and W multiples of 32.

    Returns:
        float32, shape (N, COLOUR_WIDTH): the square roots of a histogram of the product's colours, whose bins sum
        to 1, then their mean, spread and the like, in Lab divided by 100.

    Source:
        Swain and Ballard 1991, "Color indexing". The square root: Arandjelović and Zisserman 2012, "Three things
        everyone should know to improve object retrieval".
    """
    result = np.zeros((len(pictures), COLOUR_WIDTH), np.float32)
    if len(pictures):
        small = _reduced(pictures)
        shift = 8 - _BITS
        coarse = small.astype(np.intp) >> shift
        codes = (coarse[..., 0] << 2 * _BITS) | (coarse[..., 1] << _BITS) | coarse[..., 2]
        for row, of_one in enumerate(codes):
            result[row] = _of_one(of_one)
    return result


def _of_one(codes: NDArray[np.intp]) -> NDArray[np.float32]:
    """Features of a picture of coarse colours, shape (H, W).

    All but the edges depends on how often a colour occurs, and a picture has a few hundred coarse colours at most.
    """
    lab_of, bins_of, shares_of = _tables()
    backgrounds = [
        np.median(lab_of[np.concatenate(edges)], axis=0)
        for edges in ((codes[0], codes[-1]), (codes[:, 0], codes[:, -1]))
    ]
    flat = codes.ravel()
    counts = np.bincount(flat, minlength=1 << 3 * _BITS)
    found = np.flatnonzero(counts)
    anywhere = counts[found] / len(flat)
    central = np.bincount(flat, _centre(*codes.shape), minlength=1 << 3 * _BITS)[found]
    lab = lab_of[found]
    nearest = np.sqrt(np.minimum(*(np.square(lab - background).sum(axis=1) for background in backgrounds)))
    product = ((nearest - _SAME) / (_OTHER - _SAME)).clip(0, 1)
    share = product @ anywhere
    central_share = product @ central
    product += _LEAST
    anywhere *= product / (product @ anywhere)
    central *= product / (product @ central)

    weights = (anywhere + central)[:, None] / 2 * shares_of[found]
    histogram = np.bincount(bins_of[found].ravel(), weights.ravel(), _N_BINS)
    mean = anywhere @ lab
    spread = np.sqrt(np.maximum(anywhere @ np.square(lab) - np.square(mean), 0))
    moments = np.concatenate([mean, spread, central @ lab, *backgrounds]) / 100
    return np.concatenate([np.sqrt(histogram), moments, [share, central_share]]).astype(np.float32)


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
def _centre(height: int, width: int) -> NDArray[np.float64]:
    """A bell over the middle of a picture, shape (H * W,), summing to 1."""
    down = np.exp(-0.5 * np.square(np.linspace(-1, 1, height) / 0.5))
    right = np.exp(-0.5 * np.square(np.linspace(-1, 1, width) / 0.5))
    bell: NDArray[np.float64] = np.outer(down, right).ravel()
    bell /= bell.sum()
    return bell


@cache
def _tables() -> tuple[NDArray[np.float64], NDArray[np.intp], NDArray[np.float64]]:
    """For each coarse colour: its Lab, the eight bins around it, and its share in each."""
    steps = (np.arange(1 << _BITS) + 0.5) * (256 >> _BITS) - 0.5
    rgb = np.stack(np.meshgrid(steps, steps, steps, indexing="ij"), axis=-1).reshape(-1, 3)
    lab = _lab(rgb)
    bins = np.zeros((len(lab), 1), np.intp)
    shares = np.ones((len(lab), 1))
    for channel, centres in enumerate((_LIGHTNESS, _A, _B)):
        value = lab[:, channel].clip(centres[0], centres[-1])
        below = np.searchsorted(centres, value, side="right").clip(1, len(centres) - 1) - 1
        part = (value - centres[below]) / (centres[below + 1] - centres[below])
        ends = np.stack([below, below + 1], axis=1)
        bins = (bins[:, :, None] * len(centres) + ends[:, None]).reshape(len(lab), -1)
        shares = (shares[:, :, None] * np.stack([1 - part, part], axis=1)[:, None]).reshape(len(lab), -1)
    return lab, bins, shares


def _lab(rgb: NDArray[np.float64]) -> NDArray[np.float64]:
    """sRGB in 0..255 as CIE Lab under D65, shape (N, 3)."""
    unit = rgb / 255
    linear = np.where(unit <= 0.04045, unit / 12.92, ((unit + 0.055) / 1.055) ** 2.4)
    to_xyz = np.array(
        [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750], [0.0193339, 0.1191920, 0.9503041]]
    )
    xyz = linear @ to_xyz.T / to_xyz.sum(axis=1)
    root = np.where(xyz > (6 / 29) ** 3, np.cbrt(xyz), xyz / (3 * (6 / 29) ** 2) + 4 / 29)
    x, y, z = root.T
    return np.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], axis=1)
