"""Products in bulk: rows of a feed become products of a seller, and stored products are read for work."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final, Literal

from pydantic import ValidationError
from sqlalchemy import delete, exists, insert, select
from sqlalchemy.exc import DBAPIError, IntegrityError
from sqlalchemy.orm import Session

from shelver.product import title_key
from shelver.service.db import Database
from shelver.service.drivers import is_conflict
from shelver.service.jobs.leases import Lease, LeaseLostError, holding, told
from shelver.service.products.payloads import ProductBody
from shelver.service.products.pictures import Stored, note, pictures_of
from shelver.service.tables.accounts import User
from shelver.service.tables.declarative import now
from shelver.service.tables.records import PictureRow, ProductPicture, ProductRow
from shelver.service.tables.work import JobRow
from shelver.taxonomy import Taxonomy

DEMO_OWNER: Final = hashlib.sha256(b"shelver demo shop").hexdigest()[:32]
"""The account that has the demo's products; nobody can sign in with it."""
_PAGE: Final = 500
_TRIES: Final = 5
_REPLACED: Final = ("title", "description", "brand", "node_id")
Counts = Mapping[str, int]
"""How many of what, in the order in which people read it."""


Existing = Literal["skip", "replace"]
Outcome = Literal["added", "replaced", "skipped"]


@dataclass(frozen=True, slots=True)
class NewProduct:
    """A product that a job adds, or that replaces the one of its seller that has the same id of his.

    Attributes:
        id: made from the job and the row, so that no row becomes two products.
        body: what is said of it; its category stands in the tree `taxonomy_version`.
        taxonomy_version: of the tree; None without a category.
        pictures: in their order; they are in the store already.
    """

    id: str
    body: ProductBody
    taxonomy_version: str | None
    pictures: tuple[Stored, ...]


@dataclass(frozen=True, slots=True)
class Settled:
    """What became of a product.

    Attributes:
        id: of the stored product.
        outcome: `skipped` where there was one already, which is as it was before.
        warnings: what of it could not be used, as codes.
    """

    id: str
    outcome: Outcome
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class StoredProduct:
    """A product as it is stored, with the hashes of its pictures."""

    id: str
    title: str | None
    description: str | None
    brand: str | None
    attributes: dict[str, list[str]]
    node_id: str | None
    pictures: tuple[str, ...]


def id_of_row(job_id: str, number: int) -> str:
    """The id of the product, or prediction, that a job makes of the record with this number."""
    return hashlib.sha256(f"{job_id} {number}".encode()).hexdigest()[:32]


def node_named(category: str | tuple[str, ...], tree: Taxonomy) -> str | None:
    """The node that a category names, by its id or its path."""
    names = (category,) if isinstance(category, str) else category
    text = " > ".join(names)
    node = tree.find(text)
    for path in (names, tuple(text.split(" > "))):
        if node is None:
            node = tree.find_path(path)
    return None if node is None else tree.ids[node]


def settled(database: Database, lease: Lease) -> int:
    """How many records of its feed an import has settled, in this attempt and those before."""
    with database.reading() as session:
        return int(session.scalar(select(JobRow.cursor).where(JobRow.id == lease.job_id)) or 0)


def add_products(
    database: Database,
    lease: Lease,
    products: Sequence[NewProduct],
    *,
    owner_id: str,
    existing: Existing = "skip",
    settle: tuple[int, int],
    note: Callable[[Sequence[Settled]], Counts],
) -> None:
    """Add products and note that their records are settled, in one transaction: each record counts once.

    Args:
        database: where to.
        lease: of the import.
        products: what came of the records; no two have the same id of their seller.
        owner_id: whose they are.
        existing: what becomes of one that the seller has already.
        settle: how many records were settled before, and how many are now.
        note: is told what became of each product, before that is committed, and says how far the job came; called
            again where the transaction had to be begun again.

    Raises:
        LeaseLostError: another attempt goes on with the job; nothing was added.
    """
    for left in reversed(range(_TRIES)):
        try:
            _add(database, lease, products, owner_id, existing, settle, note)
            return
        except DBAPIError as error:
            # Somebody else stored, or changed, one of them at the same moment: now it is seen.
            if not left or not (isinstance(error, IntegrityError) or is_conflict(error)):
                raise


def _add(
    database: Database,
    lease: Lease,
    products: Sequence[NewProduct],
    owner_id: str,
    existing: Existing,
    settle: tuple[int, int],
    note_them: Callable[[Sequence[Settled]], Counts],
) -> None:
    before, after = settle
    with holding(database, lease) as (session, job):
        if job.cursor != before:
            raise LeaseLostError(lease.job_id)
        owner = select(User.id).where(User.id == lease.owner_id, User.disabled_at.is_(None))
        if session.scalar(owner.with_for_update(read=True)) is None:  # who leaves now waits until this is written
            raise LeaseLostError(lease.job_id)
        note(session, [picture for product in products for picture in product.pictures])
        there = _there_already(session, owner_id, products)
        moment = now()
        settled = []
        for product in products:
            row = there.get(product.body.seller_product_id or "")
            if row is None:
                session.add(_new_row(product, owner_id, moment))
                settled.append(Settled(product.id, "added"))
            elif existing == "skip":
                settled.append(Settled(row.id, "skipped"))
            else:
                settled.append(_replace(session, row, product, moment))
        session.flush()
        added = {one.id for one in settled if one.outcome == "added"}
        _link(session, {product.id: _hashes(product) for product in products if product.id in added})
        job.cursor = after
        counts = note_them(settled)
        words = ", ".join(f"{n:,} {what}" for what, n in counts.items() if n)
        told(session, job, fraction=None, phase="importing", words=words, counts=counts)


def _there_already(session: Session, owner_id: str, products: Sequence[NewProduct]) -> dict[str, ProductRow]:
    """The stored products of these that the seller has already, by his ids, locked until they are written."""
    called = [product.body.seller_product_id for product in products if product.body.seller_product_id is not None]
    own = select(ProductRow).where(ProductRow.owner_id == owner_id, ProductRow.seller_product_id.in_(called))
    rows = session.scalars(own.order_by(ProductRow.id).with_for_update()).all() if called else ()
    return {row.seller_product_id or "": row for row in rows}


def _new_row(product: NewProduct, owner_id: str, moment: datetime) -> ProductRow:
    body = product.body
    return ProductRow(
        id=product.id,
        owner_id=owner_id,
        seller_product_id=body.seller_product_id,
        title=body.title,
        description=body.description,
        brand=body.brand,
        attributes=body.attributes,
        search_key=title_key(f"{body.title or ''} {body.brand or ''}"),
        node_id=body.node_id,
        taxonomy_version=product.taxonomy_version,
        version=1,
        created_at=moment,
        updated_at=moment,
    )


def _replace(session: Session, row: ProductRow, product: NewProduct, moment: datetime) -> Settled:
    """Write what a feed says over what is stored; what it does not say stays."""
    body, hashes = product.body, _hashes(product)
    said = {name: value for name in _REPLACED if (value := getattr(body, name))}
    said["attributes"] = {**row.attributes, **body.attributes}
    warnings: tuple[str, ...] = ()
    try:
        ProductBody(attributes=said["attributes"])
    except ValidationError:  # with those that the feed does not say they are too many
        del said["attributes"]
        warnings = ("too_many_attributes",)
    said = {name: value for name, value in said.items() if getattr(row, name) != value}
    pictured = bool(hashes) and hashes != pictures_of(session, [row.id]).get(row.id)
    if not said and not pictured:
        return Settled(row.id, "skipped", warnings)
    if "node_id" in said:
        said["taxonomy_version"] = product.taxonomy_version
    for name, value in said.items():
        setattr(row, name, value)
    row.search_key = title_key(f"{row.title or ''} {row.brand or ''}")
    row.version += 1
    row.updated_at = moment
    if pictured:  # the files of those before go with the next sweep
        session.execute(delete(ProductPicture).where(ProductPicture.product_id == row.id))
        _link(session, {row.id: hashes})
    return Settled(row.id, "replaced", warnings)


def _hashes(product: NewProduct) -> list[str]:
    return list(dict.fromkeys(picture.hash for picture in product.pictures))


def _link(session: Session, pictures: Mapping[str, Sequence[str]]) -> None:
    """Let products, by their ids, show these pictures."""
    links = [
        {"product_id": product_id, "hash": hash_, "position": position}
        for product_id, hashes in pictures.items()
        for position, hash_ in enumerate(hashes)
    ]
    if links:
        session.execute(insert(ProductPicture), links)


def stored_products(
    database: Database, *, owner_id: str | None = None, labelled: bool = False
) -> Iterator[list[StoredProduct]]:
    """Stored products, a page at a time, in the order of their ids; each page is read in a moment.

    Args:
        database: where they are.
        owner_id: whose; everybody's without it.
        labelled: only those with a category.
    """
    wanted = select(ProductRow).order_by(ProductRow.id).limit(_PAGE)
    if owner_id is not None:
        wanted = wanted.where(ProductRow.owner_id == owner_id)
    if labelled:
        wanted = wanted.where(ProductRow.node_id.is_not(None))
    last = ""
    while True:
        with database.reading() as session:
            rows = session.scalars(wanted.where(ProductRow.id > last)).all()
            shown = pictures_of(session, [row.id for row in rows])
        if not rows:
            return
        last = rows[-1].id
        yield [
            StoredProduct(
                row.id,
                row.title,
                row.description,
                row.brand,
                row.attributes,
                row.node_id,
                tuple(shown.get(row.id, ())),
            )
            for row in rows
        ]


def reset_demo_shop(database: Database, lease: Lease) -> None:
    """Empty the demo's shop, unless this job has begun to fill it; raises as `add_products`.

    The files of its pictures stay until the next sweep.
    """
    with holding(database, lease) as (session, job):
        if job.cursor:
            return
        if session.get(User, DEMO_OWNER) is None:
            session.add(User(id=DEMO_OWNER, name="Demo shop", role="seller", disabled_at=now()))
            session.flush()
        own = select(ProductRow.id).where(ProductRow.owner_id == DEMO_OWNER)
        shown = session.scalars(select(ProductPicture.hash).where(ProductPicture.product_id.in_(own))).all()
        session.execute(
            delete(ProductPicture).where(ProductPicture.product_id.in_(own)),
            execution_options={"synchronize_session": False},
        )
        session.execute(
            delete(ProductRow).where(ProductRow.owner_id == DEMO_OWNER),
            execution_options={"synchronize_session": False},
        )
        still = exists().where(ProductPicture.hash == PictureRow.hash)
        for start in range(0, len(shown), _PAGE):
            session.execute(
                delete(PictureRow).where(PictureRow.hash.in_(shown[start : start + _PAGE]), ~still),
                execution_options={"synchronize_session": False},
            )
