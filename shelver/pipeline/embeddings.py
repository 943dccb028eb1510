"""Texts to embeddings, pictures to embeddings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from PIL.Image import Image, fromarray

from shelver import registry
from shelver.errors import ImageError
from shelver.images import ImageSpec, decode, fit, pixels
from shelver.ngrams import Ngrams, Vocabulary
from shelver.pipeline.session import open_session

BATCH_PICTURES: Final = 16
MAX_BAG: Final = 1 << 16
"""Entries of a padded batch of n-grams; bounds the memory that one long text can claim."""


@dataclass(frozen=True, slots=True)
class Embedding:
    """One vector a product.

    Attributes:
        values: shape (N, D), float32; rows that are not present are zero.
        present: shape (N,), bool; False where the product had no text (or no usable picture).
    """

    values: NDArray[np.float32]
    present: NDArray[np.bool_]

    @classmethod
    def absent(cls, n: int, width: int) -> Embedding:
        return cls(np.zeros((n, width), np.float32), np.zeros(n, np.bool_))


class Text2Emb:
    """Texts to embeddings: hashed n-grams, then a bag of their learned vectors (`text2emb.onnx`)."""

    def __init__(self, session: onnxruntime.InferenceSession, vocabulary: Vocabulary, width: int) -> None:
        self._session = session
        self._vocabulary = vocabulary
        self.width = width

    @classmethod
    def open(cls, folder: Path, stage: registry.TextStage, *, threads: int | None = None) -> Text2Emb:
        vocabulary = Vocabulary.load(folder / registry.NGRAMS, stage.ngrams)
        return cls(open_session(folder / registry.TEXT2EMB, threads), vocabulary, stage.width)

    def __call__(self, texts: Sequence[str | None]) -> Embedding:
        """Embed N texts; None gives a row that is not present."""
        present = np.array([t is not None for t in texts], dtype=np.bool_)
        bags = self._vocabulary.weigh([t or "" for t in texts])
        values = np.zeros((len(texts), self.width), np.float32)
        for rows, ids, weights in padded(bags, np.flatnonzero(present)):
            (values[rows],) = self._session.run(None, {"ids": ids, "weights": weights})
        return Embedding(values, present)


def padded(
    bags: Ngrams, rows: NDArray[np.intp]
) -> list[tuple[NDArray[np.intp], NDArray[np.int64], NDArray[np.float32]]]:
    """Bags as rectangles, texts of like length together, at most `MAX_BAG` entries each.

    Returns:
        (rows, ids, weights) with shapes (n,), (n, T), (n, T); padding has weight 0.
    """
    lengths = np.diff(bags.offsets)[rows]
    order = np.argsort(lengths, kind="stable")
    rectangles = []
    start = 0
    while start < len(order):
        stop = start + 1
        # Sorted by length, so the last one is the longest; growing by a quarter at most wastes little padding.
        widest = max(int(lengths[order[start]] * 1.25) + 8, int(lengths[order[start]]))
        while (
            stop < len(order)
            and lengths[order[stop]] <= widest
            and (stop + 1 - start) * lengths[order[stop]] <= MAX_BAG
        ):
            stop += 1
        chosen = order[start:stop]
        width = max(int(lengths[chosen[-1]]), 1)
        inside = np.arange(width) < lengths[chosen][:, None]
        ids = np.zeros((len(chosen), width), np.int64)
        weights = np.zeros((len(chosen), width), np.float32)
        source = (bags.offsets[rows[chosen]][:, None] + np.arange(width))[inside]
        ids[inside] = bags.ids[source]
        weights[inside] = bags.weights[source]
        rectangles.append((rows[chosen], ids, weights))
        start = stop
    return rectangles


class Image2Emb:
    """Pictures to embeddings (`image2emb.onnx`); several pictures of one product are averaged."""

    def __init__(self, session: onnxruntime.InferenceSession, spec: ImageSpec, width: int) -> None:
        self._session = session
        self.spec = spec
        self.width = width

    @classmethod
    def open(cls, path: Path, spec: ImageSpec, width: int, *, threads: int | None = None) -> Image2Emb:
        return cls(open_session(path, threads), spec, width)

    def pictures(self, images: Sequence[Image]) -> NDArray[np.float32]:
        """Embed pictures one by one, shape (n, D)."""
        values = np.zeros((len(images), self.width), np.float32)
        for start in range(0, len(images), BATCH_PICTURES):
            batch = images[start : start + BATCH_PICTURES]
            (values[start : start + len(batch)],) = self._session.run(None, {"pixels": pixels(batch, self.spec)})
        return values

    def __call__(self, images: Sequence[Sequence[Image]]) -> Embedding:
        """Embed the pictures of N products; an empty sequence gives a row that is not present."""
        counts = np.array([len(of_one) for of_one in images], dtype=np.intp)
        return pooled(self.pictures([image for of_one in images for image in of_one]), counts)


def picture(data: bytes, spec: ImageSpec) -> Image | str:
    """An encoded picture at the encoder's size, or the code that says why it cannot be used.

    Fitted at once, so that a batch never holds pictures at their full size.
    """
    try:
        decoded = decode(data, target_px=(spec.width_px, spec.height_px), background=spec.background)
    except ImageError as error:
        return error.code
    return fromarray(fit(decoded, spec))


def pooled(values: NDArray[np.float32], counts: NDArray[np.intp]) -> Embedding:
    """Mean of each product's picture embeddings.

    Args:
        values: embeddings of all pictures, shape (counts.sum(), D), product after product.
        counts: pictures of each product, shape (N,).
    """
    result = Embedding.absent(len(counts), values.shape[1])
    product = np.repeat(np.arange(len(counts)), counts)
    np.add.at(result.values, product, values)
    np.greater(counts, 0, out=result.present)
    result.values[result.present] /= counts[result.present, None]
    return result
