"""Products as they leave: one with its `ETag`, or a page of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from fastapi import Response
from sqlalchemy.orm import Session

from shelver.service.products.editions import etag_of
from shelver.service.products.payloads import ProductRead
from shelver.service.products.pictures import pictures_of
from shelver.service.state import Service
from shelver.service.tables.records import ProductRow

_PAGE_CHARS: Final = 1_000_000
"""Characters of descriptions and attributes, from which on a page has no more products."""
_READ: Final = frozenset(ProductRead.model_fields) - {"path", "pictures"}


def fitting(rows: Sequence[ProductRow]) -> int:
    """How many rows make a page: products may be large, and a page of them would be heavy for everybody."""
    n_chars = 0
    for i, row in enumerate(rows):
        n_chars += len(row.description or "")
        n_chars += sum(len(name) + sum(map(len, values)) for name, values in row.attributes.items())
        if n_chars > _PAGE_CHARS and i:
            return i
    return len(rows)


def read_products(session: Session, service: Service, rows: Sequence[ProductRow]) -> list[ProductRead]:
    """Products as they are shown."""
    tree = service.models.current().taxonomy
    pictures = pictures_of(session, [row.id for row in rows])
    read = []
    for row in rows:
        node = None if row.node_id is None else tree.find(row.node_id)
        read.append(
            ProductRead(
                **{name: getattr(row, name) for name in _READ},
                path=None if node is None else tree.paths[node],
                pictures=pictures.get(row.id, []),
            )
        )
    return read


def answer_with(response: Response, session: Session, service: Service, row: ProductRow) -> ProductRead:
    """A product as the answer, whose `ETag` names the version."""
    response.headers["ETag"] = etag_of(row)
    return read_products(session, service, [row])[0]


def replayed(kept: bytes) -> Response:
    """The answer to a request that comes again."""
    added = ProductRead.model_validate_json(kept)
    headers = {
        "ETag": f'"{added.version}"',
        "Location": f"/v1/products/{added.id}",
        "Idempotency-Replayed": "true",
    }
    return Response(kept, 201, headers, media_type="application/json")
