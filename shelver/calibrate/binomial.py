"""The binomial distribution, exactly: how likely so few mistakes are, and what precision they leave possible."""

from __future__ import annotations

import math
from typing import Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]

_ENOUGH: Final = 1e-17
"""A term that adds less than this share to its sum ends the sum."""
_HALVINGS: Final = 60
_TERMS: Final = 32
"""So many terms are made at once."""
_log_factorial = np.vectorize(lambda n: math.lgamma(n + 1.0), otypes=[np.float64])


def at_most(k: ArrayLike, n: ArrayLike, p: ArrayLike) -> Floats:
    """P(X <= k) of a binomial X: n draws, each a hit with probability p. Arguments broadcast.

    Args:
        k: hits, from 0 to n.
        n: draws; where there are none, the answer is 1.
        p: in (0, 1).
    """
    hits, draws, chance = np.broadcast_arrays(
        np.asarray(k, np.float64), np.asarray(n, np.float64), np.asarray(p, np.float64)
    )
    # The tail on the side of k that is away from the mean, where the terms fall from the first one on.
    low = hits <= draws * chance
    near = np.where(low, hits, draws - hits - 1)
    chance = np.where(low, chance, 1 - chance)
    tail = _tail(near, draws, chance)
    return np.clip(np.where(low, tail, 1 - tail), 0.0, 1.0)


def interval(k: ArrayLike, n: ArrayLike, confidence: float = 0.95) -> tuple[Floats, Floats]:
    """The exact two-sided interval of a share of which k of n were seen (Clopper and Pearson); n from 1."""
    hits, draws = np.broadcast_arrays(np.asarray(k, np.float64), np.asarray(n, np.float64))
    beyond = (1 - confidence) / 2

    def solve(hits: Floats, wanted: float) -> Floats:
        # P(X <= hits) falls as the share grows.
        low, high = np.zeros(hits.shape), np.ones(hits.shape)
        for _ in range(_HALVINGS):
            middle = (low + high) / 2
            above = at_most(hits, draws, middle) > wanted
            low, high = np.where(above, middle, low), np.where(above, high, middle)
        return (low + high) / 2

    lower = np.where(hits > 0, solve(np.maximum(hits - 1, 0), 1 - beyond), 0.0)
    upper = np.where(hits < draws, solve(np.minimum(hits, draws - 1), beyond), 1.0)
    return lower, upper


def _tail(k: Floats, n: Floats, p: Floats) -> Floats:
    """P(X <= k) by the terms from k downwards; 0 where k is below 0."""
    start = np.maximum(k, 0)
    log_first = (
        _log_factorial(n)
        - _log_factorial(start)
        - _log_factorial(n - start)
        + start * np.log(p)
        + (n - start) * np.log1p(-p)
    )
    term = np.where(k >= 0, np.exp(log_first), 0.0)
    total, i = term.copy(), start.copy()
    odds, steps = (1 - p) / p, np.arange(_TERMS)
    while (going := (i > 0) & (term > _ENOUGH * total)).any():
        left = i[..., None] - steps  # a factor of 0 ends the terms where no hit is left
        factors = np.maximum(left, 0) / (n[..., None] - left + 1) * odds[..., None]
        terms = np.where(going, term, 0.0)[..., None] * np.cumprod(factors, axis=-1)
        total += terms.sum(axis=-1)
        term, i = terms[..., -1], i - _TERMS
    return total
