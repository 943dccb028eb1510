"""Shopify's `categories.txt`: lines such as `gid://shopify/TaxonomyCategory/ap-1 : Animals > Live`."""

from __future__ import annotations

import re
from pathlib import Path

from shelver.taxonomy.build import fail
from shelver.taxonomy.source import Source, parent_positions, read_source
from shelver.taxonomy.tree import Taxonomy

LINE = re.compile(r"\s*(gid://\S+)\s+:\s+(.*)")


def read_shopify(path: Path | str) -> Taxonomy:
    """Reads the tree; the gid stays the id, and tells the parent: `.../ap-1-2` hangs on `.../ap-1`.

    Paths do not tell it: in French, two siblings can have one name.

    Raises:
        TaxonomyError: a line that is none, a repeated gid, an orphan, an empty name, a path whose depth is
            not the gid's; names the line.
    """
    return shopify_tree(read_source(Path(path)))


def shopify_tree(source: Source) -> Taxonomy:
    """As `read_shopify`, from text."""
    ids: list[str] = []
    names: list[str] = []
    parent_ids: list[str | None] = []
    lines: list[int] = []
    for line, text in source.lines:
        match = LINE.fullmatch(text)
        if match is None:
            fail(
                f"{source.name}, line {line}: {text[:80]!r}",
                allowed="lines such as `gid://shopify/TaxonomyCategory/ap-1 : Parent > Child`",
            )
        gid, path = match[1], match[2].split(" > ")
        above, dash, _ = gid.rpartition("-")
        if gid.rpartition("/")[2].count("-") != len(path) - 1:
            fail(
                f"{source.name}, line {line}: {gid} with a path of {len(path)} names",
                allowed="as many names as the gid's last part has parts",
            )
        ids.append(gid)
        names.append(path[-1])
        parent_ids.append(above if dash and len(path) > 1 else None)
        lines.append(line)
    parents = parent_positions(ids, parent_ids, lines=lines, source=source.name)
    return Taxonomy.from_parents(ids, names, parents, lines=lines, source=source.name)
