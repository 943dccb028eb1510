"""The audit, for administrators: who did what, when, and what it was before and after."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Annotated, Any, Final

from fastapi import APIRouter, Query, Request, Response
from sqlalchemy import ColumnElement, and_, or_, select
from sqlalchemy.orm import Session

from shelver.service.accounts.payloads import AuditFilters, AuditLine
from shelver.service.accounts.users import Admin, is_called
from shelver.service.audit import find_changes
from shelver.service.db import SessionDep
from shelver.service.pages.locales import mark, words_of
from shelver.service.pages.render import page
from shelver.service.tables.accounts import ApiKey, User

ACTIONS: Final[Mapping[str, str]] = {
    "job.cancel": mark("stopped a job"),
    "job.start": mark("started a job"),
    "key.created": mark("made a key"),
    "key.revoked": mark("ended a key"),
    "model.promote": mark("promoted a model"),
    "model.register": mark("registered a model"),
    "model.rollback": mark("rolled back to a model"),
    "policy.delete": mark("deleted a policy"),
    "policy.write": mark("changed a policy"),
    "sign_in.copied": mark("was signed out: a token of the sign-in was used twice"),
    "user.created": mark("made an account"),
    "user.deleted": mark("deleted an account"),
    "user.disabled": mark("disabled an account"),
    "user.enabled": mark("enabled an account"),
    "user.openid": mark("signed in through the issuer for the first time"),
    "user.password": mark("changed the password"),
    "user.password_reset": mark("set a password with a token"),
    "user.password_token": mark("made a token that sets a password"),
    "user.role": mark("changed a role"),
    "user.sign_ins_ended": mark("ended all sign-ins of an account"),
}
"""What each action is called; a test holds that none lacks its words."""
NAMES: Final[Mapping[str, str]] = {
    "before": mark("Before"),
    "days": mark("Days"),
    "hint": mark("Key"),
    "issuer": mark("Issuer"),
    "kind": mark("Kind"),
    "name": mark("Name"),
    "role": mark("Role"),
}
"""What the values of a line are called, where it has no before and after; others keep their names."""
_A_PAGE: Final = 50
_PAGES: Final = {"job": "/jobs/", "model": "/models/", "policy": "/policies/"}
_Short = Annotated[str, Query(max_length=200)]
router = APIRouter()


@dataclass(frozen=True)
class Change:
    """A line of the audit, as it is shown.

    Attributes:
        line: as it is stored.
        words: what was done.
        subject: what it was done to, as people call it.
        path: of the page of that, where there is one.
        values: what is known of it: name, before, after.
    """

    line: AuditLine
    words: str
    subject: str
    path: str | None
    values: list[tuple[str, str | None, str | None]]


@router.get("/audit", include_in_schema=False)
def show_audit(
    request: Request,
    session: SessionDep,
    _admin: Admin,
    who: _Short = "",
    action: _Short = "",
    subject: _Short = "",
    start: Annotated[str, Query(alias="from", max_length=10)] = "",
    end: Annotated[str, Query(alias="to", max_length=10)] = "",
    after: _Short = "",
) -> Response:
    """Changes, the newest first. `who` is a part of a name or e-mail address, or an id; days are those of UTC."""
    _, first, last = words_of(request), _day(start), _day(end)
    filters = AuditFilters.model_validate(
        {
            "action": action if action in ACTIONS else None,
            "subject": subject or None,
            "from": first,
            "to": last and last + timedelta(days=1),
            "after": after or None,
            "limit": _A_PAGE,
        }
    )
    found = find_changes(session, filters, by=_people(who) if who.strip() else None)
    query = {"who": who, "action": action, "subject": subject, "from": start, "to": end}
    return page(
        request,
        "audit.html",
        changes=_shown(session, found.items),
        next=found.next,
        first=not after,
        query={name: value for name, value in query.items() if value},
        actions=sorted(((name, _(words)) for name, words in ACTIONS.items()), key=lambda one: one[1]),
        who=who,
        action=action,
        subject=subject,
        start=start if first else "",
        end=end if last else "",
    )


def _day(said: str) -> datetime | None:
    try:
        day = datetime.combine(date.fromisoformat(said), datetime.min.time(), UTC)
    except ValueError:
        return None
    return day if 1970 <= day.year < 9999 else None


def _people(who: str) -> ColumnElement[bool]:
    """Those who are called so; one who has deleted his account is found by his id alone."""
    said = who.strip()
    return or_(and_(User.deleted_at.is_(None), is_called(said)), User.id == said)


def _shown(session: Session, lines: Sequence[AuditLine]) -> list[Change]:
    subjects = {line.subject for line in lines}
    users = {row.id: row for row in session.scalars(select(User).where(User.id.in_(subjects)))}
    of_keys = select(ApiKey.id, User.name).join(User, ApiKey.user_id == User.id).where(ApiKey.id.in_(subjects))
    keys = {row.id: row.name for row in session.execute(of_keys)}
    return [_change(line, users, keys) for line in lines]


def _change(line: AuditLine, users: Mapping[str, User], keys: Mapping[str, str]) -> Change:
    kind = line.action.partition(".")[0]
    subject, path = line.subject, None
    if kind == "user" and (user := users.get(subject)) is not None:
        path = None if user.deleted_at else f"/users/{user.id}"
        subject = user.email or user.name
    elif kind == "key" and subject in keys:
        subject, path = keys[subject], "/keys"
    elif kind in _PAGES:
        path = f"{_PAGES[kind]}{subject}"
    return Change(line, ACTIONS.get(line.action, line.action), subject, path, values_of(line.detail))


def values_of(detail: Mapping[str, Any]) -> list[tuple[str, str | None, str | None]]:
    """Name, before and after of each value that a line has. Of two objects only what differs is shown."""
    pair = next((pair for pair in (("from", "to"), ("before", "after")) if detail.keys() >= set(pair)), None)
    if pair is None:
        return [(NAMES.get(name, name), None, _text(value)) for name, value in sorted(detail.items())]
    before, after = (detail.get(name) for name in pair)
    rest = values_of({name: value for name, value in detail.items() if name not in pair})
    if not isinstance(before or after, dict):
        return [("", _text(before), _text(after)), *rest]
    old, new = before or {}, after or {}
    if not (isinstance(old, dict) and isinstance(new, dict)):
        return [("", _text(before), _text(after)), *rest]
    names = sorted(name for name in old.keys() | new.keys() if old.get(name) != new.get(name))
    return [(name, _text(old.get(name)), _text(new.get(name))) for name in names] + rest


def _text(value: Any) -> str | None:
    if value is None:
        return None
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
