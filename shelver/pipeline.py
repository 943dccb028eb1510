"""The four stages of an answer, each with its own files, and the Classifier that calls them.

::

    texts  ─► Text2Emb ──┐
                         ├─► Emb2Prob ─► Prob2Pred ─► Predictions
    images ─► Image2Emb ─┘

The only home of ONNX Runtime. Nothing here touches the network; everything is safe to call from several threads.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Final

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from PIL.Image import Image, fromarray

from shelver import registry
from shelver.calibrate import MODALITIES, Calibration
from shelver.decide import DEEPEST, Policy, Predictions, Probabilities, decide
from shelver.errors import ImageError, ModelError, ShapeError
from shelver.images import ImageSpec, decode, fit, pixels
from shelver.ngrams import Ngrams, Vocabulary
from shelver.product import Product, TextSpec, text_of
from shelver.registry import Manifest
from shelver.taxonomy import SiblingGroups, Taxonomy

BATCH_PRODUCTS: Final = 256
"""Products a batch: larger ones fall out of the processor's caches."""
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


@dataclass(frozen=True, slots=True)
class Embedded:
    """The embeddings of N products.

    Attributes:
        text, image: None where the model does not use that kind.
        picture_errors: for each product the code of its first unusable picture, or None.
    """

    text: Embedding | None
    image: Embedding | None
    picture_errors: tuple[str | None, ...]


def available_cores() -> int:
    """Processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _session(path: Path, threads: int | None) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = threads or available_cores()
    options.inter_op_num_threads = 1
    # Spinning workers burn a core between two small requests.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def run_file(path: Path, feed: Mapping[str, NDArray[np.generic]]) -> list[NDArray[np.float32]]:
    """Run one ONNX file once, as any stage would; the export proves its files with it."""
    results: list[NDArray[np.float32]] = _session(path, None).run(None, dict(feed))
    return results


class Text2Emb:
    """Texts to embeddings: hashed n-grams, then a bag of their learned vectors (`text2emb.onnx`)."""

    def __init__(self, session: onnxruntime.InferenceSession, vocabulary: Vocabulary, width: int) -> None:
        self._session = session
        self._vocabulary = vocabulary
        self.width = width

    @classmethod
    def open(cls, folder: Path, stage: registry.TextStage, *, threads: int | None = None) -> Text2Emb:
        vocabulary = Vocabulary.load(folder / registry.NGRAMS, stage.ngrams)
        return cls(_session(folder / registry.TEXT2EMB, threads), vocabulary, stage.width)

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
        return cls(_session(path, threads), spec, width)

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


class Emb2Prob:
    """Embeddings to calibrated probabilities on the tree (`emb2prob.onnx` gives raw scores among siblings)."""

    def __init__(
        self,
        session: onnxruntime.InferenceSession,
        groups: SiblingGroups,
        calibration: Calibration,
        *,
        text_width: int | None,
        image_width: int | None,
    ) -> None:
        self._session = session
        self.groups = groups
        self.text_width = text_width
        self.image_width = image_width
        self._temperatures = [
            np.asarray(calibration.temperatures[modality], np.float32) for modality in MODALITIES
        ]

    @classmethod
    def open(
        cls, folder: Path, manifest: Manifest, groups: SiblingGroups, *, threads: int | None = None
    ) -> Emb2Prob:
        return cls(
            _session(folder / registry.EMB2PROB, threads),
            groups,
            manifest.calibration,
            text_width=manifest.text.width if manifest.text else None,
            image_width=manifest.image.width if manifest.image else None,
        )

    def __call__(self, text: Embedding | None, image: Embedding | None) -> Probabilities:
        """Probabilities of N products.

        Args:
            text, image: embeddings; None where the model, or the caller, has none of that kind.

        Raises:
            ShapeError: widths or lengths that do not fit the model.
        """
        scores, modality = self.scores(text, image)
        nodes = np.zeros((len(modality), int((~self.groups.is_here).sum())), np.float32)
        for code, temperatures in enumerate(self._temperatures, start=1):
            of_code = modality == code
            if of_code.all():
                return Probabilities(self.groups.distribution(scores, temperatures), modality)
            if of_code.any():
                nodes[of_code] = self.groups.distribution(scores[of_code], temperatures)
        return Probabilities(nodes, modality)

    def scores(
        self, text: Embedding | None, image: Embedding | None
    ) -> tuple[NDArray[np.float32], NDArray[np.int8]]:
        """Raw scores of the slots, shape (N, M), and what each row was scored from, as in `Probabilities`."""
        given = [e for e in (text, image) if e is not None]
        n = len(given[0].values) if given else 0
        feed: dict[str, NDArray[np.float32]] = {}
        modality = np.zeros(n, np.int8)
        for name, embedding, width, bit in (
            ("text", text, self.text_width, 1),
            ("image", image, self.image_width, 2),
        ):
            if width is None:
                continue
            if embedding is None:
                embedding = Embedding.absent(n, width)
            if embedding.values.shape != (n, width) or embedding.present.shape != (n,):
                raise ShapeError(
                    f"{name} embeddings of shape {embedding.values.shape}",
                    allowed=f"({n}, {width})",
                    remedy="Take them from this model's own stages.",
                )
            feed[name] = embedding.values
            feed[f"{name}_present"] = embedding.present.astype(np.float32)[:, None]
            modality |= (embedding.present * np.int8(bit)).astype(np.int8)
        (scores,) = self._session.run(None, feed)
        return scores, modality


class Prob2Pred:
    """Probabilities to decisions; owns the tree and no model."""

    def __init__(self, taxonomy: Taxonomy, groups: SiblingGroups) -> None:
        self.taxonomy = taxonomy
        self.groups = groups

    def __call__(self, probs: Probabilities, policy: Policy = DEEPEST) -> Predictions:
        """Decide N products by a policy; see `shelver.decide.decide`."""
        return decide(probs, self.taxonomy, self.groups, policy)


class Classifier:
    """A model folder, ready to answer.

    Attributes:
        manifest: what the folder says of itself.
        model_version: twelve hex digits that name the model.
        text2emb, image2emb: None where the model does not use texts, or pictures.
        emb2prob, prob2pred: the other two stages.
    """

    def __init__(
        self,
        manifest: Manifest,
        text2emb: Text2Emb | None,
        image2emb: Image2Emb | None,
        emb2prob: Emb2Prob,
        prob2pred: Prob2Pred,
    ) -> None:
        self.manifest = manifest
        self.model_version = manifest.model_version
        self.text2emb = text2emb
        self.image2emb = image2emb
        self.emb2prob = emb2prob
        self.prob2pred = prob2pred
        self._text_spec: TextSpec | None = manifest.text.spec if manifest.text else None
        self._decoders = ThreadPoolExecutor(available_cores(), thread_name_prefix="shelver-decode")

    @classmethod
    def open(
        cls, folder: str | os.PathLike[str], *, threads: int | None = None, verify: bool = True
    ) -> Classifier:
        """Open a model folder.

        Args:
            folder: as `shelver train` writes it.
            threads: threads for each ONNX session; all available cores by default.
            verify: check the SHA-256 of every core file first.

        Raises:
            ModelError: the folder is not a whole, unchanged model.
        """
        path = Path(folder)
        manifest = registry.read_manifest(path, verify=verify)
        taxonomy = Taxonomy.load(path / registry.TAXONOMY)
        if taxonomy.version != manifest.taxonomy_version:
            raise ModelError(
                f"{path / registry.TAXONOMY} is tree {taxonomy.version}, the model was trained for "
                f"{manifest.taxonomy_version}",
                allowed="the tree of the model",
                remedy="Copy the whole model folder again from its source.",
            )
        groups = sibling_groups(taxonomy, manifest.head.stops)
        text, image = manifest.text, manifest.image
        return cls(
            manifest,
            Text2Emb.open(path, text, threads=threads) if text else None,
            Image2Emb.open(path / registry.IMAGE2EMB, image.spec, image.width, threads=threads) if image else None,
            Emb2Prob.open(path, manifest, groups, threads=threads),
            Prob2Pred(taxonomy, groups),
        )

    @property
    def taxonomy(self) -> Taxonomy:
        return self.prob2pred.taxonomy

    def embed(self, products: Sequence[Product]) -> Embedded:
        """Embeddings of N products, as far as the model uses texts and pictures."""
        text = image = None
        picture_errors: tuple[str | None, ...] = (None,) * len(products)
        if self.text2emb is not None and self._text_spec is not None:
            text = self.text2emb([text_of(product, self._text_spec) for product in products])
        if self.image2emb is not None:
            decoded, picture_errors = self.decode([product.images for product in products])
            image = self.image2emb(decoded)
        return Embedded(text, image, picture_errors)

    def decode(self, pictures: Sequence[Sequence[bytes]]) -> tuple[list[list[Image]], tuple[str | None, ...]]:
        """Decode the encoded pictures of N products, several at a time; unusable ones are left out and named."""
        assert self.image2emb is not None
        one = partial(picture, spec=self.image2emb.spec)
        flat = [data for of_one in pictures for data in of_one]
        results = iter(list(self._decoders.map(one, flat)) if len(flat) > 1 else [one(data) for data in flat])
        images: list[list[Image]] = []
        errors: list[str | None] = []
        for of_one in pictures:
            outcomes = [next(results) for _ in of_one]
            images.append([outcome for outcome in outcomes if isinstance(outcome, Image)])
            errors.append(next((outcome for outcome in outcomes if isinstance(outcome, str)), None))
        return images, tuple(errors)

    def __call__(self, products: Sequence[Product], *, policy: Policy = DEEPEST) -> Predictions:
        """Put N products on their shelves.

        A product lacks its text or its picture, and is answered from the other; one that has nothing this model
        can use is not answered and carries an error code.
        """
        parts = []
        for start in range(0, max(len(products), 1), BATCH_PRODUCTS):
            batch = products[start : start + BATCH_PRODUCTS]
            embedded = self.embed(batch)
            probs = self.emb2prob(embedded.text, embedded.image)
            parts.append(self.decide(batch, embedded, probs, policy=policy))
        return concatenate(parts)

    def decide(
        self, products: Sequence[Product], embedded: Embedded, probs: Probabilities, *, policy: Policy = DEEPEST
    ) -> Predictions:
        """Decide N products whose probabilities are there already; says of each unanswered one why."""
        picture_errors = embedded.picture_errors
        predictions = self.prob2pred(probs, policy)
        errors = tuple(
            None if ok else self._why_not(product, picture_error)
            for ok, product, picture_error in zip(
                predictions.answered.tolist(), products, picture_errors, strict=True
            )
        )
        return replace(predictions, errors=errors, picture_errors=picture_errors)

    def _why_not(self, product: Product, picture_error: str | None) -> str:
        if picture_error is not None:
            return picture_error
        if self.image2emb is None and (product.images or product.image_urls):
            return "model_needs_text"
        if product.image_urls and not product.images and self.image2emb is not None:
            return "image_not_downloaded"
        if self.text2emb is None and (product.title or product.description or product.brand):
            return "model_needs_image"
        return "empty_product"


class ImageText2Prob:
    """Texts and decoded pictures to probabilities: the first three stages as one."""

    def __init__(self, text2emb: Text2Emb | None, image2emb: Image2Emb | None, emb2prob: Emb2Prob) -> None:
        self.text2emb = text2emb
        self.image2emb = image2emb
        self.emb2prob = emb2prob

    def __call__(self, texts: Sequence[str | None], images: Sequence[Sequence[Image]]) -> Probabilities:
        """Probabilities of N products from N texts and the pictures of each."""
        text = self.text2emb(texts) if self.text2emb is not None else None
        image = self.image2emb(images) if self.image2emb is not None else None
        return self.emb2prob(text, image)


class Emb2Pred:
    """Embeddings to decisions: the last two stages as one, for who keeps embeddings and changes policies."""

    def __init__(self, emb2prob: Emb2Prob, prob2pred: Prob2Pred) -> None:
        self.emb2prob = emb2prob
        self.prob2pred = prob2pred

    def __call__(
        self, text: Embedding | None, image: Embedding | None, *, policy: Policy = DEEPEST
    ) -> Predictions:
        """Decisions for N products."""
        return self.prob2pred(self.emb2prob(text, image), policy)


class ImageText2Pred:
    """Texts and decoded pictures to decisions: all four stages as one."""

    def __init__(self, imagetext2prob: ImageText2Prob, prob2pred: Prob2Pred) -> None:
        self.imagetext2prob = imagetext2prob
        self.prob2pred = prob2pred

    def __call__(
        self, texts: Sequence[str | None], images: Sequence[Sequence[Image]], *, policy: Policy = DEEPEST
    ) -> Predictions:
        """Decisions for N products from N texts and the pictures of each."""
        return self.prob2pred(self.imagetext2prob(texts, images), policy)


def sibling_groups(taxonomy: Taxonomy, stops: Sequence[str]) -> SiblingGroups:
    """Sibling groups of a model whose products may stop at the inner nodes with these ids."""
    may_stop = np.zeros(taxonomy.n_nodes, np.bool_)
    may_stop[taxonomy.indices(list(stops))] = True
    return SiblingGroups.of(taxonomy, may_stop)


def concatenate(parts: Sequence[Predictions]) -> Predictions:
    """Predictions of several batches of one model as one."""
    if len(parts) == 1:
        return parts[0]
    return Predictions(
        taxonomy=parts[0].taxonomy,
        answered=np.concatenate([p.answered for p in parts]),
        node=np.concatenate([p.node for p in parts]),
        confidence=np.concatenate([p.confidence for p in parts]),
        level_confidence=np.concatenate([p.level_confidence for p in parts]),
        top_node=np.concatenate([p.top_node for p in parts]),
        top_confidence=np.concatenate([p.top_confidence for p in parts]),
        modality=np.concatenate([p.modality for p in parts]),
        errors=tuple(chain.from_iterable(p.errors for p in parts)),
        picture_errors=tuple(chain.from_iterable(p.picture_errors for p in parts)),
    )
