"""The search for the cheapest node on trees wide enough for its short cuts, against all nodes looked at."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from shelver.decide import Costs, Policy, Probabilities, best_places, cheapest
from shelver.decide.exact import most_saved_exactly
from shelver.decide.plan import plan_of
from shelver.decide.savings import Savings
from shelver.taxonomy import SiblingGroups, Taxonomy

N_NODES = 900
N_FIRST = 12


def wide_tree(*, stops: bool) -> SiblingGroups:
    rng = np.random.default_rng(7)
    parents = [None if i < N_FIRST else int(rng.integers(i // 8, i // 3 + 1)) for i in range(N_NODES)]
    ids = [str(i) for i in range(N_NODES)]
    return SiblingGroups.of(Taxonomy.from_parents(ids, ids, parents), rng.random(N_NODES) < 0.3 if stops else None)


def probabilities(groups: SiblingGroups, n: int) -> NDArray[np.float32]:
    """Of products of which some are sure and some are not, and one is as sure as float32 can be."""
    rng = np.random.default_rng(3)
    scores = rng.normal(size=(n, groups.n_slots)) * rng.choice([0.1, 1, 3, 8], (n, 1))
    scores[0] *= 100
    return groups.distribution(scores.astype(np.float32))


def heavy_tailed(tree: Taxonomy) -> dict[str, float]:
    ranks = np.random.default_rng(5).permutation(tree.n_nodes) + 1
    return {node_id: 1000.0 / rank for node_id, rank in zip(tree.ids, ranks.tolist(), strict=True)}


def expected_costs(groups: SiblingGroups, costs: Costs, here: NDArray[np.float32]) -> NDArray[np.float64]:
    """What is expected of each node, (N, K), from the cost of each node for each true one."""
    tree = groups.taxonomy
    shared = np.array([tree.lca_level(node, np.arange(tree.n_nodes)) for node in range(tree.n_nodes)])
    assert costs.values is not None
    value = np.array([costs.values[node_id] for node_id in tree.ids])
    missing = (tree.level - shared) / tree.level if costs.partial else 1 - np.eye(tree.n_nodes)
    matrix = costs.wrong * (tree.level[:, None] - shared) + value * missing
    return np.asarray(here.astype(np.float64) @ matrix.T)


@pytest.mark.parametrize("stops", [False, True])
@pytest.mark.parametrize("partial", [False, True])
@pytest.mark.parametrize("wrong", [0.0, 0.1, 2.0])
@pytest.mark.parametrize("n_guesses", [1, 5])
def test_values_of_a_heavy_tail_are_found_wherever_they_stand(
    stops: bool, partial: bool, wrong: float, n_guesses: int
) -> None:
    groups = wide_tree(stops=stops)
    tree = groups.taxonomy
    nodes = probabilities(groups, 120)
    costs = Costs(wrong=wrong, values=heavy_tailed(tree), partial=partial)
    expected = expected_costs(groups, costs, groups.here(nodes))
    for policy in (
        Policy(decoder="cost", costs=costs, n_top=n_guesses),
        Policy(decoder="cost", costs=costs, n_top=n_guesses, min_level=2, max_level=3, thresholds=(0.0, 0.0, 0.2)),
    ):
        cost: NDArray[np.float32] | None = None
        node: NDArray[np.signedinteger]
        if n_guesses == 5:
            node, cost = cheapest(Probabilities(nodes, np.ones(len(nodes), np.int8)), groups, policy)
        else:  # one guess is a bad one, and no more than that
            search = Savings(plan_of(policy, groups))
            places, _ = best_places(nodes, groups, 1)
            if partial:
                node, _ = search.along(nodes, places, exactly=False)
            else:
                node, _ = most_saved_exactly(search, nodes, places)
        may = (tree.level >= policy.min_level) & (tree.level <= (policy.max_level or tree.n_levels))
        sure = np.asarray(policy.thresholds)[np.minimum(tree.level, len(policy.thresholds)) - 1]
        least = np.where(may & (nodes >= sure), expected, np.inf).min(axis=1)
        found = np.isfinite(least)
        assert found.any()
        assert ((node >= 0) == found).all()
        rows = np.flatnonzero(found)
        tolerance = 1e-5 * (1 + np.abs(least[rows]))
        assert (expected[rows, node[rows]] <= least[rows] + tolerance).all()
        if cost is not None:
            assert np.allclose(cost[rows], least[rows], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("stops", [False, True])
def test_what_a_branch_is_worth_is_the_sum_over_its_places_and_never_more_than_was_thought(stops: bool) -> None:
    groups = wide_tree(stops=stops)
    tree = groups.taxonomy
    nodes = probabilities(groups, 20)
    costs = Costs(values=heavy_tailed(tree), partial=True)
    search = Savings(plan_of(Policy(decoder="cost", costs=costs), groups))
    assert search.share is not None
    worth = groups.here(nodes) * search.share
    rng = np.random.default_rng(1)
    rows, columns = rng.integers(0, len(nodes), 300), rng.integers(0, N_NODES, 300)
    columns[:100] = rng.integers(0, 2 * N_FIRST, 100)  # the large ones too
    own = search.share[columns] * nodes[rows, columns]
    truth = np.array(
        [
            worth[row, [node, *tree.descendants(node).tolist()]].sum()
            for row, node in zip(rows.tolist(), columns.tolist(), strict=True)
        ]
    )
    *thought, last = (own + below.sums(nodes.reshape(-1), rows, columns) for below in search.worth_below)
    assert np.allclose(last, truth, rtol=1e-4, atol=1e-5)
    assert len(thought) == 2
    for most in thought:
        assert (most >= truth - 1e-4).all()
        assert (most > truth + 1e-2).any()


def test_equal_products_are_decided_alike_wherever_they_stand_in_a_chunk() -> None:
    groups = wide_tree(stops=True)
    nodes = probabilities(groups, 30)
    for partial in (False, True):
        costs = Costs(wrong=0.1, values=heavy_tailed(groups.taxonomy), partial=partial)
        policy = Policy(decoder="cost", costs=costs)
        alone, cost = cheapest(Probabilities(nodes, np.ones(30, np.int8)), groups, policy)
        many = np.tile(nodes, (40, 1))
        together, costs_of = cheapest(Probabilities(many, np.ones(1200, np.int8)), groups, policy)
        assert (together == np.tile(alone, 40)).all()
        assert (costs_of == np.tile(cost, 40)).all()
