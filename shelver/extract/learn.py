"""Learning the weights: AdaGrad over small batches of titles of one category.

A fit is deterministic: the same examples in the same order, with the same spec, give the same bytes on the same
machine.

Source:
    Duchi, Hazan and Singer 2011, "Adaptive subgradient methods for online learning and stochastic optimization".
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from shelver.extract.choice import Truth, Weights, lay_out, loss
from shelver.extract.examples import Example
from shelver.extract.known import N_FACTS, Known, Own, learn_known
from shelver.extract.schema import ExtractSpec, Schema
from shelver.extract.words import Hashes, Words, read_words

Ints = NDArray[np.int64]
Floats = NDArray[np.float32]

_START = 0.1
"""What AdaGrad's sums of squares start at."""
_SMALL = 0.01
"""A weight nearer to 0 is left out of the model."""


@dataclass(frozen=True, slots=True)
class Learned:
    """What a fit gives.

    Attributes:
        known: the dictionary.
        features: hashes of the features that have weights, ascending, shape (F,).
        shared: their weights in every category, shape (F, n_names).
        own: their weights in one category, shape (F, n_pairs).
        facts: weights of what the dictionary knows, shape (N_FACTS, n_pairs).
        none: weights of "none", shape (n_pairs,).
    """

    known: Known
    features: Hashes
    shared: Floats
    own: Floats
    facts: Floats
    none: Floats


@dataclass(frozen=True, slots=True)
class _Batch:
    category: str
    words: Words
    truth: Truth


def learn(
    examples: Sequence[Example], schema: Schema, spec: ExtractSpec, say: Callable[[str], None] | None = None
) -> Learned:
    """Learn from labelled titles.

    Args:
        examples: of at least one category with an attribute.
        schema: of the examples.
        spec: how.
        say: hears a line an epoch.
    """
    rng = np.random.default_rng(spec.seed)
    batches = list(_batches(examples, schema, spec, rng))
    owns = [Own(batch.truth.spans, batch.truth.listed) for batch in batches]
    known = learn_known(
        [(batch.category, batch.words, own) for batch, own in zip(batches, owns, strict=True)], schema
    )
    features = _common(batches, spec.min_count)
    layouts = [
        lay_out(
            batch.words,
            features,
            known,
            schema.pairs(batch.category),
            schema.name_of_pair[schema.pairs(batch.category)],
            own,
        )
        for batch, own in zip(batches, owns, strict=True)
    ]

    n_names, n_pairs = len(schema.names), schema.n_pairs
    shared, own = _Table.zeros(len(features), n_names), _Table.zeros(len(features), n_pairs)
    facts = [_Table.zeros(N_FACTS, width) for width in (1, n_names, n_pairs)]
    none = [_Table.zeros(1, width) for width in (n_names, n_pairs)]
    every = np.arange(N_FACTS)

    for epoch in range(spec.n_epochs):
        total, n_listed = 0.0, 0
        for number in rng.permutation(len(batches)):
            batch, layout = batches[number], layouts[number]
            pairs = np.arange(schema.n_pairs)[schema.pairs(batch.category)]
            names = schema.name_of_pair[pairs]
            hidden = rng.random(len(layout.rows)) < spec.hidden
            weights = Weights(
                shared.at(layout.rows, names) + own.at(layout.rows, pairs),
                facts[0].values + facts[1].at(every, names) + facts[2].at(every, pairs),
                (none[0].values[:, names] + none[1].values[:, pairs])[0],
            )
            weights.features[hidden] = 0
            found, gradient = loss(layout, weights, batch.truth)
            gradient.features[hidden] = 0
            total += found
            n_listed += int(batch.truth.listed.sum())
            step = _Step(spec, 1 / len(batch.words.titles))
            step(shared, layout.rows, names, gradient.features)
            step(own, layout.rows, pairs, gradient.features)
            step(facts[0], every, np.array([0]), gradient.facts.sum(axis=1, keepdims=True))
            step(facts[1], every, names, gradient.facts)
            step(facts[2], every, pairs, gradient.facts)
            step(none[0], np.array([0]), names, gradient.none[None])
            step(none[1], np.array([0]), pairs, gradient.none[None])
        if say is not None:
            say(f"epoch {epoch + 1} of {spec.n_epochs}: loss {total / max(n_listed, 1):.4f}")

    # While learning, a share of the features was hidden; from now on all are seen.
    kept = [_without_small(table.values * np.float32(1 - spec.hidden)) for table in (shared, own)]
    used = kept[0].any(axis=1) | kept[1].any(axis=1)
    of_name = schema.name_of_pair
    return Learned(
        known,
        features[used],
        kept[0][used],
        kept[1][used],
        facts[0].values + facts[1].values[:, of_name] + facts[2].values,
        (none[0].values[:, of_name] + none[1].values)[0],
    )


@dataclass(frozen=True, slots=True)
class _Table:
    """Weights, and AdaGrad's sums of squared gradients."""

    values: Floats
    squares: Floats

    @classmethod
    def zeros(cls, n_rows: int, n_columns: int) -> _Table:
        return cls(np.zeros((n_rows, n_columns), np.float32), np.full((n_rows, n_columns), _START, np.float32))

    def at(self, rows: Ints, columns: Ints) -> Floats:
        taken: Floats = self.values[np.ix_(rows, columns)]
        return taken


@dataclass(frozen=True, slots=True)
class _Step:
    spec: ExtractSpec
    scale: float

    def __call__(self, table: _Table, rows: Ints, columns: Ints, gradient: Floats) -> None:
        where = np.ix_(rows, columns)
        values = table.values[where]
        slope = gradient * np.float32(self.scale) + np.float32(self.spec.decay) * values
        squares = table.squares[where] + slope * slope
        table.squares[where] = squares
        table.values[where] = values - np.float32(self.spec.rate) * slope / np.sqrt(squares)


def _batches(
    examples: Sequence[Example], schema: Schema, spec: ExtractSpec, rng: np.random.Generator
) -> Iterator[_Batch]:
    unlisted_is_none = spec.unlisted_is_none(examples)
    members: dict[str, list[int]] = {category: [] for category in schema.attributes}
    for number, example in enumerate(examples):
        members[example.category].append(number)
    for category, numbers in members.items():
        attributes = schema.attributes[category]
        order = rng.permutation(numbers)
        for start in range(0, len(order) if attributes else 0, spec.batch):
            chosen = [examples[number] for number in order[start : start + spec.batch]]
            words = read_words([example.title for example in chosen], spec.max_words)
            yield _Batch(category, words, truth_of(chosen, attributes, words, unlisted_is_none=unlisted_is_none))


def truth_of(
    examples: Sequence[Example], attributes: Sequence[str], words: Words, *, unlisted_is_none: bool
) -> Truth:
    """Where the labelled values stand in their titles; a value that stands nowhere teaches nothing."""
    shape = (len(examples), len(attributes))
    spans = np.zeros((len(words.first), len(attributes)), np.bool_)
    none, listed = np.zeros(shape, np.bool_), np.zeros(shape, np.bool_)
    for title, example in enumerate(examples):
        for column, attribute in enumerate(attributes):
            values = example.values.get(attribute, () if unlisted_is_none else None)
            if values is None:
                continue
            places = [place for value in values for place in words.spans_of(title, value)]
            spans[places, column] = True
            none[title, column] = not values
            listed[title, column] = not values or bool(places)
    return Truth(spans, none, listed)


def _common(batches: Sequence[_Batch], min_count: int) -> Hashes:
    """Features that enough titles have, ascending."""
    found: list[Hashes] = [np.zeros(0, np.uint64)]
    for batch in batches:
        words = batch.words
        sides = (words.firsts, words.lasts, words.insides, words.nones)
        for title in range(len(words.titles)):
            of_words = slice(int(words.offsets[title]), int(words.offsets[title + 1]))
            of_spans = slice(int(words.span_offsets[title]), int(words.span_offsets[title + 1]))
            found += [np.unique(side[of_words]) for side in sides]
            found.append(np.unique(words.wholes[of_spans]))
    features, counts = np.unique(np.concatenate(found), return_counts=True)
    return features[counts >= min_count]


def _without_small(values: Floats) -> Floats:
    return np.where(np.abs(values) < _SMALL, np.float32(0), values)
