"""Entries of the log, as rows of the database and as lines of a file."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from datetime import datetime
from typing import Any, Final

from sqlalchemy import delete, insert, select
from sqlalchemy.orm import Session

from shelver.service.db import Database
from shelver.service.tables.accounts import User
from shelver.service.tables.records import NAME_CHARS, PredictionRow

Also = Callable[[Session, Sequence["Entry"]], None]
"""What else is written of entries, in the transaction that inserts them."""

_DELETED_AT_ONCE: Final = 1000


@dataclass(frozen=True, slots=True)
class Entry:
    """One prediction, as the log keeps it.

    Attributes:
        id: 32 hex digits; the prediction's name for ever.
        at: when it was answered, with a time zone.
        user_id: who asked; None for the public.
        input_hash: SHA-256 of what was asked, in hex.
        product_id: the caller's own id of the product, if there was one.
        answer: the whole answer, as JSON.
        node_id, confidence: the decided node; None where none was decided.
        outcome: one of `shelver.decide.OUTCOMES`.
        policy: name of the policy.
        model_version, taxonomy_version: what answered.
        modality: "text", "image" or "both"; None where there was nothing to answer from.
        latency_ms: from the request's arrival to its answer.
        asked: the texts of the product, as JSON, where they are kept for a reviewer; the log itself has none.
    """

    id: str
    at: datetime
    user_id: str | None
    input_hash: str
    product_id: str | None
    answer: str
    node_id: str | None
    confidence: float | None
    outcome: str
    policy: str
    model_version: str
    taxonomy_version: str
    modality: str | None
    latency_ms: float
    asked: str | None = None


_FIELDS: Final = tuple(field.name for field in fields(Entry))


def insert_entries(
    database: Database, entries: Sequence[Entry], *, again: bool = False, also: Also | None = None
) -> int:
    """Insert entries in one transaction, but for those of users who were deleted.

    Args:
        database: where to.
        entries: any number; of several with one id the last one counts.
        again: some may be there already; those are left as they are.
        also: is called in the transaction with the entries that were inserted; raises nothing but database errors.

    Returns:
        How many were inserted.
    """
    rows = {entry.id: _row_of(entry) for entry in entries}
    users = {entry.user_id for entry in entries if entry.user_id is not None}
    with database.writing() as session:
        # Who was deleted while his entries waited is not written about again.
        gone = select(User.id).where(User.id.in_(users), User.deleted_at.is_not(None))
        erased = set(session.scalars(gone)) if users else set()
        rows = {entry_id: row for entry_id, row in rows.items() if row["user_id"] not in erased}
        if again and rows:
            # Not every database can insert or ignore, and none says it as the others do.
            for entry_id in session.scalars(select(PredictionRow.id).where(PredictionRow.id.in_(rows))).all():
                del rows[entry_id]
        if rows:
            session.execute(insert(PredictionRow), [*rows.values()])
            if also is not None:
                also(session, [*{entry.id: entry for entry in entries if entry.id in rows}.values()])
    return len(rows)


def delete_before(database: Database, moment: datetime) -> bool:
    """Delete some entries that are older; True where there may be more of them."""
    old = select(PredictionRow.id).where(PredictionRow.at < moment).order_by(PredictionRow.at)
    with database.writing() as session:
        # Read first: MariaDB takes no limit in a subquery.
        ids = session.scalars(old.limit(_DELETED_AT_ONCE)).all()
        if ids:
            session.execute(delete(PredictionRow).where(PredictionRow.id.in_(ids)))
    return len(ids) == _DELETED_AT_ONCE


def can_be_read(database: Database) -> bool:
    """Whether the table answers now: what cannot be inserted nevertheless is at fault itself."""
    try:
        with database.reading() as session:
            session.execute(select(PredictionRow.id).limit(1)).all()
    except Exception:  # whatever the driver raises, the answer is no
        return False
    return True


def line_of(entry: Entry) -> str:
    """The entry as one line of JSON, ASCII."""
    said = {name: getattr(entry, name) for name in _FIELDS}  # asdict would copy all of it
    return json.dumps(said | {"at": entry.at.isoformat()})


def entry_of(line: str) -> Entry:
    """The entry of a line.

    Raises:
        ValueError: the line is no whole entry.
    """
    said = json.loads(line)
    try:
        return Entry(**{**said, "at": datetime.fromisoformat(said["at"])})
    except (TypeError, KeyError) as error:
        raise ValueError("no entry of the log") from error


def _row_of(entry: Entry) -> dict[str, Any]:
    """The entry as the database takes it: too long, not a number or not a character is no reason to lose it."""
    return {
        "id": entry.id,
        "at": entry.at,
        "user_id": entry.user_id,
        "input_hash": entry.input_hash,
        "product_id": _plain(entry.product_id),
        "answer": _plain(entry.answer, None),
        "node_id": _plain(entry.node_id),
        "confidence": entry.confidence if entry.confidence is None or math.isfinite(entry.confidence) else None,
        "outcome": entry.outcome,
        "policy": _plain(entry.policy),
        "model_version": entry.model_version,
        "taxonomy_version": entry.taxonomy_version,
        "modality": entry.modality,
        "latency_ms": entry.latency_ms,
    }


def _plain(text: str | None, n_chars: int | None = NAME_CHARS) -> str | None:
    if text is None:
        return None
    return text[:n_chars].encode("utf-8", "replace").decode().replace("\x00", "")
