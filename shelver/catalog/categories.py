"""The categories of one row: the first is its place, the others are just as right."""

from __future__ import annotations

from collections.abc import Sequence

from shelver.catalog.mapping import Mapping
from shelver.catalog.rows import Cell, Code, RefusedError, as_text
from shelver.taxonomy import plain_name

MAX_LEVELS = 32
MAX_NAME_CHARS = 1_000
MAX_ALTERNATIVES = 32

Category = tuple[str, ...] | str
"""The names from the top (`category_format` path; one name may also be a node id), or a node id (`id`)."""


def categories_of(cells: Sequence[Cell], columns: Sequence[str], mapping: Mapping) -> tuple[list[Category], bool]:
    """The categories in the cells of a row, each once, in order.

    Several columns are the levels of one path. One column has a path in each cell, several where
    `category_alternatives` parts them, and in a list (JSON lines): the levels of one path, or several paths
    where the items are lists or `category_alternatives` is set.

    Returns:
        The categories, none where the cells are empty, and whether those after the first are all: one that is
        no path is left out.

    Raises:
        RefusedError: the first is no path, or a cell is of the wrong kind.
    """
    found: dict[Category, None] = {}
    whole = True
    for names in _alternatives(cells, columns, mapping):
        try:
            category = _category(names, mapping)
        except RefusedError:
            if not found:
                raise
            whole = False
            continue
        if category is not None and len(found) < MAX_ALTERNATIVES:
            found[category] = None
        elif category not in found and category is not None:
            whole = False
    return list(found), whole


def _alternatives(cells: Sequence[Cell], columns: Sequence[str], mapping: Mapping) -> list[list[str]]:
    if len(columns) > 1:
        pairs = zip(cells, columns, strict=True)
        return [[_stripped(as_text(cell, column) or "", mapping) for cell, column in pairs]]
    (cell,), (column,) = cells, columns
    if isinstance(cell, list):
        if mapping.category_alternatives is None and not any(isinstance(item, list) for item in cell):
            return [[as_text(name, column) or "" for name in cell]]
        return [
            [as_text(name, column) or "" for name in item]
            if isinstance(item, list)
            else _names(_stripped(as_text(item, column) or "", mapping), mapping)
            for item in cell
        ]
    text = _stripped(as_text(cell, column) or "", mapping)
    parts = text.split(mapping.category_alternatives) if mapping.category_alternatives else [text]
    return [_names(_stripped(part, mapping) if len(parts) > 1 else part, mapping) for part in parts]


def _stripped(text: str, mapping: Mapping) -> str:
    return text.strip().strip(mapping.category_strip) if mapping.category_strip else text


def _names(text: str, mapping: Mapping) -> list[str]:
    return [text] if mapping.category_format == "id" else mapping.levels(text)


def _category(raw: list[str], mapping: Mapping) -> Category | None:
    names = [plain_name(name) for name in raw]
    while names and not names[-1]:
        names.pop()
    if not names:
        return None
    if mapping.category_format == "id":
        if len(names[-1]) > MAX_NAME_CHARS:
            message = f"a node id has at most {MAX_NAME_CHARS:,} characters"
            raise RefusedError(Code.bad_category, "category", message, names[-1])
        return names[-1]
    if not all(names) or len(names) > MAX_LEVELS or max(map(len, names)) > MAX_NAME_CHARS:
        message = (
            f"a category path has no empty level in its middle, at most {MAX_LEVELS} levels and "
            f"{MAX_NAME_CHARS:,} characters a name"
        )
        raise RefusedError(Code.bad_category, "category", message, " > ".join(names))
    return tuple(names[: mapping.max_level])
