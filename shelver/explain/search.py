"""What carries an answer: words and a region of the picture without which P(node) falls most."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from math import factorial
from typing import Final, TypeVar

import numpy as np
from numpy.typing import NDArray

from shelver.decide import DEEPEST, Policy, Probabilities
from shelver.errors import InputError
from shelver.explain.regions import REGIONS, Seen, see, without_region
from shelver.explain.words import Word, without, words_of
from shelver.pipeline import Embedding, Prepared
from shelver.pipeline.classifier import Classifier
from shelver.product import Product, text_of
from shelver.windows import Window

Input = TypeVar("Input")
MOST_TRIED: Final = 60
"""Different words that are tried; a long description has more."""
MOST_WORDS: Final = 4
SHORTLIST: Final = 8
"""So many words that alone make it fall most are tried together with others."""
ENOUGH: Final = 0.25
"""Words are added until P(node) has fallen to this share of what it was."""
LEAST: Final = 0.05
"""What carries less of P(node) than this share is no reason."""
_TEXTS, _PICTURES = 16, 4
"""Embedded at once; who waits meanwhile is let in between."""


@dataclass(frozen=True, slots=True)
class CarryingWord:
    """A word, and how much of the fall of P(node) is its own."""

    word: Word
    weight: float


@dataclass(frozen=True, slots=True)
class CarryingRegion:
    """A region of the picture, and how much of the fall of P(node) is its own."""

    box: Window
    weight: float


@dataclass(frozen=True, slots=True)
class Explanation:
    """Why a product stands at a node, as far as words and a region tell.

    Attributes:
        node: index of the node.
        probability: P(node) of the product.
        falls_to: P(node) without the words and the region; the weights add up to the difference. Where nothing
            alone carries the answer there are neither, and this is `probability`.
        words: those that carry it, the heaviest first.
        region: of the picture; None where it has none or none carries the answer.
        n_tried: different words that were tried, the first ones.
        more_words: whether the text has others.
    """

    node: int
    probability: float
    falls_to: float
    words: tuple[CarryingWord, ...]
    region: CarryingRegion | None
    n_tried: int
    more_words: bool


def explain(
    classifier: Classifier,
    product: Product,
    *,
    node: int | None = None,
    seen: Seen | None = None,
    policy: Policy = DEEPEST,
    pause: Callable[[], None] = lambda: None,
) -> Explanation:
    """Which words and which region of the picture carry an answer.

    The product is asked about again without single words, the heaviest of them together, and with regions of its
    picture in the picture's mean colour. Words count for what they do beside the picture and alone, and so do
    regions: where either would be enough, both are reasons.

    Args:
        classifier: that answers.
        product: its texts, and its first picture.
        node: of which P is explained; the decided one where it is missing.
        seen: the picture, where it has been decoded already; `product.images` are not looked at then.
        policy: that decides; where it decides nothing, the most probable leaf is explained.
        pause: called before each piece of work.

    Raises:
        InputError: the product has nothing that the model can use.
    """
    if seen is None and product.images and classifier.image2emb is not None:
        found = see(product.images[0], classifier.image2emb)
        seen = None if isinstance(found, str) else found
    asking = _Asking(classifier, seen.prepared if seen is not None else None, pause)
    whole = asking.texts([product])
    probs = classifier.emb2prob(whole, asking.picture)
    if not probs.modality[0]:
        raise InputError(
            "a product without anything that the model can use",
            allowed="a text or a picture, as the model reads them",
            remedy="Give it a title or another picture.",
        )
    asking.node = _decided(classifier, probs, policy) if node is None else node
    spec = classifier.manifest.text.spec if classifier.manifest.text is not None else None
    words, more = words_of(product, spec.fields, MOST_TRIED) if spec is not None else ([], False)
    chosen = _words(asking, product, words, whole)
    region = _region(asking, whole, seen) if seen is not None and asking.picture is not None else None
    table = _table(asking, product, chosen, seen, region)
    n_words = len(chosen)
    weights = _weights(table, range(n_words + (region is not None)))
    return Explanation(
        asking.node,
        table[frozenset()],
        table[frozenset(weights)],
        tuple(
            CarryingWord(chosen[one], weight)
            for one, weight in sorted(weights.items(), key=lambda of: -of[1])
            if one < n_words
        ),
        CarryingRegion(region, weights[n_words]) if region is not None and n_words in weights else None,
        len(words),
        more,
    )


class _Asking:
    """Asks a classifier about variants of one product."""

    def __init__(self, classifier: Classifier, picture: Prepared | None, pause: Callable[[], None]) -> None:
        self._classifier = classifier
        self._pause = pause
        self.node = 0
        self.picture = self.pictures([picture]) if picture is not None else None

    def texts(self, products: Sequence[Product]) -> Embedding | None:
        """Embeddings of products' texts."""
        text2emb, stage = self._classifier.text2emb, self._classifier.manifest.text
        if text2emb is None or stage is None:
            return None
        return self._embedded([text_of(product, stage.spec) for product in products], text2emb, _TEXTS)

    def pictures(self, pictures: Sequence[Prepared]) -> Embedding | None:
        """Embeddings of pictures."""
        image2emb = self._classifier.image2emb
        if image2emb is None:
            return None
        return self._embedded([[picture] for picture in pictures], image2emb.embed_prepared, _PICTURES)

    def _embedded(
        self, inputs: Sequence[Input], embed: Callable[[Sequence[Input]], Embedding], at_once: int
    ) -> Embedding:
        parts = []
        for start in range(0, len(inputs), at_once):
            self._pause()
            parts.append(embed(inputs[start : start + at_once]))
        return Embedding(np.concatenate([p.values for p in parts]), np.concatenate([p.present for p in parts]))

    def probabilities(self, text: Embedding | None, picture: Embedding | None) -> NDArray[np.float32]:
        """P(node), shape (N,), of rows of texts and pictures; one row stands beside each of the other's."""
        n = max(len(rows.present) for rows in (text, picture) if rows is not None)
        text, picture = _repeated(text, n), _repeated(picture, n)
        if text is not None:
            # Where the last word has gone a text is left that says nothing, or there would be no answer at all.
            nothing = ~text.present if picture is None else ~(text.present | picture.present)
            text = Embedding(text.values, text.present | nothing)
        of_node: NDArray[np.float32] = self._classifier.emb2prob.nodes(text, picture)[:, self.node]
        return of_node

    def beside_and_alone(self, rows: Embedding, other: Embedding | None, *, texts: bool) -> NDArray[np.float32]:
        """P(node) of rows beside what the product has of the other kind, and without: the sum."""
        found = np.zeros(len(rows.present), np.float32)
        for beside in (None,) if other is None or not other.present.any() else (other, None):
            found += self.probabilities(rows, beside) if texts else self.probabilities(beside, rows)
        return found


def _repeated(rows: Embedding | None, n: int) -> Embedding | None:
    if rows is None or len(rows.present) == n:
        return rows
    return Embedding(np.repeat(rows.values, n, axis=0), np.repeat(rows.present, n))


def _decided(classifier: Classifier, probs: Probabilities, policy: Policy) -> int:
    decided = classifier.prob2pred(probs, policy)
    if not decided.answered[0]:
        decided = classifier.prob2pred(probs, DEEPEST)
    return int(decided.node[0])


def _words(asking: _Asking, product: Product, words: Sequence[Word], whole: Embedding | None) -> list[Word]:
    """Few words without which P(node) falls far, each chosen beside those before it."""
    if whole is None or not words:
        return []
    before = float(asking.beside_and_alone(whole, asking.picture, texts=True)[0])
    chosen: list[Word] = []
    left, now = list(words), before
    while left and len(chosen) < MOST_WORDS and now > ENOUGH * before:
        rows = asking.texts([without(product, [*chosen, word]) for word in left])
        assert rows is not None
        found = asking.beside_and_alone(rows, asking.picture, texts=True)
        order = np.argsort(found, kind="stable")
        now = float(found[order[0]])
        chosen.append(left[order[0]])
        left = [left[i] for i in order[1 : SHORTLIST + 1]]
    return chosen


def _region(asking: _Asking, whole: Embedding | None, seen: Seen) -> Window:
    """The region without which P(node) falls most."""
    rows = asking.pictures([without_region(seen, region) for region in REGIONS])
    assert rows is not None
    return REGIONS[int(np.argmin(asking.beside_and_alone(rows, whole, texts=False)))]


def _table(
    asking: _Asking, product: Product, words: Sequence[Word], seen: Seen | None, region: Window | None
) -> dict[frozenset[int], float]:
    """P(node) without each set of the words, numbered from 0, and of the region, which comes after them."""
    sets = [frozenset(of) for n in range(len(words) + 1) for of in combinations(range(len(words)), n)]
    texts = asking.texts([without(product, [words[i] for i in of]) for of in sets])
    found = dict(zip(sets, asking.probabilities(texts, asking.picture).tolist(), strict=False))
    if region is not None and seen is not None:
        rows = asking.probabilities(texts, asking.pictures([without_region(seen, region)])).tolist()
        found |= {of | {len(words)}: p for of, p in zip(sets, rows, strict=False)}
    return found


def _weights(table: Mapping[frozenset[int], float], numbers: Iterable[int]) -> dict[int, float]:
    """Each one's part of the fall (its Shapley value), of those that have a part worth telling."""
    left = list(numbers)
    while left:
        weights = {one: _share(table, one, [other for other in left if other != one]) for one in left}
        least = min(left, key=lambda one: weights[one])
        if weights[least] >= LEAST * table[frozenset()]:
            return weights
        left.remove(least)
    return {}


def _share(table: Mapping[frozenset[int], float], one: int, others: Sequence[int]) -> float:
    """How far P(node) falls when one goes, on average over all orders in which all go."""
    n = len(others) + 1
    return sum(
        factorial(size)
        * factorial(n - size - 1)
        / factorial(n)
        * (table[frozenset(gone)] - table[frozenset((*gone, one))])
        for size in range(n)
        for gone in combinations(others, size)
    )
