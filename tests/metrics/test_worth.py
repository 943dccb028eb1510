"""Severity, hierarchical coverage, value and several right nodes, against going product by product."""

from __future__ import annotations

from typing import Any, NamedTuple

import networkx as nx
import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.metrics import accuracy_score

from shelver import metrics
from shelver.errors import ShapeError
from shelver.taxonomy import Taxonomy

Ints = NDArray[np.int32]


class Case(NamedTuple):
    tree: Taxonomy
    truth: Ints
    predicted: Ints
    answered: NDArray[np.bool_]
    also: Ints
    worth: NDArray[np.float64]

    @property
    def rows(self) -> list[tuple[int, int | None, list[int], float]]:
        """Truth, answer, all right nodes and worth of each product."""
        return [
            (t, p if a else None, [t, *(o for o in also if o >= 0)], w)
            for t, p, a, also, w in zip(
                self.truth.tolist(),
                self.predicted.tolist(),
                self.answered.tolist(),
                self.also.tolist(),
                self.worth.tolist(),
                strict=True,
            )
        ]


def case_of(seed: int) -> Case:
    rng = np.random.default_rng(seed)
    k, n = int(rng.integers(1, 25)), int(rng.integers(1, 60))
    parents = [None if not i or rng.random() < 0.2 else int(rng.integers(0, i)) for i in range(k)]
    tree = Taxonomy.from_parents([f"n{i}" for i in range(k)], ["name"] * k, parents)
    truth, predicted = rng.integers(0, k, (2, n)).astype(np.int32)
    predicted = np.where(rng.random(n) < 0.4, truth, predicted).astype(np.int32)
    return Case(
        tree, truth, predicted, rng.random(n) < 0.8, rng.integers(-1, k, (n, 2)).astype(np.int32), rng.random(n)
    )


SEEDS = range(25)


def lineage(tree: Taxonomy, k: int) -> list[int]:
    return [*tree.ancestors(k).tolist(), k]


def share(tree: Taxonomy, a: int, b: int) -> float:
    left, right = lineage(tree, a), lineage(tree, b)
    return len({*left} & {*right}) / max(len(left), len(right))


def graph_of(tree: Taxonomy) -> nx.DiGraph[int]:
    graph: nx.DiGraph[int] = nx.DiGraph()
    graph.add_nodes_from(range(-1, tree.n_nodes))
    graph.add_edges_from((int(p), k) for k, p in enumerate(tree.parent.tolist()))
    return graph


@pytest.mark.parametrize("seed", SEEDS)
def test_severity_is_the_mean_height_of_the_common_ancestors_that_networkx_finds(seed: int) -> None:
    case = case_of(seed)
    graph = graph_of(case.tree)
    height = {v: max(nx.single_source_shortest_path_length(graph, v).values()) for v in graph}
    assert metrics.heights(case.tree).tolist() == [height[v] for v in range(case.tree.n_nodes)]
    found = [
        height[nx.lowest_common_ancestor(graph, true, answer)]
        for true, answer, _, _ in case.rows
        if answer is not None and answer != true
    ]
    severity = metrics.mistake_severity(case.tree, case.truth, case.predicted, answered=case.answered)
    assert severity == (pytest.approx(np.mean(found)) if found else None)
    assert severity is None or 1 <= severity <= case.tree.n_levels


def test_severity_by_hand(seven: Taxonomy) -> None:
    # Home > {Chairs > {Bar 5, Deck 6}, Lamps 3}, Toys 1 > Cars 4
    assert metrics.mistake_severity(seven, np.array([5]), np.array([6])) == 1.0
    assert metrics.mistake_severity(seven, np.array([5]), np.array([3])) == 2.0
    assert metrics.mistake_severity(seven, np.array([3]), np.array([5])) == 2.0  # the longest way down from Home
    assert metrics.mistake_severity(seven, np.array([5]), np.array([4])) == 3.0
    assert metrics.mistake_severity(seven, np.array([4, 5, 5]), np.array([1, 5, -1])) == 1.0  # Toys for Cars
    assert metrics.mistake_severity(seven, np.array([4, 5]), np.array([4, -1])) is None


@pytest.mark.parametrize("seed", SEEDS)
def test_hierarchical_coverage_counts_the_levels_that_are_named(seed: int) -> None:
    case = case_of(seed)
    named = wanted = 0
    for true, answer, _, _ in case.rows:
        wanted += len(lineage(case.tree, true))
        named += min(len(lineage(case.tree, answer)), len(lineage(case.tree, true))) if answer is not None else 0
    found = metrics.hierarchical_coverage(case.tree, case.truth, case.predicted, answered=case.answered)
    assert found == pytest.approx(named / wanted)
    assert metrics.hierarchical_coverage(case.tree, case.truth, case.truth) == 1.0
    level_one = case.tree.lineage[case.truth, 0]
    flat = metrics.hierarchical_coverage(case.tree, level_one, level_one, answered=case.answered)
    assert flat == pytest.approx(case.answered.mean())


@pytest.mark.parametrize("seed", SEEDS)
def test_value_scores_are_worth_times_credit_product_by_product(seed: int) -> None:
    case = case_of(seed)
    exact = partial = 0.0
    for true, answer, _, worth in case.rows:
        exact += worth * (answer == true)
        partial += worth * (share(case.tree, true, answer) if answer is not None else 0)
    given = (case.truth, case.predicted, case.worth)
    whole = case.worth.sum()
    assert metrics.value_score(*given, answered=case.answered) == pytest.approx(exact / whole)
    found = metrics.value_score(*given, taxonomy=case.tree, answered=case.answered)
    assert found == pytest.approx(partial / whole)
    answers = np.where(case.answered, case.predicted, -1)
    weighted = accuracy_score(case.truth, answers, sample_weight=case.worth)
    assert metrics.value_score(case.truth, answers, case.worth) == pytest.approx(weighted)
    even = np.full(len(case.truth), 3.0)
    plain = metrics.accuracy(case.truth, answers)
    assert metrics.value_score(case.truth, answers, even) == pytest.approx(plain)


def test_products_worth_nothing_have_no_score_and_a_debt_is_refused() -> None:
    truth = np.array([1, 2])
    assert metrics.value_score(truth, truth, np.zeros(2)) is None
    for worth in (-1.0, np.nan, np.inf):
        with pytest.raises(ShapeError, match="worth"):
            metrics.value_score(truth, truth, np.array([1.0, worth]))


@pytest.mark.parametrize("seed", SEEDS)
def test_lenient_scores_take_the_right_node_that_the_answer_comes_nearest_to(seed: int) -> None:
    case = case_of(seed)
    tree, given = case.tree, (case.truth, case.predicted)
    lenient: dict[str, Any] = {"answered": case.answered, "also": case.also}
    hits, shares, worth = [], [], []
    for _, answer, right, value in case.rows:
        hits.append(answer in right)
        shares.append(max(share(tree, r, answer) for r in right) if answer is not None else 0.0)
        worth.append(value)
    assert metrics.correct(*given, **lenient).tolist() == hits
    assert metrics.accuracy(*given, **lenient) == pytest.approx(np.mean(hits))
    assert metrics.top_k_accuracy(case.truth, case.predicted[:, None], 1, **lenient) == pytest.approx(
        np.mean(hits)
    )
    assert metrics.relative_lca(tree, *given, **lenient) == pytest.approx(np.mean(shares))
    earned = metrics.value_score(*given, case.worth, taxonomy=tree, **lenient)
    assert earned == pytest.approx(np.dot(worth, shares) / np.sum(worth))
    exact = metrics.value_score(*given, case.worth, **lenient)
    assert exact == pytest.approx(np.dot(worth, hits) / np.sum(worth))
    # Any metric is lenient against the nearest right node.
    answers = np.where(case.answered, case.predicted, -1)
    nearest = metrics.nearest(tree, case.truth, answers, case.also)
    assert metrics.accuracy(nearest, answers) == pytest.approx(np.mean(hits))
    assert metrics.hierarchical(tree, *given, **lenient) == metrics.hierarchical(tree, nearest, answers)
    assert metrics.mistake_severity(tree, *given, **lenient) == metrics.mistake_severity(tree, nearest, answers)
    by_hand = metrics.hierarchical_coverage(tree, nearest, answers)
    assert metrics.hierarchical_coverage(tree, *given, **lenient) == by_hand
    assert metrics.accuracy(*given, answered=case.answered) <= metrics.accuracy(*given, **lenient)


@pytest.mark.parametrize("seed", SEEDS)
def test_what_a_promise_counts_as_right_is_the_truth_or_a_deep_enough_ancestor(seed: int) -> None:
    case = case_of(seed)
    for least in (1, 2, 3):
        expected = [
            answer is not None and answer in lineage(case.tree, true) and len(lineage(case.tree, answer)) >= least
            for true, answer, _, _ in case.rows
        ]
        found = metrics.right_as_promised(
            case.tree, case.truth, case.predicted, min_level=least, answered=case.answered
        )
        assert found.tolist() == expected
        lenient = [
            answer is not None
            and any(answer in lineage(case.tree, r) for r in right)
            and len(lineage(case.tree, answer)) >= least
            for _, answer, right, _ in case.rows
        ]
        found = metrics.right_as_promised(
            case.tree, case.truth, case.predicted, min_level=least, answered=case.answered, also=case.also
        )
        assert found.tolist() == lenient


def test_right_nodes_that_do_not_fit_the_products_are_refused(seven: Taxonomy) -> None:
    with pytest.raises(ShapeError, match="right nodes"):
        metrics.accuracy(np.array([1, 2]), np.array([1, 2]), also=np.array([1, 2]))
    with pytest.raises(ShapeError, match="right nodes"):
        metrics.nearest(seven, np.array([1, 2]), np.array([1, 2]), np.array([[1]]))
