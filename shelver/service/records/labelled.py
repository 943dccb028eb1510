"""Predicted against true: recent predictions with what people said that they should have been; /v1/labelled.

The true category is the prediction's *label*, as `quality` defines it.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import datetime
from typing import Annotated, Final

from fastapi import APIRouter, Query
from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy import select
from sqlalchemy.orm import Session

from shelver.service.accounts.identity import allowed
from shelver.service.db import SessionDep
from shelver.service.paging import Moment, Paged, Place, cursor_of, place_of
from shelver.service.problems import responses
from shelver.service.records.payloads import Action, Name
from shelver.service.records.quality import labels_of
from shelver.service.records.traffic import range_of
from shelver.service.state import Service, ServiceDep
from shelver.service.tables.accounts import User
from shelver.service.tables.records import FeedbackRow, ProductRow
from shelver.taxonomy import Taxonomy

_MORE: Final = 4
"""Rows that are read for each that is shown, since several people may judge one prediction."""
_MAX_READ: Final = 5_000
router = APIRouter(tags=["feedback"])


class LabelledFilters(Paged):
    """Which labelled predictions are meant: those of the last 30 days where nothing is said."""

    start: Moment | None = Field(default=None, alias="from", examples=["2026-11-01T00:00:00Z"])
    end: Moment | None = Field(default=None, alias="to", examples=["2026-12-01T00:00:00Z"])
    right: bool | None = Field(default=None, description="Only the right ones, or only the wrong ones.")
    model_version: Name | None = None


class Labelled(BaseModel):
    """A prediction and its label."""

    model_config = ConfigDict(protected_namespaces=())

    prediction_id: str
    predicted_at: datetime
    title: str | None = Field(description="Of the product, where it is stored.")
    product_id: str | None
    node_before: str | None = Field(description="Predicted; none where no category was decided.")
    path_before: str | None = Field(description="In the current tree.", examples=["Home > Chairs > Bar"])
    node_after: str | None = Field(description="True; none where it was rejected.")
    path_after: str | None = Field(examples=["Home > Chairs > Deck"])
    right: bool = Field(examples=[False])
    action: Action = Field(examples=["correct"])
    confidence: float | None
    model_version: str
    judged_at: datetime
    judged_by: str = Field(description="Name of who said so; empty of somebody who has left.", examples=["Ann"])
    role: str = Field(description="His, then.", examples=["reviewer"])


class LabelledPage(BaseModel):
    """Some of them, the latest predictions first."""

    items: list[Labelled]
    next: str | None = Field(description="`after` of the next page; none where this is the last.")


@router.get(
    "/v1/labelled",
    summary="Predicted against true",
    dependencies=[allowed("reviewer", "admin")],
    responses=responses("invalid_input"),
)
def list_labelled(
    filters: Annotated[LabelledFilters, Query()], session: SessionDep, service: ServiceDep
) -> LabelledPage:
    """Recent predictions that somebody judged: what was predicted, what was true, and who said so."""
    start, end = range_of(filters.start, filters.end)
    labels, following = _labels(session, filters, start, end)
    return LabelledPage(items=_shown(session, service, labels), next=following)


def _labels(
    session: Session, filters: LabelledFilters, start: datetime, end: datetime
) -> tuple[list[FeedbackRow], str | None]:
    """One label for each prediction, and the cursor of what comes after them."""
    place = place_of(filters.after) if filters.after else None
    found: list[FeedbackRow] = []
    n_read = 0
    while n_read < _MAX_READ:
        # Predictions of one moment stay together: a page begins with the next moment.
        until = end if place is None else place.at
        rows = _read(session, filters, start, until, _MORE * (filters.limit + 1))
        n_read += len(rows)
        over = len(rows) < _MORE * (filters.limit + 1)
        if not over:
            last = rows[-1].predicted_at
            complete = [row for row in rows if row.predicted_at > last]
            rows = complete or _read(session, filters, last, until, _MAX_READ)
        ordered = sorted(labels_of(rows), key=lambda row: (row.predicted_at, row.prediction_id), reverse=True)
        found += [row for row in ordered if filters.right is None or (row.action == "accept") == filters.right]
        if len(found) > filters.limit:
            return _cut(found, filters.limit)
        if over:
            return found, None
        place = Place(min(row.predicted_at for row in rows), "0")
    return found, cursor_of(place) if place is not None else None


def _cut(found: list[FeedbackRow], limit: int) -> tuple[list[FeedbackRow], str]:
    """The first of them, without a part of those of one moment, unless that is all there is."""
    last = found[limit].predicted_at
    whole = [row for row in found[:limit] if row.predicted_at > last]
    if not whole:
        whole = [row for row in found if row.predicted_at == found[0].predicted_at]
    return whole, cursor_of(Place(whole[-1].predicted_at, "0"))


def _read(
    session: Session, filters: LabelledFilters, start: datetime, until: datetime, n: int
) -> Sequence[FeedbackRow]:
    rows = select(FeedbackRow).where(
        FeedbackRow.current_of.is_not(None), FeedbackRow.predicted_at >= start, FeedbackRow.predicted_at < until
    )
    if filters.model_version is not None:
        rows = rows.where(FeedbackRow.model_version == filters.model_version)
    return session.scalars(rows.order_by(FeedbackRow.predicted_at.desc(), FeedbackRow.id.desc()).limit(n)).all()


def _shown(session: Session, service: Service, labels: Sequence[FeedbackRow]) -> list[Labelled]:
    tree = service.models.current().taxonomy
    titles = _titles(session, labels)
    who = select(User.id, User.name).where(User.id.in_({row.user_id for row in labels}), User.deleted_at.is_(None))
    names = dict(session.execute(who).all())
    return [
        Labelled(
            prediction_id=row.prediction_id,
            predicted_at=row.predicted_at,
            title=titles.get(row.prediction_id),
            product_id=row.product_id,
            node_before=row.node_before,
            path_before=_path(tree, row.node_before),
            node_after=row.node_after,
            path_after=_path(tree, row.node_after),
            right=row.action == "accept",
            action=row.action,  # type: ignore[arg-type] # as the table says
            confidence=row.confidence,
            model_version=row.model_version,
            judged_at=row.at,
            judged_by=names.get(row.user_id, ""),
            role=row.role,
        )
        for row in labels
    ]


def _titles(session: Session, labels: Collection[FeedbackRow]) -> dict[str, str | None]:
    """The title of the product that came of each prediction, or that it was made for."""
    by_product = {row.product_id: row.prediction_id for row in labels if row.product_id is not None}
    named = select(ProductRow.id, ProductRow.title).where(ProductRow.id.in_(by_product))
    found = {by_product[product_id]: title for product_id, title in session.execute(named)}
    saved = select(ProductRow.prediction_id, ProductRow.title)
    saved = saved.where(ProductRow.prediction_id.in_({row.prediction_id for row in labels}))
    return found | {prediction_id: title for prediction_id, title in session.execute(saved) if prediction_id}


def _path(tree: Taxonomy, node_id: str | None) -> str | None:
    node = None if node_id is None else tree.find(node_id)
    return None if node is None else tree.paths[node]
