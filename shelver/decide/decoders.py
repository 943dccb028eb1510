"""From probabilities on the tree to decisions."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from shelver.decide.policy import Policy
from shelver.decide.predictions import Predictions, Probabilities
from shelver.errors import ShapeError
from shelver.taxonomy import SiblingGroups, Taxonomy

MAX_ARGMAX: Final = 256
"""Up to so many alternatives, finding them one by one is faster than sorting."""


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
