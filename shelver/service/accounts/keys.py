"""API keys: how machines sign in. Each key is an account of its own with the role service, and is shown once."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Annotated

from fastapi import APIRouter, Response
from sqlalchemy import select

from shelver.service.accounts.identity import Identity, allowed
from shelver.service.accounts.payloads import Key, MadeKey, NewKey
from shelver.service.accounts.routes import add_user
from shelver.service.accounts.tokens import KEY_PREFIX, hash_of, random_token
from shelver.service.audit import audit
from shelver.service.db import SessionDep, after_commit
from shelver.service.problems import not_found, responses
from shelver.service.state import ServiceDep
from shelver.service.tables.accounts import ApiKey, User
from shelver.service.tables.declarative import now
from shelver.service.tables.records import PredictionRow

router = APIRouter(tags=["keys"])
Admin = Annotated[Identity, allowed("admin")]


@router.post("/v1/keys", status_code=201)
def create_key(body: NewKey, identity: Admin, session: SessionDep) -> MadeKey:
    """Make a key for a machine."""
    machine = add_user(session, None, body.name, "service", password_hash=None, by=identity)
    key = random_token(KEY_PREFIX)
    row = ApiKey(
        user_id=machine.id,
        hash=hash_of(key),
        hint=key[: len(KEY_PREFIX) + 4],
        expires_at=None if body.days is None else now() + timedelta(days=body.days),
    )
    session.add(row)
    session.flush()
    audit(session, identity, "key.created", row.id, {"name": body.name, "days": body.days})
    return MadeKey(**_shown(row, machine).model_dump(), key=key)


@router.get("/v1/keys", dependencies=[allowed("admin")])
def list_keys(session: SessionDep) -> list[Key]:
    """All keys, the newest first."""
    last = select(PredictionRow.at).where(PredictionRow.user_id == User.id).order_by(PredictionRow.at.desc())
    used_at = last.limit(1).correlate(User).scalar_subquery()  # not max(): this is one step in the index
    rows = select(ApiKey, User, used_at).join(User, ApiKey.user_id == User.id)
    newest = rows.order_by(ApiKey.created_at.desc(), ApiKey.id)
    return [_shown(key, user, at) for key, user, at in session.execute(newest)]


@router.delete("/v1/keys/{key_id}", status_code=204, responses=responses("not_found"))
def revoke_key(key_id: str, identity: Admin, service: ServiceDep, session: SessionDep) -> Response:
    """End a key, at once."""
    row = session.get(ApiKey, key_id)
    if row is None:
        raise not_found("key of that id")
    if row.revoked_at is None:
        row.revoked_at = now()
        audit(session, identity, "key.revoked", row.id, {"hint": row.hint})
        user_id = row.user_id
        after_commit(session, lambda: service.identities.forget(user_id))
    return Response(status_code=204)


def _shown(row: ApiKey, user: User, used_at: datetime | None = None) -> Key:
    return Key(
        id=row.id,
        user_id=row.user_id,
        name=user.name,
        hint=row.hint,
        created_at=row.created_at,
        expires_at=row.expires_at,
        revoked_at=row.revoked_at,
        used_at=used_at,
    )
