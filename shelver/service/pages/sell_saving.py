"""Saving what the form of /sell says, and its pictures before that."""

from __future__ import annotations

import base64
import time
from dataclasses import replace
from typing import Final

from fastapi import Response
from pydantic import ValidationError

from shelver.errors import ImageError, ShelverError
from shelver.service.accounts.identity import Identity
from shelver.service.answers.payloads import PredictOut
from shelver.service.models.taxonomy import attributes_of
from shelver.service.pages.locales import Words
from shelver.service.pages.sell_form import SellForm
from shelver.service.pages.sell_problems import (
    GONE,
    NO_CATEGORY,
    NOTHING,
    message_of,
    message_of_picture,
    too_many,
)
from shelver.service.problems import ServiceError
from shelver.service.products.drafts import Draft, keep_draft
from shelver.service.products.payloads import MAX_PICTURES, PictureIn, ProductBody, ProductRead
from shelver.service.products.routes import create_product
from shelver.service.records.feedback import judge
from shelver.service.records.payloads import FeedbackIn
from shelver.service.records.predictions import prediction_seen_by
from shelver.service.state import Service

_TRIES: Final = 4
_PAUSE_S: Final = 0.25


class UnfitFormError(ServiceError):
    """A form that cannot be saved, with the words for who sent it."""

    def __init__(self, words: str) -> None:
        super().__init__("invalid_input", words, allowed="a title or a picture, and a category", remedy="Mend it.")
        self.args = (words,)


def save(service: Service, identity: Identity, form: SellForm) -> ProductRead:
    """List the product, and tell what became of the suggestion: once for each form.

    Raises:
        ServiceError: as POST /v1/products.
        ImageError: a picture cannot be used.
        ValidationError: a field cannot be stored.
    """
    if form.n_gone:
        raise UnfitFormError(GONE)
    pictures = [*_bytes_of(service, form.drafts), *(file.data for file in form.files)]
    if not form.title and not pictures:
        raise UnfitFormError(NOTHING)
    if form.node_id is None:
        raise UnfitFormError(NO_CATEGORY)
    loaded = service.models.current()
    node = loaded.taxonomy.find(form.node_id)
    applies = {one.name for one in attributes_of(loaded, node)} if node is not None else set()
    body = ProductBody(
        title=form.title or None,
        description=form.description or None,
        brand=form.brand or None,
        node_id=form.node_id,
        prediction_id=form.prediction_id,
        attributes={name: list(values) for name, values in form.values.items() if values and name in applies},
        pictures=[PictureIn(base64=base64.b64encode(data).decode()) for data in pictures],
    )
    if form.prediction_id is not None:
        service.held.settle(form.prediction_id)
    for left in reversed(range(_TRIES)):
        try:
            return _list(service, identity, body, form.key)
        except ServiceError as error:
            if error.code == "not_found" and body.prediction_id is not None:  # kept no longer, or never written
                body = body.model_copy(update={"prediction_id": None})
            elif error.code != "conflict" or not left:
                raise
            else:  # a double click: the first one's answer is there in a moment
                time.sleep(_PAUSE_S)
    raise AssertionError("not listed")


def _list(service: Service, identity: Identity, body: ProductBody, key: str) -> ProductRead:
    with service.database.writing() as session:
        made = create_product(identity, body, Response(), session, service, key)
        if isinstance(made, Response):  # this form has listed it already
            return ProductRead.model_validate_json(bytes(made.body))
        if body.prediction_id is not None:
            prediction = prediction_seen_by(session, service, identity, body.prediction_id)
            # To correct to what was decided is to accept.
            judge(session, service, identity, prediction, FeedbackIn(action="correct", node_id=body.node_id))
        return made


def _bytes_of(service: Service, drafts: tuple[Draft, ...]) -> list[bytes]:
    found = [data for draft in drafts if (data := service.pictures.get(draft.hash)) is not None]
    if len(found) < len(drafts):
        raise UnfitFormError(GONE)
    return found


def known_answer(service: Service, identity: Identity, prediction_id: str | None) -> PredictOut | None:
    """An answer that the seller got before."""
    if prediction_id is None:
        return None
    service.held.settle(prediction_id)
    try:
        with service.database.reading() as session:
            row = prediction_seen_by(session, service, identity, prediction_id)
        return PredictOut.model_validate_json(row.answer) if row.user_id == identity.user_id else None
    except (ServiceError, ValidationError):
        return None


def with_drafts(service: Service, identity: Identity, form: SellForm, _: Words) -> tuple[SellForm, list[str]]:
    """The form with its new pictures kept, and what is to be told of those that cannot be."""
    assert identity.user_id is not None
    drafts, wrong = {draft.hash: draft for draft in form.drafts}, []
    for file in form.files:
        try:
            draft = keep_draft(service, identity.user_id, file.data)
        except ImageError as error:
            wrong.append(message_of_picture(_, error.code, file.name))
        except ShelverError as error:
            wrong.append(message_of(_, error))
        else:
            drafts.setdefault(draft.hash, draft)
    kept = tuple(drafts.values())
    if len(kept) > MAX_PICTURES:
        wrong.append(too_many(_))
    return replace(form, drafts=kept[:MAX_PICTURES], files=()), wrong
