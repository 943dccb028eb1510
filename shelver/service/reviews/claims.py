"""Who decides what: reviewers claim items for some minutes, so that no two work on the same one.

A claim ends with a decision, with its release, or by itself; until somebody else has claimed the item it can still
be decided. Two servers, or two requests, never claim the same item: rows that another transaction claims are
skipped (SQLite has one writer at a time).
"""

from __future__ import annotations

import random
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from sqlalchemy import ColumnElement, Select, and_, func, or_, select, update
from sqlalchemy.orm import Session

from shelver.service.reviews.payloads import MAX_ITEMS, ReviewFilters
from shelver.service.reviews.waiting import Reason
from shelver.service.state import Service
from shelver.service.tables.declarative import now
from shelver.service.tables.records import PredictionRow, ProductRow
from shelver.service.tables.reviews import ReviewItem

AUDIT_PART: Final = 0.2
"""So many of the items that are claimed are drawn from what sellers accepted, as long as there are any."""
ALIKE: Final = 0.9
"""From this similarity on, products are decided as a group."""
_SKIPPED: Final = 1000
_DRAW: Final = random.SystemRandom()


@dataclass(frozen=True, slots=True)
class Narrow:
    """Which items are wanted.

    Attributes:
        node_ids: those whose first suggestion is one of these.
        reason, below, least: why they wait; with less confidence, or with at least as much. Where one of these is
            chosen nothing comes that was drawn: it would be told apart from the others.
    """

    node_ids: frozenset[str] | None = None
    reason: Reason | None = None
    below: float | None = None
    least: float | None = None

    @property
    def tells(self) -> bool:
        """Whether whoever chose this would know what was drawn."""
        return (self.reason, self.below, self.least) != (None, None, None)

    def where(self) -> list[ColumnElement[bool]]:
        """As conditions."""
        found: list[ColumnElement[bool]] = []
        if self.node_ids is not None:
            found.append(ReviewItem.node_id.in_(self.node_ids))
        if self.reason is not None:
            found.append(ReviewItem.reason == self.reason)
        if self.below is not None:
            found.append(or_(ReviewItem.confidence < self.below, ReviewItem.confidence.is_(None)))
        if self.least is not None:
            found.append(ReviewItem.confidence >= self.least)
        if self.tells:
            found.append(ReviewItem.audit.is_(False))
        return found


ALL: Final = Narrow()


def of_node(node_id: str | None) -> Narrow:
    """Those whose first suggestion is this node; all where none is named."""
    return ALL if node_id is None else Narrow(frozenset((node_id,)))


def free(narrow: Narrow = ALL) -> ColumnElement[bool]:
    """Items that anybody may claim."""
    unclaimed = or_(ReviewItem.claimed_until.is_(None), ReviewItem.claimed_until < now())
    return and_(ReviewItem.state == "waiting", unclaimed, *narrow.where())


def queue(narrow: Narrow = ALL, *, audit: bool) -> Select[ReviewItem]:
    """Those that are free, the first ones first; an index has them in this order."""
    return _in_order(select(ReviewItem).where(free(narrow), ReviewItem.audit == audit))


def held_by(user_id: str) -> ColumnElement[bool]:
    """Items that somebody has claimed, and still has."""
    return and_(ReviewItem.claimed_by == user_id, ReviewItem.state == "waiting", ReviewItem.claimed_until >= now())


def peek(session: Session, user_id: str, filters: ReviewFilters) -> list[ReviewItem]:
    """The first items of the queue, or those that the reviewer has claimed."""
    if filters.mine:
        wanted = select(ReviewItem).where(held_by(user_id), *of_node(filters.node_id).where())
        return list(session.scalars(_in_order(wanted).limit(filters.limit)))
    found: list[ReviewItem] = []
    for audit in (False, True):  # each is a part of the index, and in order there
        found += session.scalars(queue(of_node(filters.node_id), audit=audit).limit(filters.limit))
    return sorted(found, key=lambda item: (-item.priority, item.prediction_id))[: filters.limit]


def hand(session: Session, user_id: str) -> list[ReviewItem]:
    """What a reviewer has claimed and nobody else since, as he got it: also where the claim has run out."""
    wanted = select(ReviewItem).where(ReviewItem.claimed_by == user_id, ReviewItem.state == "waiting")
    # By their ids, which are drawn: nothing tells why one waits.
    return list(session.scalars(wanted.order_by(ReviewItem.claimed_until, ReviewItem.prediction_id)))


def claim(
    service: Service, user_id: str, n: int, *, alike: bool = False, narrow: Narrow = ALL
) -> list[ReviewItem]:
    """Claim items for a reviewer, in an order that does not tell what was drawn; in transactions of its own.

    Args:
        service: which one.
        user_id: the reviewer.
        n: so many, or fewer where fewer wait or he would hold more than `MAX_ITEMS`.
        alike: one item, and those that look like it.
        narrow: only of these.
    """
    with service.database.writing() as session:
        n = _room(session, user_id, n)
        found = _take(session, user_id, _until(service), 1 if alike else n, narrow) if n > 0 else []
    if not alike or not found or n == 1:
        return found
    return found + claim_alike(service, user_id, found[0], n - 1, narrow=narrow)


def claim_alike(
    service: Service, user_id: str, item: ReviewItem, n: int, *, narrow: Narrow = ALL
) -> list[ReviewItem]:
    """Claim at most n of those that look like an item, in transactions of its own."""
    # What looks alike takes a moment, in which nobody waits for the lock.
    with service.database.reading() as session:
        ids = alike(session, service, item, (n + 1) * 4)
    with service.database.writing() as session:
        n = _room(session, user_id, n)
        wanted = select(ReviewItem).where(free(narrow), ReviewItem.prediction_id.in_(ids))
        return _claimed(session, wanted.limit(n), user_id, _until(service)) if n > 0 else []


def release(session: Session, user_id: str, prediction_ids: Collection[str] | None, *, skip: bool = False) -> int:
    """Give items back; how many there were. What he skips comes to him again last."""
    mine = [ReviewItem.claimed_by == user_id, ReviewItem.state == "waiting"]
    if prediction_ids is not None:
        mine.append(ReviewItem.prediction_id.in_(prediction_ids))
    done: Any = session.execute(
        update(ReviewItem)
        .where(*mine)
        .values({"claimed_by": None, "claimed_until": None} | ({"skipped_by": user_id} if skip else {})),
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


def alike(session: Session, service: Service, item: ReviewItem, most: int) -> list[str]:
    """Predictions of the same input, and of products that look like this one; claimed by others or not."""
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


def _in_order(items: Select[ReviewItem]) -> Select[ReviewItem]:
    return items.order_by(ReviewItem.priority.desc(), ReviewItem.prediction_id.desc())


def _until(service: Service) -> datetime:
    return now() + timedelta(seconds=service.settings.review_lease_s)


def _room(session: Session, user_id: str, n: int) -> int:
    """So many of n more items may somebody hold."""
    held = session.scalar(select(func.count()).select_from(ReviewItem).where(held_by(user_id))) or 0
    return min(n, MAX_ITEMS - held)


def _take(session: Session, user_id: str, until: datetime, n: int, narrow: Narrow) -> list[ReviewItem]:
    """The next n items: some that were drawn, and the doubtful ones that may cost most; last what he skipped."""
    n_audit = sum(_DRAW.random() < AUDIT_PART for _ in range(n))
    # Of his own, and so few that an index finds them at once.
    skipped = session.scalars(
        select(ReviewItem.prediction_id).where(ReviewItem.skipped_by == user_id).limit(_SKIPPED)
    ).all()
    others = or_(ReviewItem.skipped_by.is_(None), ReviewItem.skipped_by != user_id)
    found: list[ReviewItem] = []
    for last in (False, True) if skipped else (False,):
        among = ReviewItem.prediction_id.in_(skipped) if last else others
        # Where there are not enough of one sort, the other fills up.
        for audit, most in ((True, n_audit), (False, n), (True, n)):
            left = min(most, n - len(found))
            if left > 0 and not (audit and narrow.tells):
                wanted = queue(narrow, audit=audit).where(among)
                found += _claimed(session, wanted.limit(left), user_id, until)
    _DRAW.shuffle(found)
    return found


def _claimed(session: Session, wanted: Select[ReviewItem], user_id: str, until: datetime) -> list[ReviewItem]:
    items = list(session.scalars(wanted.with_for_update(skip_locked=True)))
    for item in items:
        item.claimed_by, item.claimed_until = user_id, until
    session.flush()  # what is claimed is not free for the next query
    return items
