"""What is learned from: a split of a catalog as arrays that fit in memory."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from shelver.catalog.split import Part
from shelver.catalog.store import Catalog
from shelver.images import ImageSpec
from shelver.ngrams import Ngrams, Vocabulary
from shelver.pipeline import Embedding
from shelver.product import TextSpec, text_of
from shelver.train.embed import ImageEmbedder

Say = Callable[[str], None]
"""Receives a line for the person who waits."""


@dataclass(frozen=True, slots=True)
class Examples:
    """Labelled products.

    Attributes:
        texts: normalised texts, None where a product has none; N of them.
        image: picture embeddings, float16 (N, D_i), and presence; None where the model uses no pictures.
        node: labelled node in the catalog's taxonomy, shape (N,), int32.
    """

    texts: list[str | None]
    image: Embedding | None
    node: NDArray[np.int32]

    def __len__(self) -> int:
        return len(self.node)

    def __add__(self, other: Examples) -> Examples:
        image = None
        if self.image is not None and other.image is not None:
            image = Embedding(
                np.concatenate([self.image.values, other.image.values]),
                np.concatenate([self.image.present, other.image.present]),
            )
        return Examples(self.texts + other.texts, image, np.concatenate([self.node, other.node]))


def read_examples(
    catalog: Catalog,
    split: Part,
    *,
    text: TextSpec | None,
    embedder: ImageEmbedder | None,
    n_expected: int,
    say: Say,
) -> Examples:
    """Read the labelled products of a split and embed their pictures.

    Args:
        catalog: the catalog.
        split: "train", "validation" or "test".
        text: which fields make the text; None reads no texts.
        embedder: embeds pictures, or remembers that it did; None reads no pictures.
        n_expected: products in the split, for the time left.
        say: told about the progress every few seconds.
    """
    texts: list[str | None] = []
    nodes: list[str] = []
    parts: list[Embedding] = []
    started = told = time.monotonic()
    n_read = 0
    for products in catalog.products(split, images=embedder is not None):
        n_read += len(products)
        labelled = [p for p in products if p.node_id is not None]
        texts += [text_of(p, text) if text else None for p in labelled]
        nodes += [p.node_id for p in labelled if p.node_id is not None]
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
    return Examples(texts, image, catalog.taxonomy.indices(nodes))


@dataclass(frozen=True, slots=True)
class Features:
    """Examples as the network takes them.

    Attributes:
        ngrams: weighted n-grams of the texts; None where the model uses no texts.
        text_present: shape (N,), bool.
        image: as in `Examples`.
        node: shape (N,), int32.
    """

    ngrams: Ngrams | None
    text_present: NDArray[np.bool_]
    image: Embedding | None
    node: NDArray[np.int32]

    @classmethod
    def of(cls, examples: Examples, vocabulary: Vocabulary | None) -> Features:
        present = np.array([t is not None for t in examples.texts], dtype=np.bool_)
        ngrams = vocabulary.weigh([t or "" for t in examples.texts]) if vocabulary is not None else None
        return cls(ngrams, present, examples.image, examples.node)

    def __len__(self) -> int:
        return len(self.node)

    def usable(self) -> NDArray[np.intp]:
        """Rows that have something to learn from."""
        has = self.text_present if self.ngrams is not None else np.zeros(len(self), np.bool_)
        return np.flatnonzero(has | self.image.present if self.image is not None else has)


def take(ngrams: Ngrams, rows: NDArray[np.intp]) -> Ngrams:
    """The bags of some rows, in their order."""
    lengths = np.diff(ngrams.offsets)[rows]
    offsets = np.zeros(len(rows) + 1, np.int64)
    np.cumsum(lengths, out=offsets[1:])
    source = np.arange(offsets[-1]) + np.repeat(ngrams.offsets[rows] - offsets[:-1], lengths)
    return Ngrams(ngrams.ids[source], ngrams.weights[source], offsets)


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
