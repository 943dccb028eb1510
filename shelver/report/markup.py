"""The few pieces of HTML that a page is made of. Whatever comes from outside goes through `safe`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from typing import Final

from shelver import plots

MAX_CHARS: Final = 300
"""Of any name or title that is shown."""


def safe(value: object) -> str:
    """A text that any page can hold."""
    text = plots.printable(str(value)[: MAX_CHARS + 1])
    return escape(text if len(text) <= MAX_CHARS else text[: MAX_CHARS - 1] + "…")


def section(title: str, *parts: str, anchor: str) -> str:
    """A part of the page under its own heading; empty parts are left out."""
    return f'<section id="{anchor}"><h2>{safe(title)}</h2>{"".join(parts)}</section>'


def paragraph(text: str) -> str:
    return f'<p class="note">{safe(text)}</p>'


def figure(svg: str, caption: str) -> str:
    return f"<figure>{svg}<figcaption>{safe(caption)}</figcaption></figure>"


def side_by_side(*parts: str) -> str:
    return f'<div class="pair">{"".join(parts)}</div>'


def table(header: Sequence[str], rows: Iterable[Sequence[object]], *, n_words: int = 1) -> str:
    """A table whose first `n_words` columns are words and the others numbers."""
    heads = "".join(
        f'<th scope="col"{"" if i < n_words else number}>{safe(h)}</th>'
        for number in [' class="n"']
        for i, h in enumerate(header)
    )
    body = "".join(
        "<tr>"
        + "".join(
            f'<th scope="row">{safe(cell)}</th>'
            if not i
            else f"<td>{safe(cell)}</td>"
            if i < n_words
            else f'<td class="n">{safe(cell)}</td>'
            for i, cell in enumerate(row)
        )
        + "</tr>"
        for row in rows
    )
    return f'<div class="wide"><table><thead><tr>{heads}</tr></thead><tbody>{body}</tbody></table></div>'
