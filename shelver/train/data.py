"""What is learned from: a split of a catalog as arrays that fit in memory."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from shelver.attributes import Attribute
from shelver.catalog.split import Part
from shelver.images import ImageSpec
from shelver.ngrams import Ngrams, Vocabulary
from shelver.pipeline import Embedding
from shelver.product import TextSpec, text_of
from shelver.train.embed import ImageEmbedder
from shelver.train.sets import Source
from shelver.train.tasks import Labels, Said, encode, is_known

Vectors = NDArray[np.float16]

Say = Callable[[str], None]
"""Receives a line for the person who waits."""


@dataclass(frozen=True, slots=True)
class Examples:
    """Labelled products.

    Attributes:
        texts: normalised texts, None where a product has none; N of them.
        image: picture embeddings, float16 (N, D_i), and presence; None where the model uses no pictures.
        node: labelled node in the catalog's taxonomy, shape (N,), int32; -1 where a product has none.
        value: business value, shape (N,), float32; NaN where unknown.
        frozen: vectors of the texts from frozen encoders, float16 (N, D_f); None where there are none.
        said: labelled values by attribute, as the products have them.
        labels: the same for the attributes that are learned, in their order; empty until that is settled.
    """

    texts: list[str | None]
    image: Embedding | None
    node: NDArray[np.int32]
    value: NDArray[np.float32]
    frozen: Vectors | None = None
    said: Sequence[Said] = ()
    labels: tuple[Labels, ...] = ()

    def __len__(self) -> int:
        return len(self.node)

    def labelled(self, attributes: Sequence[Attribute]) -> Examples:
        """The same with the labels of the attributes that are learned; products without any label are left out."""
        labels = tuple(encode(self.said, attribute) for attribute in attributes)
        taught = self.node >= 0
        for of_one in labels:
            taught = taught | is_known(of_one)
        whole = replace(self, said=(), labels=labels)
        return whole if taught.all() else whole.rows(np.flatnonzero(taught))

    def __add__(self, other: Examples) -> Examples:
        image = frozen = None
        if self.image is not None and other.image is not None:
            image = Embedding(
                np.concatenate([self.image.values, other.image.values]),
                np.concatenate([self.image.present, other.image.present]),
            )
        if self.frozen is not None and other.frozen is not None:
            frozen = np.concatenate([self.frozen, other.frozen])
        return Examples(
            self.texts + other.texts,
            image,
            np.concatenate([self.node, other.node]),
            np.concatenate([self.value, other.value]),
            frozen,
            [*self.said, *other.said],
            tuple(_together(ours, theirs) for ours, theirs in zip(self.labels, other.labels, strict=True)),
        )

    def rows(self, rows: NDArray[np.intp]) -> Examples:
        """Some of them, in the order of `rows`."""
        image = None
        if self.image is not None:
            image = Embedding(self.image.values[rows], self.image.present[rows])
        return Examples(
            [self.texts[row] for row in rows.tolist()],
            image,
            self.node[rows],
            self.value[rows],
            None if self.frozen is None else self.frozen[rows],
            [self.said[row] for row in rows.tolist()] if self.said else (),
            tuple(of_one[rows] for of_one in self.labels),
        )


def _together(ours: Labels, theirs: Labels) -> Labels:
    both: Labels = np.concatenate([ours, theirs])
    return both


def read_examples(
    catalog: Source,
    split: Part,
    *,
    text: TextSpec | None,
    embedder: ImageEmbedder | None,
    n_expected: int,
    say: Say,
) -> Examples:
    """Read the products of a split that have a category or an attribute, and embed their pictures.

    Args:
        catalog: the catalog.
        split: "train", "validation" or "test".
        text: which fields make the text; None reads no texts.
        embedder: embeds pictures, or remembers that it did; None reads no pictures.
        n_expected: products in the split, for the time left.
        say: told about the progress every few seconds.
    """
    texts: list[str | None] = []
    nodes: list[int] = []
    said: list[Said] = []
    index_of = {node_id: k for k, node_id in enumerate(catalog.taxonomy.ids)}
    values: list[float] = []
    parts: list[Embedding] = []
    started = told = time.monotonic()
    n_read = 0
    for products in catalog.products(split, images=embedder is not None):
        n_read += len(products)
        labelled = [p for p in products if p.node_id is not None or p.attributes]
        texts += [text_of(p, text) if text else None for p in labelled]
        nodes += [index_of[p.node_id] if p.node_id is not None else -1 for p in labelled]
        said += [p.attributes for p in labelled]
        values += [p.value if p.value is not None else float("nan") for p in labelled]
        if embedder is not None:
            parts.append(embedder([p.images for p in labelled]))
        now = time.monotonic()
        if now - told > 5:
            told = now
            rate = n_read / (now - started)
            left = (n_expected - n_read) / rate
            say(f"reading {split}: {n_read:,} of {n_expected:,} products, {rate:,.0f}/s, {left:,.0f} s left")
    image = None
    if embedder is not None:
        image = Embedding(
            np.concatenate([p.values for p in parts] or [np.zeros((0, embedder.width), np.float16)]),
            np.concatenate([p.present for p in parts] or [np.zeros(0, np.bool_)]),
        )
    return Examples(texts, image, np.array(nodes, np.int32), np.array(values, np.float32), said=said)


@dataclass(frozen=True, slots=True)
class Features:
    """Examples as the network takes them.

    Attributes:
        ngrams: weighted n-grams of the texts; None where the model reads none.
        frozen: as in `Examples`.
        wide: the linear part's scores of the labels, without its bias, shape (N, C); None where it is not asked,
            as in training, where it is done learning.
        text_present: shape (N,), bool; False everywhere where the model uses no texts.
        image: as in `Examples`.
        node, labels: as in `Examples`.
        weight: of each product in the loss, shape (N,), float32.
    """

    ngrams: Ngrams | None
    frozen: Vectors | None
    wide: NDArray[np.float32] | None
    text_present: NDArray[np.bool_]
    image: Embedding | None
    node: NDArray[np.int32]
    weight: NDArray[np.float32]
    labels: tuple[Labels, ...] = ()

    @classmethod
    def of(
        cls, examples: Examples, vocabulary: Vocabulary | None, weight: NDArray[np.float32] | None = None
    ) -> Features:
        uses_text = vocabulary is not None or examples.frozen is not None
        present = np.array([t is not None and uses_text for t in examples.texts], dtype=np.bool_)
        ngrams = vocabulary.weigh([t or "" for t in examples.texts]) if vocabulary is not None else None
        if weight is None:
            weight = np.ones(len(examples), np.float32)
        return cls(ngrams, examples.frozen, None, present, examples.image, examples.node, weight, examples.labels)

    def __len__(self) -> int:
        return len(self.node)

    @property
    def image_present(self) -> NDArray[np.bool_]:
        """Shape (N,); False everywhere where the model uses no pictures."""
        return self.image.present if self.image is not None else np.zeros(len(self), np.bool_)

    def usable(self) -> NDArray[np.intp]:
        """Rows that have something to learn from."""
        return np.flatnonzero(self.text_present | self.image_present)


def weights_of(examples: Examples, *, balance: float, value_weight: float) -> NDArray[np.float32]:
    """Weight of each product in the loss, shape (N,), 1 on average.

    Args:
        examples: the training products.
        balance: a product whose label has n products weighs n ** -balance.
        value_weight: a product of value v weighs v ** value_weight; an unknown value counts as the mean.
    """
    weight = np.ones(len(examples), np.float64)
    if balance:
        _, inverse, counts = np.unique(examples.node, return_inverse=True, return_counts=True)
        weight *= counts[inverse] ** -balance
        known = examples.node >= 0
        # What has no category is no large category.
        weight[~known] = weight[known].mean() if known.any() else 1.0
    if value_weight and np.isfinite(examples.value).any():
        value = np.where(np.isfinite(examples.value), examples.value, np.nanmean(examples.value))
        weight *= np.maximum(value, 0.0) ** value_weight
    scaled: NDArray[np.float32] = (weight / max(weight.mean(), 1e-12)).astype(np.float32)
    return scaled


def choose_image_spec(sizes_px: Sequence[tuple[int, int]]) -> ImageSpec:
    """A size for the encoder from the sizes (width, height) of a sample of the catalog's own pictures.

    The long side is the smallest of 128, 160 and 224 that is at least 1.3 times the pictures' median long side:
    an ImageNet encoder gains from small pictures enlarged a little, and a large one is not worth its time on
    thumbnails. The short side follows the median shape, where it is clearly not square.
    """
    width, height = np.median(np.array(sizes_px, dtype=np.float64), axis=0)
    long = next((px for px in (128, 160) if px >= 1.3 * max(width, height)), 224)
    short = {128: 96, 160: 128, 224: 160}[long]
    if height >= 1.25 * width:
        return ImageSpec(height_px=long, width_px=short)
    if width >= 1.25 * height:
        return ImageSpec(height_px=short, width_px=long)
    return ImageSpec(height_px=long, width_px=long)
