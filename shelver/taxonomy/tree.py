"""The category tree: ragged, immutable, as integer arrays."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray

from shelver.errors import TaxonomyError
from shelver.taxonomy import own
from shelver.taxonomy.build import (
    ROOT,
    Ints,
    Notes,
    Where,
    arrays,
    breadth_first,
    checked_parents,
    checked_texts,
    fail,
    frozen,
    plain_name,
    unfold,
)


def path_id(names: Sequence[str]) -> str:
    """Makes the id of a node that has none of its own: 12 hex digits of a hash of its path.

    Args:
        names: the path from level 1 down to the node; stripped here, otherwise taken as they are.
    """
    joined = "\x1f".join(name.strip() for name in names)
    return hashlib.sha256(joined.encode()).hexdigest()[:12]


@dataclass(frozen=True, eq=False, repr=False)
class Taxonomy:
    """An immutable ragged tree of K nodes in L levels; the root is no node.

    Nodes are numbered breadth first: all of level 1, then all of level 2, and so on. The children of one
    parent are neighbours in the order of the source, so siblings and levels are ranges. Arrays are
    read-only. Make one with `from_parents`, `from_paths`, `load` or `read_taxonomy`.

    Attributes:
        ids: the node ids, unique, shape (K,).
        names: the node names; names repeat, so a name is never an id.
        parent: index of the parent, ROOT (-1) at level 1, shape (K,).
        level: 1 is the first level below the root, shape (K,).
        lineage: lineage[k, l - 1] is k's ancestor (or k itself) at level l, -1 below k's own level, (K, L).
        n_children: shape (K,).
        first_child: index of the first child, -1 at leaves, shape (K,).
        is_leaf: shape (K,).
        version: 16 hex digits of a hash over ids, names and parents; equal trees have equal versions
            whatever file they came from. The order of siblings counts, since arrays depend on it.
        notes: what the reader had to do; not part of the version.
    """

    ids: tuple[str, ...]
    names: tuple[str, ...]
    parent: Ints
    level: Ints
    lineage: Ints
    n_children: Ints
    first_child: Ints
    is_leaf: NDArray[np.bool_]
    version: str
    notes: Notes = field(default_factory=Notes)

    @classmethod
    def from_parents(
        cls,
        ids: Sequence[str],
        names: Sequence[str],
        parents: Sequence[int | None],
        *,
        lines: Sequence[int] | None = None,
        source: str = "",
        notes: Notes | None = None,
    ) -> Taxonomy:
        """Builds a tree from nodes in any order.

        Args:
            ids: one for each node.
            names: one for each node.
            parents: position of each node's parent in these lists; None at level 1.
            lines: line of each node in its file, for errors.
            source: name of the file, for errors.
            notes: counts from the reader.

        Raises:
            TaxonomyError: no node, an empty id or name, a repeated id, an orphan, a cycle, over 64 levels.
        """
        where = Where(source, lines)
        if not len(ids) == len(names) == len(parents):
            fail(
                f"{len(ids)} ids, {len(names)} names and {len(parents)} parents",
                allowed="three lists of one length",
            )
        if not ids:
            fail(f"no node{f' in {source}' if source else ''}", allowed="one node or more")
        ids, names, _ = checked_texts(ids, names, where)
        above = checked_parents(parents, len(ids), where)
        order = breadth_first(above, where)
        rank = np.empty(len(order) + 1, dtype=np.int32)
        rank[order] = np.arange(len(order), dtype=np.int32)
        rank[-1] = ROOT  # so that a parent of -1 stays -1
        old = order.tolist()
        return _assemble(
            tuple(map(ids.__getitem__, old)),
            tuple(map(names.__getitem__, old)),
            rank[above[order]],
            notes or Notes(),
        )

    @classmethod
    def from_paths(
        cls, paths: Iterable[Sequence[str]], *, lines: Sequence[int] | None = None, source: str = ""
    ) -> Taxonomy:
        """Builds a tree from paths of names; a node's id is `path_id` of its path.

        Args:
            paths: each from level 1 down, at any depth, in any order, repeats allowed; ancestors that no
                path names are created (and counted in `notes.created_nodes`).
            lines: line of each path in its file, for errors.
            source: name of the file, for errors.

        Raises:
            TaxonomyError: as for `from_parents`; an empty path has an empty name.
        """
        unfolded = unfold(paths, Where(source, lines))
        return cls.from_parents(
            [path_id(path) for path in unfolded.paths],
            [path[-1] for path in unfolded.paths],
            unfolded.parents,
            lines=unfolded.lines,
            source=source,
            notes=Notes(created_nodes=unfolded.n_created),
        )

    @property
    def n_nodes(self) -> int:
        """K, inner nodes and leaves."""
        return len(self.ids)

    @property
    def n_levels(self) -> int:
        """L, the level of the deepest node."""
        return int(self.lineage.shape[1])

    @property
    def n_leaves(self) -> int:
        """Nodes without children, at any level."""
        return len(self.leaves)

    @cached_property
    def leaves(self) -> Ints:
        """Indices of the leaves, ascending."""
        return frozen(np.flatnonzero(self.is_leaf))

    @cached_property
    def paths(self) -> tuple[str, ...]:
        """The path of every node, joined by " > "."""
        return tuple(" > ".join(path) for path in self._path_names)

    @cached_property
    def _path_names(self) -> tuple[tuple[str, ...], ...]:
        made: list[tuple[str, ...]] = []
        for name, parent in zip(self.names, self.parent.tolist(), strict=True):
            made.append((*made[parent], name) if parent >= 0 else (name,))
        return tuple(made)

    @cached_property
    def _by_id(self) -> dict[str, int]:
        return dict(zip(self.ids, range(len(self.ids)), strict=True))

    @cached_property
    def _by_path(self) -> dict[tuple[str, ...], list[int]]:
        names = [plain_name(name) for name in self.names]
        paths: list[tuple[str, ...]] = []
        found: dict[tuple[str, ...], list[int]] = {}
        for k, parent in enumerate(self.parent.tolist()):
            paths.append((*paths[parent], names[k]) if parent >= 0 else (names[k],))
            found.setdefault(paths[k], []).append(k)
        return found

    def find(self, node_id: str) -> int | None:
        """Index of the node with this id, None where there is none."""
        return self._by_id.get(node_id)

    def index(self, node_id: str) -> int:
        """Index of the node with this id.

        Raises:
            TaxonomyError: no node has it.
        """
        k = self._by_id.get(node_id)
        if k is None:
            raise TaxonomyError(
                f"node id {node_id!r}",
                allowed=f"one of the {self.n_nodes} ids of taxonomy {self.version}, such as {self.ids[0]!r}",
                remedy="Check that the labels and the tree belong together.",
            )
        return k

    def indices(self, node_ids: Iterable[str]) -> Ints:
        """Indices of nodes by their ids, shape (N,); raises as `index`."""
        return np.fromiter((self.index(node_id) for node_id in node_ids), dtype=np.int32)

    def find_path(self, names: Sequence[str]) -> int | None:
        """Index of the node at this path; None where there is none, or where several nodes share the path.

        White space is compared as one space: feeds and trees seldom agree on double and no-break spaces.
        Siblings can share a name (three pairs in Shopify's French tree do): `find_paths` tells them all.
        """
        found = self._by_path.get(tuple(map(plain_name, names)), ())
        return found[0] if len(found) == 1 else None

    def find_paths(self, names: Sequence[str]) -> Ints:
        """Indices of all nodes at this path: none, one, or several where siblings share a name."""
        found = self._by_path.get(tuple(map(plain_name, names)), ())
        return np.asarray(found, dtype=np.int32)

    def path(self, k: int, sep: str = " > ") -> str:
        """The names from level 1 down to node k, joined; "" for ROOT."""
        return sep.join(self.path_names(k))

    def path_names(self, k: int) -> tuple[str, ...]:
        """The names from level 1 down to node k; none for ROOT."""
        return self._path_names[k] if k != ROOT else ()

    def children(self, k: int) -> Ints:
        """Children of node k in order; of ROOT, the nodes of level 1."""
        if k == ROOT:
            return np.arange(np.count_nonzero(self.level == 1), dtype=np.int32)
        first = max(int(self.first_child[k]), 0)
        return np.arange(first, first + int(self.n_children[k]), dtype=np.int32)

    def descendants(self, k: int) -> Ints:
        """All nodes below node k, without k, breadth first; of ROOT, all nodes."""
        if k == ROOT:
            return np.arange(self.n_nodes, dtype=np.int32)
        below = np.flatnonzero(self.lineage[:, self.level[k] - 1] == k)
        return below[1:].astype(np.int32)  # k precedes its descendants

    def siblings(self, k: int) -> Ints:
        """The other children of k's parent, in order; none for ROOT."""
        if k == ROOT:
            return np.empty(0, dtype=np.int32)
        family = self.children(int(self.parent[k]))
        others: Ints = family[family != k]
        return others

    def ancestors(self, k: int) -> Ints:
        """Ancestors of node k, without k and the root, from level 1 down; none for ROOT."""
        if k == ROOT:
            return np.empty(0, dtype=np.int32)
        return self.lineage[k, : self.level[k] - 1].copy()

    def ancestors_at(self, nodes: ArrayLike, level: int) -> Ints:
        """For each node its ancestor (or itself) at a level, -1 where the node lies above that level.

        Args:
            nodes: node indices of any shape; ROOT gives -1.
            level: from 1 to `n_levels`.

        Returns:
            int32, shape of `nodes`.

        Raises:
            TaxonomyError: no such level.
        """
        self._check_level(level)
        at = np.asarray(nodes, dtype=np.int32)
        return np.where(at >= 0, self.lineage[at, level - 1], np.int32(ROOT))

    def lca_level(self, a: ArrayLike, b: ArrayLike) -> Ints:
        """Level of the lowest common ancestor (or self) of pairs of nodes; 0 is the root.

        Args:
            a: node indices, ROOT allowed; broadcast against b.
            b: likewise.
        """
        left, right = self._lineages(a), self._lineages(b)
        # Two nodes that share their ancestor at one level share all those above it.
        shared: Ints = ((left == right) & (left >= 0)).sum(axis=-1, dtype=np.int32)
        return shared

    def lca(self, a: ArrayLike, b: ArrayLike) -> Ints:
        """Lowest common ancestor (or self) of pairs of nodes; ROOT (-1) where they share only the root."""
        level = self.lca_level(a, b)
        lineages = np.broadcast_to(self._lineages(a), (*level.shape, self.n_levels))
        at = np.take_along_axis(lineages, np.maximum(level - 1, 0)[..., None], axis=-1)[..., 0]
        return np.where(level > 0, at, np.int32(ROOT))

    def is_ancestor_or_self(self, a: ArrayLike, b: ArrayLike) -> NDArray[np.bool_]:
        """Whether a is b or lies above it, for pairs of nodes; ROOT lies above all."""
        upper, lower = np.asarray(a, dtype=np.int32), np.asarray(b, dtype=np.int32)
        level = np.where(upper >= 0, self.level[upper], 1)
        above: NDArray[np.bool_] = np.where(lower >= 0, self.lineage[lower, level - 1], ROOT) == upper
        return above | (upper < 0)

    def cut(self, level: int) -> tuple[Taxonomy, Ints]:
        """Cuts the tree below a level: deeper nodes fall together with their ancestor at that level.

        Returns:
            The smaller tree, with this one's ids, and the new index of each old node, shape (K,).

        Raises:
            TaxonomyError: the level is below 1. One deeper than the tree cuts nothing.
        """
        if level < 1:
            self._check_level(level)
        level = min(level, self.n_levels)
        n = int(np.count_nonzero(self.level <= level))  # breadth first: those kept come first
        kept = np.arange(self.n_nodes, dtype=np.int32)
        mapping = np.where(kept < n, kept, self.lineage[:, level - 1])
        return _assemble(self.ids[:n], self.names[:n], self.parent[:n], self.notes), frozen(mapping)

    def save(self, path: Path | str) -> None:
        """Writes `taxonomy.json`; equal trees give equal bytes."""
        parents = [self.ids[p] if p >= 0 else None for p in self.parent.tolist()]
        own.write(Path(path), self.ids, self.names, parents, version=self.version, notes=self.notes)

    @classmethod
    def load(cls, path: Path | str) -> Taxonomy:
        """Reads `taxonomy.json`.

        Raises:
            TaxonomyError: the file is none, is no tree, or was changed after it was written.
        """
        return from_own(own.read(Path(path)))

    def __repr__(self) -> str:
        shape = f"{self.n_nodes} nodes, {self.n_leaves} leaves, {self.n_levels} levels"
        return f"Taxonomy({shape}, version {self.version})"

    def _lineages(self, nodes: ArrayLike) -> Ints:
        at = np.asarray(nodes, dtype=np.int32)
        return np.where((at >= 0)[..., None], self.lineage[at], np.int32(ROOT))

    def _check_level(self, level: int) -> None:
        if not 1 <= level <= self.n_levels:
            fail(
                f"level {level}",
                allowed=f"a level from 1 to {self.n_levels}",
                remedy="Choose one of them; 1 is the first below the root.",
            )


def from_own(file: own.OwnFile) -> Taxonomy:
    """Builds the tree of a `taxonomy.json`; raises as `Taxonomy.load`."""
    tree = Taxonomy.from_parents(
        file.ids, file.names, file.parents, lines=file.lines, source=file.source, notes=file.notes
    )
    if file.version not in (None, tree.version):
        fail(
            f"{file.source}: the tree has version {tree.version}, the file says {file.version}",
            allowed="a file as it was written",
            remedy="Restore the file; if the change was meant, remove its `version` entry.",
        )
    return tree


def _assemble(ids: tuple[str, ...], names: tuple[str, ...], parent: Ints, notes: Notes) -> Taxonomy:
    content = json.dumps([ids, names, parent.tolist()], separators=(",", ":"))
    version = hashlib.sha256(content.encode()).hexdigest()[:16]
    return Taxonomy(
        ids=ids, names=names, parent=frozen(parent), version=version, notes=notes, **arrays(parent)._asdict()
    )
