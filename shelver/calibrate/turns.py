"""From which threshold on a product is decided, and decided wrongly.

A decoder leads a product down one path and decides the deepest node of it that is sure. So as the threshold falls,
a product is decided from one threshold on, and decided wrongly from another one on: two numbers a product say all
about the whole family of policies, and counting at many thresholds is a search in two sorted arrays.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from shelver.taxonomy import Taxonomy

Floats = NDArray[np.float32]
Bools = NDArray[np.bool_]
Counts = NDArray[np.int64]

NEVER: Final = np.float32(-np.inf)
"""The threshold from which on something happens that never does."""
ALWAYS: Final = np.float32(np.inf)


@dataclass(frozen=True, slots=True)
class Turns:
    """From which threshold on each of N products is decided, and decided wrongly; NEVER where it never is.

    Attributes:
        decided_at: shape (N,), float32.
        wrong_at: shape (N,), float32; nowhere above `decided_at`.
    """

    decided_at: Floats
    wrong_at: Floats

    def __len__(self) -> int:
        return len(self.decided_at)

    def of(self, rows: NDArray[np.bool_] | NDArray[np.intp]) -> Turns:
        """Those of some products."""
        return Turns(self.decided_at[rows], self.wrong_at[rows])

    def counts(self, thresholds: ArrayLike) -> tuple[Counts, Counts]:
        """How many are decided, and how many of them wrongly, at each of T thresholds: two of shape (T,)."""
        at = np.atleast_1d(np.asarray(thresholds, np.float32))
        return tuple(  # type: ignore[return-value]
            len(self) - np.searchsorted(np.sort(turn), at, side="left")
            for turn in (self.decided_at, self.wrong_at)
        )


@dataclass(frozen=True, slots=True)
class Paths:
    """Where a decoder leads N labelled products when everything is sure.

    Attributes:
        taxonomy: the tree.
        node: the end of each product's path, shape (N,); -1 where it has none.
        level_confidence: P(node) along the path, level 1 first, shape (N, L), float32; NaN below its end.
        truth: labelled nodes, shape (N,).
        whole: the end of the path is decided or nothing is; else the deepest node of the path that is sure.
    """

    taxonomy: Taxonomy
    node: NDArray[np.integer]
    level_confidence: Floats
    truth: NDArray[np.integer]
    whole: bool = False

    def __len__(self) -> int:
        return len(self.node)

    def turns(self, min_level: int = 1, max_level: int | None = None) -> Turns:
        """The turns of decisions between two levels, both included.

        A decision is right when it is the true node or an ancestor of it.
        """
        depth = np.where(self.node >= 0, self.taxonomy.level[self.node], 0)
        if max_level is not None:
            depth = np.where(depth > max_level, 0 if self.whole else max_level, depth)
        first_wrong = np.maximum(self.taxonomy.lca_level(self.node, self.truth) + 1, min_level)
        return Turns(self._sure_at(min_level, depth), self._sure_at(first_wrong, depth))

    def turns_below(self, min_level: int = 1) -> Turns:
        """The turns of a threshold for the levels below `min_level`, where everything is sure down to it."""
        depth = np.where(self.node >= 0, self.taxonomy.level[self.node], 0)
        decided = depth >= min_level
        first_wrong = np.maximum(self.taxonomy.lca_level(self.node, self.truth) + 1, min_level)
        wrong_at = np.where(first_wrong == min_level, ALWAYS, self._sure_at(first_wrong, depth))
        return Turns(
            np.where(decided, ALWAYS, NEVER).astype(np.float32),
            np.where(decided, wrong_at, NEVER).astype(np.float32),
        )

    def cut_where_unsure(self, sure: float, min_level: int) -> Paths:
        """Paths that end before the first node below `min_level` that is less sure than this."""
        depth = np.where(self.node >= 0, self.taxonomy.level[self.node], 0)
        reached = np.logical_and.accumulate(self.level_confidence >= np.float32(sure), axis=1).sum(axis=1)
        kept = np.minimum(np.maximum(reached, min_level), depth)
        node = np.where(kept > 0, self.taxonomy.lineage[np.maximum(self.node, 0), np.maximum(kept, 1) - 1], -1)
        return replace(self, node=node)

    def through(self, node: int) -> Bools:
        """Whose path passes a node, shape (N,)."""
        at = self.taxonomy.lineage[np.maximum(self.node, 0), self.taxonomy.level[node] - 1]
        passed: Bools = (at == node) & (self.node >= 0)
        return passed

    def of(self, rows: Bools) -> Paths:
        """Those of some products."""
        return Paths(self.taxonomy, self.node[rows], self.level_confidence[rows], self.truth[rows], self.whole)

    def _sure_at(self, level: ArrayLike, depth: NDArray[np.integer]) -> Floats:
        """From which threshold on the decision is at a level or deeper."""
        level = np.broadcast_to(level, depth.shape)
        there = (level <= depth) & (depth > 0)
        looked_at = np.where(there, depth if self.whole else level, 1)
        sure = self.level_confidence[np.arange(len(depth)), looked_at - 1]
        return np.where(there, sure, NEVER).astype(np.float32)
