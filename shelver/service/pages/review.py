"""What waits for a reviewer, decided one by one, in a table, or a group of look-alikes in one go.

To look at the page claims nothing: that is done by its first button, and then by every decision, so that the next
items are there. All is done by plain forms; `review.js` sends the same ones without loading the page anew. What
was done is named in the address by the id of the decision, so that nobody can put words there.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Final, cast, get_args

from fastapi import APIRouter, Depends, Request, Response
from pydantic import ValidationError
from starlette.datastructures import FormData

from shelver.service.accounts.identity import Identity, allowed
from shelver.service.pages.locales import mark, words_of
from shelver.service.pages.picker import Picker, asked_of, picker_of
from shelver.service.pages.render import page, redirect
from shelver.service.pages.session import keep_choice
from shelver.service.problems import ServiceError, not_found
from shelver.service.reviews import claims
from shelver.service.reviews.cards import MAX_ALIKE, Card, alike_in, below, branches_of, cards_of, decisions_of
from shelver.service.reviews.payloads import DecidedItems, DecideItemsIn, UndoIn, Verdict
from shelver.service.reviews.routes import count_review_items, decide_review_items, undo_review_decision
from shelver.service.reviews.waiting import Reason
from shelver.service.state import Service, ServiceDep

VIEW: Final = "shelver_review"
HAND: Final[Mapping[str, int]] = {"cards": 5, "table": 15}
"""So many items a reviewer holds, by how he looks at them."""
REASONS: Final[tuple[tuple[Reason, str], ...]] = (
    ("review", mark("The policy asks for a person")),
    ("unsure", mark("The model was unsure")),
    ("abstained", mark("The model gave no answer")),
    ("outside", mark("Unlike anything the model knows")),
    ("rejected", mark("The seller rejected the answer")),
)
"""Those that may be chosen: what was drawn from accepted answers is not to be told apart."""
SURE: Final[Mapping[str, tuple[float | None, float | None, str]]] = {
    "low": (None, 0.3, mark("Under 30 %")),
    "middle": (0.3, 0.6, mark("30 to 60 %")),
    "high": (0.6, None, mark("60 % and more")),
}
"""From, below, and in words: the confidence of the first suggestion."""
_ID: Final = re.compile(r"[0-9a-f]{32}")
_LONG: Final = 255
_DONE: Final = ("did", "undone")
_COUNTED: Final = ("lost", "gone", "skipped", "back", "nothing", "stuck")

Reviewer = Annotated[Identity, allowed("reviewer", "admin")]
router = APIRouter()


async def sent_form(request: Request) -> FormData:
    """What a form sent."""
    return await request.form()


Sent = Annotated[FormData, Depends(sent_form)]


@dataclass(frozen=True, slots=True)
class Shown:
    """What of the queue somebody looks at, and how: from the address, where anything else counts as not given."""

    view: str
    reason: Reason | None
    branch: str | None
    sure: str | None

    def query(self) -> dict[str, str]:
        """As a part of an address."""
        given = {"view": self.view, "reason": self.reason, "branch": self.branch, "sure": self.sure}
        return {name: value for name, value in given.items() if value}

    def narrow(self, service: Service) -> claims.Narrow:
        """As what is claimed."""
        nodes = None if self.branch is None else below(service.models.current().taxonomy, self.branch)
        least, under, _ = SURE[self.sure] if self.sure is not None else (None, None, "")
        return claims.Narrow(nodes, self.reason, under, least)


def shown_of(request: Request) -> Shown:
    """From the address, and how he looked at it the last time."""
    asked = request.query_params
    return shown_as(asked, asked.get("view") or request.cookies.get(VIEW, ""))


def shown_as(asked: Mapping[str, Any], view: str) -> Shown:
    """From the fields of an address or a form."""
    reason, branch, sure = (str(asked.get(name) or "") for name in ("reason", "branch", "sure"))
    return Shown(
        view=view if view in HAND else "cards",
        reason=cast(Reason, reason) if reason in get_args(Reason) and reason != "audit" else None,
        branch=branch if 0 < len(branch) <= _LONG else None,
        sure=sure if sure in SURE else None,
    )


Wanted = Annotated[Shown, Depends(shown_of)]


@router.get("/review", include_in_schema=False)
def show_review(request: Request, service: ServiceDep, shown: Wanted, identity: Reviewer) -> Response:
    """What one has in hand; `first` is shown before the others, `group` with what looks like it."""
    return _shown(request, service, shown, identity, {})


@router.post("/review/claim", include_in_schema=False)
def claim_items(service: ServiceDep, shown: Wanted, identity: Reviewer, form: Sent) -> Response:
    """Begin, or go on with other filters: what does not fit these goes back."""
    if "filters" in form:
        shown = shown_as(form, shown.view)
        with service.database.writing() as session:
            claims.release(session, _id(identity), None)
    _fill(service, identity, shown)
    return _back(shown)


@router.post("/review/decide", include_in_schema=False)
def decide_items(request: Request, service: ServiceDep, shown: Wanted, identity: Reviewer, form: Sent) -> Response:
    """Decide, reject or skip what was ticked."""
    ids = [one for one in dict.fromkeys(form.getlist("prediction_id")) if isinstance(one, str)]
    ids = [one for one in ids if _ID.fullmatch(one)]
    lead, verdict = str(form.get("lead") or ""), form.get("verdict")
    # Who searches without a script may press Enter: then what he typed is looked for, and nothing decided.
    if asked_of(form, name=f"node_{lead}") or (verdict == "confirm" and str(form.get(f"node_{lead}_q") or "")):
        return _shown(request, service, shown, identity, form)
    said: dict[str, str] = {}
    if not ids:
        said["nothing"] = "1"
    elif verdict == "skip":
        with service.database.writing() as session:
            said["skipped"] = str(claims.release(session, _id(identity), ids, skip=True))
    else:
        verdicts = _verdicts(form, ids, lead, rejected=verdict == "reject")
        if verdicts is None:
            return _back(shown, first=ids[0], nothing="2")
        with service.database.writing() as session:
            done = decide_review_items(DecideItemsIn(verdicts=verdicts), session, service, identity)
        said = _said(done)
    _fill(service, identity, shown)
    return _back(shown, **said)


@router.post("/review/group", include_in_schema=False)
def claim_group(service: ServiceDep, shown: Wanted, identity: Reviewer, form: Sent) -> Response:
    """Take what looks like an item into one's hand, to decide it in one go."""
    lead = str(form.get("lead") or "")
    with service.database.reading() as session:
        item = next((one for one in claims.hand(session, _id(identity)) if one.prediction_id == lead), None)
    if item is None:
        return _back(shown, lost="1")
    claims.claim_alike(service, _id(identity), item, MAX_ALIKE - 1)
    return _back(shown, group=lead)


@router.post("/review/undo", include_in_schema=False)
def undo(service: ServiceDep, shown: Wanted, identity: Reviewer, form: Sent) -> Response:
    """Take a decision back; what it was about is in hand again."""
    wanted = str(form.get("decision_id") or "")
    if not _ID.fullmatch(wanted):
        raise not_found("decision that can be undone")
    try:
        with service.database.writing() as session:
            undone = undo_review_decision(UndoIn(decision_id=wanted), session, service, identity)
    except ServiceError as error:
        if error.code not in ("conflict", "not_found"):
            raise
        return _back(shown, stuck="1")
    return _back(shown, undone=wanted, first=undone.prediction_ids[0] if undone.prediction_ids else "")


@router.post("/review/release", include_in_schema=False)
def give_back(service: ServiceDep, shown: Wanted, identity: Reviewer) -> Response:
    """Stop: all that one has in hand goes back to the queue."""
    with service.database.writing() as session:
        n = claims.release(session, _id(identity), None)
    return _back(shown, back=str(n))


def _shown(
    request: Request, service: Service, shown: Shown, identity: Identity, form: Mapping[str, Any]
) -> Response:
    """The page, with the picker as a form left it."""
    asked, _ = request.query_params, words_of(request)
    with service.database.reading() as session:
        items = claims.hand(session, _id(identity))
        first = str(form.get("lead") or "") or asked.get("first") or asked.get("group") or ""
        items.sort(key=lambda item: item.prediction_id != first)
        group: list[str] = []
        if items and asked.get("group") == items[0].prediction_id:
            group = alike_in(session, service, _id(identity), items[0])
            items = [item for item in items if item.prediction_id in {first, *group}]
        else:
            items = items[: 2 * HAND[shown.view]]
        cards = cards_of(session, service, _id(identity), items, with_alike=shown.view == "cards" and not group)
        done = [decisions_of(session, service, _id(identity), decision_id=asked.get(name)) for name in _DONE]
        context: dict[str, Any] = {
            "counts": count_review_items(session, identity),
            "latest": decisions_of(session, service, _id(identity)),
            "branches": branches_of(service.models.current().taxonomy),
        }
    answer = page(
        request,
        "review.html",
        cards=cards,
        mode="group" if len(cards) > 1 and group else shown.view,
        pickers={card.prediction_id: _picker(service, form, card) for card in cards},
        chosen={card.prediction_id: form.get(f"node_{card.prediction_id}") for card in cards},
        first=first if cards and cards[0].prediction_id == first else "",
        shown=shown,
        most=HAND[shown.view],
        reasons=[(name, _(words)) for name, words in REASONS],
        sure=[(name, _(words)) for name, (*_of, words) in SURE.items()],
        did=next(iter(done[0]), None) if asked.get("did") else None,
        undone=next(iter(done[1]), None) if asked.get("undone") else None,
        told={name: int(n) if (n := asked.get(name, "")[:4]).isdecimal() else 0 for name in _COUNTED},
        **context,
    )
    if asked.get("view") == shown.view and request.cookies.get(VIEW) != shown.view:
        keep_choice(request, answer, VIEW, shown.view)
    return answer


def _picker(service: Service, form: Mapping[str, Any], card: Card) -> Picker:
    """The picker of a card; what its other radio buttons have chosen is not its choice."""
    name = f"node_{card.prediction_id}"
    own = {one.node_id for one in (*card.suggestions, *card.siblings)}
    left = {key: value for key, value in form.items() if key != name or value not in own}
    return picker_of(service, left, name=name)


def _verdicts(form: FormData, ids: list[str], lead: str, *, rejected: bool) -> list[Verdict] | None:
    """What was ticked with what was chosen for it; None where nothing was chosen.

    A group has its lead's choice, the rows of a table each their own, where none is a rejection.
    """
    try:
        if rejected:
            return [Verdict(prediction_ids=ids, action="reject")]
        if lead:
            node_id = str(form.get(f"node_{lead}") or "")
            return [Verdict(prediction_ids=ids, action="correct", node_id=node_id)] if node_id else None
        chosen = {one: str(form.get(f"node_{one}") or "") for one in ids}
        return [
            Verdict(prediction_ids=[one], action="correct", node_id=node_id)
            if node_id
            else Verdict(prediction_ids=[one], action="reject")
            for one, node_id in chosen.items()
        ]
    except ValidationError as error:
        raise ServiceError(
            "invalid_input",
            "a form that the page does not send",
            allowed="the categories that the page shows",
            remedy="Load the page again, and choose there.",
        ) from error


def _said(done: DecidedItems) -> dict[str, str]:
    """What is to be told of a decision, as a part of an address."""
    problems = [item.problem.code for item in done.items if item.problem is not None]
    n_lost = sum(code in ("conflict", "not_found") for code in problems)
    said = {} if done.decision_id is None else {"did": done.decision_id}
    if n_lost:
        said["lost"] = str(n_lost)
    if len(problems) > n_lost:
        said["gone"] = str(len(problems) - n_lost)
    return said


def _fill(service: Service, identity: Identity, shown: Shown) -> None:
    """Claim as many as are missing in one's hand."""
    with service.database.reading() as session:
        n = HAND[shown.view] - len(claims.hand(session, _id(identity)))
    if n > 0:
        claims.claim(service, _id(identity), n, narrow=shown.narrow(service))


def _back(shown: Shown, **more: str) -> Response:
    return redirect("/review", **shown.query(), **{name: value for name, value in more.items() if value})


def _id(identity: Identity) -> str:
    assert identity.user_id is not None  # no rule lets anybody else review
    return identity.user_id
