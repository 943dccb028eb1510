"""Listings: a seller's own to look through, change and delete; reviewers and administrators see everybody's."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Final

from fastapi import APIRouter, Form, Query, Request, Response
from pydantic import ValidationError
from sqlalchemy import select
from sqlalchemy.orm import Session
from starlette.concurrency import run_in_threadpool

from shelver.errors import ImageError
from shelver.service.accounts.identity import Identity, allowed, known_identity
from shelver.service.answers.payloads import PredictIn
from shelver.service.answers.predict import answer_one
from shelver.service.db import SessionDep
from shelver.service.pages.forms import wrong_fields
from shelver.service.pages.listing_form import ListingForm, SentForm, body_of, body_with, form_of, read_form
from shelver.service.pages.locales import mark, words_of
from shelver.service.pages.picker import asked_of, picker_of
from shelver.service.pages.render import page, redirect
from shelver.service.pages.sell_problems import NOTHING
from shelver.service.problems import ServiceError
from shelver.service.products.payloads import MAX_PICTURES, ProductBody, ProductFilters, ProductRead, Standing
from shelver.service.products.pictures import SEES_ALL
from shelver.service.products.routes import (
    ProductId,
    add_stored,
    delete_product,
    list_products,
    read_product,
    replace_product,
)
from shelver.service.products.standing import Proposal, stand
from shelver.service.records.feedback import judge
from shelver.service.records.payloads import FeedbackIn
from shelver.service.state import Service, ServiceDep
from shelver.service.tables.accounts import User
from shelver.service.tables.records import PredictionRow

Seer = Annotated[Identity, allowed("seller", "reviewer", "admin")]
Seller = Annotated[Identity, allowed("seller", "admin")]
Version = Annotated[int, Form(ge=0, lt=2**31)]
"""Of the listing as it was seen; 0 is no version of any."""
Text = Annotated[str, Query(max_length=500)]
_A_PAGE: Final = 24
_STANDINGS: Final[Mapping[Standing, str]] = {
    "listed": mark("With a category"),
    "without_category": mark("Without a category"),
    "proposed": mark("Proposed, not confirmed"),
    "reviewed": mark("Judged by a reviewer"),
}
router = APIRouter()


@router.get("/listings", include_in_schema=False)
def show_listings(
    request: Request,
    service: ServiceDep,
    session: SessionDep,
    identity: Seer,
    q: Text = "",
    standing: Text = "",
    node_id: Text = "",
    owner_id: Text = "",
    after: Text = "",
) -> Response:
    """The listings that somebody may see, newest first."""
    chosen: Standing | None = next((one for one in _STANDINGS if one == standing), None)
    filters = ProductFilters.model_construct(
        q=q.strip()[:255] or None,
        seller_product_id=None,
        standing=chosen,
        node_id=node_id[:255] or None,
        owner_id=owner_id[:255] or None,
        limit=_A_PAGE,
        after=after[:200] or None,
    )
    found = list_products(filters, session, service, identity)
    tree = service.models.current().taxonomy
    node = tree.find(node_id) if node_id else None
    asked = {"q": q.strip(), "standing": chosen or "", "node_id": node_id, "owner_id": owner_id}
    return page(
        request,
        "listings.html",
        items=found.items,
        stands=stand(session, service, found.items),
        owners=_names(session, {item.owner_id for item in found.items}) if identity.role in SEES_ALL else {},
        standings=_STANDINGS,
        asked=asked,
        query={name: value for name, value in asked.items() if value},
        node_path=None if node is None else tree.paths[node],
        next=found.next,
        first=not after,
    )


@router.get("/listings/{product_id}", include_in_schema=False)
def show_listing(
    request: Request,
    product_id: ProductId,
    service: ServiceDep,
    session: SessionDep,
    identity: Seer,
    edit: Annotated[bool, Query()] = False,
) -> Response:
    """A listing: its form for its seller, for others as it is; an administrator may ask for the form, too."""
    stored = read_product(product_id, Response(), session, service, identity)
    if stored.owner_id != identity.user_id and not (edit and identity.role == "admin"):
        return page(
            request,
            "listing_seen.html",
            product=stored,
            stands=stand(session, service, [stored])[stored.id],
            owner=_names(session, {stored.owner_id}).get(stored.owner_id, ""),
        )
    return _shown(request, session, service, stored, form_of(stored))


@router.post("/listings/{product_id}", include_in_schema=False)
def change_listing(
    request: Request,
    product_id: ProductId,
    service: ServiceDep,
    session: SessionDep,
    identity: Seller,
    sent: SentForm,
) -> Response:
    """Save what the form says, unless somebody has changed the listing since: then both are shown."""
    with service.database.reading() as before:  # pictures are looked at before anybody has to wait for this
        stored = read_product(product_id, Response(), before, service, identity)
        proposal = stand(before, service, [stored])[stored.id].proposal
    form = read_form(sent)
    # Enter in the field of the search means to search, where no script has taken care of it.
    searched = sent.get("enter") and sent.get("node_id_q")
    if asked_of(sent) or searched:
        return _shown(request, session, service, stored, form, sent=sent)
    _ = words_of(request)
    if form.is_empty:
        nothing = {"title": _(NOTHING)}
        return _shown(request, session, service, stored, form, wrong=nothing, status=422)
    prediction_id = stored.prediction_id
    if prediction_id is None and proposal is not None and form.node_id and stored.owner_id == identity.user_id:
        prediction_id = proposal.prediction_id
    wrong: dict[str, str] = {}
    problem: str | None = None
    try:
        body = body_of(form, stored, prediction_id)
        _save(session, service, identity, stored, body, form.version)
    except ValidationError as error:
        wrong = wrong_fields(error)
    except ImageError as error:
        wrong = {"files": str(error)}
    except ServiceError as error:
        session.rollback()
        if error.code == "changed_meanwhile":
            return _both(request, session, service, identity, stored.id, form)
        if error.code == "id_taken":
            wrong = {"seller_product_id": _("Another of your listings has this id. Look for it in your listings.")}
        elif error.code == "unknown_category":
            wrong = {
                "node_id": _("The category tree has changed, and no longer has this category. Choose another.")
            }
        else:
            problem = str(error)
    else:
        return redirect(f"/listings/{product_id}", done="listing-saved")
    return _shown(request, session, service, stored, form, wrong=wrong, problem=problem, status=422)


@router.post("/listings/{product_id}/category", include_in_schema=False)
def take_category(
    product_id: ProductId,
    service: ServiceDep,
    session: SessionDep,
    identity: Seller,
    node_id: Annotated[str, Form(max_length=255)] = "",
    version: Version = 0,
) -> Response:
    """Take a category that is proposed, or that a reviewer named, with one press."""
    stored = read_product(product_id, Response(), session, service, identity)
    if not node_id:
        raise ServiceError("invalid_input", "no category", allowed="the id of one", remedy="Choose one.")
    prediction_id = stored.prediction_id
    if prediction_id is None and stored.owner_id == identity.user_id:
        proposal = stand(session, service, [stored])[stored.id].proposal
        prediction_id = None if proposal is None else proposal.prediction_id
    body = body_with(stored, node_id=node_id, prediction_id=prediction_id)
    _save(session, service, identity, stored, body, version)
    return redirect(f"/listings/{product_id}", done="listing-saved")


@router.post("/listings/{product_id}/propose", include_in_schema=False)
async def propose_for_listing(
    request: Request, product_id: ProductId, service: ServiceDep, identity: Seller
) -> Response:
    """Ask where a listing belongs; the answer stands in the log, and at the listing."""

    def read() -> tuple[ProductRead, bytes | None]:
        with service.database.reading() as session:
            stored = read_product(product_id, Response(), session, service, identity)
        return stored, service.pictures.get(stored.pictures[0]) if stored.pictures else None

    stored, picture = await run_in_threadpool(read)
    asked = PredictIn(
        title=stored.title,
        description=(stored.description or "")[:20_000] or None,
        brand=stored.brand,
        product_id=stored.id,
    )
    answer = await answer_one(request, identity, asked, picture)
    await run_in_threadpool(service.log.settle, answer.prediction_id)
    return redirect(f"/listings/{product_id}", done="listing-proposed")


@router.get("/listings/{product_id}/delete", include_in_schema=False)
def ask_before_deleting(
    request: Request, product_id: ProductId, service: ServiceDep, session: SessionDep, identity: Seller
) -> Response:
    """Whether the listing is really to be deleted."""
    stored = read_product(product_id, Response(), session, service, identity)
    return page(request, "listing_delete.html", product=stored)


@router.post("/listings/{product_id}/delete", include_in_schema=False)
def delete_listing(
    product_id: ProductId, service: ServiceDep, session: SessionDep, identity: Seller, version: Version = 0
) -> Response:
    """Delete the listing as it was seen."""
    delete_product(product_id, session, service, identity, f'"{version}"')
    return redirect("/listings", done="listing-deleted")


def _save(
    session: Session,
    service: Service,
    identity: Identity,
    stored: ProductRead,
    body: ProductBody,
    version: int,
) -> None:
    """Change the listing; a category that its seller chose instead of the proposed one is a judgement of that."""
    replace_product(identity, stored.id, body, Response(), session, service, f'"{version}"')
    if body.node_id is None or body.node_id == stored.node_id or body.prediction_id is None:
        return
    prediction = session.get(PredictionRow, body.prediction_id)
    if prediction is not None and prediction.user_id == identity.user_id:
        judge(session, service, identity, prediction, FeedbackIn(action="correct", node_id=body.node_id))


def _both(
    request: Request, session: Session, service: Service, identity: Identity, product_id: str, form: ListingForm
) -> Response:
    """The form with what was typed, beside what somebody else has saved meanwhile.

    New pictures are added: that takes nothing away from anybody, and a browser would not send them again.
    """
    _ = words_of(request)
    problem = None
    if form.files:
        try:
            add_stored(session, service, identity, product_id, form.files)
        except (ServiceError, ImageError) as error:
            session.rollback()
            problem = str(error)
    stored = read_product(product_id, Response(), session, service, identity)
    now = form_of(stored)
    places = {picture.hash: picture for picture in form.pictures}
    merged = ListingForm(
        seller_product_id=form.seller_product_id,
        title=form.title,
        description=form.description,
        brand=form.brand,
        attributes=form.attributes,
        node_id=form.node_id,
        version=stored.version,
        pictures=tuple(places.get(picture.hash, picture) for picture in now.pictures),
    )
    return _shown(
        request,
        session,
        service,
        stored,
        merged,
        meanwhile=stored,
        added=bool(form.files) and problem is None,
        lost=problem is not None,
        problem=problem,
        status=412,
    )


def _shown(
    request: Request,
    session: Session,
    service: Service,
    stored: ProductRead,
    form: ListingForm,
    *,
    sent: Mapping[str, Any] | None = None,
    status: int = 200,
    wrong: Mapping[str, str] | None = None,
    problem: str | None = None,
    meanwhile: ProductRead | None = None,
    added: bool = False,
    lost: bool | None = None,
) -> Response:
    loaded = service.models.current()
    stands = stand(session, service, [stored])[stored.id]
    learned = loaded.classifier.prob2pred.attributes
    return page(
        request,
        "listing.html",
        status=status,
        product=stored,
        form=form,
        stands=stands,
        offered=_offered(stands.proposal, stored),
        picker=picker_of(service, sent or {}, chosen=form.node_id or None),
        names=() if learned is None else learned.names,
        own=stored.owner_id == known_identity(request).user_id,
        wrong=wrong or {},
        problem=problem,
        meanwhile=meanwhile,
        added=added,
        lost=bool(form.files) if lost is None else lost,  # a browser sends a file once
        most_pictures=MAX_PICTURES,
    )


def _offered(proposal: Proposal | None, stored: ProductRead) -> Proposal | None:
    """A proposal that is not chosen already."""
    return None if proposal is None or proposal.node_id == stored.node_id else proposal


def _names(session: Session, user_ids: set[str]) -> dict[str, str]:
    rows = session.execute(select(User.id, User.name).where(User.id.in_(user_ids)))
    return {row.id: row.name for row in rows}
