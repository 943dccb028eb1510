"""The most probable places of products: leaves, and inner nodes at which products may stop."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from shelver.taxonomy import SiblingGroups

Floats = NDArray[np.float32]
Ints = NDArray[np.int32]
Index = NDArray[np.intp]

MAX_ARGMAX: Final = 256
"""Up to so many alternatives, finding them one by one is faster than sorting."""
_BLOCK_BYTES: Final = 1 << 21
"""So much of the probabilities is looked at in one pass: more falls out of a core's cache before the next one."""
_MANY_STOPS: Final = 200
"""Where more inner nodes of a product than this could be among its best places, all are reckoned at once."""


def best_places(nodes: Floats, groups: SiblingGroups, n_top: int) -> tuple[Ints, Floats]:
    """The places of the greatest P(standing exactly there), greatest first; of equals the first in the tree.

    Args:
        nodes: P(node), shape (N, K).
        groups: they know at which inner nodes products may stop.
        n_top: how many; all where there are fewer places.

    Returns:
        Nodes and their probabilities, both of shape (N, n_top).
    """
    stops = np.flatnonzero(groups.here_slot >= 0)
    n = min(n_top, groups.taxonomy.n_leaves + len(stops))
    if n > MAX_ARGMAX or (len(stops) and n >= groups.taxonomy.n_leaves):
        return _best_of_all(nodes, groups, stops, n)
    top, probs = _best_leaves(nodes, groups, n)
    if len(stops):
        rows, columns = _possible_stops(nodes, stops, probs[:, -1])
        if len(rows) > _MANY_STOPS * len(nodes):
            return _best_of_all(nodes, groups, stops, n)
        _merge(top, probs, rows, columns, exact_mass(nodes, groups, rows, columns))
    return top, probs


def exact_mass(nodes: Floats, groups: SiblingGroups, rows: Index, columns: Index) -> Floats:
    """P(standing exactly at a node) for some pairs of rows and nodes, as `SiblingGroups.here` gives it for all.

    Args:
        nodes: P(node), shape (N, K).
        groups: they know at which inner nodes products may stop.
        rows, columns: the pairs, both of shape (P,).

    Returns:
        shape (P,).
    """
    tree = groups.taxonomy
    mass = nodes[rows, columns]
    inner = np.flatnonzero(~tree.is_leaf[columns])
    if len(inner):
        at = columns[inner]
        owner, child = members(tree.first_child[at], tree.n_children[at])
        below = np.add.reduceat(nodes[rows[inner][owner], child], starts_of(tree.n_children[at]))
        mass[inner] = np.where(groups.here_slot[at] >= 0, np.maximum(mass[inner] - below, 0), 0)
    return mass


def members(first: NDArray[Any], count: NDArray[Any]) -> tuple[Index, Index]:
    """Ranges of columns laid out one after another.

    Args:
        first, count: where each range begins and how long it is, both of shape (R,).

    Returns:
        For each member the number of its range, and its column, both of shape (sum of `count`,).
    """
    owner = np.repeat(np.arange(len(count)), count)
    shift = first - starts_of(count)
    return owner, np.arange(len(owner)) + shift[owner]


def starts_of(count: NDArray[Any]) -> Index:
    """Where ranges of these lengths begin when they are laid out one after another."""
    begin: Index = np.cumsum(count, dtype=np.intp) - count
    return begin


def row_blocks(n_rows: int, n_columns: int) -> list[slice]:
    """Slices of rows, each of them so few that they stay in a core's cache."""
    size = max(_BLOCK_BYTES // (4 * n_columns), 16)
    return [slice(begin, min(begin + size, n_rows)) for begin in range(0, n_rows, size)]


def greatest(values: Floats, n: int) -> Index:
    """Columns of the n greatest values of each row, greatest first; of equal values the first column first.

    Not a partition: it takes several times as long as a few argmax, and which of several equal values it takes
    differs between processors.
    """
    if n > MAX_ARGMAX:
        return np.argsort(-values, axis=1, kind="stable")[:, :n]
    best, _ = _drained(values.copy(), n)
    return best


def _drained(values: Floats, n: int) -> tuple[Index, Floats]:
    """The n greatest of each row and their columns; takes them out of `values`."""
    best = np.empty((len(values), n), np.intp)
    found = np.empty((len(values), n), np.float32)
    flat = values.reshape(-1)
    begin = np.arange(len(values)) * values.shape[1]
    for i in range(n):
        at = values.argmax(axis=1)
        best[:, i] = at
        at += begin
        found[:, i] = flat[at]
        flat[at] = -np.inf
    return best, found


def _best_leaves(nodes: Floats, groups: SiblingGroups, n: int) -> tuple[Ints, Floats]:
    """The n most probable leaves, and then nodes that are none, with -inf, where there are fewer."""
    # Adding -inf to a whole row is three times as fast as taking the columns of the leaves out of it.
    apart = np.where(groups.taxonomy.is_leaf, np.float32(0), np.float32(-np.inf))
    top = np.empty((len(nodes), n), np.int32)
    probs = np.empty((len(nodes), n), np.float32)
    blocks = row_blocks(*nodes.shape)
    scratch = np.empty((blocks[0].stop if blocks else 0, nodes.shape[1]), np.float32)
    for rows in blocks:
        part = scratch[: rows.stop - rows.start]
        np.add(nodes[rows], apart, out=part)
        top[rows], probs[rows] = _drained(part, n)
    return top, probs


def _possible_stops(nodes: Floats, stops: Index, least: Floats) -> tuple[Index, Index]:
    """Pairs of rows and stops with a P(node) of `least` or more: P(stopping there) can be no greater."""
    rows, columns = [], []
    for block in row_blocks(*nodes.shape):
        pairs = np.flatnonzero((nodes[block].take(stops, axis=1) >= least[block, None]).ravel())
        row, column = np.divmod(pairs, len(stops))
        rows.append(row + block.start)
        columns.append(stops[column])
    return np.concatenate([*rows, np.zeros(0, np.intp)]), np.concatenate([*columns, np.zeros(0, np.intp)])


def _merge(top: Ints, probs: Floats, rows: Index, columns: Index, mass: Floats) -> None:
    """Let stops take their places among the best leaves, in place."""
    n = top.shape[1]
    better = mass >= probs[rows, -1]
    rows, columns, mass = rows[better], columns[better], mass[better]
    touched, new = np.unique(rows, return_inverse=True)
    count = n + np.bincount(new, minlength=len(touched))
    row = np.concatenate([np.repeat(np.arange(len(touched)), n), new])
    node = np.concatenate([top[touched].ravel(), columns])
    prob = np.concatenate([probs[touched].ravel(), mass])
    order = np.lexsort((node, -prob, row))
    kept = order[starts_of(count)[:, None] + np.arange(n)]
    top[touched], probs[touched] = node[kept], prob[kept]


def _best_of_all(nodes: Floats, groups: SiblingGroups, stops: Index, n: int) -> tuple[Ints, Floats]:
    places = np.union1d(groups.taxonomy.leaves, stops).astype(np.int32)
    mass = (groups.here(nodes) if len(stops) else nodes).take(places, axis=1)
    best = greatest(mass, n)
    return places[best], np.take_along_axis(mass, best, axis=1)
