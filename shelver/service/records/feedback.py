"""What people say of predictions: accepted, corrected or rejected. Each judgement is a label, and none is lost.

A person's latest judgement of a prediction is his *current* one; the earlier ones stay as history. A random part
of what is accepted is marked for review, since people also accept what they did not look at. Who accepts does not
see the mark, and does not get another chance to be drawn or spared by accepting again.
"""

from __future__ import annotations

import random
from typing import Annotated, Final

from fastapi import APIRouter, Query
from pydantic import Field
from sqlalchemy import delete, select, update
from sqlalchemy.orm import Session

from shelver.service.accounts.identity import Identity, allowed
from shelver.service.db import SessionDep
from shelver.service.paging import Moment, Paged, page_of
from shelver.service.problems import ServiceError, responses
from shelver.service.products.pictures import SEES_ALL
from shelver.service.products.routes import checked_node, delete_products_of
from shelver.service.records.payloads import Action, FeedbackIn, FeedbackPage, FeedbackRead, Name
from shelver.service.records.predictions import Own, PredictionId, prediction_seen_by
from shelver.service.state import Service, ServiceDep
from shelver.service.tables.records import FeedbackRow, PredictionRow

_DRAW: Final = random.SystemRandom()
router = APIRouter(tags=["feedback"])


class FeedbackFilters(Paged):
    """Which judgements are meant; all that are given must hold."""

    start: Moment | None = Field(default=None, alias="from", examples=["2026-11-01T00:00:00Z"])
    end: Moment | None = Field(default=None, alias="to", examples=["2026-12-01T00:00:00Z"])
    action: Action | None = None
    audit: bool | None = Field(default=None, description="Drawn for review, or not.")
    current: bool = Field(default=True, description="Only the latest of each person on each prediction.")
    user_id: Name | None = None


@router.post(
    "/v1/predictions/{prediction_id}/feedback",
    status_code=201,
    summary="Judge a prediction",
    responses=responses("not_found", "invalid_input", "unknown_category", "conflict"),
)
def give_feedback(
    prediction_id: PredictionId, body: FeedbackIn, session: SessionDep, service: ServiceDep, identity: Own
) -> FeedbackRead:
    """Accept, correct or reject a prediction of one's own; reviewers and administrators judge all.

    It replaces the person's earlier judgement, which stays as history. To correct to what was decided is to
    accept.
    """
    prediction = prediction_seen_by(session, service, identity, prediction_id)
    return read_of(judge(session, service, identity, prediction, body), identity)


@router.get(
    "/v1/predictions/{prediction_id}/feedback",
    summary="What was said of a prediction",
    responses=responses("not_found"),
)
def read_feedback(
    prediction_id: PredictionId, session: SessionDep, service: ServiceDep, identity: Own
) -> list[FeedbackRead]:
    """All judgements of a prediction, oldest first; reviewers see everybody's, others their own."""
    prediction_seen_by(session, service, identity, prediction_id)
    rows = select(FeedbackRow).where(FeedbackRow.prediction_id == prediction_id)
    if identity.role not in SEES_ALL:
        rows = rows.where(FeedbackRow.user_id == identity.user_id)
    found = session.scalars(rows.order_by(FeedbackRow.at, FeedbackRow.id))
    return [read_of(row, identity) for row in found]


@router.get("/v1/feedback", summary="List judgements", responses=responses("invalid_input"))
def list_feedback(
    filters: Annotated[FeedbackFilters, Query()],
    session: SessionDep,
    identity: Annotated[Identity, allowed("reviewer", "admin")],
) -> FeedbackPage:
    """Everybody's judgements, newest first; with `audit=true` those that were drawn for review."""
    rows = select(FeedbackRow)
    if filters.start is not None:
        rows = rows.where(FeedbackRow.at >= filters.start)
    if filters.end is not None:
        rows = rows.where(FeedbackRow.at < filters.end)
    if filters.action is not None:
        rows = rows.where(FeedbackRow.action == filters.action)
    if filters.audit is not None:
        rows = rows.where(FeedbackRow.audit == filters.audit)
    if filters.current:
        rows = rows.where(FeedbackRow.current_of.is_not(None))
    if filters.user_id is not None:
        rows = rows.where(FeedbackRow.user_id == filters.user_id)
    found, following = page_of(session, rows, FeedbackRow.at, FeedbackRow.id, filters)
    return FeedbackPage(items=[read_of(row, identity) for row in found], next=following)


def judge(
    session: Session, service: Service, identity: Identity, prediction: PredictionRow, body: FeedbackIn
) -> FeedbackRow:
    """Store a person's judgement of a prediction that he may see; it is his current one.

    Raises:
        ServiceError: it says what cannot be, or names a node that the tree has not; nothing is stored then.
    """
    assert identity.user_id is not None  # no rule lets anybody else judge
    action, node_after = _judged(body, prediction)
    tree = service.models.current().taxonomy if node_after is None else checked_node(service, node_after)
    key = key_of(prediction.id, identity.user_id)
    session.execute(
        update(FeedbackRow).where(FeedbackRow.current_of == key).values(current_of=None),
        execution_options={"synchronize_session": False},
    )
    # What reviewers accept is no sample of what sellers accept.
    may_be_drawn = action == "accept" and identity.role not in SEES_ALL
    row = FeedbackRow(
        prediction_id=prediction.id,
        user_id=identity.user_id,
        role=identity.role,
        action=action,
        note=body.note,
        current_of=key,
        audit=may_be_drawn and _drawn(session, service, prediction.id),
        product_id=prediction.product_id,
        predicted_at=prediction.at,
        predicted_for=prediction.user_id,
        node_before=prediction.node_id,
        node_after=node_after,
        confidence=prediction.confidence,
        outcome=prediction.outcome,
        policy=prediction.policy,
        modality=prediction.modality,
        model_version=prediction.model_version,
        taxonomy_version=tree.version,
    )
    session.add(row)
    session.flush()
    service.waiting.judged(session, prediction, row)
    return row


def key_of(prediction_id: str, user_id: str) -> str:
    """What stands in `current_of` of a person's current judgement of a prediction."""
    return f"{prediction_id}/{user_id}"


def erase_records_of(session: Session, service: Service, user_id: str) -> None:
    """Delete somebody's products, pictures and predictions, and what he wrote beside his judgements.

    The judgements themselves stay: they are labels, and tell nothing of who he was.
    """
    delete_products_of(session, service, user_id)
    session.execute(delete(PredictionRow).where(PredictionRow.user_id == user_id))
    session.execute(update(FeedbackRow).where(FeedbackRow.user_id == user_id).values(note=None))


def _judged(body: FeedbackIn, prediction: PredictionRow) -> tuple[Action, str | None]:
    """The judgement and the label that it gives.

    Raises:
        ServiceError: a node is missing, or one too many, or there was nothing to accept.
    """
    if body.action == "correct":
        if body.node_id is None:
            raise _unfit("a correction without a node", "`node_id` with `correct`", "Send the right node.")
        return ("accept" if body.node_id == prediction.node_id else "correct"), body.node_id
    if body.node_id is not None:
        raise _unfit(f"{body.action} with a node", "`node_id` only with `correct`", "Leave it out, or correct.")
    if body.action == "reject":
        return "reject", None
    if prediction.node_id is None:
        raise _unfit("accept where no node was decided", "correct or reject", "Correct it to the right node.")
    return "accept", prediction.node_id


def _unfit(received: str, allowed: str, remedy: str) -> ServiceError:
    return ServiceError("invalid_input", received, allowed=allowed, remedy=remedy)


def _drawn(session: Session, service: Service, prediction_id: str) -> bool:
    """Whether an accepted answer goes to review; drawn once for each prediction."""
    before = select(FeedbackRow.audit).where(
        FeedbackRow.prediction_id == prediction_id,
        FeedbackRow.action == "accept",
        FeedbackRow.role.not_in(SEES_ALL),
    )
    drawn = session.scalars(before).all()
    return any(drawn) if drawn else _DRAW.random() < service.settings.audit_share


def read_of(row: FeedbackRow, identity: Identity) -> FeedbackRead:
    """A judgement as it is shown to somebody."""
    return FeedbackRead.model_validate(
        {name: getattr(row, name) for name in FeedbackRead.model_fields if name not in ("current", "audit")}
        | {"current": row.current_of is not None, "audit": row.audit if identity.role in SEES_ALL else None}
    )
