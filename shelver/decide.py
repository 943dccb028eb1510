"""From probabilities on the tree to decisions: what a consumer is told.

`decide` knows no model. It sees P(node | product) and a policy, so thresholds and policies change without
retraining and without embedding anything again.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from shelver.calibrate import MODALITIES, Modality
from shelver.errors import ShapeError
from shelver.taxonomy import SiblingGroups, Taxonomy

MAX_ARGMAX: Final = 256
"""Up to so many alternatives, finding them one by one is faster than sorting."""


class Policy(BaseModel):
    """How one consumer wants its decisions made.

    Attributes:
        decoder: "best_leaf" answers with the most probable place where a product can stand: a leaf, or an inner
            node at which products were seen to stop.
        n_top: how many alternatives to list, the decided node included.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    decoder: Literal["best_leaf"] = "best_leaf"
    n_top: int = Field(default=5, ge=1)


DEEPEST = Policy()
"""The default: always the most probable place where products can stand, never an abstention."""


@dataclass(frozen=True, slots=True)
class Probabilities:
    """A coherent, calibrated distribution on the tree for each product.

    Attributes:
        nodes: P(node | product), shape (N, K), float32; column k is `taxonomy.ids[k]`; a parent is the sum of its
            children and of its own "here"; level 1 sums to 1. Rows without any input are zero.
        modality: what each product was answered from, shape (N,), int8: 0 nothing, 1 text, 2 image, 3 both.
    """

    nodes: NDArray[np.float32]
    modality: NDArray[np.int8]


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


def decide(probs: Probabilities, taxonomy: Taxonomy, groups: SiblingGroups, policy: Policy) -> Predictions:
    """Make decisions from probabilities.

    Args:
        probs: the distribution of N products over the K nodes of `taxonomy`.
        taxonomy: the tree.
        groups: its sibling groups; they know at which inner nodes products may stop.
        policy: what the consumer wants.

    Raises:
        ShapeError: `probs.nodes` is not (N, K).
    """
    nodes = probs.nodes
    n, k = len(nodes), taxonomy.n_nodes
    if nodes.ndim != 2 or nodes.shape[1] != k:
        raise ShapeError(
            f"probabilities of shape {nodes.shape}",
            allowed=f"(N, {k}), a column for each node of the tree",
            remedy="Take them from the Emb2Prob stage of the same model folder.",
        )
    places = np.flatnonzero(taxonomy.is_leaf | (groups.here_slot >= 0)).astype(np.int32)
    # Where products stop at leaves alone, P(standing there) is P(node), and nothing has to be subtracted.
    stops_inside = len(places) > np.count_nonzero(taxonomy.is_leaf)
    place_probs = (groups.here(nodes) if stops_inside else nodes).take(places, axis=1)
    n_top = min(policy.n_top, len(places))
    row = np.arange(n)[:, None]
    best = greatest(place_probs, n_top)
    top_node, top_confidence = places[best], place_probs[row, best]

    node = top_node[:, 0].copy()
    answered = probs.modality > 0
    lineage = taxonomy.lineage[node]
    level_confidence = np.where(lineage >= 0, nodes[row, np.maximum(lineage, 0)], np.float32(np.nan))
    confidence = top_confidence[:, 0].copy()
    node[~answered] = 0
    confidence[~answered] = np.nan
    level_confidence[~answered] = np.nan
    top_node[~answered] = 0
    top_confidence[~answered] = np.nan
    return Predictions(
        taxonomy=taxonomy,
        answered=answered,
        node=node,
        confidence=confidence,
        level_confidence=level_confidence,
        top_node=top_node,
        top_confidence=top_confidence,
        modality=probs.modality,
        errors=tuple(None if ok else "empty_product" for ok in answered.tolist()),
        picture_errors=(None,) * n,
    )


def greatest(values: NDArray[np.float32], n: int) -> NDArray[np.intp]:
    """Columns of the n greatest values of each row, greatest first; of equal values the first column first.

    Not a partition: it takes several times as long as a few argmax, and which of several equal values it takes
    differs between processors.
    """
    if n > MAX_ARGMAX:
        return np.argsort(-values, axis=1, kind="stable")[:, :n]
    left = values.copy()
    best = np.empty((len(values), n), dtype=np.intp)
    row = np.arange(len(values))
    for i in range(n):
        best[:, i] = left.argmax(axis=1)
        left[row, best[:, i]] = -np.inf
    return best


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
