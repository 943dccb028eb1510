"""A model folder, ready to answer: the four stages called one after the other."""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from shelver import registry
from shelver.attributes import EMPTY, Vocabulary
from shelver.decide import DEEPEST, ERROR, Applying, Policy, Predictions, Probabilities, concatenate
from shelver.errors import InputError, ModelError
from shelver.pipeline.answers import Emb2Prob, Prob2Pred, sibling_groups
from shelver.pipeline.embedding import Embedding
from shelver.pipeline.image import Image2Emb, Prepared
from shelver.pipeline.session import available_cores
from shelver.pipeline.text import Text2Emb
from shelver.product import Product, TextSpec, text_of
from shelver.registry import Manifest
from shelver.taxonomy import Taxonomy

BATCH_PRODUCTS: Final = 256
"""Products a batch: larger ones fall out of the processor's caches."""


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
        vocabulary = Vocabulary.load(path / registry.ATTRIBUTES) if manifest.head.attributes else EMPTY
        text, image = manifest.text, manifest.image
        return cls(
            manifest,
            Text2Emb.open(path, text, threads=threads) if text else None,
            Image2Emb.open(path, image, threads=threads) if image else None,
            Emb2Prob.open(path, manifest, groups, vocabulary, threads=threads),
            Prob2Pred(taxonomy, groups, Applying.of(vocabulary, taxonomy)),
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
            prepared, picture_errors = self.decode([product.images for product in products])
            image = self.image2emb.embed_prepared(prepared)
        return Embedded(text, image, picture_errors)

    def decode(self, pictures: Sequence[Sequence[bytes]]) -> tuple[list[list[Prepared]], tuple[str | None, ...]]:
        """Prepare the encoded pictures of N products, several at a time; unusable ones are left out and named."""
        assert self.image2emb is not None
        one = self.image2emb.prepare
        flat = [data for of_one in pictures for data in of_one]
        results = iter(list(self._decoders.map(one, flat)) if len(flat) > 1 else [one(data) for data in flat])
        prepared: list[list[Prepared]] = []
        errors: list[str | None] = []
        for of_one in pictures:
            outcomes = [next(results) for _ in of_one]
            prepared.append([outcome for outcome in outcomes if isinstance(outcome, Prepared)])
            errors.append(next((outcome for outcome in outcomes if isinstance(outcome, str)), None))
        return prepared, tuple(errors)

    def __call__(self, products: Sequence[Product], *, policy: Policy = DEEPEST) -> Predictions:
        """Put N products on their shelves.

        A product lacks its text or its picture, and is answered from the other; one that has nothing this model
        can use is not answered and carries an error code.
        """
        if isinstance(products, Product):
            raise InputError(
                "one Product", allowed="a sequence of them", remedy="Call classifier([product]) and take [0]."
            )
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
        """Decide N products whose probabilities are there already; says why some cannot be."""
        picture_errors = embedded.picture_errors
        predictions = self.prob2pred(probs, policy)
        errors = tuple(
            self._why_not(product, picture_error) if outcome == ERROR else None
            for outcome, product, picture_error in zip(
                predictions.outcome.tolist(), products, picture_errors, strict=True
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
