"""Text2Emb: n-grams and tokens through parts of their own, side by side."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from tokenizers import Tokenizer, models, pre_tokenizers, processors

from shelver.errors import ModelError
from shelver.ngrams import Ngrams, NgramSpec, Vocabulary
from shelver.pipeline import text as subject
from shelver.pipeline.text import MAX_BAG, MAX_TOKENS, Text2Emb, padded, token_batches
from shelver.product import TextSpec
from shelver.registry import NGRAMS, TextPart, TextStage, TokenSpec, part_file

WORDS = ["chair", "table", "lamp", "red", "green", "blue", "oak", "steel", "folding", "kids"]
TEXTS = ["red oak chair", "folding table, steel", "kids lamp blue", "green green chair chair", "lamp"]
PAD = 77


def write_sum(path: Path, table: NDArray[np.float32], weights: str) -> None:
    """An encoder that adds up rows of a table: `ids` and `weights` (N, T) → `embedding` (N, width)."""
    nodes = [
        helper.make_node("Gather", ["table", "ids"], ["rows"]),
        helper.make_node("Unsqueeze", [weights, "one"], ["row_weights"]),
        helper.make_node("MatMul", ["row_weights", "rows"], ["sums"]),
        helper.make_node("Squeeze", ["sums", "one"], ["embedding"]),
    ]
    graph = helper.make_graph(
        nodes,
        "sum",
        [
            helper.make_tensor_value_info("ids", TensorProto.INT64, ["n", "t"]),
            helper.make_tensor_value_info(weights, TensorProto.FLOAT, ["n", "t"]),
        ],
        [helper.make_tensor_value_info("embedding", TensorProto.FLOAT, ["n", table.shape[1]])],
        [numpy_helper.from_array(table, "table"), numpy_helper.from_array(np.array([1]), "one")],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10), path)


def word_tokenizer(path: Path) -> Tokenizer:
    vocabulary = {"begin": 0, "end": 1, "other": 2} | {word: i + 3 for i, word in enumerate(WORDS)}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="other"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="begin $A end", special_tokens=[("begin", 0), ("end", 1)]
    )
    tokenizer.enable_padding(length=9)  # must not reach the batches
    tokenizer.save(str(path))
    return Tokenizer.from_file(str(path))


@pytest.fixture(scope="module")
def tables() -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    rng = np.random.default_rng(0)
    return rng.random((4000, 6), np.float32), rng.random((PAD + 1, 3), np.float32)


@pytest.fixture(scope="module")
def folder(
    tables: tuple[NDArray[np.float32], NDArray[np.float32]], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    path = tmp_path_factory.mktemp("model")
    Vocabulary.fit(TEXTS, NgramSpec(), min_count=1, max_features=4000).save(path / NGRAMS)
    write_sum(path / part_file("text2emb", 0), tables[0], "weights")
    write_sum(path / part_file("text2emb", 1), tables[1], "mask")
    word_tokenizer(path / "tokens.1.json")
    return path


NGRAM_PART = TextPart(encoder="ngram", source=None, file=part_file("text2emb", 0), width=6, ngrams=NgramSpec())
TOKEN_PART = TextPart(
    encoder="hf:words",
    source="words",
    file=part_file("text2emb", 1),
    width=3,
    tokens=TokenSpec(file="tokens.1.json", max_tokens=6, pad_id=PAD),
)


def opened(folder: Path, *parts: TextPart) -> Text2Emb:
    return Text2Emb.open(folder, TextStage(spec=TextSpec(), parts=parts), threads=1)


def test_each_part_says_what_its_table_says(
    folder: Path, tables: tuple[NDArray[np.float32], NDArray[np.float32]]
) -> None:
    values = opened(folder, NGRAM_PART, TOKEN_PART)(TEXTS).values
    bags = Vocabulary.load(folder / NGRAMS, NgramSpec()).weigh(TEXTS)
    for row, text in enumerate(TEXTS):
        of_text = slice(bags.offsets[row], bags.offsets[row + 1])
        by_ngram = bags.weights[of_text] @ tables[0][bags.ids[of_text]]
        found = [WORDS.index(word) + 3 if word in WORDS else 2 for word in text.replace(",", " ,").split()]
        by_token = tables[1][[0, *found[:4], 1]].sum(axis=0)  # cut to six tokens, the end among them
        np.testing.assert_allclose(values[row], [*by_ngram, *by_token], atol=1e-5)


def test_parts_stand_side_by_side_in_the_order_of_the_stage(folder: Path) -> None:
    ngram, token = opened(folder, NGRAM_PART)(TEXTS).values, opened(folder, TOKEN_PART)(TEXTS).values
    both, turned = opened(folder, NGRAM_PART, TOKEN_PART), opened(folder, TOKEN_PART, NGRAM_PART)
    assert both.width == 9
    np.testing.assert_array_equal(both(TEXTS).values, np.hstack([ngram, token]))
    np.testing.assert_array_equal(turned(TEXTS).values, np.hstack([token, ngram]))


def test_no_text_is_absent_and_a_text_that_says_nothing_is_present_and_zero(folder: Path) -> None:
    embedding = opened(folder, NGRAM_PART, TOKEN_PART)([None, "", "red", "!!!", None])
    assert embedding.present.tolist() == [False, True, True, True, False]
    assert embedding.values.dtype == np.float32
    assert not embedding.values[[0, 1, 4]].any()
    assert embedding.values[2].any()
    assert not embedding.values[3, :6].any()  # no n-gram, but one token that is not known
    assert embedding.values[3, 6:].any()


def test_a_damaged_text_is_one_more_text(folder: Path) -> None:
    embedding = opened(folder, NGRAM_PART, TOKEN_PART)(["red \ud800 chair", "red chair", "\udfff"])
    assert embedding.present.all()
    assert embedding.values[0].any()


@pytest.mark.parametrize("texts", [[], [None, None]])
def test_nothing_at_all_is_embedded_too(folder: Path, texts: Sequence[str | None]) -> None:
    embedding = opened(folder, NGRAM_PART, TOKEN_PART)(texts)
    assert embedding.values.shape == (len(texts), 9)
    assert not embedding.present.any()


def test_a_text_is_embedded_alike_in_any_company_and_from_any_thread(folder: Path) -> None:
    text2emb = opened(folder, NGRAM_PART, TOKEN_PART)
    rng = np.random.default_rng(1)
    texts = [" ".join(rng.choice(WORDS, rng.integers(1, 12))) for _ in range(400)]
    together = text2emb(texts).values
    alone = np.concatenate([text2emb([text]).values for text in texts])
    np.testing.assert_allclose(together, alone, atol=1e-5)
    with ThreadPoolExecutor(4) as pool:
        for values in pool.map(lambda _: text2emb(texts).values, range(8)):
            np.testing.assert_array_equal(values, together)


def test_rectangles_of_ngrams_hold_every_bag_once_and_stay_small() -> None:
    rng = np.random.default_rng(0)
    width = 64
    most = MAX_BAG // width
    lengths = np.concatenate([rng.integers(0, 300, 400), [most * 2, 0, 1]])
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    bags = Ngrams(
        rng.integers(0, 99, offsets[-1], dtype=np.int32), rng.random(offsets[-1], np.float32) + 1, offsets
    )
    wanted = np.union1d(np.flatnonzero(rng.random(len(lengths)) < 0.9), [400])
    seen = []
    n_entries = 0
    for rows, ids, weights in padded(bags, wanted, width):
        assert ids.shape == weights.shape
        assert ids.dtype == np.int64
        assert len(rows) == 1 or ids.size <= most
        n_entries += ids.size
        seen += rows.tolist()
        for row, row_ids, row_weights in zip(rows, ids, weights, strict=True):
            n = lengths[row]
            assert row_ids[:n].tolist() == bags.ids[offsets[row] : offsets[row + 1]].tolist()
            assert row_weights[:n].tolist() == bags.weights[offsets[row] : offsets[row + 1]].tolist()
            assert (row_weights[n:] == 0).all()
    assert sorted(seen) == wanted.tolist()
    assert n_entries < 1.3 * lengths[wanted].sum()
    assert list(padded(bags, np.zeros(0, np.intp), width)) == []


def test_batches_of_tokens_hold_every_text_once_and_stay_small(tmp_path: Path) -> None:
    word_tokenizer(tmp_path / "tokens.json")
    tokenizer = subject.open_tokenizer(tmp_path, TokenSpec(file="tokens.json", max_tokens=2000, pad_id=PAD))
    rng = np.random.default_rng(0)
    texts = [" ".join(rng.choice(WORDS, n)) for n in [*rng.integers(0, 60, 300), 3 * MAX_TOKENS, 2500]]
    ids_of = [tokenizer.encode(text).ids for text in texts]
    seen = []
    for rows, ids, mask in token_batches(tokenizer, texts, PAD):
        assert len(rows) == 1 or ids.size <= MAX_TOKENS
        assert (ids[mask == 0] == PAD).all()
        seen += rows.tolist()
        for row, row_ids, row_mask in zip(rows, ids, mask, strict=True):
            assert row_ids[row_mask == 1].tolist() == ids_of[row]
    assert sorted(seen) == [row for row, text in enumerate(texts) if text]
    assert len(ids_of[-1]) == 2000


def test_a_damaged_tokenizer_file_is_named(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "tokens.json").write_text("{}")
    for name in ("tokens.json", "nothing.json"):
        with pytest.raises(ModelError, match=name):
            subject.open_tokenizer(tmp_path, TokenSpec(file=name, max_tokens=5, pad_id=0))
