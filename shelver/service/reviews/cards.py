"""What a reviewer sees of the items in his hand, and what he decided last.

Who said what is shown where people and model do not agree, but not of what was drawn from accepted answers: there
it would lead him, and comes with the decision.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final, Literal

from sqlalchemy import or_, select
from sqlalchemy.orm import Session

from shelver.service.products.pictures import pictures_of
from shelver.service.records.payloads import Action
from shelver.service.reviews import claims
from shelver.service.reviews.routes import others_of, predictions_of, texts_of
from shelver.service.reviews.waiting import REVIEWERS, suggestions_of
from shelver.service.state import Service
from shelver.service.tables.accounts import User
from shelver.service.tables.declarative import now
from shelver.service.tables.records import FeedbackRow, PredictionRow, ProductRow
from shelver.service.tables.reviews import ReviewDecision, ReviewItem
from shelver.taxonomy import ROOT, Taxonomy

MAX_ALIKE: Final = 40
"""A group has no more than these."""
_MAX_SUGGESTIONS: Final = 7
_MAX_CHOICES: Final = 9
_MAX_SIBLINGS: Final = 60
_MAX_BRANCHES: Final = 500

Who = Literal["model", "seller", "shelf", "reviewer"]
Path = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Choice:
    """A category that can be chosen."""

    node_id: str
    path: Path


@dataclass(frozen=True, slots=True)
class Voice:
    """What somebody says of a product: the model, its seller by his judgement or by the shelf that he saved it on,
    another reviewer by his name. No node: that the answer is wrong."""

    who: Who
    name: str
    node_id: str | None
    path: Path | None


@dataclass(frozen=True, slots=True)
class Card:
    """An item.

    Attributes:
        kept: what there is of the product: itself, the texts of the request, or neither.
        had_picture: whether the model saw one.
        suggestions: the model's, best first, and then what the voices say.
        siblings: the others beside the first of them in the tree.
        voices: who said what, where they do not agree.
        n_alike: how many others wait that look like it.
        skipped: whether he has skipped it before.
    """

    prediction_id: str
    kept: Literal["product", "texts", "nothing"]
    had_picture: bool
    seller_product_id: str | None
    title: str | None
    description: str | None
    brand: str | None
    hint: str | None
    attributes: dict[str, list[str]]
    pictures: Sequence[str]
    suggestions: Sequence[Choice]
    siblings: Sequence[Choice]
    voices: Sequence[Voice]
    n_alike: int
    skipped: bool


@dataclass(frozen=True, slots=True)
class Decided:
    """A decision: of what, to what; no path where all was rejected. `voices` are those that said otherwise."""

    decision_id: str
    title: str | None
    n_items: int
    action: Action
    path: Path | None
    voices: Sequence[Voice]
    undone: bool


def cards_of(
    session: Session, service: Service, user_id: str, items: Sequence[ReviewItem], *, with_alike: bool = True
) -> list[Card]:
    """Items as they are shown."""
    tree = service.models.current().taxonomy
    predictions = predictions_of(session, [item.prediction_id for item in items])
    products = claims.products_of(session, predictions.values())
    pictures = pictures_of(session, [product.id for product in products.values()])
    texts = texts_of(session, [id_ for id_ in predictions if id_ not in products])
    said = others_of(session, user_id, list(predictions))
    names = _names(session, said.values())
    found = []
    for item in items:
        prediction = predictions.get(item.prediction_id)
        if prediction is None:  # it was deleted a moment ago
            continue
        product, text = products.get(prediction.id), texts.get(prediction.id)
        suggestions = _suggestions(tree, prediction)
        siblings = _siblings(tree, suggestions)
        voices: Sequence[Voice] = ()
        if not item.audit:
            voices = _disagreeing(_voices(tree, suggestions, product, said.get(prediction.id, ()), names))
        shown = product or text
        found.append(
            Card(
                prediction_id=prediction.id,
                kept="product" if product is not None else "texts" if text is not None else "nothing",
                had_picture=prediction.modality in ("image", "both"),
                seller_product_id=prediction.product_id if product is None else product.seller_product_id,
                title=None if shown is None else shown.title,
                description=None if shown is None else shown.description,
                brand=None if shown is None else shown.brand,
                hint=None if text is None else text.category_hint,
                attributes={} if product is None else product.attributes,
                pictures=() if product is None else pictures.get(product.id, ()),
                suggestions=[*suggestions, *_said(tree, voices, suggestions)][:_MAX_CHOICES],
                siblings=siblings,
                voices=voices,
                n_alike=len(alike_in(session, service, user_id, item)) if with_alike else 0,
                skipped=item.skipped_by == user_id,
            )
        )
    return found


def alike_in(session: Session, service: Service, user_id: str, item: ReviewItem) -> list[str]:
    """The others that look like an item, and wait for anybody or for this reviewer."""
    ids = set(claims.alike(session, service, item, MAX_ALIKE * 2)) - {item.prediction_id}
    if not ids:
        return []
    wanted = select(ReviewItem.prediction_id).where(
        ReviewItem.prediction_id.in_(ids),
        or_(claims.free(), (ReviewItem.claimed_by == user_id) & (ReviewItem.state == "waiting")),
    )
    return list(session.scalars(wanted.limit(MAX_ALIKE - 1)))


def decisions_of(
    session: Session, service: Service, user_id: str, *, n: int = 5, decision_id: str | None = None
) -> list[Decided]:
    """What a reviewer decided today and has not undone, the latest first; or the one that is named."""
    wanted = select(ReviewDecision).where(ReviewDecision.user_id == user_id)
    if decision_id is not None:
        wanted = wanted.where(ReviewDecision.id == decision_id)
    else:
        wanted = wanted.where(ReviewDecision.undone_at.is_(None), ReviewDecision.at >= _midnight())
    rows = session.scalars(wanted.order_by(ReviewDecision.at.desc(), ReviewDecision.id.desc()).limit(n)).all()
    first = {row.id: row.items[0] for row in rows if row.items}
    labels = {
        label.id: label
        for label in session.scalars(
            select(FeedbackRow).where(FeedbackRow.id.in_(one[1] for one in first.values()))
        )
    }
    titles = _titles(session, [one[0] for one in first.values()])
    said = others_of(session, user_id, [one[0] for one in first.values()])
    names = _names(session, said.values())
    tree = service.models.current().taxonomy
    found = []
    for row in rows:
        label = labels.get(first[row.id][1]) if row.id in first else None
        if label is None:
            continue
        model = _voice(tree, "model", label.node_before)
        voices = [model, *_judgements(tree, said.get(label.prediction_id, ()), names)]
        path = _path(tree, label.node_after)
        found.append(
            Decided(
                decision_id=row.id,
                title=titles.get(label.prediction_id),
                n_items=row.n_items,
                action=label.action,  # type: ignore[arg-type]
                path=path,
                voices=[one for one in voices if one.path != path and (one.path or one.who != "model")],
                undone=row.undone_at is not None,
            )
        )
    return found


def branches_of(tree: Taxonomy) -> list[Choice]:
    """The categories of the first two levels, or of the first where these would be too many to choose from."""
    first = [int(k) for k in tree.children(ROOT)]
    both = [k for one in first for k in (one, *map(int, tree.children(one)))]
    return [Choice(tree.ids[k], tree.path_names(k)) for k in (both if len(both) <= _MAX_BRANCHES else first)][
        :_MAX_BRANCHES
    ]


def below(tree: Taxonomy, node_id: str) -> frozenset[str]:
    """A category and all below it; none where the tree has none."""
    node = tree.find(node_id)
    return frozenset(() if node is None else (node_id, *(tree.ids[k] for k in tree.descendants(node))))


def _midnight() -> datetime:
    return now().replace(hour=0, minute=0, second=0, microsecond=0)


def _path(tree: Taxonomy, node_id: str | None) -> Path | None:
    if node_id is None:
        return None
    node = tree.find(node_id)
    return (node_id,) if node is None else tree.path_names(node)  # the tree of then had it


def _suggestions(tree: Taxonomy, prediction: PredictionRow) -> list[Choice]:
    """Those that the tree of today has."""
    nodes = [(one.node_id, tree.find(one.node_id)) for one in suggestions_of(prediction)]
    return [Choice(id_, tree.path_names(k)) for id_, k in nodes if k is not None][:_MAX_SUGGESTIONS]


def _siblings(tree: Taxonomy, suggestions: Sequence[Choice]) -> list[Choice]:
    if not suggestions:
        return []
    known = {one.node_id for one in suggestions}
    others = [int(k) for k in tree.siblings(tree.index(suggestions[0].node_id)) if tree.ids[k] not in known]
    return [Choice(tree.ids[k], tree.path_names(k)) for k in others[:_MAX_SIBLINGS]]


def _voices(
    tree: Taxonomy,
    suggestions: Sequence[Choice],
    product: ProductRow | None,
    said: Sequence[FeedbackRow],
    names: dict[str, str],
) -> list[Voice]:
    voices = [Voice("model", "", suggestions[0].node_id, suggestions[0].path)] if suggestions else []
    voices += _judgements(tree, said, names)
    shelf = None if product is None else product.node_id
    if shelf is not None and _voice(tree, "seller", shelf) not in voices:
        voices.append(_voice(tree, "shelf", shelf))
    return voices


def _said(tree: Taxonomy, voices: Sequence[Voice], known: Sequence[Choice]) -> list[Choice]:
    """What others say and the model does not suggest."""
    ids = {voice.node_id: voice.path for voice in voices if voice.node_id is not None}
    for choice in known:
        ids.pop(choice.node_id, None)
    return [Choice(id_, path) for id_, path in ids.items() if path is not None and tree.find(id_) is not None]


def _voice(tree: Taxonomy, who: Who, node_id: str | None, name: str = "") -> Voice:
    return Voice(who, name, node_id, _path(tree, node_id))


def _judgements(tree: Taxonomy, said: Sequence[FeedbackRow], names: dict[str, str]) -> list[Voice]:
    return [
        _voice(tree, "reviewer", row.node_after, names.get(row.user_id, ""))
        if row.role in REVIEWERS
        else _voice(tree, "seller", row.node_after)
        for row in said
    ]


def _disagreeing(voices: Sequence[Voice]) -> Sequence[Voice]:
    return voices if len({voice.path for voice in voices}) > 1 else ()


def _names(session: Session, said: Collection[Sequence[FeedbackRow]]) -> dict[str, str]:
    """Of the reviewers among them; a seller is a seller."""
    ids = {row.user_id for rows in said for row in rows if row.role in REVIEWERS}
    if not ids:
        return {}
    found = session.execute(select(User.id, User.name).where(User.id.in_(ids)))
    return {row.id: row.name for row in found}


def _titles(session: Session, prediction_ids: Collection[str]) -> dict[str, str | None]:
    products = claims.products_of(session, predictions_of(session, prediction_ids).values())
    titles: dict[str, str | None] = {id_: product.title for id_, product in products.items()}
    return {id_: text.title for id_, text in texts_of(session, prediction_ids).items()} | titles
