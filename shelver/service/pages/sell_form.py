"""What the form of /sell says, and what is offered for it: categories, and the attributes of the chosen one.

The form tells what we had filled in, beside what the seller says: what he has changed stays as it is when another
answer comes, and the rest follows the answer.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from starlette.datastructures import FormData, UploadFile

from shelver.service.answers.payloads import PredictOut
from shelver.service.models.champion import Loaded
from shelver.service.models.taxonomy import attributes_of
from shelver.service.pages.picker import Place, place_of
from shelver.service.products.drafts import Draft, draft_of
from shelver.service.products.payloads import MAX_PICTURES
from shelver.service.state import Service

MAX_TITLE: Final = 1000
MAX_DESCRIPTION: Final = 50_000
MAX_BRAND: Final = 255
MAX_NODE_ID: Final = 255
MAX_FIELDS: Final = 3000
LEAST: Final = 0.5
"""A value that the model thinks less of is named beside the field, and not filled in."""
_LEAST_SHOWN: Final = 0.01
_ALWAYS_SHOWN: Final = 3
_ID: Final = re.compile(r"[0-9a-f]{32}")
_KEY: Final = re.compile(r"[\w-]{16,64}", re.ASCII)
Values = Mapping[str, tuple[str, ...]]


@dataclass(frozen=True, slots=True)
class File:
    """A picture that came with the form: what it is called where it comes from, and its bytes."""

    name: str
    data: bytes


@dataclass(frozen=True, slots=True)
class SellForm:
    """The form as it was sent.

    Attributes:
        key: of this form: it lists one product, however often it is sent.
        title, description, brand: what the seller typed.
        node_id: the category that is chosen.
        preselected: the one that we had chosen for him.
        prediction_id: of the answer that he saw.
        values: of the attributes, by name; `said` what we had filled in.
        drafts: pictures that came before; `n_gone` are no longer kept.
        files: pictures that came now.
        preview: the first picture made small, which is asked and never saved.
    """

    key: str
    title: str = ""
    description: str = ""
    brand: str = ""
    node_id: str | None = None
    preselected: str | None = None
    prediction_id: str | None = None
    values: Values = field(default_factory=dict)
    said: Values = field(default_factory=dict)
    drafts: tuple[Draft, ...] = ()
    n_gone: int = 0
    files: tuple[File, ...] = ()
    preview: bytes | None = None

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing that could be asked."""
        return not (self.title or self.description or self.brand or self.drafts or self.files or self.preview)


@dataclass(frozen=True, slots=True)
class Choice:
    """A category to choose, with the model's confidence; None where the seller found it himself."""

    place: Place
    confidence: float | None


@dataclass(frozen=True, slots=True)
class AttributeField:
    """An attribute of the chosen category.

    Attributes:
        name: of the attribute.
        multi: whether it takes several values.
        options: the values that the model knows.
        values: those that are chosen.
        said: those that we filled in.
        guess: a value that we did not dare to fill in.
        confidence: of what was filled in.
    """

    name: str
    multi: bool
    options: tuple[str, ...]
    values: tuple[str, ...]
    said: tuple[str, ...]
    guess: tuple[str, ...]
    confidence: float | None


@dataclass(frozen=True, slots=True)
class Offer:
    """What is offered for a form.

    Attributes:
        answer: the model's; None where nothing was asked.
        choices: the categories, the best first, and the seller's own.
        chosen, preselected: ids; the second is what we chose for him.
        fields: the attributes of the chosen category.
    """

    answer: PredictOut | None = None
    choices: tuple[Choice, ...] = ()
    chosen: str | None = None
    preselected: str | None = None
    fields: tuple[AttributeField, ...] = ()


async def read_form(service: Service, user_id: str, form: FormData, new_key: str) -> SellForm:
    """The form as it was sent; what is too long is cut, and what cannot be is left out."""
    files = [one for one in form.getlist("pictures") if isinstance(one, UploadFile) and one.filename]
    preview = form.get("image")
    names = [one for one in form.getlist("draft") if isinstance(one, str)][:MAX_PICTURES]
    drafts = [draft for name in names if (draft := draft_of(service, user_id, name)) is not None]
    removed = _text(form, "remove")
    key = _text(form, "key")
    prediction_id = _text(form, "prediction_id")
    return SellForm(
        key=key if _KEY.fullmatch(key) else new_key,
        title=_text(form, "title")[:MAX_TITLE].strip(),
        description=_text(form, "description")[:MAX_DESCRIPTION].replace("\r\n", "\n").strip(),
        brand=_text(form, "brand")[:MAX_BRAND].strip(),
        node_id=_text(form, "node_id")[:MAX_NODE_ID] or None,
        preselected=_text(form, "preselected")[:MAX_NODE_ID] or None,
        prediction_id=prediction_id if _ID.fullmatch(prediction_id) else None,
        values=_values(form, "is:"),
        said=_values(form, "was:"),
        drafts=tuple(draft for draft in drafts if draft.name != removed),
        n_gone=len(names) - len(drafts),
        files=tuple([File(one.filename or "", await one.read()) for one in files]),
        preview=await preview.read() if isinstance(preview, UploadFile) else None,
    )


def offer_of(loaded: Loaded, form: SellForm, answer: PredictOut | None) -> Offer:
    """What is offered for a form, given the model's answer."""
    tree = loaded.taxonomy
    choices = _choices(loaded, answer)
    preselected = answer.node_id if answer is not None and answer.outcome == "decided" else None
    chosen = preselected
    # What he chose himself stays; it may be one of the suggestions, or any other.
    own = place_of(tree, form.node_id) if form.node_id != form.preselected else None
    if own is not None:
        chosen = own.node_id
        if all(choice.place.node_id != chosen for choice in choices):
            choices = (*choices, Choice(own, None))
    return Offer(answer, choices, chosen, preselected, fields_of(loaded, form, chosen, answer))


def fields_of(
    loaded: Loaded, form: SellForm, node_id: str | None, answer: PredictOut | None
) -> tuple[AttributeField, ...]:
    """The attributes of a category, filled in as far as the seller or the model knows."""
    node = loaded.taxonomy.find(node_id) if node_id else None
    if node is None:
        return ()
    fields = []
    for one in attributes_of(loaded, node):
        said, confidence = form.said.get(one.name, ()), None
        guess: tuple[str, ...] = ()
        if answer is not None:
            found = answer.attributes.get(one.name)
            values = () if found is None else _several(found.value)
            sure = found is not None and found.confidence >= LEAST
            said, guess = (values, ()) if sure else ((), values)
            confidence = found.confidence if found is not None and sure else None
        before = form.said.get(one.name)
        values = form.values.get(one.name, ())
        changed = before is not None and set(values) != set(before)
        known = tuple(value for value in (values if changed else said) if value in one.values)
        fields.append(AttributeField(one.name, one.multi, tuple(one.values), known, said, guess, confidence))
    return tuple(fields)


def _choices(loaded: Loaded, answer: PredictOut | None) -> tuple[Choice, ...]:
    if answer is None:
        return ()
    found = [(one.node_id, one.confidence) for one in answer.alternatives]
    if answer.node_id is not None:  # the policy may have decided for one above them
        found = [(answer.node_id, answer.confidence or 0.0), *(one for one in found if one[0] != answer.node_id)]
    shown = [one for i, one in enumerate(found) if i < _ALWAYS_SHOWN or one[1] >= _LEAST_SHOWN]
    places = [(place_of(loaded.taxonomy, node_id), confidence) for node_id, confidence in shown]
    return tuple(Choice(place, confidence) for place, confidence in places if place is not None)


def _several(value: str | Sequence[str]) -> tuple[str, ...]:
    return (value,) if isinstance(value, str) else tuple(value)


def _values(form: FormData, prefix: str) -> dict[str, tuple[str, ...]]:
    found: dict[str, tuple[str, ...]] = {}
    for name, value in form.multi_items():
        if name.startswith(prefix) and isinstance(value, str):
            before = found.setdefault(name.removeprefix(prefix), ())
            if value:
                found[name.removeprefix(prefix)] = (*before, value)
    return found


def _text(form: FormData, name: str) -> str:
    value = form.get(name)
    return value.replace("\x00", "") if isinstance(value, str) else ""
