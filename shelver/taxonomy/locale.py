"""Names in another language, joined to a tree by id."""

from __future__ import annotations

import re
from pathlib import Path

from shelver.taxonomy.build import fail
from shelver.taxonomy.source import read_source
from shelver.taxonomy.tree import Taxonomy

# Google's lines and Shopify's: an id, a separator, a path whose last name is the node's.
LINE = re.compile(r"\s*(\d+(?= - )|gid://\S+(?=\s+:\s))(?: - |\s+:\s+)(.*)")


def localise(taxonomy: Taxonomy, locale_file: Path | str) -> Taxonomy:
    """Gives a tree the names of a locale file of Google or Shopify; ids and structure stay.

    Files of other years lack some ids: those nodes keep their name, and `notes.fallback_names` counts them;
    `notes.unused_names` counts ids that the tree lacks. The version changes with the names.

    Raises:
        TaxonomyError: a line that is none, a repeated id, an empty name, or not one id in common.
    """
    source = read_source(Path(locale_file))
    names: dict[str, str] = {}
    for line, text in source.lines:
        match = LINE.fullmatch(text)
        name = match[2].rpartition(" > ")[2].strip() if match else ""
        if match is None or not name:
            fail(f"{source.name}, line {line}: {text[:80]!r}", allowed="an id and a path, no name empty")
        if match[1] in names:
            fail(f"{source.name}, line {line}: the id {match[1]!r} again", allowed="every id once")
        names[match[1]] = name
    missing = sum(node_id not in names for node_id in taxonomy.ids)
    if missing == taxonomy.n_nodes:
        fail(
            f"{source.name}: none of its {len(names)} ids is in the tree",
            allowed="a locale of the same taxonomy",
            remedy="Check that the two files are of one publisher.",
        )
    return Taxonomy.from_parents(
        taxonomy.ids,
        [names.get(node_id, name) for node_id, name in zip(taxonomy.ids, taxonomy.names, strict=True)],
        [None if p < 0 else p for p in taxonomy.parent.tolist()],
        source=source.name,
        notes=taxonomy.notes._replace(
            fallback_names=missing, unused_names=len(names) - (taxonomy.n_nodes - missing)
        ),
    )
