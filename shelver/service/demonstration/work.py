"""Jobs that the demo's people have started: feeds that are imported, one that cannot be, an evaluation.

They stand in the queue; the worker beside the demo's server does them when it starts.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pyarrow.parquet as pq
from fastapi import Response
from sqlalchemy.orm import Session

from shelver.service.accounts.identity import Identity
from shelver.service.demonstration.cast import Cast
from shelver.service.demonstration.visits import Listing
from shelver.service.jobs.keeping import upload_path
from shelver.service.jobs.payloads import EvaluateParams, ImportParams, MappingIn
from shelver.service.jobs.routes import start_job
from shelver.service.state import Service
from shelver.service.tables.work import UploadRow

_COLUMNS: Final = pa.schema(
    [
        *((name, pa.string()) for name in ("product_id", "title", "description", "brand", "category")),
        ("image", pa.binary()),
    ]
)
_EVERY: Final = 12
"""So many rows have three that cannot be used."""


def start_jobs(service: Service, session: Session, cast: Cast, found: Sequence[Listing], catalog: str) -> None:
    """Put the jobs into the queue.

    Args:
        service: whose jobs they are.
        session: of the transaction.
        cast: who starts them.
        found: what stands in the feed.
        catalog: that the evaluation is on.
    """
    seller = next(iter(cast.sellers.values()))
    for name, data in (
        ("northwind-spring.parquet", _feed(found)),
        ("scan-0231.csv", b"\x89PNG\r\n\x1a\n" + bytes(64)),
    ):
        upload = _upload(session, service.settings.data, seller, name, data)
        params = ImportParams(
            kind="import_products", upload_id=upload, mapping=MappingIn(), unknown_category="refuse"
        )
        start_job(params, Response(), session, service, seller)
    start_job(EvaluateParams(kind="evaluate", catalog=catalog), Response(), session, service, cast.admin)


def _feed(found: Sequence[Listing]) -> bytes:
    """A seller's export, as it is: some rows twice, some of a category that there is not, some empty."""
    rows: list[dict[str, Any]] = []
    for number, listing in enumerate(found):
        row = {
            "product_id": f"NW-{number:04d}",
            "title": listing.title,
            "description": listing.description,
            "brand": listing.brand,
            "category": " > ".join(listing.path),
            "image": listing.picture,
        }
        rows.append(row)
        if number % _EVERY == 0:
            rows.append(row)
        elif number % _EVERY == _EVERY // 3:
            rows.append({**row, "product_id": f"NW-{number:04d}-B", "category": "Garden > Hovercraft"})
        elif number % _EVERY == 2 * _EVERY // 3:
            empty = dict.fromkeys(("title", "description", "brand", "image"))
            rows.append({**row, "product_id": f"NW-{number:04d}-C", **empty})
    out = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows, schema=_COLUMNS), out, compression="zstd")
    return out.getvalue()


def _upload(session: Session, data: Path, owner: Identity, name: str, content: bytes) -> str:
    sha256 = hashlib.sha256(content).hexdigest()
    path = upload_path(data, sha256)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    row = UploadRow(owner_id=owner.user_id, hash=sha256, name=name, n_bytes=len(content))
    session.add(row)
    session.flush()
    return row.id
