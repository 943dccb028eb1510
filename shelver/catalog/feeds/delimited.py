"""CSV, TSV and other delimited text. One record is one row of cells, however many lines its quotes span.

Lines that are empty are no records. A quoted cell may hold line ends. A quote that is never closed would
swallow the rest of the file: the line that opens it becomes one `BadRow`, and reading goes on at the next line.
"""

from __future__ import annotations

import csv
import sys
from collections.abc import Iterator, Sequence

from shelver.catalog.feeds.lines import BrokenOff, Damaged, LineSource, Overlong, read_lines
from shelver.catalog.feeds.stream import Source
from shelver.catalog.rows import BadRow, Code, Header, Limits, Row, bad_row
from shelver.errors import FeedError

DELIMITERS = (",", "\t", ";", "|")
MAX_COLUMNS = 10_000


def read_delimited(
    stream: Source,
    limits: Limits,
    *,
    name: str,
    encoding: str | None = None,
    delimiter: str | None = None,
    header: Sequence[str] | None = None,
    quoted: bool = True,
) -> Iterator[Header | Row | BadRow]:
    """Reads delimited text.

    Args:
        stream: the unpacked bytes.
        limits: sizes.
        name: the feed's name, for messages.
        encoding: see `read_lines`.
        delimiter: one character; None finds it in the first line.
        header: names of the columns of a file that has no header line.
        quoted: False where quotes are plain characters and no cell spans lines.

    Raises:
        FeedError: the file is empty or its header cannot be read.
    """
    csv.field_size_limit(sys.maxsize)  # the module's own limit aborts the file; ours costs one row
    source = LineSource(read_lines(stream, limits, encoding=encoding))
    first = source.take()
    while first is not None and type(first) is str and not first.strip():
        first = source.take()
    if first is None:
        raise _no_header(name, "the file is empty")
    if type(first) is not str:
        raise _no_header(name, f"its first line cannot be read: {str(first)[:80]!r}")
    delimiter = delimiter or find_delimiter(first)
    if header is None:
        cells, _, code = _record(first, source, delimiter, limits, quoted)
        if code is not None or "\0" in first:
            raise _no_header(name, f"its header line is damaged ({code or Code.nul_byte})")
        columns = column_names(cells)
    else:
        source.put_back([first])
        columns = column_names(header)
    if len(columns.columns) > MAX_COLUMNS:
        raise _no_header(name, f"it has {len(columns.columns):,} columns")
    yield columns
    yield from _rows(source, columns.columns, delimiter, limits, quoted)


def _rows(
    source: LineSource, names: tuple[str, ...], delimiter: str, limits: Limits, quoted: bool
) -> Iterator[Row | BadRow]:
    width = len(names)
    while (line := source.take()) is not None:
        number = source.number
        if type(line) is str and (not quoted or '"' not in line):
            text = line.rstrip("\r\n")
            if not text:
                continue
            cells, taken, code = text.split(delimiter), [line], None
            size = len(text)
        elif isinstance(line, Overlong):
            message = f"the row is over {limits.row_bytes:,} bytes"
            yield bad_row(number, Code.row_too_large, message, raw=line)
            continue
        elif isinstance(line, BrokenOff):
            yield bad_row(number, Code.damaged_file, str(line))
            continue
        else:
            cells, taken, code = _record(line, source, delimiter, limits, quoted)
            if code is None and len(taken) > 1 and len(cells) != width and _swallowed(taken, delimiter, width):
                source.put_back(taken[1:])
                taken, code = taken[:1], Code.unbalanced_quote
            size = sum(map(len, taken))
        if code is None and size > limits.cell_bytes and max(map(len, cells)) > limits.cell_bytes:
            code = Code.cell_too_large
        if code is not None:
            message = f"the row cannot be read: {code.value}"
            yield bad_row(number, code, message, raw=line)
        elif any("\0" in part for part in taken):
            yield bad_row(number, Code.nul_byte, "the row holds a NUL byte", raw=line)
        elif len(cells) == width or (len(cells) > width and not any(cells[width:])):
            yield Row(number, dict(zip(names, cells, strict=False)))
        else:
            code = Code.too_few_cells if len(cells) < width else Code.too_many_cells
            message = f"{len(cells)} cells, the header has {width}"
            yield bad_row(number, code, message, raw=line)


def _record(
    first: str, source: LineSource, delimiter: str, limits: Limits, quoted: bool
) -> tuple[list[str], list[str], Code | None]:
    """The cells of the record that starts with `first`, its lines, and what is wrong with it.

    Strict quoting first, over as many lines as the quotes span. Where that fails, the first line alone, with the
    tolerance of spreadsheets (`"5" screen`); the other lines go back, so that they are read as rows of their own.
    Each line is looked at twice at most: only a line with an odd quote can end or fail a span.
    """
    taken = [first]
    if not quoted:
        return first.rstrip("\r\n").split(delimiter), taken, _damage(taken)

    def lines() -> Iterator[str]:
        yield first
        size = len(first)
        while size <= limits.cell_bytes and (line := source.take()) is not None:
            taken.append(line)
            if isinstance(line, Overlong | BrokenOff):
                return
            size += len(line)
            yield line

    try:
        cells = next(csv.reader(lines(), delimiter=delimiter, strict=True))
    except csv.Error:
        source.put_back(taken[1:])
    else:
        return cells, taken, _damage(taken)
    # A lone carriage return is no line end here: spreadsheets write it inside cells.
    alone = csv.reader((first.rstrip("\r\n").replace("\r", " "), "\n"), delimiter=delimiter)
    try:
        cells = next(alone)
    except csv.Error:
        return [], taken[:1], Code.unbalanced_quote
    code = Code.unbalanced_quote if alone.line_num > 1 else _damage(taken[:1])
    return cells, taken[:1], code


def _swallowed(taken: list[str], delimiter: str, width: int) -> bool:
    """Whether a record of several lines and the wrong width holds a whole row: then a quote was left open."""
    for line in taken[1:]:
        try:
            cells = next(csv.reader((line,), delimiter=delimiter, strict=True), [])
        except csv.Error:
            continue
        if len(cells) == width:
            return True
    return False


def _damage(lines: list[str]) -> Code | None:
    return Code.bad_encoding if any(isinstance(line, Damaged) for line in lines) else None


def find_delimiter(line: str) -> str:
    """The delimiter that stands most often in a line, outside quotes; a comma where none does."""
    outside = "".join(line.split('"')[::2])
    return max(DELIMITERS, key=outside.count)  # the first of equals: a comma


def column_names(cells: Sequence[str]) -> Header:
    """Unique, stripped names: an unnamed column is `column_N` (from 1), a repeated name gets ` (2)`."""
    names: list[str] = []
    seen: dict[str, int] = {}
    taken = {cell.strip() for cell in cells}
    for position, cell in enumerate(cells, start=1):
        name = cell.strip() or f"column_{position}"
        count = seen[name] = seen.get(name, 0) + 1
        while count > 1 and f"{name} ({count})" in taken:
            count += 1
        seen[name] = count
        names.append(name if count == 1 else f"{name} ({count})")
    return Header(tuple(names), tuple(name for name, count in seen.items() if count > 1))


def _no_header(name: str, problem: str) -> FeedError:
    return FeedError(
        f"{name}: {problem}",
        allowed=f"delimited text whose first line names at most {MAX_COLUMNS:,} columns",
        remedy="Check the file; where it has no header line, name its columns with `header` in the mapping.",
    )
