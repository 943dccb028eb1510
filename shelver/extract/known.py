"""The values that were seen in training, and how often the same words were a value of which attribute.

A dictionary entry is only worth what it holds on titles that it was not made from. So, while training, a title's
own labels are taken out of the counts that describe it: to it, a value that it alone has is as new as a value of
tomorrow.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from shelver.extract.schema import Schema
from shelver.extract.words import Hashes, Words

Ints = NDArray[np.int64]
Floats = NDArray[np.float32]

N_FACTS = 12
"""Numbers that describe a known span and an attribute."""


@dataclass(frozen=True, slots=True)
class Own:
    """What the titles themselves added to the counts, to be taken out again; see `Known.facts`.

    Attributes:
        hits: is the span a value of the attribute, as labelled? Shape (S, A).
        listed: is the attribute known for the title? Shape (N, A).
    """

    hits: NDArray[np.bool_]
    listed: NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Known:
    """Counts of the values that were seen.

    Attributes:
        values: hashes of their words, ascending, shape (V,).
        hits: titles in which the words were a value of the pair, shape (V, n_pairs), int32.
        seen: titles in which they stood while the pair was known, shape (V, n_pairs), int32.
        hits_by_name, seen_by_name: the same over all categories, shape (V, n_names).
    """

    values: Hashes
    hits: NDArray[np.int32]
    seen: NDArray[np.int32]
    hits_by_name: NDArray[np.int32]
    seen_by_name: NDArray[np.int32]

    @classmethod
    def of(cls, values: Hashes, hits: NDArray[np.int32], seen: NDArray[np.int32], schema: Schema) -> Known:
        """With the sums over categories."""
        sums = []
        for counts in (hits, seen):
            total = np.zeros((len(values), len(schema.names)), np.int32)
            for pair, name in enumerate(schema.name_of_pair):
                total[:, name] += counts[:, pair]
            sums.append(total)
        return cls(values, hits, seen, *sums)

    def rows(self, whole: Hashes) -> Ints:
        """Each span's value, -1 where its words were never one."""
        if not len(self.values):
            return np.full(len(whole), -1, np.int64)
        row = np.minimum(np.searchsorted(self.values, whole), len(self.values) - 1)
        return np.where(self.values[row] == whole, row, -1)

    def facts(self, words: Words, pairs: slice, names: Ints, own: Own | None = None) -> tuple[Ints, Floats]:
        """What is known of the spans of some titles of one category.

        Args:
            words: the titles.
            pairs: those of their category.
            names: the names of these pairs.
            own: what these titles added to the counts; None where they were not learned from.

        Returns:
            (span, facts): the spans whose words are a known value, shape (Q,), and `N_FACTS` numbers for each of
            them and each pair, shape (Q, A, N_FACTS).
        """
        row = self.rows(words.whole)
        span = np.flatnonzero(row >= 0)
        row = row[span]
        counts = [self.hits[row, pairs], self.seen[row, pairs]]
        counts += [self.hits_by_name[row][:, names], self.seen_by_name[row][:, names]]
        if own is not None:
            # The same words may stand in a title several times; it counted once.
            title = words.title_of_span[span]
            key, group = np.unique(title * len(self.values) + row, return_inverse=True)
            mine = np.zeros((len(key), own.hits.shape[1]), np.int32)
            np.maximum.at(mine, group, own.hits[span].astype(np.int32))
            taken = (mine[group], own.listed[title].astype(np.int32))
            counts = [count - taken[i % 2] for i, count in enumerate(counts)]
        facts = [*_facts(counts[0], counts[1]), *_facts(counts[2], counts[3])]
        for hits in (counts[0], counts[2]):
            facts.append(hits.sum(axis=1, keepdims=True) > hits)
        return span, np.stack([fact.astype(np.float32) for fact in facts], axis=2)


def learn_known(parts: Sequence[tuple[str, Words, Own]], schema: Schema) -> Known:
    """Count the labelled values, and how often their words stood in a title.

    Args:
        parts: category, titles and what is labelled in them, of each part.
        schema: the categories' attributes.
    """
    labelled = [words.whole[own.hits.any(axis=1)] for _, words, own in parts]
    values = np.unique(np.concatenate(labelled)) if labelled else np.zeros(0, np.uint64)
    hits = np.zeros((len(values), schema.n_pairs), np.int32)
    seen = np.zeros_like(hits)
    empty = Known.of(values, hits, seen, schema)
    for category, words, own in parts:
        row = empty.rows(words.whole)
        span = np.flatnonzero(row >= 0)
        title = words.title_of_span[span]
        key, group = np.unique(title * max(len(values), 1) + row[span], return_inverse=True)
        titles, rows = np.divmod(key, max(len(values), 1))
        mine = np.zeros((len(rows), own.hits.shape[1]), np.int32)
        np.maximum.at(mine, group, own.hits[span].astype(np.int32))
        np.add.at(hits[:, schema.pairs(category)], rows, mine)
        np.add.at(seen[:, schema.pairs(category)], rows, own.listed[titles].astype(np.int32))
    return Known.of(values, hits, seen, schema)


def _facts(hits: NDArray[np.int32], seen: NDArray[np.int32]) -> list[NDArray[np.generic]]:
    """Was it a value; mostly, and more than once; how often; the log of the odds; or never though it was there?"""
    some = seen > 0
    share = hits / np.maximum(seen, 1)
    odds = np.log((hits + 0.3) / (np.maximum(seen - hits, 0) + 0.3))
    return [
        hits > 0,
        (hits > 1) & (share >= 0.5),
        np.where(some, share, 0),
        np.where(some, odds, 0),
        some & (hits == 0),
    ]
