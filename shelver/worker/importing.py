"""Products of a feed become stored products: each record once, whatever is killed; what is refused is reported."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections import Counter
from pathlib import Path
from typing import Any, Final, Literal

from pydantic import ValidationError

from shelver import registry
from shelver.catalog.ingest import ingest
from shelver.catalog.mapping import Mapping
from shelver.catalog.reader import ProductFeed, ProductRow
from shelver.catalog.rows import BadRow, Code, bad_row
from shelver.datasets.generated import write_demo
from shelver.errors import ImageError
from shelver.service.jobs.checks import mapping_of
from shelver.service.products.imports import (
    DEMO_OWNER,
    NewProduct,
    add_products,
    id_of_row,
    reset_demo_shop,
    settled,
)
from shelver.service.products.payloads import MAX_PICTURES, ProductBody
from shelver.service.products.pictures import PictureStore, Stored
from shelver.taxonomy import Taxonomy
from shelver.worker.attempt import Attempt
from shelver.worker.parts import numbered, read_feed, read_parts, uploaded, write_part

PART_ROWS: Final = 100
"""Records that are settled in one transaction."""
IMPORTED: Final = "imported.jsonl"
REJECTED: Final = "rejected.jsonl"
UnknownCategory = Literal["leave_out", "refuse"]


def import_products(attempt: Attempt) -> dict[str, Any]:
    """Add the products of a feed to those of the job's owner.

    Raises:
        FeedError, ConfigError: the feed as a whole cannot be read.
        LeaseLostError: another attempt goes on with the job.
    """
    feed = uploaded(attempt, attempt.params["upload_id"])
    mapping = mapping_of(attempt.params["mapping"])
    return _import(attempt, feed, mapping, attempt.lease.owner_id, attempt.params["unknown_category"])


def reset_demo(attempt: Attempt) -> dict[str, Any]:
    """Make the demo's products and its catalog anew; raises as `import_products`."""
    feed = write_demo(attempt.work / "demo", n_products=attempt.params["n_products"], seed=attempt.params["seed"])
    attempt.tell("catalog", "making the catalog demo", now=True)
    fresh = attempt.work / "catalog"
    ingest(feed, fresh)
    reset_demo_shop(attempt.place.database, attempt.lease)
    result = _import(attempt, feed, Mapping(), DEMO_OWNER, "leave_out")
    catalog = attempt.catalog("demo")
    catalog.parent.mkdir(exist_ok=True)
    shutil.rmtree(catalog, ignore_errors=True)
    shutil.copytree(fresh, catalog)
    return {**result, "owner_id": DEMO_OWNER, "catalog": "demo"}


def _import(
    attempt: Attempt, path: Path, mapping: Mapping, owner_id: str, unknown: UnknownCategory
) -> dict[str, Any]:
    place = attempt.place
    plan = attempt.planned({"model_version": place.champion()})
    tree = Taxonomy.load(place.store.folder_of(plan["model_version"]) / registry.TAXONOMY)
    parts = attempt.work / "parts"
    done = settled(place.database, attempt.lease)
    # What an earlier attempt wrote and did not get to settle is made again.
    lines = _Lines(done, parts)
    feed = read_feed(attempt, path, mapping, labels=True)
    for first, rows in numbered(feed.rows, done, PART_ROWS):
        products = [
            _settle(row, first + at, attempt.lease.job_id, tree, place.pictures, unknown, lines)
            for at, row in enumerate(rows)
        ]
        write_part(parts, first, lines.take())
        lines.n_rows += len(rows)
        add_products(
            place.database,
            attempt.lease,
            [product for product in products if product is not None],
            owner_id=owner_id,
            settle=(first, first + len(rows)),
            fraction=None,
            words=f"{lines.n_rows:,} rows, {lines.n_imported:,} added, {lines.rejected.total():,} refused",
        )
    return _report(attempt, feed, lines, parts, tree)


def _report(attempt: Attempt, feed: ProductFeed, lines: _Lines, parts: Path, tree: Taxonomy) -> dict[str, Any]:
    with (
        (attempt.files / IMPORTED).open("w", encoding="utf-8") as imported,
        (attempt.files / REJECTED).open("w", encoding="utf-8") as rejected,
    ):
        for line in read_parts(parts):
            (imported if line["id"] is not None else rejected).write(json.dumps(line) + "\n")
    columns = {
        name: column if isinstance(column, str) else list(column) for name, column in feed.mapping.columns.items()
    }
    return {
        "n_rows": lines.n_rows,
        "n_imported": lines.n_imported,
        "n_rejected": lines.rejected.total(),
        "rejected": dict(lines.rejected),
        "warnings": dict(lines.warnings),
        "columns": columns,
        "taxonomy_version": tree.version,
        "files": [IMPORTED, REJECTED],
    }


class _Lines:
    """What became of each record, and how often it came to what."""

    def __init__(self, done: int, parts: Path) -> None:
        self.n_rows = done
        self.n_imported = 0
        self.rejected: Counter[str] = Counter()
        self.warnings: Counter[str] = Counter()
        self.seen: set[bytes] = set()
        self._waiting: list[dict[str, Any]] = []
        for path in parts.glob("*.jsonl"):
            if int(path.stem) >= done:
                path.unlink()
        for line in read_parts(parts):
            self._count(line)

    def add(self, line: dict[str, Any]) -> None:
        self._waiting.append(line)
        self._count(line)

    def take(self) -> list[dict[str, Any]]:
        """The lines since it was last called."""
        taken, self._waiting = self._waiting, []
        return taken

    def is_new(self, product_id: str) -> bool:
        """Whether no accepted record has had this id."""
        return _digest(product_id) not in self.seen

    def _count(self, line: dict[str, Any]) -> None:
        if line["id"] is None:
            self.rejected[line["code"]] += 1
        else:
            self.n_imported += 1
            self.warnings.update(line["warnings"])
            self.seen.add(_digest(line["product_id"]))


def _digest(product_id: str) -> bytes:
    return hashlib.sha256(product_id.encode("utf-8", "surrogatepass")).digest()[:8]


def _settle(
    row: ProductRow | BadRow,
    number: int,
    job_id: str,
    tree: Taxonomy,
    pictures: PictureStore,
    unknown: UnknownCategory,
    lines: _Lines,
) -> NewProduct | None:
    """The product of a record; None where it is refused. Either is noted."""
    made = row if isinstance(row, BadRow) else _product(row, number, job_id, tree, pictures, unknown, lines)
    if isinstance(made, BadRow):
        lines.add(
            {
                "line": made.line,
                "id": None,
                "product_id": made.product_id,
                "code": made.code,
                "field": made.field,
                "message": made.message,
                "excerpt": made.excerpt,
            }
        )
        return None
    product, warnings = made
    assert isinstance(row, ProductRow)
    said = {"line": row.line, "id": product.id, "product_id": row.product.product_id, "warnings": warnings}
    lines.add(said)
    return product


def _product(
    row: ProductRow,
    number: int,
    job_id: str,
    tree: Taxonomy,
    pictures: PictureStore,
    unknown: UnknownCategory,
    lines: _Lines,
) -> tuple[NewProduct, list[str]] | BadRow:
    """The product with what was left out of it, or why it is none."""
    said, warnings = row.product, list(row.warnings)
    if not lines.is_new(said.product_id):
        message = f"an earlier row has the product_id {said.product_id[:80]!r}"
        return _refused(row, Code.duplicate_id, message, field="product_id")
    node_id = None
    if row.category is not None:
        node_id = _place(row.category, tree)
        if node_id is None:
            text = row.category if isinstance(row.category, str) else " > ".join(row.category)
            if unknown == "refuse":
                return _refused(
                    row, Code.unknown_category, f"the tree has no category {text[:120]!r}", field="category"
                )
            warnings.append(Code.unknown_category.value)
    if said.image_urls:
        warnings.append("picture_not_fetched")
    stored: list[Stored] = []
    for data in said.images[:MAX_PICTURES]:
        try:
            stored.append(pictures.put(data))
        except ImageError as error:
            warnings.append(error.code)
    if len(said.images) > MAX_PICTURES:
        warnings.append("too_many_pictures")
    if not stored and not (said.title or said.description or said.brand):
        return _refused(row, Code.empty_product, "neither a text nor a picture that can be kept")
    try:
        body = ProductBody(
            title=_text(said.title),
            description=_text(said.description),
            brand=_text(said.brand),
            attributes={
                _text(name) or "": [_text(value) or "" for value in values]
                for name, values in said.attributes.items()
            },
            node_id=node_id,
        )
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        return _refused(row, Code.wrong_type, first["msg"], field=str(first["loc"][0]))
    version = None if node_id is None else tree.version
    return NewProduct(id_of_row(job_id, number), body, version, tuple(stored)), list(dict.fromkeys(warnings))


def _text(text: str | None) -> str | None:
    """Without halves of surrogate pairs, which a feed can hold and a database cannot."""
    return None if text is None else text.encode("utf-8", "replace").decode()


def _place(category: str | tuple[str, ...], tree: Taxonomy) -> str | None:
    """The node that a category names, by its id or its path."""
    names = (category,) if isinstance(category, str) else category
    text = " > ".join(names)
    node = tree.find(text)
    for path in (names, tuple(text.split(" > "))):
        if node is None:
            node = tree.find_path(path)
    return None if node is None else tree.ids[node]


def _refused(row: ProductRow, code: Code, message: str, *, field: str | None = None) -> BadRow:
    return bad_row(row.line, code, message, field=field, product_id=row.product.product_id)
