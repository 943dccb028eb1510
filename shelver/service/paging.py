"""Long lists, a page at a time: newest first, and each page begins where the last one ended.

A page is found by the last row's time and id, not by counting rows, so that rows that come in meanwhile neither
repeat nor hide others, and the hundredth page costs what the first one does.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Sequence
from datetime import datetime
from typing import Any, NamedTuple, TypeVar

from sqlalchemy import Select, and_, or_
from sqlalchemy.orm import InstrumentedAttribute, Session

from shelver.service.problems import ServiceError
from shelver.service.records.payloads import Moment as Moment
from shelver.service.records.payloads import Paged as Paged
from shelver.service.records.payloads import in_utc

Row = TypeVar("Row")


class Place(NamedTuple):
    """The row after which a page begins."""

    at: datetime
    id: str


def place_of(cursor: str) -> Place:
    """Read what `cursor_of` wrote.

    Raises:
        ServiceError: it is something else.
    """
    try:
        at, id_ = json.loads(base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)))
        place = Place(in_utc(datetime.fromisoformat(at)), str(id_))
        if not place.id.isalnum() or not place.id.isascii():
            raise ValueError("no id")
        return place
    except (ValueError, TypeError, binascii.Error, RecursionError, OverflowError) as error:
        raise ServiceError(
            "invalid_input",
            "a page that no list named",
            allowed="`next` of an earlier page",
            remedy="Start again.",
        ) from error


def cursor_of(place: Place) -> str:
    """The place as text for an address; callers need not know what it says."""
    return base64.urlsafe_b64encode(json.dumps([place.at.isoformat(), place.id]).encode()).decode().rstrip("=")


def newest_first(
    rows: Select[Row],
    at: InstrumentedAttribute[datetime],
    id_: InstrumentedAttribute[str],
    place: Place | None,
) -> Select[Row]:
    """The rows after a place, in the order of all lists."""
    if place is not None:
        # The first part lets an index begin at the right place.
        rows = rows.where(and_(at <= place.at, or_(at < place.at, id_ < place.id)))
    return rows.order_by(at.desc(), id_.desc())


def page_of(
    session: Session,
    rows: Select[Row],
    at: InstrumentedAttribute[datetime],
    id_: InstrumentedAttribute[str],
    page: Paged,
) -> tuple[Sequence[Row], str | None]:
    """One page.

    Args:
        session: where to read.
        rows: what the list holds, unordered.
        at, id_: the columns that order it; an index begins with what `rows` filters by, and ends with these.
        page: which page.

    Returns:
        The rows, and the cursor of the next page; None where this is the last.
    """
    wanted = newest_first(rows, at, id_, place_of(page.after) if page.after else None)
    found: Sequence[Any] = session.scalars(wanted.limit(page.limit + 1)).all()
    if len(found) <= page.limit:
        return found, None
    last = found[page.limit - 1]
    return found[: page.limit], cursor_of(Place(getattr(last, at.key), getattr(last, id_.key)))
