"""Temperatures: found where they are known, and harmless to the tree's coherence."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from shelver.calibrate import MIN_ROWS, MODALITIES, Calibration, TemperatureFit
from shelver.taxonomy import SiblingGroups, Taxonomy

N = 20_000


def fit_temperatures(
    scores: NDArray[np.float32], nodes: NDArray[np.int32], groups: SiblingGroups, n_levels: int
) -> tuple[float, ...]:
    """In batches of an odd size, as nothing may depend on them."""
    fit = TemperatureFit(groups, n_levels)
    for start in range(0, len(nodes), 97):
        fit.add(scores[start : start + 97], nodes[start : start + 97])
    return fit.temperatures()


def labels_from(probs: NDArray[np.float32], groups: SiblingGroups, seed: int) -> NDArray[np.int32]:
    """One label a row, drawn from P(stopping at a node)."""
    here = groups.here(probs).astype(np.float64)
    until = np.cumsum(here, axis=1)
    drawn = np.random.default_rng(seed).random((len(here), 1)) * until[:, -1:]
    labels: NDArray[np.int32] = (until < drawn).sum(axis=1).astype(np.int32)
    return labels


@pytest.mark.parametrize(
    "true", [(1.0, 1.0, 1.0), (2.0, 0.7, 1.5), (0.4, 3.0, 0.5)], ids=["honest", "mixed", "extreme"]
)
@pytest.mark.parametrize("stops", [[], [0, 2]], ids=["leaves only", "with stops"])
def test_known_temperatures_are_found_again(seven: Taxonomy, true: tuple[float, ...], stops: list[int]) -> None:
    groups = SiblingGroups.of(seven, np.isin(np.arange(7), stops))
    scores = (np.random.default_rng(0).normal(size=(N, groups.n_slots)) * 2.5).astype(np.float32)
    nodes = labels_from(groups.distribution(scores, np.array(true)), groups, seed=1)
    fitted = fit_temperatures(scores, nodes, groups, seven.n_levels)
    np.testing.assert_allclose(fitted, true, rtol=0.06)


def test_the_temperatures_found_have_the_least_loss(seven: Taxonomy) -> None:
    groups = SiblingGroups.of(seven, np.isin(np.arange(7), [0]))
    rng = np.random.default_rng(3)
    scores = (rng.normal(size=(800, groups.n_slots)) * 3).astype(np.float32)
    nodes = rng.choice(np.array([0, 3, 4, 5, 6], np.int32), 800)
    fitted = np.array(fit_temperatures(scores, nodes, groups, seven.n_levels))

    def loss(temperatures: NDArray[np.float64]) -> float:
        here = groups.here(groups.distribution(scores, temperatures))
        return float(-np.log(np.maximum(here[np.arange(len(nodes)), nodes], 1e-30)).mean())

    for level in range(3):
        for factor in (0.9, 1.1):
            other = fitted.copy()
            other[level] *= factor
            # Labels are noise here, so the best temperature lies at the upper end of the range.
            assert loss(fitted) <= loss(other) + 1e-6 or np.isclose(fitted[level], np.exp(1.75), rtol=0.01)


def test_a_level_with_few_rows_takes_the_temperature_of_the_level_above(seven: Taxonomy) -> None:
    groups = SiblingGroups.of(seven)
    rng = np.random.default_rng(0)
    scores = rng.normal(size=(MIN_ROWS * 2, groups.n_slots)).astype(np.float32) * 3
    nodes = np.full(MIN_ROWS * 2, 3, np.int32)  # Lamps, at level 2
    nodes[: MIN_ROWS - 1] = 5  # Bar, at level 3, one too few
    scores[:, groups.node_slot[0]] += 3  # Home is rightly sure, level 2 is noise
    first, second, third = fit_temperatures(scores, nodes, groups, 3)
    assert third == second != first
    assert fit_temperatures(scores[:10], nodes[:10], groups, 3) == (1.0, 1.0, 1.0)
    assert fit_temperatures(scores[:0], nodes[:0], groups, 3) == (1.0, 1.0, 1.0)


def test_an_only_child_says_nothing_about_a_temperature(seven: Taxonomy) -> None:
    groups = SiblingGroups.of(seven)
    scores = np.random.default_rng(0).normal(size=(200, groups.n_slots)).astype(np.float32)
    cars = np.full(200, 4, np.int32)  # the only child of Toys
    first, second, _ = fit_temperatures(scores, cars, groups, 3)
    assert first == second


def test_scores_that_are_always_right_give_a_bounded_temperature(seven: Taxonomy) -> None:
    groups = SiblingGroups.of(seven)
    nodes = np.tile(np.array([3, 4, 5, 6], np.int32), 100)
    scores = np.zeros((400, groups.n_slots), np.float32)
    for row, node in enumerate(nodes):
        scores[row, groups.target_slots[node][groups.target_slots[node] >= 0]] = 1e4
    fitted = np.array(fit_temperatures(scores, nodes, groups, 3))
    assert (fitted >= np.exp(-2.001)).all()
    assert np.isfinite(groups.distribution(scores, fitted)).all()


def test_calibrated_probabilities_still_sum_to_one_and_parents_to_their_children(seven: Taxonomy) -> None:
    groups = SiblingGroups.of(seven, np.isin(np.arange(7), [0, 2]))
    scores = np.random.default_rng(0).normal(size=(500, groups.n_slots)).astype(np.float32) * 4
    nodes = labels_from(groups.distribution(scores, np.array([3.0, 0.5, 2.0])), groups, 1)
    probs = groups.distribution(scores, np.array(fit_temperatures(scores, nodes, groups, 3)))
    here = groups.here(probs)
    np.testing.assert_allclose(probs[:, :2].sum(axis=1), 1, atol=1e-5)
    for k in np.flatnonzero(~seven.is_leaf).tolist():
        np.testing.assert_allclose(probs[:, seven.children(k)].sum(axis=1) + here[:, k], probs[:, k], atol=1e-5)


def test_no_calibration_is_a_one_for_every_level_of_every_modality() -> None:
    none = Calibration.none(2)
    assert none.temperatures == dict.fromkeys(MODALITIES, (1.0, 1.0))
    assert Calibration.model_validate_json(none.model_dump_json()) == none
