"""Exports: files that answer as the trained modules do, or no files."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import onnx
import pytest
import torch
from torch import Tensor, nn

from shelver.calibrate import MODALITIES, pooled_scores
from shelver.errors import ParityError
from shelver.ngrams import NgramSpec
from shelver.pipeline import Emb2Prob, Embedding, Text2Emb, open_session, run_file
from shelver.product import TextSpec
from shelver.registry import NGRAMS, TextPart, TextStage
from shelver.taxonomy import SiblingGroups, Taxonomy
from shelver.train.data import Features
from shelver.train.export import PARITY_TOLERANCE, export, export_head, export_ngrams
from shelver.train.linear import Linear
from shelver.train.loop import held_out
from shelver.train.model import Head, ImageExpert, NgramTable, TextExpert
from shelver.train.tasks import Tasks

if TYPE_CHECKING:
    from conftest import Bench

FREE = {"x": {0: "rows"}}
PROBES = [{"x": np.random.default_rng(n).random((n, 3), np.float32)} for n in (3, 1, 8)]


class Noisy(nn.Module):
    """Answers differently each time, as a forgotten dropout would."""

    def forward(self, x: Tensor) -> Tensor:
        return x + torch.rand_like(x)


class Undefined(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.log(x - 2)


@pytest.mark.parametrize("module", [Noisy(), Undefined()], ids=["noisy", "nan"])
def test_a_file_that_answers_differently_is_refused_and_leaves_nothing(module: nn.Module, tmp_path: Path) -> None:
    with pytest.raises(ParityError, match=r"m\.onnx.*Nothing was written"):
        export(module, tmp_path / "m.onnx", PROBES, output="y", dynamic=FREE)
    assert list(tmp_path.iterdir()) == []


def test_a_refused_export_leaves_an_older_file_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(b"older")
    with pytest.raises(ParityError):
        export(nn.Linear(3, 2), path, PROBES, output="y", dynamic=FREE, tolerance=-1.0)
    assert path.read_bytes() == b"older"
    assert list(tmp_path.iterdir()) == [path]


def test_every_probe_is_compared_not_only_the_first(tmp_path: Path) -> None:
    class GoesWrong(nn.Module):
        """Undefined for the last probe alone."""

        def forward(self, x: Tensor) -> Tensor:
            return torch.sqrt(2 - x)

    probes = [*PROBES, {"x": np.full((2, 3), 5, np.float32)}]
    export(GoesWrong(), tmp_path / "fine.onnx", PROBES, output="y", dynamic=FREE)
    with pytest.raises(ParityError):
        export(GoesWrong(), tmp_path / "m.onnx", probes, output="y", dynamic=FREE)
    assert [file.name for file in tmp_path.iterdir()] == ["fine.onnx"]


def test_an_export_says_how_far_it_is_off_and_turns_dropout_off(tmp_path: Path) -> None:
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(3, 4), nn.Dropout(0.5)).train()
    error = export(module, tmp_path / "m.onnx", PROBES, output="y", dynamic=FREE)
    assert 0 <= error <= PARITY_TOLERANCE
    x = np.random.default_rng(9).random((17, 3), np.float32)
    (answer,) = run_file(tmp_path / "m.onnx", {"x": x})
    with torch.inference_mode():
        np.testing.assert_allclose(answer, module.eval()(torch.from_numpy(x)).numpy(), atol=PARITY_TOLERANCE)


def test_the_same_weights_give_the_same_bytes_and_no_path_of_this_machine(seven: Taxonomy, tmp_path: Path) -> None:
    torch.manual_seed(0)
    table, groups = NgramTable(30, 8), SiblingGroups.of(seven)
    head = Head({"ngram": TextExpert(8, Tasks(groups), 0.5, "tree", sentence=None, ngrams=(0, 8))})
    for name in ("first", "second"):
        export_ngrams(table, None, tmp_path / f"{name}-text.onnx")
        probe = np.random.default_rng(0).random((5, 8), np.float32)
        export_head(head, tmp_path / f"{name}-head.onnx", text=probe, image=None)
    for kind in ("text", "head"):
        content = (tmp_path / f"first-{kind}.onnx").read_bytes()
        assert content == (tmp_path / f"second-{kind}.onnx").read_bytes()
        assert str(Path(__file__).parents[2]).encode() not in content
        assert b"site-packages" not in content
    graph = onnx.load(tmp_path / "first-text.onnx").graph
    assert [port.name for port in (*graph.input, *graph.output)] == ["ids", "weights", "embedding"]
    graph = onnx.load(tmp_path / "first-head.onnx").graph
    assert [port.name for port in (*graph.input, *graph.output)] == ["text", "scores_ngram"]


def test_learned_vectors_and_the_linear_parts_weights_stand_side_by_side(tmp_path: Path) -> None:
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    table = NgramTable(9, 4)
    linear = Linear(rng.random((9, 3), np.float32), np.zeros(3, np.float32), None)
    assert export_ngrams(table, linear, tmp_path / "both.onnx") <= PARITY_TOLERANCE
    assert export_ngrams(None, linear, tmp_path / "linear.onnx") <= PARITY_TOLERANCE
    feed = {"ids": np.array([[2, 7, 0]]), "weights": np.array([[0.5, 2.0, 0.0]], np.float32)}
    (both,) = run_file(tmp_path / "both.onnx", feed)
    (alone,) = run_file(tmp_path / "linear.onnx", feed)
    vectors = table.bag.weight.detach().numpy()
    np.testing.assert_allclose(both[0, :4], 0.5 * vectors[2] + 2 * vectors[7], atol=1e-5)
    np.testing.assert_allclose(both[0, 4:], 0.5 * linear.weight[2] + 2 * linear.weight[7], atol=1e-5)
    np.testing.assert_allclose(alone[0], both[0, 4:], atol=1e-6)


@pytest.mark.parametrize(
    ("text", "image", "head", "linear"),
    [
        (True, True, "tree", True),
        (True, True, "levels", False),
        (True, False, "tree", False),
        (False, True, "levels", False),
    ],
)
def test_the_stages_answer_as_the_trained_network_for_products_as_they_are(
    bench: Callable[..., Bench], tmp_path: Path, text: bool, image: bool, head: str, linear: bool
) -> None:
    small = bench(text=text, image=image, epochs=2, head=head, linear=linear)
    fitted = small.learn(tmp_path / "run")
    built = fitted.built
    model = built.model
    examples = small.examples(200, seed=7)
    text_embedding = image_embedding = None
    if text:
        assert built.vocabulary is not None
        built.vocabulary.save(tmp_path / NGRAMS)
        export_ngrams(model.table, built.linear, tmp_path / "text.onnx")
        width = 16 + (len(built.labels) if linear else 0)
        part = TextPart(encoder="ngram", source=None, file="text.onnx", width=width, ngrams=NgramSpec())
        text2emb = Text2Emb.open(tmp_path, TextStage(spec=TextSpec(), parts=(part,)), threads=1)
        text_embedding = text2emb(examples.texts)
        assert text_embedding.present.tolist() == [t is not None for t in examples.texts]
        assert (text_embedding.values[~text_embedding.present] == 0).all()
    if examples.image is not None:
        image_embedding = Embedding(examples.image.values.astype(np.float32), examples.image.present)
    export_head(
        model.head,
        tmp_path / "head.onnx",
        text=text_embedding.values if text_embedding else None,
        image=image_embedding.values if image_embedding else None,
    )
    groups = fitted.tasks.groups
    assert groups is not None
    emb2prob = Emb2Prob(
        open_session(tmp_path / "head.onnx", 1),
        groups,
        fitted.chosen.calibration,
        text_width=text_embedding.values.shape[1] if text_embedding else None,
        image_width=8 if image else None,
    )

    features = Features.of(examples, built.vocabulary)
    if built.linear is not None and features.ngrams is not None:
        features = replace(features, wide=built.linear.of_ngrams(features.ngrams))
    rows = features.usable()
    seen = list(held_out(model, features))
    scores, modality = emb2prob.scores(text_embedding, image_embedding)
    assert np.flatnonzero(modality).tolist() == rows.tolist()
    np.testing.assert_array_equal(modality[rows], np.concatenate([batch.modality for batch in seen]))
    probs = emb2prob(text_embedding, image_embedding)
    assert (probs.nodes[modality == 0] == 0).all()
    names = list(model.head.named())
    assert names == list(fitted.chosen.calibration.experts)
    expected = [np.concatenate([batch.scores[number] for batch in seen]) for number in range(len(names))]
    for code, name in enumerate(MODALITIES, start=1):
        weights = fitted.chosen.calibration.slot_weights(name, groups)
        of = np.flatnonzero(modality[rows] == code)
        for number, weight in enumerate(weights):
            if weight is not None:
                np.testing.assert_allclose(
                    scores[number][rows[of]], expected[number][of], atol=PARITY_TOLERANCE, err_msg=names[number]
                )
        if len(of):
            pooled = pooled_scores([part[of] for part in expected], weights)
            np.testing.assert_allclose(probs.nodes[rows[of]], groups.distribution(pooled), atol=PARITY_TOLERANCE)
    first = probs.nodes[modality > 0][:, small.tree.level == 1]
    np.testing.assert_allclose(first.sum(axis=1), 1, atol=1e-5)


def test_a_picture_feature_that_hardly_varied_does_not_fail_the_gate(
    bench: Callable[..., Bench], tmp_path: Path
) -> None:
    small = bench(text=False, epochs=1)
    fitted = small.learn(tmp_path / "run")
    expert = fitted.built.model.head.named()["image"]
    assert isinstance(expert, ImageExpert)
    expert.scale.fill_(1000.0)
    probe = small.examples(8, 3).image
    assert probe is not None
    error = export_head(
        fitted.built.model.head, tmp_path / "h.onnx", text=None, image=probe.values.astype(np.float32)
    )
    assert error <= PARITY_TOLERANCE
