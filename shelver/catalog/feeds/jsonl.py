"""JSON lines. One record is one line; empty lines are no records."""

from __future__ import annotations

import json
from collections.abc import Iterator

from shelver.catalog.feeds.lines import BrokenOff, Damaged, LineSource, Overlong, read_lines
from shelver.catalog.feeds.stream import Source
from shelver.catalog.rows import BadRow, Cell, Code, Header, Limits, Row, bad_row
from shelver.errors import FeedError

_PEEKED_ROWS = 100
_PEEKED_BAD_ROWS = 10_000
MAX_DEPTH = 50


def _constant(word: str) -> str | None:
    return None if word == "NaN" else word


# Numbers stay text as written: an id keeps its digits, and a number of a million digits costs nothing.
_DECODER = json.JSONDecoder(parse_int=str, parse_float=str, parse_constant=_constant)


def read_jsonl(
    stream: Source, limits: Limits, *, name: str, encoding: str | None = None
) -> Iterator[Header | Row | BadRow]:
    """Reads JSON lines; the header holds the keys of the first hundred rows, in the order met.

    Where none of the first rows can be read, the header is empty.

    Raises:
        FeedError: the file is empty.
    """
    rows = _rows(LineSource(read_lines(stream, limits, encoding=encoding)), limits)
    yield from peek_columns(rows, name=name)


def peek_columns(rows: Iterator[Row | BadRow], *, name: str) -> Iterator[Header | Row | BadRow]:
    """Puts a header before rows that name their own columns.

    Raises:
        FeedError: there is no row at all.
    """
    peeked: list[Row | BadRow] = []
    n_chars = 0
    any_row = False
    for row in rows:
        peeked.append(row)
        if isinstance(row, Row):
            any_row = True
            n_chars += sum(len(cell) for cell in row.values.values() if cell is not None)
        enough = len(peeked) >= _PEEKED_ROWS or n_chars > 1024 * 1024
        if enough and (any_row or len(peeked) >= _PEEKED_BAD_ROWS):
            break
    if not peeked:
        raise FeedError(f"{name} holds no rows", allowed="a feed with rows", remedy="Check the file.")
    yield Header(tuple(dict.fromkeys(key for row in peeked if isinstance(row, Row) for key in row.values)))
    yield from peeked
    del peeked
    yield from rows


def _rows(source: LineSource, limits: Limits) -> Iterator[Row | BadRow]:
    while (line := source.take()) is not None:
        if not line or line.isspace():
            continue
        yield _row(line, source.number, limits)


def _row(line: str, number: int, limits: Limits) -> Row | BadRow:
    if isinstance(line, Overlong):
        return bad_row(number, Code.row_too_large, f"the row is over {limits.row_bytes:,} bytes", raw=line)
    if isinstance(line, BrokenOff):
        return bad_row(number, Code.damaged_file, str(line))
    if isinstance(line, Damaged):
        return bad_row(number, Code.bad_encoding, "the line holds bytes that are no text", raw=line)
    if "\0" in line:
        return bad_row(number, Code.nul_byte, "the row holds a NUL byte", raw=line)
    try:
        value = _DECODER.decode(line)
    except (ValueError, RecursionError) as error:
        return bad_row(number, Code.bad_json, f"not valid JSON: {str(error)[:100]}", raw=line)
    if not isinstance(value, dict):
        kind = "list" if isinstance(value, list) else "single value"
        return bad_row(number, Code.not_an_object, f"a JSON {kind}, not an object", raw=line)
    if "\\u" in line and not _is_text(value):
        return bad_row(number, Code.bad_encoding, "a \\u escape that is half a character", raw=line)
    values: dict[str, Cell] = {}
    for key, item in value.items():
        if isinstance(item, str):
            if len(item) > limits.cell_bytes:
                message = f"{len(item):,} characters; at most {limits.cell_bytes:,} are allowed"
                return bad_row(number, Code.cell_too_large, message, field=key, raw=item)
            values[key] = item
            continue
        try:
            values[key] = _cell(item, MAX_DEPTH)
        except RecursionError:
            message = f"lists and objects nest deeper than {MAX_DEPTH}"
            return bad_row(number, Code.bad_json, message, field=key, raw=line)
    return Row(number, values)


def _cell(value: object, depth: int) -> Cell:
    if depth == 0:
        raise RecursionError
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, list):
        return [_cell(item, depth - 1) for item in value]
    if isinstance(value, dict):
        return {key: _cell(item, depth - 1) for key, item in value.items()}
    return json.dumps(value)  # true, false


def _is_text(value: object) -> bool:
    """Whether every string in a JSON value can be written as UTF-8."""
    try:
        json.dumps(value, ensure_ascii=False).encode("utf-8")
    except (UnicodeEncodeError, RecursionError):
        return False
    return True
