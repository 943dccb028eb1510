"""Whether a confidence means what it says."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from shelver.errors import ShapeError
from shelver.metrics.flat import Flags, Floats, Nodes, check
from shelver.taxonomy import Taxonomy

N_BINS: Final = 15


@dataclass(frozen=True, slots=True)
class Reliability:
    """Confidence against accuracy in B bins of equal mass, ordered by confidence.

    Attributes:
        n: products in each bin, shape (B,).
        confidence: their mean confidence, shape (B,).
        accuracy: the share of them that is right, shape (B,).
    """

    n: NDArray[np.int64]
    confidence: NDArray[np.float64]
    accuracy: NDArray[np.float64]


def reliability(confidence: Floats, right: Flags, *, n_bins: int = N_BINS) -> Reliability:
    """Confidence against accuracy in bins of equal mass, for `ece` and for plots.

    Products of equal confidence stay in one bin, so the result does not depend on their order; with many such
    ties the bins are fewer and less equal.

    Args:
        confidence: probability of the predicted node, of answered products, shape (N,).
        right: whether the predicted node is the true one, shape (N,).
        n_bins: the most bins.

    Raises:
        ShapeError: the shapes differ, or N is 0.
    """
    check(right, confidence)
    starts = np.arange(1, n_bins) * len(confidence) // n_bins
    edges = np.unique(np.partition(confidence, starts)[starts])
    place = np.searchsorted(edges, confidence, side="right")
    n = np.bincount(place)
    kept = n > 0
    totals = (np.bincount(place, weights=of)[kept] for of in (confidence.astype(np.float64), right))
    mean_confidence, share_right = (total / n[kept] for total in totals)
    return Reliability(n=n[kept], confidence=mean_confidence, accuracy=share_right)


def ece(confidence: Floats, right: Flags, *, n_bins: int = N_BINS) -> float:
    """Expected calibration error of the confidence: 15 bins of equal mass, debiased.

    With n_b products, mean confidence c_b and accuracy a_b in bin b::

        ece = sqrt(max(0, sum_b n_b / N * ((c_b - a_b)^2 - a_b (1 - a_b) / (n_b - 1))))

    The subtracted term is an unbiased estimate of the variance of a_b, which the plain estimate mistakes for
    miscalibration, so the sum is right on average at any N, and 0 for a calibrated model. It is clipped as a
    whole: to clip each bin would bring a bias back. As a root mean square, the figure is not below the mean
    absolute gap of the same bins. A bin of one product has no such estimate and stays as it is.

    Args:
        confidence: probability of the predicted node, of answered products, shape (N,).
        right: whether the predicted node is the true one, shape (N,).
        n_bins: the most bins.

    Raises:
        ShapeError: the shapes differ, or N is 0.

    Source:
        Kumar et al. 2019, "Verified uncertainty calibration" (the debiased estimator, definition 5.1);
        equal mass and the name after Roelofs et al. 2022, "Mitigating bias in calibration error
        estimation".
    """
    bins = reliability(confidence, right, n_bins=n_bins)
    variance = bins.accuracy * (1 - bins.accuracy) / np.maximum(bins.n - 1, 1)
    squares = (bins.confidence - bins.accuracy) ** 2 - variance
    return float(np.sqrt(max(0.0, np.average(squares, weights=bins.n))))


def brier(confidence: Floats, right: Flags) -> float:
    """Brier score of the answers: mean of (confidence - right)², right being 1 or 0; 0 is best.

    Args:
        confidence: probability of the predicted node, of answered products, shape (N,).
        right: whether the predicted node is the true one, shape (N,).

    Raises:
        ShapeError: the shapes differ, or N is 0.

    Source:
        Brier 1950, "Verification of forecasts expressed in terms of probability".
    """
    check(right, confidence)
    return float(np.mean((confidence.astype(np.float64) - right) ** 2))


def level_brier(taxonomy: Taxonomy, nodes: Floats, truth: Nodes) -> NDArray[np.float32]:
    """Brier score over all outcomes of each level, for each product: it sees the whole distribution.

    The outcomes of level l are its nodes and "ends above it", which has the probability that they leave of 1. With
    p their probabilities and y 1 for what is true and 0 for all others, the score is the sum of (p - y)², in
    [0, 2]: twice that of `brier` where there are two outcomes.

    Args:
        taxonomy: the tree.
        nodes: P(node), coherent, shape (N, K).
        truth: true nodes, shape (N,).

    Returns:
        shape (N, L), level 1 first.

    Raises:
        ShapeError: `nodes` is not (N, K) for the N of `truth`.

    Source:
        Brier 1950, for many classes.
    """
    if nodes.shape != (len(truth), taxonomy.n_nodes):
        raise ShapeError(
            f"probabilities of shape {nodes.shape}",
            allowed=f"({len(truth)}, {taxonomy.n_nodes})",
            remedy="Pass a row for each product and a column for each node of the tree.",
        )
    scores = np.empty((len(truth), taxonomy.n_levels), np.float32)
    row = np.arange(len(truth))
    for level in range(1, taxonomy.n_levels + 1):
        first, end = np.searchsorted(taxonomy.level, [level, level + 1])  # a level's nodes are contiguous
        probs = nodes[:, first:end]
        above = np.maximum(1 - probs.sum(axis=1), 0)
        at = taxonomy.lineage[truth, level - 1]
        of_truth = np.where(at >= 0, nodes[row, np.maximum(at, 0)], above)
        # sum of (p - y)² is the sum of p², less 2 p of the truth, plus 1.
        squares = np.einsum("nk,nk->n", probs, probs) + above**2
        scores[:, level - 1] = np.maximum(squares - 2 * of_truth + 1, 0)
    return scores
