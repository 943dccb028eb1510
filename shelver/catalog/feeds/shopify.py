"""Shopify product CSV: one product spans several lines, one for each variant and each further picture.

One record is one product: the lines that follow each other with the same Handle. Shopify writes a product's
text on its first line only, so a line for itself would be no product. The record keeps the first line's number
and the first non-empty cell of each column; pictures are gathered in a list, in order, each once. A line that
cannot be read is a `BadRow` of its own, and the lines around it still form their product. So rows in =
products + bad lines. A Handle that comes back after another one is a second record (a repeated id).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from shelver.catalog.rows import BadRow, Cell, Header, Row
from shelver.errors import FeedError

# Shopify's template of 2025 renamed its columns.
_HANDLES = ("Handle", "URL handle")
_PICTURES = ("Image Src", "Product image URL", "Variant Image", "Variant image URL")
_MARKS = (
    "Body (HTML)",
    "Vendor",
    "Image Src",
    "Product image URL",
    "Variant SKU",
    "Variant Price",
    "Option1 Name",
)
_MAX_LINES = 10_000  # of one product; Shopify itself allows 2,048 variants and 250 pictures


def is_shopify(columns: Sequence[str]) -> bool:
    """Whether a header is that of a Shopify product export."""
    return any(h in columns for h in _HANDLES) and "Title" in columns and any(m in columns for m in _MARKS)


def group_products(rows: Iterator[Header | Row | BadRow], *, name: str) -> Iterator[Header | Row | BadRow]:
    """Merges the lines of each product into one row.

    Raises:
        FeedError: there is no Handle column.
    """
    header = next(rows)
    assert isinstance(header, Header)
    handle_column = next((column for column in _HANDLES if column in header.columns), None)
    if handle_column is None:
        raise FeedError(
            f"{name} has no column `Handle`; its columns are {', '.join(header.columns[:20])}",
            allowed="a Shopify product export",
            remedy="Read it as format csv with a mapping.",
        )
    yield header
    pictures = [column for column in _PICTURES if column in header.columns]
    lines: list[Row] = []
    for row in rows:
        if isinstance(row, BadRow):
            yield row
        elif isinstance(row, Row):
            same = lines and row.values[handle_column] == lines[0].values[handle_column] != ""
            if lines and (not same or len(lines) >= _MAX_LINES):
                yield _merge(lines, pictures)
                lines = []
            lines.append(row)
    if lines:
        yield _merge(lines, pictures)


def _merge(lines: list[Row], pictures: list[str]) -> Row:
    values: dict[str, Cell] = dict(lines[0].values)
    for line in lines[1:]:
        for column, cell in line.values.items():
            if cell and not values[column]:
                values[column] = cell
    for column in pictures:
        cells = dict.fromkeys(line.values[column] for line in lines if isinstance(line.values[column], str))
        values[column] = [cell for cell in cells if cell]
    return Row(lines[0].line, values)
