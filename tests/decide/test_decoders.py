"""Decisions, against a slow reference in plain Python."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from shelver.decide import DEEPEST, MAX_ARGMAX, OUTCOMES, Costs, Policy, Probabilities, cheapest, decide
from shelver.decide.policy import Decoder
from shelver.errors import ConfigError, ShapeError
from shelver.taxonomy import SiblingGroups, Taxonomy

TOTAL = 1 << 12


class Case(NamedTuple):
    groups: SiblingGroups
    probs: Probabilities
    mass: list[dict[int, int]]
    """For each row, how many of TOTAL parts stop at each place: float32 holds them and their sums exactly."""

    @property
    def tree(self) -> Taxonomy:
        return self.groups.taxonomy

    def path(self, node: int) -> list[int]:
        return [*self.tree.ancestors(node).tolist(), node]

    def prob(self, row: int, node: int) -> float:
        """P(node): all parts that stop there or below."""
        below = {node, *self.tree.descendants(node).tolist()}
        return sum(parts for k, parts in self.mass[row].items() if k in below) / TOTAL

    def ranked(self, row: int) -> list[int]:
        """Places, the most probable first; of equals, the first in the tree's order."""
        return sorted(self.mass[row], key=lambda k: (-self.mass[row][k], k))


@st.composite
def cases(draw: st.DrawFn) -> Case:
    n_nodes = draw(st.integers(1, 30))
    reach = draw(st.sampled_from([3, 30]))  # only a few nodes back: a deep tree
    parents = [draw(st.integers(max(i - reach, -1), i - 1)) for i in range(n_nodes)]
    ids = [str(i) for i in range(n_nodes)]
    tree = Taxonomy.from_parents(ids, ids, [None if p < 0 else p for p in parents])
    stops = np.array(draw(st.lists(st.booleans(), min_size=n_nodes, max_size=n_nodes)))
    groups = SiblingGroups.of(tree, stops)
    places = [k for k in range(n_nodes) if tree.is_leaf[k] or stops[k]]
    mass = []
    for _ in range(draw(st.integers(0, 6))):
        # Few different weights, so that ties are common; the rest of the mass goes to one place.
        weights = [draw(st.sampled_from([0, 1, 1, 2, 64, 128])) for _ in places]
        row = dict(zip(places, weights, strict=True))
        row[draw(st.sampled_from(places))] += TOTAL - sum(weights)
        mass.append(row)
    nodes = np.zeros((len(mass), n_nodes), np.float32)
    for i, row in enumerate(mass):
        for k, parts in row.items():
            nodes[i, [*tree.ancestors(k).tolist(), k]] += parts / TOTAL
    modality = draw(st.lists(st.integers(0, 3), min_size=len(mass), max_size=len(mass)))
    outside = draw(st.lists(st.sampled_from([0.0, 0.5, 0.75, 1.0]), min_size=len(mass), max_size=len(mass)))
    probs = Probabilities(nodes, np.array(modality, np.int8), np.array(outside, np.float32))
    return Case(groups, probs, mass)


@st.composite
def policies(draw: st.DrawFn) -> Policy:
    """Every decoder, every field; strict nodes are among the first three of the tree."""
    share = st.sampled_from([0.0, 1 / 64, 0.25, 0.5, 0.75, 1.0])
    decoders: list[Decoder] = ["best_leaf", "greedy", "climb", "cost", "top_n"]
    max_level = draw(st.sampled_from([None, None, 1, 2, 4]))
    costs = Costs(
        wrong=draw(st.sampled_from([0.0, 0.125, 1.0, 4.0])),
        missed=draw(st.sampled_from([0.0, 0.25, 1.0, 8.0])),
        review=draw(st.sampled_from([None, 0.25, 1.5])),
    )
    return Policy(
        decoder=draw(st.sampled_from(decoders)),
        thresholds=tuple(draw(st.lists(share, min_size=1, max_size=4))),
        strict={"0": draw(share)} if draw(st.booleans()) else {},
        min_level=draw(st.sampled_from([1, 1, 2, 3])),
        max_level=max_level,
        n_top=draw(st.sampled_from([1, 2, 5, 1000])),
        unsure=draw(st.sampled_from(["stop", "suggest", "review", "abstain"])),
        outside=draw(st.sampled_from([None, 0.75])),
        costs=costs,
    )


def cost_matrix(tree: Taxonomy, costs: Costs) -> NDArray[np.float64]:
    """What it costs to decide the node of a row for a product that stands at the node of a column."""
    values = costs.values
    matrix = np.zeros((tree.n_nodes, tree.n_nodes))
    for d in range(tree.n_nodes):
        for t in range(tree.n_nodes):
            decided, true = ({*tree.ancestors(k).tolist(), k} for k in (d, t))
            matrix[d, t] = costs.wrong * len(decided - true)
            if values is None:
                matrix[d, t] += costs.missed * len(true - decided)
            else:
                value = values.get(tree.ids[t], np.mean(list(values.values())))
                missing = len(true - decided) / len(true) if costs.partial else float(d != t)
                matrix[d, t] += value * missing
    return matrix


def thresholds_of(tree: Taxonomy, policy: Policy) -> list[float]:
    found = []
    for k in range(tree.n_nodes):
        level = int(tree.level[k])
        above = [*tree.ancestors(k).tolist(), k]
        strict = [policy.strict[tree.ids[v]] for v in above if tree.ids[v] in policy.strict]
        found.append(max([policy.thresholds[min(level, len(policy.thresholds)) - 1], *strict]))
    return found


def decided_slowly(case: Case, row: int, policy: Policy) -> int | None:
    """The node that a policy decides for a product, in plain Python; None where it is unsure."""
    tree, least = case.tree, thresholds_of(case.tree, policy)

    def sure(k: int) -> bool:
        return case.prob(row, k) >= least[k]

    def wanted(k: int) -> bool:
        return policy.min_level <= int(tree.level[k]) <= (policy.max_level or tree.n_levels)

    path = case.path(case.ranked(row)[0])[: policy.max_level]
    if policy.decoder == "best_leaf" and policy.unsure != "stop":
        return path[-1] if sure(path[-1]) and wanted(path[-1]) else None
    if policy.decoder in ("best_leaf", "climb"):
        return next((k for k in reversed(path) if sure(k) and wanted(k)), None)
    if policy.decoder == "cost":
        matrix = cost_matrix(tree, policy.costs)
        p = np.array([case.mass[row].get(k, 0) / TOTAL for k in range(tree.n_nodes)])
        costs = {k: float(matrix[k] @ p) for k in range(tree.n_nodes) if sure(k) and wanted(k)}
        best = min(costs, key=lambda k: (costs[k], k), default=None)
        review = policy.costs.review
        return None if best is None or (review is not None and costs[best] > review) else best
    if policy.decoder == "top_n":
        return None
    node: int | None = None
    children = [k for k in range(tree.n_nodes) if tree.level[k] == 1]
    while children and (policy.max_level is None or tree.level[children[0]] <= policy.max_level):
        child = max(children, key=lambda k: (case.prob(row, k), -k))
        stays = (
            node is not None and node in case.mass[row] and case.mass[row][node] / TOTAL >= case.prob(row, child)
        )
        if stays or not sure(child):
            break
        node, children = child, tree.children(child).tolist()
    return node if node is not None and wanted(node) else None


@settings(max_examples=150, deadline=None)
@given(cases(), policies())
def test_decisions_are_those_of_the_slow_reference(case: Case, policy: Policy) -> None:
    tree = case.tree
    said = decide(case.probs, tree, case.groups, policy)
    assert len(said) == len(case.mass)
    assert case.probs.outside is not None
    for i, mass in enumerate(case.mass):
        answer = said[i]
        assert said.outcome[i] == OUTCOMES.index(answer.outcome)
        assert said.answered[i] == (answer.outcome == "decided")
        assert answer.modality == (None, "text", "image", "both")[case.probs.modality[i]]
        node = decided_slowly(case, i, policy)
        if case.probs.modality[i] == 0:
            expected = "error"
        elif policy.outside is not None and case.probs.outside[i] >= policy.outside:
            expected = "outside"
        elif node is not None:
            expected = "decided"
        else:
            unsure = {"stop": "abstained", "abstain": "abstained", "suggest": "suggested", "review": "review"}
            expected = "suggested" if policy.decoder == "top_n" else unsure[policy.unsure]
        assert answer.outcome == expected
        assert answer.error == ("empty_product" if expected == "error" else None)
        if expected in ("decided", "suggested", "review"):
            ranked = case.ranked(i)[: policy.n_top]
            assert [a.node_id for a in answer.alternatives] == [tree.ids[k] for k in ranked]
            assert [a.confidence * TOTAL for a in answer.alternatives] == [mass[k] for k in ranked]
        else:
            assert answer.alternatives == ()
        if expected != "decided":
            assert (answer.node_id, answer.path, answer.confidence, answer.level_confidence) == (
                None,
                None,
                None,
                (),
            )
            continue
        assert node is not None
        assert (answer.node_id, answer.path) == (tree.ids[node], tree.path(node))
        assert answer.confidence is not None
        exactly = node == case.ranked(i)[0]
        assert answer.confidence == (mass[node] / TOTAL if exactly else case.prob(i, node))
        assert list(answer.level_confidence) == [case.prob(i, k) for k in case.path(node)]


@settings(max_examples=150, deadline=None)
@given(cases(), st.data())
def test_the_least_expected_cost_is_that_of_the_whole_cost_matrix(case: Case, data: st.DataObject) -> None:
    tree = case.tree
    valued = data.draw(st.lists(st.sampled_from(tree.ids), max_size=8, unique=True))
    amounts = st.sampled_from([0.0, 1.0, 1.0, 3.0, 50.0, 1000.0])
    costs = Costs(
        wrong=data.draw(st.sampled_from([0.0, 0.125, 1.0, 20.0])),
        missed=data.draw(st.sampled_from([0.0, 0.25, 1.0])),
        values={node_id: data.draw(amounts) for node_id in valued} or None,
        partial=data.draw(st.booleans()),
    )
    policy = Policy(
        decoder="cost",
        costs=costs,
        thresholds=(data.draw(st.sampled_from([0.0, 0.0, 1 / 64, 0.5])),),
        min_level=data.draw(st.sampled_from([1, 1, 2])),
        max_level=data.draw(st.sampled_from([None, None, 3])),
    )
    node, cost = cheapest(case.probs, case.groups, policy)
    matrix = cost_matrix(tree, costs)
    for i, mass in enumerate(case.mass):
        p = np.array([mass.get(k, 0) / TOTAL for k in range(tree.n_nodes)])
        may = [
            k
            for k in range(tree.n_nodes)
            if case.prob(i, k) >= policy.thresholds[0]
            and policy.min_level <= tree.level[k] <= (policy.max_level or tree.n_levels)
        ]
        if not may:
            assert (node[i], np.isnan(cost[i])) == (-1, True)
            continue
        expected = matrix @ p
        assert node[i] in may
        tolerance = 2e-6 * (1 + costs.wrong * tree.n_levels + float(matrix.max()))
        assert expected[node[i]] <= expected[may].min() + tolerance
        assert cost[i] == pytest.approx(expected[node[i]], abs=tolerance)


@pytest.mark.parametrize("with_stops", [False, True])
@pytest.mark.parametrize(
    "costs", [Costs(), Costs(wrong=0), Costs(values={"9": 100}), Costs(values={"9": 100}, partial=True)]
)
def test_a_chunk_of_a_wide_tree_is_decided_as_each_product_alone(with_stops: bool, costs: Costs) -> None:
    rng = np.random.default_rng(4)
    n_nodes = 3000
    parents = [None if i < 9 else int(rng.integers(i // 8, i // 4 + 1)) for i in range(n_nodes)]
    ids = [str(i) for i in range(n_nodes)]
    tree = Taxonomy.from_parents(ids, ids, parents)
    groups = SiblingGroups.of(tree, rng.random(n_nodes) < 0.4 if with_stops else None)
    scores = rng.normal(size=(300, groups.n_slots)) * rng.choice([0.1, 2, 8], (300, 1))
    nodes = groups.distribution(scores.astype(np.float32))
    here = groups.here(nodes)
    place = np.flatnonzero(tree.is_leaf | (groups.here_slot >= 0))
    ranked = place[np.argsort(-here[:, place], axis=1, kind="stable")]
    for decoder in ("best_leaf", "greedy", "cost"):
        policy = Policy(decoder=decoder, costs=costs, thresholds=(0.3, 0.1))
        together = decide(Probabilities(nodes, np.ones(300, np.int8)), tree, groups, policy)
        assert (together.top_node == ranked[:, :5])[together.answered].all()
        for i in range(0, 300, 7):
            alone = decide(Probabilities(nodes[i : i + 1], np.ones(1, np.int8)), tree, groups, policy)[0]
            assert alone == together[i]
    # What the search leaves out is worth no more than what it finds.
    everywhere = Policy(decoder="cost", costs=costs)
    _, cost = cheapest(Probabilities(nodes, np.ones(300, np.int8)), groups, everywhere)
    for node in rng.choice(n_nodes, 40, replace=False):
        other = (cost_matrix_row(tree, costs, int(node)) * here).sum(axis=1)
        assert (cost <= other + 1e-4).all()


def cost_matrix_row(tree: Taxonomy, costs: Costs, node: int) -> NDArray[np.float64]:
    shared = tree.lca_level(node, np.arange(tree.n_nodes))
    wrong = costs.wrong * (tree.level[node] - shared)
    if costs.values is None:
        return np.asarray(wrong + costs.missed * (tree.level - shared))
    value = np.full(tree.n_nodes, np.mean(list(costs.values.values())))
    missing = (tree.level - shared) / tree.level if costs.partial else np.arange(tree.n_nodes) != node
    return np.asarray(wrong + value * missing)


def test_values_of_all_nodes_may_be_left_out_of_a_policy_but_not_misspelt(seven: Taxonomy) -> None:
    probs = Probabilities(np.full((1, 7), 0.5, np.float32), np.ones(1, np.int8))
    groups = SiblingGroups.of(seven)
    for policy in (
        Policy(strict={"Bar": 0.5, "Tables": 0.9}),
        Policy(decoder="cost", costs=Costs(values={"Tables": 3.0})),
    ):
        with pytest.raises(ConfigError, match=r"'Tables'.*not in this tree.*'Home'"):
            decide(probs, seven, groups, policy)


def test_a_policy_that_sends_strange_products_away_needs_a_model_that_can_tell(seven: Taxonomy) -> None:
    probs = Probabilities(np.full((1, 7), 0.5, np.float32), np.ones(1, np.int8))
    with pytest.raises(ConfigError, match=r"outside = 0\.99"):
        decide(probs, seven, SiblingGroups.of(seven), Policy(outside=0.99))


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
