"""The node that saves most where a value is earned by the true node alone; `shelver.decide.costs` says what is
searched for."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from shelver.decide.places import Floats, Index, Ints, exact_mass, row_blocks
from shelver.decide.savings import FEW, SLACK, Doubles, Savings, keep_best


def most_saved_exactly(savings: Savings, nodes: Floats, places: Ints) -> tuple[Index, Doubles]:
    """The node that saves most, -1 where none may be decided, and what it saves; both of shape (N,).

    Args:
        savings: of a policy with values that are not partial.
        nodes: P(node), shape (N, K).
        places: the most probable places, best first, shape (N, n); the first guesses.
    """
    n, k = nodes.shape
    floor = _least_saved(savings, nodes, places)
    dense = np.ones(n, np.bool_)
    pairs = [np.zeros(0, np.intp)]
    if savings.dearest:
        # Where no value is earned the best node of level 1 saves most.
        first = nodes[:, : len(savings.dearest[0].start)]
        best = np.ascontiguousarray(first).argmax(axis=1) if savings.wrong else np.zeros(n, np.intp)
        row = np.arange(n)
        floor = np.maximum(floor, savings.wrong * (nodes[row, best] - 1.0))
        least = exact_mass(nodes, savings.plan.groups, row, places[:, -1].astype(np.intp)).astype(np.float64)
        reach = floor - SLACK * (np.abs(floor) + savings.wrong)
        dense[:] = False
        for dearest in savings.dearest:
            found_pairs, many = dearest.pairs(nodes, least, reach, savings.wrong, int(FEW * k))
            pairs.append(found_pairs)
            dense |= many
        pairs += [(places + (row * k)[:, None]).ravel(), row * k + best]
    rows = np.flatnonzero(dense)
    if len(rows):
        at, columns = _maybe(savings, nodes if len(rows) == n else nodes[rows], floor[rows])
        pairs.append(rows[at] * k + columns)
    rows, columns = np.divmod(np.unique(np.concatenate(pairs)), k)
    found, most = np.full(n, -1), np.full(n, -np.inf)
    keep_best(found, most, rows, columns, _saved(savings, nodes, rows, columns))
    return found, most


def _maybe(savings: Savings, nodes: Floats, floor: Doubles) -> tuple[Index, Index]:
    """Pairs of rows and nodes that may save as much as `floor`."""
    plan, tree = savings.plan, savings.plan.tree
    wanted = (tree.level >= plan.policy.min_level) & (tree.level <= plan.max_level)
    bound_of = (plan.values + savings.wrong).astype(np.float32)
    apart = None if wanted.all() else np.where(wanted, np.float32(0), np.float32(-np.inf))
    reach = (floor + savings.wrong - SLACK * (np.abs(floor) + savings.wrong)).astype(np.float32)
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
    return rows, columns


def _least_saved(savings: Savings, nodes: Floats, places: Ints) -> Doubles:
    """What one of the best places saves, or a node above the very best at least, shape (N,)."""
    n, n_places = places.shape
    row = np.arange(n)
    lineage = savings.plan.tree.lineage[places[:, 0]]
    at = np.maximum(lineage, 0)
    probs = nodes[row[:, None], at]
    off = np.cumsum(1.0 - probs, axis=1, dtype=np.float64)
    above = np.where((lineage >= 0) & savings.may(at, probs), -savings.wrong * off, -np.inf).max(axis=1)
    saved = _saved(savings, nodes, np.repeat(row, n_places), places.ravel())
    floor: Doubles = np.maximum(above, saved.reshape(n, n_places).max(axis=1))
    return floor


def _saved(savings: Savings, nodes: Floats, rows: Index, columns: NDArray[Any]) -> Doubles:
    """What pairs of rows and nodes save; -inf where the node may not be decided."""
    plan, tree = savings.plan, savings.plan.tree
    saved = exact_mass(nodes, plan.groups, rows, columns) * plan.values[columns]
    if savings.wrong:
        lineage = tree.lineage[columns]
        off = np.where(lineage >= 0, 1.0 - nodes[rows[:, None], np.maximum(lineage, 0)], 0.0)
        saved -= savings.wrong * off.sum(axis=1, dtype=np.float64)
    return np.where(savings.may(columns, nodes[rows, columns]), saved, -np.inf)
