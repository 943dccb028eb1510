"""Keeps what products look like: embeds those that were saved, follows other servers, finds those that look alike.

A thread of its own embeds, a few products at a time, and waits while predictions wait. The database says what is
there: who was stopped before he had embedded a product, or has another model by now, finds it again.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Final, Self

import structlog
from sqlalchemy import Select, and_, delete, or_, select
from sqlalchemy.exc import IntegrityError, SQLAlchemyError
from sqlalchemy.orm import Session

from shelver.pipeline.classifier import Classifier
from shelver.product import Product
from shelver.service.db import Database
from shelver.service.lookalikes.nearest import Nearest, Placed
from shelver.service.lookalikes.vectors import Look, encoders_of, looks_of, packed, unpacked
from shelver.service.problems import ServiceError
from shelver.service.tables.declarative import now
from shelver.service.tables.records import ProductPicture, ProductRow
from shelver.service.tables.vectors import ProductVector

if TYPE_CHECKING:
    from shelver.service.models.champion import Loaded
    from shelver.service.products.pictures import PictureStore

CHUNK: Final = 8
"""Products that are embedded at once; predictions wait no longer than for these."""
MAX_PICTURES: Final = 4
"""Pictures of a product that are looked at."""
FOLLOW_S: Final = 2.0
"""How often a server looks what others have embedded."""
SCAN_S: Final = 60.0
"""How often it looks for products that nobody has embedded."""
KEPT_DAYS: Final = 7
"""Vectors of encoders that nobody uses any more are deleted after that."""
_PAGE: Final = 1000
_MAX_PENDING: Final = 10_000
_OVERLAP: Final = timedelta(seconds=60)
"""Commits come later than the times that they name, and clocks differ."""
_AGAIN_S: Final = 5.0
log = structlog.get_logger("shelver.service")


class Lookalikes:
    """The products of the store by their looks; open as long as the service is.

    Args:
        database: has the products, and the vectors of all servers.
        current: the model that answers now.
        pictures: where products' pictures lie.
        busy: whether predictions wait.
        most: so many products are held in memory; 0 embeds nothing and finds nothing.
    """

    def __init__(
        self,
        database: Database,
        current: Callable[[], Loaded],
        pictures: PictureStore,
        *,
        busy: Callable[[], bool] = lambda: False,
        most: int,
    ) -> None:
        self._database = database
        self._current = current
        self._pictures = pictures
        self._busy = busy
        self._most = most
        self._wake = threading.Condition()
        self._pending: dict[str, None] = {}  # in the order of their coming
        self._stopping = False
        self._working: tuple[str, ...] = ()
        self._shown: tuple[str, Nearest] = "", Nearest(most)
        self._named: tuple[str, str] = "", ""
        self._whole = False
        # The thread's own; times are of the monotonic clock.
        self._since: datetime | None = None
        self._scanned = ""
        self._follow_at = self._scan_at = 0.0
        self._thread = threading.Thread(target=self._run, name="shelver-looks", daemon=True)

    def __enter__(self) -> Self:
        if self._most:
            self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        with self._wake:
            self._stopping = True
            self._wake.notify_all()
        if self._thread.ident is not None:
            self._thread.join(timeout=10)

    def changed(self, product_ids: Sequence[str]) -> None:
        """Products were saved: embed them soon. Call it after the commit."""
        with self._wake:
            if not self._most:
                return
            if len(self._pending) + len(product_ids) <= _MAX_PENDING:
                self._pending.update(dict.fromkeys(product_ids))
            else:  # the next scan finds them
                self._whole, self._scanned, self._scan_at = False, "", 0.0
            self._wake.notify_all()

    def gone(self, product_ids: Sequence[str]) -> None:
        """Products were deleted: forget them."""
        self._shown[1].drop(product_ids)

    def of(self, loaded: Loaded) -> tuple[Nearest, bool]:
        """The products as this model sees them, and whether these are all."""
        encoders, nearest = self._shown
        if encoders != self._encoders(loaded):
            return Nearest(0), False
        return nearest, self._whole and not self._lags() and not nearest.full

    def stored_look(self, session: Session, loaded: Loaded, product: ProductRow) -> Look | None:
        """What a product looks like; None where nobody has embedded it yet."""
        key = {"product_id": product.id, "encoders": self._encoders(loaded)}
        row = session.get(ProductVector, key)
        if row is not None and row.version == product.version:
            return Look(unpacked(row.text), unpacked(row.image))
        return None

    def hashes_of(self, session: Session, product: ProductRow) -> Sequence[str]:
        """The pictures that are looked at."""
        return session.scalars(_hashes(product.id)).all()

    def new_look(self, loaded: Loaded, product: ProductRow, hashes: Sequence[str]) -> Look:
        """What a product looks like, embedded now."""
        return embedded(loaded.classifier, [self._product(product, hashes)])[0]

    def settled(self, timeout_s: float = 10.0) -> bool:
        """Wait until all that was saved here is embedded; False where the time was not enough."""
        until = time.monotonic() + timeout_s
        while time.monotonic() < until:
            if self._whole and not self._lags() and self._shown[0] == self._encoders(self._current()):
                return True
            time.sleep(0.01)
        return False

    def _lags(self) -> bool:
        return bool(self._pending or self._working)

    def _encoders(self, loaded: Loaded) -> str:
        named = self._named
        if named[0] != loaded.model_version:
            named = self._named = loaded.model_version, encoders_of(loaded.manifest)
        return named[1]

    def _run(self) -> None:
        told = False
        while not self._stopping:
            try:
                if not self._turn():
                    with self._wake:
                        self._wake.wait_for(lambda: self._stopping or bool(self._pending), FOLLOW_S)
                told = False
                continue
            except (SQLAlchemyError, ServiceError) as error:  # the database is down, or no model answers yet
                if not told:
                    log.warning("products are not embedded for now", error=type(error).__name__)
            except Exception:
                log.exception("products cannot be embedded")
            with self._wake:
                self._wake.wait_for(lambda: self._stopping, _AGAIN_S if told else 0.5)
            told = True

    def _turn(self) -> bool:
        """One piece of work; whether there is more."""
        loaded = self._current()
        encoders = self._encoders(loaded)
        if encoders != self._shown[0]:
            self._whole, self._since, self._scanned, self._scan_at = False, None, "", 0.0
            self._shown = encoders, Nearest(self._most)
        if self._since is None or time.monotonic() >= self._follow_at:
            self._follow(encoders)
            self._follow_at = time.monotonic() + FOLLOW_S
        ids = self._take()
        if ids:
            self._yield_to_predictions()
            try:
                self._embed(loaded, encoders, ids)
            except BaseException:
                self.changed(ids)
                raise
            finally:
                self._working = ()
            return True
        if time.monotonic() >= self._scan_at:
            return self._scan(encoders)
        return False

    def _take(self) -> tuple[str, ...]:
        """The next products, which are no longer pending: one that changes from now on is pending again."""
        with self._wake:
            self._working = tuple(self._pending)[:CHUNK]
            for product_id in self._working:
                del self._pending[product_id]
            return self._working

    def _follow(self, encoders: str) -> None:
        """Take over what the table has got since the last look, at first all of it."""
        nearest, began = self._shown[1], now()
        after = ""
        while not self._stopping:
            found = (
                select(ProductVector.product_id, ProductVector.version)
                .where(ProductVector.encoders == encoders, ProductVector.product_id > after)
                .order_by(ProductVector.product_id)
                .limit(_PAGE)
            )
            if self._since is not None:
                found = found.where(ProductVector.at >= self._since - _OVERLAP)
            with self._database.reading() as session:
                page = session.execute(found).all()
                new = [id_ for id_, version in page if nearest.version(id_) != version]
                if new:
                    nearest.put(_placed(session, encoders, new))
            if len(page) < _PAGE:
                break
            after = page[-1].product_id
        self._since = began

    def _scan(self, encoders: str) -> bool:
        """Find products that nobody has embedded as they are now; whether there are more."""
        lacking = (
            select(ProductRow.id)
            .outerjoin(
                ProductVector,
                and_(ProductVector.product_id == ProductRow.id, ProductVector.encoders == encoders),
            )
            .where(or_(ProductVector.version.is_(None), ProductVector.version != ProductRow.version))
            .where(ProductRow.id > self._scanned)
            .order_by(ProductRow.id)
            .limit(_PAGE)
        )
        with self._database.reading() as session:
            ids = session.scalars(lacking).all()
        self.changed(ids)
        self._scanned = ids[-1] if len(ids) == _PAGE else ""
        if self._scanned:
            return True
        self._scan_at = time.monotonic() + SCAN_S
        self._whole = True  # but for what waits now
        self._prune(encoders)
        return bool(ids)

    def _prune(self, encoders: str) -> None:
        old = ProductVector.at < now() - timedelta(days=KEPT_DAYS)
        wanted = select(ProductVector.product_id, ProductVector.encoders)
        with self._database.reading() as session:
            found = session.execute(wanted.where(ProductVector.encoders != encoders, old).limit(1)).first()
        if found is not None:
            with self._database.writing() as session:
                session.execute(delete(ProductVector).where(ProductVector.encoders == found.encoders, old))

    def _yield_to_predictions(self) -> None:
        until = time.monotonic() + 1.0
        while self._busy() and not self._stopping and time.monotonic() < until:
            time.sleep(0.005)

    def _embed(self, loaded: Loaded, encoders: str, ids: Sequence[str]) -> None:
        with self._database.reading() as session:
            rows = session.scalars(select(ProductRow).where(ProductRow.id.in_(ids))).all()
            asked = [(row, session.scalars(_hashes(row.id)).all()) for row in rows]
        looks = embedded(loaded.classifier, [self._product(row, hashes) for row, hashes in asked])
        placed = [
            Placed(row.id, row.owner_id, row.node_id, row.version, look)
            for row, look in zip(rows, looks, strict=True)
        ]
        try:
            self._write(encoders, placed)
        except IntegrityError:  # another server wrote one at the same time, or one was deleted
            for one in placed:
                try:
                    self._write(encoders, [one])
                except IntegrityError:
                    log.info("the look of a product was not stored", product_id=one.product_id)
        self._shown[1].put(placed)

    def _write(self, encoders: str, placed: Sequence[Placed]) -> None:
        ids = [one.product_id for one in placed]
        wanted = ProductVector.encoders == encoders, ProductVector.product_id.in_(ids)
        with self._database.writing() as session:
            known = {row.product_id: row for row in session.scalars(select(ProductVector).where(*wanted))}
            there = set(session.scalars(select(ProductRow.id).where(ProductRow.id.in_(ids))))
            for one in placed:
                if one.product_id not in there:
                    continue
                row = known.get(one.product_id)
                if row is None:
                    row = ProductVector(product_id=one.product_id, encoders=encoders)
                    session.add(row)
                row.version, row.at = one.version, now()
                row.text, row.image = packed(one.look.text), packed(one.look.image)

    def _product(self, row: ProductRow, hashes: Sequence[str]) -> Product:
        pictures = tuple(data for hash_ in hashes if (data := self._pictures.get(hash_)) is not None)
        return Product(row.id, title=row.title, description=row.description, brand=row.brand, images=pictures)


def embedded(classifier: Classifier, products: Sequence[Product]) -> list[Look]:
    """What products look like; one that cannot be embedded looks like nothing, and the others do not suffer."""
    try:
        return looks_of(classifier.embed(products), len(products))
    except Exception:
        if len(products) == 1:
            log.exception("a product cannot be embedded", product_id=products[0].product_id)
            return [Look(None, None)]
        return [embedded(classifier, [product])[0] for product in products]


def _hashes(product_id: str) -> Select[str]:
    wanted = select(ProductPicture.hash).where(ProductPicture.product_id == product_id)
    return wanted.order_by(ProductPicture.position).limit(MAX_PICTURES)


def _placed(session: Session, encoders: str, ids: Sequence[str]) -> list[Placed]:
    rows = (
        select(ProductVector, ProductRow.owner_id, ProductRow.node_id)
        .join(ProductRow, ProductRow.id == ProductVector.product_id)
        .where(ProductVector.encoders == encoders, ProductVector.product_id.in_(ids))
    )
    return [
        Placed(row.product_id, owner_id, node_id, row.version, Look(unpacked(row.text), unpacked(row.image)))
        for row, owner_id, node_id in session.execute(rows)
    ]
