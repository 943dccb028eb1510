"""shelver's own `taxonomy.json`: one node a line, so that it can be read, searched and compared."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from shelver.taxonomy.build import Notes, fail
from shelver.taxonomy.source import Source, parent_positions, parse_json, read_source

FORMAT = "shelver taxonomy"
FORMAT_VERSION = 1


class OwnFile(NamedTuple):
    """The content of a `taxonomy.json`, not yet checked to be a tree."""

    ids: list[str]
    names: list[str]
    parents: list[int | None]
    lines: list[int] | None
    version: str | None
    notes: Notes
    source: str


def write(
    path: Path,
    ids: Sequence[str],
    names: Sequence[str],
    parents: Sequence[str | None],
    *,
    version: str,
    notes: Notes,
) -> None:
    """Writes nodes, breadth first, each with its parent's id."""
    head = {"format": FORMAT, "format_version": FORMAT_VERSION, "version": version, "notes": notes._asdict()}
    encode = json.JSONEncoder(ensure_ascii=False).encode
    rows = ",\n".join(map(encode, zip(ids, names, parents, strict=True)))
    path.write_text(f'{encode(head)[:-1]}, "nodes": [\n{rows}\n]}}\n', encoding="utf-8", newline="\n")


def read(path: Path) -> OwnFile:
    """Reads a `taxonomy.json`, also when it was edited by hand.

    Raises:
        TaxonomyError: the file is no `taxonomy.json` of a known format version, or has an orphan.
    """
    return parse(read_source(path))


def parse(source: Source) -> OwnFile:
    """As `read`, from text."""
    content = parse_json(source)
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        fail(f"{source.name}: no shelver taxonomy", allowed=f'a JSON object with "format": "{FORMAT}"')
    if content.get("format_version") != FORMAT_VERSION:
        fail(
            f"{source.name}: format version {content.get('format_version')!r}",
            allowed=f"format version {FORMAT_VERSION}",
            remedy="Read it with the shelver that wrote it, or write it again.",
        )
    nodes = content.get("nodes")
    if not isinstance(nodes, list):
        fail(f"{source.name}: no list of nodes", allowed='"nodes": [[id, name, id of the parent or null], ...]')
    # As we write it, the first node stands on line 2; a file laid out otherwise has no lines to name.
    lines = list(range(2, len(nodes) + 2)) if source.text.count("\n") == len(nodes) + 2 else None
    for i, node in enumerate(nodes):
        if not _is_node(node):
            fail(
                f"{source.name}, {f'line {lines[i]}' if lines else f'node {i}'}: {json.dumps(node)[:80]}",
                allowed="[id, name, id of the parent or null], all of them text",
            )
    ids = [node[0].strip() for node in nodes]
    parents = parent_positions(ids, [node[2] for node in nodes], lines=lines, source=source.name)
    version = content.get("version")
    return OwnFile(
        ids=ids,
        names=[node[1] for node in nodes],
        parents=parents,
        lines=lines,
        version=version if isinstance(version, str) else None,
        notes=_notes(content.get("notes")),
        source=source.name,
    )


def _is_node(node: object) -> bool:
    return (
        isinstance(node, list)
        and len(node) == 3
        and isinstance(node[0], str)
        and isinstance(node[1], str)
        and (node[2] is None or isinstance(node[2], str))
    )


def _notes(content: object) -> Notes:
    counts = content if isinstance(content, dict) else {}
    return Notes(**{k: v for k, v in counts.items() if k in Notes._fields and type(v) is int})
