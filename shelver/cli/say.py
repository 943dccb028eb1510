"""How commands speak: progress to standard error, results to standard output."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import typer


def progress(line: str) -> None:
    """A line for the person who waits."""
    typer.echo(line, err=True)


@contextmanager
def interruptible(then: str) -> Iterator[None]:
    """Ctrl-C ends the command with a sentence that says what is kept."""
    try:
        yield
    except KeyboardInterrupt:
        typer.echo(f"shelver: stopped. {then}", err=True)
        raise typer.Exit(1) from None


def result(record: Mapping[str, Any], text: str, *, as_json: bool) -> None:
    """The result of a command: JSON for machines, or text for people."""
    typer.echo(json.dumps(record, ensure_ascii=False, indent=2) if as_json else text)


def table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Columns of equal width; numbers to the right."""
    cells = [list(header), *[[_cell(value) for value in row] for row in rows]]
    widths = [max(len(row[i]) for row in cells) for i in range(len(header))]
    lines = []
    for row in cells:
        first, *rest = (
            cell.ljust(w) if not i else cell.rjust(w) for i, (cell, w) in enumerate(zip(row, widths, strict=True))
        )
        lines.append("  ".join([first, *rest]).rstrip())
    return "\n".join(lines)


def _cell(value: object) -> str:
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:.4f}"
    if isinstance(value, int):
        return f"{value:,}"
    return str(value)
