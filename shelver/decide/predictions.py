"""Probabilities in, predictions out: the columns that decoders read and write."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np
from numpy.typing import NDArray

from shelver.calibrate import MODALITIES, Modality
from shelver.taxonomy import Taxonomy


@dataclass(frozen=True, slots=True)
class Probabilities:
    """A coherent, calibrated distribution on the tree for each product.

    Attributes:
        nodes: P(node | product), shape (N, K), float32; column k is `taxonomy.ids[k]`; a parent is the sum of its
            children and of its own "here"; level 1 sums to 1. Rows without any input are zero.
        modality: what each product was answered from, shape (N,), int8: 0 nothing, 1 text, 2 image, 3 both.
        outside: how strange each product is to the model, shape (N,), float32 in [0, 1]: the share of known
            products that are less strange. None where the model cannot tell.
    """

    nodes: NDArray[np.float32]
    modality: NDArray[np.int8]
    outside: NDArray[np.float32] | None = None


@dataclass(frozen=True, slots=True)
class Alternative:
    """One suggestion."""

    node_id: str
    path: str
    confidence: float


@dataclass(frozen=True, slots=True)
class Prediction:
    """One product's answer, as a person reads it.

    Attributes:
        node_id, path: the decided node; None where there is no answer.
        confidence: P(the product stands exactly there). At an inner node this is less than its level confidence,
            which counts what may lie below it too.
        level_confidence: P(node) of the decided node's ancestors and itself, level 1 first.
        alternatives: the most probable places, best first.
        modality: "text", "image" or "both"; None where there was nothing to answer from.
        error: a code where the product could not be answered.
    """

    node_id: str | None
    path: str | None
    confidence: float | None
    level_confidence: tuple[float, ...]
    alternatives: tuple[Alternative, ...]
    modality: Modality | None
    error: str | None


@dataclass(frozen=True, slots=True)
class Predictions:
    """Decisions for N products, column by column. Rows that are not answered hold 0 and NaN.

    Attributes:
        taxonomy: the tree that the indices point into.
        answered: shape (N,), bool.
        node: decided node, shape (N,), int32.
        confidence: P(the product stands exactly at the decided node), shape (N,), float32.
        level_confidence: P(node) of the decided node's lineage, shape (N, L), float32; NaN below the decided node.
        top_node, top_confidence: the best places, best first, shape (N, n_top), int32 and float32.
        modality: shape (N,), int8, as in `Probabilities`.
        errors: a code for each row that is not answered, None for the others.
        picture_errors: for each row, the code of the first picture that could not be used, or None.
    """

    taxonomy: Taxonomy
    answered: NDArray[np.bool_]
    node: NDArray[np.int32]
    confidence: NDArray[np.float32]
    level_confidence: NDArray[np.float32]
    top_node: NDArray[np.int32]
    top_confidence: NDArray[np.float32]
    modality: NDArray[np.int8]
    errors: tuple[str | None, ...]
    picture_errors: tuple[str | None, ...]

    def __len__(self) -> int:
        return len(self.node)

    def __iter__(self) -> Iterator[Prediction]:
        return (self[i] for i in range(len(self)))

    def __getitem__(self, i: int) -> Prediction:
        modality = MODALITIES[self.modality[i] - 1] if self.modality[i] else None
        if not self.answered[i]:
            return Prediction(None, None, None, (), (), modality, self.errors[i])
        tree, node = self.taxonomy, int(self.node[i])
        alternatives = tuple(
            Alternative(tree.ids[k], tree.paths[k], float(p))
            for k, p in zip(self.top_node[i].tolist(), self.top_confidence[i], strict=True)
        )
        levels = tuple(float(p) for p in self.level_confidence[i, : tree.level[node]])
        return Prediction(
            tree.ids[node], tree.paths[node], float(self.confidence[i]), levels, alternatives, modality, None
        )


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
