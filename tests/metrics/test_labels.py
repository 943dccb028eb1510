"""Scores of values, one or several a product, against scikit-learn and against going pair by pair."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.metrics import accuracy_score, f1_score

from shelver import metrics
from shelver.errors import ShapeError
from shelver.metrics import Pairs


class Case(NamedTuple):
    """Labels and answers as indicators, shape (N, V); each product has a label."""

    truth: NDArray[np.bool_]
    said: NDArray[np.bool_]

    @property
    def labels(self) -> Pairs:
        return Pairs(*np.nonzero(self.truth))

    @property
    def answers(self) -> Pairs:
        """In a random order: nothing may depend on it."""
        found = Pairs(*np.nonzero(self.said))
        return found[np.random.default_rng(0).permutation(len(found))]


def several(seed: int) -> Case:
    rng = np.random.default_rng(seed)
    n, v = int(rng.integers(1, 120)), int(rng.integers(2, 7))
    truth = rng.random((n, v)) < 0.3
    truth[np.arange(n), rng.integers(0, v, n)] = True
    said = np.where(rng.random((n, v)) < 0.75, truth, ~truth)
    return Case(truth, said & (rng.random(n) < 0.85)[:, None])


def single(seed: int) -> tuple[Case, NDArray[np.int64], NDArray[np.int64]]:
    """The last of the codes is no answer."""
    rng = np.random.default_rng(seed)
    n, v = int(rng.integers(1, 200)), int(rng.integers(2, 9))
    truth = rng.integers(0, v, n)
    said = np.where(rng.random(n) < 0.6, truth, rng.integers(0, v, n))
    said = np.where(rng.random(n) < 0.85, said, v)
    eye = np.eye(v + 1, dtype=np.bool_)[:, :v]
    return Case(eye[truth], eye[said]), truth, said


@pytest.mark.parametrize("seed", range(20))
def test_scores_of_several_values_are_those_of_scikit_learn(seed: int) -> None:
    case = several(seed)
    found = metrics.value_scores(case.labels, case.answers, len(case.truth))
    present = np.flatnonzero((case.truth | case.said).any(axis=0))
    common = np.flatnonzero(case.truth.sum(axis=0) >= 20)

    def f1(average: str, labels: NDArray[np.intp]) -> float:
        return float(f1_score(case.truth, case.said, average=average, labels=labels, zero_division=0))

    assert found.exact == pytest.approx(accuracy_score(case.truth, case.said))  # of sets: exactly the same
    assert found.micro_f1 == pytest.approx(f1("micro", present))
    assert found.macro_f1 == pytest.approx(f1("macro", present))
    assert found.weighted_f1 == pytest.approx(f1("weighted", present))
    if len(common):
        assert found.macro_f1_common == pytest.approx(f1("macro", common))
    else:
        assert found.macro_f1_common is None
    assert found.coverage == pytest.approx(case.said.any(axis=1).mean())
    assert (found.precision is None) == (not case.said.any())
    if case.said.any():
        assert found.precision == pytest.approx(case.truth[case.said].mean())


@pytest.mark.parametrize("seed", range(20))
def test_scores_of_one_value_a_product_are_those_of_labels_and_of_nodes(seed: int) -> None:
    case, truth, said = single(seed)
    v = case.truth.shape[1]
    found = metrics.value_scores(case.labels, case.answers, len(truth))
    node = np.where(said < v, said, -1)
    assert found.exact == pytest.approx(accuracy_score(truth, said))
    assert found.exact == metrics.accuracy(truth, node)
    assert found.macro_f1 == pytest.approx(metrics.macro_f1(truth, node))
    assert found.weighted_f1 == pytest.approx(metrics.weighted_f1(truth, node))
    assert found.coverage == pytest.approx((said < v).mean())
    common = [value for value in range(v) if (truth == value).sum() >= 20]
    expected = f1_score(truth, said, labels=common, average="macro", zero_division=0) if common else None
    assert found.macro_f1_common == (pytest.approx(expected) if common else None)


@pytest.mark.parametrize("seed", range(20))
def test_what_was_answered_instead_is_what_going_product_by_product_finds(seed: int) -> None:
    case = several(seed)
    labels, answers = case.labels, case.answers
    expected = sorted(
        (row, int(missed), int(wrong))
        for row in range(len(case.truth))
        for missed in np.flatnonzero(case.truth[row] & ~case.said[row])
        for wrong in np.flatnonzero(case.said[row] & ~case.truth[row])
    )
    pairs = metrics.instead(labels, answers)
    rows = labels.row[pairs.row]
    assert np.array_equal(rows, answers.row[pairs.value])
    assert (np.diff(rows) >= 0).all()
    found = zip(rows.tolist(), labels.value[pairs.row].tolist(), answers.value[pairs.value].tolist(), strict=True)
    assert sorted(found) == expected


@pytest.mark.parametrize("seed", range(10))
def test_products_that_are_exactly_right_are_found_one_by_one(seed: int) -> None:
    case = several(seed)
    found = metrics.exactly_right(case.labels, case.answers, len(case.truth))
    assert found.tolist() == [bool((t == s).all()) for t, s in zip(case.truth, case.said, strict=True)]


def test_risk_is_counted_in_products_where_they_have_one_value_and_in_values_where_several() -> None:
    labels = Pairs(np.array([0, 1, 2]), np.array([0, 1, 2]))
    answers = Pairs(np.array([0, 2]), np.array([0, 1]))
    confidence = np.array([0.9, 0.4], np.float32)
    _, right, answered = metrics.answered_or_missed(labels, answers, confidence, 3, several=False)
    assert (right.tolist(), answered.tolist()) == ([True, False, False], [True, True, False])
    # As values: one right, one wrong, and those of the products 1 and 2 are missed.
    sure, right, answered = metrics.answered_or_missed(labels, answers, confidence, 3, several=True)
    assert (right.tolist(), answered.tolist()) == ([True, False, False, False], [True, True, False, False])
    assert sure == pytest.approx([0.9, 0.4, 0, 0])
    assert metrics.coverage_at_precision(sure, right, 0.9, answered=answered) == 1 / 4


def test_a_value_that_nobody_learned_is_missed_and_lowers_the_mean() -> None:
    labels = Pairs(np.array([0, 1]), np.array([0, 9]))
    found = metrics.value_scores(labels, Pairs(np.array([0, 1]), np.array([0, 0])), 2)
    assert found.exact == 1 / 2
    assert found.macro_f1 == pytest.approx((2 / 3 + 0) / 2)


def test_where_nothing_is_answered_scores_are_zero_and_precision_is_unknown() -> None:
    nothing = Pairs(np.zeros(0, np.int32), np.zeros(0, np.int32))
    labels = Pairs(np.array([0, 1]), np.array([0, 1]))
    found = metrics.value_scores(labels, nothing, 2)
    assert (found.exact, found.coverage, found.micro_f1, found.macro_f1) == (0, 0, 0, 0)
    assert found.precision is None
    assert len(metrics.instead(labels, nothing)) == 0


def test_pairs_that_do_not_fit_are_refused() -> None:
    labels = Pairs(np.array([0, 1]), np.array([0, 1]))
    with pytest.raises(ShapeError, match="0 labels of 2 products"):
        metrics.value_scores(labels[np.zeros(2, np.bool_)], labels, 2)
    with pytest.raises(ShapeError, match="product 1 of 1"):
        metrics.value_scores(labels, labels, 1)
    with pytest.raises(ShapeError, match=r"shapes \(2,\) and \(1,\)"):
        metrics.right_pairs(labels, Pairs(np.array([0, 1]), np.array([0])))
