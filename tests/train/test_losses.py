"""The losses of the two heads, against the distribution and against torch's own cross entropy."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from shelver.taxonomy import SiblingGroups, Taxonomy
from shelver.train.data import Examples, weights_of
from shelver.train.losses import LevelsLoss, TreeLoss, loss_for
from shelver.train.model import level_sizes
from shelver.train.tasks import Tasks


@st.composite
def trees(draw: st.DrawFn) -> SiblingGroups:
    n = draw(st.integers(1, 30))
    parents = [draw(st.integers(-1, i - 1)) for i in range(n)]
    ids = [str(i) for i in range(n)]
    tree = Taxonomy.from_parents(ids, ids, [None if p < 0 else p for p in parents])
    stops = draw(st.lists(st.booleans(), min_size=n, max_size=n))
    return SiblingGroups.of(tree, np.array(stops))


@settings(max_examples=80, deadline=None)
@given(trees(), st.integers(0, 2**32 - 1), st.integers(0, 12))
def test_the_loss_is_minus_the_logarithm_of_the_labels_probability(
    groups: SiblingGroups, seed: int, n: int
) -> None:
    rng = np.random.default_rng(seed)
    scores = (rng.normal(size=(n, groups.n_slots)) * 2).astype(np.float32)
    nodes = rng.integers(0, groups.taxonomy.n_nodes, n)
    probs = groups.distribution(scores)
    here = groups.here(probs)
    # A label at an inner node where products may not stop means "somewhere below": P(node), not P(here).
    is_place = groups.taxonomy.is_leaf | (groups.here_slot >= 0)
    wanted = np.where(is_place[nodes], here[np.arange(n), nodes], probs[np.arange(n), nodes])
    loss = TreeLoss(groups)(torch.from_numpy(scores), torch.from_numpy(nodes))
    assert loss.shape == (n,)
    np.testing.assert_allclose(np.exp(-loss.numpy()), wanted, atol=1e-5)


@settings(max_examples=15, deadline=None)
@given(trees(), st.integers(0, 2**32 - 1))
def test_the_gradient_is_that_of_small_differences(groups: SiblingGroups, seed: int) -> None:
    rng = np.random.default_rng(seed)
    nodes = torch.from_numpy(rng.integers(0, groups.taxonomy.n_nodes, 4))
    scores = torch.from_numpy(rng.normal(size=(4, groups.n_slots))).requires_grad_()
    loss = TreeLoss(groups)
    assert torch.autograd.gradcheck(lambda s: loss(s, nodes), (scores,))


def test_enormous_scores_give_finite_losses_and_gradients(seven: Taxonomy) -> None:
    groups = SiblingGroups.of(seven, np.isin(np.arange(7), [0, 2]))
    scores = torch.full((7, groups.n_slots), -1e30)
    scores[:, ::2] = 1e30
    scores.requires_grad_()
    loss = TreeLoss(groups)(scores, torch.arange(7))
    loss.sum().backward()
    assert torch.isfinite(loss).all()
    assert scores.grad is not None
    assert torch.isfinite(scores.grad).all()


def test_groups_that_are_not_on_the_labels_path_get_no_gradient(seven: Taxonomy) -> None:
    groups = SiblingGroups.of(seven)
    scores = torch.randn(1, groups.n_slots, requires_grad=True)
    TreeLoss(groups)(scores, torch.tensor([3])).sum().backward()
    assert scores.grad is not None
    touched = (scores.grad != 0).squeeze(0).numpy()
    # Lamps: the groups of the root and of Home; those of Toys and Chairs are none of its business.
    assert (touched == np.isin(np.arange(7), [0, 1, 2, 3])).all()


def test_the_losses_keep_nothing_in_a_checkpoint(seven: Taxonomy) -> None:
    assert TreeLoss(SiblingGroups.of(seven)).state_dict() == {}
    assert LevelsLoss(SiblingGroups.of(seven)).state_dict() == {}


def by_group(groups: SiblingGroups, scores: Tensor, node: int, weights: list[float], smoothing: float) -> float:
    """The tree loss of one product, a sibling group at a time, by torch's cross entropy."""
    total = 0.0
    for level, slot in enumerate(groups.target_slots[node].tolist()):
        if slot >= 0:
            start, size = groups.start[groups.slot_group[slot]], groups.size[groups.slot_group[slot]]
            siblings = scores[start : start + size]
            part = F.cross_entropy(siblings, torch.tensor(slot - int(start)), label_smoothing=smoothing)
            total += weights[level] * float(part)
    return total


@settings(max_examples=60, deadline=None)
@given(trees(), st.integers(0, 2**32 - 1), st.sampled_from([0.0, 0.1, 0.5]), st.booleans())
def test_the_tree_loss_is_a_smoothed_and_weighed_cross_entropy_in_each_group_on_the_way(
    groups: SiblingGroups, seed: int, smoothing: float, weighed: bool
) -> None:
    rng = np.random.default_rng(seed)
    n_levels = groups.taxonomy.n_levels
    weights = rng.uniform(0, 3, n_levels).tolist() if weighed else [1.0] * n_levels
    scores = torch.from_numpy((rng.normal(size=(5, groups.n_slots)) * 3).astype(np.float32))
    nodes = rng.integers(0, groups.taxonomy.n_nodes, 5)
    loss = loss_for("tree", Tasks(groups), level_weights=weights if weighed else None, smoothing=smoothing)
    expected = [by_group(groups, scores[i], int(nodes[i]), weights, smoothing) for i in range(5)]
    np.testing.assert_allclose(loss(scores, torch.from_numpy(nodes), ()).numpy(), expected, rtol=1e-4, atol=1e-4)


@settings(max_examples=60, deadline=None)
@given(trees(), st.integers(0, 2**32 - 1), st.sampled_from([0.0, 0.2]), st.booleans())
def test_the_levels_loss_is_a_cross_entropy_among_all_slots_of_each_level(
    groups: SiblingGroups, seed: int, smoothing: float, weighed: bool
) -> None:
    rng = np.random.default_rng(seed)
    sizes = level_sizes(groups)
    assert sum(sizes) == groups.n_slots
    weights = rng.uniform(0, 3, len(sizes)).tolist() if weighed else [1.0] * len(sizes)
    scores = torch.from_numpy((rng.normal(size=(5, groups.n_slots)) * 3).astype(np.float32))
    nodes = rng.integers(0, groups.taxonomy.n_nodes, 5)
    expected = np.zeros(5)
    for row, node in enumerate(nodes.tolist()):
        slots = groups.target_slots[node]
        first = 0
        for level, size in enumerate(sizes):
            if slots[level] >= 0:
                at = torch.tensor(int(slots[level]) - first)
                of_level = scores[row, first : first + size]
                expected[row] += weights[level] * float(F.cross_entropy(of_level, at, label_smoothing=smoothing))
            first += size
    loss = loss_for("levels", Tasks(groups), level_weights=weights if weighed else None, smoothing=smoothing)
    assert isinstance(loss.tree, LevelsLoss)
    np.testing.assert_allclose(loss(scores, torch.from_numpy(nodes), ()).numpy(), expected, rtol=1e-4, atol=1e-4)


def test_enormous_scores_are_finite_for_the_levels_loss_too(seven: Taxonomy) -> None:
    groups = SiblingGroups.of(seven, np.isin(np.arange(7), [0, 2]))
    scores = torch.full((7, groups.n_slots), -1e30)
    scores[:, ::2] = 1e30
    scores.requires_grad_()
    loss = LevelsLoss(groups)(scores, torch.arange(7))
    loss.sum().backward()
    assert torch.isfinite(loss).all()
    assert scores.grad is not None
    assert torch.isfinite(scores.grad).all()


def products(nodes: list[int], values: list[float]) -> Examples:
    return Examples(["x"] * len(nodes), None, np.array(nodes, np.int32), np.array(values, np.float32))


def test_products_weigh_alike_unless_asked_otherwise() -> None:
    some = products([1, 1, 2], [5, 1, float("nan")])
    assert weights_of(some, balance=0, value_weight=0).tolist() == [1, 1, 1]


def test_balance_gives_rare_labels_more_weight() -> None:
    some = products([1, 1, 1, 1, 2], [1.0] * 5)
    weight = weights_of(some, balance=1.0, value_weight=0)
    assert weight.mean() == pytest.approx(1)
    assert weight[:4].sum() == pytest.approx(weight[4])  # at 1 every label weighs alike
    half = weights_of(some, balance=0.5, value_weight=0)
    assert half[4] / half[0] == pytest.approx(2)


def test_value_gives_dear_products_more_weight_and_an_unknown_value_is_the_mean() -> None:
    some = products([1, 2, 3], [1.0, 3.0, float("nan")])
    weight = weights_of(some, balance=0, value_weight=1.0)
    assert (weight / weight[0]).tolist() == pytest.approx([1, 3, 2])
    root = weights_of(some, balance=0, value_weight=0.5)
    assert (root / root[0]).tolist() == pytest.approx([1, 3**0.5, 2**0.5])
    unknown = products([1, 2], [float("nan")] * 2)
    assert weights_of(unknown, balance=0, value_weight=1.0).tolist() == [1, 1]
    worthless = weights_of(products([1, 2], [0.0, -5.0]), balance=0, value_weight=1.0)
    assert np.isfinite(worthless).all()
