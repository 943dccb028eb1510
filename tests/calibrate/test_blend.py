"""A blend of distributions: found where labels are noisy, left alone where they are not, coherent always."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from shelver.calibrate import BlendFit, Calibration, Part
from shelver.calibrate.blend import MIN_BLENDED
from shelver.taxonomy import SiblingGroups, Taxonomy

Scores = NDArray[np.float32]
WEIGHTS = ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
ALONE = [np.array([[1.0] * 3, [0.0] * 3]), np.array([[0.0] * 3, [1.0] * 3])]


def experts(groups: SiblingGroups, n: int, seed: int) -> list[Scores]:
    rng = np.random.default_rng(seed)
    known = rng.normal(size=(n, groups.n_slots)) * 3
    return [(known + rng.normal(size=known.shape)).astype(np.float32) for _ in range(2)]


def drawn(nodes: Scores, groups: SiblingGroups, seed: int) -> NDArray[np.int32]:
    until = np.cumsum(groups.here(nodes).astype(np.float64), axis=1)
    chosen = np.random.default_rng(seed).random((len(nodes), 1)) * until[:, -1:]
    labels: NDArray[np.int32] = (until < chosen).sum(axis=1).astype(np.int32)
    return labels


def plain(groups: SiblingGroups, scores: list[Scores]) -> Scores:
    return groups.distribution(0.5 * scores[0] + 0.5 * scores[1])


def noisy(groups: SiblingGroups, n: int, seed: int) -> tuple[list[Scores], NDArray[np.int32]]:
    """Labels of which three in ten were set by somebody who only half looked."""
    scores = experts(groups, n, seed)
    sharp, blunt = groups.distribution(scores[0] + scores[1]), groups.distribution(0.1 * scores[0])
    careless = np.random.default_rng((seed, 1)).random((n, 1)) < 0.3
    return scores, drawn(np.where(careless, blunt, sharp), groups, seed)


def parts(groups: SiblingGroups, scores: list[Scores], nodes: NDArray[np.int32]) -> tuple[Part, ...]:
    fit = BlendFit(groups, WEIGHTS, ALONE)
    for start in range(0, len(nodes), 97):
        fit.add([part[start : start + 97] for part in scores], nodes[start : start + 97])
    return fit.parts()


def calibrated(found: tuple[Part, ...]) -> Calibration:
    blends = {"text": found} if found else {}
    return Calibration.model_validate(
        {
            "experts": ("a", "b"),
            "needs": ("text", "text"),
            "weights": dict.fromkeys(("text", "image", "both"), WEIGHTS),
            "blends": blends,
        }
    )


def loss(nodes: Scores, labels: NDArray[np.int32], groups: SiblingGroups) -> float:
    return float(-np.log(np.maximum(groups.here(nodes)[np.arange(len(labels)), labels], 1e-9)).mean())


@pytest.mark.parametrize("stops", [[], [0, 2]], ids=["leaves only", "with stops"])
def test_noisy_labels_are_met_by_a_blend_that_is_nearly_as_good_as_the_truth(
    seven: Taxonomy, stops: list[int]
) -> None:
    groups = SiblingGroups.of(seven, np.isin(np.arange(7), stops))
    found = parts(groups, *noisy(groups, 6_000, 0))
    assert len(found) > 1
    assert sum(part.share for part in found) == pytest.approx(1, abs=1e-5)
    scores, labels = noisy(groups, 6_000, 1)
    true = 0.7 * groups.distribution(scores[0] + scores[1]) + 0.3 * groups.distribution(0.1 * scores[0])
    blended = loss(calibrated(found).ready("text", groups)(scores), labels, groups)
    assert blended < loss(plain(groups, scores), labels, groups) - 0.01
    assert blended < loss(true, labels, groups) + 0.02


def test_labels_that_one_sum_explains_need_no_blend(seven: Taxonomy) -> None:
    groups = SiblingGroups.of(seven)
    for seed in range(4):
        scores = experts(groups, 2_000, seed)
        assert parts(groups, scores, drawn(plain(groups, scores), groups, seed)) == ()


def test_too_few_products_give_no_blend(seven: Taxonomy) -> None:
    groups = SiblingGroups.of(seven)
    scores, labels = noisy(groups, MIN_BLENDED - 1, 0)
    assert parts(groups, scores, labels) == ()
    assert BlendFit(groups, WEIGHTS, ALONE).parts() == ()


def test_a_blend_still_sums_to_one_and_parents_to_their_children(seven: Taxonomy) -> None:
    groups = SiblingGroups.of(seven, np.isin(np.arange(7), [0, 2]))
    scores, labels = noisy(groups, 3_000, 0)
    found = parts(groups, scores, labels)
    assert len(found) > 1
    nodes = calibrated(found).ready("text", groups)(scores)
    here = groups.here(nodes)
    np.testing.assert_allclose(nodes[:, seven.level == 1].sum(axis=1), 1, atol=1e-5)
    for k in np.flatnonzero(~seven.is_leaf).tolist():
        np.testing.assert_allclose(nodes[:, seven.children(k)].sum(axis=1) + here[:, k], nodes[:, k], atol=1e-5)


def test_without_a_blend_the_weights_answer(seven: Taxonomy) -> None:
    groups = SiblingGroups.of(seven)
    scores = experts(groups, 50, 0)
    np.testing.assert_allclose(calibrated(()).ready("text", groups)(scores), plain(groups, scores), atol=1e-6)
