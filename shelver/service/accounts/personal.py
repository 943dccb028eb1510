"""What is stored about one person, in whatever table it stands: he sees it, takes it with him, or deletes it."""

from __future__ import annotations

import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, Final

import structlog
from fastapi import APIRouter, Request, Response
from fastapi.responses import StreamingResponse
from pydantic import ConfigDict, TypeAdapter
from sqlalchemy import Table, delete, or_, select, update
from sqlalchemy.orm import Session

from shelver.service.accounts import sign_ins
from shelver.service.accounts.passwords import PASSWORD_TURN
from shelver.service.accounts.payloads import Account, Confirmation, Export, SignInRead, SignIns
from shelver.service.accounts.routes import Person, confirm, keep_an_admin, user_of
from shelver.service.audit import audit
from shelver.service.db import Database, SessionDep, after_commit
from shelver.service.jobs.keeping import erase_work_of
from shelver.service.problems import ServiceError, responses
from shelver.service.products.picture_store import PictureStore
from shelver.service.products.pictures import forget_unshown, remove_unknown
from shelver.service.state import Service, ServiceDep
from shelver.service.tables import Base
from shelver.service.tables.accounts import ApiKey, OneTimeToken, SignIn, User
from shelver.service.tables.declarative import now
from shelver.service.tables.openid import OpenIdLink
from shelver.service.tables.records import FeedbackRow, PredictionRow, ProductPicture, ProductRow

_SECRET: Final = {
    "api_keys": {"hash"},
    "feedback": {"audit"},
    "jobs": {"lease_token"},
    "one_time_tokens": {"hash"},
}
"""Hashes; and the mark of what goes to review: who accepts must not know."""
_OWNERS: Final = {"user_id", "owner_id"}
_EXPORTS: Final = threading.BoundedSemaphore(2)
_A_MINUTE: Final = 2
_AT_ONCE: Final = 500
_CHUNK_BYTES: Final = 1 << 18
_JSON: Final = TypeAdapter[Any](Any, config=ConfigDict(ser_json_bytes="base64"))
log = structlog.get_logger("shelver.service")
router = APIRouter(tags=["accounts"])


@router.get("/v1/me/export", response_model=Export, responses=responses("too_many_requests"))
def export_me(identity: Person, service: ServiceDep, session: SessionDep) -> Response:
    """Everything that is stored about oneself, but for hashes of passwords and tokens."""
    account = Account.model_validate(user_of(session, identity))
    service.limits.take(f"export:{account.id}", _A_MINUTE)
    if not _EXPORTS.acquire(blocking=False):
        raise ServiceError(
            "too_many_requests",
            "more exports at once than are made",
            allowed="two at once",
            remedy="Try again in a moment.",
            retry_after_s=10,
        )
    # To a file first: it may be large, and whoever reads slowly must not hold a connection to the database.
    file = tempfile.TemporaryFile()  # noqa: SIM115 - closed when it was sent
    try:
        _write(session, account, file)
        file.seek(0)
    except BaseException:
        file.close()
        raise
    finally:
        _EXPORTS.release()
    return StreamingResponse(_chunks(file), media_type="application/json")


@router.post(
    "/v1/me/delete",
    status_code=204,
    dependencies=[PASSWORD_TURN],
    responses=responses("last_admin", "sign_in_failed", "too_many_requests"),
)
def delete_me(
    request: Request, body: Confirmation, identity: Person, service: ServiceDep, session: SessionDep
) -> Response:
    """Delete one's own account: what tells who one was is removed, with products, pictures,
    predictions, jobs and uploads; nobody can sign in with it again."""
    confirm(service, request, identity, body.password)
    user = user_of(session, identity)
    keep_an_admin(session, user)
    user = user_of(session, identity, lock=True)
    audit(session, identity, "user.deleted", user.id)
    _anonymise(service, session, user)
    return Response(status_code=204)


@router.get("/v1/me/sign-ins")
def list_sign_ins(identity: Person, session: SessionDep) -> SignIns:
    """One's own sign-ins that go on, the newest first."""
    mine = select(SignIn).where(SignIn.user_id == identity.user_id, SignIn.revoked_at.is_(None))
    rows = session.scalars(mine.where(SignIn.expires_at > now()).order_by(SignIn.created_at.desc(), SignIn.id))
    items = [SignInRead.model_validate(row) for row in rows]
    return SignIns(items=[one.model_copy(update={"this": one.id == identity.sign_in_id}) for one in items])


@router.post("/v1/me/end-other-sign-ins", status_code=204)
def end_other_sign_ins(identity: Person, service: ServiceDep, session: SessionDep) -> Response:
    """End all of one's own sign-ins but this one, at once."""
    assert identity.user_id is not None
    sign_ins.end(service, session, identity.user_id, but=identity.sign_in_id)
    return Response(status_code=204)


def erased(database: Database, pictures: PictureStore, data: Path, user_id: str) -> Iterator[int]:
    """Delete somebody's jobs, uploads, products, pictures and predictions, and what he wrote beside judgements.

    The judgements themselves stay: they are labels, and tell nothing of who he was. Each step is a transaction of
    its own, so that nobody waits for long; yields how many rows it deleted.
    """
    erase_work_of(database, data, user_id)  # first: an import would go on adding products
    n = 1
    while n:
        with database.writing() as session:
            own = select(ProductRow.id).where(ProductRow.owner_id == user_id).limit(_AT_ONCE)
            ids = session.scalars(own).all()
            links = ProductPicture.product_id.in_(ids)
            shown = session.scalars(select(ProductPicture.hash).where(links)).all()
            session.execute(delete(ProductPicture).where(links))
            session.execute(delete(ProductRow).where(ProductRow.id.in_(ids)))
            gone = forget_unshown(session, shown)
        remove_unknown(pictures, database, gone)
        n = len(ids)
        yield n
    n = 1
    while n:
        with database.writing() as session:
            own = select(PredictionRow.id).where(PredictionRow.user_id == user_id).limit(_AT_ONCE)
            ids = session.scalars(own).all()
            session.execute(delete(PredictionRow).where(PredictionRow.id.in_(ids)))
        n = len(ids)
        yield n
    with database.writing() as session:
        noted = FeedbackRow.user_id == user_id, FeedbackRow.note.is_not(None)
        session.execute(update(FeedbackRow).where(*noted).values(note=None))


def rows_of(session: Session, table: Table, user_id: str) -> Iterator[dict[str, Any]] | None:
    """The rows of a table that name a user: those with a key to `users`, or a column that is called as one.

    A new table needs no line here. None where a table names nobody.
    """
    owners = [
        column
        for column in table.columns
        if column.name in _OWNERS or any(key.column.table.name == "users" for key in column.foreign_keys)
    ]
    if not owners or table.name == "users":  # the account itself is shown apart
        return None
    shown = [column for column in table.columns if column.name not in _SECRET.get(table.name, set())]
    wanted = select(*shown).where(or_(*(column == user_id for column in owners)))
    rows = session.execute(wanted, execution_options={"yield_per": _AT_ONCE})
    return (dict(row) for row in rows.mappings())


def _write(session: Session, account: Account, file: IO[bytes]) -> None:
    """The export as JSON, row by row."""
    file.write(b'{"account":' + _JSON.dump_json(account) + b',"tables":{')
    between = b""
    for table in Base.metadata.sorted_tables:
        rows = rows_of(session, table, account.id)
        if rows is None:
            continue
        file.write(between + _JSON.dump_json(table.name) + b":[")
        for i, row in enumerate(rows):
            file.write((b"," if i else b"") + _JSON.dump_json(row))
        file.write(b"]")
        between = b","
    file.write(b"}}")


def _chunks(file: IO[bytes]) -> Iterator[bytes]:
    with file:
        while chunk := file.read(_CHUNK_BYTES):
            yield chunk


def _anonymise(service: Service, session: Session, user: User) -> None:
    """Take everything that tells who a user is out of his row, and end all his tokens and keys; then delete what
    he has made, in steps: what is left where the process ends in between, `housekeeping` finds."""
    user_id = user.id
    user.email, user.name, user.password_hash = None, "deleted", None
    user.deleted_at = user.disabled_at = now()
    user.version += 1
    session.execute(delete(OneTimeToken).where(OneTimeToken.user_id == user_id))
    session.execute(delete(OpenIdLink).where(OpenIdLink.user_id == user_id))
    session.execute(delete(SignIn).where(SignIn.user_id == user_id))
    session.execute(update(ApiKey).where(ApiKey.user_id == user_id).values(revoked_at=now()))
    after_commit(session, lambda: service.identities.forget(user_id))

    def erase() -> None:
        try:
            for _ in erased(service.database, service.pictures, service.settings.data, user_id):
                pass
        except Exception as error:  # the account is deleted all the same
            log.error("not everything erased yet", user_id=user_id, error=type(error).__name__)

    after_commit(session, erase)
