"""The few pieces of HTML that a page is made of. Whatever comes from outside goes through `safe`."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Final

from shelver import plots
from shelver.evaluate import Example
from shelver.report import words

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
    """A picture; below it, what it shows."""
    below = f"<figcaption>{safe(caption)}</figcaption>" if caption else ""
    return f"<figure>{svg}{below}</figure>"


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


def side_by_side_small(*parts: str) -> str:
    """Small pictures in as many columns as there is room for."""
    return f'<div class="grid">{"".join(parts)}</div>'


def folded(summary: str, content: str) -> str:
    """What is shown when asked for."""
    return f"<details><summary>{safe(summary)}</summary>{content}</details>"


def cards(examples: Iterable[Example], pictures: Mapping[str, bytes]) -> str:
    """Products with their pictures, by product id, and what was said of them."""
    return f'<ul class="cards">{"".join(_card(one, pictures) for one in examples)}</ul>'


def _card(example: Example, pictures: Mapping[str, bytes]) -> str:
    data = pictures.get(example.product_id)
    picture = '<div class="none" aria-hidden="true"></div>'
    if data is not None:
        encoded = base64.b64encode(data).decode("ascii")
        picture = f'<img src="data:image/jpeg;base64,{encoded}" alt="" loading="lazy">'
    right = example.true_path == example.predicted_path
    answer = f'<p class="path">{safe(example.predicted_path)}</p>'
    if not right:
        answer = (
            f'<p class="path wrong"><b>said</b> {safe(example.predicted_path)}</p>'
            f'<p class="path"><b>true</b> {safe(example.true_path)}</p>'
        )
    title = safe(example.title) if example.title else "<i>no text</i>"
    return (
        f"<li>{picture}<div><p>{title}</p>{answer}"
        f'<p class="small">{100 * example.confidence:.1f} % sure, from {words.MODALITIES[example.modality]}</p>'
        f'<p class="small id" title="{safe(example.product_id)}">{safe(example.product_id)}</p></div></li>'
    )
