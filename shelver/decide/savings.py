"""The search for the node that saves most, down the tree; `shelver.decide.costs` says what is searched for, and
why branches may be left out."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from shelver.decide.dearest import Dearest, dearest_of
from shelver.decide.places import Floats, Index, Ints, exact_mass, members
from shelver.decide.plan import Plan
from shelver.decide.windows import Windows

Doubles = NDArray[np.float64]

SLACK: Final = 1e-6
"""Probabilities of float32 sum up to so much; branches that are worse by less are looked into."""
_MANY: Final = 24
"""So many windows a product are not reckoned before fewer of them say whether they matter."""
FEW: Final = 1 / 16
"""Branches, and the places of a product that may be worth more, are looked at one by one where they are no more
than this share of the nodes."""
_LOOKS: Final = (1, 2)
"""So many levels below a node are looked at before all of them are."""


@dataclass(frozen=True, eq=False)
class Savings:
    """What decisions save by a plan's costs; what does not depend on the products is worked out once.

    Attributes:
        plan: a policy on a tree.
    """

    plan: Plan

    @property
    def wrong(self) -> float:
        return self.plan.policy.costs.wrong

    @property
    def is_exact(self) -> bool:
        return self.plan.policy.costs.values is not None and not self.plan.policy.costs.partial

    @cached_property
    def share(self) -> Doubles | None:
        """value(t) / l(t), shape (K,); None for tree costs."""
        return None if self.plan.policy.costs.values is None else self.plan.values / self.plan.tree.level

    @cached_property
    def all_missed(self) -> Floats:
        """nodes @ this is the expected cost of deciding nothing: every level, or the value, is missed."""
        if self.plan.policy.costs.values is None:
            return np.full(self.plan.tree.n_nodes, self.plan.policy.costs.missed, np.float32)
        return _differences(self.plan.values, self.plan.tree.parent).astype(np.float32)

    @cached_property
    def peak(self) -> Doubles:
        """The greatest `share` in each node's subtree, shape (K,): W(v) is at most this times P(v)."""
        assert self.share is not None
        tree, peak = self.plan.tree, self.share.copy()
        for k in range(tree.n_nodes - 1, -1, -1):
            if tree.parent[k] >= 0:
                peak[tree.parent[k]] = max(peak[tree.parent[k]], peak[k])
        return peak

    @cached_property
    def worth_below(self) -> tuple[Windows, ...]:
        """W(v) is `share` times P(v) and the last of these sums. With the others, which look one and two levels
        down, it is the most that W(v) can be."""
        assert self.share is not None
        tree, (first, count) = self.plan.tree, self.ranges
        node = np.arange(tree.n_nodes)
        steps = _differences(self.share, tree.parent)
        found = []
        for depth in (*_LOOKS, tree.n_levels):
            stretches = []
            for down in range(1, min(depth, tree.n_levels - 1) + 1):
                at = np.minimum(tree.level - 1 + down, tree.n_levels - 1)
                inside = tree.level + down <= tree.n_levels
                weights = steps + self.peak - self.share if down == depth else steps
                stretches.append((first[node, at], np.where(inside, count[node, at], 0), weights))
            if stretches:
                found.append(Windows.of(stretches))
        return tuple(found)

    @cached_property
    def levels_below(self) -> Ints:
        """How many levels wanted lie below each node in its own branch, shape (K,)."""
        tree = self.plan.tree
        deepest = tree.level.copy()
        for k in range(tree.n_nodes - 1, -1, -1):
            if tree.parent[k] >= 0:
                deepest[tree.parent[k]] = max(deepest[tree.parent[k]], deepest[k])
        return np.asarray(np.minimum(deepest, self.plan.max_level) - tree.level, np.int32)

    @cached_property
    def least_threshold(self) -> Floats:
        """Of all nodes from a level down, shape (L + 1,): a node that is less sure has no sure one below it."""
        level = self.plan.tree.level
        lowest = [self.plan.thresholds[level >= least].min() for least in range(self.plan.tree.n_levels + 1)]
        return np.array(lowest, np.float32)

    @cached_property
    def ranges(self) -> tuple[Ints, Ints]:
        """Descendants of each node at each level are neighbours: the first of them and how many, both (K, L)."""
        tree = self.plan.tree
        first = np.zeros((tree.n_nodes, tree.n_levels), np.int32)
        count = np.zeros_like(first)
        bounds = np.searchsorted(tree.level, np.arange(1, tree.n_levels + 2))
        for upper in range(1, tree.n_levels):
            node = np.arange(bounds[upper - 1], bounds[upper])
            for level in range(upper + 1, tree.n_levels + 1):
                above = tree.lineage[bounds[level - 1] : bounds[level], upper - 1]
                begin = np.searchsorted(above, node)
                first[node, level - 1] = begin + bounds[level - 1]
                count[node, level - 1] = np.searchsorted(above, node, side="right") - begin
        return first, count

    @cached_property
    def dearest(self) -> tuple[Dearest, ...]:
        """Places by their values; none where each node has to be looked at."""
        plan, n_first = self.plan, int(np.count_nonzero(self.plan.tree.level == 1))
        simple = plan.anything_is_sure and plan.policy.min_level == 1 and plan.max_level == plan.tree.n_levels
        return tuple(dearest_of(plan)) if simple and n_first <= FEW * plan.tree.n_nodes else ()

    def may(self, columns: NDArray[Any], probs: Floats) -> NDArray[np.bool_]:
        """Which nodes of these probabilities may be decided, in the shape of both."""
        plan, level = self.plan, self.plan.tree.level[columns]
        allowed: NDArray[np.bool_] = (level >= plan.policy.min_level) & (level <= plan.max_level)
        allowed &= probs >= plan.thresholds[columns]
        return allowed

    def along(self, nodes: Floats, places: Ints, *, exactly: bool) -> tuple[Index, Doubles]:
        """The node that saves most where each level on the path counts, and what it saves, or at most, unless
        `exactly`."""
        plan, tree = self.plan, self.plan.tree
        flat, k = nodes.reshape(-1), tree.n_nodes
        n, n_first = len(nodes), int(np.count_nonzero(tree.level == 1))
        row, probs = np.arange(n), nodes[:, :n_first]
        if self.share is None:
            top = self._tree_parts(probs)
            guess, own = places[:, 0], None
        else:
            top = self._parts(self.peak[:n_first] * probs, probs)
            mass = exact_mass(nodes, plan.groups, np.repeat(row, places.shape[1]), places.ravel().astype(np.intp))
            own = self.share[places] * mass.reshape(places.shape)
            best = (row, own.argmax(axis=1))
            guess, own = places[best], own[best]
        first = tree.lineage[guess, 0]
        floor = self._least_saved(nodes, guess, own, None if own is not None else top[row, first])
        slack = SLACK * tree.n_levels * (self.wrong + np.abs(top).max(axis=1, initial=0))
        # Of all nodes that are looked at, only those go on that may save as much as the guess, or lead to one.
        hope = top + np.maximum(top, 0) * self.levels_below[:n_first]
        rows, columns = np.nonzero(hope >= (floor - slack)[:, None])
        probs, part = nodes[rows, columns], top[rows, columns]
        total = np.zeros(len(rows))
        if self.share is not None:
            rows, columns, total, probs, part = self._worth_it(
                flat, rows, columns, total, probs, floor - slack, spare=True
            )
            at = np.flatnonzero(columns == first[rows])
            known = np.full(n, -np.inf)
            known[rows[at]] = part[at]
            lone = _are_alone(rows, n)
            lone_rows, lone_columns, lone_part = rows[lone], columns[lone], part[lone]
            refined = self._least_saved(nodes, guess, own, known)
            floor = np.maximum(floor, refined)
            floor[lone_rows] = refined[lone_rows]  # in terms of the part that was not reckoned
        found, most = np.full(n, -1), np.full(n, -np.inf)
        total = total + part
        for level in range(1, plan.max_level + 1):
            if level >= plan.policy.min_level:
                if plan.anything_is_sure:
                    keep_best(found, most, rows, columns, total)
                else:
                    sure = np.flatnonzero(probs >= plan.thresholds[columns])
                    keep_best(found, most, rows[sure], columns[sure], total[sure])
            if level == plan.max_level:
                break
            below = self.levels_below[columns]
            deeper = np.where(part > 0, below, max(plan.policy.min_level - level, 1))
            reach = np.maximum(floor, most) - slack
            goes_on = (total + part * deeper >= reach[rows]) & (below > 0)
            if not plan.anything_is_sure:
                goes_on &= probs >= self.least_threshold[level + 1]
            kept = np.flatnonzero(goes_on)
            if not len(kept):
                break
            owner, child = members(tree.first_child[columns[kept]], tree.n_children[columns[kept]])
            rows, columns, total = rows[kept][owner], child, total[kept][owner]
            probs = flat[rows * k + child]
            if self.share is None:
                part = self._tree_parts(probs)
            else:
                rows, columns, total, probs, part = self._worth_it(flat, rows, columns, total, probs, reach)
            total = total + part
            near = np.flatnonzero(total + np.maximum(part, 0) * self.levels_below[columns] >= reach[rows])
            rows, columns, total, probs, part = rows[near], columns[near], total[near], probs[near], part[near]
        if exactly and self.share is not None and len(lone_rows):
            probs = nodes[lone_rows, lone_columns]
            most[lone_rows] += self._parts(self._worth(flat, lone_rows, lone_columns, probs), probs) - lone_part
        return found, most

    def _tree_parts(self, probs: Floats) -> Doubles:
        """What the level of a node saves by itself, with tree costs."""
        costs = self.plan.policy.costs
        parts: Doubles = (costs.wrong + costs.missed) * probs.astype(np.float64) - costs.wrong
        return parts

    def _parts(self, worth: NDArray[Any], probs: Floats) -> Doubles:
        """The same with values, from W."""
        parts: Doubles = worth - self.wrong * (1 - probs.astype(np.float64))
        return parts

    def _worth_it(
        self,
        flat: Floats,
        rows: Index,
        columns: NDArray[Any],
        total: Doubles,
        probs: Floats,
        reach: Doubles,
        *,
        spare: bool = False,
    ) -> tuple[Index, NDArray[Any], Doubles, Floats, Doubles]:
        """Of pairs of rows and nodes those that may save as much as `reach`, and what their level saves.

        With `spare` that is only the most it may save where a pair is the only one of its row: what all the rest
        have in common decides nothing.

        Args:
            flat: P(node) of all rows, one after another.
            rows, columns, total, probs: the pairs, what the levels above save, and P(node); of shape (P,).
            reach: shape (N,).
        """
        assert self.share is not None
        part = self._parts(self.peak[columns] * probs, probs)
        # A few are reckoned sooner than they are looked at.
        many = int(self.worth_below[-1].count[columns].sum()) > _MANY * len(reach) if self.worth_below else False
        for below in self.worth_below if many else self.worth_below[-1:]:
            near = np.flatnonzero(total + part + np.maximum(part, 0) * self.levels_below[columns] >= reach[rows])
            rows, columns, total, probs, part = rows[near], columns[near], total[near], probs[near], part[near]
            if spare and below is self.worth_below[-1]:
                at = np.flatnonzero(~_are_alone(rows, len(reach)))
                part[at] = self._parts(self._worth(flat, rows[at], columns[at], probs[at], below), probs[at])
            else:
                part = self._parts(self._worth(flat, rows, columns, probs, below), probs)
        return rows, columns, total, probs, part

    def _worth(
        self, flat: Floats, rows: Index, columns: NDArray[Any], probs: Floats, below: Windows | None = None
    ) -> Doubles:
        """W of pairs of rows and nodes, or the most it may be as far as `below` looks."""
        assert self.share is not None
        worth: Doubles = self.share[columns] * probs
        if self.worth_below:
            worth += (below or self.worth_below[-1]).sums(flat, rows, columns)
        return worth

    def _least_saved(
        self, nodes: Floats, guess: NDArray[Any], own: Doubles | None, first: Doubles | None
    ) -> Doubles:
        """What the path to a guessed place saves at least, shape (N,); -inf where no node of it may be decided.

        With values each node of the path is worth as much as the place is by itself, `own`, shape (N,). What its
        node of level 1 saves is `first`, shape (N,), where that is known.
        """
        row = np.arange(len(nodes))
        lineage = self.plan.tree.lineage[guess]
        at = np.maximum(lineage, 0)
        probs = nodes[row[:, None], at]
        parts = self._tree_parts(probs) if own is None else self._parts(own[:, None], probs)
        if first is not None:
            parts[:, 0] = first
        may = self.may(at, probs) & (lineage >= 0)
        least: Doubles = np.where(may, np.cumsum(parts, axis=1), -np.inf).max(axis=1, initial=-np.inf)
        return least


def keep_best(found: Index, most: Doubles, rows: Index, columns: NDArray[Any], saved: Doubles) -> None:
    """Note the pair that saves most for each row, in place; `rows` ascend, and so do `columns` within each row."""
    if not len(rows):
        return
    begin = _first_of_each(rows)
    best = np.maximum.reduceat(saved, begin)
    row = rows[begin]
    better = best > most[row]
    most[row[better]] = best[better]
    level = np.full(len(most), np.inf)
    level[row[better]] = best[better]
    equal = np.flatnonzero(saved == level[rows])
    first = equal[_first_of_each(rows[equal])]
    found[rows[first]] = columns[first]


def _are_alone(rows: Index, n: int) -> NDArray[np.bool_]:
    """Which pairs are the only ones of their row, of N rows."""
    alone: NDArray[np.bool_] = np.bincount(rows, minlength=n)[rows] == 1
    return alone


def _first_of_each(rows: Index) -> Index:
    """Where each row begins, of rows that ascend."""
    new = np.empty(len(rows), np.bool_)
    new[:1] = True
    np.not_equal(rows[1:], rows[:-1], out=new[1:])
    return np.flatnonzero(new)


def _differences(of_node: Doubles, parent: Ints) -> Doubles:
    """Each node's number less its parent's; that of a node of level 1 less 0."""
    differences: Doubles = of_node - np.where(parent >= 0, of_node[parent], 0.0)
    return differences
