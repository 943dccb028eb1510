"""How a listing stands, for its seller: whether it has a category, what is proposed, and what a reviewer said."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from sqlalchemy import ColumnElement, and_, exists, func, or_, select
from sqlalchemy.orm import Session, aliased

from shelver.service.products.payloads import ProductRead, Standing
from shelver.service.products.pictures import SEES_ALL
from shelver.service.state import Service
from shelver.service.tables.records import FeedbackRow, PredictionRow, ProductRow
from shelver.taxonomy import Taxonomy

Place = Literal["chosen", "lost", "none"]


@dataclass(frozen=True, slots=True)
class Proposal:
    """What the model proposes for a product without a category."""

    prediction_id: str
    node_id: str
    path: str
    confidence: float | None


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a reviewer said of an answer for this product; `agrees` with the category that the product has.

    `node_id` and `path` are none where he only rejected the answer, or the current tree has lost the category.
    """

    at: datetime
    node_id: str | None
    path: str | None
    agrees: bool


@dataclass(frozen=True, slots=True)
class Stands:
    """How one listing stands; `lost`: its category is not in the current tree."""

    place: Place
    proposal: Proposal | None
    verdict: Verdict | None


def having(standing: Standing) -> ColumnElement[bool]:
    """Which products stand so."""
    match standing:
        case "listed":
            return ProductRow.node_id.is_not(None)
        case "without_category":
            return ProductRow.node_id.is_(None)
        case "proposed":
            decided = exists().where(_of_product(PredictionRow), PredictionRow.node_id.is_not(None))
            return and_(ProductRow.node_id.is_(None), decided)
        case "reviewed":
            named = exists().where(FeedbackRow.prediction_id == ProductRow.prediction_id, *_OF_REVIEWERS)
            asked = exists().where(
                _of_product(PredictionRow), FeedbackRow.prediction_id == PredictionRow.id, *_OF_REVIEWERS
            )
            return or_(named, asked)


def stand(session: Session, service: Service, products: Sequence[ProductRead]) -> dict[str, Stands]:
    """How these products stand, by their ids."""
    tree = service.models.current().taxonomy
    latest = _latest_answers(session, [product.id for product in products])
    of_prediction = {product.prediction_id: product for product in products if product.prediction_id is not None}
    of_prediction |= {row.id: product for product in products if (row := latest.get(product.id)) is not None}
    said = _latest_verdicts(session, list(of_prediction))
    verdicts: dict[str, FeedbackRow] = {}
    for label in said:
        verdicts[of_prediction[label.prediction_id].id] = label
    found = {}
    for product in products:
        place: Place = "none" if product.node_id is None else "lost" if product.path is None else "chosen"
        answer = latest.get(product.id)
        verdict = verdicts.get(product.id)
        found[product.id] = Stands(
            place,
            None if place == "chosen" or answer is None else _proposal(tree, answer),
            None if verdict is None else _verdict(tree, product, verdict),
        )
    return found


_OF_REVIEWERS = (FeedbackRow.current_of.is_not(None), FeedbackRow.role.in_(SEES_ALL))


def _of_product(row: type[PredictionRow]) -> ColumnElement[bool]:
    # Whoever asks may call what he asks about as he likes: only the owner's own answers count.
    return and_(row.product_id == ProductRow.id, row.user_id == ProductRow.owner_id)


def _latest_answers(session: Session, product_ids: Sequence[str]) -> dict[str, PredictionRow]:
    """The owner's latest answer that names each product."""
    later = aliased(PredictionRow)
    latest = select(func.max(later.at)).where(
        later.product_id == PredictionRow.product_id, later.user_id == PredictionRow.user_id
    )
    rows = (
        select(PredictionRow)
        .join(ProductRow, _of_product(PredictionRow))
        .where(ProductRow.id.in_(product_ids), PredictionRow.at == latest.scalar_subquery())
    )
    return {row.product_id or "": row for row in session.scalars(rows)}


def _latest_verdicts(session: Session, prediction_ids: Sequence[str]) -> Sequence[FeedbackRow]:
    rows = select(FeedbackRow).where(FeedbackRow.prediction_id.in_(prediction_ids), *_OF_REVIEWERS)
    return session.scalars(rows.order_by(FeedbackRow.at, FeedbackRow.id)).all()


def _proposal(tree: Taxonomy, answer: PredictionRow) -> Proposal | None:
    k = None if answer.node_id is None else tree.find(answer.node_id)
    return None if k is None else Proposal(answer.id, tree.ids[k], tree.paths[k], answer.confidence)


def _verdict(tree: Taxonomy, product: ProductRead, row: FeedbackRow) -> Verdict:
    k = None if row.node_after is None else tree.find(row.node_after)
    known = None if k is None else tree.ids[k]
    agrees = known == product.node_id if row.action != "reject" else row.node_before != product.node_id
    return Verdict(row.at, known, None if k is None else tree.paths[k], agrees)
