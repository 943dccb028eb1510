"""/sell: a title and pictures become a listing, with its category and attributes suggested as one types.

All is one form. Without a script it is sent by its buttons and comes back with what it says; the script sends the
same form to /sell/suggest as one types and puts the answer in its place, so that both ways show the same.
"""

from __future__ import annotations

import base64
import secrets
from dataclasses import dataclass, replace
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response
from pydantic import ValidationError
from sqlalchemy import select
from sqlalchemy.orm import Session
from starlette.concurrency import run_in_threadpool

from shelver.errors import ShelverError
from shelver.images import MAX_BYTES, sniff
from shelver.service.accounts.identity import Identity, allowed
from shelver.service.answers.payloads import PredictIn, PredictOut
from shelver.service.answers.predict import answer_one
from shelver.service.pages.locales import Words, words_of
from shelver.service.pages.picker import asked_of, picker_of
from shelver.service.pages.render import page, redirect
from shelver.service.pages.sell_form import MAX_FIELDS, File, Offer, SellForm, fields_of, offer_of, read_form
from shelver.service.pages.sell_problems import message_of, message_of_picture
from shelver.service.pages.sell_saving import UnfitFormError, known_answer, save, with_drafts
from shelver.service.pages.sell_why import Why, why_of
from shelver.service.problems import ServiceError, not_found
from shelver.service.products.drafts import draft_of
from shelver.service.products.payloads import MAX_PICTURES
from shelver.service.products.pictures import HEADERS, MEDIA_TYPES
from shelver.service.products.routes import seen_by
from shelver.service.products.samples import example_of
from shelver.service.records.entries import Entry
from shelver.service.state import Service, ServiceDep
from shelver.service.tables.records import ProductRow

Seller = Annotated[Identity, allowed("seller", "admin")]
router = APIRouter()


@dataclass(frozen=True, slots=True)
class _Listed:
    """A product that was just saved."""

    id: str
    title: str | None


@router.get("/sell", include_in_schema=False)
def show_sell(
    request: Request,
    service: ServiceDep,
    identity: Seller,
    listed: Annotated[str, Query(max_length=32)] = "",
) -> Response:
    """An empty form; after one that was saved, with what it listed."""
    saved = None
    if listed:
        with service.database.reading() as session:
            saved = _listed(session, identity, listed)
    return _page(request, service, SellForm(key=_new_key()), listed=saved)


@router.post("/sell", include_in_schema=False)
async def send_sell(request: Request, service: ServiceDep, identity: Seller) -> Response:
    """The form, sent by one of its buttons: save it, or show it again with what was asked for."""
    form, fields = await _read(request, service, identity)
    _ = words_of(request)
    if fields.get("do") == "example":
        form, wrong = await run_in_threadpool(_example, service, identity)
    elif fields.get("do") == "save" and not asked_of(fields):
        try:
            saved = await run_in_threadpool(save, service, identity, form)
            return redirect("/sell", listed=saved.id)
        except (ShelverError, ValidationError) as error:
            wrong = [_(str(error.args[0])) if isinstance(error, UnfitFormError) else _told(_, error)]
            if isinstance(error, ServiceError) and error.code == "key_reused":
                form = replace(form, key=_new_key())
            if isinstance(error, ServiceError) and error.code == "unknown_category":
                form = replace(form, node_id=None)
            status = error.http_status if isinstance(error, ServiceError) else 422
            return await _again(request, service, identity, form, fields, wrong, status=status)
    else:
        wrong = []
    return await _again(request, service, identity, form, fields, wrong)


@router.post("/sell/suggest", include_in_schema=False)
async def suggest(request: Request, service: ServiceDep, identity: Seller) -> Response:
    """Categories and attributes for the form as it is typed, as a part of the page."""
    form, _fields = await _read(request, service, identity)
    _ = words_of(request)
    status, wrong, offer = 200, list[str](), Offer()
    try:
        answer = await _ask(request, service, identity, form, typing=True)
        offer = offer_of(service.models.current(), form, answer)
        wrong = _wrong_picture(_, answer)
    except ServiceError as error:
        status, wrong = error.http_status, [message_of(_, error)]
    parts = ("suggestions", "attributes")
    return page(
        request, "sell_part.html", status=status, parts=parts, offer=offer, wrong=wrong, refused=status == 503
    )


@router.post("/sell/why", include_in_schema=False)
async def show_why(request: Request, service: ServiceDep, identity: Seller) -> Response:
    """Why the chosen category is suggested, as a part of the page."""
    form, _ = await _read(request, service, identity)
    picture = await run_in_threadpool(_first_picture, service, form)
    why = await why_of(request, service, identity, form, picture)
    return page(request, "sell_part.html", parts=("why",), why=why, wrong=[], refused=False)


@router.post("/sell/attributes", include_in_schema=False)
async def show_attributes(request: Request, service: ServiceDep, identity: Seller) -> Response:
    """The attributes of the chosen category, as a part of the page."""
    form, _ = await _read(request, service, identity)
    answer = await run_in_threadpool(known_answer, service, identity, form.prediction_id)
    fields = fields_of(service.models.current(), form, form.node_id, answer)
    offer = Offer(chosen=form.node_id, fields=fields)
    return page(request, "sell_part.html", parts=("attributes",), offer=offer, wrong=[], refused=False)


@router.get("/sell/draft", include_in_schema=False)
def show_draft(
    name: Annotated[str, Query(max_length=200)],
    service: ServiceDep,
    identity: Seller,
) -> Response:
    """A picture of a form that is not saved yet, for who sent it."""
    assert identity.user_id is not None
    found = draft_of(service, identity.user_id, name)
    data = None if found is None else service.pictures.get(found.hash)
    kind = None if data is None else sniff(data)
    if data is None or kind is None:
        raise not_found("picture of this name", remedy="Choose the picture again.")
    return Response(data, media_type=MEDIA_TYPES[kind], headers=HEADERS)


async def _read(request: Request, service: Service, identity: Identity) -> tuple[SellForm, dict[str, Any]]:
    assert identity.user_id is not None
    async with request.form(max_files=MAX_PICTURES + 1, max_fields=MAX_FIELDS) as sent:
        form = await read_form(service, identity.user_id, sent, _new_key())
        return form, {name: value for name, value in sent.items() if isinstance(value, str)}


async def _again(
    request: Request,
    service: Service,
    identity: Identity,
    form: SellForm,
    fields: dict[str, Any],
    wrong: list[str],
    *,
    status: int = 200,
) -> Response:
    """The form with what it says; asked anew, or with the answer that the seller saw."""
    _ = words_of(request)
    form, unusable = await run_in_threadpool(with_drafts, service, identity, form, _)
    wrong = [*wrong, *unusable]
    answer, why = None, None
    if fields.get("do") not in ("suggest", "example"):
        answer = await run_in_threadpool(known_answer, service, identity, form.prediction_id)
    try:
        if answer is None and not form.is_empty:
            answer = await _ask(request, service, identity, form)
            wrong += _wrong_picture(_, answer)
        offer = offer_of(service.models.current(), form, answer)
        if answer is not None:
            picture = await run_in_threadpool(_first_picture, service, form)
            why = await why_of(request, service, identity, form, picture)
    except ServiceError as error:
        status, offer = error.http_status, Offer()
        wrong.append(message_of(_, error))
    status = 422 if wrong and status == 200 else status
    return _page(request, service, form, offer=offer, why=why, fields=fields, wrong=wrong, status=status)


async def _ask(
    request: Request, service: Service, identity: Identity, form: SellForm, *, typing: bool = False
) -> PredictOut | None:
    """The model's answer to a form; None where it says nothing.

    Raises:
        ServiceError: as /v1/predict.
    """
    if form.is_empty:
        return None
    body = PredictIn(title=form.title or None, description=form.description or None, brand=form.brand or None)
    picture = await run_in_threadpool(_first_picture, service, form)

    def hold(entry: Entry) -> None:
        service.held.hold(f"{identity.user_id} {form.key}", entry)

    return await answer_one(request, identity, body, picture, write=hold if typing else None)


def _first_picture(service: Service, form: SellForm) -> bytes | None:
    for draft in form.drafts:
        data = service.pictures.get(draft.hash)
        if data is not None:
            return data
    return form.preview or (form.files[0].data if form.files else None)


def _example(service: Service, identity: Identity) -> tuple[SellForm, list[str]]:
    """A form that somebody else's product fills."""
    assert identity.user_id is not None
    example = example_of(service)
    form = SellForm(
        key=_new_key(),
        title=example.title or "",
        description=example.description or "",
        brand=example.brand or "",
    )
    if example.image_base64 is not None:
        form = replace(form, files=(File("", base64.b64decode(example.image_base64)),))
    return form, []


def _listed(session: Session, identity: Identity, product_id: str) -> _Listed | None:
    row = session.scalar(select(ProductRow).where(ProductRow.id == product_id, seen_by(identity)))
    return None if row is None else _Listed(row.id, row.title)


def _told(_: Words, error: ShelverError | ValidationError) -> str:
    if isinstance(error, ValidationError):
        return "; ".join(f"{one['loc'][0] if one['loc'] else ''}: {one['msg']}" for one in error.errors()[:5])
    return message_of(_, error)


def _wrong_picture(_: Words, answer: PredictOut | None) -> list[str]:
    code = None if answer is None else answer.picture_error
    return [] if code is None else [message_of_picture(_, code)]


def _new_key() -> str:
    return secrets.token_urlsafe(16)


def _page(
    request: Request,
    service: Service,
    form: SellForm,
    *,
    offer: Offer | None = None,
    why: Why | None = None,
    fields: dict[str, Any] | None = None,
    wrong: list[str] | None = None,
    listed: _Listed | None = None,
    status: int = 200,
) -> Response:
    picker = replace(picker_of(service, fields or {}), chosen=None)  # it stands among the suggestions
    return page(
        request,
        "sell.html",
        status=status,
        form=form,
        offer=offer or Offer(),
        why=why,
        picker=picker,
        wrong=wrong or [],
        listed=listed,
        has_examples=service.settings.examples is not None,
        max_pictures=MAX_PICTURES,
        max_bytes=MAX_BYTES,
        max_all_bytes=service.settings.body_max_bytes,
    )
