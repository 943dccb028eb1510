"""The demo's weeks, one day after the other: an earlier model answers, then the demo's own; reviewers follow."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from random import Random
from typing import Final

from sqlalchemy import select, update
from sqlalchemy.orm import Session

from shelver.product import Product
from shelver.service.accounts.identity import Identity
from shelver.service.demonstration.calendar import DAYS, lately, nights, visits_by_day, working_hours
from shelver.service.demonstration.cast import Cast
from shelver.service.demonstration.visits import Answered, Kind, Listing, Visit, asked, sold, truth_of
from shelver.service.reviews.payloads import DecideItemsIn, Verdict
from shelver.service.reviews.routes import decide_review_items
from shelver.service.reviews.waiting import suggestions_of
from shelver.service.state import Service
from shelver.service.tables.records import FeedbackRow, PredictionRow
from shelver.service.tables.reviews import ReviewDecision, ReviewItem

_LOOKS: Final = 0.2
"""So many of the people's visits end without a product."""
_FEED: Final = 0.25
"""So many of all visits are a machine's."""
_CARELESS: Final = (0.06, 0.3)
"""Of sellers on a working day and at a weekend."""
_LEFT_WAITING_DAYS: Final = 5
"""What came in so lately waits for whoever looks at the demo."""
_GROUPS: Final = 5
_AGAIN: Final = ("as new", "used", "shop soiled", "set of 2")
_P_REVIEWED: Final = 0.9
_P_SLIP: Final = 0.03


@dataclass(frozen=True, slots=True)
class Day:
    """What happens on a day.

    Attributes:
        at: its midnight, in UTC.
        visits: in their order.
    """

    number: int
    at: datetime
    visits: tuple[Visit, ...]


def plan(rng: Random, now: datetime, found: Sequence[Listing]) -> list[Day]:
    """One visit for each listing, over all days."""
    n_feed = int(len(found) * _FEED)
    by_night, by_day = nights(now, n_feed), visits_by_day(rng, now, len(found) - n_feed)
    # A machine asks about what has a title: nobody could judge the rest, as its pictures are not kept.
    fed = [listing for listing in found if listing.title is not None][:n_feed]
    numbers = {listing.number for listing in fed}
    for_feed, left = iter(fed), (listing for listing in found if listing.number not in numbers)
    days = []
    for number, (feed, people) in enumerate(zip(by_night, by_day, strict=True)):
        midnight = (now - timedelta(days=DAYS - 1 - number)).replace(hour=0, minute=0, second=0, microsecond=0)
        careless = _CARELESS[midnight.weekday() >= 5] * rng.uniform(0.5, 1.5)
        visits = [Visit(at, "feed", next(for_feed), 0.0) for at in feed]
        for at in people:
            kind: Kind = "look" if rng.random() < _LOOKS else "sell"
            visits.append(Visit(at, kind, next(left), careless))
        days.append(Day(number, midnight, tuple(sorted(visits, key=lambda visit: visit.at))))
    return days


def split_at(moment: datetime, days: Sequence[Day]) -> tuple[list[Day], list[Day]]:
    """The days until a moment and those from it on; its own day is in both, with its visits before and after."""
    before = [replace(day, visits=tuple(one for one in day.visits if one.at < moment)) for day in days]
    after = [replace(day, visits=tuple(one for one in day.visits if one.at >= moment)) for day in days]
    return (
        [day for day in before if day.at <= moment],
        [day for day in after if day.at > moment - timedelta(days=1)],
    )


def with_doubtful(
    service: Service, rng: Random, now: datetime, days: Sequence[Day], found: Sequence[Listing]
) -> list[Day]:
    """The days, with visits of the last ones for those listings that the current model is unsure of; some sellers
    list theirs again and again, in other states."""
    loaded = service.models.current()
    pictures = [(listing.picture,) if listing.picture else () for listing in found]
    said = loaded.classifier(
        [
            Product("", title=one.title, description=one.description, brand=one.brand, images=images)
            for one, images in zip(found, pictures, strict=True)
        ]
    )
    below = service.settings.review_below
    visits: dict[int, list[Visit]] = {}
    n_groups = 0
    for listing, answer in zip(found, said, strict=True):
        if answer.confidence is None or answer.confidence >= below or listing.title is None:
            continue
        at = lately(rng, now, _LEFT_WAITING_DAYS - 1)
        alike = [listing]
        if listing.picture is not None and n_groups < _GROUPS:
            n_groups += 1
            alike += [replace(listing, title=f"{listing.title}, {other}") for other in _AGAIN]
        number = (DAYS - 1) - (now.date() - at.date()).days
        later = [at + timedelta(seconds=20 * place) for place in range(len(alike))]
        visits.setdefault(number, []).extend(
            Visit(moment, "sell", one, _CARELESS[0]) for moment, one in zip(later, alike, strict=True)
        )
    return [
        replace(day, visits=tuple(sorted((*day.visits, *visits.get(day.number, ())), key=lambda one: one.at)))
        for day in days
    ]


class Weeks:
    """Lets the days pass in a service that is open.

    Args:
        service: where it happens.
        cast: who takes part.
        now: the moment that everything lies before.
        rng: of what is left to chance.
    """

    def __init__(self, service: Service, cast: Cast, now: datetime, rng: Random) -> None:
        self._service, self._cast, self._now, self._rng = service, cast, now, rng
        self._truth: dict[str, str | None] = {}

    def pass_by(self, days: Sequence[Day]) -> None:
        """Let some days pass."""
        for day in days:
            answered = asyncio.run(asked(self._service, self._cast, day.visits, self._rng))
            with self._service.database.writing() as session:
                self._sell(session, answered)
                self._date_items(session, answered)
            if day.at.weekday() < 5 and day.number < DAYS - _LEFT_WAITING_DAYS:
                with self._service.database.writing() as session:
                    self._review(session, self._cast.reviewers[day.number % 2], day.at)

    def warm_up(self, found: Sequence[Listing]) -> None:
        """Ask the current model for nothing: what a first picture takes is no day's latency."""
        visits = [Visit(self._now, "look", listing, 0.0) for listing in found]
        asyncio.run(asked(self._service, self._cast, visits, self._rng, logged=False))

    def _sell(self, session: Session, answered: Sequence[Answered]) -> None:
        tree = self._service.models.current().taxonomy
        for one in answered:
            self._truth[one.answer.prediction_id] = truth_of(tree, one.visit.listing)
            if one.visit.kind == "sell":
                sold(self._service, session, one, self._rng)

    def _date_items(self, session: Session, answered: Sequence[Answered]) -> None:
        """What waits for a reviewer has waited since its visit."""
        for one in answered:
            item = update(ReviewItem).where(ReviewItem.prediction_id == one.answer.prediction_id)
            session.execute(item.values(created_at=one.visit.at))

    def _review(self, session: Session, reviewer: Identity, day: datetime) -> None:
        """A reviewer decides most of what came in before the day."""
        waiting = select(ReviewItem).join(PredictionRow, PredictionRow.id == ReviewItem.prediction_id)
        waiting = waiting.where(ReviewItem.state == "waiting", PredictionRow.at < day)
        items = [item for item in session.scalars(waiting) if self._rng.random() < _P_REVIEWED]
        for start in range(0, len(items), 12):
            some = items[start : start + 12]
            for item in some:
                item.claimed_by, item.claimed_until = reviewer.user_id, self._now + timedelta(hours=1)
            session.flush()
            at = working_hours(self._rng, day, self._now)
            verdicts = [self._verdict(session, item.prediction_id) for item in some]
            done = decide_review_items(DecideItemsIn(verdicts=verdicts), session, self._service, reviewer)
            labels = [one.label.id for one in done.items if one.label is not None]
            session.execute(update(FeedbackRow).where(FeedbackRow.id.in_(labels)).values(at=at))
            session.execute(update(ReviewDecision).where(ReviewDecision.id == done.decision_id).values(at=at))

    def _verdict(self, session: Session, prediction_id: str) -> Verdict:
        prediction, truth = session.get(PredictionRow, prediction_id), self._truth.get(prediction_id)
        assert prediction is not None
        suggested = suggestions_of(prediction)
        if truth is None or self._rng.random() < _P_SLIP:
            return Verdict(prediction_ids=[prediction_id], action="reject", note="Two products in one listing.")
        if suggested and suggested[0].node_id == truth:
            return Verdict(prediction_ids=[prediction_id], action="accept")
        return Verdict(prediction_ids=[prediction_id], action="correct", node_id=truth)
