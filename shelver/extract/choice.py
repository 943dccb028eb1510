"""The model: for each attribute of a title, one choice between all of its spans and "none".

The score of a span is a sum of weights: of the features of its first word, of its last word, of each word inside,
of the span as a whole, and of what the dictionary knows of it. Because the words' scores add up, prefix sums score
every span at the price of the words:

    score(first, last) = B[first] + E[last] + I[first] + ... + I[last] + S[span] + facts . F

Each weight is the sum of one that the attribute has in every category ("Brand" is a brand everywhere) and one that
it has in this category only. A softmax over all spans of the title and "none", whose score is a weight of the
attribute and one for each word of the title, is the probability.

Each attribute chooses for itself. So values may overlap or be the same words, and a label that is missing is left
out of the loss. A value that a title states twice is right in both places: the loss takes the sum of both.

Source:
    The span scores are those of Sarawagi and Cohen 2004, "Semi-Markov conditional random fields for information
    extraction", without its chain; hidden features are Wager et al. 2013, "Dropout training as adaptive
    regularization".
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from shelver.extract.known import Known, Own
from shelver.extract.words import Hashes, Words

Ints = NDArray[np.int64]
Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]

_TINY: Final = 1e-30


@dataclass(frozen=True, slots=True)
class Block:
    """The known features of some items, as a sparse matrix of ones.

    Attributes:
        n: items.
        item, feature: the entries, ascending by (item, feature); `feature` counts in `Layout.rows`.
        items, item_at: the items that have an entry, and where each one's entries begin.
        by_feature: the entries in the order of their features.
        features, feature_at: the features that have an entry, and where each one's begin in `by_feature`.
    """

    n: int
    item: Ints
    feature: Ints
    items: Ints
    item_at: Ints
    by_feature: Ints
    features: Ints
    feature_at: Ints

    @classmethod
    def of(cls, local: Ints) -> Block:
        """Of local feature numbers, shape (n, k); -1 where a feature has no weight."""
        item, column = np.nonzero(local >= 0)
        feature = local[item, column]
        order = np.lexsort((feature, item))
        item, feature = item[order], feature[order]
        by_feature = np.argsort(feature, kind="stable")
        items, item_at = np.unique(item, return_index=True)
        features, feature_at = np.unique(feature[by_feature], return_index=True)
        return cls(len(local), item, feature, items, item_at, by_feature, features, feature_at)

    def times(self, weights: Floats) -> Floats:
        """Sum of the weights of each item's features; weights (F, A) to (n, A)."""
        sums = np.zeros((self.n, weights.shape[1]), np.float32)
        if len(self.item):
            sums[self.items] = np.add.reduceat(weights[self.feature], self.item_at, axis=0)
        return sums

    def add_back(self, gradient: Floats, of_items: Floats) -> None:
        """Add to a gradient (F, A) what the items' gradients (n, A) come to."""
        if len(self.item):
            summed = np.add.reduceat(of_items[self.item[self.by_feature]], self.feature_at, axis=0)
            gradient[self.features] += summed


@dataclass(frozen=True, slots=True)
class Layout:
    """Some titles of one category, ready for arithmetic.

    Attributes:
        words: the titles.
        rows: which features occur, as rows of the model's weights, ascending.
        blocks: of the first, the last and the inner words, of "none", and of the spans.
        span, facts: see `Known.facts`.
        title_of_span: shape (S,).
        by_last: the spans in the order of their last words; those of each word begin at `end_at`, shape (W,).
    """

    words: Words
    rows: Ints
    blocks: tuple[Block, ...]
    span: Ints
    facts: Floats
    title_of_span: Ints
    by_last: Ints
    end_at: Ints


def lay_out(words: Words, features: Hashes, known: Known, pairs: slice, names: Ints, own: Own | None) -> Layout:
    """Look features and spans up.

    Args:
        words: titles of one category.
        features: those that have a weight, ascending.
        known: the dictionary.
        pairs, names: of the category.
        own: what these titles added to the dictionary; see `Known.facts`.
    """
    sides = (words.firsts, words.lasts, words.insides, words.nones, words.wholes)
    found = []
    for side in sides:
        row = np.minimum(np.searchsorted(features, side), max(len(features) - 1, 0))
        same = features[row] == side if len(features) else np.zeros(side.shape, np.bool_)
        found.append(np.where(same, row, -1))
    rows = np.unique(np.concatenate([side.ravel() for side in found]))
    rows = rows[rows >= 0]
    blocks = tuple(Block.of(np.where(side >= 0, np.searchsorted(rows, side), -1)) for side in found)
    span, facts = known.facts(words, pairs, names, own)
    by_last = np.argsort(words.last, kind="stable")
    end_at = np.flatnonzero(np.diff(words.last[by_last], prepend=-1))
    return Layout(words, rows, blocks, span, facts, words.title_of_span, by_last, end_at)


@dataclass(frozen=True, slots=True)
class Weights:
    """Weights of some features and one category's A attributes.

    Attributes:
        features: shape (F, A).
        facts: shape (N_FACTS, A).
        none: shape (A,).
    """

    features: Floats
    facts: Floats
    none: Floats


def score(layout: Layout, weights: Weights) -> tuple[Floats, Floats]:
    """Scores of all spans (S, A) and of "none" (N, A). A title without a word has no spans."""
    words = layout.words
    first, last, inside, none, whole = (block.times(weights.features) for block in layout.blocks)
    # In doubles, so that what stands before a title in the batch does not show in its scores.
    inner, of_none = _running(inside), _running(none)
    spans = first[words.first] + last[words.last] + whole
    spans += (inner[words.last + 1] - inner[words.first]).astype(np.float32)
    spans[layout.span] += np.einsum("qak,ka->qa", layout.facts, weights.facts)
    return spans, (of_none[words.offsets[1:]] - of_none[words.offsets[:-1]]).astype(np.float32) + weights.none


def probabilities(layout: Layout, weights: Weights) -> tuple[Doubles, Doubles]:
    """P(span is the answer) (S, A) and P(none) (N, A); those of a title and an attribute sum to 1."""
    spans, none = score(layout, weights)
    highest = _per_title(np.maximum, layout.words, spans, none)
    of_span = np.exp((spans - highest[layout.title_of_span]).astype(np.float64))
    of_none = np.exp((none - highest).astype(np.float64))
    total = _per_title(np.add, layout.words, of_span, of_none)
    return of_span / total[layout.title_of_span], of_none / total


@dataclass(frozen=True, slots=True)
class Truth:
    """What is right in some titles.

    Attributes:
        spans: shape (S, A).
        none: shape (N, A).
        listed: where something is right at all; the rest is left out of the loss, shape (N, A).
    """

    spans: NDArray[np.bool_]
    none: NDArray[np.bool_]
    listed: NDArray[np.bool_]


def loss(layout: Layout, weights: Weights, truth: Truth) -> tuple[float, Weights]:
    """Minus the log of the probability of what is right, summed over the listed pairs, and its gradient."""
    words = layout.words
    p_spans, p_none = probabilities(layout, weights)
    right = np.maximum(_per_title(np.add, words, p_spans * truth.spans, p_none * truth.none), _TINY)
    total = -float(np.log(right)[truth.listed].sum())
    # By a score: its probability, less its probability given that the answer is right.
    listed = truth.listed.astype(np.float64)
    of_title, share = layout.title_of_span, listed / right
    d_spans = (p_spans * (listed[of_title] - truth.spans * share[of_title])).astype(np.float32)
    d_none = (p_none * (listed - truth.none * share)).astype(np.float32)
    return total, _gradient(layout, weights, d_spans, d_none)


def _gradient(layout: Layout, weights: Weights, d_spans: Floats, d_none: Floats) -> Weights:
    """From the scores' gradients to those of the weights."""
    words = layout.words
    n, width = words.n_words, d_spans.shape[1]
    d_first, d_last = np.zeros((n, width), np.float32), np.zeros((n, width), np.float32)
    if n:
        # Spans ascend by their first words, and each word begins one and ends one.
        begins = np.flatnonzero(np.diff(words.first, prepend=-1))
        d_first[:] = np.add.reduceat(d_spans, begins, axis=0)
        d_last[:] = np.add.reduceat(d_spans[layout.by_last], layout.end_at, axis=0)
    # A word is inside all spans that have begun and have not ended before it.
    d_inside = (_running(d_first)[1:] - _running(d_last)[:-1]).astype(np.float32)

    gradient = np.zeros_like(weights.features)
    for block, side in zip(
        layout.blocks, (d_first, d_last, d_inside, d_none[words.title_of_word], d_spans), strict=True
    ):
        block.add_back(gradient, side)
    d_facts = np.einsum("qak,qa->ka", layout.facts, d_spans[layout.span])
    return Weights(gradient, d_facts, d_none.sum(axis=0))


def _running(values: Floats) -> Doubles:
    """Sums of what stands before each word: (W, A) to (W + 1, A)."""
    sums = np.zeros((len(values) + 1, values.shape[1]))
    np.cumsum(values, axis=0, dtype=np.float64, out=sums[1:])
    return sums


def _per_title(ufunc: np.ufunc, words: Words, spans: NDArray[Any], none: NDArray[Any]) -> NDArray[Any]:
    """Fold the spans of each title, and its "none", into one; (S, A) and (N, A) to (N, A)."""
    folded = none.copy()
    filled = np.flatnonzero(np.diff(words.span_offsets))
    if len(filled):
        parts = ufunc.reduceat(spans, words.span_offsets[:-1][filled], axis=0)
        folded[filled] = ufunc(folded[filled], parts)
    return folded
