"""Probabilities in, predictions out: the columns that decoders read and write."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import Final, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from shelver.calibrate import MODALITIES, Modality
from shelver.decide.attributes import AttributeAnswer, AttributeColumn, answers_of, concatenate_attributes
from shelver.taxonomy import Taxonomy

Outcome = Literal["error", "decided", "suggested", "review", "abstained", "outside"]
OUTCOMES: Final[tuple[Outcome, ...]] = get_args(Outcome)
"""What became of a product: there was nothing to answer from; a node was decided; suggestions were made; a person
is to decide; the policy would rather say nothing; the product belongs nowhere in the tree. `Predictions.outcome`
counts from 0 in this order."""
ERROR, DECIDED, SUGGESTED, REVIEW, ABSTAINED, OUTSIDE = range(len(OUTCOMES))


@dataclass(frozen=True, slots=True)
class Probabilities:
    """A coherent, calibrated distribution on the tree for each product.

    Attributes:
        nodes: P(node | product), shape (N, K), float32; column k is `taxonomy.ids[k]`; a parent is the sum of its
            children and of its own "here"; level 1 sums to 1. Rows without any input are zero.
        modality: what each product was answered from, shape (N,), int8: 0 nothing, 1 text, 2 image, 3 both.
        outside: how strange each product is to the model, shape (N,), float32 in [0, 1]: the share of known
            products that are less strange. None where the model cannot tell.
        attributes: P(value | product) by the attribute's name, shape (N, V), float32; the values of an attribute
            that takes one sum to 1, those of one that takes several stand each for itself. Rows without any input
            are zero.
        sources: by the attribute's name, what carries its most probable value, shape (N,), int8 as `modality`:
            the text alone would have answered it, the picture alone, or both (or only both together).
    """

    nodes: NDArray[np.float32]
    modality: NDArray[np.int8]
    outside: NDArray[np.float32] | None = None
    attributes: Mapping[str, NDArray[np.float32]] = field(default_factory=dict)
    sources: Mapping[str, NDArray[np.int8]] = field(default_factory=dict)


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
        outcome: what became of the product.
        node_id, path: the decided node; None where none was decided.
        confidence: P(the decision is right): that the product stands exactly there where the node is its most
            probable place; that it stands there or below where a decoder stopped above that.
        level_confidence: P(node) of the decided node's ancestors and itself, level 1 first.
        alternatives: the most probable places, best first; none where the policy says nothing of the product.
        modality: "text", "image" or "both"; None where there was nothing to answer from.
        error: a code where the product could not be answered.
        attributes: what is said of each attribute that applies to the decided node, or to the most probable one
            where the outcome is "suggested" or "review".
    """

    outcome: Outcome
    node_id: str | None
    path: str | None
    confidence: float | None
    level_confidence: tuple[float, ...]
    alternatives: tuple[Alternative, ...]
    modality: Modality | None
    error: str | None
    attributes: Mapping[str, AttributeAnswer] = field(default_factory=dict, hash=False)


@dataclass(frozen=True, slots=True)
class Predictions:
    """Decisions for N products, column by column. Where no node was decided, its columns hold 0 and NaN; so do
    those of the suggestions, unless the outcome is "suggested" or "review".

    Attributes:
        taxonomy: the tree that the indices point into.
        answered: whether a node was decided, shape (N,), bool.
        node: decided node, shape (N,), int32.
        confidence: P(the decision is right), as in `Prediction`, shape (N,), float32.
        level_confidence: P(node) of the decided node's lineage, shape (N, L), float32; NaN below the decided node.
        top_node, top_confidence: the best places, best first, shape (N, n_top), int32 and float32.
        modality: shape (N,), int8, as in `Probabilities`.
        errors: a code for each row with nothing to answer from, None for the others.
        picture_errors: for each row, the code of the first picture that could not be used, or None.
        outcome: shape (N,), int8, an index into `OUTCOMES`: 0 nothing to answer from, 1 decided, 2 suggested,
            3 review, 4 abstained, 5 outside.
        attributes: a column for each attribute that the policy answers, by name.
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
    outcome: NDArray[np.int8]
    attributes: Mapping[str, AttributeColumn] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.node)

    def __iter__(self) -> Iterator[Prediction]:
        said = answers_of(self.attributes, 0, len(self))
        return (self._row(i, attributes) for i, attributes in enumerate(said))

    def __getitem__(self, i: int) -> Prediction:
        i = range(len(self))[i]
        return self._row(i, answers_of(self.attributes, i, i + 1)[0])

    def _row(self, i: int, attributes: Mapping[str, AttributeAnswer]) -> Prediction:
        modality = MODALITIES[self.modality[i] - 1] if self.modality[i] else None
        outcome, tree = OUTCOMES[self.outcome[i]], self.taxonomy
        alternatives: tuple[Alternative, ...] = ()
        if outcome in ("decided", "suggested", "review"):
            alternatives = tuple(
                Alternative(tree.ids[k], tree.paths[k], float(p))
                for k, p in zip(self.top_node[i].tolist(), self.top_confidence[i], strict=True)
            )
        if not self.answered[i]:
            return Prediction(outcome, None, None, None, (), alternatives, modality, self.errors[i], attributes)
        node = int(self.node[i])
        levels = tuple(float(p) for p in self.level_confidence[i, : tree.level[node]])
        return Prediction(
            outcome,
            tree.ids[node],
            tree.paths[node],
            float(self.confidence[i]),
            levels,
            alternatives,
            modality,
            None,
            attributes,
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
        outcome=np.concatenate([p.outcome for p in parts]),
        attributes=concatenate_attributes([p.attributes for p in parts], [len(p) for p in parts]),
    )
