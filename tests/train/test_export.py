"""Exports: files that answer as the trained modules do, or no files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import onnx
import pytest
import torch
from torch import Tensor, nn

from shelver.calibrate import MODALITIES
from shelver.errors import ParityError
from shelver.pipeline import Emb2Prob, Embedding, Text2Emb, open_session, run_file
from shelver.train.data import Features
from shelver.train.export import PARITY_TOLERANCE, export, export_head, export_text
from shelver.train.loop import scores_of
from shelver.train.model import NgramTable, TextBranch, TreeHead

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


def test_the_same_weights_give_the_same_bytes_and_no_path_of_this_machine(tmp_path: Path) -> None:
    torch.manual_seed(0)
    table = NgramTable(30, 8)
    head = TreeHead(TextBranch(8, 16, 5, 0.5), None, 16, 5)
    for name in ("first", "second"):
        export_text(table, tmp_path / f"{name}-text.onnx")
        export_head(head, tmp_path / f"{name}-head.onnx", text_width=8, image_width=None)
    for kind in ("text", "head"):
        content = (tmp_path / f"first-{kind}.onnx").read_bytes()
        assert content == (tmp_path / f"second-{kind}.onnx").read_bytes()
        assert str(Path(__file__).parents[2]).encode() not in content
        assert b"site-packages" not in content
    graph = onnx.load(tmp_path / "first-text.onnx").graph
    assert [port.name for port in (*graph.input, *graph.output)] == ["ids", "weights", "embedding"]
    graph = onnx.load(tmp_path / "first-head.onnx").graph
    assert [port.name for port in (*graph.input, *graph.output)] == ["text", "text_present", "scores"]


@pytest.mark.parametrize(("text", "image"), [(True, True), (True, False), (False, True)])
def test_the_stages_answer_as_the_trained_network_for_products_as_they_are(
    bench: Callable[..., Bench], tmp_path: Path, text: bool, image: bool
) -> None:
    small = bench(text=text, image=image, epochs=2)
    fitted = small.learn(tmp_path / "run")
    model = fitted.model
    text_width, image_width = (16 if text else None), (8 if image else None)
    export_head(model.head, tmp_path / "head.onnx", text_width=text_width, image_width=image_width)
    emb2prob = Emb2Prob(
        open_session(tmp_path / "head.onnx", 1),
        fitted.groups,
        fitted.chosen.calibration,
        text_width=text_width,
        image_width=image_width,
    )
    examples = small.examples(200, seed=7)
    text_embedding = image_embedding = None
    if text:
        assert model.table is not None
        assert fitted.vocabulary is not None
        export_text(model.table, tmp_path / "text.onnx")
        text2emb = Text2Emb(open_session(tmp_path / "text.onnx", 1), fitted.vocabulary, 16)
        text_embedding = text2emb(examples.texts)
        assert text_embedding.present.tolist() == [t is not None for t in examples.texts]
        assert (text_embedding.values[~text_embedding.present] == 0).all()
    if examples.image is not None:
        image_embedding = Embedding(examples.image.values.astype(np.float32), examples.image.present)

    features = Features.of(examples, fitted.vocabulary)
    expected = scores_of(model, features, np.arange(200))
    scores, modality = emb2prob.scores(text_embedding, image_embedding)
    np.testing.assert_allclose(scores, expected, atol=PARITY_TOLERANCE)
    assert set(np.flatnonzero(modality).tolist()) == set(features.usable().tolist())

    probs = emb2prob(text_embedding, image_embedding)
    for code, name in enumerate(MODALITIES, start=1):
        rows = probs.modality == code
        temperatures = np.array(fitted.chosen.calibration.temperatures[name])
        np.testing.assert_allclose(
            probs.nodes[rows], fitted.groups.distribution(expected[rows], temperatures), atol=PARITY_TOLERANCE
        )
    assert (probs.nodes[probs.modality == 0] == 0).all()


def test_a_picture_feature_that_hardly_varied_does_not_fail_the_gate(
    bench: Callable[..., Bench], tmp_path: Path
) -> None:
    small = bench(text=False, epochs=1)
    fitted = small.learn(tmp_path / "run")
    assert fitted.model.head.image is not None
    fitted.model.head.image.scale.fill_(1000.0)
    assert export_head(fitted.model.head, tmp_path / "h.onnx", text_width=None, image_width=8) <= PARITY_TOLERANCE
