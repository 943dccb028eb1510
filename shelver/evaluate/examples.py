"""The answers worth a look, kept while the products stream by, and small pictures of them."""

from __future__ import annotations

import io
from collections.abc import Collection, Hashable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from shelver.calibrate import MODALITIES
from shelver.catalog.split import Part
from shelver.catalog.store import Catalog
from shelver.decide import Predictions
from shelver.errors import ImageError
from shelver.evaluate.parts import Example, Examples
from shelver.images import decode
from shelver.product import Product
from shelver.taxonomy import Taxonomy

N_EXAMPLES: Final = 12
MAX_TITLE_CHARS: Final = 200
THUMBNAIL_PX: Final = 96
_QUALITY: Final = 72


@dataclass(slots=True)
class Best:
    """The best few candidates, at most one a key, whatever the order they come in.

    A key that fell out was beaten by `size` others and can only come back with a better candidate, so nothing
    has to be remembered of it.

    Attributes:
        size: the most that are kept.
    """

    size: int
    _kept: dict[Hashable, tuple[float, int, Example]] = field(default_factory=dict)
    _n_offered: int = 0

    def wants(self, score: float) -> bool:
        """Whether a candidate of this score could be kept."""
        return len(self._kept) < self.size or score > self._worst()[1]

    def offer(self, key: Hashable, score: float, example: Example) -> None:
        """Keep a candidate if it is among the best; of equal ones the first."""
        self._n_offered += 1
        kept = self._kept.get(key)
        if kept is not None and kept[0] >= score:
            return
        if kept is None and len(self._kept) >= self.size:
            worst, worst_score = self._worst()
            if score <= worst_score:
                return
            del self._kept[worst]
        self._kept[key] = (score, -self._n_offered, example)

    def best_first(self) -> tuple[Example, ...]:
        return tuple(
            example for _, _, example in sorted(self._kept.values(), key=lambda one: one[:2], reverse=True)
        )

    def _worst(self) -> tuple[Hashable, float]:
        key = min(self._kept, key=lambda of: self._kept[of][:2])
        return key, self._kept[key][0]


@dataclass(slots=True)
class ExampleKeeper:
    """Keeps the most confident right answers, the most confident wrong ones, and the least confident.

    Attributes:
        taxonomy: the model's tree.
    """

    taxonomy: Taxonomy
    _right: Best = field(default_factory=lambda: Best(N_EXAMPLES))
    _wrong: Best = field(default_factory=lambda: Best(N_EXAMPLES))
    _unsure: Best = field(default_factory=lambda: Best(N_EXAMPLES))

    def add(self, products: Sequence[Product], truth: NDArray[np.int32], said: Predictions) -> None:
        """Look at a batch.

        Args:
            products: N products.
            truth: their true nodes, shape (N,).
            said: what was decided of them.
        """
        for i in np.flatnonzero(said.answered).tolist():
            confidence, true, node = float(said.confidence[i]), int(truth[i]), int(said.node[i])
            sure, key = (self._right, (node,)) if true == node else (self._wrong, (true, node))
            for kept, of, score in ((sure, key, confidence), (self._unsure, (true,), -confidence)):
                if kept.wants(score):
                    kept.offer(
                        of, score, self._example(products[i], true, node, confidence, int(said.modality[i]))
                    )

    def examples(self) -> Examples:
        return Examples(
            right=self._right.best_first(), wrong=self._wrong.best_first(), unsure=self._unsure.best_first()
        )

    def _example(self, product: Product, true: int, node: int, confidence: float, modality: int) -> Example:
        words = product.title or product.description or product.brand
        return _example(self.taxonomy, product.product_id, words, true, node, confidence, modality)


def examples_of_rows(
    catalog: Catalog, split: Part, rows: Collection[int], truth: NDArray[np.int32], said: Predictions
) -> dict[int, Example]:
    """Some products as examples; their texts are read again, since nobody holds the texts of a whole split.

    Args:
        catalog: where the products are.
        split: their part.
        rows: which of its labelled products, counted from 0 in the catalog's order; all answered.
        truth: true nodes of the labelled products, shape (N,).
        said: what was decided of them.
    """
    found: dict[int, Example] = {}
    wanted = np.sort(np.fromiter(rows, np.intp, len(rows)))
    n_before = 0
    columns = ["product_id", "title", "description", "brand", "node_id"]
    for batch in catalog.tables(split, columns=columns):
        if len(found) == len(wanted):
            break
        labelled = batch.filter(pc.is_valid(batch["node_id"]))
        here = wanted[(wanted >= n_before) & (wanted < n_before + labelled.num_rows)]
        for row, one in zip(here.tolist(), labelled.take(pa.array(here - n_before)).to_pylist(), strict=True):
            words = one["title"] or one["description"] or one["brand"]
            true, node, modality = int(truth[row]), int(said.node[row]), int(said.modality[row])
            confidence = float(said.confidence[row])
            found[row] = _example(said.taxonomy, one["product_id"], words, true, node, confidence, modality)
        n_before += labelled.num_rows
    return found


def _example(
    tree: Taxonomy, product_id: str, words: str | None, true: int, node: int, confidence: float, modality: int
) -> Example:
    return Example(
        product_id=product_id,
        title=words[:MAX_TITLE_CHARS] if words else None,
        true_path=tree.paths[true],
        predicted_path=tree.paths[node],
        confidence=round(confidence, 6),
        modality=MODALITIES[modality - 1],
    )


def thumbnails(catalog: Catalog, split: Part, product_ids: Iterable[str]) -> dict[str, bytes]:
    """Small pictures of some products, made from the first of each product's pictures that can be decoded.

    Args:
        catalog: where the products are.
        split: their part.
        product_ids: which.

    Returns:
        JPEG bytes, at most 96 pixels a side, by product id; products without a usable picture are left out.
    """
    wanted = pa.array(sorted(set(product_ids)), pa.string())
    found: dict[str, bytes] = {}
    if not len(wanted):
        return found
    for batch in catalog.tables(split, columns=["product_id", "images"], batch_rows=256):
        for one in batch.filter(pc.is_in(batch["product_id"], value_set=wanted)).to_pylist():
            picture = next((small for data in one["images"] or () if (small := _small(data)) is not None), None)
            if picture is not None:
                found.setdefault(one["product_id"], picture)
    return found


def _small(data: bytes) -> bytes | None:
    try:
        image = decode(data, target_px=(THUMBNAIL_PX, THUMBNAIL_PX))
    except ImageError:
        return None
    image.thumbnail((THUMBNAIL_PX, THUMBNAIL_PX))
    file = io.BytesIO()
    image.save(file, "JPEG", quality=_QUALITY, optimize=True)
    return file.getvalue()
