"""The first rows of a feed, and what would be understood of them: for who has to say which column is what."""

from __future__ import annotations

from itertools import islice
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from shelver.catalog.feeds import Format, open_feed
from shelver.catalog.mapping import Mapping
from shelver.catalog.reader import MAX_ID_CHARS, ProductRow, open_products
from shelver.catalog.rows import BadRow
from shelver.errors import InputError

_SHOWN_CHARS = 300


class PreviewRow(BaseModel):
    """A record as it would be read; with a `code` where it would be refused.

    Attributes:
        line: where it stands in the feed.
        product_id: whole; title, brand: cut where they are long.
        category: names from the top, or the id of a node.
        attributes: the values of each.
        n_pictures: that are in the feed itself.
        n_addresses: of pictures that are elsewhere.
        warnings: what would be left out, as codes.
        code, field, message: why it would be refused.
    """

    model_config = ConfigDict(frozen=True)

    line: int
    product_id: str | None = None
    title: str | None = None
    brand: str | None = None
    category: str | tuple[str, ...] | None = None
    attributes: dict[str, tuple[str, ...]] = {}
    n_pictures: int = 0
    n_addresses: int = 0
    warnings: tuple[str, ...] = ()
    code: str | None = None
    field: str | None = None
    message: str | None = None


class Preview(BaseModel):
    """What a feed looks like.

    Attributes:
        format: of the feed; None where it cannot be read.
        columns: of the feed.
        found: which column, or columns, is which part of a product.
        attributes: which is which attribute.
        rows: the first ones.
        problem: why the feed cannot be read so: text for people.
    """

    model_config = ConfigDict(frozen=True)

    format: Format | None = None
    columns: tuple[str, ...] = ()
    found: dict[str, tuple[str, ...]] = {}
    attributes: dict[str, tuple[str, ...]] = {}
    rows: tuple[PreviewRow, ...] = ()
    problem: str | None = None


def preview(path: Path, mapping: Mapping, *, n_rows: int, nothing: Path) -> Preview:
    """Look at the first rows of a feed.

    Args:
        path: the feed.
        mapping: which column is what, as far as that is said.
        n_rows: to look at.
        nothing: an empty folder: no file of this machine is taken for a picture of the feed.
    """
    seen: dict[str, Any] = {}
    try:
        feed = open_feed(path, encoding=mapping.encoding, delimiter=mapping.delimiter)
        seen |= {"format": feed.format, "columns": feed.header.columns}
        used = mapping.prefixed(feed.header.columns) if feed.format == "xml" else mapping
        used = used.completed(feed.header.columns)
        seen |= {"found": _tuples(used.columns), "attributes": _tuples(used.attributes)}
        products = open_products(path, mapping=mapping, image_root=nothing)
        seen["rows"] = tuple(_row(row) for row in islice(products.rows, n_rows))
    except InputError as error:
        seen["problem"] = str(error).replace(str(path), path.name)
    return Preview(**seen)


def _row(row: ProductRow | BadRow) -> PreviewRow:
    if isinstance(row, BadRow):
        return PreviewRow(
            line=row.line, product_id=_short(row.product_id), code=row.code, field=row.field, message=row.message
        )
    said = row.product
    return PreviewRow(
        line=row.line,
        product_id=_short(said.product_id, MAX_ID_CHARS),
        title=_short(said.title or said.description),
        brand=_short(said.brand),
        category=row.category,
        attributes={name: tuple(map(str, values[:5])) for name, values in list(said.attributes.items())[:20]},
        n_pictures=len(said.images),
        n_addresses=len(said.image_urls),
        warnings=tuple(dict.fromkeys(row.warnings)),
    )


def _short(text: str | None, n_chars: int = _SHOWN_CHARS) -> str | None:
    return None if text is None else text[:n_chars].encode("utf-8", "replace").decode()


def _tuples(entries: Any) -> dict[str, tuple[str, ...]]:
    return {name: (entry,) if isinstance(entry, str) else tuple(entry) for name, entry in entries.items()}
