"""Pictures of products: which there are, who may see them, and when one goes. `picture_store` keeps the bytes.

A picture that no product shows any more is removed. One that was put a moment ago stays for `GRACE_S`, since a
request that is about to refer to it may not be committed yet; `sweep`, once a day, finds what stayed.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import suppress
from datetime import timedelta
from typing import Annotated, Final

from fastapi import APIRouter, Request, Response
from fastapi import Path as InPath
from sqlalchemy import delete, exists, insert, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from shelver.images import ImageFormat
from shelver.service.accounts.identity import Identity, allowed
from shelver.service.db import Database, after_commit
from shelver.service.problems import ServiceError, not_found, responses
from shelver.service.products.payloads import MAX_PICTURES
from shelver.service.products.picture_store import PictureStore as PictureStore
from shelver.service.products.picture_store import Stored as Stored
from shelver.service.state import Service, ServiceDep
from shelver.service.tables.declarative import now
from shelver.service.tables.records import PictureRow, ProductPicture, ProductRow

SEES_ALL: Final = ("reviewer", "admin")
"""Roles that see every seller's products, pictures and predictions."""
MEDIA_TYPES: Final[dict[ImageFormat, str]] = {
    "JPEG": "image/jpeg",
    "PNG": "image/png",
    "WEBP": "image/webp",
    "GIF": "image/gif",
    "BMP": "image/bmp",
    "AVIF": "image/avif",
}
HEADERS: Final = {
    "X-Content-Type-Options": "nosniff",
    # The bytes are a stranger's: a browser may show them and nothing else.
    "Content-Security-Policy": "default-src 'none'; sandbox",
    "Content-Disposition": "inline",
    "Cross-Origin-Resource-Policy": "same-site",
    "Cache-Control": "private, max-age=86400, immutable",
}
_UNSHOWN: Final = timedelta(days=1)
_AT_ONCE: Final = 500
router = APIRouter(tags=["pictures"])


def sweep(store: PictureStore, database: Database) -> int:
    """Remove what no product shows; how many files there were."""
    return sum(swept(store, database))


def swept(store: PictureStore, database: Database) -> Iterator[int]:
    """Remove what no product shows: rows that were noted for a product that never came, and every file that has no
    row. Yields how many files were removed, step by step."""
    old = PictureRow.created_at < now() - _UNSHOWN, ~exists().where(ProductPicture.hash == PictureRow.hash)
    n_rows = _AT_ONCE
    while n_rows == _AT_ONCE:
        with database.writing() as session:
            gone = session.scalars(select(PictureRow.hash).where(*old).limit(_AT_ONCE)).all()
            session.execute(delete(PictureRow).where(PictureRow.hash.in_(gone), *old))
        n_rows = len(gone)
        yield 0
    waiting: list[str] = []
    for hash_ in store.hashes():
        waiting.append(hash_)
        if len(waiting) == _AT_ONCE:
            yield remove_unknown(store, database, waiting)
            waiting = []
    yield remove_unknown(store, database, waiting)


def remove_unknown(store: PictureStore, database: Database, hashes: Collection[str]) -> int:
    """Remove those files of the given ones that the database does not know."""
    if not hashes:
        return 0
    with database.reading() as session:
        known = set(session.scalars(select(PictureRow.hash).where(PictureRow.hash.in_(hashes))))
    return store.remove(set(hashes) - known)


def note(session: Session, stored: Iterable[Stored]) -> None:
    """Let the database know of pictures that were put."""
    for picture in {picture.hash: picture for picture in stored}.values():
        if session.get(PictureRow, picture.hash) is None:
            with suppress(IntegrityError), session.begin_nested():  # another request put the same picture
                session.add(PictureRow(hash=picture.hash, n_bytes=picture.n_bytes, kind=picture.kind))


def forget_unshown(session: Session, hashes: Collection[str]) -> list[str]:
    """Delete the rows of those pictures that no product shows."""
    if not hashes:
        return []
    shown = exists().where(ProductPicture.hash == PictureRow.hash)
    gone = list(session.scalars(select(PictureRow.hash).where(PictureRow.hash.in_(hashes), ~shown)))
    if gone:
        session.execute(delete(PictureRow).where(PictureRow.hash.in_(gone)))
    return gone


def show(session: Session, service: Service, product: ProductRow, pictures: Sequence[Stored | str]) -> None:
    """Let the product show these pictures in this order, and no others."""
    note(session, (picture for picture in pictures if isinstance(picture, Stored)))
    hashes = list(dict.fromkeys(p.hash if isinstance(p, Stored) else p for p in pictures))
    named = {picture for picture in pictures if isinstance(picture, str)}
    of_owner = select(ProductPicture.hash).join(ProductRow).where(ProductRow.owner_id == product.owner_id)
    unknown = named - set(session.scalars(of_owner.where(ProductPicture.hash.in_(named)))) if named else None
    if unknown or len(hashes) > MAX_PICTURES:
        raise ServiceError(
            "invalid_input",
            f"the picture {min(unknown)}" if unknown else f"{len(hashes)} pictures",
            allowed=f"at most {MAX_PICTURES} pictures; by hash those that products of this owner show",
            remedy="Send the bytes as base64." if unknown else "Leave some out.",
        )
    before = pictures_of(session, [product.id]).get(product.id, ())
    session.execute(delete(ProductPicture).where(ProductPicture.product_id == product.id))
    if hashes:
        links = [{"product_id": product.id, "hash": hash_, "position": i} for i, hash_ in enumerate(hashes)]
        session.execute(insert(ProductPicture), links)
    forget(session, service, set(before) - set(hashes))


def forget(session: Session, service: Service, hashes: Collection[str]) -> None:
    """Forget pictures that no product shows any more; their files go once this is committed."""
    gone = forget_unshown(session, hashes)
    if gone:

        def remove() -> None:
            remove_unknown(service.pictures, service.database, gone)

        after_commit(session, remove)


def pictures_of(session: Session, product_ids: Sequence[str]) -> dict[str, list[str]]:
    """The hashes of each product's pictures, in their order, by the product's id."""
    found: dict[str, list[str]] = {}
    rows = select(ProductPicture.product_id, ProductPicture.hash).order_by(ProductPicture.position)
    for product_id, hash_ in session.execute(rows.where(ProductPicture.product_id.in_(product_ids))):
        found.setdefault(product_id, []).append(hash_)
    return found


@router.get(
    "/v1/pictures/{hash}",
    summary="A picture",
    response_class=Response,
    responses={
        200: {
            "description": "The bytes as they were uploaded",
            "content": {
                kind: {"schema": {"type": "string", "contentMediaType": kind}} for kind in MEDIA_TYPES.values()
            },
        },
        304: {"description": "The caller has it already"},
        **responses("not_found"),
    },
)
def read_picture(
    request: Request,
    hash_: Annotated[str, InPath(alias="hash", pattern=r"^[0-9a-f]{64}$", examples=["9f" * 32])],
    service: ServiceDep,
    identity: Annotated[Identity, allowed("seller", "reviewer", "admin", "service")],
) -> Response:
    """The picture with this SHA-256, for who may see a product that shows it."""
    shown = select(PictureRow.kind).join(ProductPicture).where(PictureRow.hash == hash_).limit(1)
    if identity.role not in SEES_ALL:
        shown = shown.join(ProductRow).where(ProductRow.owner_id == identity.user_id)
    with service.database.reading() as session:  # a slow storage must not hold a connection
        kind = session.scalar(shown)
    if kind is None:
        raise not_found(f"picture {hash_}")
    etag = f'"{hash_}"'
    if request.headers.get("if-none-match") == etag:
        return Response(status_code=304, headers={"ETag": etag, **HEADERS})
    data = service.pictures.get(hash_)
    if data is None:
        raise not_found(f"picture {hash_}")
    media_type = MEDIA_TYPES.get(kind)  # type: ignore[call-overload]
    return Response(data, media_type=media_type, headers={"ETag": etag, **HEADERS})
