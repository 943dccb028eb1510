"""Path lists, one path of names a line, and id paths, one path of codes a line."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from shelver.taxonomy.build import Notes, Where, fail
from shelver.taxonomy.source import Source, read_source
from shelver.taxonomy.tree import Taxonomy


def read_paths(path: Path | str, sep: str = " > ") -> Taxonomy:
    """Reads a list of paths; a node's id is `path_id` of its path. Missing ancestors are created.

    Raises:
        TaxonomyError: an empty name, or a path that an earlier line has; names the line.
    """
    return paths_tree(read_source(Path(path)), sep)


def paths_tree(source: Source, sep: str = " > ") -> Taxonomy:
    """As `read_paths`, from text."""
    paths, lines = _split(source, sep)
    return Taxonomy.from_paths(paths, lines=lines, source=source.name)


def read_id_paths(path: Path | str, sep: str = ">") -> Taxonomy:
    """Reads a list of id paths such as `3292>3581>3145`.

    Raises:
        TaxonomyError: an empty code, or a path that an earlier line has; names the line.
    """
    return id_paths_tree(read_source(Path(path)), sep)


def id_paths_tree(source: Source, sep: str = ">") -> Taxonomy:
    """As `read_id_paths`, from text."""
    paths, lines = _split(source, sep)
    return from_id_paths([sep.join(path) for path in paths], sep=sep, lines=lines, source=source.name)


def from_id_paths(
    id_paths: Iterable[str], *, sep: str = ">", lines: Sequence[int] | None = None, source: str = ""
) -> Taxonomy:
    """Builds a tree from id paths, repeats allowed, missing ancestors created.

    A node's id is its whole id path down from level 1, `3292>3581`, since one code may stand under several
    parents; its name is its own code, `3581`. So the label of a row of the Rakuten Data Challenge 2018 is
    the id of its node.

    Args:
        id_paths: each from level 1 down.
        sep: what stands between two codes.
        lines: line of each path in its file, for errors.
        source: name of the file, for errors.

    Raises:
        TaxonomyError: an empty code.
    """
    tree = Taxonomy.from_paths((path.split(sep) for path in id_paths), lines=lines, source=source)
    ids: list[str] = []
    parents = tree.parent.tolist()
    for name, parent in zip(tree.names, parents, strict=True):
        ids.append(name if parent < 0 else f"{ids[parent]}{sep}{name}")
    return Taxonomy.from_parents(
        ids,
        tree.names,
        [None if p < 0 else p for p in parents],
        source=source,
        notes=Notes(created_nodes=tree.notes.created_nodes),
    )


def _split(source: Source, sep: str) -> tuple[list[tuple[str, ...]], list[int]]:
    lines = [line for line, _ in source.lines]
    paths = [tuple([name.strip() for name in text.split(sep)]) for _, text in source.lines]
    first: dict[tuple[str, ...], int] = {}
    for i, path in enumerate(paths):
        if first.setdefault(path, i) != i:
            fail(
                f"{Where(source.name, lines)(i)}: a repeated id, the path of line {lines[first[path]]} again",
                allowed="every path once",
                remedy="Remove one of the two lines.",
            )
    return paths, lines
