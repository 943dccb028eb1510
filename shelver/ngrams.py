"""Texts as weighted sets of hashed words, word pairs and subwords: the input of the `ngram` encoder.

Training and inference call the same two steps, vectorised over a whole batch of texts:

1. `hash_ngrams`: every n-gram of every text becomes one of 2**BUCKET_BITS buckets. The texts are joined into
   one array of code points; a prefix sum of `code * BASE**position` modulo 2**64 gives the polynomial hash of
   any substring with one subtraction and one multiplication, so no loop runs over texts or n-grams.
2. `Vocabulary.weigh`: buckets that training saw often enough become row numbers of the embedding table, with
   TF-IDF weights (sublinear term frequency, smoothed idf, each text scaled to length 1, its words perhaps apart
   from its subwords); the rest are dropped.

Source:
    Weinberger et al. 2009, "Feature hashing for large scale multitask learning"; Karp and Rabin 1987,
    "Efficient randomized pattern-matching algorithms"; the n-grams within words are scikit-learn's `char_wb`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field
from safetensors.numpy import load_file, save

BUCKET_BITS = 22
_BASE = np.uint64(0x9E3779B97F4A7C15)  # odd, so it has an inverse modulo 2**64
_BASE_INVERSE = np.uint64(pow(0x9E3779B97F4A7C15, -1, 1 << 64))
_MIX = np.uint64(0xD6E8FEB86659FD93)
_PAIR = np.uint64(0xC2B2AE3D27D4EB4F)
_WORD_SALT = np.uint64(0x165667B19E3779F9)
_NOT_WORD = re.compile(r"[^\w\n]+")
_SPACE, _NEWLINE = 32, 10


class NgramSpec(BaseModel):
    """Which n-grams a text is taken apart into.

    Attributes:
        char_min, char_max: lengths of the subwords, in characters; a word is padded with one space on each side.
        word_pairs: also take each pair of neighbouring words.
        word_share: words and word pairs make up this share of a text's squared length, subwords the rest. A long
            text has many times as many subwords, which drown its words. None: what their weights come to.
        version: raised when the same text would hash differently.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    char_min: int = Field(default=2, ge=1, le=8)
    char_max: int = Field(default=5, ge=1, le=8)
    word_pairs: bool = True
    word_share: float | None = Field(default=None, gt=0, lt=1)
    version: Literal[1] = 1


@dataclass(frozen=True, slots=True)
class Ngrams:
    """Rows of a sparse matrix: text `i` has the entries `offsets[i]:offsets[i + 1]`.

    Attributes:
        ids: rows of the embedding table, shape (n,), int32.
        weights: their TF-IDF weights, shape (n,), float32; the squares of one text sum to 1, with a `word_share`
            to less where it has no known word, or no known subword.
        offsets: shape (N + 1,), int64.
    """

    ids: NDArray[np.int32]
    weights: NDArray[np.float32]
    offsets: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def rows(self, rows: NDArray[np.intp]) -> Ngrams:
        """The entries of some texts, in the order of `rows`."""
        lengths = np.diff(self.offsets)[rows]
        offsets = np.zeros(len(rows) + 1, np.int64)
        np.cumsum(lengths, out=offsets[1:])
        source = np.arange(offsets[-1]) + np.repeat(self.offsets[rows] - offsets[:-1], lengths)
        return Ngrams(self.ids[source], self.weights[source], offsets)


def _powers(n: int, base: np.uint64) -> NDArray[np.uint64]:
    powers = np.full(n, base, dtype=np.uint64)
    powers[0] = 1
    return np.multiply.accumulate(powers)


MAX_BATCH_CHARS: Final = 1 << 15
_POWERS = _powers(MAX_BATCH_CHARS + 8, _BASE)
_INVERSE_POWERS = _powers(MAX_BATCH_CHARS + 8, _BASE_INVERSE)


def _power_tables(n: int) -> tuple[NDArray[np.uint64], NDArray[np.uint64]]:
    if n <= len(_POWERS):
        return _POWERS, _INVERSE_POWERS
    # Long batches are rare; they pay for their own tables rather than keep large ones for ever.
    return _powers(n, _BASE), _powers(n, _BASE_INVERSE)


def _buckets(hashes: NDArray[np.uint64]) -> NDArray[np.int32]:
    mixed = (hashes ^ (hashes >> np.uint64(32))) * _MIX
    mixed ^= mixed >> np.uint64(32)
    return (mixed * _MIX >> np.uint64(64 - BUCKET_BITS)).astype(np.int32)


def hash_ngrams(texts: Sequence[str], spec: NgramSpec) -> tuple[NDArray[np.int32], NDArray[np.int32], int]:
    """Hash every n-gram of every text.

    Args:
        texts: N texts; case does not matter, runs of non-word characters separate words.
        spec: which n-grams.

    Returns:
        (row, bucket, n_words): two arrays of equal length, the text's number and the n-gram's bucket in
        [0, 2**BUCKET_BITS), one entry an occurrence; the first `n_words` entries are words and word pairs.
    """
    # "\n" ends a text; every word has a separator on both sides, as `char_wb` wants.
    joined = " " + _NOT_WORD.sub(" ", "".join(f" {t.lower().replace(chr(_NEWLINE), ' ')} \n" for t in texts))
    # surrogatepass: a lone surrogate from a damaged feed is one more strange character, not an error.
    codes = np.frombuffer(joined.encode("utf-32-le", "surrogatepass"), dtype=np.uint32)
    is_newline = codes == _NEWLINE
    is_separator = is_newline | (codes == _SPACE)
    text_of = np.cumsum(is_newline, dtype=np.int32)
    length = len(codes)
    power, inverse = _power_tables(length + 1)

    clean = np.where(is_separator, _SPACE, codes).astype(np.uint64)
    prefix = np.zeros(length + 1, dtype=np.uint64)
    np.cumsum(clean * power[:length], out=prefix[1:])

    starts = np.flatnonzero(~is_separator[1:] & is_separator[:-1]) + 1
    ends = np.flatnonzero(is_separator[1:] & ~is_separator[:-1]) + 1
    words = (prefix[ends] - prefix[starts]) * inverse[starts] * _WORD_SALT
    rows = [text_of[starts]]
    hashes = [words]
    if spec.word_pairs and len(words) > 1:
        together = rows[0][1:] == rows[0][:-1]
        rows.append(rows[0][1:][together])
        hashes.append((words[:-1] * _PAIR + words[1:])[together])

    n_words = sum(map(len, rows))
    # A subword may start at a word's left separator or inside it, and end at most at its right separator.
    spans = ends - starts + 2
    position = np.arange(int(spans.sum()), dtype=np.int64)
    first = np.cumsum(spans) - spans
    position += np.repeat(starts - 1 - first, spans)
    room = np.repeat(ends + 1, spans) - position
    texts_at = text_of[position]
    # The newline of a text lies in its own row, but a word's right separator may be that newline: rows are
    # taken from the start position, which always lies before it.
    for n in range(spec.char_min, spec.char_max + 1):
        fits = room >= n
        at = position[fits]
        hashes.append((prefix[at + n] - prefix[at]) * inverse[at] + np.uint64(n))
        rows.append(texts_at[fits])
    return np.concatenate(rows), _buckets(np.concatenate(hashes)), n_words


def count_ngrams(texts: Sequence[str], spec: NgramSpec) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
    """Distinct n-grams of each text and how often they occur.

    Returns:
        (keys, counts): keys `block << BUCKET_BITS | bucket`, ascending; counts of the same length. A text is one
        block, its number; with a `word_share` it is two, twice its number for its words and one more for its
        subwords.
    """
    row, bucket, n_words = hash_ngrams(texts, spec)
    block = row.astype(np.int64)
    if spec.word_share is not None:
        block *= 2
        block[n_words:] += 1
    keys = np.sort(block << BUCKET_BITS | bucket)
    if not len(keys):
        return keys, np.zeros(0, dtype=np.int32)
    new = np.empty(len(keys), dtype=np.bool_)
    new[0] = True
    np.not_equal(keys[1:], keys[:-1], out=new[1:])
    at = np.flatnonzero(new)
    return keys[at], np.diff(np.append(at, len(keys))).astype(np.int32)


def _batches(texts: Sequence[str], max_chars: int = MAX_BATCH_CHARS) -> Iterator[Sequence[str]]:
    """Runs of texts small enough that the working arrays stay in the processor's caches."""
    start, chars = 0, 0
    for i, text in enumerate(texts):
        if chars and chars + len(text) > max_chars:
            yield texts[start:i]
            start, chars = i, 0
        chars += len(text) + 3
    if start < len(texts):
        yield texts[start:]


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """The n-grams that training saw, and their inverse document frequencies.

    Attributes:
        spec: which n-grams.
        buckets: shape (V,), uint32, ascending; row `i` of the embedding table belongs to `buckets[i]`.
        idf: shape (V,), float32.
    """

    spec: NgramSpec
    buckets: NDArray[np.uint32]
    idf: NDArray[np.float32]
    _row_of_bucket: NDArray[np.int32]

    @classmethod
    def of(cls, spec: NgramSpec, buckets: NDArray[np.uint32], idf: NDArray[np.float32]) -> Vocabulary:
        row_of_bucket = np.full(1 << BUCKET_BITS, -1, dtype=np.int32)
        row_of_bucket[buckets] = np.arange(len(buckets), dtype=np.int32)
        return cls(spec, buckets, idf, row_of_bucket)

    @classmethod
    def fit(cls, texts: Sequence[str], spec: NgramSpec, *, min_count: int, max_features: int) -> Vocabulary:
        """Keep the n-grams that occur in at least `min_count` texts, at most `max_features`, commonest first."""
        frequency = np.zeros(1 << BUCKET_BITS, dtype=np.int32)
        for batch in _batches(texts):
            keys, _ = count_ngrams(batch, spec)
            np.add.at(frequency, keys & ((1 << BUCKET_BITS) - 1), 1)
        kept = np.flatnonzero(frequency >= min_count)
        if len(kept) > max_features:
            # Stable, so that equal counts are decided by the bucket and never by the sort.
            order = np.argsort(-frequency[kept], kind="stable")[:max_features]
            kept = np.sort(kept[order])
        idf = np.log((1.0 + len(texts)) / (1.0 + frequency[kept])) + 1.0
        return cls.of(spec, kept.astype(np.uint32), idf.astype(np.float32))

    def __len__(self) -> int:
        return len(self.buckets)

    def weigh(self, texts: Sequence[str]) -> Ngrams:
        """Weighted n-grams of N texts; a text without any known n-gram has no entries."""
        share = self.spec.word_share
        ids: list[NDArray[np.int32]] = []
        weights: list[NDArray[np.float32]] = []
        counts: list[NDArray[np.int64]] = []
        for batch in _batches(texts):
            keys, tf = count_ngrams(batch, self.spec)
            table_row = self._row_of_bucket[keys & ((1 << BUCKET_BITS) - 1)]
            known = table_row >= 0
            table_row = table_row[known]
            block = (keys[known] >> BUCKET_BITS).astype(np.intp)
            weight = (1.0 + np.log(tf[known].astype(np.float32))) * self.idf[table_row]
            n_blocks = len(batch) if share is None else 2 * len(batch)
            norm = np.sqrt(np.bincount(block, weights=weight * weight, minlength=n_blocks))
            count = np.bincount(block, minlength=n_blocks)
            if share is not None:
                norm[::2] /= np.sqrt(share)
                norm[1::2] /= np.sqrt(1.0 - share)
                count = count.reshape(-1, 2).sum(axis=1)
            ids.append(table_row)
            weights.append((weight / norm[block]).astype(np.float32))
            counts.append(count)
        if not ids:
            return Ngrams(np.zeros(0, np.int32), np.zeros(0, np.float32), np.zeros(1, np.int64))
        offsets = np.zeros(len(texts) + 1, dtype=np.int64)
        np.cumsum(np.concatenate(counts), out=offsets[1:])
        return Ngrams(np.concatenate(ids), np.concatenate(weights), offsets)

    def save(self, path: Path) -> None:
        """Write buckets and idf as safetensors; the spec stands in the manifest."""
        # Not `save_file`: it makes a file that only its owner may read.
        path.write_bytes(save({"buckets": self.buckets, "idf": self.idf}))

    @classmethod
    def load(cls, path: Path, spec: NgramSpec) -> Vocabulary:
        """Read what `save` wrote."""
        arrays = load_file(path)
        return cls.of(spec, arrays["buckets"], arrays["idf"])
