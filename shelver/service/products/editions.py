"""Versions of a product: a change names the one that it was made from, so that nobody overwrites the unseen."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import Header
from sqlalchemy import CursorResult, Result, update
from sqlalchemy.orm import Session

from shelver.service.problems import ServiceError
from shelver.service.tables.declarative import now
from shelver.service.tables.records import ProductRow

IfMatch = Annotated[
    str | None,
    Header(
        max_length=1000,
        description="The `ETag` of the version that is changed, or several; 412 where none is the latest.",
        examples=['"1"'],
    ),
]


def etag_of(row: ProductRow) -> str:
    """What names a version of a product."""
    return f'"{row.version}"'


def check_version(row: ProductRow, if_match: str | None) -> None:
    """See to it that `If-Match`, where it is given, names the latest version. A weak one names none (RFC 9110).

    Raises:
        ServiceError: it does not.
    """
    if if_match is None:
        return
    named = [one.strip() for one in if_match.split(",")]
    if named == ["*"] or etag_of(row) in named:
        return
    bare = next((one.strip("'\"") for one in named if not one.endswith('"')), "")
    if bare not in ("", "*"):
        raise _changed_meanwhile(
            f"If-Match: {if_match:.80}, without quotes", remedy=f'Send them too: If-Match: "{bare:.80}".'
        )
    raise _changed_meanwhile(f"version {if_match:.80} of the product, which is {row.version} by now")


def change(session: Session, row: ProductRow, if_match: str | None, columns: dict[str, Any]) -> None:
    """Write a new version, unless another has been written since `row` was read.

    Raises:
        ServiceError: another has.
    """
    check_version(row, if_match)
    read = row.version
    changed = session.execute(
        update(ProductRow)
        .where(ProductRow.id == row.id, ProductRow.version == read)
        .values(**columns, version=read + 1, updated_at=now()),
        execution_options={"synchronize_session": False},
    )
    check_one(changed)
    session.refresh(row)


def check_one(result: Result[Any]) -> None:
    """See to it that a statement found the version that was read.

    Raises:
        ServiceError: it did not.
    """
    assert isinstance(result, CursorResult)
    if result.rowcount != 1:
        raise _changed_meanwhile("a version of the product that was changed at the same time")


def _changed_meanwhile(
    received: str, remedy: str = "Read the product again, and make the change to that."
) -> ServiceError:
    return ServiceError(
        "changed_meanwhile", received, allowed="the ETag of the latest version in If-Match", remedy=remedy
    )
