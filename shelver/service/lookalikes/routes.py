"""/v1/similar: the products of the store that look most alike, by the model's own embeddings.

Reviewers and administrators see every product, others their own. A shop whose window everybody can look into sets
`similar_across_sellers`: then they also see, of what others sell, that is, of products with a category, title and
category. Whose it is, its description, its pictures and its id stay with the owner.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Final

from fastapi import APIRouter, Query, Request
from sqlalchemy import select
from sqlalchemy.orm import Session
from starlette.concurrency import run_in_threadpool

from shelver.pipeline.classifier import Classifier, Embedded
from shelver.pipeline.image import Prepared
from shelver.product import Product, text_of
from shelver.service.accounts.identity import Identity, allowed
from shelver.service.answers.json_bodies import body_of, told
from shelver.service.answers.pieces import caller_of
from shelver.service.answers.sources import prepared
from shelver.service.lookalikes.nearest import Near
from shelver.service.lookalikes.payloads import SimilarFilters, SimilarIn, SimilarOut, SimilarProduct
from shelver.service.lookalikes.vectors import Look, looks_of
from shelver.service.models.champion import Loaded
from shelver.service.problems import ServiceError, not_found, responses
from shelver.service.products.pictures import SEES_ALL, pictures_of
from shelver.service.products.routes import ProductId, seen_by
from shelver.service.state import Service, ServiceDep
from shelver.service.tables.records import ProductRow

_MORE: Final = 8
_MAX_ASKED: Final = 2048
MAX_PARTS: Final = 1000
"""Names and values of a body."""
Reader = Annotated[Identity, allowed("seller", "reviewer", "admin", "service")]
router = APIRouter(tags=["products"])


@router.post(
    "/v1/similar",
    summary="Products that look alike",
    responses=responses("invalid_input", "picture_unusable", "too_large", "busy"),
    openapi_extra=told(SimilarIn),
)
async def find_similar(
    request: Request,
    identity: Reader,
    body: Annotated[SimilarIn, body_of(SimilarIn, MAX_PARTS)],
    service: ServiceDep,
) -> SimilarOut:
    """The products of the store that look most like a text, a picture, or both.

    A picture that cannot be used is left out where there is a text, and `picture_error` says why.
    """
    loaded = service.models.current()
    image2emb = loaded.classifier.image2emb
    caller = caller_of(request, identity)
    seen: Prepared | str | None = None
    if body.image_base64 is not None and image2emb is not None:
        (seen,) = await prepared(service, image2emb, [(body.image_base64, None)], caller)
    product = Product("", title=body.title, description=body.description, brand=body.brand)

    def work() -> SimilarOut:
        look = looks_of(_embedded(loaded.classifier, product, seen), 1)[0]
        error = seen if isinstance(seen, str) else None
        if not look:
            raise ServiceError(
                "picture_unusable" if error is not None else "invalid_input",
                error or "neither a text nor a picture that the model can use",
                allowed="a title, a description, a brand or a picture",
                remedy="Send one of them.",
            )
        # A session of its own: that of a POST would take the lock of those who write.
        with service.database.reading() as session:
            return _answer(session, service, identity, loaded, look, body.node_id, body.limit, error=error)

    # It takes a place beside predictions, so that it is refused as they are when there are too many.
    with service.answering.batcher.reserve(caller):
        return await run_in_threadpool(work)


@router.get(
    "/v1/products/{product_id}/similar",
    summary="Products that look like a product",
    responses=responses("not_found", "invalid_input", "busy"),
)
def find_similar_to_product(
    request: Request,
    product_id: ProductId,
    filters: Annotated[SimilarFilters, Query()],
    service: ServiceDep,
    identity: Reader,
) -> SimilarOut:
    """The products that look most like one that the caller may read; itself left out."""
    loaded = service.models.current()
    with service.database.reading() as session:
        row = session.scalar(select(ProductRow).where(ProductRow.id == product_id, seen_by(identity)))
        if row is None:
            raise not_found(f"product {product_id}")
        look = service.lookalikes.stored_look(session, loaded, row)
        hashes = [] if look is not None else service.lookalikes.hashes_of(session, row)
    # Nobody else waits for a connection while it is embedded.
    if look is None:
        with service.answering.batcher.reserve(caller_of(request, identity)):
            look = service.lookalikes.new_look(loaded, row, hashes)
    with service.database.reading() as session:
        return _answer(
            session, service, identity, loaded, look, filters.node_id, filters.limit, without=product_id
        )


def _embedded(classifier: Classifier, product: Product, seen: Prepared | str | None) -> Embedded:
    text = image = None
    if classifier.text2emb is not None and classifier.manifest.text is not None:
        text = classifier.text2emb([text_of(product, classifier.manifest.text.spec)])
    if classifier.image2emb is not None and isinstance(seen, Prepared):
        image = classifier.image2emb.embed_prepared([[seen]])
    return Embedded(text, image, (None,))


def _answer(
    session: Session,
    service: Service,
    identity: Identity,
    loaded: Loaded,
    look: Look,
    node_id: str | None,
    limit: int,
    *,
    without: str = "",
    error: str | None = None,
) -> SimilarOut:
    nearest, complete = service.lookalikes.of(loaded)
    sees_all = identity.role in SEES_ALL
    across = service.settings.similar_across_sellers
    found: list[tuple[Near, ProductRow]] = []
    asked = limit + _MORE
    while look:
        near = nearest.to(
            look, asked, node_id=node_id, owner_id=None if sees_all else identity.user_id, sold=across
        )
        rows = _rows(session, [one.product_id for one in near])
        nearest.drop(one.product_id for one in near if one.product_id not in rows)  # another server deleted them
        found = [
            (one, row)
            for one in near
            if (row := rows.get(one.product_id)) is not None
            and row.id != without
            # What the memory says may be some moments old; the database decides who sees what.
            and (sees_all or row.owner_id == identity.user_id or (across and row.node_id is not None))
            and node_id in (None, row.node_id)
        ]
        if len(found) >= limit or len(near) < asked or asked >= _MAX_ASKED:
            break
        asked *= 4
    shown = found[:limit]
    readable = [row.id for _, row in shown if sees_all or row.owner_id == identity.user_id]
    pictures = pictures_of(session, readable)
    return SimilarOut(
        items=[
            _shown(loaded, identity, one, row, readable=row.id in readable, pictures=pictures.get(row.id, ()))
            for one, row in shown
        ],
        complete=complete,
        picture_error=error,
        model_version=loaded.model_version,
    )


def _shown(
    loaded: Loaded, identity: Identity, near: Near, row: ProductRow, *, readable: bool, pictures: Sequence[str]
) -> SimilarProduct:
    node = None if row.node_id is None else loaded.taxonomy.find(row.node_id)
    return SimilarProduct(
        similarity=round(near.similarity, 4),
        node_id=row.node_id,
        path=None if node is None else loaded.taxonomy.paths[node],
        title=row.title,
        mine=row.owner_id == identity.user_id,
        product_id=row.id if readable else None,
        owner_id=row.owner_id if readable else None,
        pictures=list(pictures),
    )


def _rows(session: Session, product_ids: Sequence[str]) -> dict[str, ProductRow]:
    found: dict[str, ProductRow] = {}
    for start in range(0, len(product_ids), 500):
        wanted = select(ProductRow).where(ProductRow.id.in_(product_ids[start : start + 500]))
        found |= {row.id: row for row in session.scalars(wanted)}
    return found
