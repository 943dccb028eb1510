"""What if only the most confident answers were given? Risk against coverage.

Products of equal confidence are answered together or not at all, so nothing depends on their order. Products
without an answer come last and are wrong: no threshold covers them rightly, and a model cannot raise its score by
abstaining.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from shelver.errors import ShapeError
from shelver.metrics.flat import Flags, Floats, check


@dataclass(frozen=True, slots=True)
class RiskCoverage:
    """Risk against coverage, a point a distinct confidence, coverage rising.

    Attributes:
        threshold: the least confidence that is answered, falling, shape (P,).
        coverage: products answered at that threshold over all products, shape (P,).
        risk: the share of the answered that is wrong, shape (P,).
    """

    threshold: NDArray[np.float64]
    coverage: NDArray[np.float64]
    risk: NDArray[np.float64]


def risk_coverage(confidence: Floats, right: Flags, *, answered: Flags | None = None) -> RiskCoverage:
    """Risk against coverage at every threshold; empty where nothing is answered.

    Args:
        confidence: of each answer; not looked at where unanswered, shape (N,).
        right: whether it is right, shape (N,).
        answered: False where a product has no answer, shape (N,).

    Raises:
        ShapeError: the shapes differ, or N is 0.

    Source:
        El-Yaniv and Wiener 2010, "On the foundations of noise-free selective classification".
    """
    ends, n_right, threshold = _groups(confidence, right, answered)
    return RiskCoverage(threshold=threshold, coverage=ends / len(right), risk=1 - n_right / ends)


def aurc(confidence: Floats, right: Flags, *, answered: Flags | None = None) -> float:
    """Area under the risk-coverage curve: the mean risk of the i most confident answers, i from 1 to N.

    Within a group of equal confidence each risk is the mean over all orders of the group, so the figure is what
    random orders give on average. Products without an answer are one last group, all wrong.

    Args:
        confidence: of each answer; not looked at where unanswered, shape (N,).
        right: whether it is right, shape (N,).
        answered: False where a product has no answer, shape (N,).

    Returns:
        In [0, 1]; 0 is best.

    Raises:
        ShapeError: the shapes differ, or N is 0.

    Source:
        Geifman, Uziel and El-Yaniv 2019, "Bias-reduced uncertainty estimation for deep neural classifiers".
    """
    ends, n_right, _ = _groups(confidence, right, answered)
    n = len(right)
    if not len(ends) or ends[-1] < n:
        ends = np.append(ends, n)
        n_right = np.append(n_right, n_right[-1] if len(n_right) else 0)
    # The expected number of wrong ones among the first i is linear between the ends of the groups.
    rank = np.arange(1, n + 1)
    n_wrong = np.interp(rank, np.append(0, ends), np.append(0, ends - n_right))
    return float((n_wrong / rank).mean())


def e_aurc(confidence: Floats, right: Flags, *, answered: Flags | None = None) -> float:
    """Excess AURC: `aurc` less the least that the same number of errors allows, all of them last.

    It says how badly the confidence sorts right from wrong, whatever the accuracy. The least is summed exactly;
    the source's r + (1 - r) ln(1 - r), with r the share of errors, is its limit for many products.

    Raises:
        ShapeError: the shapes differ, or N is 0.

    Source:
        Geifman, Uziel and El-Yaniv 2019, "Bias-reduced uncertainty estimation for deep neural classifiers".
    """
    area = aurc(confidence, right, answered=answered)
    n = len(right)
    n_right = int((right if answered is None else right & answered).sum())
    rank = np.arange(n_right + 1, n + 1)
    least = float(((rank - n_right) / rank).sum() / n)
    return max(0.0, area - least)


def coverage_at_precision(
    confidence: Floats, right: Flags, precision: float, *, answered: Flags | None = None
) -> float:
    """Greatest coverage at which at least the share `precision` of the answers is right; 0 where none is.

    Read off these very products: it flatters. A promise for others needs held-out products and a bound.

    Args:
        confidence: of each answer; not looked at where unanswered, shape (N,).
        right: whether it is right, shape (N,).
        precision: the share that is asked for, in (0, 1].
        answered: False where a product has no answer; it counts against coverage, shape (N,).

    Raises:
        ShapeError: the shapes differ, or N is 0, or `precision` is no such share.
    """
    if not 0 < precision <= 1:
        raise ShapeError(
            f"precision {precision}", allowed="a share above 0, at most 1", remedy="Ask for .95, not 95."
        )
    ends, n_right, _ = _groups(confidence, right, answered)
    # A hair less, since .9 of 10 is not quite 9 in binary.
    held = np.flatnonzero(n_right >= precision * ends * (1 - 1e-12))
    return float(ends[held[-1]] / len(right)) if len(held) else 0.0


def _groups(
    confidence: Floats, right: Flags, answered: Flags | None
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
    """Answered products by falling confidence: at the end of each group of equals, how many there are so far, how
    many of them are right, and their confidence; each of shape (groups,)."""
    check(right, confidence)
    if answered is not None:
        check(right, answered)
        confidence, right = confidence[answered], right[answered]
    order = np.argsort(-confidence, kind="stable")
    sorted_confidence = confidence[order].astype(np.float64)
    ends = np.flatnonzero(np.append(np.diff(sorted_confidence) != 0, len(order) > 0))
    n_right = np.cumsum(right[order])[ends] if len(ends) else np.zeros(0, np.int64)
    return (ends + 1).astype(np.int64), n_right.astype(np.int64), sorted_confidence[ends]
