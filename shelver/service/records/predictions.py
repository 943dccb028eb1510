"""The log, as people read it: their own predictions, for administrators all of them; page by page or as CSV."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterator
from datetime import datetime
from typing import Annotated, Final

from fastapi import APIRouter, Path, Query
from fastapi.responses import StreamingResponse
from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy import Select, select
from sqlalchemy.orm import Session

from shelver.decide.predictions import Outcome
from shelver.service.accounts.identity import Identity, allowed
from shelver.service.db import SessionDep
from shelver.service.paging import Moment, Paged, Place, newest_first, page_of
from shelver.service.problems import not_found, responses
from shelver.service.products.pictures import SEES_ALL
from shelver.service.records.payloads import LoggedPrediction, Name, PredictionPage, WholePrediction
from shelver.service.state import Service, ServiceDep
from shelver.service.tables.records import PredictionRow

PredictionId = Annotated[
    str, Path(pattern=r"^[0-9a-f]{32}$", examples=["5c1f0e6f5a0b4e27a9d0b8c7f2b3d4e5"], description="Its id.")
]
_EXPORTED: Final = (
    "id",
    "at",
    "user_id",
    "product_id",
    "input_hash",
    "outcome",
    "node_id",
    "confidence",
    "policy",
    "model_version",
    "taxonomy_version",
    "modality",
    "latency_ms",
    "answer",
)
_EXPORTED_AT_ONCE: Final = 1000
# What a spreadsheet of another country takes for the end of a cell, and what would begin a formula after it.
_WITHIN: Final = re.compile(r"([;|\t\r\n]\s*)(?=[=+\-@＝＋－＠])")
_FORMULA: Final = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")
router = APIRouter(tags=["predictions"])


class Filters(BaseModel):
    """Which predictions are meant; all that are given must hold.

    Attributes:
        start, end: from this moment on, and before that one.
        user_id: who asked; only administrators see those of others.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    start: Moment | None = Field(default=None, alias="from", examples=["2026-11-01T00:00:00Z"])
    end: Moment | None = Field(default=None, alias="to", examples=["2026-12-01T00:00:00Z"])
    policy: Name | None = Field(default=None, examples=["deepest"])
    outcome: Outcome | None = None
    model_version: Name | None = None
    node_id: Name | None = Field(default=None, description="Decided exactly so.")
    product_id: Name | None = None
    user_id: Name | None = None


class ListFilters(Filters, Paged):
    """The filters, and which page."""


Own = Annotated[Identity, allowed("seller", "reviewer", "admin", "service")]


def prediction_seen_by(
    session: Session, service: Service, identity: Identity, prediction_id: str
) -> PredictionRow:
    """A prediction of the caller's own; reviewers and administrators see all. Call it before other reads.

    Raises:
        ServiceError: there is none that he may see.
    """
    # One that was made a moment ago may not be written yet.
    service.log.settle(prediction_id)
    row = session.get(PredictionRow, prediction_id)
    if row is None or (identity.role not in SEES_ALL and row.user_id != identity.user_id):
        raise not_found(f"prediction {prediction_id}")
    return row


@router.get("/v1/predictions", summary="The log", responses=responses("invalid_input"))
def list_predictions(
    filters: Annotated[ListFilters, Query()], session: SessionDep, identity: Own
) -> PredictionPage:
    """One's own predictions, newest first; administrators see everybody's."""
    rows, following = page_of(session, _wanted(filters, identity), PredictionRow.at, PredictionRow.id, filters)
    return PredictionPage(items=[LoggedPrediction.model_validate(row) for row in rows], next=following)


@router.get(
    "/v1/predictions/export",
    summary="The log as CSV",
    response_class=StreamingResponse,
    responses={
        200: {
            "description": "A line for each prediction, newest first",
            "content": {"text/csv": {"example": "id,at,user_id\r\n5c1f,2026-11-01T09:30:00+00:00,0f2c\r\n"}},
        },
        **responses("invalid_input"),
    },
)
def export_predictions(
    filters: Annotated[Filters, Query()], service: ServiceDep, identity: Own
) -> StreamingResponse:
    """The same as a CSV file.

    A cell that a spreadsheet would take for a formula, since it begins with = + - @ or a control, has an
    apostrophe before it.
    """
    return StreamingResponse(
        _csv_lines(service, _wanted(filters, identity)),
        media_type="text/csv; charset=utf-8",
        headers={
            "Content-Disposition": 'attachment; filename="predictions.csv"',
            "X-Content-Type-Options": "nosniff",
            "Cache-Control": "no-store",
        },
    )


@router.get("/v1/predictions/{prediction_id}", summary="A prediction", responses=responses("not_found"))
def read_prediction(
    prediction_id: PredictionId, session: SessionDep, service: ServiceDep, identity: Own
) -> WholePrediction:
    """A prediction with the answer that was given; reviewers see everybody's too."""
    row = prediction_seen_by(session, service, identity, prediction_id)
    answer = json.loads(row.answer)
    return WholePrediction(**LoggedPrediction.model_validate(row).model_dump(), answer=answer)


def _wanted(filters: Filters, identity: Identity) -> Select[PredictionRow]:
    rows = select(PredictionRow)
    if identity.role != "admin":
        rows = rows.where(PredictionRow.user_id == identity.user_id)
    if filters.start is not None:
        rows = rows.where(PredictionRow.at >= filters.start)
    if filters.end is not None:
        rows = rows.where(PredictionRow.at < filters.end)
    for column, value in (
        (PredictionRow.policy, filters.policy),
        (PredictionRow.outcome, filters.outcome),
        (PredictionRow.model_version, filters.model_version),
        (PredictionRow.node_id, filters.node_id),
        (PredictionRow.product_id, filters.product_id),
        (PredictionRow.user_id, filters.user_id),
    ):
        if value is not None:
            rows = rows.where(column == value)
    return rows


def _csv_lines(service: Service, wanted: Select[PredictionRow]) -> Iterator[str]:
    """Page after page, each read in a moment: a slow reader holds no transaction open."""
    yield csv_of([[*_EXPORTED]])
    place: Place | None = None
    while True:
        page = newest_first(wanted, PredictionRow.at, PredictionRow.id, place).limit(_EXPORTED_AT_ONCE)
        with service.database.reading() as session:
            rows = session.scalars(page).all()
        if rows:
            yield csv_of([[cell_of(getattr(row, name)) for name in _EXPORTED] for row in rows])
        if len(rows) < _EXPORTED_AT_ONCE:
            return
        place = Place(rows[-1].at, rows[-1].id)


def csv_of(rows: list[list[str]]) -> str:
    """Lines of a CSV file."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\r\n").writerows(rows)
    return text.getvalue()


def cell_of(value: object) -> str:
    """A value as a cell that no spreadsheet takes for a formula."""
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, str):
        within = _WITHIN.sub(r"\1'", value)
        return f"'{within}" if value.startswith(_FORMULA) else within
    return "" if value is None else str(value)
