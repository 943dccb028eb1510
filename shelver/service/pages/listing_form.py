"""What the form of a listing says, as the body that the API takes for it."""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Final

from fastapi import Depends, Request
from starlette.datastructures import FormData, UploadFile

from shelver.service.products.payloads import MAX_PICTURES, PictureIn, ProductBody, ProductRead

MAX_FIELDS: Final = 20_000
"""A listing may have thousands of short attributes."""
_SPARE_ROWS: Final = 2
_TEXTS: Final = ("seller_product_id", "title", "description", "brand")


@dataclass(frozen=True, slots=True)
class Picture:
    """A picture that the listing has: its place among them as it was typed, and whether it is to go."""

    hash: str
    place: str
    removed: bool


@dataclass(frozen=True, slots=True)
class ListingForm:
    """The form as it was filled in.

    Attributes:
        seller_product_id, title, description, brand: as typed.
        attributes: pairs of name and value; empty rows to fill in come last.
        node_id: of the chosen category; empty for none.
        version: of the listing that the form was made from.
        pictures: those that the listing has.
        files: new ones.
    """

    seller_product_id: str
    title: str
    description: str
    brand: str
    attributes: tuple[tuple[str, str], ...]
    node_id: str
    version: int
    pictures: tuple[Picture, ...]
    files: tuple[bytes, ...] = ()

    @property
    def is_empty(self) -> bool:
        """Whether nobody could tell what is listed: no text, and no picture that stays."""
        kept = any(not picture.removed for picture in self.pictures)
        return not (self.title or self.description or self.brand or kept or self.files)


async def sent_form(request: Request) -> AsyncIterator[FormData]:
    """The form of a request, as long as it is answered; its files are read from the disk."""
    async with request.form(max_files=MAX_PICTURES + 1, max_fields=MAX_FIELDS) as form:
        yield form


SentForm = Annotated[FormData, Depends(sent_form)]


def form_of(product: ProductRead) -> ListingForm:
    """The form of a listing as it is stored."""
    pairs = [(name, value) for name, values in product.attributes.items() for value in values]
    return ListingForm(
        seller_product_id=product.seller_product_id or "",
        title=product.title or "",
        description=product.description or "",
        brand=product.brand or "",
        attributes=_with_spare(pairs),
        node_id=product.node_id or "",
        version=product.version,
        pictures=tuple(Picture(hash_, str(i + 1), False) for i, hash_ in enumerate(product.pictures)),
    )


def read_form(sent: FormData) -> ListingForm:
    """The form as it was sent."""
    texts = {name: _text(sent, name) for name in _TEXTS}
    names, values = (_texts(sent, f"attribute_{part}") for part in ("name", "value"))
    gone = set(_texts(sent, "remove"))
    hashes, places = _texts(sent, "picture"), _texts(sent, "place")
    version = _text(sent, "version")
    return ListingForm(
        **texts,
        attributes=_with_spare([pair for pair in zip(names, values, strict=False) if any(pair)]),
        node_id=_text(sent, "node_id"),
        version=int(version) if version.isdecimal() and len(version) < 10 else 0,
        pictures=tuple(Picture(hash_, place, hash_ in gone) for hash_, place in zip(hashes, places, strict=False)),
        files=tuple(
            file.file.read() for file in sent.getlist("files") if isinstance(file, UploadFile) and file.size
        ),
    )


def body_of(form: ListingForm, stored: ProductRead, prediction_id: str | None) -> ProductBody:
    """What the form makes of the stored listing.

    Raises:
        ValidationError: a field cannot be used.
    """
    attributes: dict[str, list[str]] = {}
    for name, value in form.attributes:
        if name and value:
            attributes.setdefault(name, []).append(value)
    return ProductBody.model_validate(
        {
            **{name: getattr(form, name) or None for name in _TEXTS},
            "attributes": attributes,
            "node_id": form.node_id or None,
            "prediction_id": prediction_id,
            "pictures": _pictures_of(form, stored.pictures),
        }
    )


def body_with(stored: ProductRead, **changes: Any) -> ProductBody:
    """The stored listing with some of it changed."""
    said = {name: getattr(stored, name) for name in (*_TEXTS, "attributes", "node_id", "prediction_id")}
    return ProductBody.model_validate(said | changes)


def _pictures_of(form: ListingForm, stored: Sequence[str]) -> list[PictureIn] | None:
    """None where nothing changes."""
    placed = sorted((picture for picture in form.pictures if not picture.removed), key=_place)
    kept = [picture.hash for picture in placed]
    if kept == list(stored) and not form.files:
        return None
    new = [PictureIn(base64=base64.b64encode(data).decode()) for data in form.files]
    return [*(PictureIn(hash=hash_) for hash_ in kept), *new]


def _place(picture: Picture) -> float:
    try:
        return float(picture.place.replace(",", ".")[:20])
    except ValueError:
        return float("inf")


def _with_spare(pairs: Sequence[tuple[str, str]]) -> tuple[tuple[str, str], ...]:
    return (*pairs, *[("", "")] * _SPARE_ROWS)


def _text(sent: FormData, name: str) -> str:
    value = sent.get(name)
    return _clean(value) if isinstance(value, str) else ""


def _texts(sent: FormData, name: str) -> list[str]:
    return [_clean(value) for value in sent.getlist(name) if isinstance(value, str)]


def _clean(value: str) -> str:
    """As a browser's person means it: without its line ends, nor space around it."""
    return value.replace("\r\n", "\n").strip()
