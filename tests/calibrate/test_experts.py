"""Weights of experts: found where they are known, pooled, and harmless to the tree's coherence."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from numpy.typing import NDArray

from shelver.calibrate import (
    MIN_ROWS,
    MODALITIES,
    PRIOR_ROWS,
    Calibration,
    Modality,
    WeightFit,
    can_answer,
    pooled_scores,
)
from shelver.taxonomy import SiblingGroups, Taxonomy

N = 20_000
Scores = NDArray[np.float32]


def fit_weights(
    scores: Sequence[Scores], nodes: NDArray[np.int32], groups: SiblingGroups, able: Sequence[bool] | None = None
) -> NDArray[np.float64]:
    """(E, L) weights, fitted in batches of an odd size, as nothing may depend on them."""
    fit = WeightFit(groups, able if able is not None else [True] * len(scores))
    for start in range(0, len(nodes), 97):
        fit.add([part[start : start + 97] for part in scores], nodes[start : start + 97])
    return np.array(fit.weights())


def distribution(scores: Sequence[Scores], weights: NDArray[np.float64], groups: SiblingGroups) -> Scores:
    """P(node) of experts weighed by (E, L) weights."""
    levels = groups.level[groups.slot_group] - 1
    return groups.distribution(pooled_scores(scores, [row.astype(np.float32)[levels] for row in weights]))


def labels_from(probs: Scores, groups: SiblingGroups, seed: int) -> NDArray[np.int32]:
    """One label a row, drawn from P(stopping at a node)."""
    here = groups.here(probs).astype(np.float64)
    until = np.cumsum(here, axis=1)
    drawn = np.random.default_rng(seed).random((len(here), 1)) * until[:, -1:]
    labels: NDArray[np.int32] = (until < drawn).sum(axis=1).astype(np.int32)
    return labels


def noise(groups: SiblingGroups, n: int, seed: int, scale: float = 2.5) -> Scores:
    return (np.random.default_rng(seed).normal(size=(n, groups.n_slots)) * scale).astype(np.float32)


@pytest.mark.parametrize(
    "temperatures", [(1.0, 1.0, 1.0), (2.0, 0.7, 1.5), (0.4, 3.0, 0.5)], ids=["honest", "mixed", "extreme"]
)
@pytest.mark.parametrize("stops", [[], [0, 2]], ids=["leaves only", "with stops"])
def test_the_weight_of_one_expert_is_the_inverse_of_the_temperature_that_its_scores_need(
    seven: Taxonomy, temperatures: tuple[float, ...], stops: list[int]
) -> None:
    groups = SiblingGroups.of(seven, np.isin(np.arange(7), stops))
    scores = noise(groups, N, 0)
    nodes = labels_from(groups.distribution(scores, np.array(temperatures)), groups, seed=1)
    fitted = fit_weights([scores], nodes, groups)
    np.testing.assert_allclose(fitted[0], 1 / np.array(temperatures), rtol=0.06)


def test_known_weights_of_several_experts_are_found_again(seven: Taxonomy) -> None:
    groups = SiblingGroups.of(seven, np.isin(np.arange(7), [0, 2]))
    scores = [noise(groups, N, seed) for seed in (0, 1, 2)]
    true = np.array([[0.8, 0.3, 0.5], [0.2, 0.9, 0.5], [0.0, 0.0, 0.0]])
    nodes = labels_from(distribution(scores, true, groups), groups, seed=3)
    fitted = fit_weights(scores, nodes, groups)
    np.testing.assert_allclose(fitted, true, atol=0.05)
    assert (fitted >= 0).all()


def test_the_weights_found_have_the_least_loss(seven: Taxonomy) -> None:
    groups = SiblingGroups.of(seven, np.isin(np.arange(7), [0]))
    scores = [noise(groups, 3_000, seed, 2.0) for seed in (3, 4)]
    nodes = labels_from(distribution(scores, np.array([[0.7] * 3, [0.4] * 3]), groups), groups, seed=5)
    fitted = fit_weights(scores, nodes, groups)

    def loss(weights: NDArray[np.float64]) -> float:
        here = groups.here(distribution(scores, weights, groups))
        return float(-np.log(np.maximum(here[np.arange(len(nodes)), nodes], 1e-30)).sum())

    # The pull towards equal weights moves the optimum by less than so many rows' worth of loss.
    for expert in range(2):
        for level in range(3):
            for factor in (0.8, 1.25):
                other = fitted.copy()
                other[expert, level] *= factor
                assert loss(fitted) < loss(other)


def test_an_expert_that_says_the_opposite_gets_no_say_rather_than_a_negative_one(seven: Taxonomy) -> None:
    groups = SiblingGroups.of(seven)
    scores = noise(groups, 2_000, 0)
    nodes = labels_from(groups.distribution(scores), groups, seed=1)
    fitted = fit_weights([scores, noise(groups, 2_000, 2) - scores], nodes, groups)
    assert (fitted[0] > 0.3).all()
    assert (fitted >= 0).all()
    alone = fit_weights([-scores], nodes, groups)
    assert (alone == 0).all()


def test_a_level_with_few_rows_takes_the_weights_of_the_level_above(seven: Taxonomy) -> None:
    groups = SiblingGroups.of(seven)
    scores = noise(groups, MIN_ROWS * 2, 0, 3.0)
    nodes = np.full(MIN_ROWS * 2, 3, np.int32)  # Lamps, at level 2
    nodes[: MIN_ROWS - 1] = 5  # Bar, at level 3, one too few
    scores[:, groups.node_slot[0]] += 3  # Home is rightly sure, level 2 is noise
    two = [scores, noise(groups, MIN_ROWS * 2, 1)]
    fitted = fit_weights(two, nodes, groups)
    np.testing.assert_array_equal(fitted[:, 2], fitted[:, 1])
    assert (fitted[:, 1] != fitted[:, 0]).any()
    for few in (10, 0):
        fitted = fit_weights([part[:few] for part in two], nodes[:few], groups)
        assert (fitted == 0.5).all()


def test_few_rows_hardly_leave_equal_weights_and_many_do(seven: Taxonomy) -> None:
    groups = SiblingGroups.of(seven)
    good, bad = noise(groups, N, 0), noise(groups, N, 1)
    nodes = labels_from(groups.distribution(good), groups, seed=2)
    away = []
    for n in (MIN_ROWS, N):
        assert n >= PRIOR_ROWS
        fitted = fit_weights([good[:n], bad[:n]], nodes[:n], groups)
        away.append(float(np.abs(fitted[:, 0] - [1.0, 0.0]).max()))
    assert away[1] < 0.05 < away[0]


def test_an_only_child_says_nothing_about_weights(seven: Taxonomy) -> None:
    groups = SiblingGroups.of(seven)
    scores = noise(groups, 200, 0, 1.0)
    cars = np.full(200, 4, np.int32)  # the only child of Toys
    ((first, second, _),) = fit_weights([scores], cars, groups)
    assert first == second


def test_scores_that_are_always_right_give_a_bounded_weight(seven: Taxonomy) -> None:
    groups = SiblingGroups.of(seven)
    nodes = np.tile(np.array([3, 4, 5, 6], np.int32), 100)
    scores = np.zeros((400, groups.n_slots), np.float32)
    for row, node in enumerate(nodes):
        scores[row, groups.target_slots[node][groups.target_slots[node] >= 0]] = 1e4
    fitted = fit_weights([scores], nodes, groups)
    assert np.isfinite(fitted).all()
    assert (fitted <= 10).all()
    assert np.isfinite(distribution([scores], fitted, groups)).all()


def test_who_lacks_what_it_looks_at_counts_nothing_and_may_say_anything(seven: Taxonomy) -> None:
    groups = SiblingGroups.of(seven)
    scores = noise(groups, 500, 0)
    nodes = labels_from(groups.distribution(scores), groups, seed=1)
    fitted = fit_weights([scores, np.full_like(scores, np.nan)], nodes, groups, able=[True, False])
    assert (fitted[1] == 0).all()
    np.testing.assert_array_equal(fitted[0], fit_weights([scores], nodes, groups)[0])
    calibration = Calibration(
        experts=("a", "b"), needs=("text", "image"), weights=dict.fromkeys(MODALITIES, as_rows(fitted))
    )
    assert calibration.slot_weights("text", groups)[1] is None
    pooled = pooled_scores([scores, np.full_like(scores, np.nan)], calibration.slot_weights("text", groups))
    assert np.isfinite(pooled).all()


def as_rows(weights: NDArray[np.float64]) -> tuple[tuple[float, ...], ...]:
    return tuple(tuple(row) for row in weights.tolist())


def test_nobody_who_can_answer_gives_even_odds(seven: Taxonomy) -> None:
    groups = SiblingGroups.of(seven)
    scores = noise(groups, 100, 0)
    fitted = fit_weights([scores], np.full(100, 3, np.int32), groups, able=[False])
    assert (fitted == 0).all()
    assert (pooled_scores([scores], [None]) == 0).all()


def test_pooled_probabilities_still_sum_to_one_and_parents_to_their_children(seven: Taxonomy) -> None:
    groups = SiblingGroups.of(seven, np.isin(np.arange(7), [0, 2]))
    scores = [noise(groups, 500, seed, 4.0) for seed in (0, 1)]
    nodes = labels_from(distribution(scores, np.array([[3.0, 0.5, 2.0], [0.1, 1.0, 0.3]]), groups), groups, 1)
    probs = distribution(scores, fit_weights(scores, nodes, groups), groups)
    here = groups.here(probs)
    np.testing.assert_allclose(probs[:, :2].sum(axis=1), 1, atol=1e-5)
    for k in np.flatnonzero(~seven.is_leaf).tolist():
        np.testing.assert_allclose(probs[:, seven.children(k)].sum(axis=1) + here[:, k], probs[:, k], atol=1e-5)


@pytest.mark.parametrize(
    ("needs", "modality", "can"),
    [
        ("text", "text", True), ("text", "image", False), ("text", "both", True),
        ("image", "text", False), ("image", "image", True), ("image", "both", True),
        ("both", "text", False), ("both", "image", False), ("both", "both", True),
    ],
)  # fmt: skip
def test_an_expert_answers_where_it_has_all_that_it_looks_at(
    needs: Modality, modality: Modality, can: bool
) -> None:
    assert can_answer(needs, modality) is can


def test_even_weights_are_shared_by_who_can_answer_and_survive_json() -> None:
    even = Calibration.even({"ngram": "text", "linear": "text", "image": "image", "joint": "both"}, 2)
    assert even.weights["text"] == ((0.5, 0.5), (0.5, 0.5), (0.0, 0.0), (0.0, 0.0))
    assert even.weights["image"] == ((0.0, 0.0), (0.0, 0.0), (1.0, 1.0), (0.0, 0.0))
    assert even.weights["both"] == ((0.25, 0.25),) * 4
    assert Calibration.model_validate_json(even.model_dump_json()) == even
