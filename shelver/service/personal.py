"""What is stored about one person, in whatever table it stands."""

from __future__ import annotations

from typing import Any, Final

from sqlalchemy import or_, select
from sqlalchemy.orm import Session

from shelver.service.tables import Base

_SECRET: Final = {"api_keys": {"hash"}, "one_time_tokens": {"hash"}}
_OWNERS: Final = {"user_id", "owner_id"}


def rows_of(session: Session, user_id: str) -> dict[str, list[dict[str, Any]]]:
    """All rows that name a user, by table: those with a key to `users`, or a column that is called as one.

    A new table needs no line here.
    """
    found: dict[str, list[dict[str, Any]]] = {}
    for table in Base.metadata.sorted_tables:
        owners = [
            column
            for column in table.columns
            if column.name in _OWNERS or any(key.column.table.name == "users" for key in column.foreign_keys)
        ]
        if not owners or table.name == "users":  # the account itself is shown apart
            continue
        shown = [column for column in table.columns if column.name not in _SECRET.get(table.name, set())]
        rows = session.execute(select(*shown).where(or_(*(column == user_id for column in owners))))
        found[table.name] = [dict(row) for row in rows.mappings()]
    return found
