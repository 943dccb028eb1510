"""The log of one's own answers: what was asked when, what was said, and what one thinks of it."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Annotated, Any, Final
from urllib.parse import parse_qsl

from fastapi import APIRouter, Query, Request, Response
from pydantic import ValidationError
from sqlalchemy import or_, select
from sqlalchemy.orm import Session

from shelver.decide.predictions import Outcome
from shelver.service.accounts.identity import Identity, allowed
from shelver.service.db import SessionDep
from shelver.service.pages.listing_form import SentForm
from shelver.service.pages.locales import mark, words_of
from shelver.service.pages.picker import asked_of, picker_of
from shelver.service.pages.render import page, redirect
from shelver.service.pages.session import own_path
from shelver.service.problems import ServiceError
from shelver.service.products.pictures import SEES_ALL
from shelver.service.products.routes import seen_by
from shelver.service.records.feedback import give_feedback, key_of, read_feedback
from shelver.service.records.payloads import Action, FeedbackIn, FeedbackRead, LoggedPrediction
from shelver.service.records.predictions import ListFilters, PredictionId, list_predictions, read_prediction
from shelver.service.reviews.routes import texts_of
from shelver.service.state import Service, ServiceDep
from shelver.service.tables.accounts import User
from shelver.service.tables.records import FeedbackRow, ProductRow
from shelver.service.tables.reviews import ReviewText

Person = Annotated[Identity, allowed("seller", "reviewer", "admin")]
Text = Annotated[str, Query(max_length=200)]
_A_PAGE: Final = 30
_OUTCOMES: Final[Mapping[Outcome, str]] = {
    "decided": mark("Placed"),
    "suggested": mark("Suggested"),
    "review": mark("Left to a person"),
    "abstained": mark("Not sure enough"),
    "outside": mark("Belongs nowhere"),
    "error": mark("No answer"),
}
_SAID: Final[Mapping[Action, str]] = {
    "accept": mark("Found right"),
    "correct": mark("Corrected"),
    "reject": mark("Found wrong"),
}
_OUR_ID: Final = re.compile(r"[0-9a-f]{32}")
router = APIRouter()


@dataclass(frozen=True, slots=True)
class Asked:
    """What somebody wants to see: days in UTC, both of them included."""

    start: date | None
    end: date | None
    outcome: str
    whose: str

    def filters(self, identity: Identity) -> dict[str, str]:
        """As the API takes it."""
        said = {
            "from": None if self.start is None else _midnight(self.start),
            "to": None if self.end is None else _midnight(self.end + timedelta(days=1)),
            "outcome": self.outcome or None,
            "user_id": identity.user_id if identity.role == "admin" and self.whose != "all" else None,
        }
        return {name: value for name, value in said.items() if value is not None}

    def query(self) -> dict[str, str]:
        """As the address of the page says it."""
        said = {"from": self.start, "to": self.end, "outcome": self.outcome, "whose": self.whose}
        return {name: str(value) for name, value in said.items() if value}


@router.get("/log", include_in_schema=False)
def show_log(
    request: Request,
    service: ServiceDep,
    session: SessionDep,
    identity: Person,
    start: Annotated[str, Query(alias="from", max_length=40)] = "",
    end: Annotated[str, Query(alias="to", max_length=40)] = "",
    outcome: Text = "",
    whose: Text = "",
    after: Text = "",
) -> Response:
    """One's own answers, newest first; administrators may look at everybody's."""
    asked = Asked(
        _day(start),
        _day(end),
        outcome if outcome in _OUTCOMES else "",
        "all" if whose == "all" and identity.role == "admin" else "",
    )
    said = asked.filters(identity)
    more = {"limit": str(_A_PAGE), **({"after": after} if after else {})}
    found = list_predictions(ListFilters.model_validate(said | more), session, identity)
    tree = service.models.current().taxonomy
    paths = {
        node_id: tree.paths[k]
        for node_id in {item.node_id for item in found.items if item.node_id is not None}
        if (k := tree.find(node_id)) is not None
    }
    return page(
        request,
        "log.html",
        items=found.items,
        paths=paths,
        listed=_listed(session, identity, found.items),
        texts=_texts(session, found.items),
        gone=_gone(found.items),
        judged=_judged(session, identity, [item.id for item in found.items]),
        outcomes=_OUTCOMES,
        said=_SAID,
        asked=asked,
        query=asked.query(),
        export=said,
        next=found.next,
        first=not after,
        names=_names(session, found.items) if asked.whose else {},
    )


@router.get("/log/{prediction_id}", include_in_schema=False)
def show_prediction(
    request: Request, prediction_id: PredictionId, service: ServiceDep, session: SessionDep, identity: Person
) -> Response:
    """One answer: all that was said, and what people thought of it."""
    return _shown(request, service, session, identity, prediction_id)


@router.post("/log/{prediction_id}", include_in_schema=False)
def judge_prediction(
    request: Request,
    prediction_id: PredictionId,
    service: ServiceDep,
    session: SessionDep,
    identity: Person,
    sent: SentForm,
) -> Response:
    """Accept, correct or reject an answer; buttons of the list say where they stand, and lead back there."""
    said = {name: value for name, value in sent.items() if isinstance(value, str)}
    if asked_of(said):
        return _shown(request, service, session, identity, prediction_id, said=said)
    _ = words_of(request)
    problem = None
    action = said.get("action", "")
    node_id = said.get("node_id") or None
    note = said.get("note", "").replace("\r\n", "\n").strip() or None
    if action == "correct" and node_id is None:
        problem = _("Choose the right category.")
    elif action not in _SAID:
        problem = _("Say whether the answer is right.")
    else:
        try:
            body = FeedbackIn.model_validate(
                {"action": action, "node_id": node_id if action == "correct" else None, "note": note}
            )
            give_feedback(prediction_id, body, session, service, identity)
        except ValidationError:
            problem = _("The note is too long, or has characters that cannot be stored.")
        except ServiceError as error:
            if error.code not in ("invalid_input", "unknown_category"):
                raise
            session.rollback()
            problem = str(error)
    if problem is not None:
        return _shown(request, service, session, identity, prediction_id, said=said, problem=problem)
    back = own_path(said.get("back", ""), f"/log/{prediction_id}")
    path, _mark, query = back.partition("?")
    asked = dict(parse_qsl(query, keep_blank_values=False))
    return redirect(path, **{**asked, "done": "judged"})


def _shown(
    request: Request,
    service: Service,
    session: Session,
    identity: Identity,
    prediction_id: str,
    *,
    said: Mapping[str, str] | None = None,
    problem: str | None = None,
) -> Response:
    whole = read_prediction(prediction_id, session, service, identity)
    history = read_feedback(prediction_id, session, service, identity)
    mine = next((one for one in reversed(history) if one.user_id == identity.user_id and one.current), None)
    tree = service.models.current().taxonomy
    named = {one.node_after for one in history if one.node_after is not None}
    paths = {name: tree.paths[k] for name in named if (k := tree.find(name)) is not None}
    said = said or {}
    return page(
        request,
        "log_entry.html",
        status=200 if problem is None else 422,
        entry=whole,
        answer=_Answer.of(whole.answer),
        listing=_listed(session, identity, [whole]).get(whole.id),
        text=_texts(session, [whole]).get(whole.id),
        gone=_gone([whole]),
        history=history,
        mine=mine,
        paths=paths,
        outcomes=_OUTCOMES,
        said=_SAID,
        action=said.get("action") or (mine.action if mine is not None else ""),
        note=said.get("note", ""),
        picker=picker_of(
            service, said, chosen=mine.node_after if mine is not None and mine.action == "correct" else None
        ),
        problem=problem,
        names=_names(session, history) if identity.role in SEES_ALL else {},
    )


@dataclass(frozen=True, slots=True)
class _Answer:
    """What of a stored answer is shown; older ones may say less."""

    path: str | None
    error: str | None
    alternatives: list[dict[str, Any]]
    attributes: dict[str, dict[str, Any]]

    @classmethod
    def of(cls, answer: Any) -> _Answer:
        said = answer if isinstance(answer, dict) else {}
        return cls(
            said.get("path"), said.get("error"), said.get("alternatives") or [], said.get("attributes") or {}
        )


def _listed(
    session: Session, identity: Identity, items: Sequence[LoggedPrediction]
) -> dict[str, tuple[str, str | None]]:
    """The listing that each answer was about: its id and title, where somebody may see it."""
    by_id = {item.product_id: item.id for item in items if item.product_id is not None}
    asked = [item.id for item in items]
    rows = select(ProductRow.id, ProductRow.title, ProductRow.prediction_id).where(
        or_(ProductRow.prediction_id.in_(asked), ProductRow.id.in_(by_id)), seen_by(identity)
    )
    of_product = {}
    found: dict[str, tuple[str, str | None]] = {}
    for row in session.execute(rows):
        of_product[row.id] = (row.id, row.title)
        if row.prediction_id is not None:
            found[row.prediction_id] = (row.id, row.title)
    for item in items:
        if item.product_id in of_product:
            found[item.id] = of_product[item.product_id]
    return found


def _texts(session: Session, items: Sequence[LoggedPrediction]) -> dict[str, ReviewText]:
    """What was asked, where it was kept for a reviewer and says something."""
    found = texts_of(session, [item.id for item in items])
    return {id_: text for id_, text in found.items() if text.title or text.description or text.brand}


def _gone(items: Sequence[LoggedPrediction]) -> set[str]:
    """Answers that were asked for under an id as we give it to listings: it says nothing without them."""
    return {item.id for item in items if item.product_id is not None and _OUR_ID.fullmatch(item.product_id)}


def _judged(session: Session, identity: Identity, prediction_ids: Sequence[str]) -> dict[str, FeedbackRow]:
    """What somebody has said of each answer, last."""
    assert identity.user_id is not None  # no rule lets anybody else in
    keys = [key_of(prediction_id, identity.user_id) for prediction_id in prediction_ids]
    rows = session.scalars(select(FeedbackRow).where(FeedbackRow.current_of.in_(keys)))
    return {row.prediction_id: row for row in rows}


def _names(session: Session, rows: Sequence[LoggedPrediction] | Sequence[FeedbackRead]) -> dict[str | None, str]:
    ids = {row.user_id for row in rows if row.user_id is not None}
    return {row.id: row.name for row in session.execute(select(User.id, User.name).where(User.id.in_(ids)))}


def _day(text: str) -> date | None:
    """A day as a field of a form, or an address, says it; anything else is none."""
    try:
        day = date.fromisoformat(text[:10])
    except ValueError:
        return None
    return day if 1971 <= day.year <= 8999 else None


def _midnight(day: date) -> str:
    return datetime(day.year, day.month, day.day, tzinfo=UTC).isoformat()
