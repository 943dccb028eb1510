"""Titles as words and spans of words, and what can be said about each: the features, as hashes of 64 bits.

A word is a run of letters, a run of digits or one sign; a plural "s" and the endings "ed" and "ren" are words of
their own, since people mark "Women" in "Womens" and "Print" in "Printed". A *piece* is what stands between spaces.
A *span* is up to `max_words` words in a row: a value that the title may state.

The hashes come from BLAKE2 of the lower-cased text and are mixed in vectorised arithmetic modulo 2**64, so that
they are the same on every machine and no loop runs over spans.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from hashlib import blake2b
from typing import Final

import numpy as np
from numpy.typing import NDArray

Hashes = NDArray[np.uint64]
Ints = NDArray[np.int64]

MAX_TITLE_CHARS: Final = 2_000
"""What stands behind this character of a title is not read."""

_WORD: Final = re.compile(r"[^\W\d_]{2,}?(?=s\b)|[^\W\d_]{4,}?(?=(?:ed|ren)\b)|[^\W\d_]+|\d+|[^\s\w]|_")
_LETTERS: Final = re.compile(r"[^\W\d_]+")
_DIGITS: Final = re.compile(r"\d+")
_PIECE: Final = re.compile(r"\S+")
_START: Final = np.uint64(0x9E3779B97F4A7C15)
_STEP: Final = np.uint64(0xD6E8FEB86659FD93)
_BASE: Final = 0x9E3779B97F4A7C15  # odd, so that it has an inverse modulo 2**64
_BEFORE, _BEHIND, _NOTHING = np.uint64(5), np.uint64(6), np.uint64(7)
_GLUE: Final = np.uint64(0x1234567)


def hash_of(text: str) -> int:
    """The first 64 bits of a text's BLAKE2 hash; a lone surrogate is one more strange character."""
    return int.from_bytes(blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "little")


def mix(*parts: Hashes | Ints | np.uint64 | int) -> Hashes:
    """One hash of several, which broadcast; their order matters."""
    mixed: Hashes = np.asarray(_START)
    with np.errstate(over="ignore"):
        for part in parts:
            mixed = (mixed ^ np.asarray(part).astype(np.uint64)) * _STEP
            mixed = mixed ^ (mixed >> np.uint64(32))
        mixed = mixed * _STEP
        return mixed ^ (mixed >> np.uint64(29))


@dataclass(frozen=True, slots=True)
class Words:
    """The words of some titles, one title after the other, and their spans, one first word after the other.

    Attributes:
        titles: N titles.
        offsets: words of title `i` are `offsets[i]:offsets[i + 1]`, shape (N + 1,).
        starts, ends: characters of each word in its title, shape (W,).
        span_offsets: the same of the spans, shape (N + 1,).
        first, last: the first and the last word of each span, shape (S,); ascending by (first, last).
        whole: a hash of each span's words, whatever their case, shape (S,).
        firsts, lasts, insides, nones, wholes: features: of a word that a value begins with (W, .), ends with, or
            holds, of a word in a title that states no value, and of a whole span (S, .).
    """

    titles: tuple[str, ...]
    offsets: Ints
    starts: Ints
    ends: Ints
    span_offsets: Ints
    first: Ints
    last: Ints
    whole: Hashes
    firsts: Hashes
    lasts: Hashes
    insides: Hashes
    nones: Hashes
    wholes: Hashes

    @property
    def n_words(self) -> int:
        """How many words, W."""
        return len(self.starts)

    @property
    def title_of_word(self) -> Ints:
        """Each word's title, shape (W,)."""
        return np.repeat(np.arange(len(self.titles)), np.diff(self.offsets))

    @property
    def title_of_span(self) -> Ints:
        """Each span's title, shape (S,)."""
        return np.repeat(np.arange(len(self.titles)), np.diff(self.span_offsets))

    def text(self, span: int, title: int) -> str:
        """The characters of a span, as they stand in its title."""
        return self.titles[title][int(self.starts[self.first[span]]) : int(self.ends[self.last[span]])]

    def spans_of(self, title: int, value: str) -> list[int]:
        """Where a title states a value, letter for letter and at the edges of words; empty: nowhere."""
        begin, end = int(self.offsets[title]), int(self.offsets[title + 1])
        first_at = {int(self.starts[word]): word for word in range(begin, end)}
        last_at = {int(self.ends[word]): word for word in range(begin, end)}
        low, high = int(self.span_offsets[title]), int(self.span_offsets[title + 1])
        found: list[int] = []
        text, at = self.titles[title], -1
        while value and (at := text.find(value, at + 1)) >= 0:
            first, last = first_at.get(at), last_at.get(at + len(value))
            if first is not None and last is not None:
                spans = np.flatnonzero((self.first[low:high] == first) & (self.last[low:high] == last))
                found += [low + int(span) for span in spans]
        return found


def read_words(titles: Sequence[str], max_words: int) -> Words:
    """Take titles apart.

    Args:
        titles: N titles, as they are: no case is folded and no space is lost, so that values can be cut out.
        max_words: the most words of a span.
    """
    places: list[tuple[int, int]] = []
    words: list[tuple[int, int, int, int]] = []
    pieces: list[tuple[int, int]] = []
    piece_of: list[int] = []
    counts: list[int] = []
    for title in titles:
        text = title[:MAX_TITLE_CHARS]
        bounds = [match.span() for match in _PIECE.finditer(text)]
        at, before = 0, len(places)
        for match in _WORD.finditer(text):
            while bounds[at][1] <= match.start():
                at += 1
            piece_of.append(len(pieces) + at)
            places.append(match.span())
            words.append(_word(match[0]))
        pieces += [_piece(text[start:end]) for start, end in bounds]
        counts.append(len(places) - before)
    n = len(places)
    offsets = np.concatenate([[0], np.cumsum(counts, dtype=np.int64)]).astype(np.int64)
    title_of = np.repeat(np.arange(len(counts)), counts)
    where = np.array(places, np.int64).reshape(n, 2)
    begin, behind = offsets[title_of], offsets[title_of + 1]

    # Spans: every first word with every length that its title has room for.
    room = np.minimum(behind - np.arange(n), max_words)
    first = np.repeat(np.arange(n), room)
    length = np.arange(int(room.sum())) - np.repeat(np.cumsum(room) - room, room) + 1
    span_offsets = np.concatenate([[0], np.cumsum(room)])[offsets].astype(np.int64)

    described = _describe(
        np.array(words, np.uint64).reshape(n, 4),
        np.array(pieces, np.uint64).reshape(len(pieces), 2),
        np.array(piece_of, np.int64),
        begin,
        behind,
        (first, length),
        where[:, 1][first + length - 1] - where[:, 0][first],
    )
    return Words(
        tuple(titles), offsets, where[:, 0], where[:, 1], span_offsets, first, first + length - 1, *described
    )


def shape_of(text: str) -> str:
    """What a text looks like: "Nike" is Xx, "UV" is X, "men" is x, "400" is ddd, longer numbers too."""
    letters = _LETTERS.sub(
        lambda match: (
            ("X" if len(match[0]) > 1 and match[0].isupper() else "Xx") if match[0][0].isupper() else "x"
        ),
        text,
    )
    return _DIGITS.sub(lambda match: "d" * min(len(match[0]), 3), letters)


@lru_cache(maxsize=1 << 16)
def _word(text: str) -> tuple[int, int, int, int]:
    lower = text.lower()
    return hash_of(lower), hash_of(f"s:{shape_of(text)}"), hash_of(f"p:{lower[:3]}"), hash_of(f"e:{lower[-3:]}")


@lru_cache(maxsize=1 << 16)
def _piece(text: str) -> tuple[int, int]:
    return hash_of(f"k:{text.lower()}"), hash_of(f"ks:{shape_of(text)}")


def _describe(
    words: Hashes, pieces: Hashes, piece_of: Ints, begin: Ints, behind: Ints, spans: tuple[Ints, Ints], chars: Ints
) -> tuple[Hashes, ...]:
    """`whole` and the five blocks of features, in the order of `Words`."""
    n = len(words)
    at = np.arange(n)

    def near(values: Hashes, step: int, edge: np.uint64 = _NOTHING) -> Hashes:
        """What stands `step` words further in the same title."""
        other = at + step
        inside = (other >= begin) & (other < behind)
        return np.where(inside, values[np.where(inside, other, 0)], edge) if n else values

    def piece(column: int, step: int) -> Hashes:
        """The piece `step` pieces further; pieces of other titles are not looked at."""
        if not n:
            return np.zeros(0, np.uint64)
        other = piece_of + step
        low, high = piece_of[begin], piece_of[behind - 1]
        edge = _BEFORE if step < 0 else _BEHIND
        return np.where((other >= low) & (other <= high), pieces[np.clip(other, low, high), column], edge)

    word, shape, head, tail = words.T
    own, own_shape = piece(0, 0), piece(1, 0)
    left = (near(piece_of.astype(np.uint64), -1, _edge()) == piece_of.astype(np.uint64)).astype(np.uint64)
    right = (near(piece_of.astype(np.uint64), 1, _edge()) == piece_of.astype(np.uint64)).astype(np.uint64)
    from_start, from_end = at - begin, behind - 1 - at
    start = np.where(from_start > 6, np.where(from_start > 12, 8, 7), from_start)
    end = np.minimum(from_end, 6)
    before, before2, after, after2 = (near(word, step) for step in (-1, -2, 1, 2))

    columns = _numbered()
    firsts = columns(
        1,
        [(word,), (shape, left), (before,), (before2,), (before, word), (near(shape, -1), shape, left), (own,)],
        [(piece(0, -1),), (start,), (tail,), (start, shape), (before, before2), (after,), (own_shape,)],
        [(piece(1, -1),), (piece(0, -1), left), (head,)],
    )
    lasts = columns(
        31,
        [(word,), (shape, right), (after,), (after2,), (word, after), (shape, near(shape, 1), right), (own,)],
        [(piece(0, 1),), (end,), (tail,), (after, after2), (before,), (own_shape,), (piece(1, 1),)],
        [(piece(0, 1), right), (head,)],
    )
    insides = columns(
        61, [(word,), (shape,), (head,), (tail,), (own,), (own_shape,), (before, word), (word, after)]
    )
    nones = columns(91, [(word,)])

    first, length = spans
    last = first + length - 1
    words_sum = _rolled(word + left * _GLUE, first, last) - left[first] * _GLUE
    whole, shapes = mix(words_sum, length), mix(_rolled(shape, first, last), length)
    wholes = columns(
        121,
        [(whole,), (length,), (shapes,), (word[first], word[last], length), (np.minimum(chars // 3, 10),)],
        [(left[first], right[last]), (before[first], after[last]), (shapes, left[first], right[last])],
    )
    return whole, firsts, lasts, insides, nones, wholes


def _edge() -> np.uint64:
    return np.uint64(0xFFFFFFFFFFFFFFFF)


def _numbered() -> Callable[..., Hashes]:
    """Features side by side, each salted by its number, so that the same word means another thing in each."""

    def columns(number: int, *groups: list[tuple[Hashes | Ints, ...]]) -> Hashes:
        parts = [part for group in groups for part in group]
        return np.stack([mix(number + i, *part) for i, part in enumerate(parts)], axis=1)

    return columns


def _rolled(values: Hashes, first: Ints, last: Ints) -> Hashes:
    """A polynomial hash of each span's values, by prefix sums; the same wherever the span stands."""
    n = len(values)
    with np.errstate(over="ignore"):
        powers = _powers(n, _BASE)
        sums = np.zeros(n + 1, np.uint64)
        np.cumsum(values * powers, out=sums[1:])
        inverse = _powers(n, pow(_BASE, -1, 1 << 64))
        rolled: Hashes = (sums[last + 1] - sums[first]) * inverse[first]
        return rolled


def _powers(n: int, base: int) -> Hashes:
    powers = np.full(n, base, np.uint64)
    powers[:1] = 1
    return np.multiply.accumulate(powers)
