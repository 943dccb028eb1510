"""Stored products as a feed: written once a job, so that every attempt reads the same."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pyarrow.parquet as pq

from shelver.catalog.mapping import Mapping
from shelver.service.products.imports import StoredProduct, stored_products
from shelver.worker.attempt import Attempt

_TEXTS: Final = ("product_id", "title", "description", "brand", "category")
_MIN_LABELS: Final = 10
_MAX_ATTRIBUTES: Final = 100
_PAGE_ROWS: Final = 100
"""Rows that are written at once, for the sake of their pictures."""


@dataclass(frozen=True, slots=True)
class StoredFeed:
    """A Parquet file of stored products, the mapping that reads it, and how many there are."""

    path: Path
    mapping: Mapping
    n_products: int


def write_stored(attempt: Attempt, *, owner_id: str | None = None, labelled: bool = False) -> StoredFeed:
    """The stored products as a feed with their pictures; the category is a node's id.

    Args:
        attempt: the job that needs them; the feed stands in its folder.
        owner_id: whose; everybody's without it.
        labelled: only those with a category, and their attributes too.
    """
    path = attempt.work / "stored.parquet"
    if not path.is_file():
        names = _attributes(attempt) if labelled else ()
        kinds: list[tuple[str, pa.DataType]] = [(name, pa.string()) for name in _TEXTS]
        kinds += [("image", pa.list_(pa.binary()))]
        kinds += [(f"said.{name}", pa.list_(pa.string())) for name in names]
        schema = pa.schema(kinds)
        unfinished = path.with_suffix(".partial")
        n_read = 0
        with pq.ParquetWriter(unfinished, schema, compression="zstd") as writer:
            for page in stored_products(attempt.place.database, owner_id=owner_id, labelled=labelled):
                for start in range(0, len(page), _PAGE_ROWS):
                    rows = [_row(attempt, product, names) for product in page[start : start + _PAGE_ROWS]]
                    writer.write_table(pa.Table.from_pylist(rows, schema=schema))
                n_read += len(page)
                attempt.tell("reading", f"{n_read:,} stored products")
        unfinished.replace(path)
    read = pq.read_schema(path)
    found = [column for column in read.names if column.startswith("said.")]
    mapping = Mapping.of(
        {
            "columns": {name: name for name in (*_TEXTS, "image")},
            "attributes": {column.removeprefix("said."): column for column in found},
            "category_format": "id",
        },
        where="stored products",
    )
    return StoredFeed(path, mapping, pq.read_metadata(path).num_rows)


def _attributes(attempt: Attempt) -> tuple[str, ...]:
    """The attributes that enough products say, each under one spelling of its name."""
    counts: Counter[str] = Counter()
    for page in stored_products(attempt.place.database, labelled=True):
        for product in page:
            counts.update(name for name, values in product.attributes.items() if values and name.strip())
    spelled: dict[str, str] = {}
    for name, n in counts.most_common():
        if n >= _MIN_LABELS:
            spelled.setdefault(re.sub(r"[\s_-]+", "_", name.strip().lower()), name)
    return tuple(spelled.values())[:_MAX_ATTRIBUTES]


def _row(attempt: Attempt, product: StoredProduct, names: tuple[str, ...]) -> dict[str, Any]:
    pictures = [attempt.place.pictures.get(hash_) for hash_ in product.pictures]
    return {
        "product_id": product.id,
        "title": product.title,
        "description": product.description,
        "brand": product.brand,
        "category": product.node_id,
        "image": [data for data in pictures if data is not None],
        **{f"said.{name}": product.attributes.get(name) for name in names},
    }
