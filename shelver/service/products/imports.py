"""Products in bulk: rows of a feed become products of a seller, and stored products are read for work."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from sqlalchemy import delete, exists, insert, select

from shelver.product import title_key
from shelver.service.db import Database
from shelver.service.jobs.leases import Lease, LeaseLostError, holding, told
from shelver.service.products.payloads import ProductBody
from shelver.service.products.pictures import Stored, note, pictures_of
from shelver.service.tables.accounts import User
from shelver.service.tables.declarative import now
from shelver.service.tables.records import PictureRow, ProductPicture, ProductRow
from shelver.service.tables.work import JobRow

DEMO_OWNER: Final = hashlib.sha256(b"shelver demo shop").hexdigest()[:32]
"""The account that has the demo's products; nobody can sign in with it."""
_PAGE: Final = 500


@dataclass(frozen=True, slots=True)
class NewProduct:
    """A product that a job adds.

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
    settle: tuple[int, int],
    fraction: float | None,
    words: str,
) -> None:
    """Add products and note that their records are settled, in one transaction: each record counts once.

    Args:
        database: where to.
        lease: of the import.
        products: what came of the records.
        owner_id: whose they are.
        settle: how many records were settled before, and how many are now.
        fraction, words: how far the job came.

    Raises:
        LeaseLostError: another attempt goes on with the job; nothing was added.
    """
    before, after = settle
    with holding(database, lease) as (session, job):
        if job.cursor != before:
            raise LeaseLostError(lease.job_id)
        owner = select(User.id).where(User.id == lease.owner_id, User.disabled_at.is_(None))
        if session.scalar(owner.with_for_update(read=True)) is None:  # who leaves now waits until this is written
            raise LeaseLostError(lease.job_id)
        note(session, [picture for product in products for picture in product.pictures])
        moment = now()
        session.add_all(
            ProductRow(
                id=product.id,
                owner_id=owner_id,
                title=product.body.title,
                description=product.body.description,
                brand=product.body.brand,
                attributes=product.body.attributes,
                search_key=title_key(f"{product.body.title or ''} {product.body.brand or ''}"),
                node_id=product.body.node_id,
                taxonomy_version=product.taxonomy_version,
                version=1,
                created_at=moment,
                updated_at=moment,
            )
            for product in products
        )
        session.flush()
        links = [
            {"product_id": product.id, "hash": hash_, "position": position}
            for product in products
            for position, hash_ in enumerate(dict.fromkeys(picture.hash for picture in product.pictures))
        ]
        if links:
            session.execute(insert(ProductPicture), links)
        job.cursor = after
        told(session, job, fraction=fraction, phase="importing", words=words)


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
