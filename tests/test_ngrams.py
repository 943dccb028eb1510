"""n-grams: the same sets and weights as scikit-learn's, whatever the batch, whatever the text."""

from __future__ import annotations

import re
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.sparse import csr_matrix
from sklearn.feature_extraction.text import CountVectorizer, TfidfTransformer

from shelver import ngrams
from shelver.ngrams import BUCKET_BITS, NgramSpec, Vocabulary, count_ngrams, hash_ngrams

MASK = (1 << 64) - 1
HOSTILE = [
    "",
    " ",
    "\n\r\t\x0b\x0c\x1c\x85\u2028",
    "... --- !!!",
    "\x00",
    "a\x00b\x00\x00c",
    "\ud800",
    "shoe \udcff\ud83d laces",
    "🎉👟🏽",
    "中文標題 カタカナ 한국어",
    "İSTANBUL ﬁne Straße ǅ",
    "क्षत्रिय กำ e\u0301" + "\u0301" * 50,
    "a",
    "_",
    "x\ny",
    "word " * 3000,
]

spec = NgramSpec()
texts_strategy = st.lists(
    st.text(st.one_of(st.sampled_from("ab c-_é\n"), st.characters(), st.sampled_from("\ud800\udfff\x00"))),
    max_size=6,
)


def bucket_of(kind: str, ngram: str) -> int:
    """The definition of the hash, digit by digit."""

    def plain(text: str) -> int:
        base = int(ngrams._BASE)
        return sum(ord(char) * pow(base, i, 1 << 64) for i, char in enumerate(text)) & MASK

    def word(text: str) -> int:
        return plain(text) * int(ngrams._WORD_SALT) & MASK

    if kind == "chars":
        value = plain(ngram) + len(ngram) & MASK
    else:
        first, *second = ngram.split(" ")
        value = word(first)
        if second:
            value = value * int(ngrams._PAIR) + word(second[0]) & MASK
    mixed = (value ^ value >> 32) * int(ngrams._MIX) & MASK
    mixed ^= mixed >> 32
    return (mixed * int(ngrams._MIX) & MASK) >> (64 - BUCKET_BITS)


def expected(text: str, of: NgramSpec = spec) -> Counter[int]:
    words = re.sub(r"\W+", " ", text.lower())
    pairs = CountVectorizer(
        lowercase=False, token_pattern=r"\w+", ngram_range=(1, 2 if of.word_pairs else 1)
    ).build_analyzer()
    chars = CountVectorizer(
        lowercase=False, analyzer="char_wb", ngram_range=(of.char_min, of.char_max)
    ).build_analyzer()
    return Counter(bucket_of("words", n) for n in pairs(words)) + Counter(
        bucket_of("chars", n) for n in chars(words)
    )


@settings(max_examples=60, deadline=None)
@given(texts_strategy)
def test_ngrams_are_the_word_pairs_and_char_wb_ngrams_of_scikit_learn(texts: list[str]) -> None:
    rows, buckets, _ = hash_ngrams(texts, spec)
    for i, text in enumerate(texts):
        assert Counter(buckets[rows == i].tolist()) == expected(text)
    assert set(rows.tolist()) <= set(range(len(texts)))


@pytest.mark.parametrize(
    "of",
    [
        NgramSpec(char_min=1, char_max=3),
        NgramSpec(char_min=3, char_max=3, word_pairs=False),
        NgramSpec(char_max=8),
    ],
)
def test_another_spec_takes_other_ngrams(of: NgramSpec) -> None:
    text = "Bar stool, 2 x wood_top; é"
    _, buckets, _ = hash_ngrams([text], of)
    assert Counter(buckets.tolist()) == expected(text, of)


def test_counts_are_sorted_by_text_and_bucket_and_sum_to_the_occurrences() -> None:
    texts = ["red red red car", "", "car"]
    _, buckets, _ = hash_ngrams(texts, spec)
    keys, counts = count_ngrams(texts, spec)
    assert (np.diff(keys) > 0).all()
    assert counts.sum() == len(buckets)
    word = bucket_of("words", "red")
    assert counts[keys == (0 << BUCKET_BITS | word)].tolist() == [3]
    assert Counter((keys >> BUCKET_BITS).tolist())[1] == 0


def test_the_hash_of_version_1_is_pinned() -> None:
    # A change here changes what every exported model sees: raise NgramSpec.version with it.
    _, buckets, _ = hash_ngrams(["Oak bar stool, 75 cm"], NgramSpec())
    assert sorted(buckets.tolist())[:4] == [35372, 133325, 136503, 197645]
    assert int(buckets.sum(dtype=np.int64)) == 125_764_877


@settings(max_examples=25, deadline=None)
@given(st.lists(st.text("ab c,1", max_size=30), min_size=1, max_size=12))
def test_weights_are_those_of_scikit_learns_tfidf(texts: list[str]) -> None:
    vocabulary = Vocabulary.fit(texts, spec, min_count=1, max_features=1 << 20)
    weighed = vocabulary.weigh(texts)
    keys, counts = count_ngrams(texts, spec)
    row, bucket = keys >> BUCKET_BITS, keys & ((1 << BUCKET_BITS) - 1)
    column = np.searchsorted(vocabulary.buckets, bucket)
    matrix = csr_matrix((counts.astype(np.float64), (row, column)), (len(texts), max(len(vocabulary), 1)))
    oracle = TfidfTransformer(sublinear_tf=True, smooth_idf=True, norm="l2").fit_transform(matrix).toarray()
    ours = csr_matrix((weighed.weights, weighed.ids, weighed.offsets), oracle.shape).toarray()
    np.testing.assert_allclose(ours, oracle, atol=1e-6)
    norms = np.sqrt((ours**2).sum(axis=1))
    np.testing.assert_allclose(norms[counts_of(weighed) > 0], 1, atol=1e-6)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.text("ab c,1", max_size=30), min_size=1, max_size=12), st.sampled_from([0.3, 0.5]))
def test_words_and_subwords_can_have_shares_of_their_own(texts: list[str], share: float) -> None:
    """As scikit-learn's union of two vectorisers, each scaled to length 1, weighed."""
    of = NgramSpec(word_share=share)
    vocabulary = Vocabulary.fit(texts, of, min_count=1, max_features=1 << 20)
    weighed = vocabulary.weigh(texts)
    width = max(len(vocabulary), 1)
    ours = csr_matrix((weighed.weights, weighed.ids, weighed.offsets), (len(texts), width)).toarray()
    expected_rows = np.zeros_like(ours)
    rows, buckets, n_words = hash_ngrams(texts, of)
    for part, square in ((slice(0, n_words), share), (slice(n_words, None), 1 - share)):
        counts = np.zeros(ours.shape)
        np.add.at(counts, (rows[part], np.searchsorted(vocabulary.buckets, buckets[part])), 1)
        tf = np.where(counts > 0, 1 + np.log(np.maximum(counts, 1)), 0)
        weights = tf * np.resize(vocabulary.idf, width) if len(vocabulary) else tf
        norm = np.linalg.norm(weights, axis=1, keepdims=True)
        expected_rows += np.sqrt(square) * np.divide(weights, norm, out=np.zeros_like(weights), where=norm > 0)
    np.testing.assert_allclose(ours, expected_rows, atol=1e-5)
    alone = [vocabulary.weigh([text]) for text in texts]
    assert np.concatenate([one.weights for one in alone]).tolist() == weighed.weights.tolist()


def counts_of(weighed: ngrams.Ngrams) -> NDArray[np.int64]:
    return np.diff(weighed.offsets)


def test_weights_do_not_depend_on_what_else_is_in_the_batch() -> None:
    rng = np.random.default_rng(0)
    words = [f"w{i}" for i in range(300)]
    texts = [" ".join(rng.choice(words, rng.integers(0, 60))) for _ in range(600)] + HOSTILE
    assert sum(map(len, texts)) > 2 * ngrams.MAX_BATCH_CHARS
    vocabulary = Vocabulary.fit(texts, spec, min_count=2, max_features=1 << 18)
    together = vocabulary.weigh(texts)
    assert len(together) == len(texts)
    for i, text in enumerate(texts):
        alone = vocabulary.weigh([text])
        part = slice(together.offsets[i], together.offsets[i + 1])
        assert together.ids[part].tolist() == alone.ids.tolist()
        assert together.weights[part].tolist() == alone.weights.tolist()


def test_texts_are_counted_once_each_and_the_commonest_ngrams_are_kept() -> None:
    texts = ["aa aa aa", "aa bb", "bb", "cc"]
    kept = Vocabulary.fit(texts, spec, min_count=2, max_features=1 << 18)
    assert sorted(kept.buckets.tolist()) == sorted(
        set(expected("aa") | expected("bb")) - {bucket_of("words", "aa bb")}
    )
    np.testing.assert_allclose(kept.idf, np.log(5 / 3) + 1, rtol=1e-6)
    few = Vocabulary.fit(texts, spec, min_count=1, max_features=3)
    assert len(few) == 3
    assert (np.diff(few.buckets.astype(np.int64)) > 0).all()
    assert set(few.buckets.tolist()) <= set(kept.buckets.tolist())
    # Of equally frequent ones the lowest buckets are kept.
    assert few.buckets.tolist() == sorted(kept.buckets.tolist())[:3]


def test_hostile_texts_are_just_texts() -> None:
    rows, buckets, _ = hash_ngrams(HOSTILE, spec)
    for i, text in enumerate(HOSTILE):
        assert Counter(buckets[rows == i].tolist()) == expected(text)
    vocabulary = Vocabulary.fit(HOSTILE, spec, min_count=1, max_features=1 << 18)
    weighed = vocabulary.weigh(HOSTILE)
    assert len(weighed) == len(HOSTILE)
    assert np.isfinite(weighed.weights).all()


def test_a_word_of_a_million_characters_takes_no_longer_than_its_length() -> None:
    word = "abcdefghij" * 100_000
    started = time.perf_counter()
    weighed = Vocabulary.fit([word], spec, min_count=1, max_features=1 << 18).weigh([word, "", word])
    assert time.perf_counter() - started < 10
    lengths = counts_of(weighed).tolist()
    # Ten different letters in a circle: ten subwords of each length inside, and those at the two ends.
    assert lengths == [1 + 4 * 10 + 2 * 4, 0, 1 + 4 * 10 + 2 * 4]


def test_no_texts_give_no_rows() -> None:
    empty = Vocabulary.fit([], spec, min_count=1, max_features=10)
    assert len(empty) == 0
    assert len(empty.weigh([])) == 0
    assert empty.weigh(["unknown", ""]).offsets.tolist() == [0, 0, 0]


def test_a_saved_vocabulary_weighs_as_before(tmp_path: Path) -> None:
    texts = ["oak chair", "pine chair", "lamp"]
    vocabulary = Vocabulary.fit(texts, spec, min_count=1, max_features=1000)
    vocabulary.save(tmp_path / "ngrams.safetensors")
    loaded = Vocabulary.load(tmp_path / "ngrams.safetensors", spec)
    before, after = vocabulary.weigh(texts), loaded.weigh(texts)
    for name in ("ids", "weights", "offsets"):
        assert getattr(before, name).tolist() == getattr(after, name).tolist()
    first = (tmp_path / "ngrams.safetensors").read_bytes()
    loaded.save(tmp_path / "ngrams.safetensors")
    assert (tmp_path / "ngrams.safetensors").read_bytes() == first
