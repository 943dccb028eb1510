"""Answers that name values: one or several a product, as attributes have them.

Labels and answers are pairs of a product and a value, in any order, no pair twice. A product that has one value
has one pair, so the same definitions serve attributes that take one value and those that take several. Values that
were labelled but cannot be answered have codes like any others.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from shelver.errors import ShapeError
from shelver.metrics.flat import Flags, Floats

COMMON: Final = 20
"""A value with at least so many labelled products is a common one."""


@dataclass(frozen=True, slots=True)
class Pairs:
    """Products and values.

    Attributes:
        row: products, counted from 0, shape (P,).
        value: codes of values, from 0, shape (P,).
    """

    row: NDArray[np.integer[Any]]
    value: NDArray[np.integer[Any]]

    def __len__(self) -> int:
        return len(self.row)

    def __getitem__(self, rows: Flags | NDArray[np.intp]) -> Pairs:
        return Pairs(self.row[rows], self.value[rows])


@dataclass(frozen=True, slots=True)
class ValueScores:
    """How right the answers to N products are.

    Attributes:
        exact: share of the products whose answered values are exactly the labelled ones; where a product has one
            value, the accuracy. A product without an answer is wrong.
        coverage: share of the products with an answer.
        precision: share of the answered pairs that are labelled; None where nothing was answered.
        micro_f1: twice the right pairs over the labelled and the answered ones together.
        macro_f1: F1 of each value, averaged over those present among labels or answers; a value that is answered
            but never labelled has F1 0, as in scikit-learn.
        macro_f1_common: the same over the values with COMMON labelled products or more; None where there is none.
        weighted_f1: F1 of each labelled value, weighted with its labelled products.
    """

    exact: float
    coverage: float
    precision: float | None
    micro_f1: float
    macro_f1: float
    macro_f1_common: float | None
    weighted_f1: float


def value_scores(labels: Pairs, answers: Pairs, n: int) -> ValueScores:
    """Score answers against labels.

    Args:
        labels: T pairs, at least one.
        answers: R pairs.
        n: products; rows are below it.

    Raises:
        ShapeError: there is no product or no label, or the pairs do not fit.
    """
    right = right_pairs(labels, answers)
    if not n or not len(labels):
        raise ShapeError(
            f"{len(labels)} labels of {n} products",
            allowed="at least one labelled product",
            remedy="Leave out attributes that no product has a label of.",
        )
    last = int(max(labels.row.max(), answers.row.max(initial=0)))
    if last >= n:
        raise ShapeError(
            f"a pair of product {last} of {n}",
            allowed="rows from 0 to n - 1",
            remedy="Count the products of both sides in one way.",
        )
    n_values = int(max(labels.value.max(), answers.value.max(initial=0))) + 1
    true, given, hit = (
        np.bincount(of, minlength=n_values) for of in (labels.value, answers.value, answers.value[right])
    )
    f1 = 2 * hit / np.maximum(true + given, 1)
    common = true >= COMMON
    return ValueScores(
        exact=float(exactly_right(labels, answers, n).mean()),
        coverage=float(len(np.unique(answers.row)) / n),
        precision=float(right.mean()) if len(answers) else None,
        micro_f1=float(2 * right.sum() / (len(labels) + len(answers))),
        macro_f1=float(f1[true + given > 0].mean()),
        macro_f1_common=float(f1[common].mean()) if common.any() else None,
        weighted_f1=float(f1 @ true / true.sum()),
    )


def right_pairs(labels: Pairs, answers: Pairs) -> Flags:
    """Which of the answers are labelled, shape (R,).

    Raises:
        ShapeError: rows and values differ in number.
    """
    return _found(answers, labels)


def exactly_right(labels: Pairs, answers: Pairs, n: int) -> Flags:
    """Which products have exactly the labelled values as their answer, shape (N,)."""
    n_right = np.bincount(answers.row[right_pairs(labels, answers)], minlength=n)
    n_labels, n_answers = (np.bincount(of.row, minlength=n) for of in (labels, answers))
    whole: Flags = (n_right > 0) & (n_labels == n_right) & (n_answers == n_right)
    return whole


def instead(labels: Pairs, answers: Pairs) -> Pairs:
    """Which value was answered instead of which: each labelled value that a product's answer lacks, with each
    wrong value that it has.

    Returns:
        M of them, as indices: `row` into `labels`, `value` into `answers`, the labels in rising order of product.
    """
    missed = np.flatnonzero(~_found(labels, answers))
    wrong = np.flatnonzero(~_found(answers, labels))
    missed = missed[np.argsort(labels.row[missed], kind="stable")]
    wrong = wrong[np.argsort(answers.row[wrong], kind="stable")]
    first, end = (np.searchsorted(answers.row[wrong], labels.row[missed], side=side) for side in ("left", "right"))
    n = end - first
    of_label = np.repeat(np.arange(len(missed)), n)
    nth = np.arange(len(of_label)) - np.repeat(np.cumsum(n) - n, n)
    return Pairs(missed[of_label], wrong[np.repeat(first, n) + nth])


def answered_or_missed(
    labels: Pairs, answers: Pairs, confidence: Floats, n: int, *, several: bool
) -> tuple[NDArray[np.float64], Flags, Flags]:
    """What risk and coverage are counted in: confidence, right or not, answered or not, for `aurc` and the like.

    Where a product has one value, these are the N products. Where it has several, each value is a decision of its
    own: these are the answered pairs, and after them the labelled pairs that no answer has.

    Args:
        labels, answers: T and R pairs.
        confidence: of each answer, shape (R,).
        n: products.
        several: whether a product may have several values.

    Returns:
        Confidence, 0 where unanswered; right; answered; each of shape (U,).
    """
    n_missed = int((~_found(labels, answers)).sum()) if several else n - len(np.unique(answers.row))
    right = right_pairs(labels, answers)
    return (
        np.concatenate([confidence.astype(np.float64), np.zeros(n_missed)]),
        np.concatenate([right, np.zeros(n_missed, np.bool_)]),
        np.concatenate([np.ones(len(answers), np.bool_), np.zeros(n_missed, np.bool_)]),
    )


def _found(pairs: Pairs, among: Pairs) -> Flags:
    for one in (pairs, among):
        if one.row.shape != one.value.shape or one.row.ndim != 1:
            raise ShapeError(
                f"rows and values of shapes {one.row.shape} and {one.value.shape}",
                allowed="two arrays of one shape (P,)",
                remedy="Pass a row and a value for each pair.",
            )
    width = int(max(pairs.value.max(initial=0), among.value.max(initial=0))) + 1
    ours, theirs = (one.row.astype(np.int64) * width + one.value for one in (pairs, among))
    found: Flags = np.isin(ours, theirs)
    return found
