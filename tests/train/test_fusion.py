"""Text and picture together: on the held-out products never worse than either alone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import get_args

import numpy as np
import pytest
from numpy.typing import NDArray

from shelver.calibrate import MODALITIES, Calibration, Modality
from shelver.taxonomy import SiblingGroups, Taxonomy
from shelver.train.config import Fusion
from shelver.train.fusion import HeldOut, fit_calibration, judge

N = 600
LEAVES = np.array([3, 4, 5, 6], np.int32)
EXPERTS: dict[str, Modality] = {"ngram": "text", "image": "image", "joint": "both", "linear": "text"}
FUSIONS: tuple[Fusion, ...] = get_args(Fusion)


@pytest.fixture
def groups(seven: Taxonomy) -> SiblingGroups:
    return SiblingGroups.of(seven)


def held_out(groups: SiblingGroups, strength: Mapping[str, float], *, seed: int = 0, n: int = N) -> list[HeldOut]:
    """Batches of products; each expert's scores are noise plus `strength` at the slots on the label's path."""
    rng = np.random.default_rng(seed)
    node = rng.choice(LEAVES, n)
    on_path = np.zeros((n, groups.n_slots + 1), np.float32)
    on_path[np.arange(n)[:, None], groups.target_slots[node]] = 1
    scores = [
        (rng.normal(size=(n, groups.n_slots)) + strength[name] * on_path[:, :-1]).astype(np.float32)
        for name in strength
    ]
    modality = rng.integers(1, 4, n).astype(np.int8)
    batches = []
    for start in range(0, n, 97):
        rows = slice(start, start + 97)
        batches.append(HeldOut([part[rows] for part in scores], node[rows], modality[rows]))
    return batches


def fitted(groups: SiblingGroups, batches: list[HeldOut], fusion: Fusion = "auto") -> Calibration:
    return fit_calibration(lambda: batches, EXPERTS, groups, fusion)[0]


def say_of(calibration: Calibration, modality: Modality) -> dict[str, NDArray[np.float64]]:
    rows = np.array(calibration.weights[modality])
    return dict(zip(calibration.experts, rows, strict=True))


def accuracies(groups: SiblingGroups, batches: list[HeldOut], calibration: Calibration) -> dict[Modality, float]:
    """Of the products that came with both, asked with text, picture and both."""
    both = [batch.that_have("both") for batch in batches]
    return {m: judge(both, groups, calibration, only=m)["accuracy"] for m in MODALITIES}


@pytest.mark.parametrize("fusion", FUSIONS)
def test_a_picture_that_tells_nothing_is_given_no_say(groups: SiblingGroups, fusion: Fusion) -> None:
    batches = held_out(groups, {"ngram": 5.0, "image": 0.0, "joint": 0.0, "linear": 5.0})
    calibration = fitted(groups, batches, fusion)
    say = say_of(calibration, "both")
    assert (say["image"] < 0.1 * (say["ngram"] + say["linear"])).all()
    assert (say["joint"] < 0.1 * (say["ngram"] + say["linear"])).all()
    figures = accuracies(groups, batches, calibration)
    assert figures["both"] >= figures["text"] > 0.9 > figures["image"]


@pytest.mark.parametrize("fusion", FUSIONS)
@pytest.mark.parametrize("seed", range(6))
def test_both_is_never_less_accurate_than_either_alone(groups: SiblingGroups, fusion: Fusion, seed: int) -> None:
    rng = np.random.default_rng(seed)
    batches = held_out(groups, {name: float(rng.uniform(0, 4)) for name in EXPERTS}, seed=seed)
    figures = accuracies(groups, batches, fitted(groups, batches, fusion))
    assert figures["both"] >= max(figures["text"], figures["image"])


def test_two_modalities_that_know_different_things_know_more_together(groups: SiblingGroups) -> None:
    batches = held_out(groups, {"ngram": 2.0, "image": 2.0, "joint": 0.0, "linear": 2.0})
    figures = accuracies(groups, batches, fitted(groups, batches, "late"))
    assert figures["both"] > max(figures["text"], figures["image"]) + 0.02


def test_late_fusion_leaves_the_joint_expert_out_and_joint_fusion_asks_it_alone(groups: SiblingGroups) -> None:
    batches = held_out(groups, {"ngram": 1.5, "image": 1.5, "joint": 4.0, "linear": 1.5})
    late, joint = fitted(groups, batches, "late"), fitted(groups, batches, "joint")
    assert (say_of(late, "both")["joint"] == 0).all()
    assert (say_of(late, "both")["image"] > 0).any()
    assert (say_of(joint, "both")["joint"] > 0).all()
    assert all((say == 0).all() for name, say in say_of(joint, "both").items() if name != "joint")
    auto = fitted(groups, batches, "auto")
    assert (say_of(auto, "both")["joint"] > 0).all()
    assert accuracies(groups, batches, auto)["both"] >= max(
        accuracies(groups, batches, one)["both"] for one in (late, joint)
    )


def test_an_expert_speaks_only_where_it_has_what_it_looks_at(groups: SiblingGroups) -> None:
    batches = held_out(groups, dict.fromkeys(EXPERTS, 2.0))
    calibration = fitted(groups, batches)
    assert calibration.experts == tuple(EXPERTS)
    assert (say_of(calibration, "text")["image"] == 0).all()
    assert (say_of(calibration, "text")["joint"] == 0).all()
    for name in ("ngram", "linear", "joint"):
        assert (say_of(calibration, "image")[name] == 0).all()


def test_a_simple_expert_answers_alone_where_the_others_only_disturb_it(groups: SiblingGroups) -> None:
    batches = held_out(groups, {"ngram": -2.0, "image": 1.0, "joint": 1.0, "linear": 4.0})
    calibration, said = fit_calibration(lambda: batches, EXPERTS, groups, "auto")
    assert (say_of(calibration, "text")["ngram"] == 0).all()
    assert any("text is answered by the expert `linear` alone" in line for line in said)


def test_what_is_fitted_is_honest(groups: SiblingGroups) -> None:
    # A confident expert that is right no more often than the rest: its loss falls when it is believed less.
    batches = held_out(groups, {"ngram": 2.0, "image": 2.0, "joint": 2.0, "linear": 2.0}, n=2_000)
    loud = [HeldOut([20 * batch.scores[0], *batch.scores[1:]], batch.node, batch.modality) for batch in batches]
    even = Calibration.even(EXPERTS, groups.taxonomy.n_levels)
    assert judge(loud, groups, fitted(groups, loud))["loss"] < judge(loud, groups, even)["loss"] - 0.1


@pytest.mark.parametrize("only", ["text", "image"])
def test_a_model_of_one_modality_answers_both_from_it(groups: SiblingGroups, only: Modality) -> None:
    batches = held_out(groups, {"one": 3.0})
    seen = [HeldOut(b.scores, b.node, np.full(len(b.node), MODALITIES.index(only) + 1, np.int8)) for b in batches]
    calibration, _ = fit_calibration(lambda: seen, {"one": only}, groups, "auto")
    assert calibration.weights["both"] == calibration.weights[only]
    assert np.array(calibration.weights[only]).min() > 0


def test_no_held_out_product_with_both_still_gives_a_model(groups: SiblingGroups) -> None:
    batches = held_out(groups, dict.fromkeys(EXPERTS, 2.0))
    apart = [HeldOut(b.scores, b.node, np.minimum(b.modality, 2).astype(np.int8)) for b in batches]
    calibration = fitted(groups, apart)
    assert np.isfinite(np.array(calibration.weights["both"])).all()
    assert np.array(calibration.weights["both"]).sum() > 0
    nothing = fitted(groups, [])
    assert np.array(nothing.weights["text"]).sum() > 0


def test_figures_are_of_products_as_they_are(groups: SiblingGroups) -> None:
    (batch, *_) = held_out(groups, {"ngram": 9.0, "image": 0.0, "joint": 0.0, "linear": 9.0})
    calibration = Calibration.even(EXPERTS, groups.taxonomy.n_levels)
    seen_alone = HeldOut(batch.scores, batch.node, np.full(len(batch.node), 2, np.int8))
    assert judge([batch], groups, calibration)["accuracy"] > judge([seen_alone], groups, calibration)["accuracy"]
    assert judge([], groups, calibration) == {"accuracy": 0.0, "loss": 0.0}
