"""Keys of machines, for administrators: make one, which is shown this once; see when each was used; end them."""

from __future__ import annotations

from itertools import takewhile
from typing import Annotated, Final

from fastapi import APIRouter, Form, Request, Response
from pydantic import ValidationError
from sqlalchemy.orm import Session

from shelver.service.accounts import keys
from shelver.service.accounts.keys import Admin
from shelver.service.accounts.payloads import NewKey
from shelver.service.db import SessionDep, undo
from shelver.service.pages.accounts import Text, told
from shelver.service.pages.render import page, redirect
from shelver.service.state import ServiceDep
from shelver.service.tables.declarative import now

_DAYS: Final = ("30", "90", "365", "")
"""Lifetimes that the form offers; the last is none."""
router = APIRouter()


@router.get("/keys", include_in_schema=False)
def show_keys(request: Request, session: SessionDep, _admin: Admin) -> Response:
    """All keys, the newest first."""
    return _page(request, session)


@router.post("/keys", include_in_schema=False)
def make(
    request: Request,
    service: ServiceDep,
    session: SessionDep,
    identity: Admin,
    name: Text = "",
    days: Text = "90",
    newest: Annotated[str | None, Form(max_length=100)] = None,
) -> Response:
    """Make a key. The answer itself shows it, this once: an address would keep it.

    `newest` was the newest key when the form was shown: the same form sent again makes no second key.
    """
    try:
        body = NewKey(name=name, days=int(days) if days in _DAYS[:-1] else None)
    except ValidationError as error:
        undo(session)
        wrong, _ = told(request, service, error)
        return _page(request, session, status=422, name=name, days=days, wrong=wrong)
    since = takewhile(lambda one: one.id != newest, keys.list_keys(session))
    if newest is not None and any(one.name == body.name for one in since):
        return redirect("/keys", done="key-made-before")
    made = keys.create_key(body, identity, session)
    return page(request, "key_made.html", made=made)


@router.post("/keys/{key_id}/revoke", include_in_schema=False)
def revoke(service: ServiceDep, session: SessionDep, identity: Admin, key_id: str) -> Response:
    """End a key."""
    keys.revoke_key(key_id, identity, service, session)
    return redirect("/keys", done="key-revoked")


def _page(
    request: Request,
    session: Session,
    *,
    status: int = 200,
    name: str = "",
    days: str = "90",
    wrong: dict[str, str] | None = None,
) -> Response:
    shown = keys.list_keys(session)
    at = now()
    live = [one for one in shown if one.revoked_at is None and (one.expires_at is None or one.expires_at > at)]
    ended = [one for one in shown if one not in live]
    return page(
        request,
        "keys.html",
        status=status,
        live=live,
        ended=ended,
        newest=shown[0].id if shown else "none",
        name=name,
        days=days,
        wrong=wrong or {},
    )
