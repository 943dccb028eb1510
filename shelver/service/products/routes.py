"""Products of sellers: create, read, change, delete, list, search; each seller has his own.

A change names the version that it was made from (`If-Match`), so that nobody overwrites what he has not seen.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Annotated, Any, Final

from fastapi import APIRouter, File, Header, Path, Query, Request, Response, UploadFile
from sqlalchemy import ColumnElement, Select, and_, delete, or_, select, true
from sqlalchemy.orm import Session

from shelver.product import title_key
from shelver.service.accounts.identity import Identity, allowed
from shelver.service.answers.json_bodies import body_of, told
from shelver.service.answers.payloads import PredictIn, PredictOut, schema_of
from shelver.service.answers.predict import predict
from shelver.service.answers.repeat_store import remember, repeated
from shelver.service.db import SessionDep, after_commit
from shelver.service.paging import Place, cursor_of, page_of
from shelver.service.problems import ServiceError, not_found, responses
from shelver.service.products.answers import answer_with, fitting, read_products, replayed
from shelver.service.products.editions import IfMatch, change, check_one, check_version
from shelver.service.products.intake import put, put_all
from shelver.service.products.payloads import (
    MAX_PICTURES,
    ProductBody,
    ProductFilters,
    ProductPage,
    ProductRead,
)
from shelver.service.products.pictures import SEES_ALL, forget, pictures_of, show
from shelver.service.products.standing import having
from shelver.service.state import Service, ServiceDep
from shelver.service.tables.records import PredictionRow, ProductPicture, ProductRow
from shelver.taxonomy import Taxonomy

_MAX_WORDS: Final = 10
ProductId = Annotated[
    str, Path(pattern=r"^[0-9a-f]{32}$", examples=["9f3b0e6f5a0b4e27a9d0b8c7f2b3d4e5"], description="Its id.")
]
Reader = Annotated[Identity, allowed("seller", "reviewer", "admin", "service")]
Writer = Annotated[Identity, allowed("seller", "admin", "service")]
Body = Annotated[ProductBody, body_of(ProductBody, 50_000)]
IdempotencyKey = Annotated[str | None, Header(min_length=1, max_length=255)]
router = APIRouter(tags=["products"])


@router.post(
    "/v1/products",
    status_code=201,
    summary="Add a product",
    response_model=ProductRead,
    responses=responses(
        "not_found",
        "invalid_input",
        "picture_unusable",
        "unknown_category",
        "id_taken",
        "key_reused",
        "conflict",
        "busy",
    ),
    openapi_extra=told(ProductBody),
)
def create_product(
    identity: Writer,
    body: Body,
    response: Response,
    session: SessionDep,
    service: ServiceDep,
    idempotency_key: IdempotencyKey = None,
) -> ProductRead | Response:
    """Add a product of one's own.

    With an `Idempotency-Key` the same request adds it once, and gets the same answer again for a day.
    """
    assert identity.user_id is not None  # no rule above lets anybody else in
    asked = hashlib.sha256(f"product {body.model_dump_json()}".encode()).hexdigest()
    if idempotency_key is not None:
        with service.database.reading() as before:
            kept = repeated(before, identity.user_id, idempotency_key, asked)
        if kept is not None:
            return replayed(kept)
    tree = _checked_category(service, body.node_id)
    service.log.settle(body.prediction_id or "")
    if body.pictures:  # nothing goes to the disk for who asks in vain
        with service.database.reading() as before:
            _own_prediction(before, identity, body.prediction_id)
            _check_free(before, identity.user_id, body.seller_product_id)
    stored = put_all(service.pictures, body.pictures or ())
    prediction = _own_prediction(session, identity, body.prediction_id)
    _check_free(session, identity.user_id, body.seller_product_id)
    row = ProductRow(owner_id=identity.user_id, seller_product_id=body.seller_product_id, **_columns(body, tree))
    session.add(row)
    session.flush()
    show(session, service, row, stored)
    _saved(session, service, row, prediction)
    answer = answer_with(response, session, service, row)
    response.headers["Location"] = f"/v1/products/{row.id}"
    if idempotency_key is not None:
        remember(session, identity.user_id, idempotency_key, asked, answer.model_dump_json().encode())
    return answer


@router.post(
    "/v1/products/propose",
    summary="Propose a category",
    response_model=PredictOut,
    responses=responses("invalid_input", "picture_unusable", "busy", "key_reused"),
    openapi_extra={
        "requestBody": {"required": True, "content": {"application/json": {"schema": schema_of(PredictIn)}}}
    },
)
async def propose_category(request: Request, identity: Writer, idempotency_key: IdempotencyKey = None) -> Response:
    """Answer a product that is not saved yet, as /v1/predict does.

    Who saves it then names the `prediction_id` and the category that he chose, the proposed one or another: so it
    is known which proposals were adopted.
    """
    return await predict(request, identity, idempotency_key)


@router.get("/v1/products", summary="List and search products", responses=responses("invalid_input"))
def list_products(
    filters: Annotated[ProductFilters, Query()], session: SessionDep, service: ServiceDep, identity: Reader
) -> ProductPage:
    """One's own products, newest first; reviewers and administrators see everybody's."""
    wanted: Select[ProductRow] = select(ProductRow).where(seen_by(identity))
    if filters.q is not None:
        words = title_key(filters.q).split()[:_MAX_WORDS]
        called = ProductRow.seller_product_id == filters.q.strip()
        if words:
            said = and_(*(ProductRow.search_key.contains(word, autoescape=True) for word in words))
            called = or_(called, said)
        wanted = wanted.where(called)
    if filters.seller_product_id is not None:
        wanted = wanted.where(ProductRow.seller_product_id == filters.seller_product_id)
    if filters.node_id is not None:
        wanted = wanted.where(ProductRow.node_id == filters.node_id)
    if filters.owner_id is not None:
        wanted = wanted.where(ProductRow.owner_id == filters.owner_id)
    if filters.standing is not None:
        wanted = wanted.where(having(filters.standing))
    rows, following = page_of(session, wanted, ProductRow.created_at, ProductRow.id, filters)
    n = fitting(rows)
    if n < len(rows):
        following = cursor_of(Place(rows[n - 1].created_at, rows[n - 1].id))
    return ProductPage(items=read_products(session, service, rows[:n]), next=following)


@router.get("/v1/products/{product_id}", summary="A product", responses=responses("not_found"))
def read_product(
    product_id: ProductId, response: Response, session: SessionDep, service: ServiceDep, identity: Reader
) -> ProductRead:
    """A product; its `ETag` names the version."""
    return answer_with(response, session, service, _found(session, identity, product_id))


@router.put(
    "/v1/products/{product_id}",
    summary="Change a product",
    responses=responses(
        "invalid_input", "picture_unusable", "unknown_category", "id_taken", "not_found", "changed_meanwhile"
    ),
    openapi_extra=told(ProductBody),
)
def replace_product(
    identity: Writer,
    product_id: ProductId,
    body: Body,
    response: Response,
    session: SessionDep,
    service: ServiceDep,
    if_match: IfMatch = None,
) -> ProductRead:
    """Replace all that is said of a product; its pictures and the seller's own id only where they are given."""
    service.log.settle(body.prediction_id or "")
    if body.pictures:
        _check_before(service, identity, product_id, if_match, body.node_id)
    stored = None if body.pictures is None else put_all(service.pictures, body.pictures)
    row = _found(session, identity, product_id, changed=True)
    # A category that the product has already may stay, though the tree has lost it.
    kept = body.node_id == row.node_id
    tree = None if kept else _checked_category(service, body.node_id)
    prediction = None
    if body.prediction_id != row.prediction_id:
        prediction = _own_prediction(session, identity, body.prediction_id)
    columns = _columns(body, tree)
    if kept:
        columns["taxonomy_version"] = row.taxonomy_version
    if "seller_product_id" in body.model_fields_set:
        columns["seller_product_id"] = body.seller_product_id
        if body.seller_product_id != row.seller_product_id:
            _check_free(session, row.owner_id, body.seller_product_id)
    change(session, row, if_match, columns)
    if stored is not None:
        show(session, service, row, stored)
    _saved(session, service, row, prediction)
    return answer_with(response, session, service, row)


@router.delete(
    "/v1/products/{product_id}",
    status_code=204,
    summary="Delete a product",
    responses=responses("not_found", "changed_meanwhile"),
)
def delete_product(
    product_id: ProductId, session: SessionDep, service: ServiceDep, identity: Writer, if_match: IfMatch = None
) -> None:
    """Delete a product, and its pictures unless another product shows them."""
    row = _found(session, identity, product_id, changed=True)
    check_version(row, if_match)
    shown = pictures_of(session, [row.id]).get(row.id, ())
    session.execute(delete(ProductPicture).where(ProductPicture.product_id == row.id))
    gone = session.execute(
        delete(ProductRow).where(ProductRow.id == row.id, ProductRow.version == row.version),
        execution_options={"synchronize_session": False},
    )
    check_one(gone)
    forget(session, service, shown)
    after_commit(session, lambda: service.lookalikes.gone([product_id]))


@router.post(
    "/v1/products/{product_id}/pictures",
    summary="Upload pictures of a product",
    responses=responses("invalid_input", "picture_unusable", "not_found", "changed_meanwhile"),
)
def add_pictures(
    product_id: ProductId,
    files: Annotated[list[UploadFile], File(min_length=1, max_length=MAX_PICTURES)],
    response: Response,
    session: SessionDep,
    service: ServiceDep,
    identity: Writer,
    if_match: IfMatch = None,
) -> ProductRead:
    """Add pictures after those that the product has, as files of a form."""
    _check_before(service, identity, product_id, if_match)
    row = add_stored(session, service, identity, product_id, [file.file.read() for file in files], if_match)
    return answer_with(response, session, service, row)


def add_stored(
    session: Session,
    service: Service,
    identity: Identity,
    product_id: str,
    files: Sequence[bytes],
    if_match: str | None = None,
) -> ProductRow:
    """Add pictures after those that a product has.

    Raises:
        ServiceError: there is no such product of the caller's, or it would have too many.
        ImageError: one cannot be used.
    """
    stored = [put(service.pictures, data) for data in files]
    row = _found(session, identity, product_id, changed=True)
    change(session, row, if_match, {})
    show(session, service, row, [*pictures_of(session, [row.id]).get(row.id, ()), *stored])
    _saved(session, service, row, None)
    return row


def delete_products_of(session: Session, service: Service, owner_id: str) -> None:
    """Delete all products of somebody, with the pictures that nobody else shows."""
    own = select(ProductRow.id).where(ProductRow.owner_id == owner_id)
    shown = session.scalars(select(ProductPicture.hash).where(ProductPicture.product_id.in_(own))).all()
    session.execute(
        delete(ProductPicture).where(ProductPicture.product_id.in_(own)),
        execution_options={"synchronize_session": False},
    )
    session.execute(delete(ProductRow).where(ProductRow.owner_id == owner_id))
    for start in range(0, len(shown), 500):
        forget(session, service, shown[start : start + 500])


def seen_by(identity: Identity) -> ColumnElement[bool]:
    """Which products somebody may read."""
    return true() if identity.role in SEES_ALL else ProductRow.owner_id == identity.user_id


def _found(session: Session, identity: Identity, product_id: str, *, changed: bool = False) -> ProductRow:
    wanted = select(ProductRow).where(ProductRow.id == product_id, seen_by(identity))
    # Who is going to change it waits for the one who does.
    row = session.scalar(wanted.with_for_update() if changed else wanted)
    if row is None:
        raise not_found(f"product {product_id}")
    return row


def _check_before(
    service: Service, identity: Identity, product_id: str, if_match: str | None, node_id: str | None = None
) -> None:
    """Refuse what will be refused, before its pictures are put into the store."""
    with service.database.reading() as session:
        row = _found(session, identity, product_id)
        check_version(row, if_match)
    if node_id != row.node_id:
        _checked_category(service, node_id)


def _checked_category(service: Service, node_id: str | None) -> Taxonomy | None:
    """The tree that has the category, None where none was chosen."""
    if node_id is None:
        return None
    return checked_node(service, node_id)


def checked_node(service: Service, node_id: str) -> Taxonomy:
    """The tree of the model that answers now, if it has this node.

    Raises:
        ServiceError: it has not.
    """
    tree = service.models.current().taxonomy
    if tree.find(node_id) is None:
        raise ServiceError(
            "unknown_category",
            f"the category {node_id!r:.80}",
            allowed=f"one of the {tree.n_nodes} ids of tree {tree.version}, such as {tree.ids[0]!r}",
            remedy="Choose one of /v1/taxonomy.",
        )
    return tree


def _check_free(session: Session, owner_id: str, seller_product_id: str | None) -> None:
    """See to it that no product of this seller is called so; of two at the same moment the database refuses one.

    Raises:
        ServiceError: one is.
    """
    if seller_product_id is None:
        return
    own = select(ProductRow.id).where(ProductRow.owner_id == owner_id)
    taken = session.scalar(own.where(ProductRow.seller_product_id == seller_product_id))
    if taken is not None:
        raise ServiceError(
            "id_taken",
            f"seller_product_id {seller_product_id!r:.80}, which product {taken} has",
            allowed="one that none of the seller's other products has",
            remedy="Change that product, or send another seller_product_id.",
        )


def _own_prediction(session: Session, identity: Identity, prediction_id: str | None) -> PredictionRow | None:
    """The prediction that a product names; it must be the caller's own."""
    if prediction_id is None:
        return None
    row = session.get(PredictionRow, prediction_id)
    if row is None or row.user_id != identity.user_id:
        raise not_found(f"prediction {prediction_id}")
    return row


def _saved(session: Session, service: Service, row: ProductRow, prediction: PredictionRow | None) -> None:
    """What follows from a product that was saved, and from the prediction that it names now."""
    product_id = row.id
    after_commit(session, lambda: service.lookalikes.changed([product_id]))
    if prediction is not None:
        service.waiting.saved(session, prediction)


def _columns(body: ProductBody, tree: Taxonomy | None) -> dict[str, Any]:
    return {
        "title": body.title,
        "description": body.description,
        "brand": body.brand,
        "attributes": body.attributes,
        "search_key": title_key(f"{body.title or ''} {body.brand or ''}"),
        "node_id": body.node_id,
        "taxonomy_version": None if tree is None else tree.version,
        "prediction_id": body.prediction_id,
    }
