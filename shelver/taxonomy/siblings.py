"""Scores among siblings to one coherent distribution over the whole tree."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from shelver.errors import ShapeError
from shelver.taxonomy.tree import Taxonomy

Floats = NDArray[np.float32]
Ints = NDArray[np.int32]

_NARROW = 60.0
"""Scores that lie so near each other keep enough digits less one greatest score for all groups, which is much
faster to find than one for each: exp(-60) is a normal float32."""
BLOCK = 32
"""Products a pass: so many rows of scores of a tree of some thousand nodes stay in a core's cache."""


@dataclass(frozen=True, eq=False)
class SiblingGroups:
    """The slots that a tree head scores: every node, plus one "here" slot for each inner node at which
    products may stop.

    K nodes, L levels, G groups, M slots. A group holds the children of one inner node (or of the root) and
    then, where products may stop at that node, its here slot. Groups are contiguous, cover all slots and
    stand in breadth-first order of the parent, the root's first; so slots of one level are contiguous too.

    Attributes:
        taxonomy: the tree.
        n_slots: M, K + number of stops.
        start: first slot of each group, shape (G,).
        size: slots of each group, shape (G,).
        level: level of the group's nodes, from 1, shape (G,); the here slot of a node of level l lies in
            the group of its children, level l + 1.
        slot_node: the node that a slot stands for, for a here slot the inner node itself, shape (M,).
        is_here: shape (M,).
        slot_group: shape (M,).
        node_slot: slot of each node, shape (K,).
        here_slot: slot of each node's here, -1 where products may not stop and at leaves, shape (K,).
        target_slots: for a label at node k the slots whose conditional probabilities multiply to
            P(label): those of its lineage, then its here slot if it has one; -1 padded, shape (K, L + 1).
    """

    taxonomy: Taxonomy
    n_slots: int
    start: Ints
    size: Ints
    level: Ints
    slot_node: Ints
    is_here: NDArray[np.bool_]
    slot_group: Ints
    node_slot: Ints
    here_slot: Ints
    target_slots: Ints

    @classmethod
    def of(cls, taxonomy: Taxonomy, stops: NDArray[np.bool_] | None = None) -> SiblingGroups:
        """Lays out the slots.

        Args:
            taxonomy: the tree.
            stops: inner nodes at which products may stop, shape (K,); ignored at leaves. None: nowhere.

        Raises:
            ShapeError: `stops` is not (K,).
        """
        k, parent = taxonomy.n_nodes, taxonomy.parent
        stop = np.zeros(k, dtype=bool) if stops is None else np.asarray(stops, dtype=bool)
        if stop.shape != (k,):
            raise ShapeError(
                f"stops of shape {stop.shape}",
                allowed=f"({k},), one for each node",
                remedy="Use this tree's.",
            )
        stop = stop & ~taxonomy.is_leaf
        inner = np.flatnonzero(~taxonomy.is_leaf)
        n_first = int(np.count_nonzero(parent < 0))
        size = np.concatenate([[n_first], taxonomy.n_children[inner] + stop[inner]])
        start = np.cumsum(size) - size
        # Each here slot pushes the groups of all later parents up by one.
        stops_before = np.concatenate([[0], np.cumsum(stop)])
        node_slot = np.arange(k) + stops_before[np.maximum(parent, 0)] * (parent >= 0)
        here_slot = np.full(k, -1)
        here_slot[inner] = np.where(stop[inner], (start + size)[1:] - 1, -1)
        n_slots = int(size.sum())
        slot_node = np.empty(n_slots, dtype=np.int32)
        slot_node[node_slot] = np.arange(k)
        slot_node[here_slot[stop]] = np.flatnonzero(stop)
        is_here = np.zeros(n_slots, dtype=bool)
        is_here[here_slot[stop]] = True
        target = np.full((k, taxonomy.n_levels + 1), -1)
        target[:, :-1] = np.where(taxonomy.lineage >= 0, node_slot[taxonomy.lineage], -1)
        stopped = np.flatnonzero(stop)
        target[stopped, taxonomy.level[stopped]] = here_slot[stopped]
        return cls(
            taxonomy=taxonomy,
            n_slots=n_slots,
            start=_frozen(start),
            size=_frozen(size),
            level=_frozen(np.concatenate([[1], taxonomy.level[inner] + 1])),
            slot_node=_frozen(slot_node),
            is_here=_frozen(is_here, bool),
            slot_group=_frozen(np.repeat(np.arange(len(size)), size)),
            node_slot=_frozen(node_slot),
            here_slot=_frozen(here_slot),
            target_slots=_frozen(target),
        )

    def distribution(self, scores: Floats, temperatures: NDArray[np.floating] | None = None) -> Floats:
        """P(node) from raw scores: softmax among siblings, then the product down every lineage.

        The result is coherent: nodes of level 1 sum to 1, a parent is the sum of its children and its here.

        Args:
            scores: logits, shape (N, M).
            temperatures: one a level, above 0, shape (L,); scores of a level are divided by it.

        Returns:
            float32 in [0, 1], shape (N, K).

        Raises:
            ShapeError: an array has another shape.
        """
        scores = np.asarray(scores, dtype=np.float32)
        self._check(scores, self.n_slots, "scores")
        factor = None if temperatures is None else self._factor(np.asarray(temperatures))
        probs = np.empty((len(scores), self.taxonomy.n_nodes), dtype=np.float32)
        for begin in range(0, len(scores), BLOCK):
            rows = slice(begin, begin + BLOCK)
            self._distribute(scores[rows] if factor is None else scores[rows] * factor, probs[rows])
        return probs

    def here(self, nodes: Floats) -> Floats:
        """P(stopping exactly at a node) from P(node).

        Args:
            nodes: P(node) as `distribution` gives it, shape (N, K).

        Returns:
            P(node) at leaves; P(node) less the sum of its children, but not below 0, at stops; 0 at other
            inner nodes; shape (N, K).

        Raises:
            ShapeError: `nodes` is not (N, K).
        """
        tree = self.taxonomy
        nodes = np.asarray(nodes, dtype=np.float32)
        self._check(nodes, tree.n_nodes, "nodes")
        stop = np.flatnonzero(self.here_slot >= 0)
        result: Floats = nodes * tree.is_leaf
        if len(stop):
            below = np.add.reduceat(nodes, np.append(0, tree.first_child[~tree.is_leaf]), axis=1)[:, 1:]
            at = np.cumsum(~tree.is_leaf)[stop] - 1
            result[:, stop] = np.maximum(nodes[:, stop] - below[:, at], 0)
        return result

    def _factor(self, temperatures: NDArray[np.floating]) -> Floats:
        if temperatures.shape != (self.taxonomy.n_levels,) or not (temperatures > 0).all():
            raise ShapeError(
                f"temperatures of shape {temperatures.shape}, {temperatures}",
                allowed=f"{self.taxonomy.n_levels} numbers above 0, one a level",
                remedy="Calibrate for this tree.",
            )
        return (1.0 / temperatures)[self.level[self.slot_group] - 1].astype(np.float32)

    def _check(self, array: NDArray[Any], width: int, name: str) -> None:
        if array.ndim != 2 or array.shape[1] != width:
            raise ShapeError(
                f"{name} of shape {array.shape}",
                allowed=f"(N, {width}) for this tree",
                remedy="Check that the array and the tree belong together.",
            )

    def _distribute(self, scores: Floats, probs: Floats) -> None:
        if len(self.start) == 1:  # a flat tree: a plain softmax
            np.exp(scores - scores.max(axis=1, keepdims=True), out=probs)
            probs /= probs.sum(axis=1, keepdims=True)
            return
        tree = self.taxonomy
        # Less the greatest score, so that exp cannot overflow; each group's own where another group would vanish.
        top = scores.max(axis=1, keepdims=True)
        if float((top[:, 0] - scores.min(axis=1)).max(initial=0.0)) < _NARROW:
            shares = scores - top
        else:
            shares = scores - np.maximum.reduceat(scores, self.start, axis=1).take(self.slot_group, axis=1)
        np.exp(shares, out=shares)
        total = np.add.reduceat(shares, self.start, axis=1)
        nodes = shares if self.n_slots == tree.n_nodes else shares.take(self.node_slot, axis=1)
        for plan in self._levels:
            # Divided by the group's sum and multiplied by P(parent) once a group, then spread over its nodes.
            weight = np.reciprocal(total[:, plan.groups])
            if plan.parents is not None:
                weight *= probs.take(plan.parents, axis=1)
            np.multiply(nodes[:, plan.nodes], weight.take(plan.spread, axis=1), out=probs[:, plan.nodes])

    @cached_property
    def _levels(self) -> tuple[_Level, ...]:
        tree = self.taxonomy
        node_group = self.slot_group[self.node_slot]
        parents = np.flatnonzero(~tree.is_leaf)  # of every group but the root's
        plans = []
        for level in range(1, tree.n_levels + 1):
            begin, end = np.searchsorted(tree.level, [level, level + 1])
            first, last = int(node_group[begin]), int(node_group[end - 1])
            plans.append(
                _Level(
                    nodes=slice(int(begin), int(end)),
                    groups=slice(first, last + 1),
                    parents=parents[first - 1 : last] if level > 1 else None,
                    spread=node_group[begin:end] - first,
                )
            )
        return tuple(plans)


class _Level(NamedTuple):
    nodes: slice
    groups: slice
    parents: NDArray[np.intp] | None
    spread: NDArray[np.signedinteger]


def _frozen(array: NDArray[Any], dtype: type = np.int32) -> NDArray[Any]:
    array = np.ascontiguousarray(array, dtype=dtype)
    array.flags.writeable = False
    return array
