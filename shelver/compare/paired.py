"""Paired statistics: two models on the same products, so that what is hard for both cancels out."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from shelver.errors import ShapeError

N_RESAMPLES: Final = 2_000
LEVEL: Final = 0.95
"""Of intervals; a verdict needs p at most 1 - LEVEL."""
POWER: Final = 0.8
_Z_LEVEL: Final = 1.959964
_Z_POWER: Final = 0.841621
_BLOCK_ENTRIES: Final = 4_000_000

Floats = NDArray[np.float64]


def mcnemar(n_gained: int, n_lost: int) -> float:
    """Exact two-sided p-value of McNemar's test.

    Products on which both models are right, or both wrong, say nothing. Of the others, equal models would win each
    with probability 1/2.

    Args:
        n_gained: products that only the second model has right.
        n_lost: products that only the first model has right.

    Returns:
        Twice the smaller tail of the binomial distribution, at most 1; 1 where there is nothing to go by.

    Source:
        McNemar 1947, "Note on the sampling error of the difference between correlated proportions or percentages".
    """
    n, fewer = n_gained + n_lost, min(n_gained, n_lost)
    if not n:
        return 1.0
    k = np.arange(1, fewer + 1)
    # Logarithms of the binomial coefficients, each from the one before.
    logs = np.concatenate([[0.0], np.cumsum(np.log((n - k + 1) / k))])
    largest = float(logs.max())
    tail = math.log(float(np.exp(logs - largest).sum())) + largest - n * math.log(2)
    return min(1.0, 2 * math.exp(tail))


def holm(p_values: Sequence[float]) -> tuple[float, ...]:
    """p-values corrected for their number, so that all verdicts together err with probability 1 - LEVEL at most.

    Returns:
        In the order of `p_values`, each at least as large as before, at most 1.

    Source:
        Holm 1979, "A simple sequentially rejective multiple test procedure".
    """
    p = np.asarray(p_values, np.float64)
    order = np.argsort(p, kind="stable")
    stepped = np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1))
    corrected = np.empty(len(p))
    corrected[order] = np.minimum(stepped, 1.0)
    return tuple(corrected.tolist())


def resampled_sums(columns: NDArray[np.floating[Any]], *, seed: int, n_resamples: int = N_RESAMPLES) -> Floats:
    """Sums of columns over products drawn again, with replacement, as many as there are.

    Args:
        columns: shape (N, M); all columns are drawn with the same products, which keeps them paired.
        seed: decides the draws.
        n_resamples: R.

    Returns:
        Shape (R, M).

    Raises:
        ShapeError: no product.

    Source:
        Efron 1979, "Bootstrap methods: another look at the jackknife".
    """
    if columns.ndim != 2 or not len(columns):
        raise ShapeError(
            f"columns of shape {columns.shape}",
            allowed="(N, M) with N at least 1",
            remedy="Pass one row for each product.",
        )
    n, rng = len(columns), np.random.default_rng(seed)
    rows_at_once = max(1, _BLOCK_ENTRIES // n)
    sums = np.empty((n_resamples, columns.shape[1]))
    for start in range(0, n_resamples, rows_at_once):
        rows = min(rows_at_once, n_resamples - start)
        drawn = rng.integers(0, n, size=(rows, n), dtype=np.int64)
        drawn += np.arange(rows)[:, None] * n
        how_often = np.bincount(drawn.ravel(), minlength=rows * n).reshape(rows, n)
        sums[start : start + rows] = how_often.astype(np.float64) @ columns
    return sums


def interval(resamples: Floats) -> tuple[float, float]:
    """The middle LEVEL of what came out of the resamples, shape (R,)."""
    tail = (1 - LEVEL) / 2
    low, high = np.quantile(resamples, [tail, 1 - tail])
    return float(low), float(high)


def share_interval(
    n_gained: int, n_lost: int, n: int, *, seed: int, n_resamples: int = N_RESAMPLES
) -> tuple[float, float]:
    """Bootstrap interval of (gained - lost) / n.

    Each of n products counts 1, -1 or 0, so a resample is one multinomial draw: many slices cost no time.
    """
    shares = np.array([n_gained, n_lost, n - n_gained - n_lost]) / n
    drawn = np.random.default_rng(seed).multinomial(n, shares, size=n_resamples)
    return interval((drawn[:, 0] - drawn[:, 1]) / n)


def products_needed(n_gained: int, n_lost: int, n: int, *, difference: float) -> int:
    """Products on which a true difference of accuracy would show, four times out of five.

    By the normal approximation, from how often the two models disagree on the n products at hand; where they never
    did, as if they had once.

    Args:
        n_gained, n_lost: as of `mcnemar`.
        n: products they were counted on.
        difference: of accuracy, for example .005 for half a point.

    Source:
        Connor 1987, "Sample size for testing differences in proportions for the paired-sample design".
    """
    disagree = max(n_gained + n_lost, 1) / n
    spread = max(disagree - difference**2, 0.0)
    needed = (_Z_LEVEL * math.sqrt(disagree) + _Z_POWER * math.sqrt(spread)) ** 2 / difference**2
    return math.ceil(needed)
