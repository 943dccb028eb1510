"""What waits for a reviewer, and why.

- `review`: the policy says that a person is to decide.
- `abstained`, `outside`, `unsure`: nothing was decided, or with less confidence than `review_below`; only of
  products that are more than a title that somebody is typing: the caller gave it an id, or saved it.
- `rejected`: its seller says that the answer is wrong.
- `audit`: drawn at random from what sellers accepted.

What the public asks waits for nobody. First come those that may cost most: the chance that the answer is wrong
times the value of the category, where the policy gives categories one. A prediction that a reviewer has judged
does not wait.

The log has a hash of what was asked. With what is doubtful at once the texts are kept, until the prediction goes
or its user: a reviewer needs them. The picture is not: it would cost each such answer a file, for somebody who has
not saved a product yet; those of products are kept with these.
"""

from __future__ import annotations

import json
import math
import random
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final, Literal

import structlog
from sqlalchemy import exists, insert, select, update
from sqlalchemy.exc import DataError, IntegrityError
from sqlalchemy.orm import Session

from shelver.decide import Policy
from shelver.product import Product
from shelver.service.problems import ServiceError
from shelver.service.records.entries import Entry
from shelver.service.tables.declarative import now
from shelver.service.tables.records import NAME_CHARS, FeedbackRow, PredictionRow
from shelver.service.tables.reviews import ReviewItem, ReviewText

if TYPE_CHECKING:
    from shelver.service.models.champion import Loaded

Reason = Literal["review", "abstained", "outside", "unsure", "rejected", "audit"]
REVIEWERS: Final = ("reviewer", "admin")
"""Roles whose judgement is a reviewer's label."""
TITLE_CHARS: Final = 1000
DESCRIPTION_CHARS: Final = 4000
"""So much of a text is kept for the reviewer."""
_DRAW: Final = random.SystemRandom()
log = structlog.get_logger("shelver.service")


@dataclass(frozen=True, slots=True)
class Suggestion:
    """A node that the model found likely, and how likely."""

    node_id: str
    path: str | None
    confidence: float


@dataclass(frozen=True, eq=False)
class Waiting:
    """Puts predictions into the queue of the reviewers.

    Attributes:
        current: the model that answers now, with the policies.
        below: decisions of less confidence are looked at.
    """

    current: Callable[[], Loaded]
    below: float

    def with_texts(self, entry: Entry, product: Product, hint: str | None) -> Entry:
        """The entry with what was asked, where it is going to wait; as it is where it is not."""
        if self._doubt(entry, known=entry.product_id is not None) is None:
            return entry
        texts = {
            "title": _cut(product.title, TITLE_CHARS),
            "description": _cut(product.description, DESCRIPTION_CHARS),
            "brand": _cut(product.brand, TITLE_CHARS),
            "category_hint": _cut(hint, TITLE_CHARS),
        }
        return replace(entry, asked=json.dumps({name: text for name, text in texts.items() if text is not None}))

    def add(self, session: Session, entries: Sequence[Entry]) -> None:
        """Add those of some new predictions that are doubtful, in the transaction that writes them."""
        rows, texts = [], []
        for entry in entries:
            reason = self._doubt(entry, known=entry.product_id is not None)
            if reason is not None:
                rows.append(self._row(entry, reason))
                texts += _texts_of(entry)
        if not rows:
            return
        try:
            with session.begin_nested():
                session.execute(insert(ReviewItem), rows)
                if texts:
                    session.execute(insert(ReviewText), texts)
        except (DataError, IntegrityError):  # the log must not suffer
            log.exception(
                "predictions that should wait for a reviewer", ids=[row["prediction_id"] for row in rows]
            )

    def saved(self, session: Session, prediction: PredictionRow) -> None:
        """A product was saved that names this prediction: now it can be looked at."""
        reason = self._doubt(prediction, known=True)
        if reason is not None:
            self._put(session, prediction, reason)

    def judged(self, session: Session, prediction: PredictionRow, judgement: FeedbackRow) -> None:
        """Somebody has judged: it waits where a seller rejects it or it was drawn, and no longer where a reviewer
        did it."""
        if judgement.role in REVIEWERS:
            session.execute(
                update(ReviewItem)
                .where(ReviewItem.prediction_id == prediction.id)
                .values(state="decided", claimed_by=None, claimed_until=None, skipped_by=None),
                execution_options={"synchronize_session": False},
            )
        elif judgement.audit:
            self._put(session, prediction, "audit")
        elif judgement.action == "reject":
            self._put(session, prediction, "rejected")

    def _put(self, session: Session, prediction: PredictionRow, reason: Reason) -> None:
        row = self._row(prediction, reason)
        item = session.get(ReviewItem, prediction.id)
        if item is None:
            if not session.scalar(select(labelled(prediction.id))):
                with suppress(IntegrityError), session.begin_nested():  # another request has put it
                    session.add(ReviewItem(**row))
        elif reason == "audit" and not item.audit:
            # What was drawn is looked at in the order of chance, or the doubtful part of it would be seen first.
            item.audit, item.reason, item.priority = True, reason, row["priority"]
        elif not item.audit:
            item.priority = max(item.priority, row["priority"])

    def _doubt(self, said: Entry | PredictionRow, *, known: bool) -> Reason | None:
        if said.user_id is None:
            return None
        if said.outcome == "review":
            return "review"
        if not known:
            return None
        if said.outcome == "abstained" or said.outcome == "outside":
            return "abstained" if said.outcome == "abstained" else "outside"
        unsure = said.outcome == "decided" and said.confidence is not None and said.confidence < self.below
        return "unsure" if unsure else None

    def _row(self, said: Entry | PredictionRow, reason: Reason) -> dict[str, Any]:
        suggested = suggestions_of(said)
        node_id = suggested[0].node_id if suggested else None
        if reason == "audit":
            priority = _DRAW.random()
        else:
            confidence = suggested[0].confidence if suggested and reason != "rejected" else 0.0
            priority = (1 - confidence) * worth(self._policies().get(said.policy), node_id)
        return {
            "prediction_id": said.id,
            "input_hash": said.input_hash,
            "node_id": None if node_id is None else stored_text(node_id),
            "reason": reason,
            "audit": reason == "audit",
            "priority": min(max(priority, 0.0), 1.0) if math.isfinite(priority) else 1.0,
            "state": "waiting",
            "created_at": now(),
            "confidence": suggested[0].confidence if suggested else None,
        }

    def _policies(self) -> Mapping[str, Policy]:
        try:
            return self.current().policies
        except ServiceError:  # no model answers now; the log of what was answered is written all the same
            return {}


def labelled(prediction_id: str) -> Any:
    """Whether a reviewer has judged a prediction."""
    return exists().where(
        FeedbackRow.prediction_id == prediction_id,
        FeedbackRow.current_of.is_not(None),
        FeedbackRow.role.in_(REVIEWERS),
    )


def suggestions_of(said: Entry | PredictionRow) -> list[Suggestion]:
    """The decided node, and then the others that the answer names, best first."""
    try:
        answer = json.loads(said.answer)
        found = [
            Suggestion(str(one["node_id"]), one.get("path"), float(one["confidence"]))
            for one in answer.get("alternatives") or ()
        ]
        path = answer.get("path")
    except (ValueError, TypeError, KeyError, AttributeError):
        log.warning("an answer in the log that cannot be read", prediction_id=said.id)
        found, path = [], None
    if said.node_id is not None:
        decided = Suggestion(said.node_id, path, said.confidence or 0.0)
        found = [decided, *(one for one in found if one.node_id != said.node_id)]
    return found


def _texts_of(entry: Entry) -> list[dict[str, Any]]:
    """The row of what was asked, if it was kept."""
    if entry.asked is None:
        return []
    asked = json.loads(entry.asked)
    row = {name: asked.get(name) for name in ("title", "description", "brand", "category_hint")}
    return [{"prediction_id": entry.id, "user_id": entry.user_id, **row}]


def _cut(text: str | None, n_chars: int) -> str | None:
    """The beginning of a text, as every database takes it; None where there is none."""
    if not text:
        return None
    return text[:n_chars].encode("utf-8", "replace").decode().replace("\x00", "")


def stored_text(text: str) -> str:
    """A name as every database takes it."""
    return _cut(text, NAME_CHARS) or ""


def worth(policy: Policy | None, node_id: str | None) -> float:
    """What a category is worth to a policy, as a share of its most valuable one; 1 where all are alike."""
    values = policy.costs.values if policy is not None else None
    most = max(values.values(), default=0.0) if values else 0.0
    if not values or most <= 0:
        return 1.0
    return values.get(node_id or "", sum(values.values()) / len(values)) / most
