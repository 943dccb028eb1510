"""Which places may be worth more than a first guess, where a value is earned by the true node alone.

A place d of the branch below v, a node of level 1, saves p(d) * value(d) less `wrong` * (1 - P) for v and, if it
is another node, for d. No place but the guesses is more probable than the last of these, and none is more probable
than its branch. So in each branch only the places of the greatest values can matter, and of most branches none.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shelver.decide.places import Floats, Index, members
from shelver.decide.plan import Plan

Doubles = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Dearest:
    """Places by branch, those of the greatest value first.

    Attributes:
        column, value: of each place, shape (G,); branch by branch, in each by descending value.
        falling: all their values, descending, shape (G,).
        rank: branch * G + the place's position in `falling`, ascending, shape (G,).
        start: where each branch begins, shape (B,).
        peak: the greatest value in each branch, shape (B,).
        deep: these are leaves below level 1, which are wrong twice where they are wrong.
    """

    column: Index
    value: Doubles
    falling: Doubles
    rank: Index
    start: Index
    peak: Doubles
    deep: bool

    @classmethod
    def of(cls, plan: Plan, columns: NDArray[Any], *, deep: bool) -> Dearest:
        tree = plan.tree
        n_branches = int(np.count_nonzero(tree.level == 1))
        columns = columns[np.argsort(-plan.values[columns], kind="stable")]
        branch = tree.lineage[columns, 0].astype(np.intp)
        order = np.argsort(branch, kind="stable")
        start = np.searchsorted(branch[order], np.arange(n_branches))
        peak = np.zeros(n_branches)
        np.maximum.at(peak, branch, plan.values[columns])
        value = plan.values[columns]
        rank = branch[order] * len(columns) + order
        return cls(columns[order].astype(np.intp), value[order], value, rank, start, peak, deep)

    def pairs(
        self, nodes: Floats, least: Doubles, reach: Doubles, wrong: float, most: int
    ) -> tuple[Index, NDArray[np.bool_]]:
        """Pairs of rows and places, laid out flat, that may save as much as `reach`.

        Args:
            nodes: P(node), shape (N, K).
            least: no place that is not known yet is more probable, shape (N,).
            reach: shape (N,).
            wrong: what a level that is named wrongly costs.
            most: more pairs than this of one row are not laid out.

        Returns:
            The pairs, shape (P,), and the rows that had too many, shape (N,).
        """
        n, k = nodes.shape
        first = nodes[:, : len(self.start)].astype(np.float64)
        prob = np.minimum(first, least[:, None])
        needed = reach[:, None] + wrong * (1 - first)
        if self.deep:
            needed += wrong * (1 - prob)
        rows, branch = np.nonzero(prob * self.peak >= needed)
        prob, needed = prob[rows, branch], needed[rows, branch]
        with np.errstate(divide="ignore", invalid="ignore"):
            worth = np.where(needed > 0, needed / prob, -np.inf)
        cut = np.searchsorted(-self.falling, -worth, side="right")
        count = np.searchsorted(self.rank, branch * len(self.column) + cut) - self.start[branch]
        many = np.bincount(rows, weights=count, minlength=n) > most
        count[many[rows]] = 0
        pair, at = members(self.start[branch], count)
        row = rows[pair]
        flat = row * k + self.column[at]
        found = nodes.reshape(-1)[flat].astype(np.float64)
        bound = np.minimum(found, least[row]) * self.value[at] - wrong * (1 - found)
        return flat[bound >= reach[row]], many


def dearest_of(plan: Plan) -> Iterable[Dearest]:
    """All places of a tree: leaves below level 1, and the others."""
    tree = plan.tree
    deep = tree.is_leaf & (tree.level > 1)
    stops = plan.groups.here_slot >= 0
    for columns, are_deep in (
        (np.flatnonzero(deep), True),
        (np.flatnonzero((tree.is_leaf | stops) & ~deep), False),
    ):
        if len(columns):
            yield Dearest.of(plan, columns, deep=are_deep)
