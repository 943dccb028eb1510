from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shelver.errors import ShapeError
from shelver.taxonomy import SiblingGroups, Taxonomy


@st.composite
def groups(draw: st.DrawFn) -> SiblingGroups:
    n = draw(st.integers(1, 40))
    parents = [draw(st.integers(-1, i - 1)) for i in range(n)]
    ids = [str(i) for i in range(n)]
    tree = Taxonomy.from_parents(ids, ids, [None if p < 0 else p for p in parents])
    stops = draw(st.none() | st.lists(st.booleans(), min_size=n, max_size=n))
    return SiblingGroups.of(tree, None if stops is None else np.array(stops))


def seven(stops: list[int]) -> SiblingGroups:
    """Home > {Chairs > {Bar, Deck}, Lamps}, Toys > Cars."""
    names = ["Home", "Toys", "Chairs", "Lamps", "Cars", "Bar", "Deck"]
    tree = Taxonomy.from_parents(names, names, [None, None, 0, 0, 1, 2, 2])
    return SiblingGroups.of(tree, np.isin(np.arange(7), stops))


def test_the_slots_of_a_small_tree_lie_as_drawn() -> None:
    laid = seven(stops=[0, 2, 5])  # Home and Chairs; Bar is a leaf, so ignored
    #      Home Toys | Chairs Lamps here(Home) | Cars | Bar Deck here(Chairs)
    assert laid.n_slots == 9
    assert laid.start.tolist() == [0, 2, 5, 6]
    assert laid.size.tolist() == [2, 3, 1, 3]
    assert laid.level.tolist() == [1, 2, 2, 3]
    assert laid.slot_node.tolist() == [0, 1, 2, 3, 0, 4, 5, 6, 2]
    assert np.flatnonzero(laid.is_here).tolist() == [4, 8]
    assert laid.slot_group.tolist() == [0, 0, 1, 1, 1, 2, 3, 3, 3]
    assert laid.node_slot.tolist() == [0, 1, 2, 3, 5, 6, 7]
    assert laid.here_slot.tolist() == [4, -1, 8, -1, -1, -1, -1]
    assert laid.target_slots[0].tolist() == [0, 4, -1, -1]
    assert laid.target_slots[1].tolist() == [1, -1, -1, -1]
    assert laid.target_slots[2].tolist() == [0, 2, 8, -1]
    assert laid.target_slots[6].tolist() == [0, 2, 7, -1]


@settings(max_examples=100, deadline=None)
@given(groups())
def test_groups_cover_all_slots_in_order(laid: SiblingGroups) -> None:
    tree = laid.taxonomy
    assert laid.start.tolist() == [0, *np.cumsum(laid.size)[:-1].tolist()]
    assert laid.size.sum() == laid.n_slots == tree.n_nodes + (laid.here_slot >= 0).sum()
    assert laid.slot_node[laid.node_slot].tolist() == list(range(tree.n_nodes))
    assert not laid.is_here[laid.node_slot].any()
    for slot, node in enumerate(laid.slot_node.tolist()):
        group_level = tree.level[node] + (1 if laid.is_here[slot] else 0)
        assert laid.level[laid.slot_group[slot]] == group_level
        parent = node if laid.is_here[slot] else tree.parent[node]
        assert laid.slot_group[slot] == laid.slot_group[laid.node_slot[tree.children(int(parent))[0]]]


@settings(max_examples=150, deadline=None)
@given(groups(), st.integers(0, 2**32 - 1), st.sampled_from([1.0, 30.0, 1e4]), st.booleans(), st.integers(0, 40))
def test_a_distribution_is_coherent_whatever_the_scores(
    laid: SiblingGroups, seed: int, spread: float, tempered: bool, n: int
) -> None:
    tree, rng = laid.taxonomy, np.random.default_rng(seed)
    scores = (rng.normal(size=(n, laid.n_slots)) * spread).astype(np.float32)
    temperatures = rng.uniform(0.1, 10, tree.n_levels) if tempered else None
    probs = laid.distribution(scores, temperatures)
    here = laid.here(probs)
    assert probs.dtype == here.dtype == np.float32
    assert probs.shape == here.shape == (n, tree.n_nodes)
    assert np.isfinite(probs).all()
    assert (probs >= 0).all()
    np.testing.assert_allclose(probs[:, tree.level == 1].sum(axis=1), 1, atol=1e-5)
    np.testing.assert_allclose(here.sum(axis=1), 1, atol=1e-5)
    for k in np.flatnonzero(~tree.is_leaf).tolist():
        below = probs[:, tree.children(k)].sum(axis=1)
        np.testing.assert_allclose(below + here[:, k], probs[:, k], atol=1e-5)
        if laid.here_slot[k] < 0:
            assert (here[:, k] == 0).all()
    assert (here[:, tree.is_leaf] == probs[:, tree.is_leaf]).all()


@settings(max_examples=60, deadline=None)
@given(groups(), st.integers(0, 2**32 - 1))
def test_the_slots_of_a_label_multiply_to_its_probability(laid: SiblingGroups, seed: int) -> None:
    tree, rng = laid.taxonomy, np.random.default_rng(seed)
    scores = rng.normal(size=(3, laid.n_slots)).astype(np.float32) * 3
    temperatures = rng.uniform(0.5, 2, tree.n_levels)
    # The plain way, in double precision, as a definition.
    exps = np.exp(scores.astype(np.float64) / temperatures[laid.level[laid.slot_group] - 1])
    shares = exps / np.stack([exps[:, laid.slot_group == g].sum(axis=1) for g in laid.slot_group], axis=1)
    probs = laid.distribution(scores, temperatures)
    here = laid.here(probs)
    for k in range(tree.n_nodes):
        slots = laid.target_slots[k][laid.target_slots[k] >= 0]
        expected = shares[:, slots].prod(axis=1)
        is_label = tree.is_leaf[k] or laid.here_slot[k] >= 0
        np.testing.assert_allclose((here if is_label else probs)[:, k], expected, atol=1e-5)


def test_a_flat_tree_is_a_plain_softmax() -> None:
    tree = Taxonomy.from_parents(["a", "b", "c"], ["A", "B", "C"], [None, None, None])
    scores = np.array([[0, 1000, 1000], [-1000, -1000, 0]], dtype=np.float32)
    probs = SiblingGroups.of(tree).distribution(scores, np.array([2.0]))
    np.testing.assert_allclose(probs, np.array([[0, 0.5, 0.5], [0, 0, 1]]), atol=1e-6)


def test_scores_are_left_as_they_were() -> None:
    laid = seven([0])
    scores = np.ones((2, 8), dtype=np.float32)
    scores.flags.writeable = False
    laid.distribution(scores, np.ones(3))
    laid.here(laid.distribution(scores))


def test_arrays_of_another_shape_are_errors_that_say_which_is_allowed() -> None:
    laid = seven([0])
    with pytest.raises(ShapeError, match=r"scores of shape \(1, 7\).*\(N, 8\)"):
        laid.distribution(np.zeros((1, 7), dtype=np.float32))
    with pytest.raises(ShapeError, match="nodes of shape"):
        laid.here(np.zeros(7, dtype=np.float32))
    for wrong in ([1.0], [1.0, 1.0, 0.0], [1.0, 1.0, np.nan]):
        with pytest.raises(ShapeError, match="temperatures"):
            laid.distribution(np.zeros((1, 8), dtype=np.float32), np.array(wrong))
    with pytest.raises(ShapeError, match="stops"):
        SiblingGroups.of(laid.taxonomy, np.ones(8, dtype=bool))
