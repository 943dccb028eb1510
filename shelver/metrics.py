"""What a score means: flat, hierarchical and probabilistic metrics over plain arrays.

Everywhere, N products have a true node `truth` (N,) and a predicted node `predicted` (N,), both indices
into one taxonomy. A product without an answer has a negative index in `predicted`, or False in `answered`
where that is given; it counts as wrong, and as a miss of its true label, but is a false alarm for none.
The root is no node. Empty input is a ShapeError, since a score of nothing was not measured.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

from shelver.errors import ShapeError
from shelver.taxonomy import Taxonomy

Nodes = NDArray[np.integer[Any]]
Floats = NDArray[np.floating[Any]]
Flags = NDArray[np.bool_]

Frequency = Literal["head", "torso", "tail"]
FREQUENCIES: Final[tuple[Frequency, ...]] = ("head", "torso", "tail")
_CUMULATIVE_SHARES: Final = (0.5, 0.8)

N_BINS: Final = 15


@dataclass(frozen=True, slots=True)
class Hierarchical:
    """Hierarchical precision, recall and F1, each in [0, 1]."""

    precision: float
    recall: float
    f1: float


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


def accuracy(truth: Nodes, predicted: Nodes, *, answered: Flags | None = None) -> float:
    """Share of the products whose predicted node is exactly the true node.

    Args:
        truth: true nodes, shape (N,).
        predicted: predicted nodes, shape (N,).
        answered: False where a product has no answer, shape (N,).

    Raises:
        ShapeError: the shapes differ, or N is 0.
    """
    return float(correct(truth, predicted, answered=answered).mean())


def correct(truth: Nodes, predicted: Nodes, *, answered: Flags | None = None) -> Flags:
    """Where the predicted node is exactly the true node; False where unanswered, shape (N,).

    Raises:
        ShapeError: the shapes differ, or N is 0.
    """
    hits: Flags = truth == _answers(truth, predicted, answered)
    return hits


def coverage(predicted: Nodes, *, answered: Flags | None = None) -> float:
    """Products answered over products.

    Raises:
        ShapeError: the shapes differ, or N is 0.
    """
    return float((_answers(predicted, predicted, answered) >= 0).mean())


def weighted_f1(truth: Nodes, predicted: Nodes, *, answered: Flags | None = None) -> float:
    """F1 of each true label, averaged with the label's number of products as its weight.

    A label's F1 is 2 tp / (2 tp + fp + fn), each node a label of its own; ancestors earn nothing.

    Raises:
        ShapeError: the shapes differ, or N is 0.
    """
    f1, support, _ = _f1_by_label(truth, _answers(truth, predicted, answered))
    return float(f1 @ support / support.sum())


def macro_f1(truth: Nodes, predicted: Nodes, *, answered: Flags | None = None) -> float:
    """F1 of each label, averaged over the labels that are present in the truth or among the predictions.

    A label that is predicted but never true has F1 0 and lowers the mean, as in scikit-learn.

    Raises:
        ShapeError: the shapes differ, or N is 0.
    """
    f1, _, present = _f1_by_label(truth, _answers(truth, predicted, answered))
    return float(f1[present].mean())


def top_k_accuracy(truth: Nodes, top: Nodes, k: int, *, answered: Flags | None = None) -> float:
    """Share of the products whose true node is among the first k suggestions.

    Args:
        truth: true nodes, shape (N,).
        top: suggested nodes, best first, negative where there are fewer, shape (N, at least k).
        k: how many suggestions count.
        answered: False where a product has no answer, shape (N,).

    Raises:
        ShapeError: the shapes do not fit, N is 0, or `top` is narrower than k.
    """
    if top.ndim != 2 or not 1 <= k <= top.shape[1]:
        raise ShapeError(
            f"suggestions of shape {top.shape} for k = {k}",
            allowed="shape (N, T) with T at least k, and k at least 1",
            remedy="Ask the policy for more alternatives (`n_top`), or score a smaller k.",
        )
    first = _answers(truth, top[:, 0], answered)
    hit = (top[:, :k] == truth[:, None]).any(axis=1) & (first >= 0)
    return float(hit.mean())


def hierarchical(
    taxonomy: Taxonomy, truth: Nodes, predicted: Nodes, *, answered: Flags | None = None
) -> Hierarchical:
    """Precision, recall and F1 over sets of ancestors, micro-averaged over products.

    With A(v) the node v and its ancestors without the root, precision is the sum over products of
    |A(predicted) ∩ A(truth)| over the sum of |A(predicted)|, recall the same over the sum of |A(truth)|,
    and F1 their harmonic mean. An unanswered product adds to recall's denominator only. Precision is 0
    where no product is answered.

    Raises:
        ShapeError: the shapes differ, or N is 0.

    Source:
        Kiritchenko et al. 2006, "Learning and evaluation in the presence of class hierarchies".
    """
    answer = _answers(truth, predicted, answered)
    shared = int(taxonomy.lca_level(truth, answer).sum())  # the depth of the common ancestor is |A ∩ A|
    n_predicted = int(taxonomy.level[answer[answer >= 0]].sum())
    n_true = int(taxonomy.level[truth].sum())
    # The harmonic mean of s/p and s/t is 2s / (p + t).
    return Hierarchical(
        precision=shared / n_predicted if n_predicted else 0.0,
        recall=shared / n_true,
        f1=2 * shared / (n_predicted + n_true),
    )


def relative_lca(taxonomy: Taxonomy, truth: Nodes, predicted: Nodes, *, answered: Flags | None = None) -> float:
    """Depth of the lowest common ancestor over the greater of the two nodes' depths, averaged over products.

    1 for the exact node, 0 where only the root is shared or there is no answer.

    Raises:
        ShapeError: the shapes differ, or N is 0.
    """
    answer = _answers(truth, predicted, answered)
    deeper = np.maximum(taxonomy.level[truth], np.where(answer >= 0, taxonomy.level[answer], 0))
    return float((taxonomy.lca_level(truth, answer) / deeper).mean())


def at_level(
    taxonomy: Taxonomy, truth: Nodes, predicted: Nodes, level: int
) -> tuple[NDArray[np.intp], Nodes, Nodes]:
    """Both sides cut at a level, to score it with the flat metrics.

    Args:
        taxonomy: the tree of both.
        truth: true nodes, shape (N,).
        predicted: predicted nodes, shape (N,) or (N, T); mask unanswered ones with `answered[rows]`.
        level: 1 is the first below the root.

    Returns:
        The M rows whose truth reaches the level, their true nodes there (M,), and their predicted nodes
        there, (M,) or (M, T), negative where the prediction stops above the level.
    """
    at = taxonomy.ancestors_at(truth, level)
    rows = np.flatnonzero(at >= 0)
    return rows, at[rows], taxonomy.ancestors_at(predicted[rows], level)


def head_torso_tail(train_counts: Nodes) -> NDArray[np.int8]:
    """How frequent each label is in training, as an index into FREQUENCIES.

    Labels in falling order of their count (the lower index first among equals): head are those up to and
    with the one that completes 50 % of the training products, torso those up to and with the one that
    completes 80 %, tail the rest. A label that training lacks is tail.

    Args:
        train_counts: training products of each label, shape (K,).

    Returns:
        0 for head, 1 for torso, 2 for tail, shape (K,).
    """
    counts = train_counts.astype(np.int64)
    order = np.argsort(-counts, kind="stable")
    counts = counts[order]
    before = np.cumsum(counts) - counts
    shares = before / max(int(counts.sum()), 1)
    classes = np.searchsorted(_CUMULATIVE_SHARES, shares, side="right")
    classes[counts == 0] = len(_CUMULATIVE_SHARES)
    result = np.empty(len(order), dtype=np.int8)
    result[order] = classes
    return result


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
    _check(right, confidence)
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


def _answers(truth: Nodes, predicted: Nodes, answered: Flags | None) -> Nodes:
    """The predicted nodes, -1 where there is no answer."""
    _check(truth, predicted)
    if answered is None:
        return predicted
    _check(truth, answered)
    return np.where(answered, predicted, -1)


def _f1_by_label(truth: Nodes, answer: Nodes) -> tuple[NDArray[np.float64], NDArray[np.int64], Flags]:
    """F1 (labels,), support (labels,), and which labels are present; a confusion matrix would be (K, K)."""
    given = answer[answer >= 0]
    n_labels = int(max(truth.max(), given.max(initial=0))) + 1
    n_true = np.bincount(truth, minlength=n_labels)
    n_given = np.bincount(given, minlength=n_labels)
    n_right = np.bincount(truth[truth == answer], minlength=n_labels)
    sums = n_true + n_given  # 2 tp + fp + fn
    return 2 * n_right / np.maximum(sums, 1), n_true, sums > 0


def _check(reference: NDArray[Any], other: NDArray[Any]) -> None:
    if reference.ndim != 1 or other.shape != reference.shape or not len(reference):
        raise ShapeError(
            f"arrays of shapes {reference.shape} and {other.shape}",
            allowed="two arrays of one shape (N,) with N at least 1",
            remedy="Pass one entry for each product, and leave out slices without products.",
        )
