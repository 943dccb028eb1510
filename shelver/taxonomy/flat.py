"""Tables: a code and a name a row, for flat lists of codes; with a third column `parent`, for any tree."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path

from shelver.taxonomy.build import fail
from shelver.taxonomy.source import Source, parent_positions, read_source
from shelver.taxonomy.tree import Taxonomy

ID_HEADS = frozenset({"code", "id", "node_id", "category_id", "prdtypecode"})
NAME_HEADS = frozenset({"name", "title", "label", "category", "description"})
PARENT_HEADS = frozenset({"parent", "parent_id", "parent_code"})


def read_flat(path: Path | str, sep: str | None = None) -> Taxonomy:
    """Reads a table of `code,name` or `code,name,parent`, separated by tab, semicolon or comma.

    The code is the id, kept as text, so leading zeros stay. A first row that names the columns is
    recognised; the column `parent` (the parent's code, empty at level 1) needs one. A row with a code alone
    has the code for its name.

    Raises:
        TaxonomyError: a row of another width, a repeated code, an orphan, a cycle, an empty code or name;
            names the line.
    """
    return flat_tree(read_source(Path(path)), sep)


def flat_tree(source: Source, sep: str | None = None) -> Taxonomy:
    """As `read_flat`, from text."""
    rows = list(_rows(source, sep or delimiter(source)))
    with_parent = False
    if rows and is_header(rows[0][1]):
        with_parent = len(rows[0][1]) == 3
        rows = rows[1:]
    width = 3 if with_parent else 2
    for line, row in rows:
        if len(row) != width and not (len(row) == 1 and not with_parent):
            fail(
                f"{source.name}, line {line}: {len(row)} columns",
                allowed="`code,name` in every row, or `code,name,parent` under a header that says so",
                remedy="Put a name that holds the separator in double quotes.",
            )
    ids = [row[0].strip() for _, row in rows]
    lines = [line for line, _ in rows]
    parent_ids = [(row[2].strip() or None) if with_parent else None for _, row in rows]
    parents = parent_positions(ids, parent_ids, lines=lines, source=source.name)
    names = [row[1] if len(row) > 1 else row[0] for _, row in rows]
    return Taxonomy.from_parents(ids, names, parents, lines=lines, source=source.name)


def delimiter(source: Source) -> str:
    """The separator of a table, told from its first line: tab before semicolon before comma."""
    first = source.lines[0][1] if source.lines else ""
    return next((sep for sep in "\t;," if sep in first), ",")


def is_header(row: list[str]) -> bool:
    """Whether a row names the columns of a table of codes."""
    heads = [cell.strip().lower() for cell in row]
    return (
        len(heads) in (2, 3)
        and heads[0] in ID_HEADS
        and heads[1] in NAME_HEADS
        and (len(heads) == 2 or heads[2] in PARENT_HEADS)
    )


def _rows(source: Source, sep: str) -> Iterator[tuple[int, list[str]]]:
    start = source.lines[0][0] - 1 if source.lines else 0
    text = (f"{line}\n" for line in source.text.split("\n")[start:])
    reader = csv.reader(text, delimiter=sep, strict=True)
    while True:
        line = start + reader.line_num + 1  # a row begins on the line after those read so far
        try:
            row = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            fail(f"{source.name}, line {line}: no row of a table ({error})", allowed="CSV with double quotes")
        if any(cell.strip() for cell in row):
            yield line, row
