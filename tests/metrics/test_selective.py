"""Risk against coverage and calibration, against scikit-learn and against going product by product."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from sklearn.metrics import brier_score_loss

from shelver import metrics
from shelver.errors import ShapeError
from shelver.taxonomy import Taxonomy

Case = tuple[NDArray[np.float32], NDArray[np.bool_], NDArray[np.bool_]]


@st.composite
def cases(draw: st.DrawFn, *, most: int = 40) -> Case:
    """Confidences with many ties, right or wrong, some unanswered."""
    row = st.tuples(st.integers(0, 6), st.booleans(), st.integers(0, 3))
    rows = draw(st.lists(row, min_size=1, max_size=most))
    confidence = np.array([c / 6 for c, _, _ in rows], np.float32)
    answered = np.array([a > 0 for _, _, a in rows])
    return confidence, np.array([r for _, r, _ in rows]) & answered, answered


@settings(deadline=None)
@given(cases(most=6))
def test_aurc_is_the_mean_over_all_orders_of_equally_confident_products(case: Case) -> None:
    confidence, right, answered = case
    areas = []
    for order in itertools.permutations(range(len(right))):
        ranks = [(-confidence[i] if answered[i] else 1.0) for i in order]
        if ranks != sorted(ranks):
            continue
        wrong = [not right[i] for i in order]
        areas.append(np.mean([np.mean(wrong[:i]) for i in range(1, len(wrong) + 1)]))
    assert metrics.aurc(confidence, right, answered=answered) == pytest.approx(np.mean(areas))


@given(cases())
def test_excess_is_what_sorting_all_errors_last_would_save(case: Case) -> None:
    confidence, right, answered = case
    best = np.sort(~right)  # right ones first
    least = np.mean([np.mean(best[:i]) for i in range(1, len(best) + 1)])
    area = metrics.aurc(confidence, right, answered=answered)
    assert metrics.e_aurc(confidence, right, answered=answered) == pytest.approx(area - least, abs=1e-12)


def test_the_least_area_nears_the_formula_of_the_source_for_many_products() -> None:
    rng = np.random.default_rng(0)
    confidence = rng.random(100_000)
    right = rng.random(100_000) < 0.7
    r = 1 - right.mean()
    excess = metrics.aurc(confidence, right) - metrics.e_aurc(confidence, right)
    assert excess == pytest.approx(r + (1 - r) * math.log(1 - r), abs=1e-4)
    assert metrics.aurc(confidence, right) == pytest.approx(r, abs=0.01)  # a confidence that knows nothing
    assert metrics.e_aurc(right.astype(float), right) < 0.2 * metrics.e_aurc(confidence, right)


@given(cases())
def test_the_curve_and_the_coverage_at_a_precision_are_what_counting_at_each_threshold_gives(case: Case) -> None:
    confidence, right, answered = case
    curve = metrics.risk_coverage(confidence, right, answered=answered)
    thresholds = sorted(set(confidence[answered].tolist()), reverse=True)
    assert curve.threshold.tolist() == thresholds
    points = []
    for at, threshold in enumerate(thresholds):
        given_out = answered & (confidence >= threshold)
        points.append((given_out.mean(), right[given_out].mean()))
        assert curve.coverage[at] == pytest.approx(points[-1][0])
        assert curve.risk[at] == pytest.approx(1 - points[-1][1])
    for precision in (0.25, 0.9, 1.0):
        expected = max((c for c, accuracy in points if accuracy >= precision), default=0.0)
        assert metrics.coverage_at_precision(confidence, right, precision, answered=answered) == expected


def test_nine_of_ten_is_ninety_percent() -> None:
    right = np.arange(10) > 0
    assert metrics.coverage_at_precision(np.full(10, 0.5), right, 0.9) == 1.0
    assert metrics.coverage_at_precision(np.full(10, 0.5), right, 0.91) == 0.0
    with pytest.raises(ShapeError, match="95"):
        metrics.coverage_at_precision(np.full(10, 0.5), right, 95)


def test_abstaining_improves_no_area() -> None:
    rng = np.random.default_rng(1)
    confidence = rng.random(500)
    right = rng.random(500) < confidence
    silent = confidence < 0.3
    assert metrics.aurc(confidence, right & ~silent, answered=~silent) >= metrics.aurc(confidence, right)
    assert metrics.aurc(confidence, right & False, answered=silent & False) == 1.0
    assert len(metrics.risk_coverage(confidence, right, answered=silent & False).coverage) == 0


def test_brier_is_scikit_learns() -> None:
    rng = np.random.default_rng(0)
    confidence = rng.random(300)
    right = rng.random(300) < confidence
    assert metrics.brier(confidence, right) == pytest.approx(brier_score_loss(right, confidence))
    with pytest.raises(ShapeError, match="one shape"):
        metrics.brier(confidence[:0], right[:0])


def test_brier_over_the_outcomes_of_a_level_is_scikit_learns_with_an_outcome_for_ending_above(
    seven: Taxonomy,
) -> None:
    rng = np.random.default_rng(0)
    # Products stand at Lamps (3), Cars (4), Bar (5), Deck (6) and at Toys (1) itself.
    places = np.array([1, 3, 4, 5, 6])
    at_place = rng.dirichlet(np.ones(5), 200).astype(np.float32)
    truth = rng.choice(places, 200).astype(np.int32)
    truth[:5] = places
    nodes = np.zeros((200, 7), np.float32)
    for column, place in enumerate(places):
        for above in seven.lineage[place][seven.lineage[place] >= 0]:
            nodes[:, above] += at_place[:, column]
    scores = metrics.level_brier(seven, nodes, truth)
    assert scores.shape == (200, 3)
    for level in (1, 2, 3):
        of_level = np.flatnonzero(seven.level == level)
        outcomes = np.column_stack([nodes[:, of_level], 1 - nodes[:, of_level].sum(axis=1)]).astype(float)
        names = [*of_level.tolist(), 99]
        true = [k if k >= 0 else 99 for k in seven.lineage[truth, level - 1].tolist()]
        outcomes = np.clip(outcomes, 0, 1)
        outcomes /= outcomes.sum(axis=1, keepdims=True)
        expected = brier_score_loss(true, outcomes, labels=names, scale_by_half=False)
        assert scores[:, level - 1].mean() == pytest.approx(expected, abs=1e-5)
    with pytest.raises(ShapeError, match=r"\(200, 7\)"):
        metrics.level_brier(seven, nodes[:, :6], truth)
