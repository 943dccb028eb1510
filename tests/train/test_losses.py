"""The tree loss, against the distribution that it is the logarithm of."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from shelver.taxonomy import SiblingGroups, Taxonomy
from shelver.train.losses import TreeLoss


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


def test_the_loss_keeps_nothing_in_a_checkpoint(seven: Taxonomy) -> None:
    assert TreeLoss(SiblingGroups.of(seven)).state_dict() == {}
