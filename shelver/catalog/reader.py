"""From any feed to products: one `ProductRow` or `BadRow` for each record, streaming.

    for row in read_products("feed.csv.gz"):
        ...

A trouble with a picture never costs a product its text: the picture is left out and a warning says so. A row
that is left with neither text nor picture nor address is refused, with its picture's code where it named one,
else as an `empty_product`. Repeated ids and categories that a taxonomy does not have are for `ingest` to judge:
a reader of one row cannot.
"""

from __future__ import annotations

import hashlib
import math
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePath

from shelver.catalog.attributes import pairs_of, values_of
from shelver.catalog.categories import Category, categories_of
from shelver.catalog.feeds import Feed, Format, open_feed
from shelver.catalog.mapping import LABELS, STANDARD, Mapping, Standard
from shelver.catalog.pictures import Pictures
from shelver.catalog.rows import (
    DEFAULT_LIMITS,
    BadRow,
    Cell,
    Code,
    Limits,
    RefusedError,
    Row,
    Warn,
    as_text,
    bad_row,
    excerpt,
)
from shelver.errors import ConfigError
from shelver.product import Product

MAX_ID_CHARS = 500

_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_NO_NUMBER = frozenset(("", "nan", "none", "null", "na", "n/a", "-"))
_SPLITS = {
    "train": "train",
    "training": "train",
    "val": "validation",
    "valid": "validation",
    "validation": "validation",
    "dev": "validation",
    "test": "test",
    "testing": "test",
}


@dataclass(frozen=True, slots=True)
class ProductRow:
    """A product and where it stood.

    Attributes:
        line: 1-based line where the record starts (Parquet: row number).
        product: its `node_id` is None: the category has not been looked up. Its `attributes` are as the feed has
            them.
        category: its place; None where the row has none.
        warnings: `Warn` codes, each once.
        also: categories that are just as right.
        specification: the pairs of its table of specifications, as they stand.
    """

    line: int
    product: Product
    category: Category | None
    warnings: tuple[str, ...]
    also: tuple[Category, ...] = ()
    specification: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class ProductFeed:
    """An opened feed with its mapping.

    Attributes:
        format: of the feed.
        columns: of the feed.
        mapping: given and guessed, as it is used.
        rows: one item for each record, once; streaming.
    """

    format: Format
    columns: tuple[str, ...]
    mapping: Mapping
    rows: Iterator[ProductRow | BadRow]


def read_products(
    path: str | PurePath,
    *,
    mapping: Mapping | None = None,
    image_root: str | PurePath | None = None,
    limits: Limits = DEFAULT_LIMITS,
    labels: bool = True,
) -> Iterator[ProductRow | BadRow]:
    """The products of a feed; see `open_products`."""
    return open_products(path, mapping=mapping, image_root=image_root, limits=limits, labels=labels).rows


def open_products(
    path: str | PurePath,
    *,
    mapping: Mapping | None = None,
    image_root: str | PurePath | None = None,
    limits: Limits = DEFAULT_LIMITS,
    labels: bool = True,
) -> ProductFeed:
    """Opens a feed of any format as products.

    Args:
        path: the feed.
        mapping: which column is what; what it leaves open is guessed from the columns' names.
        image_root: the folder of the pictures' files; wins over the mapping's `image_folder`. Without either: the
            feed's own folder. Nothing outside it is ever read.
        limits: bounds on sizes.
        labels: False leaves what only learning and judging need unread (`shelver.catalog.mapping.LABELS`): no row
            is refused for it, and the feed may lack the columns that the mapping names for it.

    Raises:
        FeedError: the feed as a whole cannot be read (also later, from `rows`, for a damaged Parquet file).
        ConfigError: the mapping does not fit the feed.
    """
    feed, reader = _open(Path(path), mapping or Mapping(), image_root, limits, labels=labels)
    return ProductFeed(feed.format, feed.header.columns, reader.mapping, _products(feed, reader))


def picture_files(
    path: str | PurePath, *, mapping: Mapping | None, image_root: str | PurePath | None, limits: Limits
) -> Iterator[tuple[str, int]]:
    """The name and the size in bytes of each picture file that `open_products` would read, in its order.

    No file is opened for its content, and nothing is read where the mapping has no column for pictures.
    """
    feed, reader = _open(Path(path), mapping or Mapping(), image_root, limits, labels=False)
    if reader.pictured:
        for row in feed.rows:
            if isinstance(row, Row):
                yield from reader.pictures(row.values, read=False).files


def missing_picture(
    path: str | PurePath, *, mapping: Mapping | None, image_root: str | PurePath | None, limits: Limits
) -> tuple[str, str] | None:
    """The picture folder and the first file that a row names and that is not in it; None where all are there."""
    feed, reader = _open(Path(path), mapping or Mapping(), image_root, limits, labels=False)
    if reader.pictured:
        for row in feed.rows:
            if isinstance(row, Row) and (name := reader.pictures(row.values, read=False).missing):
                return reader.folder, excerpt(name)
    return None


def _open(
    path: Path, given: Mapping, image_root: str | PurePath | None, limits: Limits, *, labels: bool
) -> tuple[Feed, _Reader]:
    feed = open_feed(
        path,
        format=given.format,
        encoding=given.encoding,
        delimiter=given.delimiter,
        header=given.header,
        quoted=given.quoted,
        limits=limits,
    )
    # Where not one of the first rows could be read, there is no header: each row is then judged by itself.
    columns = feed.header.columns or STANDARD
    if feed.format == "xml":
        given = given.prefixed(columns)
    used = given.completed(columns)
    if not labels:
        used = used.without(LABELS)
    used.check(
        columns, repeated=feed.header.repeated, open_ended=feed.format == "jsonl" or not feed.header.columns
    )
    if image_root is not None:
        root = Path(image_root)
        if not root.is_dir():
            raise ConfigError(f"picture folder {root}", allowed="a folder", remedy="Check the path.")
    else:
        root = path.parent / (used.image_folder or "")
    return feed, _Reader(used, root, limits)


def _products(feed: Feed, reader: _Reader) -> Iterator[ProductRow | BadRow]:
    for row in feed.rows:
        yield row if isinstance(row, BadRow) else reader.product(row)


class _Reader:
    """One feed's mapping, made ready for many rows."""

    def __init__(self, mapping: Mapping, root: Path, limits: Limits) -> None:
        self.mapping = mapping
        self._limits = limits
        self._root = os.path.realpath(root)
        self.folder = str(root) if root != Path() else self._root  # for people
        self._columns: dict[Standard, tuple[str, ...]] = {
            name: (entry,) if isinstance(entry, str) else entry for name, entry in mapping.columns.items()
        }
        self._attributes = {
            name: (entry,) if isinstance(entry, str) else entry for name, entry in mapping.attributes.items()
        }
        self.pictured = bool(self._columns.get("image") or mapping.image_pattern)

    def product(self, row: Row) -> ProductRow | BadRow:
        values = row.values
        product_id: str | None = None
        try:
            product_id = self._id(row)
            title = self._text("title", values)
            description = self._text("description", values)
            brand = self._text("brand", values)
            categories, all_categories = self._categories(values)
            split = self._split(values)
            value = self._value(values)
            source = self._text("source", values)
            language = self._text("language", values)
        except RefusedError as refused:
            return bad_row(
                row.line,
                refused.code,
                str(refused),
                field=refused.field,
                raw=refused.raw,
                product_id=product_id,
            )
        images: tuple[bytes, ...] = ()
        urls: tuple[str, ...] = ()
        warnings: tuple[str, ...] = ()
        if self.pictured:
            found = self.pictures(values)
            images, urls, warnings = tuple(found.images), tuple(found.urls), tuple(found.warnings)
        if not (title or description or brand or images or urls):
            message = "neither a text nor a picture nor an address of a picture"
            if warnings:
                message += f" that can be used ({', '.join(warnings)})"
                return bad_row(row.line, Code(warnings[0]), message, field="image", product_id=product_id)
            return bad_row(row.line, Code.empty_product, message, product_id=product_id)
        attributes, all_labels = self._labels(values)
        specified = (pairs_of(values.get(column)) for column in self._columns.get("specification", ()))
        specification = next((pairs for pairs in specified if pairs), ())
        product = Product(
            product_id,
            title,
            description,
            brand,
            images,
            urls,
            None,
            split,
            source,
            language,
            value,
            attributes=attributes,
        )
        if not all_categories:
            warnings = (*warnings, Warn.also_bad_category.value)
        if not all_labels:
            warnings = (*warnings, Warn.attribute_refused.value)
        first, *also = categories or (None,)
        return ProductRow(row.line, product, first, warnings, tuple(filter(None, also)), specification)

    def _labels(self, values: dict[str, Cell]) -> tuple[dict[str, tuple[str, ...]], bool]:
        """The values by attribute, and whether none was left out."""
        found: dict[str, tuple[str, ...]] = {}
        all_whole = True
        for name, columns in self._attributes.items():
            cells = (values.get(column) for column in columns)
            labels, whole = values_of(cells, separator=self.mapping.attribute_separator)
            all_whole &= whole
            if labels:
                found[name] = labels
        return found, all_whole

    def _text(self, name: Standard, values: dict[str, Cell]) -> str | None:
        for column in self._columns.get(name, ()):
            text = as_text(values.get(column), column)
            if text is not None:
                return text
        return self.mapping.constants.get(name)

    def _id(self, row: Row) -> str:
        if self.mapping.id_from == "line":
            return str(row.line)
        if self.mapping.id_from == "hash":
            parts = [as_text(row.values.get(c), c) or "" for c in self.mapping.id_columns]
            if not any(parts):
                columns = ", ".join(self.mapping.id_columns)
                raise RefusedError(Code.missing_id, "product_id", f"nothing to make an id of in {columns}", "")
            return hashlib.sha256("\x1f".join(parts).encode()).hexdigest()[:16]
        product_id = (self._text("product_id", row.values) or "").strip()
        if not product_id:
            raise RefusedError(Code.missing_id, "product_id", "the row has no product_id", "")
        if len(product_id) > MAX_ID_CHARS or _CONTROL.search(product_id):
            message = f"a product_id has at most {MAX_ID_CHARS} characters and no control characters"
            raise RefusedError(Code.bad_id, "product_id", message, product_id)
        return product_id

    def _categories(self, values: dict[str, Cell]) -> tuple[list[Category], bool]:
        columns = self._columns.get("category", ())
        if not columns:
            return [], True
        return categories_of([values.get(column) for column in columns], columns, self.mapping)

    def _split(self, values: dict[str, Cell]) -> str | None:
        text = self._text("split", values)
        if text is None:
            return None
        split = _SPLITS.get(text.strip().lower())
        if split is None:
            message = f"split {text[:40]!r} is not train, validation or test"
            raise RefusedError(Code.bad_split, "split", message, text)
        return split

    def _value(self, values: dict[str, Cell]) -> float | None:
        text = self._text("value", values)
        if text is None or (text := text.strip()).lower() in _NO_NUMBER:
            return None
        try:
            value = float(text) if "_" not in text and len(text) < 400 else math.nan
        except ValueError:
            value = math.nan
        if not (math.isfinite(value) and value >= 0):
            raise RefusedError(Code.bad_value, "value", f"{text[:40]!r} is not a number of at least 0", text)
        return value

    def pictures(self, values: dict[str, Cell], *, read: bool = True) -> Pictures:
        """The pictures of a row; `read=False` looks at their files without reading them."""
        found = Pictures(self._root, self._limits, read=read)
        mapping = self.mapping
        if mapping.image_pattern is not None:
            parts: dict[str, str] = {}
            for column in mapping.image_placeholders():
                cell = values.get(column)
                part = cell.strip() if isinstance(cell, str) else ""
                if not part:
                    found.warn(Warn.image_missing)
                    return found
                if "/" in part or "\\" in part:
                    found.warn(Warn.image_refused)
                    return found
                parts[column] = part
            found.add_file(mapping.image_name(parts))
            return found
        for column in self._columns.get("image", ()):
            cell = values.get(column)
            if isinstance(cell, str) and mapping.image_separator is not None:
                for part in cell.split(mapping.image_separator):
                    found.add(part)
            else:
                found.add(cell)
        return found
