"""Figures with their intervals at 95 %: of shares exact (Clopper and Pearson), of F1 from resampled products."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final

import numpy as np
from numpy.typing import NDArray

from shelver.calibrate.binomial import interval
from shelver.metrics import hierarchical, weighted_f1
from shelver.service.records.payloads import Figure
from shelver.taxonomy import Taxonomy

RESAMPLES: Final = 200
LEAST: Final = 20
"""Of fewer products than this an F1 carries no interval."""
Nodes = NDArray[np.int64]
Counts = NDArray[np.int64]


def shares(wanted: Iterable[tuple[int, int]]) -> dict[tuple[int, int], Figure | None]:
    """The figure of k out of n, for many at once, which takes little longer than for one; None where n is 0."""
    known = sorted({(k, n) for k, n in wanted if n})
    found: dict[tuple[int, int], Figure | None] = {(0, 0): None}
    if known:
        lows, highs = interval([k for k, _ in known], [n for _, n in known])
        for (k, n), low, high in zip(known, lows, highs, strict=True):
            found[k, n] = Figure(value=k / n, low=float(low), high=float(high), n=n)
    return found


def f1_figures(tree: Taxonomy, truth: Nodes, predicted: Nodes) -> tuple[Figure | None, Figure | None]:
    """Weighted and hierarchical F1.

    Args:
        tree: of both.
        truth: true nodes, shape (N,).
        predicted: what was decided, shape (N,); -1 where nothing was.
    """
    n = len(truth)
    if not n:
        return None, None
    values = weighted_f1(truth, predicted), hierarchical(tree, truth, predicted).f1
    if n < LEAST:
        weighted, by_path = (Figure(value=value, low=None, high=None, n=n) for value in values)
        return weighted, by_path
    # Products with the same pair of nodes are alike: how often each pair is drawn says all.
    pairs, counts = np.unique(np.column_stack([truth, predicted]), axis=0, return_counts=True)
    rng = np.random.default_rng(n)  # the same labels give the same interval
    drawn = rng.multinomial(n, counts / n, size=RESAMPLES)
    n_right = int((truth == predicted).sum())
    scores = _weighted(pairs[:, 0], pairs[:, 1]), _by_path(tree, pairs[:, 0], pairs[:, 1])
    weighted, by_path = (
        _figure(value, score, drawn, n_right) for value, score in zip(values, scores, strict=True)
    )
    return weighted, by_path


def _figure(value: float, score: Callable[[Counts], float], drawn: Counts, n_right: int) -> Figure:
    n = int(drawn[0].sum())
    low, high = np.quantile([score(counts) for counts in drawn], [0.025, 0.975])
    if low == high:  # all right, or all wrong: resampling knows nothing else, but the share's interval does
        exact_low, exact_high = interval(n_right, n)
        low, high = min(low, exact_low), max(high, exact_high)
    return Figure(value=value, low=float(low), high=float(high), n=n)


def _weighted(truth: Nodes, predicted: Nodes) -> Callable[[Counts], float]:
    """`shelver.metrics.weighted_f1` of pairs that were drawn so many times."""
    labels, places = np.unique(np.concatenate([truth, predicted]), return_inverse=True)
    is_true, is_said = np.split(places, 2)
    right = truth == predicted

    def score(counts: Counts) -> float:
        true = np.bincount(is_true, counts, len(labels))
        said = np.bincount(is_said[predicted >= 0], counts[predicted >= 0], len(labels))
        hit = np.bincount(is_true[right], counts[right], len(labels))
        f1 = 2 * hit / np.maximum(true + said, 1)
        return float(f1 @ true / true.sum())

    return score


def _by_path(tree: Taxonomy, truth: Nodes, predicted: Nodes) -> Callable[[Counts], float]:
    """The F1 of `shelver.metrics.hierarchical` of pairs that were drawn so many times."""
    shared = tree.lca_level(truth, predicted)
    sizes = tree.level[truth] + np.where(predicted >= 0, tree.level[predicted], 0)
    return lambda counts: float(2 * (counts @ shared) / (counts @ sizes))
