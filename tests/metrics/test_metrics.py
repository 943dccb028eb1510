"""The metrics against hiclass and scikit-learn, on random trees and by hand."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import pytest
from hiclass import metrics as hiclass_metrics
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from sklearn import metrics as sklearn_metrics

from shelver import metrics
from shelver.errors import ShapeError
from shelver.taxonomy import Taxonomy

# By breadth: 0 food, 1 tools, 2 fruit, 3 bread, 4 saws, 5 apples, 6 pears.
SEVEN = Taxonomy.from_paths(
    [
        ["food", "fruit", "apples"],
        ["food", "fruit", "pears"],
        ["food", "bread"],
        ["tools", "saws"],
    ]
)
FOOD, TOOLS, FRUIT, BREAD, SAWS, APPLES, PEARS = range(7)


def nodes(*indices: int) -> NDArray[np.int32]:
    return np.array(indices, dtype=np.int32)


@st.composite
def trees_with_answers(
    draw: st.DrawFn,
) -> tuple[Taxonomy, NDArray[np.int32], NDArray[np.int32], NDArray[np.bool_]]:
    size = draw(st.integers(1, 30))
    parents = [draw(st.none() | st.integers(0, i - 1)) if i else None for i in range(size)]
    tree = Taxonomy.from_parents([f"id{i}" for i in range(size)], ["same name"] * size, parents)
    node = st.integers(0, size - 1)
    rows = draw(st.lists(st.tuples(node, node, st.booleans()), min_size=1, max_size=40))
    truth, predicted, answered = zip(*rows, strict=True)
    return tree, nodes(*truth), nodes(*predicted), np.array(answered)


def lineage_of_ids(tree: Taxonomy, at: NDArray[np.int32], answered: NDArray[np.bool_]) -> NDArray[Any]:
    """What hiclass wants: ids by level, empty text where a path has ended; all empty where unanswered."""
    ids = np.array([*tree.ids, ""], dtype=object)
    return ids[np.where(answered[:, None], tree.lineage[at], -1)].astype(str)


@given(trees_with_answers())
def test_hierarchical_metrics_agree_with_hiclass_on_random_trees(
    drawn: tuple[Taxonomy, NDArray[np.int32], NDArray[np.int32], NDArray[np.bool_]],
) -> None:
    tree, truth, predicted, answered = drawn
    theirs = lineage_of_ids(tree, truth, np.ones_like(answered)), lineage_of_ids(tree, predicted, answered)
    ours = metrics.hierarchical(tree, truth, predicted, answered=answered)
    assert ours.recall == pytest.approx(hiclass_metrics.recall(*theirs, average="micro"))
    if answered.any():  # hiclass divides by zero where nothing is answered
        assert ours.precision == pytest.approx(hiclass_metrics.precision(*theirs, average="micro"))
    if ours.recall > 0:
        assert ours.f1 == pytest.approx(hiclass_metrics.f1(*theirs, average="micro"))


@given(trees_with_answers())
def test_flat_metrics_agree_with_scikit_learn_with_and_without_answers(
    drawn: tuple[Taxonomy, NDArray[np.int32], NDArray[np.int32], NDArray[np.bool_]],
) -> None:
    _, truth, predicted, answered = drawn
    theirs = np.where(answered, predicted, -1)
    labels = sorted({*truth.tolist(), *theirs[answered].tolist()})
    for average, ours in (("weighted", metrics.weighted_f1), ("macro", metrics.macro_f1)):
        expected = sklearn_metrics.f1_score(truth, theirs, labels=labels, average=average, zero_division=0)
        assert ours(truth, predicted, answered=answered) == pytest.approx(expected)
        assert ours(truth, theirs) == pytest.approx(expected)
    expected = sklearn_metrics.accuracy_score(truth, theirs)
    assert metrics.accuracy(truth, predicted, answered=answered) == pytest.approx(expected)
    assert metrics.coverage(predicted, answered=answered) == pytest.approx(answered.mean())


@settings(deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 5))
def test_top_k_accuracy_agrees_with_scikit_learn(seed: int, k: int) -> None:
    rng = np.random.default_rng(seed)
    scores = rng.permuted(np.tile(np.arange(6.0), (30, 1)), axis=1)  # no ties
    truth = rng.integers(0, 6, 30)
    top = np.argsort(-scores, axis=1)[:, :5]
    expected = sklearn_metrics.top_k_accuracy_score(truth, scores, k=k, labels=np.arange(6))
    assert metrics.top_k_accuracy(truth, top, k) == pytest.approx(expected)


@given(trees_with_answers())
def test_relative_lca_agrees_with_counting_shared_ancestors(
    drawn: tuple[Taxonomy, NDArray[np.int32], NDArray[np.int32], NDArray[np.bool_]],
) -> None:
    tree, truth, predicted, answered = drawn
    expected = []
    for true, guess, has in zip(truth.tolist(), predicted.tolist(), answered.tolist(), strict=True):
        ours, theirs = {*tree.ancestors(true).tolist(), true}, {*tree.ancestors(guess).tolist(), guess}
        expected.append(len(ours & theirs) / max(len(ours), len(theirs)) if has else 0.0)
    assert metrics.relative_lca(tree, truth, predicted, answered=answered) == pytest.approx(np.mean(expected))


def test_figures_worked_out_by_hand_on_the_seven_node_tree() -> None:
    truth = nodes(APPLES, APPLES, BREAD, SAWS)
    predicted = nodes(APPLES, PEARS, FRUIT, SAWS)
    assert metrics.accuracy(truth, predicted) == 2 / 4
    # |A| predicted 3 + 3 + 2 + 2, true 3 + 3 + 2 + 2, shared 3 + 2 + 1 + 2
    assert metrics.hierarchical(SEVEN, truth, predicted) == metrics.Hierarchical(0.8, 0.8, 0.8)
    assert metrics.relative_lca(SEVEN, truth, predicted) == pytest.approx((1 + 2 / 3 + 1 / 2 + 1) / 4)
    # apples 2/3, bread 0, saws 1; pears and fruit are present in the predictions only: 0
    assert metrics.macro_f1(truth, predicted) == pytest.approx((2 / 3 + 0 + 1 + 0 + 0) / 5)
    assert metrics.weighted_f1(truth, predicted) == pytest.approx((2 * 2 / 3 + 0 + 1) / 4)


def test_an_ancestor_of_the_truth_is_all_precise_but_not_complete() -> None:
    scores = metrics.hierarchical(SEVEN, nodes(APPLES), nodes(FOOD))
    assert (scores.precision, scores.recall) == (1.0, 1 / 3)


def test_an_unanswered_product_is_wrong_everywhere_and_a_false_alarm_nowhere() -> None:
    truth, predicted, answered = nodes(APPLES, SAWS), nodes(APPLES, SAWS), np.array([True, False])
    assert metrics.accuracy(truth, predicted, answered=answered) == 0.5
    assert metrics.top_k_accuracy(truth, predicted[:, None], 1, answered=answered) == 0.5
    assert metrics.macro_f1(truth, predicted, answered=answered) == 0.5
    assert metrics.relative_lca(SEVEN, truth, predicted, answered=answered) == 0.5
    scores = metrics.hierarchical(SEVEN, truth, predicted, answered=answered)
    assert (scores.precision, scores.recall) == (1.0, 3 / 5)


def test_where_nothing_is_answered_every_score_is_zero() -> None:
    truth, silent = nodes(APPLES, SAWS), nodes(-1, -1)
    assert metrics.accuracy(truth, silent) == metrics.coverage(silent) == 0.0
    assert metrics.weighted_f1(truth, silent) == metrics.macro_f1(truth, silent) == 0.0
    assert metrics.hierarchical(SEVEN, truth, silent) == metrics.Hierarchical(0.0, 0.0, 0.0)


def test_at_a_level_only_products_that_reach_it_count_and_short_answers_are_no_answers() -> None:
    truth, predicted = nodes(APPLES, BREAD, PEARS), nodes(PEARS, SAWS, FOOD)
    rows, at, guess = metrics.at_level(SEVEN, truth, predicted, 2)
    assert (rows.tolist(), at.tolist(), guess.tolist()) == (
        [0, 1, 2],
        [FRUIT, BREAD, FRUIT],
        [FRUIT, SAWS, -1],
    )
    rows, at, guess = metrics.at_level(SEVEN, truth, predicted[:, None], 3)
    assert (rows.tolist(), at.tolist(), guess.tolist()) == ([0, 2], [APPLES, PEARS], [[PEARS], [-1]])


def test_the_second_and_third_suggestions_count_up_to_k() -> None:
    truth, top = (
        nodes(APPLES, APPLES, APPLES),
        np.array([[APPLES, -1, -1], [SAWS, APPLES, -1], [SAWS, BREAD, APPLES]]),
    )
    assert [metrics.top_k_accuracy(truth, top, k) for k in (1, 2, 3)] == [1 / 3, 2 / 3, 1.0]
    with pytest.raises(ShapeError, match="k = 4"):
        metrics.top_k_accuracy(truth, top, 4)


def test_scores_of_nothing_or_of_unequal_lengths_are_refused() -> None:
    for truth, predicted in ((nodes(), nodes()), (nodes(1), nodes(1, 2))):
        for score in (metrics.accuracy, metrics.weighted_f1, metrics.macro_f1):
            with pytest.raises(ShapeError, match="one shape"):
                score(truth, predicted)
    with pytest.raises(ShapeError, match="one shape"):
        metrics.ece(np.array([]), np.array([], dtype=bool))


def test_head_torso_and_tail_split_the_training_products_at_50_and_80_percent() -> None:
    counts = nodes(5, 40, 0, 20, 20, 10, 5)
    names = [metrics.FREQUENCIES[i] for i in metrics.head_torso_tail(counts)]
    assert names == ["tail", "head", "tail", "head", "torso", "tail", "tail"]
    assert metrics.head_torso_tail(nodes(0, 0)).tolist() == [2, 2]
    assert metrics.head_torso_tail(nodes(7)).tolist() == [0]


def test_reliability_keeps_equal_confidences_together_whatever_their_order() -> None:
    rng = np.random.default_rng(0)
    confidence = rng.choice([0.25, 0.5, 0.75], 300).astype(np.float32)
    right = rng.random(300) < confidence
    bins = metrics.reliability(confidence, right)
    assert bins.confidence.tolist() == [0.25, 0.5, 0.75]
    assert bins.n.tolist() == [(confidence == c).sum() for c in (0.25, 0.5, 0.75)]
    assert bins.accuracy.tolist() == [right[confidence == c].mean() for c in (0.25, 0.5, 0.75)]
    order = rng.permutation(300)
    assert metrics.ece(confidence[order], right[order]) == metrics.ece(confidence, right)


def test_bins_have_equal_mass_where_no_confidences_are_equal() -> None:
    confidence = np.random.default_rng(0).random(1501)
    assert sorted(metrics.reliability(confidence, confidence > 0.5).n.tolist()) == [100] * 14 + [101]


def test_the_calibration_error_of_a_known_gap_is_that_gap() -> None:
    confidence = np.full(100_000, 0.9)
    right = np.arange(100_000) % 10 < 8
    assert metrics.ece(confidence, right) == pytest.approx(0.1, abs=1e-4)
    assert metrics.ece(np.ones(10), np.zeros(10, dtype=bool)) == 1.0
    assert metrics.ece(np.ones(1), np.ones(1, dtype=bool)) == 0.0


def test_the_debiased_error_is_right_on_average_on_few_products_where_the_plain_one_is_not() -> None:
    rng = np.random.default_rng(0)
    squares, plain = [], []
    gap = 0.05
    for _ in range(400):
        confidence = rng.uniform(0.3, 0.9, 300)
        right = rng.random(300) < confidence - gap
        bins = metrics.reliability(confidence, right)
        plain.append(float(np.average((bins.confidence - bins.accuracy) ** 2, weights=bins.n)))
        variance = bins.accuracy * (1 - bins.accuracy) / (bins.n - 1)
        squares.append(plain[-1] - float(np.average(variance, weights=bins.n)))
        assert metrics.ece(confidence, right) == pytest.approx(max(0.0, squares[-1]) ** 0.5)
    assert np.mean(squares) == pytest.approx(gap**2, rel=0.2)
    assert np.mean(plain) > 3 * gap**2


def test_a_million_products_over_ten_thousand_nodes_are_scored_in_seconds() -> None:
    rng = np.random.default_rng(0)
    parents = [None if i < 20 else int(rng.integers(0, i)) for i in range(10_000)]
    tree = Taxonomy.from_parents([str(i) for i in range(10_000)], ["n"] * 10_000, parents)
    truth, predicted = rng.integers(0, 10_000, (2, 1_000_000), dtype=np.int32)
    confidence = rng.random(1_000_000, dtype=np.float32)
    started = time.process_time()
    metrics.macro_f1(truth, predicted)
    metrics.weighted_f1(truth, predicted)
    metrics.hierarchical(tree, truth, predicted)
    metrics.relative_lca(tree, truth, predicted)
    metrics.ece(confidence, truth == predicted)
    assert time.process_time() - started < 10
