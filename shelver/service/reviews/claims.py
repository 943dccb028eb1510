"""Who decides what: reviewers claim items for some minutes, so that no two work on the same one.

A claim ends with a decision, with its release, or by itself; until somebody else has claimed the item it can still
be decided. Two servers, or two requests, never claim the same item: rows that another transaction claims are
skipped (SQLite has one writer at a time).
"""

from __future__ import annotations

import random
from collections.abc import Collection, Sequence
from datetime import datetime, timedelta
from typing import Any, Final

from sqlalchemy import ColumnElement, Select, and_, func, or_, select, update
from sqlalchemy.orm import Session

from shelver.service.reviews.payloads import MAX_ITEMS, ClaimIn, ReviewFilters
from shelver.service.state import Service
from shelver.service.tables.declarative import now
from shelver.service.tables.records import PredictionRow, ProductRow
from shelver.service.tables.reviews import ReviewItem

AUDIT_PART: Final = 0.2
"""So many of the items that are claimed are drawn from what sellers accepted, as long as there are any."""
ALIKE: Final = 0.9
"""From this similarity on, products are decided as a group."""
_DRAW: Final = random.SystemRandom()


def free(node_id: str | None) -> ColumnElement[bool]:
    """Items that anybody may claim."""
    unclaimed = or_(ReviewItem.claimed_until.is_(None), ReviewItem.claimed_until < now())
    return and_(ReviewItem.state == "waiting", unclaimed, *_of_node(node_id))


def queue(node_id: str | None, *, audit: bool) -> Select[ReviewItem]:
    """Those that are free, the first ones first; an index has them in this order."""
    return _in_order(select(ReviewItem).where(free(node_id), ReviewItem.audit == audit))


def held_by(user_id: str) -> ColumnElement[bool]:
    """Items that somebody has claimed, and still has."""
    return and_(ReviewItem.claimed_by == user_id, ReviewItem.state == "waiting", ReviewItem.claimed_until >= now())


def peek(session: Session, user_id: str, filters: ReviewFilters) -> list[ReviewItem]:
    """The first items of the queue, or those that the reviewer has claimed."""
    if filters.mine:
        wanted = select(ReviewItem).where(held_by(user_id), *_of_node(filters.node_id))
        return list(session.scalars(_in_order(wanted).limit(filters.limit)))
    found: list[ReviewItem] = []
    for audit in (False, True):  # each is a part of the index, and in order there
        found += session.scalars(queue(filters.node_id, audit=audit).limit(filters.limit))
    return sorted(found, key=lambda item: (-item.priority, item.prediction_id))[: filters.limit]


def claim(service: Service, user_id: str, asked: ClaimIn) -> list[ReviewItem]:
    """Claim items for a reviewer, in an order that does not tell what was drawn; in transactions of its own."""
    until = now() + timedelta(seconds=service.settings.review_lease_s)
    alike = asked.group == "alike"
    with service.database.writing() as session:
        held = session.scalar(select(func.count()).select_from(ReviewItem).where(held_by(user_id))) or 0
        n = min(asked.n, MAX_ITEMS - held)
        found = _take(session, user_id, until, 1 if alike else n, asked.node_id) if n > 0 else []
    if not alike or not found or n == 1:
        return found
    # What looks alike takes a moment, in which nobody waits for the lock.
    with service.database.reading() as session:
        ids = _alike(session, service, found[0], n * 4)
    with service.database.writing() as session:
        wanted = select(ReviewItem).where(free(asked.node_id), ReviewItem.prediction_id.in_(ids))
        return found + _claimed(session, wanted.limit(n - 1), user_id, until)


def release(session: Session, user_id: str, prediction_ids: Collection[str] | None) -> int:
    """Give items back; how many there were."""
    mine = [ReviewItem.claimed_by == user_id, ReviewItem.state == "waiting"]
    if prediction_ids is not None:
        mine.append(ReviewItem.prediction_id.in_(prediction_ids))
    done: Any = session.execute(
        update(ReviewItem).where(*mine).values(claimed_by=None, claimed_until=None),
        execution_options={"synchronize_session": False},
    )
    return int(done.rowcount)


def claimed(session: Session, user_id: str, prediction_ids: Sequence[str]) -> dict[str, ReviewItem]:
    """Of these items those that the reviewer has claimed and nobody else since, locked until the commit."""
    wanted = select(ReviewItem).where(
        ReviewItem.prediction_id.in_(prediction_ids),
        ReviewItem.claimed_by == user_id,
        ReviewItem.state == "waiting",
    )
    # In one order, so that two transactions do not wait for each other.
    rows = session.scalars(wanted.order_by(ReviewItem.prediction_id).with_for_update())
    return {row.prediction_id: row for row in rows}


def products_of(session: Session, predictions: Collection[PredictionRow]) -> dict[str, ProductRow]:
    """The product that each prediction is about, by the prediction's id: the one that was saved with it, or the
    one that it was asked for."""
    if not predictions:
        return {}
    ids = [row.id for row in predictions]
    wanted = [row.product_id for row in predictions if row.product_id is not None]
    by_id = {row.id: row for row in session.scalars(select(ProductRow).where(ProductRow.id.in_(wanted)))}
    found = {row.id: by_id[row.product_id] for row in predictions if row.product_id in by_id}
    saved = select(ProductRow).where(ProductRow.prediction_id.in_(ids)).order_by(ProductRow.created_at)
    for product in session.scalars(saved):
        if product.prediction_id is not None:
            found[product.prediction_id] = product
    return found


def _of_node(node_id: str | None) -> list[ColumnElement[bool]]:
    return [] if node_id is None else [ReviewItem.node_id == node_id]


def _in_order(items: Select[ReviewItem]) -> Select[ReviewItem]:
    return items.order_by(ReviewItem.priority.desc(), ReviewItem.prediction_id.desc())


def _take(session: Session, user_id: str, until: datetime, n: int, node_id: str | None) -> list[ReviewItem]:
    """The next n items: some that were drawn, and the doubtful ones that may cost most."""
    n_audit = sum(_DRAW.random() < AUDIT_PART for _ in range(n))
    found: list[ReviewItem] = []
    # Where there are not enough of one sort, the other fills up.
    for audit, most in ((True, n_audit), (False, n), (True, n)):
        left = min(most, n - len(found))
        if left > 0:
            found += _claimed(session, queue(node_id, audit=audit).limit(left), user_id, until)
    _DRAW.shuffle(found)
    return found


def _claimed(session: Session, wanted: Select[ReviewItem], user_id: str, until: datetime) -> list[ReviewItem]:
    items = list(session.scalars(wanted.with_for_update(skip_locked=True)))
    for item in items:
        item.claimed_by, item.claimed_until = user_id, until
    session.flush()  # what is claimed is not free for the next query
    return items


def _alike(session: Session, service: Service, item: ReviewItem, most: int) -> list[str]:
    """Predictions of the same input, and of products that look like this one."""
    same = select(ReviewItem.prediction_id).where(
        ReviewItem.input_hash == item.input_hash, ReviewItem.state == "waiting"
    )
    found = list(session.scalars(same.limit(most)))
    prediction = session.get(PredictionRow, item.prediction_id)
    product = products_of(session, [prediction]).get(prediction.id) if prediction is not None else None
    if product is None:
        return found
    loaded = service.models.current()
    look = service.lookalikes.stored_look(session, loaded, product)
    if look is None:
        return found
    near = service.lookalikes.of(loaded)[0].to(look, most)
    ids = [one.product_id for one in near if one.similarity >= ALIKE]
    saved = select(ProductRow.prediction_id).where(ProductRow.id.in_(ids), ProductRow.prediction_id.is_not(None))
    asked = select(PredictionRow.id).where(PredictionRow.product_id.in_(ids)).limit(most)
    return [*found, *(id_ for id_ in session.scalars(saved) if id_ is not None), *session.scalars(asked)]
