"""An extractor: open it or fit it, then ask it what titles state."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from shelver.errors import InputError
from shelver.extract.choice import Weights, lay_out, probabilities
from shelver.extract.examples import Example
from shelver.extract.learn import Learned, learn
from shelver.extract.schema import ExtractSpec, Schema
from shelver.extract.store import read_folder, write_folder
from shelver.extract.words import read_words

Floats = NDArray[np.float32]

MAX_PAIRS: Final = 5_000
"""Categories times their attributes."""
_BATCH: Final = 64
"""Titles that are answered at once: their arrays stay in the processor's caches."""


@dataclass(frozen=True, slots=True)
class Column:
    """One attribute of N titles.

    Attributes:
        values: as the title writes it; None where the title states none, or the category has no such attribute.
        confidence: P(value), all places in the title that say the same together; of "none" where that is the
            answer; 0 where the category has no such attribute. Shape (N,).
        applies: the category has the attribute, shape (N,).
    """

    values: tuple[str | None, ...]
    confidence: Floats
    applies: NDArray[np.bool_]


@dataclass(frozen=True)
class Extractor:
    """Reads the values of attributes out of titles.

    Attributes:
        schema: the attributes of each category that it learned.
        spec: how it learned.
        learned: its weights and its dictionary.
    """

    schema: Schema
    spec: ExtractSpec
    learned: Learned

    @classmethod
    def fit(
        cls,
        examples: Sequence[Example],
        spec: ExtractSpec | None = None,
        *,
        say: Callable[[str], None] | None = None,
    ) -> Extractor:
        """Learn from labelled titles; a minute or two for 1,500.

        Args:
            examples: the titles.
            spec: how; None: the defaults.
            say: hears a line an epoch.

        Raises:
            InputError: no example states a value, or there are more than `MAX_PAIRS` pairs of a category and one
                of its attributes.
        """
        spec = spec or ExtractSpec()
        stated = any(
            value in example.title for example in examples for v in example.values.values() for value in v
        )
        if not stated:
            raise InputError(
                f"{len(examples)} examples, none with a value that its title states",
                allowed="titles with at least one labelled value, letter for letter as the title writes it",
                remedy="Check which column is the title and which are the values.",
            )
        schema = Schema.of(examples)
        if schema.n_pairs > MAX_PAIRS:
            raise InputError(
                f"{schema.n_pairs:,} pairs of a category and an attribute",
                allowed=f"at most {MAX_PAIRS:,}: each has a weight for every feature while learning",
                remedy="Learn an extractor for each part of the tree, or name coarser categories.",
            )
        return cls(schema, spec, learn(examples, schema, spec, say))

    @classmethod
    def open(cls, folder: Path) -> Extractor:
        """Read an extractor's folder.

        Raises:
            ModelError: it is none, is damaged, or is of another format.
        """
        return cls(*read_folder(folder))

    def save(self, folder: Path) -> None:
        """Write it to a folder, new or an extractor's; the same extractor gives the same bytes.

        Raises:
            InputError: the place is a file, or another process is writing there.
        """
        write_folder(folder, self.schema, self.spec, self.learned)

    def __call__(
        self, titles: Sequence[str], categories: Sequence[str], *, threshold: float | None = None
    ) -> Mapping[str, Column]:
        """Read titles.

        Args:
            titles: N titles.
            categories: their categories; none of a category that was not learned has any attribute.
            threshold: a value is answered where its probability reaches this; None: where it is more probable than
                "none" is. At 0 every attribute of the category has an answer.

        Returns:
            A column for each attribute, in the order of `schema.names`.

        Raises:
            InputError: not as many categories as titles, or a title is no text.
        """
        if len(titles) != len(categories):
            raise InputError(
                f"{len(titles)} titles and {len(categories)} categories",
                allowed="one category a title",
                remedy="Give both, in the same order.",
            )
        wrong = next((i for i, title in enumerate(titles) if not isinstance(title, str)), None)
        if wrong is not None:
            raise InputError(
                f"title {wrong} is {type(titles[wrong]).__name__}",
                allowed="texts",
                remedy="Give an empty text where a product has no title.",
            )
        n, names = len(titles), self.schema.names
        values: list[list[str | None]] = [[None] * n for _ in names]
        confidence = np.zeros((len(names), n), np.float32)
        applies = np.zeros((len(names), n), np.bool_)
        members: dict[str, list[int]] = {}
        for number, category in enumerate(categories):
            if self.schema.attributes.get(category):
                members.setdefault(category, []).append(number)
        for category, numbers in members.items():
            of_category = self.schema.name_of_pair[self.schema.pairs(category)]
            applies[of_category[:, None], numbers] = True
            for start in range(0, len(numbers), _BATCH):
                rows = numbers[start : start + _BATCH]
                found, sure = self._read([titles[row] for row in rows], category, threshold)
                confidence[of_category[:, None], rows] = sure.T
                for name, column in zip(of_category, found, strict=True):
                    for row, value in zip(rows, column, strict=True):
                        values[name][row] = value
        return {name: Column(tuple(values[i]), confidence[i], applies[i]) for i, name in enumerate(names)}

    def answers(
        self, titles: Sequence[str], categories: Sequence[str], *, threshold: float | None = None
    ) -> list[dict[str, str]]:
        """The same, as one mapping a title, of the attributes that it states."""
        columns = self(titles, categories, threshold=threshold)
        rows: list[dict[str, str]] = [{} for _ in titles]
        for name, column in columns.items():
            for row, value in zip(rows, column.values, strict=True):
                if value is not None:
                    row[name] = value
        return rows

    def _weights(self, category: str, rows: NDArray[np.int64]) -> Weights:
        pairs = self.schema.pairs(category)
        learned, names = self.learned, self.schema.name_of_pair[pairs]
        return Weights(
            learned.shared[np.ix_(rows, names)] + learned.own[rows, pairs],
            learned.facts[:, pairs],
            learned.none[pairs],
        )

    def _read(
        self, titles: Sequence[str], category: str, threshold: float | None | None
    ) -> tuple[list[list[str | None]], Floats]:
        """Values, one list an attribute, and their confidence (n, A), of titles of one category."""
        pairs = self.schema.pairs(category)
        words = read_words(titles, self.spec.max_words)
        names = self.schema.name_of_pair[pairs]
        layout = lay_out(words, self.learned.features, self.learned.known, pairs, names, None)
        p_span, p_none = probabilities(layout, self._weights(category, layout.rows))
        values: list[list[str | None]] = [[None] * len(titles) for _ in names]
        confidence = p_none.astype(np.float32)
        for title in range(len(titles)):
            low, high = int(words.span_offsets[title]), int(words.span_offsets[title + 1])
            if low == high:
                continue
            # Two places that say the same words are one answer.
            _, at, same = np.unique(words.whole[low:high], return_index=True, return_inverse=True)
            together = np.zeros((len(at), len(names)))
            np.add.at(together, same, p_span[low:high])
            best = together.argmax(axis=0)
            chance = together[best, np.arange(len(names))]
            for column in np.flatnonzero(chance > p_none[title] if threshold is None else chance >= threshold):
                confidence[title, column] = chance[column]
                place = np.where(same == best[column], p_span[low:high, column], -1).argmax()
                values[column][title] = words.text(low + int(place), title)
        return values, confidence
