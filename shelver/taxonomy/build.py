"""Checks a list of nodes and puts them in breadth-first order; every reader ends here."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import NamedTuple, NoReturn

import numpy as np
from numpy.typing import NDArray

from shelver.errors import TaxonomyError

Ints = NDArray[np.int32]

MAX_LEVELS = 64
"""Deepest tree accepted: `lineage` takes n_nodes x n_levels, and real trees have 2 to 8 levels."""

ROOT = -1
"""Stands for the root, which is no node, in arrays of node indices."""


class Notes(NamedTuple):
    """What a reader had to do to make the tree; counts. Not part of the version."""

    fallback_names: int = 0
    """Nodes whose id the locale file lacks, so that they kept the base file's (English) name."""
    unused_names: int = 0
    """Ids of the locale file that the tree lacks."""
    created_nodes: int = 0
    """Ancestors that no line of a path list names, created from the paths below them."""
    made_ids: int = 0
    """Nodes whose code repeats in the source, so that an id was made from the code and a position."""


class Where(NamedTuple):
    """Says where a node comes from, for error messages.

    Attributes:
        source: name of the file, or "" where the tree was made in memory.
        lines: 1-based line of each node in the file, or None.
    """

    source: str = ""
    lines: Sequence[int] | None = None

    def __call__(self, node: int) -> str:
        line = f"line {self.lines[node]}" if self.lines is not None else f"node {node} (counted from 0)"
        return f"{self.source}, {line}" if self.source else line


def fail(received: str, *, allowed: str, remedy: str = "Correct the file and read it again.") -> NoReturn:
    """Raises a TaxonomyError."""
    raise TaxonomyError(received, allowed=allowed, remedy=remedy)


def plain_name(name: str) -> str:
    """A name as it is compared: runs of white space, also no-break spaces, are one space, and none at the ends."""
    return " ".join(name.split())


def breadth_first(parents: Ints, where: Where) -> Ints:
    """Orders nodes breadth first; siblings stay contiguous and keep their order.

    Args:
        parents: index of each node's parent, ROOT at level 1, shape (K,).
        where: for errors.

    Returns:
        The old indices in their new order, shape (K,).

    Raises:
        TaxonomyError: some nodes hang on a cycle, or the tree is deeper than MAX_LEVELS.
    """
    n = len(parents)
    by_parent = np.argsort(parents, kind="stable").astype(np.int32)
    # The children of node k are by_parent[first[k]:first[k + 1]]; those of the root come first of all.
    first = np.searchsorted(parents[by_parent], np.arange(n + 1)).astype(np.int32)
    frontier = by_parent[: first[0]]
    levels = [frontier]
    while len(frontier):
        starts, sizes = first[frontier], first[frontier + 1] - first[frontier]
        ends = np.cumsum(sizes)
        steps = np.arange(ends[-1]) - np.repeat(ends - sizes, sizes)
        frontier = by_parent[np.repeat(starts, sizes) + steps]
        levels.append(frontier)
        if len(levels) > MAX_LEVELS and len(frontier):
            fail(
                f"{where(int(frontier[0]))}: a node at level {len(levels)}",
                allowed=f"at most {MAX_LEVELS} levels",
            )
    order = np.concatenate(levels)
    if len(order) < n:
        reached = np.zeros(n, dtype=bool)
        reached[order] = True
        _fail_cycle(parents, int(np.flatnonzero(~reached)[0]), where)
    return order


def _fail_cycle(parents: Ints, node: int, where: Where) -> NoReturn:
    # Walking up from a node that no root reaches ends on the cycle; name the cycle's earliest node.
    seen: dict[int, None] = {}
    while node not in seen:
        seen[node] = None
        node = int(parents[node])
    walk = list(seen)
    cycle = walk[walk.index(node) :]
    fail(
        f"{where(min(cycle))}: the node is its own ancestor, through {len(cycle)} node(s)",
        allowed="a tree: every node reaches the root through its parents",
        remedy="Give one node of the cycle another parent.",
    )


def checked_texts(
    ids: Sequence[str], names: Sequence[str], where: Where
) -> tuple[list[str], list[str], dict[str, int]]:
    """Strips ids and names and checks that they can stand in a tree.

    Returns:
        ids, names, and the position of each id.

    Raises:
        TaxonomyError: an id or a name is empty or no valid Unicode, or an id repeats.
    """
    ids, names = [i.strip() for i in ids], [n.strip() for n in names]
    for kind, texts in (("id", ids), ("name", names)):
        if not all(texts):
            fail(
                f"{where(texts.index(''))}: a node with an empty {kind}",
                allowed=f"an {kind} of one character or more"
                if kind == "id"
                else "a name of one character or more",
            )
        try:
            "".join(texts).encode()
        except UnicodeEncodeError:
            bad = next(i for i, text in enumerate(texts) if any("\ud800" <= c <= "\udfff" for c in text))
            fail(f"{where(bad)}: the {kind} holds half of a surrogate pair", allowed="valid Unicode text")
    position = dict(zip(ids, range(len(ids)), strict=True))
    if len(position) < len(ids):
        seen: dict[str, int] = {}
        for i, node_id in enumerate(ids):
            if node_id in seen:
                fail(
                    f"{where(i)}: the id {node_id!r} repeats that of {Where('', where.lines)(seen[node_id])}",
                    allowed="every id once",
                    remedy="Remove one of the two, or give it another id.",
                )
            seen[node_id] = i
    return ids, names, position


def checked_parents(parents: Sequence[int | None], n: int, where: Where) -> Ints:
    """Turns parents into an array.

    Raises:
        TaxonomyError: a parent is no index of a node.
    """
    array = np.fromiter((ROOT if p is None else p for p in parents), dtype=np.int64, count=len(parents))
    bad = np.flatnonzero((array < ROOT) | (array >= n))
    if len(bad):
        fail(
            f"{where(int(bad[0]))}: an orphan, its parent {array[bad[0]]} is no node",
            allowed=f"None (level 1) or an index from 0 to {n - 1}",
        )
    return array.astype(np.int32)


class Arrays(NamedTuple):
    """What follows from the parents of a tree; see `Taxonomy`."""

    level: Ints
    lineage: Ints
    n_children: Ints
    first_child: Ints
    is_leaf: NDArray[np.bool_]


def arrays(parent: Ints) -> Arrays:
    """Levels, lineages and children of a tree in breadth-first order.

    Args:
        parent: index of each node's parent, ROOT at level 1, ascending, shape (K,).
    """
    n = len(parent)
    # `parent` ascends, so a level ends at the first node whose parent lies in that level.
    bounds = [0]
    while bounds[-1] < n:
        bounds.append(int(np.searchsorted(parent, bounds[-1])))
    lineage = np.full((n, len(bounds) - 1), ROOT, dtype=np.int32)
    for depth, (start, end) in enumerate(pairwise(bounds)):
        if depth:
            lineage[start:end] = lineage[parent[start:end]]
        lineage[start:end, depth] = np.arange(start, end)
    n_children = np.bincount(parent[bounds[1] :], minlength=n)
    is_leaf = n_children == 0
    is_leaf.flags.writeable = False
    return Arrays(
        level=frozen(np.repeat(np.arange(1, len(bounds)), np.diff(bounds))),
        lineage=frozen(lineage),
        n_children=frozen(n_children),
        first_child=frozen(np.where(is_leaf, -1, np.searchsorted(parent, np.arange(n)))),
        is_leaf=is_leaf,
    )


def frozen(array: NDArray[np.signedinteger]) -> Ints:
    """A read-only int32 copy."""
    array = np.array(array, dtype=np.int32, order="C")
    array.flags.writeable = False
    return array


class Unfolded(NamedTuple):
    """The distinct nodes that a list of paths names, parents before children."""

    paths: list[tuple[str, ...]]
    parents: list[int | None]
    lines: list[int] | None
    n_created: int


def unfold(paths: Iterable[Sequence[str]], where: Where) -> Unfolded:
    """Finds the nodes of a list of paths, and creates the ancestors that none of them names.

    Raises:
        TaxonomyError: a path is empty or has an empty name.
    """
    position: dict[tuple[str, ...], int] = {}
    parents: list[int | None] = []
    first: list[int] = []  # the path that first needs each node
    named: set[tuple[str, ...]] = set()
    for i, raw in enumerate(paths):
        path = tuple([name.strip() for name in raw])
        if path in named:
            continue
        named.add(path)
        if not path or not all(path):
            fail(
                f"{where(i)}: a path with an empty name",
                allowed="a path of one name or more, none of them empty",
            )
        for depth in range(1, len(path) + 1):
            if path[:depth] not in position:
                parents.append(position[path[: depth - 1]] if depth > 1 else None)
                position[path[:depth]] = len(first)
                first.append(i)
    lines = [where.lines[i] for i in first] if where.lines is not None else None
    return Unfolded(list(position), parents, lines, len(position) - len(named))
