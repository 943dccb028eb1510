"""Google's product taxonomy, `taxonomy-with-ids`: lines such as `3237 - Animals > Live Animals`."""

from __future__ import annotations

import re
from pathlib import Path

from shelver.taxonomy.build import fail
from shelver.taxonomy.locale import localise
from shelver.taxonomy.source import Source, read_source
from shelver.taxonomy.tree import Taxonomy

LINE = re.compile(r"\s*(\d+) - (.*)")


def read_google(path: Path | str, names_from: Path | str | None = None) -> Taxonomy:
    """Reads ids and structure, any locale; each line is joined to its parent by the parent's path.

    Args:
        path: the file that gives the ids and the structure, usually en-US, the newest.
        names_from: a file of another locale whose names are joined by id; nodes that it lacks keep their
            name, and `notes.fallback_names` counts them.

    Raises:
        TaxonomyError: a line that is none, a repeated id or path, an orphan, an empty name; names the line.
    """
    tree = google_tree(read_source(Path(path)))
    return tree if names_from is None else localise(tree, names_from)


def google_tree(source: Source) -> Taxonomy:
    """As `read_google`, from text."""
    ids: list[str] = []
    paths: list[tuple[str, ...]] = []
    lines: list[int] = []
    for line, text in source.lines:
        match = LINE.fullmatch(text)
        if match is None:
            fail(f"{source.name}, line {line}: {text[:80]!r}", allowed="lines such as `3237 - Parent > Child`")
        ids.append(match[1])
        paths.append(tuple([name.strip() for name in match[2].split(" > ")]))
        lines.append(line)
    position: dict[tuple[str, ...], int] = {}
    for i, path in enumerate(paths):
        if position.setdefault(path, i) != i:
            fail(
                f"{source.name}, line {lines[i]}: the path of line {lines[position[path]]} again",
                allowed="every path once, since a path tells its children's parent",
            )
    parents = [position.get(path[:-1], -1) if len(path) > 1 else None for path in paths]
    if -1 in parents:
        bad = parents.index(-1)
        fail(
            f"{source.name}, line {lines[bad]}: an orphan, no line is {' > '.join(paths[bad][:-1])!r}",
            allowed="a line for every ancestor",
        )
    return Taxonomy.from_parents(ids, [path[-1] for path in paths], parents, lines=lines, source=source.name)
