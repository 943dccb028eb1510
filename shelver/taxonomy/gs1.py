"""GS1 Global Product Classification as JSON: segment, family, class, brick."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Literal, NamedTuple

from shelver.taxonomy.build import Notes, fail
from shelver.taxonomy.source import Source, parse_json, read_source
from shelver.taxonomy.tree import Taxonomy

Rank = Literal["segment", "family", "class", "brick"]
RANKS: tuple[Rank, ...] = ("segment", "family", "class", "brick")
# A row names its ancestors under these keys; a brick also its own name under "brick".
NAMED_UNDER = {"segment": "segment", "family": "family", "class": "klass"}


class _Row(NamedTuple):
    code: str
    name: str
    parent: int | None


def read_gs1(path: Path | str) -> Taxonomy:
    """Reads GPC as a list of rows (plain, .gz or .bz2), or as GS1's own nested export (`Schema`, `Childs`).

    The list is in document order: each row's parent is the nearest row above it of the rank above its own.
    Its published copy repeats the family's code and name in every class below it, and two pairs of bricks
    share their names, so neither codes nor names tell classes apart, only their position does. A code that
    is unique is the id; where it repeats, the first row in document order (the family) keeps it and the
    others, the n-th class of family 70010000, get `70010000/n`. `notes.made_ids` counts them. Attributes
    below bricks are left out.

    Raises:
        TaxonomyError: no such JSON, a row without code or name, an orphan; names the row.
    """
    return gs1_tree(read_source(Path(path)))


def gs1_tree(source: Source) -> Taxonomy:
    """As `read_gs1`, from text."""
    content = parse_json(source)
    rows: list[_Row] = []
    if isinstance(content, dict) and isinstance(content.get("Schema"), list):
        for child in content["Schema"]:
            _nested(child, 1, None, rows, source.name)
    elif isinstance(content, list):
        _listed(content, rows, source.name)
    else:
        fail(
            f"{source.name}: no GPC",
            allowed="a list of rows with `level` and `code`, or an object with `Schema`",
        )
    seen: Counter[str] = Counter()
    ids: list[str] = []
    for row in rows:
        n = seen[row.code]
        seen[row.code] += 1
        ids.append(f"{row.code}/{n}" if n else row.code)
    return Taxonomy.from_parents(
        ids,
        [row.name for row in rows],
        [row.parent for row in rows],
        source=source.name,
        notes=Notes(made_ids=len(rows) - len(seen)),
    )


def _listed(content: list[object], rows: list[_Row], source: str) -> None:
    latest: dict[str, int] = {}  # position of the nearest row above, by rank
    for i, item in enumerate(content):
        fields: Mapping[str, object] = item if isinstance(item, dict) else {}
        rank, code = fields.get("level"), fields.get("code")
        name = fields.get("brick" if rank == "brick" else "text")
        if rank not in RANKS or not isinstance(code, str) or not isinstance(name, str):
            fail(
                f"{source}, row {i} (counted from 0): rank {rank!r}, code {code!r}, name {name!r}",
                allowed="`level` one of segment, family, class, brick; `code` and `text` (or `brick`) text",
            )
        depth = RANKS.index(rank)
        parent = latest.get(RANKS[depth - 1]) if depth else None
        # Document order is all that tells the parent, so hold it against the ancestors' names.
        if depth and (parent is None or rows[parent].name != fields.get(NAMED_UNDER[RANKS[depth - 1]])):
            fail(
                f"{source}, row {i} (counted from 0): an orphan, its {RANKS[depth - 1]} is not above it",
                allowed="rows in document order, each below its parent",
            )
        for below in RANKS[depth + 1 :]:
            latest.pop(below, None)
        latest[rank] = i
        rows.append(_Row(code, name, parent))


def _nested(item: object, level: int, parent: int | None, rows: list[_Row], source: str) -> None:
    fields: Mapping[str, object] = item if isinstance(item, dict) else {}
    code, name, children = fields.get("Code"), fields.get("Title"), fields.get("Childs")
    if not isinstance(code, int | str) or not isinstance(name, str):
        fail(
            f"{source}, element {len(rows)} (counted from 0): code {code!r}, title {name!r}",
            allowed="`Code` a number or text, `Title` text",
        )
    position = len(rows)
    rows.append(_Row(str(code), name, parent))
    if level < len(RANKS) and isinstance(children, list):
        for child in children:
            _nested(child, level + 1, position, rows, source)
