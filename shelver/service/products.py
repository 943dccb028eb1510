"""Products of sellers: create, read, change, delete, list, search; each seller has his own.

A change names the version that it was made from (`If-Match`), so that nobody overwrites what he has not seen.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Sequence
from typing import Annotated, Any, Final

from fastapi import APIRouter, File, Header, Path, Query, Request, Response, UploadFile
from sqlalchemy import ColumnElement, CursorResult, Result, Select, delete, select, true, update
from sqlalchemy.orm import Session

from shelver.product import title_key
from shelver.service.db import SessionDep
from shelver.service.identity import Identity, allowed
from shelver.service.paging import page_of
from shelver.service.payloads import PredictIn, PredictOut, schema_of
from shelver.service.pictures import MAX_PICTURES, SEES_ALL, Stored, forget, pictures_of, show
from shelver.service.predict import predict
from shelver.service.problems import ServiceError, not_found, responses
from shelver.service.product_payloads import PictureIn, ProductBody, ProductFilters, ProductPage, ProductRead
from shelver.service.state import Service, ServiceDep
from shelver.service.tables.declarative import now
from shelver.service.tables.records import PredictionRow, ProductPicture, ProductRow
from shelver.taxonomy import Taxonomy

_MAX_WORDS: Final = 10
_READ: Final = frozenset(ProductRead.model_fields) - {"path", "pictures"}
ProductId = Annotated[
    str, Path(pattern=r"^[0-9a-f]{32}$", examples=["9f3b0e6f5a0b4e27a9d0b8c7f2b3d4e5"], description="Its id.")
]
Reader = Annotated[Identity, allowed("seller", "reviewer", "admin", "service")]
Writer = Annotated[Identity, allowed("seller", "admin", "service")]
IfMatch = Annotated[
    str | None,
    Header(
        pattern=r'^(\*|"[0-9]{1,9}")$',
        description="The `ETag` of the version that is changed; 412 where it is not the latest.",
        examples=['"1"'],
    ),
]
router = APIRouter(tags=["products"])


@router.post(
    "/v1/products",
    status_code=201,
    summary="Add a product",
    responses=responses("invalid_input", "picture_unusable", "unknown_category"),
)
def create_product(
    body: ProductBody, response: Response, session: SessionDep, service: ServiceDep, identity: Writer
) -> ProductRead:
    """Add a product of one's own."""
    assert identity.user_id is not None  # no rule above lets anybody else in
    tree = _checked_category(service, body.node_id)
    stored = _put(service, body.pictures or ())
    service.log.settle(body.prediction_id or "")
    _check_prediction(session, identity, body.prediction_id)
    row = ProductRow(owner_id=identity.user_id, **_columns(body, tree))
    session.add(row)
    session.flush()
    show(session, service, row, stored)
    return _answer(response, session, service, row)


@router.post(
    "/v1/products/propose",
    summary="Propose a category",
    response_model=PredictOut,
    responses=responses("invalid_input", "picture_unusable", "busy"),
    openapi_extra={
        "requestBody": {"required": True, "content": {"application/json": {"schema": schema_of(PredictIn)}}}
    },
)
async def propose_category(request: Request, identity: Writer) -> Response:
    """Answer a product that is not saved yet, as /v1/predict does.

    Who saves it then names the `prediction_id` and the category that he chose, the proposed one or another: so it
    is known which proposals were adopted.
    """
    return await predict(request, identity)


@router.get("/v1/products", summary="List and search products", responses=responses("invalid_input"))
def list_products(
    filters: Annotated[ProductFilters, Query()], session: SessionDep, service: ServiceDep, identity: Reader
) -> ProductPage:
    """One's own products, newest first; reviewers and administrators see everybody's."""
    wanted: Select[ProductRow] = select(ProductRow).where(_seen_by(identity))
    if filters.q is not None:
        words = title_key(filters.q).split()[:_MAX_WORDS]
        wanted = wanted.where(*(ProductRow.search_key.contains(word, autoescape=True) for word in words))
        if not words:
            return ProductPage(items=[], next=None)
    if filters.node_id is not None:
        wanted = wanted.where(ProductRow.node_id == filters.node_id)
    if filters.owner_id is not None:
        wanted = wanted.where(ProductRow.owner_id == filters.owner_id)
    rows, following = page_of(session, wanted, ProductRow.created_at, ProductRow.id, filters)
    return ProductPage(items=_read(session, service, rows), next=following)


@router.get("/v1/products/{product_id}", summary="A product", responses=responses("not_found"))
def read_product(
    product_id: ProductId, response: Response, session: SessionDep, service: ServiceDep, identity: Reader
) -> ProductRead:
    """A product; its `ETag` names the version."""
    return _answer(response, session, service, _found(session, identity, product_id))


@router.put(
    "/v1/products/{product_id}",
    summary="Change a product",
    responses=responses("invalid_input", "picture_unusable", "unknown_category", "not_found", "changed_meanwhile"),
)
def replace_product(
    product_id: ProductId,
    body: ProductBody,
    response: Response,
    session: SessionDep,
    service: ServiceDep,
    identity: Writer,
    if_match: IfMatch = None,
) -> ProductRead:
    """Replace all that is said of a product; its pictures only where they are given."""
    stored = None if body.pictures is None else _put(service, body.pictures)
    service.log.settle(body.prediction_id or "")
    row = _found(session, identity, product_id)
    # A category that the product has already may stay, though the tree has lost it.
    kept = body.node_id == row.node_id
    tree = None if kept else _checked_category(service, body.node_id)
    if body.prediction_id != row.prediction_id:
        _check_prediction(session, identity, body.prediction_id)
    columns = _columns(body, tree)
    if kept:
        columns["taxonomy_version"] = row.taxonomy_version
    _change(session, row, if_match, columns)
    if stored is not None:
        show(session, service, row, stored)
    return _answer(response, session, service, row)


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
    row = _found(session, identity, product_id)
    _check_version(row, if_match)
    shown = pictures_of(session, [row.id]).get(row.id, ())
    session.execute(delete(ProductPicture).where(ProductPicture.product_id == row.id))
    gone = session.execute(
        delete(ProductRow).where(ProductRow.id == row.id, ProductRow.version == row.version),
        execution_options={"synchronize_session": False},
    )
    _check_one(gone)
    forget(session, service, shown)


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
    stored = [service.pictures.put(file.file.read()) for file in files]
    row = _found(session, identity, product_id)
    _change(session, row, if_match, {})
    show(session, service, row, [*pictures_of(session, [row.id]).get(row.id, ()), *stored])
    return _answer(response, session, service, row)


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


def _seen_by(identity: Identity) -> ColumnElement[bool]:
    return true() if identity.role in SEES_ALL else ProductRow.owner_id == identity.user_id


def _found(session: Session, identity: Identity, product_id: str) -> ProductRow:
    row = session.scalar(select(ProductRow).where(ProductRow.id == product_id, _seen_by(identity)))
    if row is None:
        raise not_found(f"product {product_id}")
    return row


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


def _check_prediction(session: Session, identity: Identity, prediction_id: str | None) -> None:
    """A product may only refer to a prediction of the caller's own."""
    if prediction_id is not None:
        asked = select(PredictionRow.id).where(
            PredictionRow.id == prediction_id, PredictionRow.user_id == identity.user_id
        )
        if session.scalar(asked) is None:
            raise not_found(f"prediction {prediction_id}")


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


def _check_version(row: ProductRow, if_match: str | None) -> None:
    if if_match not in (None, "*", f'"{row.version}"'):
        raise _changed_meanwhile(f"version {if_match} of the product, which is {row.version} by now")


def _check_one(result: Result[Any]) -> None:
    assert isinstance(result, CursorResult)
    if result.rowcount != 1:
        raise _changed_meanwhile("a version of the product that was changed at the same time")


def _changed_meanwhile(received: str) -> ServiceError:
    return ServiceError(
        "changed_meanwhile",
        received,
        allowed="the ETag of the latest version in If-Match",
        remedy="Read the product again, and make the change to that.",
    )


def _change(session: Session, row: ProductRow, if_match: str | None, columns: dict[str, Any]) -> None:
    """Write a new version, unless another has been written since `row` was read."""
    _check_version(row, if_match)
    read = row.version
    changed = session.execute(
        update(ProductRow)
        .where(ProductRow.id == row.id, ProductRow.version == read)
        .values(**columns, version=read + 1, updated_at=now()),
        execution_options={"synchronize_session": False},
    )
    _check_one(changed)
    session.refresh(row)


def _put(service: Service, pictures: Sequence[PictureIn]) -> list[Stored | str]:
    """Put new pictures into the store; of those that are there already their hashes."""
    found: list[Stored | str] = []
    for picture in pictures:
        if (picture.base64 is None) == (picture.hash is None):
            raise ServiceError(
                "invalid_input", "a picture with neither or both", allowed="base64 or hash", remedy="Send one."
            )
        found.append(picture.hash or service.pictures.put(_decoded(picture.base64 or "")))
    return found


def _decoded(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise ServiceError(
            "invalid_input",
            "a picture that is no base64",
            allowed="the file's bytes as base64",
            remedy="Encode it.",
        ) from error


def _read(session: Session, service: Service, rows: Sequence[ProductRow]) -> list[ProductRead]:
    tree = service.models.current().taxonomy
    pictures = pictures_of(session, [row.id for row in rows])
    read = []
    for row in rows:
        node = None if row.node_id is None else tree.find(row.node_id)
        read.append(
            ProductRead(
                **{name: getattr(row, name) for name in _READ},
                path=None if node is None else tree.paths[node],
                pictures=pictures.get(row.id, []),
            )
        )
    return read


def _answer(response: Response, session: Session, service: Service, row: ProductRow) -> ProductRead:
    response.headers["ETag"] = f'"{row.version}"'
    return _read(session, service, [row])[0]
