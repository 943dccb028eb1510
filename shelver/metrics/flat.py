"""Exactly right or not: each node a label of its own, ancestors earn nothing."""

from __future__ import annotations

from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

from shelver.errors import ShapeError

Nodes = NDArray[np.integer[Any]]
Floats = NDArray[np.floating[Any]]
Flags = NDArray[np.bool_]

Frequency = Literal["head", "torso", "tail"]
FREQUENCIES: Final[tuple[Frequency, ...]] = ("head", "torso", "tail")
_CUMULATIVE_SHARES: Final = (0.5, 0.8)


def accuracy(truth: Nodes, predicted: Nodes, *, answered: Flags | None = None, also: Nodes | None = None) -> float:
    """Share of the products whose predicted node is exactly a right node.

    Args:
        truth: true nodes, shape (N,).
        predicted: predicted nodes, shape (N,).
        answered: False where a product has no answer, shape (N,).
        also: other right nodes, -1 padded, shape (N, A).

    Raises:
        ShapeError: the shapes differ, or N is 0.
    """
    return float(correct(truth, predicted, answered=answered, also=also).mean())


def correct(truth: Nodes, predicted: Nodes, *, answered: Flags | None = None, also: Nodes | None = None) -> Flags:
    """Where the predicted node is exactly a right node; False where unanswered, shape (N,).

    Raises:
        ShapeError: the shapes differ, or N is 0.
    """
    answer = answers(truth, predicted, answered)
    hits: Flags = truth == answer
    if also is not None:
        check_also(truth, also)
        hits = hits | ((also == answer[:, None]) & (answer >= 0)[:, None]).any(axis=1)
    return hits


def coverage(predicted: Nodes, *, answered: Flags | None = None) -> float:
    """Products answered over products.

    Raises:
        ShapeError: the shapes differ, or N is 0.
    """
    return float((answers(predicted, predicted, answered) >= 0).mean())


def weighted_f1(truth: Nodes, predicted: Nodes, *, answered: Flags | None = None) -> float:
    """F1 of each true label, averaged with the label's number of products as its weight.

    A label's F1 is 2 tp / (2 tp + fp + fn), each node a label of its own; ancestors earn nothing.

    Raises:
        ShapeError: the shapes differ, or N is 0.
    """
    f1, support, _ = _f1_by_label(truth, answers(truth, predicted, answered))
    return float(f1 @ support / support.sum())


def macro_f1(truth: Nodes, predicted: Nodes, *, answered: Flags | None = None) -> float:
    """F1 of each label, averaged over the labels that are present in the truth or among the predictions.

    A label that is predicted but never true has F1 0 and lowers the mean, as in scikit-learn.

    Raises:
        ShapeError: the shapes differ, or N is 0.
    """
    f1, _, present = _f1_by_label(truth, answers(truth, predicted, answered))
    return float(f1[present].mean())


def top_k_accuracy(
    truth: Nodes, top: Nodes, k: int, *, answered: Flags | None = None, also: Nodes | None = None
) -> float:
    """Share of the products of which a right node is among the first k suggestions.

    Args:
        truth: true nodes, shape (N,).
        top: suggested nodes, best first, negative where there are fewer, shape (N, at least k).
        k: how many suggestions count.
        answered: False where a product has no answer, shape (N,).
        also: other right nodes, -1 padded, shape (N, A).

    Raises:
        ShapeError: the shapes do not fit, N is 0, or `top` is narrower than k.
    """
    if top.ndim != 2 or not 1 <= k <= top.shape[1]:
        raise ShapeError(
            f"suggestions of shape {top.shape} for k = {k}",
            allowed="shape (N, T) with T at least k, and k at least 1",
            remedy="Ask the policy for more alternatives (`n_top`), or score a smaller k.",
        )
    first = answers(truth, top[:, 0], answered)
    hit = (top[:, :k] == truth[:, None]).any(axis=1)
    if also is not None:
        check_also(truth, also)
        for other in also.T:
            hit |= ((top[:, :k] == other[:, None]) & (other >= 0)[:, None]).any(axis=1)
    return float((hit & (first >= 0)).mean())


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


def answers(truth: Nodes, predicted: Nodes, answered: Flags | None) -> Nodes:
    """The predicted nodes, -1 where there is no answer."""
    check(truth, predicted)
    if answered is None:
        return predicted
    check(truth, answered)
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


def check(reference: NDArray[Any], other: NDArray[Any]) -> None:
    """Raises ShapeError unless both are (N,) with N at least 1."""
    if reference.ndim != 1 or other.shape != reference.shape or not len(reference):
        raise ShapeError(
            f"arrays of shapes {reference.shape} and {other.shape}",
            allowed="two arrays of one shape (N,) with N at least 1",
            remedy="Pass one entry for each product, and leave out slices without products.",
        )


def check_also(truth: Nodes, also: Nodes) -> None:
    """Raises ShapeError unless `also` is (N, A)."""
    if also.ndim != 2 or len(also) != len(truth):
        raise ShapeError(
            f"other right nodes of shape {also.shape} for {len(truth)} products",
            allowed=f"shape ({len(truth)}, A)",
            remedy="Pass a row for each product, padded with -1.",
        )
