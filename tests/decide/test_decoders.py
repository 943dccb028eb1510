"""Decisions, against a slow reference in plain Python."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from shelver.decide import DEEPEST, MAX_ARGMAX, Policy, Probabilities, decide
from shelver.errors import ShapeError
from shelver.taxonomy import SiblingGroups, Taxonomy

TOTAL = 1 << 12


class Case(NamedTuple):
    groups: SiblingGroups
    probs: Probabilities
    mass: list[dict[int, int]]
    """For each row, how many of TOTAL parts stop at each place: float32 holds them and their sums exactly."""


@st.composite
def cases(draw: st.DrawFn) -> Case:
    n_nodes = draw(st.integers(1, 30))
    parents = [draw(st.integers(-1, i - 1)) for i in range(n_nodes)]
    ids = [str(i) for i in range(n_nodes)]
    tree = Taxonomy.from_parents(ids, ids, [None if p < 0 else p for p in parents])
    stops = np.array(draw(st.lists(st.booleans(), min_size=n_nodes, max_size=n_nodes)))
    groups = SiblingGroups.of(tree, stops)
    places = [k for k in range(n_nodes) if tree.is_leaf[k] or stops[k]]
    mass = []
    for _ in range(draw(st.integers(0, 6))):
        # Few different weights, so that ties are common; the rest of the mass goes to one place.
        weights = [draw(st.sampled_from([0, 1, 1, 2, 64])) for _ in places]
        row = dict(zip(places, weights, strict=True))
        row[draw(st.sampled_from(places))] += TOTAL - sum(weights)
        mass.append(row)
    nodes = np.zeros((len(mass), n_nodes), np.float32)
    for i, row in enumerate(mass):
        for k, parts in row.items():
            nodes[i, [*tree.ancestors(k).tolist(), k]] += parts / TOTAL
    modality = draw(st.lists(st.integers(0, 3), min_size=len(mass), max_size=len(mass)))
    return Case(groups, Probabilities(nodes, np.array(modality, np.int8)), mass)


@settings(max_examples=150, deadline=None)
@given(cases(), st.sampled_from([1, 2, 3, 5, 8, 1000]))
def test_decisions_are_those_of_the_slow_reference(case: Case, n_top: int) -> None:
    tree = case.groups.taxonomy
    said = decide(case.probs, tree, case.groups, Policy(n_top=n_top))
    assert len(said) == len(case.mass)
    for i, mass in enumerate(case.mass):
        answer = said[i]
        if case.probs.modality[i] == 0:
            assert (answer.node_id, answer.path, answer.confidence, answer.modality) == (None, None, None, None)
            assert (answer.level_confidence, answer.alternatives) == ((), ())
            assert answer.error == "empty_product"
            continue
        ranked = sorted(mass, key=lambda k: (-mass[k], k))  # of equals, the first in the tree's order
        best = ranked[0]
        assert [a.node_id for a in answer.alternatives] == [tree.ids[k] for k in ranked[:n_top]]
        assert [a.confidence * TOTAL for a in answer.alternatives] == [mass[k] for k in ranked[:n_top]]
        assert (answer.node_id, answer.path) == (tree.ids[best], tree.path(best))
        assert answer.confidence is not None
        assert answer.confidence * TOTAL == mass[best]
        lineage = [*tree.ancestors(best).tolist(), best]
        below = [{k, *tree.descendants(k).tolist()} for k in lineage]
        assert [p * TOTAL for p in answer.level_confidence] == [
            sum(parts for k, parts in mass.items() if k in part) for part in below
        ]
        assert answer.modality == (None, "text", "image", "both")[case.probs.modality[i]]
        assert answer.error is None


def test_many_alternatives_rank_as_few_do() -> None:
    n = MAX_ARGMAX + 44
    tree = Taxonomy.from_parents([str(i) for i in range(n)], ["x"] * n, [None] * n)
    rng = np.random.default_rng(0)
    values = rng.choice(np.array([1, 2, 3], np.float32), (20, n))
    nodes = (values / values.sum(axis=1, keepdims=True)).astype(np.float32)
    probs = Probabilities(nodes, np.ones(20, np.int8))
    groups = SiblingGroups.of(tree)
    all_of_them = decide(probs, tree, groups, Policy(n_top=10 * n))
    assert all_of_them.top_node.shape == (20, n)
    few = decide(probs, tree, groups, Policy(n_top=40))
    assert (few.top_node == all_of_them.top_node[:, :40]).all()
    assert (few.top_confidence == all_of_them.top_confidence[:, :40]).all()


def test_the_decision_does_not_depend_on_how_many_alternatives_are_asked_for(seven: Taxonomy) -> None:
    groups = SiblingGroups.of(seven)
    nodes = np.array([[0.5, 0.5, 0.5, 0.0, 0.5, 0.25, 0.25], [1, 0, 1, 0, 0, 0.5, 0.5]], np.float32)
    probs = Probabilities(nodes, np.array([1, 1], np.int8))
    for n_top in (1, 2, 3, 4, 9):
        assert decide(probs, seven, groups, Policy(n_top=n_top)).node.tolist() == [4, 5]


def test_unanswered_rows_hold_zero_and_nan_and_disturb_no_other(seven: Taxonomy) -> None:
    groups = SiblingGroups.of(seven)
    row = np.array([0.75, 0.25, 0.5, 0.25, 0.25, 0.125, 0.375], np.float32)
    probs = Probabilities(np.stack([np.zeros(7, np.float32), row]), np.array([0, 3], np.int8))
    said = decide(probs, seven, groups, DEEPEST)
    assert said.answered.tolist() == [False, True]
    assert said.node.tolist() == [0, 6]
    assert np.isnan(said.confidence[0])
    assert np.isnan(said.level_confidence[0]).all()
    assert (said.top_node[0] == 0).all()
    assert np.isnan(said.top_confidence[0]).all()
    assert said.errors == ("empty_product", None)
    assert [a.node_id for a in said[1].alternatives] == ["Deck", "Lamps", "Cars", "Bar"]
    assert [answer.node_id for answer in said] == [None, "Deck"]


def test_the_probabilities_are_left_as_they_were(seven: Taxonomy) -> None:
    nodes = np.full((3, 7), 0.25, np.float32)
    nodes.flags.writeable = False
    decide(Probabilities(nodes, np.ones(3, np.int8)), seven, SiblingGroups.of(seven), DEEPEST)


@pytest.mark.parametrize("shape", [(2, 6), (7,), (1, 2, 7)])
def test_probabilities_of_another_tree_are_refused(seven: Taxonomy, shape: tuple[int, ...]) -> None:
    nodes: NDArray[np.float32] = np.zeros(shape, np.float32)
    with pytest.raises(ShapeError, match=r"Allowed: \(N, 7\)"):
        decide(Probabilities(nodes, np.ones(len(nodes), np.int8)), seven, SiblingGroups.of(seven), DEEPEST)
