"""Feeds that people upload for jobs: files named by the hash of their bytes, each kept once, with their owners.

A file is written as it comes in, so that its size costs no memory.
"""

from __future__ import annotations

import hashlib
import os
import re
import uuid
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final

from fastapi import APIRouter, Query, Request, Response
from fastapi import Path as InPath
from sqlalchemy import func, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import UploadFile
from starlette.middleware.body_limit import RequestBodyLimitMiddleware
from starlette.types import Receive, Scope, Send

from shelver.service.accounts.identity import Identity, allowed
from shelver.service.db import SessionDep
from shelver.service.jobs.keeping import UPLOADS, drop_files, upload_path
from shelver.service.jobs.keeping import drop_old_uploads as drop_old_uploads
from shelver.service.jobs.payloads import UploadPage, UploadRead
from shelver.service.paging import Paged, page_of
from shelver.service.problems import ServiceError, not_found, responses
from shelver.service.state import Service, ServiceDep
from shelver.service.tables.accounts import User
from shelver.service.tables.declarative import now
from shelver.service.tables.work import UploadRow

_HELD_FILES: Final = 4
"""An account may keep so many times the largest file."""
_CHUNK: Final = 1 << 20
_NAME: Final = re.compile(r"[^\w .()+,-]+")
Uploader = Annotated[Identity, allowed("seller", "admin", "service")]
UploadId = Annotated[
    str, InPath(pattern=r"^[0-9a-f]{32}$", examples=["3f2a9c4b8d1e4f6a9b7c2d5e8f1a0b3c"], description="Its id.")
]
router = APIRouter(tags=["jobs"])


@dataclass(frozen=True, slots=True)
class Taken:
    """A file that came in: its SHA-256 in hex, and its size."""

    hash: str
    n_bytes: int


@router.post(
    "/v1/uploads",
    status_code=201,
    summary="Upload a feed",
    response_model=UploadRead,
    responses=responses("invalid_input", "too_large", "too_many_requests"),
    openapi_extra={
        "requestBody": {
            "required": True,
            "content": {
                "application/octet-stream": {
                    "schema": {"type": "string", "format": "binary", "example": "title,category\nchair,Home\n"}
                },
                "multipart/form-data": {
                    "schema": {
                        "type": "object",
                        "required": ["file"],
                        "properties": {"file": {"type": "string", "contentMediaType": "text/csv"}},
                    }
                },
            },
        }
    },
)
async def upload_feed(
    request: Request,
    service: ServiceDep,
    identity: Uploader,
    name: Annotated[
        str | None,
        Query(
            max_length=255,
            description="What the file is called, where it is the body itself; its ending may tell the format.",
            examples=["feed.csv"],
        ),
    ] = None,
) -> UploadRead:
    """Keep a feed for a job: as the body itself, or as the one file of a form.

    The same bytes from the same caller are kept once and get the same id.
    """
    assert identity.user_id is not None  # no rule above lets anybody else in
    limit = service.settings.upload_max_bytes
    said = request.headers.get("Content-Length", "")
    n_bytes = int(said) if said.isdecimal() and len(said) < 16 else 0
    await run_in_threadpool(_refuse_early, service, identity.user_id, n_bytes)
    with service.uploading.one(identity.user_id):
        return await _upload(request, service, identity.user_id, name, limit)


async def _upload(request: Request, service: Service, owner_id: str, name: str | None, limit: int) -> UploadRead:
    # The application reads less from all other routes.
    await RequestBodyLimitMiddleware(_nothing, limit)(request.scope, request.receive, _nothing_sent)
    if request.headers.get("Content-Type", "").partition(";")[0].strip().lower() == "multipart/form-data":
        async with request.form(max_files=1, max_fields=10) as form:
            file = form.get("file")
            if not isinstance(file, UploadFile):
                raise _no_file("a form without `file`")
            taken = await _take(service.settings.data, _parts_of(file), limit)
            name = name or file.filename
    else:
        taken = await _take(service.settings.data, request.stream(), limit)
    if not taken.n_bytes:
        raise _no_file("an empty body")
    return await run_in_threadpool(_note, service, owner_id, taken, _plain(name))


@router.get("/v1/uploads", summary="List uploads", responses=responses("invalid_input"))
def list_uploads(page: Annotated[Paged, Query()], session: SessionDep, identity: Uploader) -> UploadPage:
    """One's own uploads, newest first; administrators see everybody's."""
    wanted = select(UploadRow)
    if identity.role != "admin":
        wanted = wanted.where(UploadRow.owner_id == identity.user_id)
    rows, following = page_of(session, wanted, UploadRow.created_at, UploadRow.id, page)
    return UploadPage(items=[_read(row) for row in rows], next=following)


@router.delete(
    "/v1/uploads/{upload_id}", status_code=204, summary="Delete an upload", responses=responses("not_found")
)
def delete_upload(upload_id: UploadId, session: SessionDep, service: ServiceDep, identity: Uploader) -> Response:
    """Forget an upload; a job that has not read it yet will fail."""
    row = find_upload(session, identity, upload_id)
    session.delete(row)
    session.flush()
    drop_files(session, service.database, service.settings.data, [row.hash])
    return Response(status_code=204)


def find_upload(session: Session, identity: Identity, upload_id: str) -> UploadRow:
    """An upload of the caller's own; administrators see all.

    Raises:
        ServiceError: there is none that he may see.
    """
    row = session.get(UploadRow, upload_id)
    if row is None or (identity.role != "admin" and row.owner_id != identity.user_id):
        raise not_found(f"upload {upload_id}")
    return row


def _note(service: Service, owner_id: str, taken: Taken, name: str) -> UploadRead:
    own = select(UploadRow).where(UploadRow.owner_id == owner_id, UploadRow.hash == taken.hash)
    with service.database.writing() as session:
        # Of uploads that end at once, each sees the one before.
        session.execute(select(User.id).where(User.id == owner_id).with_for_update())
        row = session.scalar(own)
        if row is None:
            _check_room(session, service, owner_id, taken.n_bytes)
            row = UploadRow(owner_id=owner_id, hash=taken.hash, name=name, n_bytes=taken.n_bytes, created_at=now())
            with suppress(IntegrityError), session.begin_nested():  # the same bytes came twice at once
                session.add(row)
            row = session.scalar(own)
        assert row is not None
        return _read(row)


def _refuse_early(service: Service, owner_id: str, n_bytes: int) -> None:
    with service.database.reading() as session:
        _check_room(session, service, owner_id, n_bytes)


def _check_room(session: Session, service: Service, owner_id: str, n_bytes: int) -> None:
    limit = _HELD_FILES * service.settings.upload_max_bytes
    held = session.scalar(select(func.sum(UploadRow.n_bytes)).where(UploadRow.owner_id == owner_id))
    if int(held or 0) + n_bytes > limit:
        raise ServiceError(
            "too_large",
            f"{int(held or 0):,} bytes of earlier uploads and {n_bytes:,} of this one",
            allowed=f"{limit:,} bytes of one account",
            remedy="Delete uploads that no job needs.",
        )


def _read(row: UploadRow) -> UploadRead:
    return UploadRead(
        id=row.id,
        owner_id=row.owner_id,
        name=row.name,
        sha256=row.hash,
        n_bytes=row.n_bytes,
        created_at=row.created_at,
    )


async def _take(data: Path, chunks: AsyncIterator[bytes], limit: int) -> Taken:
    """Write a file, down to the disk, under the name of its content."""
    folder = data / UPLOADS
    await run_in_threadpool(folder.mkdir, parents=True, exist_ok=True)
    unfinished = folder / f".{uuid.uuid4().hex}"
    digest, n_bytes = hashlib.sha256(), 0
    try:
        file = await run_in_threadpool(unfinished.open, "xb")
        try:
            waiting = bytearray()
            async for chunk in chunks:
                n_bytes += len(chunk)
                if n_bytes > limit:
                    raise ServiceError(
                        "too_large",
                        f"a file of more than {limit:,} bytes",
                        allowed=f"{limit:,} bytes",
                        remedy="Compress it with gzip, or send it in parts.",
                    )
                waiting += chunk
                if len(waiting) >= _CHUNK:
                    await run_in_threadpool(_write, file, digest, bytes(waiting))
                    waiting.clear()
            await run_in_threadpool(_write, file, digest, bytes(waiting), last=True)
        finally:
            file.close()
        taken = Taken(digest.hexdigest(), n_bytes)
        if n_bytes:
            await run_in_threadpool(_keep, unfinished, upload_path(data, taken.hash))
    finally:
        unfinished.unlink(missing_ok=True)
    return taken


def _write(file: Any, digest: Any, part: bytes, *, last: bool = False) -> None:
    digest.update(part)
    file.write(part)
    if last:
        file.flush()
        os.fsync(file.fileno())


def _keep(unfinished: Path, path: Path) -> None:
    path.parent.mkdir(exist_ok=True)
    unfinished.replace(path)
    handle = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


async def _parts_of(file: UploadFile) -> AsyncIterator[bytes]:
    while part := await file.read(_CHUNK):
        yield part


def _plain(name: str | None) -> str:
    """A name that can stand in a database, a log and a header."""
    return _NAME.sub("_", Path(name or "").name)[-200:] or "feed"


def _no_file(received: str) -> ServiceError:
    return ServiceError(
        "invalid_input",
        received,
        allowed="a file as the body, or as the field `file` of a form",
        remedy="Send the feed's bytes.",
    )


async def _nothing(scope: Scope, receive: Receive, send: Send) -> None:
    """Reads nothing: only the limit around it counts."""


async def _nothing_sent(message: Any) -> None:
    """Nothing is sent here."""
