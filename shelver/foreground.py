"""Where the product is in a picture: told by colour from what lies along the picture's edges; no network.

`lab` gives colours in a space in which distances are about as large as they look. `product_box` answers for the
view "box": which part of a picture is taken for the background, what stands out from it, and which connected piece
of that is the product. `shelver.pipeline.colour` counts the colours of what stands out.
"""

from __future__ import annotations

from functools import cache
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Box = tuple[int, int, int, int]
"""Left, top, right, bottom in pixels; right and bottom are the first pixel beyond."""

_SIDE_PX: Final = 64
"""Pictures are averaged down to this on the longer side: a box needs no more."""

_LEAST_SIDE_PX: Final = 8
"""A strip that is narrower than this after averaging has no inside to speak of."""

_BITS: Final = 6
"""Of each of red, green and blue; the Lab of a colour is then looked up."""

# In units of Lab. Below `_FAINT` nothing stands out; where the background is plain, `_PLAIN` is enough, however
# strong the strongest contrast within the product is.
_FAINT: Final = 6.0
_PLAIN: Final = 25.0
_ROUGHER: Final = 1.2
"""A pixel stands out where it differs from the background this many times as much as nine tenths of the edge."""

_PALETTE: Final = 4
"""Colours that the edges are described by; each stands for at least `_PALETTE_SHARE` of them."""
_PALETTE_SHARE: Final = 0.04
_PALETTE_TURNS: Final = 3

_COMPANION: Final = 0.3
"""A piece belongs to the product too, as the other of two shoes, if it weighs so much of the heaviest piece."""
_SURE: Final = 0.4
"""The product is found only if its pieces weigh so much of all that stands out."""
_MOST: Final = 0.85
"""A box with more of the picture than this tells nothing that the whole picture does not."""


@cache
def lab_table(bits: int) -> NDArray[np.float32]:
    """CIE Lab of coarse colours, shape (8 ** bits, 3); red, green and blue have `bits` bits each, red first."""
    steps = (np.arange(1 << bits) + 0.5) * (256 >> bits) - 0.5
    rgb = np.stack(np.meshgrid(steps, steps, steps, indexing="ij"), axis=-1).reshape(-1, 3)
    return lab(rgb).astype(np.float32)


def lab(rgb: NDArray[np.float64]) -> NDArray[np.float64]:
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


def codes(pictures: NDArray[np.uint8], bits: int) -> NDArray[np.int32]:
    """Coarse colours of pixels as rows of `lab_table`, shape of `pictures` without its last axis."""
    coarse = (pictures >> (8 - bits)).astype(np.int32)
    return (coarse[..., 0] << 2 * bits) | (coarse[..., 1] << bits) | coarse[..., 2]


def product_box(image: Image.Image, *, margin: float = 0.0) -> Box | None:
    """The box around the product; None where it is unsure, or all of the picture is the product.

    The background is whatever the edges show: a few colours (a palette), or colours that run from one edge to the
    opposite one (a gradient, a light). A pixel stands out by its distance in Lab to the nearest of these. What
    stands out far enough, by Otsu's threshold and by how rough the edges themselves are, falls into connected
    pieces. One weighs the more the more it stands out, the nearer it is to the middle, and the less of it lies
    along the edge. The box is around the heaviest piece and its companions.

    A product that fills its picture, one in the colours of its background, and clutter in colours of its own that
    stands near the middle deceive it. `benchmarks/views.py` says how often.

    Args:
        image: RGB.
        margin: added at each side as far as there is picture, in shares of the box's width or height.

    Source:
        Otsu 1979, "A threshold selection method from gray-level histograms". The edges as background: Wei et al.
        2012, "Geodesic saliency using background priors". Colours between two edges: Coons 1967, "Surfaces for
        computer-aided design of space forms".
    """
    ratio = _SIDE_PX / max(image.size)
    width, height = (max(1, round(side * ratio)) for side in image.size)
    if min(width, height) < _LEAST_SIDE_PX:
        return None
    small = np.asarray(image.resize((width, height), Image.Resampling.BOX), dtype=np.uint8)
    found = standing_out(lab_table(_BITS)[codes(small, _BITS)])
    rim = np.concatenate([found[0], found[-1], found[1:-1, 0], found[1:-1, -1]])
    threshold = max(_FAINT, min(otsu(found), _PLAIN), _ROUGHER * float(np.quantile(rim, 0.9)))
    product = _heaviest(found, found > threshold)
    if product is None:
        return None
    rows, columns = np.flatnonzero(product.any(axis=1)), np.flatnonzero(product.any(axis=0))
    box = columns[0] / width, rows[0] / height, (columns[-1] + 1) / width, (rows[-1] + 1) / height
    return _with_margin(box, margin, image.size)


def standing_out(picture: NDArray[np.float32]) -> NDArray[np.float32]:
    """How far each pixel is from anything that the edges lead one to expect there.

    Args:
        picture: Lab, shape (H, W, 3), H and W at least 3.

    Returns:
        Distance in Lab, float32, shape (H, W).
    """
    soft = _blurred(picture)
    height, width = soft.shape[:2]
    rim = np.concatenate([soft[0], soft[-1], soft[1:-1, 0], soft[1:-1, -1]])
    square = np.stack([np.square(soft - colour).sum(axis=2) for colour in _palette(rim)]).min(axis=0)
    top, bottom, left, right = (_run(edge) for edge in (soft[0], soft[-1], soft[:, 0], soft[:, -1]))
    down = np.linspace(0, 1, height, dtype=np.float32)[:, None, None]
    across = np.linspace(0, 1, width, dtype=np.float32)[None, :, None]
    vertical = (1 - down) * top[None] + down * bottom[None]
    horizontal = (1 - across) * left[:, None] + across * right[:, None]
    corners = (1 - down) * ((1 - across) * (top[0] + left[0]) + across * (top[-1] + right[0])) / 2 + down * (
        (1 - across) * (bottom[0] + left[-1]) + across * (bottom[-1] + right[-1])
    ) / 2
    for expected in (vertical, horizontal, vertical + horizontal - corners):
        np.minimum(square, np.square(soft - expected).sum(axis=2), out=square)
    found: NDArray[np.float32] = np.sqrt(square)
    return found


def otsu(values: NDArray[np.float32], n_bins: int = 64) -> float:
    """The threshold that parts values, all at least 0, into the two most different groups."""
    step = max(float(values.max()), 1e-6) / n_bins
    counts = np.bincount((values.ravel() / step).astype(np.intp).clip(0, n_bins - 1), minlength=n_bins)
    below = counts.cumsum()[:-1]
    sums = (counts * (np.arange(n_bins) + 0.5)).cumsum()
    above = counts.sum() - below
    between = np.square(sums[-1] * below / counts.sum() - sums[:-1]) / np.maximum(below * above, 1)
    return float((between.argmax() + 1) * step)


def pieces(mask: NDArray[np.bool_]) -> NDArray[np.intp]:
    """Connected pieces of a mask, diagonals included, numbered from 1 in any order; 0 elsewhere.

    Goes through each row's runs, which are few, and joins those that touch a run of the row above.
    """
    numbers = np.zeros(mask.shape, np.intp)
    joined = [0]

    def root(number: int) -> int:
        while joined[number] != number:
            joined[number] = number = joined[joined[number]]
        return number

    above: list[tuple[int, int, int]] = []
    padded = np.zeros((len(mask), mask.shape[1] + 2), np.int8)
    padded[:, 1:-1] = mask
    turns = np.diff(padded, axis=1)
    for at in range(len(mask)):
        here = []
        changes = np.flatnonzero(turns[at]).tolist()
        for start, end in zip(changes[::2], changes[1::2], strict=True):
            touched = {root(number) for first, last, number in above if first <= end and start <= last}
            number = min(touched, default=len(joined))
            if not touched:
                joined.append(number)
            for other in touched:
                joined[other] = number
            numbers[at, start:end] = number
            here.append((start, end, number))
        above = here
    return np.array([root(number) for number in range(len(joined))], np.intp)[numbers]


def _heaviest(found: NDArray[np.float32], mask: NDArray[np.bool_]) -> NDArray[np.bool_] | None:
    """The piece that is most likely the product, with its companions."""
    if not mask.any():
        return None
    height, width = mask.shape
    numbers = pieces(mask)
    standing = (found * _bell(height, width)).ravel()
    weight = np.bincount(numbers.ravel(), standing).astype(np.float64)
    weight[0] = 0
    on_rim = np.concatenate([numbers[0], numbers[-1], numbers[1:-1, 0], numbers[1:-1, -1]])
    along = np.bincount(on_rim, minlength=len(weight)) / np.sqrt(np.maximum(np.bincount(numbers.ravel()), 1))
    weight = weight / (1 + along)
    chosen = weight >= _COMPANION * weight.max()
    if weight[chosen].sum() < _SURE * weight.sum():
        return None
    chosen[0] = False
    product: NDArray[np.bool_] = chosen[numbers]
    return product


def _with_margin(box: tuple[float, float, float, float], margin: float, size_px: tuple[int, int]) -> Box | None:
    """A box in shares of a picture as pixels of it."""
    left, top, right, bottom = box
    wider, higher = margin * (right - left), margin * (bottom - top)
    left, right = max(0.0, left - wider), min(1.0, right + wider)
    top, bottom = max(0.0, top - higher), min(1.0, bottom + higher)
    if (right - left) * (bottom - top) > _MOST:
        return None
    width, height = size_px
    return int(left * width), int(top * height), -int(-right * width // 1), -int(-bottom * height // 1)


def _palette(rim: NDArray[np.float32]) -> NDArray[np.float32]:
    """A few colours that describe the edges, shape (n, 3): the median, those farthest from it, then k-means."""
    colours = np.median(rim, axis=0)[None]
    distances = np.square(rim - colours[0]).sum(axis=1)
    for _ in range(_PALETTE - 1):
        colours = np.concatenate([colours, rim[distances.argmax()][None]])
        np.minimum(distances, np.square(rim - colours[-1]).sum(axis=1), out=distances)
    for turn in range(_PALETTE_TURNS + 1):
        nearest = np.square(rim[:, None] - colours).sum(axis=2).argmin(axis=1)
        counts = np.bincount(nearest, minlength=len(colours))
        if turn == _PALETTE_TURNS:
            return colours[counts >= _PALETTE_SHARE * len(rim)]
        sums = np.stack([np.bincount(nearest, rim[:, c], len(colours)) for c in range(3)], axis=1)
        held = counts > 0
        colours[held] = sums[held] / counts[held, None]
    raise AssertionError("the last turn returns")


def _blurred(picture: NDArray[np.float32]) -> NDArray[np.float32]:
    """The mean of 3 by 3 pixels: JPEG leaves speckles around products."""
    padded = np.pad(picture, ((1, 1), (1, 1), (0, 0)), mode="edge")
    down = padded[:-2] + padded[1:-1] + padded[2:]
    mean: NDArray[np.float32] = (down[:, :-2] + down[:, 1:-1] + down[:, 2:]) / 9
    return mean


def _run(edge: NDArray[np.float32], reach: int = 5) -> NDArray[np.float32]:
    """A moving mean along an edge, shape (n, 3)."""
    padded = np.pad(edge, ((reach + 1, reach), (0, 0)), mode="edge")
    total = padded.cumsum(axis=0)
    mean: NDArray[np.float32] = (total[2 * reach + 1 :] - total[: -2 * reach - 1]) / (2 * reach + 1)
    return mean


@cache
def _bell(height: int, width: int) -> NDArray[np.float64]:
    """How central each pixel is."""
    down, right = (np.exp(-0.5 * np.square(np.linspace(-1, 1, side) / 0.6)) for side in (height, width))
    return np.outer(down, right)
