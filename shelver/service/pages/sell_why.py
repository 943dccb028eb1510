"""Why a category is suggested: the words and the region that carried it, and look-alikes that are sold already."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from fastapi import Request

from shelver.errors import ShelverError
from shelver.service.accounts.identity import Identity
from shelver.service.answers.explain import explain_one
from shelver.service.answers.payloads import ExplainIn, ExplainOut, WordOut
from shelver.service.lookalikes.payloads import SimilarIn, SimilarProduct
from shelver.service.lookalikes.routes import find_similar
from shelver.service.pages.sell_form import SellForm
from shelver.service.state import Service

N_SIMILAR: Final = 3
LEAST_SIMILAR: Final = 0.5
"""What looks less alike is no example for anything."""
LEAST_EXPLAINED: Final = 0.05
"""Why the model believes in a category that it does not believe in, nobody wants to know."""


@dataclass(frozen=True, slots=True)
class Piece:
    """A piece of a text, and whether it carried the answer."""

    text: str
    carries: bool


@dataclass(frozen=True, slots=True)
class Why:
    """The reasons of a suggestion; what is not known is empty.

    Attributes:
        title: in pieces; empty where none of its words carried the answer.
        others: words that did, and stand only in the description or brand.
        box: left, top, width and height of the picture's region that did, in per cent of the picture.
        explained: what an explanation said in all.
        similar: products of the store that look alike and have the same category.
    """

    title: tuple[Piece, ...] = ()
    others: tuple[str, ...] = ()
    box: tuple[float, float, float, float] | None = None
    explained: ExplainOut | None = None
    similar: tuple[SimilarProduct, ...] = ()


async def why_of(
    request: Request, service: Service, identity: Identity, form: SellForm, picture: bytes | None
) -> Why:
    """The reasons for what was suggested for a form; empty where they cannot be found now."""
    similar = await _similar(request, service, identity, form, picture)
    body = ExplainIn(
        title=form.title or None,
        description=form.description or None,
        brand=form.brand or None,
        node_id=form.node_id,
    )
    try:
        found = await explain_one(request, identity, body, picture)
    except ShelverError:
        return Why(similar=similar)
    if found.probability < LEAST_EXPLAINED:
        return Why(similar=similar)
    box = None
    if found.picture is not None:
        left, top, right, bottom = (100 * share for share in found.picture.box)
        box = left, top, right - left, bottom - top
    in_title = {word.word.casefold() for word in found.words if word.field == "title"}
    others = {word.word.casefold(): word.word for word in found.words if word.word.casefold() not in in_title}
    return Why(
        title=pieces_of(form.title, [word for word in found.words if word.field == "title"]),
        others=tuple(others.values()),
        box=box,
        explained=found if found.words or found.picture else None,
        similar=similar,
    )


def pieces_of(text: str, words: Sequence[WordOut]) -> tuple[Piece, ...]:
    """A text in pieces, those that carried the answer apart; none where no word did."""
    pieces, at = [], 0
    for word in sorted(words, key=lambda one: one.start):
        if word.start < at or word.end > len(text):
            continue
        pieces += [Piece(text[at : word.start], False), Piece(text[word.start : word.end], True)]
        at = word.end
    return tuple(piece for piece in (*pieces, Piece(text[at:], False)) if piece.text) if pieces else ()


async def _similar(
    request: Request, service: Service, identity: Identity, form: SellForm, picture: bytes | None
) -> tuple[SimilarProduct, ...]:
    if form.node_id is None:
        return ()
    body = SimilarIn(
        title=form.title or None,
        description=form.description or None,
        brand=form.brand or None,
        image_base64=None if picture is None else base64.b64encode(picture).decode(),
        node_id=form.node_id,
        limit=2 * N_SIMILAR,
    )
    try:
        found = await find_similar(request, identity, body, service)
    except ShelverError:
        return ()
    alike = [one for one in found.items if one.title and one.similarity >= LEAST_SIMILAR]
    return tuple(alike[:N_SIMILAR])
