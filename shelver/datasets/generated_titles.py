"""Text catalogs of any size over any tree: `shelver generate --taxonomy FILE --rows N --out FEED`.

A leaf's vocabulary follows from the tree alone, never from the seed: a feed with another seed sells other
products of the same shop, so a model learned on one can be judged on the other.
"""

from __future__ import annotations

import csv
import gzip
import hashlib
import io
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from random import Random
from typing import IO

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from shelver.errors import ConfigError, InputError
from shelver.taxonomy import ROOT, Taxonomy

COLUMNS = ("product_id", "title", "brand", "category", "language", "value")
ENDINGS = (".csv", ".tsv", ".jsonl", ".parquet", ".csv.gz", ".tsv.gz", ".jsonl.gz")

P_AMBIGUOUS = 0.04
"""Titles with nothing but words that all siblings use."""

P_TYPO = 0.03
"""Of each word."""

_ROWS_AT_ONCE = 10_000
_ZIPF_EXPONENT = 0.9
_ADJECTIVES = (
    *("new", "premium", "classic", "deluxe", "compact", "original", "universal", "portable"),
    *("heavy duty", "eco", "mini", "large", "small", "replacement", "professional", "adjustable"),
    *("2 pack", "set of 4", "black", "white", "red", "blue", "green", "grey", "steel", "wooden"),
    *("cotton", "leather", "plastic", "vintage"),
)
_SYLLABLES = (
    *("ba", "bel", "bri", "ca", "cor", "da", "del", "dro", "fa", "fen", "flo", "ga", "gri", "ha"),
    *("hel", "jo", "ka", "kel", "la", "lin", "lo", "ma", "mer", "mo", "na", "nel", "no", "or", "pa"),
    *("per", "plo", "qua", "ra", "rin", "ro", "sa", "sel", "sto", "ta", "tel", "tri", "va", "ver"),
    *("vo", "wa", "wel", "xo", "ya", "zen", "zu"),
)

Record = tuple[str, str, str, str, str | None, float]
Write = Callable[[list[Record]], object]


@dataclass(frozen=True, slots=True)
class _Words:
    """A leaf's vocabulary: `own` are for it alone, `shared` for all children of its parent."""

    own: tuple[str, ...]
    shared: tuple[str, ...]
    brands: tuple[str, ...]


def write_text_feed(
    taxonomy: Taxonomy, out: Path, *, n_rows: int, seed: int = 0, language: str | None = None
) -> Path:
    """Writes a feed of titles over the leaves of a tree, in constant memory; its format is told by its ending.

    A title mixes words of the leaf's name, invented words of the leaf, invented words that its siblings use
    too, brands and adjectives. Leaves are as popular as a heavy tail has it. Typing errors, dropped words and
    4 % of titles that fit all siblings keep any classifier below 100 %.

    Args:
        taxonomy: products are only put on its leaves.
        out: ends in .csv, .tsv, .jsonl (each also with .gz) or .parquet; replaced where it exists.
        n_rows: rows to write.
        seed: of the products; the vocabulary does not depend on it.
        language: of the tree's names, for the column `language`; None leaves it empty, since most words are of
            no language.

    Returns:
        `out`: columns product_id, title, brand, category (the node's id), language, value. The same
        arguments give the same bytes.

    Raises:
        ConfigError: `n_rows` is below 1, or the ending is not one of `ENDINGS`.
        InputError: the folder of `out` is not there.
    """
    if n_rows < 1:
        raise ConfigError(f"n_rows = {n_rows}", allowed="1 or more", remedy="Ask for at least one row.")
    ending = _ending(out)
    if not out.parent.is_dir():
        raise InputError(f"no folder {out.parent}", allowed="an existing folder", remedy="Create it first.")
    shop = _Shop(taxonomy)
    unfinished = out.with_name(out.name + ".partial")
    with _opened(unfinished, ending) as write:
        for start in range(0, n_rows, _ROWS_AT_ONCE):
            write(_records(shop, range(start, min(start + _ROWS_AT_ONCE, n_rows)), seed, language))
    unfinished.replace(out)
    return out


def _records(shop: _Shop, numbers: range, seed: int, language: str | None) -> list[Record]:
    # Text seeds are hashed by SHA-512: the same rows on every machine and Python.
    rng = Random(f"shelver titles {seed} {numbers.start}")
    leaves = rng.choices(shop.leaves, cum_weights=shop.odds, k=len(numbers))
    found: list[Record] = []
    for number, leaf in zip(numbers, leaves, strict=True):
        words = shop.words(leaf)
        brand = _early(rng, words.brands)
        title = _title(rng, words, brand)
        value = round(rng.paretovariate(1.3) * 8, 2)
        found.append((f"G{number:09d}", title, brand, shop.taxonomy.ids[leaf], language, value))
    return found


def _title(rng: Random, words: _Words, brand: str) -> str:
    draw = rng.random
    parts = [brand] if draw() < 0.6 else []
    if draw() < 0.7:
        parts.append(rng.choice(_ADJECTIVES))
    shared = [_early(rng, words.shared) for _ in range(1 + int(draw() * 3))]
    if draw() < P_AMBIGUOUS:
        parts += shared
    else:
        own = [_early(rng, words.own) for _ in range(1 + int(draw() * 3))]
        # A dropped word is one that the seller took for granted.
        parts += [word for word in (*own, *shared) if draw() > 0.08] or own
    parts = list(dict.fromkeys(parts))
    if draw() < 0.5:
        parts.append(f"{rng.choice('ABCDEFGHKLMNPRSTUVWXZ')}{int(draw() * 990) + 10}")
    if draw() < 0.25:
        rng.shuffle(parts)
    title = " ".join(_slip(rng, part) if draw() < P_TYPO else part for part in parts)
    return title[0].upper() + title[1:] if draw() < 0.8 else title.lower()


def _early(rng: Random, words: Sequence[str]) -> str:
    """The first words of a vocabulary are said most."""
    return words[int(len(words) * rng.random() ** 1.8)]


def _slip(rng: Random, word: str) -> str:
    if len(word) < 4:
        return word
    at = rng.randrange(1, len(word) - 1)
    how = rng.random()
    if how < 0.4:
        return word[:at] + word[at + 1] + word[at] + word[at + 2 :]
    if how < 0.8:
        return word[:at] + word[at + 1 :]
    return word[:at] + rng.choice("aeiorstln") + word[at + 1 :]


class _Shop:
    """What a tree sells. Vocabularies are made when a leaf is first drawn."""

    def __init__(self, taxonomy: Taxonomy) -> None:
        self.taxonomy = taxonomy
        self._words: dict[int, _Words] = {}
        self.leaves: list[int] = np.flatnonzero(taxonomy.is_leaf).tolist()
        # Popularity must not follow the order of the file, where neighbours are alike.
        order = Random(f"shelver popularity {taxonomy.version}").sample(range(len(self.leaves)), len(self.leaves))
        self.odds = list(accumulate(1.0 / (rank + 5) ** _ZIPF_EXPONENT for rank in order))

    def words(self, leaf: int) -> _Words:
        if leaf not in self._words:
            tree = self.taxonomy
            parent = int(tree.parent[leaf])
            names = tree.path_names(leaf)
            above = tree.ids[parent] if parent != ROOT else ""
            shared_names = _tokens(names[-2]) if len(names) > 1 else ()
            self._words[leaf] = _Words(
                own=(*(_tokens(names[-1]) or (names[-1].lower(),)), *_invented(f"own {tree.ids[leaf]}", 6)),
                shared=(*shared_names, *_invented(f"shared {above}", 10)),
                brands=tuple(word.title() for word in _invented(f"brands {names[0]}", 40)),
            )
        return self._words[leaf]


def _tokens(name: str) -> tuple[str, ...]:
    words = (word.strip(",()&/-.").lower() for word in name.replace("/", " ").split())
    return tuple(word for word in words if len(word) > 2)


def _invented(key: str, n_words: int) -> tuple[str, ...]:
    """Words that follow from the key; two to four syllables each."""
    digest = hashlib.shake_256(key.encode()).digest(n_words * 5)
    found = []
    for at in range(0, len(digest), 5):
        syllables = 2 + digest[at] % 3
        found.append("".join(_SYLLABLES[byte % len(_SYLLABLES)] for byte in digest[at + 1 : at + 1 + syllables]))
    return tuple(found)


@contextmanager
def _opened(file: Path, ending: str) -> Iterator[Write]:
    """Opens a feed and yields what appends records to it."""
    if ending == ".parquet":
        types = [pa.string()] * 5 + [pa.float64()]
        schema = pa.schema(list(zip(COLUMNS, types, strict=True)))
        with pq.ParquetWriter(file, schema, compression="zstd") as parquet:
            yield lambda records: parquet.write_table(
                pa.table([list(column) for column in zip(*records, strict=True)], schema=schema)
            )
        return
    with ExitStack() as stack:
        raw: IO[bytes] | gzip.GzipFile = stack.enter_context(file.open("wb"))
        if ending.endswith(".gz"):
            # No name and no time in the header: the same rows give the same bytes.
            raw = stack.enter_context(gzip.GzipFile("", "wb", compresslevel=4, fileobj=raw, mtime=0))
        text = stack.enter_context(io.TextIOWrapper(raw, encoding="utf-8", newline=""))
        if ending.startswith(".jsonl"):
            yield lambda records: text.writelines(
                json.dumps(dict(zip(COLUMNS, record, strict=True)), ensure_ascii=False) + "\n"
                for record in records
            )
        else:
            table = csv.writer(text, delimiter="," if ending.startswith(".csv") else "\t", lineterminator="\n")
            table.writerow(COLUMNS)
            yield table.writerows


def _ending(out: Path) -> str:
    for ending in sorted(ENDINGS, key=len, reverse=True):
        if out.name.lower().endswith(ending):
            return ending
    raise ConfigError(
        f"the feed name {out.name!r}",
        allowed=f"a name that ends in {', '.join(ENDINGS)}",
        remedy="Give the output file one of these endings.",
    )
