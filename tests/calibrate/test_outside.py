"""How strange a product is: even odds for the shop's own, high for strangers, coherent with what can be asked."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from numpy.typing import NDArray

from shelver.calibrate import (
    MIN_KNOWN,
    MODALITIES,
    Calibration,
    Known,
    Modality,
    Outside,
    strangeness,
    witness_of,
)
from shelver.pipeline import Emb2Prob, Embedding, sibling_groups
from shelver.taxonomy import SiblingGroups, Taxonomy
from shelver.train.fusion import HeldOut, fit_calibration

EXPERTS: dict[str, Modality] = {"ngram": "text", "image": "image", "linear": "text"}


def products(groups: SiblingGroups, n: int, *, known: bool, seed: int) -> HeldOut:
    """Products on whose path every expert sees something, or strangers, where nobody does."""
    rng = np.random.default_rng(seed)
    node = rng.choice(np.array([3, 4, 5, 6], np.int32), n)
    on_path = np.zeros((n, groups.n_slots + 1), np.float32)
    on_path[np.arange(n)[:, None], groups.target_slots[node]] = 4.0 * known
    raw = [rng.normal(size=(n, groups.n_slots)) + on_path[:, :-1] for _ in EXPERTS]
    # The linear part scores as `WideExpert` does: by the logarithm of what lies in a slot.
    raw[2] = np.log(np.maximum(groups.distribution(raw[2].astype(np.float32)), 1e-12))
    modality = rng.integers(1, 4, n).astype(np.int8)
    return HeldOut([part.astype(np.float32) for part in raw], node, modality)


def fitted(groups: SiblingGroups, n: int = 3_000) -> Calibration:
    held = products(groups, n, known=True, seed=0)
    return fit_calibration(lambda: [held], EXPERTS, groups, "auto")[0]


def outside(
    calibration: Calibration, groups: SiblingGroups, of: HeldOut, modality: Modality
) -> NDArray[np.float32]:
    asked = of.that_have(modality)
    assert calibration.outside is not None
    nodes = calibration.ready(modality, groups)(asked.scores)
    return calibration.outside(modality, asked.scores, nodes, groups)


@pytest.mark.parametrize("modality", ["text", "image", "both"])
def test_the_share_of_known_products_sent_away_is_what_the_threshold_says(
    seven: Taxonomy, modality: Modality
) -> None:
    groups = SiblingGroups.of(seven)
    found = outside(fitted(groups, 9_000), groups, products(groups, 9_000, known=True, seed=1), modality)
    assert ((found >= 0) & (found < 1)).all()
    for threshold in (0.5, 0.9, 0.99):
        assert (found >= threshold).mean() == pytest.approx(1 - threshold, abs=0.03)


@pytest.mark.parametrize("modality", ["text", "image", "both"])
def test_strangers_are_stranger(seven: Taxonomy, modality: Modality) -> None:
    groups = SiblingGroups.of(seven)
    calibration = fitted(groups)
    strange = outside(calibration, groups, products(groups, 2_000, known=False, seed=2), modality)
    assert (strange >= 0.9).mean() > 0.5
    assert np.median(strange) > 0.9


def test_a_known_product_is_as_strange_as_its_rank_says() -> None:
    values = np.random.default_rng(0).normal(size=MIN_KNOWN).astype(np.float32)
    known = Known.of(values, None)
    assert known is not None
    expected = np.argsort(np.argsort(values)) / (MIN_KNOWN + 1)
    np.testing.assert_allclose(known.share_less_strange(values), expected, atol=1e-6)
    least, most = known.share_less_strange(np.array([-99, 99], np.float32))
    assert least == 0
    assert most == pytest.approx(MIN_KNOWN / (MIN_KNOWN + 1))


def test_the_quantiles_of_many_products_say_nearly_what_all_of_them_would() -> None:
    values = np.random.default_rng(0).exponential(size=50_000).astype(np.float32)
    known = Known.of(values, None)
    assert known is not None
    assert len(known.quantiles) < 300
    asked = np.linspace(0, 9, 200).astype(np.float32)
    exact = np.searchsorted(np.sort(values), asked) / (len(values) + 1)
    np.testing.assert_allclose(known.share_less_strange(asked), exact, atol=0.005)


def test_products_that_are_all_alike_are_not_strange() -> None:
    known = Known.of(np.full(200, 0.25, np.float32), None)
    assert known is not None
    assert known.share_less_strange(np.array([0.25], np.float32)) == 0
    assert known.share_less_strange(np.array([0.26], np.float32)) > 0.99


def test_too_few_known_products_tell_nothing(seven: Taxonomy) -> None:
    groups = SiblingGroups.of(seven)
    assert Known.of(np.zeros(MIN_KNOWN - 1, np.float32), None) is None
    held = products(groups, MIN_KNOWN - 1, known=True, seed=0)
    assert fit_calibration(lambda: [held], EXPERTS, groups, "auto")[0].outside is None


def test_a_modality_that_was_not_held_out_is_not_a_number(seven: Taxonomy) -> None:
    groups = SiblingGroups.of(seven)
    calibration = fitted(groups)
    assert calibration.outside is not None
    only_text = Outside(known={"text": calibration.outside.known["text"]})
    asked = products(groups, 10, known=True, seed=0)
    nodes = calibration.ready("image", groups)(asked.scores)
    assert np.isnan(only_text("image", asked.scores, nodes, groups)).all()


def test_the_linear_part_is_asked_where_it_can_answer() -> None:
    assert witness_of(EXPERTS, "text") == 2
    assert witness_of(EXPERTS, "both") == 2
    assert witness_of(EXPERTS, "image") is None
    assert witness_of({"ngram": "text"}, "text") is None


def test_doubt_is_greatest_where_nothing_is_favoured(seven: Taxonomy) -> None:
    groups = SiblingGroups.of(seven)
    even = np.zeros((1, groups.n_slots), np.float32)
    sure = even.copy()
    sure[0, groups.target_slots[3][groups.target_slots[3] >= 0]] = 9
    found = [strangeness([s], groups.distribution(s), groups, None)[0] for s in (even, sure)]
    assert found[0] > 0.2 > 0.01 > found[1] >= 0


class Echo:
    """A session that gives back scores which it was made with."""

    def __init__(self, scores: list[NDArray[np.float32]]) -> None:
        self.scores = scores

    def get_inputs(self) -> list[SimpleNamespace]:
        return [
            SimpleNamespace(name="text", shape=["products", 6]),
            SimpleNamespace(name="image", shape=["products", 2]),
        ]

    def run(self, _: None, feed: dict[str, NDArray[np.float32]]) -> list[NDArray[np.float32]]:
        assert set(feed) == {"text", "image"}
        return self.scores


def test_every_row_is_told_by_its_own_modality_and_a_text_of_unknown_words_is_outside(seven: Taxonomy) -> None:
    groups = sibling_groups(seven, [])
    calibration = fitted(groups)
    held = products(groups, 400, known=True, seed=5)
    held.modality[:4] = [0, 1, 2, 3]
    text = Embedding(np.ones((400, 6), np.float32), held.modality & 1 == 1)
    image = Embedding(np.ones((400, 2), np.float32), held.modality & 2 == 2)
    blank = np.flatnonzero(held.modality == 1)[-1]
    for part in held.scores:
        part[blank] = np.log(np.float32(0.5))
    text.values[blank, 2:] = 0
    emb2prob = Emb2Prob(
        Echo(held.scores),
        groups, calibration, text_width=6, image_width=2, ngrams=slice(2, 6),
    )  # fmt: skip
    found = emb2prob(text, image)
    assert found.outside is not None
    assert found.outside[0] == 1
    assert found.outside[blank] == 1
    for code, modality in enumerate(MODALITIES, start=1):
        rows = np.flatnonzero((held.modality == code) & (np.arange(400) != blank))
        these = HeldOut([scores[rows] for scores in held.scores], held.node[rows], held.modality[rows])
        alone = outside(calibration, groups, these, modality)
        np.testing.assert_allclose(found.outside[rows], alone, atol=1e-6)


def test_a_model_of_before_says_nothing_of_strangers_and_keeps_its_bytes(seven: Taxonomy) -> None:
    old = '{"experts":["ngram"],"needs":["text"],"weights":{"text":[[1.0]],"image":[[0.0]],"both":[[1.0]]}}'
    calibration = Calibration.model_validate_json(old)
    assert calibration.outside is None
    assert calibration.model_dump_json() == old
    again = Calibration.model_validate_json(fitted(SiblingGroups.of(seven)).model_dump_json())
    assert again.outside is not None
    assert again.model_dump_json() != old


def test_what_is_known_survives_json(seven: Taxonomy, tmp_path: Path) -> None:
    groups = SiblingGroups.of(seven)
    calibration = fitted(groups)
    (tmp_path / "c.json").write_text(calibration.model_dump_json(), encoding="utf-8")
    again = Calibration.model_validate_json((tmp_path / "c.json").read_bytes())
    assert again == calibration
    asked = products(groups, 200, known=True, seed=7)
    np.testing.assert_array_equal(
        outside(again, groups, asked, "text"), outside(calibration, groups, asked, "text")
    )
