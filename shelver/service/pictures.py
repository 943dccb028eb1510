"""Pictures of products: files named by the hash of their bytes, and who may see them.

A picture that no product shows any more is removed. One that was put a moment ago stays for `GRACE_S`, since a
request that is about to refer to it may not be committed yet; `sweep` finds what stayed.
"""

from __future__ import annotations

import os
import re
import time
import uuid
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final

from fastapi import APIRouter, Request, Response
from fastapi import Path as InPath
from sqlalchemy import delete, exists, insert, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from shelver.images import ImageFormat, content_hash, decode, sniff
from shelver.service.db import Database, SessionDep, after_commit
from shelver.service.identity import Identity, allowed
from shelver.service.problems import ServiceError, not_found, responses
from shelver.service.state import Service, ServiceDep
from shelver.service.tables.records import PictureRow, ProductPicture, ProductRow

GRACE_S: Final = 60.0
"""A file younger than this is not removed; no request takes as long."""
MAX_PICTURES: Final = 12
"""A product."""
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
_CHECKED_PX: Final = (224, 224)
_HASH: Final = re.compile(r"[0-9a-f]{64}")
_HEADERS: Final = {
    "X-Content-Type-Options": "nosniff",
    # The bytes are a stranger's: a browser may show them and nothing else.
    "Content-Security-Policy": "default-src 'none'; sandbox",
    "Content-Disposition": "inline",
    "Cross-Origin-Resource-Policy": "same-site",
    "Cache-Control": "private, max-age=86400, immutable",
}
router = APIRouter(tags=["pictures"])


@dataclass(frozen=True, slots=True)
class Stored:
    """A picture in the store: the SHA-256 of its bytes in hex, their number, and what they are."""

    hash: str
    n_bytes: int
    kind: ImageFormat


class PictureStore:
    """A folder of pictures. Any number of threads and processes may use it.

    Args:
        folder: made where it is not there.
        grace_s: how long a file is safe from being removed after it was put.
    """

    def __init__(self, folder: Path, *, grace_s: float = GRACE_S) -> None:
        self._folder = folder
        self._grace_s = grace_s
        folder.mkdir(parents=True, exist_ok=True)

    def put(self, data: bytes) -> Stored:
        """Keep a picture; the same bytes are kept once. `note` tells the database of it.

        Raises:
            ImageError: the bytes are no picture that can be used.
        """
        # Decoded as a network would: what passes here is no bomb, and no network stumbles over it later.
        decode(data, target_px=_CHECKED_PX)
        kind = sniff(data)
        assert kind is not None  # it was decoded
        stored = Stored(content_hash(data).hex(), len(data), kind)
        path = self._path(stored.hash)
        if self._touched(path):
            return stored
        path.parent.mkdir(exist_ok=True)
        unfinished = path.with_name(f".{uuid.uuid4().hex}")
        try:
            with unfinished.open("xb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            unfinished.replace(path)
        finally:
            unfinished.unlink(missing_ok=True)
        _sync(path.parent)
        return stored

    def get(self, hash_: str) -> bytes | None:
        """The bytes of a picture; None where there is none, or where the file no longer is what it was."""
        try:
            data = self._path(hash_).read_bytes()
        except (FileNotFoundError, ValueError):
            return None
        return data if content_hash(data).hex() == hash_ else None

    def remove(self, hashes: Iterable[str]) -> int:
        """Remove files, but for those that were put a moment ago; how many were removed."""
        n_removed = 0
        for hash_ in hashes:
            path = self._path(hash_)
            try:
                if time.time() - path.stat().st_mtime < self._grace_s:
                    continue
                path.unlink()
            except FileNotFoundError:
                continue
            n_removed += 1
        return n_removed

    def hashes(self) -> Iterator[str]:
        """Every picture of the folder, in no order."""
        for path in self._folder.glob("??/*"):
            if _HASH.fullmatch(path.name):
                yield path.name

    def _path(self, hash_: str) -> Path:
        if not _HASH.fullmatch(hash_):
            raise ValueError("not the SHA-256 of a picture")
        return self._folder / hash_[:2] / hash_

    def _touched(self, path: Path) -> bool:
        """Whether the file is there; its time of grace begins anew."""
        try:
            os.utime(path)
        except FileNotFoundError:
            return False
        return True


def sweep(store: PictureStore, database: Database) -> int:
    """Remove every file that the database does not know; how many there were."""
    n_removed = 0
    waiting: list[str] = []
    for hash_ in store.hashes():
        waiting.append(hash_)
        if len(waiting) == 500:
            n_removed += remove_unknown(store, database, waiting)
            waiting = []
    return n_removed + remove_unknown(store, database, waiting)


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


def _forget_unshown(session: Session, hashes: Collection[str]) -> list[str]:
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
    gone = _forget_unshown(session, hashes)
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
        200: {"description": "The bytes as they were uploaded", "content": {"image/jpeg": {}, "image/png": {}}},
        304: {"description": "The caller has it already"},
        **responses("not_found"),
    },
)
def read_picture(
    request: Request,
    hash_: Annotated[str, InPath(alias="hash", pattern=r"^[0-9a-f]{64}$", examples=["9f" * 32])],
    session: SessionDep,
    service: ServiceDep,
    identity: Annotated[Identity, allowed("seller", "reviewer", "admin", "service")],
) -> Response:
    """The picture with this SHA-256, for who may see a product that shows it."""
    shown = select(PictureRow.kind).join(ProductPicture).where(PictureRow.hash == hash_).limit(1)
    if identity.role not in SEES_ALL:
        shown = shown.join(ProductRow).where(ProductRow.owner_id == identity.user_id)
    kind = session.scalar(shown)
    if kind is None:
        raise not_found(f"picture {hash_}")
    etag = f'"{hash_}"'
    if request.headers.get("if-none-match") == etag:
        return Response(status_code=304, headers={"ETag": etag, **_HEADERS})
    data = service.pictures.get(hash_)
    if data is None:
        raise not_found(f"picture {hash_}")
    media_type = MEDIA_TYPES.get(kind)  # type: ignore[call-overload]
    return Response(data, media_type=media_type, headers={"ETag": etag, **_HEADERS})


def _sync(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
