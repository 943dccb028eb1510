"""Feeds: upload a file, say which column is what, start the import, watch it, and see what became of each row."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Annotated, Any, Final, Literal, NamedTuple, get_args

from fastapi import APIRouter, Form, Query, Request, Response
from fastapi.responses import StreamingResponse
from pydantic import ValidationError
from sqlalchemy import select
from sqlalchemy.orm import Session
from starlette.concurrency import run_in_threadpool

from shelver.catalog.mapping import DEFAULT_SEPARATOR
from shelver.catalog.preview import Preview
from shelver.errors import InputError
from shelver.service.accounts.identity import Identity, allowed
from shelver.service.db import SessionDep
from shelver.service.jobs.checks import mapping_of
from shelver.service.jobs.keeping import FILES, ending_of, job_folder, upload_path
from shelver.service.jobs.payloads import FINAL, ImportParams, JobFilters, JobRead, MappingIn
from shelver.service.jobs.routes import JobId, cancel_job, list_jobs, read_job, start_job
from shelver.service.jobs.waiting import nobody_works
from shelver.service.pages.feed_words import REASONS, TOLD_IN_FULL, WARNINGS
from shelver.service.pages.locales import mark, words_of
from shelver.service.pages.render import page, redirect
from shelver.service.problems import ServiceError, not_found
from shelver.service.products.feed_preview import as_imported, look_at
from shelver.service.products.imports import node_named
from shelver.service.products.uploads import UploadId, delete_upload, find_upload, upload_feed
from shelver.service.records.predictions import cell_of, csv_of
from shelver.service.state import Service, ServiceDep
from shelver.service.tables.work import JobEventRow, UploadRow

Seller = Annotated[Identity, allowed("seller", "admin")]
Seer = Annotated[Identity, allowed("seller", "reviewer", "admin")]
Part = Literal["product_id", "title", "description", "brand", "category", "image"]
_PARTS: Final[Mapping[Part, str]] = {
    "product_id": mark("Your id"),
    "title": mark("Title"),
    "description": mark("Description"),
    "brand": mark("Brand"),
    "category": mark("Category"),
    "image": mark("Pictures"),
}
_LINES: Final = "\x1f"
"""In place of a column for the ids: each row is a product of its own."""
_REJECTED: Final = "rejected.jsonl"
_SHOWN: Final = 50
_N_JOBS: Final = 20
_N_UPLOADS: Final = 5
_COUNTS: Final = ("rows", "added", "replaced", "skipped", "rejected")
router = APIRouter()


class Asked(NamedTuple):
    """What somebody said of the columns: by part of a product; and of the rest."""

    columns: dict[str, str]
    attributes: tuple[str, ...]
    separator: str
    by_id: bool

    @property
    def mapping(self) -> MappingIn:
        """As a job takes it; raises ValidationError."""
        by_line = self.columns.get("product_id") == _LINES
        return MappingIn(
            columns={name: column for name, column in self.columns.items() if column and column != _LINES},
            attributes={column: column for column in self.attributes},
            id_from="line" if by_line else "column",
            category_format="id" if self.by_id else "path",
            category_separator=self.separator or DEFAULT_SEPARATOR,
        )


@router.get("/feeds", include_in_schema=False)
def show_feeds(request: Request, service: ServiceDep, session: SessionDep, identity: Seller) -> Response:
    """The form to upload a feed, and the imports so far."""
    return _overview(request, service, session, identity)


@router.post("/feeds", include_in_schema=False)
async def upload_here(request: Request, service: ServiceDep, identity: Seller) -> Response:
    """Keep a feed, and go on to its columns."""
    try:
        kept = await upload_feed(request, service, identity, None)
    except ServiceError as error:
        if error.code not in ("invalid_input", "too_large", "too_many_requests"):
            raise
        refused = error
    else:
        return redirect(f"/feeds/uploads/{kept.id}")

    def again() -> Response:
        with service.database.reading() as session:
            return _overview(request, service, session, identity, refused)

    return await run_in_threadpool(again)


@router.get("/feeds/uploads/{upload_id}", include_in_schema=False)
def show_upload(
    request: Request,
    upload_id: UploadId,
    service: ServiceDep,
    identity: Seller,
    product_id: Annotated[str, Query(max_length=255)] = "",
    title: Annotated[str, Query(max_length=255)] = "",
    description: Annotated[str, Query(max_length=255)] = "",
    brand: Annotated[str, Query(max_length=255)] = "",
    category: Annotated[str, Query(max_length=255)] = "",
    image: Annotated[str, Query(max_length=255)] = "",
    attribute: Annotated[list[str] | None, Query(max_length=200)] = None,
    separator: Annotated[str, Query(max_length=20)] = DEFAULT_SEPARATOR,
    by_id: Annotated[bool, Query()] = False,
    existing: Annotated[str, Query(max_length=20)] = "skip",
    unknown_category: Annotated[str, Query(max_length=20)] = "leave_out",
) -> Response:
    """The first rows of a feed, and what is understood of them."""
    columns = dict(zip(get_args(Part), (product_id, title, description, brand, category, image), strict=True))
    asked = Asked(columns, tuple(attribute or ()), separator, by_id)
    return _upload_page(request, service, identity, upload_id, asked, existing, unknown_category)


@router.post("/feeds/uploads/{upload_id}", include_in_schema=False)
def import_upload(
    request: Request,
    upload_id: UploadId,
    service: ServiceDep,
    session: SessionDep,
    identity: Seller,
    key: Annotated[str, Form(max_length=32)] = "",
    product_id: Annotated[str, Form(max_length=255)] = "",
    title: Annotated[str, Form(max_length=255)] = "",
    description: Annotated[str, Form(max_length=255)] = "",
    brand: Annotated[str, Form(max_length=255)] = "",
    category: Annotated[str, Form(max_length=255)] = "",
    image: Annotated[str, Form(max_length=255)] = "",
    attribute: Annotated[list[str] | None, Form(max_length=200)] = None,
    separator: Annotated[str, Form(max_length=20)] = DEFAULT_SEPARATOR,
    by_id: Annotated[bool, Form()] = False,
    existing: Annotated[Literal["skip", "replace"], Form()] = "skip",
    unknown_category: Annotated[Literal["leave_out", "refuse"], Form()] = "leave_out",
) -> Response:
    """Start the import, and go and watch it."""
    columns = dict(zip(get_args(Part), (product_id, title, description, brand, category, image), strict=True))
    asked = Asked(columns, tuple(attribute or ()), separator, by_id)
    try:
        body = ImportParams(
            kind="import_products",
            upload_id=upload_id,
            mapping=asked.mapping,
            existing=existing,
            unknown_category=unknown_category,
        )
        job = start_job(body, Response(), session, service, identity, key or None)
    except (ValidationError, InputError) as error:
        _ = words_of(request)
        said = str(error) if isinstance(error, InputError) else _("This mapping cannot be used.")
        session.rollback()
        return _upload_page(request, service, identity, upload_id, asked, existing, unknown_category, said)
    return redirect(f"/feeds/jobs/{job.id}")


@router.post("/feeds/uploads/{upload_id}/delete", include_in_schema=False)
def forget_upload(upload_id: UploadId, service: ServiceDep, session: SessionDep, identity: Seller) -> Response:
    """Forget a file that was uploaded; what was imported of it stays."""
    delete_upload(upload_id, session, service, identity)
    return redirect("/feeds", done="feed-deleted")


@router.get("/feeds/jobs/{job_id}", include_in_schema=False)
def show_import(
    request: Request, job_id: JobId, service: ServiceDep, session: SessionDep, identity: Seer
) -> Response:
    """An import: how far it came, or what came of it."""
    job = _import(job_id, session, identity)
    upload = session.get(UploadRow, job.params.get("upload_id", ""))
    return page(
        request,
        "feed_import.html",
        job=job,
        over=job.state in FINAL,
        feed=None if upload is None else upload.name,
        counts=_counts(session, job),
        warnings={WARNINGS.get(code, code): n for code, n in (job.result or {}).get("warnings", {}).items()},
        reasons={REASONS.get(code, code): n for code, n in (job.result or {}).get("rejected", {}).items()},
        rejected=list(islice(_rejected(service, job), _SHOWN)),
        words=REASONS,
        told_in_full=TOLD_IN_FULL,
        columns=(job.result or {}).get("columns", {}),
        own=job.owner_id == identity.user_id,
        waits_in_vain=job.state == "queued" and nobody_works(session),
    )


@router.post("/feeds/jobs/{job_id}/cancel", include_in_schema=False)
def cancel_import(job_id: JobId, session: SessionDep, identity: Seller) -> Response:
    """Stop an import; what it has stored stays."""
    _import(job_id, session, identity)
    cancel_job(job_id, session, identity)
    return redirect(f"/feeds/jobs/{job_id}", done="import-cancelled")


@router.get("/feeds/jobs/{job_id}/rejected.csv", include_in_schema=False)
def read_rejected(job_id: JobId, service: ServiceDep, session: SessionDep, identity: Seer) -> StreamingResponse:
    """The rows that were refused, for a spreadsheet."""
    job = _import(job_id, session, identity)
    head = ("line", "product_id", "field", "code", "message", "excerpt")

    def lines() -> Iterator[str]:
        yield csv_of([[*head]])
        for one in _rejected(service, job):
            yield csv_of([[cell_of(one.get(name)) for name in head]])

    return StreamingResponse(
        lines(),
        media_type="text/csv; charset=utf-8",
        headers={
            "Content-Disposition": f'attachment; filename="rejected-{job.id[:8]}.csv"',
            "X-Content-Type-Options": "nosniff",
            "Cache-Control": "no-store",
        },
    )


def _overview(
    request: Request, service: Service, session: Session, identity: Identity, refused: ServiceError | None = None
) -> Response:
    filters = JobFilters(kind="import_products", owner_id=identity.user_id, limit=_N_JOBS)
    jobs = list_jobs(filters, session, identity).items
    named = {job.params.get("upload_id", "") for job in jobs}
    rows = session.execute(select(UploadRow.id, UploadRow.name).where(UploadRow.id.in_(named)))
    waiting = select(UploadRow).where(UploadRow.owner_id == identity.user_id, UploadRow.id.not_in(named))
    uploads = session.scalars(waiting.order_by(UploadRow.created_at.desc(), UploadRow.id).limit(_N_UPLOADS)).all()
    return page(
        request,
        "feeds.html",
        status=200 if refused is None else refused.http_status,
        jobs=jobs,
        names={row.id: row.name for row in rows},
        uploads=uploads,
        refused=refused,
        most_bytes=service.settings.upload_max_bytes,
    )


def _upload_page(
    request: Request,
    service: Service,
    identity: Identity,
    upload_id: str,
    asked: Asked,
    existing: str,
    unknown_category: str,
    problem: str | None = None,
) -> Response:
    with service.database.reading() as session:
        upload = find_upload(session, identity, upload_id)
    path = upload_path(service.settings.data, upload.hash)
    if not path.is_file():
        raise not_found(f"file of upload {upload_id}")
    seen, no_id = Preview(), False
    try:
        seen = look_at(path, ending_of(upload.name), mapping_of(asked.mapping.model_dump()))
        no_id = bool(seen.problem and seen.columns and "product_id" not in seen.found)
        if no_id:  # nobody can say which column is his id without seeing what is in them
            by_line = asked._replace(columns={**asked.columns, "product_id": _LINES})
            again = look_at(path, ending_of(upload.name), mapping_of(by_line.mapping.model_dump()))
            no_id = again.problem is None
            seen = again if no_id else seen
    except (ValidationError, InputError) as error:
        _ = words_of(request)
        said = str(error) if isinstance(error, InputError) else _("This mapping cannot be used.")
        problem = problem or said
    seen = as_imported(seen)
    tree = service.models.current().taxonomy
    used = {column for columns in seen.found.values() for column in columns}
    return page(
        request,
        "feed_columns.html",
        status=200 if problem is None and seen.problem is None and not no_id else 422,
        upload=upload,
        seen=seen,
        parts=_PARTS,
        asked=asked,
        lines=_LINES,
        places=[None if row.category is None else node_named(row.category, tree) is not None for row in seen.rows],
        words=REASONS,
        left=[column for column in seen.columns if column not in used],
        kept={column for columns in seen.attributes.values() for column in columns},
        existing=existing,
        unknown_category=unknown_category,
        problem=problem or seen.problem,
        no_id=no_id,
        n_addresses=sum(row.n_addresses for row in seen.rows),
        left_out={
            WARNINGS[code] for row in seen.rows if row.code is None for code in row.warnings if code in WARNINGS
        },
        key=uuid.uuid4().hex,
    )


def _import(job_id: str, session: Session, identity: Identity) -> JobRead:
    """An import that somebody may see.

    Raises:
        ServiceError: it is none.
    """
    job = read_job(job_id, session, identity)
    if job.kind not in ("import_products", "reset_demo"):
        raise not_found(f"import {job_id}")
    return job


def _counts(session: Session, job: JobRead) -> dict[str, int]:
    """How many of what by now: of the result, or of the latest event that tells."""
    said: dict[str, Any] = {}
    if job.result is not None:
        said = {name: job.result.get(f"n_{name}", 0) for name in _COUNTS}
    else:
        rows = select(JobEventRow.data).where(JobEventRow.job_id == job.id, JobEventRow.kind == "progress")
        said = (session.scalar(rows.order_by(JobEventRow.number.desc()).limit(1)) or {}).get("counts", {})
    return {name: int(said.get(name, 0)) for name in _COUNTS}


def _rejected(service: Service, job: JobRead) -> Iterator[dict[str, Any]]:
    """The lines of the file of rows that were refused; none before the import has ended."""
    if _REJECTED not in job.files:
        return
    path: Path = job_folder(service.settings.data, job.id) / FILES / _REJECTED
    if path.is_file():
        with path.open(encoding="utf-8") as file:
            for line in file:
                yield json.loads(line)
