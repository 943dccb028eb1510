"""The search for the node that saves most, down the tree; `shelver.decide.costs` says what is searched for, and
why branches may be left out."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from shelver.decide.places import Floats, Index, Ints, exact_mass, members, row_blocks, starts_of
from shelver.decide.plan import Plan

Doubles = NDArray[np.float64]

_SLACK: Final = 1e-6
"""Probabilities of float32 sum up to so much; branches that are worse by less are looked into."""


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
    def share_steps(self) -> Floats:
        """W(v) is the sum of this times P over v's subtree, but for v itself, of which `share` counts: p(t) is
        P(t) less the sum of t's children, so each node counts its own share less its parent's. Shape (K,)."""
        assert self.share is not None
        return _differences(self.share, self.plan.tree.parent).astype(np.float32)

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

    def exact(self, nodes: Floats, places: Ints) -> tuple[Index, Doubles]:
        """The node that saves most where a value is earned by the true node alone, and what it saves."""
        plan, tree = self.plan, self.plan.tree
        wanted = (tree.level >= plan.policy.min_level) & (tree.level <= plan.max_level)
        bound_of = (plan.values + self.wrong).astype(np.float32)
        apart = None if wanted.all() else np.where(wanted, np.float32(0), np.float32(-np.inf))
        floor = self._least_saved_exactly(nodes, places)
        reach = (floor + self.wrong - _SLACK * (np.abs(floor) + self.wrong)).astype(np.float32)
        reach[np.isneginf(floor)] = np.finfo(np.float32).min
        blocks = row_blocks(*nodes.shape)
        scratch = np.empty((blocks[0].stop if blocks else 0, nodes.shape[1]), np.float32)
        pairs = [np.zeros(0, np.intp)]
        for block in blocks:
            part, bound = nodes[block], scratch[: block.stop - block.start]
            np.multiply(part, bound_of, out=bound)
            if apart is not None:
                bound += apart
            if not plan.anything_is_sure:
                bound[part < plan.thresholds] = -np.inf
            pairs.append(np.flatnonzero(bound >= reach[block, None]) + block.start * nodes.shape[1])
        rows, columns = np.divmod(np.concatenate(pairs), nodes.shape[1])
        found, most = np.full(len(nodes), -1), np.full(len(nodes), -np.inf)
        _keep_best(found, most, rows, columns, self._saved_exactly(nodes, rows, columns))
        return found, most

    def _least_saved_exactly(self, nodes: Floats, places: Ints) -> Doubles:
        """What one of the best places saves, or a node above the very best at least, shape (N,)."""
        n, n_places = places.shape
        row = np.arange(n)
        lineage = self.plan.tree.lineage[places[:, 0]]
        at = np.maximum(lineage, 0)
        probs = nodes[row[:, None], at]
        off = np.cumsum(1.0 - probs, axis=1, dtype=np.float64)
        above = np.where((lineage >= 0) & self._may(at, probs), -self.wrong * off, -np.inf).max(axis=1)
        saved = self._saved_exactly(nodes, np.repeat(row, n_places), places.ravel())
        floor: Doubles = np.maximum(above, saved.reshape(n, n_places).max(axis=1))
        return floor

    def _saved_exactly(self, nodes: Floats, rows: Index, columns: NDArray[Any]) -> Doubles:
        """What pairs of rows and nodes save; -inf where the node may not be decided."""
        plan, tree = self.plan, self.plan.tree
        saved = exact_mass(nodes, plan.groups, rows, columns) * plan.values[columns]
        if self.wrong:
            lineage = tree.lineage[columns]
            off = np.where(lineage >= 0, 1.0 - nodes[rows[:, None], np.maximum(lineage, 0)], 0.0)
            saved -= self.wrong * off.sum(axis=1, dtype=np.float64)
        return np.where(self._may(columns, nodes[rows, columns]), saved, -np.inf)

    def _may(self, columns: NDArray[Any], probs: Floats) -> NDArray[np.bool_]:
        plan, level = self.plan, self.plan.tree.level[columns]
        allowed: NDArray[np.bool_] = (level >= plan.policy.min_level) & (level <= plan.max_level)
        allowed &= probs >= plan.thresholds[columns]
        return allowed

    def along(self, nodes: Floats, places: Ints) -> tuple[Index, Doubles]:
        """The node that saves most where each level on the path counts, and what it saves."""
        plan, tree = self.plan, self.plan.tree
        flat, k = nodes.reshape(-1), tree.n_nodes
        n, n_first = len(nodes), int(np.count_nonzero(tree.level == 1))
        if self.share is None:
            steps, top = None, self._tree_parts(nodes[:, :n_first])
            floor = self._least_saved(nodes, top, places[:, 0], None)
        else:
            steps, top = self._worth_of_first_level(nodes, n_first)
            row = np.repeat(np.arange(n), places.shape[1])
            own = self.share[places] * exact_mass(nodes, plan.groups, row, places.ravel().astype(np.intp)).reshape(
                places.shape
            )
            best = (np.arange(n), own.argmax(axis=1))
            floor = self._least_saved(nodes, top, places[best], own[best])
        slack = _SLACK * tree.n_levels * (self.wrong + np.abs(top).max(axis=1, initial=0))
        # Of all nodes that are looked at, only those go on that may save as much as the guess, or lead to one.
        hope = top + np.maximum(top * self.levels_below[:n_first], 0)
        rows, columns = np.nonzero(hope >= (floor - slack)[:, None])
        probs, part = nodes[rows, columns], top[rows, columns]
        found, most = np.full(n, -1), np.full(n, -np.inf)
        total = part
        for level in range(1, plan.max_level + 1):
            if level >= plan.policy.min_level:
                if plan.anything_is_sure:
                    _keep_best(found, most, rows, columns, total)
                else:
                    sure = np.flatnonzero(probs >= plan.thresholds[columns])
                    _keep_best(found, most, rows[sure], columns[sure], total[sure])
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
            part = self._tree_parts(probs) if steps is None else self._worth_parts(steps, rows, columns, probs)
            total = total + part
            near = np.flatnonzero(total + np.maximum(part * self.levels_below[columns], 0) >= reach[rows])
            rows, columns, total, probs, part = rows[near], columns[near], total[near], probs[near], part[near]
        return found, most

    def _tree_parts(self, probs: Floats) -> Doubles:
        """What the level of a node saves by itself, with tree costs."""
        costs = self.plan.policy.costs
        parts: Doubles = (costs.wrong + costs.missed) * probs.astype(np.float64) - costs.wrong
        return parts

    def _worth_parts(self, steps: Floats, rows: Index, columns: NDArray[Any], probs: Floats) -> Doubles:
        """The same with values, for pairs of rows and nodes; `steps` are `share_steps` times P, laid out flat."""
        assert self.share is not None
        worth = self.share[columns] * probs
        first, count = (array[columns].ravel() for array in self.ranges)
        stretch = np.flatnonzero(count)
        if len(stretch):
            count, pair = count[stretch], stretch // self.plan.tree.n_levels
            begin = starts_of(count)
            at = np.repeat(rows[pair] * self.plan.tree.n_nodes + first[stretch] - begin, count)
            at += np.arange(len(at))
            worth += np.bincount(pair, weights=np.add.reduceat(steps[at], begin), minlength=len(rows))
        parts: Doubles = worth - self.wrong * (1 - probs.astype(np.float64))
        return parts

    def _worth_of_first_level(self, nodes: Floats, n_first: int) -> tuple[Floats, Doubles]:
        """`share_steps` times P, laid out flat, and what the nodes of level 1 save, shape (N, n_first)."""
        tree = self.plan.tree
        # At each level the subtree of a node of level 1 is one stretch of columns.
        first = tree.lineage[:, 0]
        begin = np.flatnonzero(np.diff(first, prepend=-1) | np.diff(tree.level, prepend=0))
        of_branch = np.argsort(first[begin], kind="stable")
        branch = np.searchsorted(first[begin][of_branch], np.arange(n_first))
        worth = np.empty((len(nodes), n_first), np.float32)
        steps = np.empty_like(nodes)
        for block in row_blocks(*nodes.shape):
            part = np.multiply(nodes[block], self.share_steps, out=steps[block])
            stretches = np.add.reduceat(part, begin, axis=1).take(of_branch, axis=1)
            worth[block] = np.add.reduceat(stretches, branch, axis=1)
        top = worth - self.wrong * (1 - nodes[:, :n_first].astype(np.float64))
        return steps.reshape(-1), top

    def _least_saved(self, nodes: Floats, top: Doubles, guess: NDArray[Any], own: Doubles | None) -> Doubles:
        """What the path to a guessed place saves at least, shape (N,); -inf where no node of it may be decided.

        With values each node of the path is worth as much as the place is by itself, `own`, shape (N,).
        """
        row = np.arange(len(nodes))
        lineage = self.plan.tree.lineage[guess]
        at = np.maximum(lineage, 0)
        probs = nodes[row[:, None], at]
        parts = self._tree_parts(probs) if own is None else own[:, None] - self.wrong * (1.0 - probs)
        parts[:, 0] = top[row, lineage[:, 0]]
        may = self._may(at, probs) & (lineage >= 0)
        least: Doubles = np.where(may, np.cumsum(parts, axis=1), -np.inf).max(axis=1, initial=-np.inf)
        return least


def _keep_best(found: Index, most: Doubles, rows: Index, columns: NDArray[Any], saved: Doubles) -> None:
    """Note the pair that saves most for each row, in place; `rows` ascend, and so do `columns` within each row."""
    if not len(rows):
        return
    begin = np.flatnonzero(np.diff(rows, prepend=-1))
    best = np.maximum.reduceat(saved, begin)
    owner = np.repeat(np.arange(len(begin)), np.diff(begin, append=len(rows)))
    equal = np.flatnonzero(saved == best[owner])
    first = equal[np.flatnonzero(np.diff(owner[equal], prepend=-1))]
    row = rows[begin]
    better = best > most[row]
    most[row[better]] = best[better]
    found[row[better]] = columns[first[better]]


def _differences(of_node: Doubles, parent: Ints) -> Doubles:
    """Each node's number less its parent's; that of a node of level 1 less 0."""
    differences: Doubles = of_node - np.where(parent >= 0, of_node[parent], 0.0)
    return differences
