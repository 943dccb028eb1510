"""The review: what reviewers decide, one by one or many in one go, and take back.

Reviewers see the product and the model's suggestions, best first, and not why the item waits, how sure the model
was or what its seller said; that is told with the decision. Labels are those of feedback.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import datetime, timedelta
from typing import Annotated, Final

from fastapi import APIRouter, Query
from sqlalchemy import func, select, update
from sqlalchemy.orm import Session

from shelver.service.accounts.identity import Identity, allowed
from shelver.service.answers.payloads import ItemProblem
from shelver.service.db import SessionDep
from shelver.service.problems import ServiceError, not_found, responses
from shelver.service.products.pictures import pictures_of
from shelver.service.records.feedback import judge, key_of, read_of
from shelver.service.records.payloads import FeedbackIn
from shelver.service.reviews import claims
from shelver.service.reviews.payloads import (
    MAX_ITEMS,
    AskedText,
    ClaimIn,
    DecidedItem,
    DecidedItems,
    DecideItemsIn,
    OtherJudgement,
    Released,
    ReleaseIn,
    ReviewCounts,
    ReviewedProduct,
    ReviewFilters,
    ReviewItemOut,
    ReviewItems,
    SuggestionOut,
    UndoIn,
    Undone,
    Verdict,
)
from shelver.service.reviews.waiting import REVIEWERS, suggestions_of
from shelver.service.state import Service, ServiceDep
from shelver.service.tables.declarative import now
from shelver.service.tables.records import FeedbackRow, PredictionRow
from shelver.service.tables.reviews import ReviewDecision, ReviewItem, ReviewText

Reviewer = Annotated[Identity, allowed("reviewer", "admin")]
_QUIET: Final = {"synchronize_session": False}
router = APIRouter(prefix="/v1/review", tags=["review"])


@router.get("", summary="What waits for a reviewer", responses=responses("invalid_input"))
def list_review_items(
    filters: Annotated[ReviewFilters, Query()], session: SessionDep, service: ServiceDep, identity: Reviewer
) -> ReviewItems:
    """The first items of the queue, without claiming them; with `mine` those that the caller has claimed."""
    return _items(session, service, claims.peek(session, _id(identity), filters))


@router.get("/counts", summary="How much there is to review")
def count_review_items(session: SessionDep, identity: Reviewer) -> ReviewCounts:
    """How many items wait, are claimed, and were decided today."""
    waiting = ReviewItem.state == "waiting"
    n = select(func.count()).select_from(ReviewItem)
    total = session.scalar(n.where(waiting)) or 0
    # Only what waits is claimed by somebody. To say so once more would lead SQLite away from the smaller index.
    claimed = ReviewItem.claimed_by.is_not(None)
    held = session.scalar(n.where(claimed, ReviewItem.claimed_until >= now())) or 0
    mine = session.scalar(n.where(claims.held_by(_id(identity)))) or 0
    midnight = now().replace(hour=0, minute=0, second=0, microsecond=0)
    decided = select(func.sum(ReviewDecision.n_items)).where(
        ReviewDecision.user_id == identity.user_id,
        ReviewDecision.at >= midnight,
        ReviewDecision.undone_at.is_(None),
    )
    return ReviewCounts(
        waiting=total - held, mine=mine, others=held - mine, decided_today=int(session.scalar(decided) or 0)
    )


@router.post("/claim", summary="Claim items for review", responses=responses("invalid_input"))
def claim_review_items(body: ClaimIn, service: ServiceDep, identity: Reviewer) -> ReviewItems:
    """Claim the next items, or a group that looks alike; nobody else gets them until `claimed_until`.

    Fewer come where fewer wait, or where the caller would hold more than 200.
    """
    found = claims.claim(
        service, _id(identity), body.n, alike=body.group == "alike", narrow=claims.of_node(body.node_id)
    )
    with service.database.reading() as session:
        return _items(session, service, found)


@router.post("/release", summary="Give claimed items back", responses=responses("invalid_input"))
def release_review_items(body: ReleaseIn, session: SessionDep, identity: Reviewer) -> Released:
    """Give items back to the queue; those that the caller has not claimed are left alone. With `skip` they come to
    him again only when nothing else waits."""
    return Released(n_released=claims.release(session, _id(identity), body.prediction_ids, skip=body.skip))


@router.post("/decide", summary="Decide claimed items", responses=responses("invalid_input", "conflict"))
def decide_review_items(
    body: DecideItemsIn, session: SessionDep, service: ServiceDep, identity: Reviewer
) -> DecidedItems:
    """Decide items that the caller has claimed, each by itself or many by one verdict.

    What cannot be decided has a problem in place of its label, and the others are decided all the same. A claim
    that has run out is good until somebody else takes the item.
    """
    asked = [(prediction_id, verdict) for verdict in body.verdicts for prediction_id in verdict.prediction_ids]
    ids = [prediction_id for prediction_id, _ in asked]
    if len(ids) > MAX_ITEMS or len(set(ids)) < len(ids):
        raise ServiceError(
            "invalid_input",
            f"{len(ids)} predictions, {len(set(ids))} different ones",
            allowed=f"at most {MAX_ITEMS}, each once",
            remedy="Send fewer, and each with one verdict.",
        )
    items = claims.claimed(session, _id(identity), ids)
    predictions = predictions_of(session, ids)
    before = _labels(session, identity, ids)
    found: dict[str, FeedbackRow] = {}
    problems: dict[str, ServiceError] = {}
    reasons = {prediction_id: item.reason for prediction_id, item in items.items()}
    for prediction_id, verdict in asked:
        try:
            prediction = predictions.get(prediction_id)
            if prediction is None:
                raise not_found(f"prediction {prediction_id}")
            if prediction_id not in items:
                raise _not_claimed(prediction_id)
            found[prediction_id] = judge(session, service, identity, prediction, _said(verdict, prediction))
        except ServiceError as error:
            problems[prediction_id] = error
    decision = ReviewDecision(
        user_id=_id(identity),
        n_items=len(found),
        items=[[prediction_id, row.id, before.get(prediction_id)] for prediction_id, row in found.items()],
    )
    if found:
        session.add(decision)
        session.flush()
    others = others_of(session, _id(identity), list(found))
    return DecidedItems(
        decision_id=decision.id if found else None,
        items=[
            _decided(id_, identity, found.get(id_), reasons.get(id_), others.get(id_, ()), problems.get(id_))
            for id_ in ids
        ],
        n_problems=len(problems),
    )


@router.post("/undo", summary="Undo a decision", responses=responses("not_found", "conflict", "invalid_input"))
def undo_review_decision(body: UndoIn, session: SessionDep, service: ServiceDep, identity: Reviewer) -> Undone:
    """Take a decision of the caller's back, the whole of it; his labels of before count again, the history stays.

    Refused where he has judged one of the predictions anew since.
    """
    wanted = select(ReviewDecision).where(
        ReviewDecision.user_id == identity.user_id, ReviewDecision.undone_at.is_(None)
    )
    if body.decision_id is not None:
        wanted = wanted.where(ReviewDecision.id == body.decision_id)
    wanted = wanted.order_by(ReviewDecision.at.desc(), ReviewDecision.id.desc()).limit(1).with_for_update()
    decision = session.scalar(wanted)
    if decision is None:
        raise not_found("decision that can be undone")
    labels = {label_id: prediction_id for prediction_id, label_id, _ in decision.items}
    current = select(FeedbackRow.id).where(FeedbackRow.id.in_(labels), FeedbackRow.current_of.is_not(None))
    if set(session.scalars(current.with_for_update())) != set(labels):
        raise ServiceError(
            "conflict",
            "a decision with a prediction that was judged anew since",
            allowed="decisions whose labels are still the caller's current ones",
            remedy="Judge the predictions themselves again.",
        )
    decision.undone_at = now()
    session.execute(
        update(FeedbackRow).where(FeedbackRow.id.in_(labels)).values(current_of=None), execution_options=_QUIET
    )
    for prediction_id, _, before in decision.items:
        if before is not None:
            restored = update(FeedbackRow).where(FeedbackRow.id == before)
            session.execute(
                restored.values(current_of=key_of(prediction_id, _id(identity))), execution_options=_QUIET
            )
    ids = list(labels.values())
    _reopen(session, identity, ids, now() + timedelta(seconds=service.settings.review_lease_s))
    return Undone(decision_id=decision.id, prediction_ids=ids)


def _id(identity: Identity) -> str:
    assert identity.user_id is not None  # no rule lets anybody else review
    return identity.user_id


def _said(verdict: Verdict, prediction: PredictionRow) -> FeedbackIn:
    """The verdict as feedback: to accept where no node was decided is to take the first suggestion."""
    action, node_id = verdict.action, verdict.node_id
    if action == "accept" and node_id is None and prediction.node_id is None:
        suggested = suggestions_of(prediction)
        if suggested:
            action, node_id = "correct", suggested[0].node_id
    return FeedbackIn(action=action, node_id=node_id, note=verdict.note)


def _not_claimed(prediction_id: str) -> ServiceError:
    return ServiceError(
        "conflict",
        f"prediction {prediction_id}, which the caller has not claimed, or somebody else has by now",
        allowed="items that the caller has claimed",
        remedy="Claim items at /v1/review/claim.",
    )


def predictions_of(session: Session, ids: Collection[str]) -> dict[str, PredictionRow]:
    """Predictions by their ids."""
    rows = session.scalars(select(PredictionRow).where(PredictionRow.id.in_(ids)))
    return {row.id: row for row in rows}


def texts_of(session: Session, prediction_ids: Collection[str]) -> dict[str, ReviewText]:
    """What was asked, by the prediction's id, where it was kept."""
    rows = session.scalars(select(ReviewText).where(ReviewText.prediction_id.in_(prediction_ids)))
    return {row.prediction_id: row for row in rows}


def _labels(session: Session, identity: Identity, ids: Collection[str]) -> dict[str, str]:
    """The reviewer's current judgement of each prediction."""
    keys = [key_of(prediction_id, _id(identity)) for prediction_id in ids]
    rows = session.scalars(select(FeedbackRow).where(FeedbackRow.current_of.in_(keys)))
    return {row.prediction_id: row.id for row in rows}


def others_of(session: Session, user_id: str, ids: Collection[str]) -> dict[str, list[FeedbackRow]]:
    """What others than this reviewer say of the predictions now."""
    wanted = select(FeedbackRow).where(
        FeedbackRow.prediction_id.in_(ids),
        FeedbackRow.current_of.is_not(None),
        FeedbackRow.user_id != user_id,
    )
    found: dict[str, list[FeedbackRow]] = {}
    for row in session.scalars(wanted.order_by(FeedbackRow.at, FeedbackRow.id)):
        found.setdefault(row.prediction_id, []).append(row)
    return found


def _decided(
    prediction_id: str,
    identity: Identity,
    label: FeedbackRow | None,
    reason: str | None,
    others: Sequence[FeedbackRow],
    problem: ServiceError | None,
) -> DecidedItem:
    said = [label.node_before, *(row.node_after for row in others)] if label is not None else []
    return DecidedItem(
        prediction_id=prediction_id,
        label=None if label is None else read_of(label, identity),
        reason=None if label is None else reason,
        others=[
            OtherJudgement.model_validate({"role": row.role, "action": row.action, "node_id": row.node_after})
            for row in others
        ],
        disagreement=label is not None and any(node != label.node_after for node in said),
        problem=None if problem is None else ItemProblem(code=problem.code, detail=str(problem)),
    )


def _reopen(session: Session, identity: Identity, ids: Sequence[str], until: datetime) -> None:
    """Let items wait again, claimed by the one who decided them; not those that another reviewer has judged."""
    labelled = select(FeedbackRow.prediction_id).where(
        FeedbackRow.prediction_id.in_(ids),
        FeedbackRow.current_of.is_not(None),
        FeedbackRow.role.in_(REVIEWERS),
        FeedbackRow.user_id != identity.user_id,
    )
    waiting = set(ids) - set(session.scalars(labelled))
    session.execute(
        update(ReviewItem)
        .where(ReviewItem.prediction_id.in_(waiting))
        .values(state="waiting", claimed_by=_id(identity), claimed_until=until),
        execution_options=_QUIET,
    )


def _items(session: Session, service: Service, items: Sequence[ReviewItem]) -> ReviewItems:
    predictions = predictions_of(session, [item.prediction_id for item in items])
    products = claims.products_of(session, predictions.values())
    pictures = pictures_of(session, [product.id for product in products.values()])
    texts = texts_of(session, [id_ for id_ in predictions if id_ not in products])
    tree = service.models.current().taxonomy
    shown = []
    for item in items:
        prediction = predictions.get(item.prediction_id)
        if prediction is None:  # it was deleted a moment ago
            continue
        product = products.get(prediction.id)
        suggested = []
        for one in suggestions_of(prediction):
            node = tree.find(one.node_id)
            suggested.append(
                SuggestionOut(node_id=one.node_id, path=one.path if node is None else tree.paths[node])
            )
        shown.append(
            ReviewItemOut(
                prediction_id=prediction.id,
                at=prediction.at,
                product=None
                if product is None
                else ReviewedProduct(
                    id=product.id,
                    title=product.title,
                    description=product.description,
                    brand=product.brand,
                    attributes=product.attributes,
                    pictures=pictures.get(product.id, []),
                ),
                asked=None if (text := texts.get(prediction.id)) is None else AskedText.model_validate(text),
                product_id=prediction.product_id,
                suggestions=suggested,
                claimed_until=item.claimed_until,
            )
        )
    return ReviewItems(items=shown)
