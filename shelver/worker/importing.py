"""Products of a feed become stored products: each record once, whatever is killed; what is refused is reported."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain
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
    Counts,
    Existing,
    NewProduct,
    Settled,
    add_products,
    id_of_row,
    node_named,
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
    said = attempt.params
    existing = said.get("existing", "skip")  # a job that was started before there was a choice
    return _import(attempt, feed, mapping, attempt.lease.owner_id, said["unknown_category"], existing)


def reset_demo(attempt: Attempt) -> dict[str, Any]:
    """Make the demo's products and its catalog anew; raises as `import_products`."""
    feed = write_demo(attempt.work / "demo", n_products=attempt.params["n_products"], seed=attempt.params["seed"])
    attempt.tell("catalog", "making the catalog demo", now=True)
    fresh = attempt.work / "catalog"
    ingest(feed, fresh)
    reset_demo_shop(attempt.place.database, attempt.lease)
    result = _import(attempt, feed, Mapping(), DEMO_OWNER, "leave_out", "skip")
    catalog = attempt.catalog("demo")
    catalog.parent.mkdir(exist_ok=True)
    shutil.rmtree(catalog, ignore_errors=True)
    shutil.copytree(fresh, catalog)
    return {**result, "owner_id": DEMO_OWNER, "catalog": "demo"}


def _import(
    attempt: Attempt, path: Path, mapping: Mapping, owner_id: str, unknown: UnknownCategory, existing: Existing
) -> dict[str, Any]:
    place = attempt.place
    plan = attempt.planned({"model_version": place.champion()})
    tree = Taxonomy.load(place.store.folder_of(plan["model_version"]) / registry.TAXONOMY)
    parts = attempt.work / "parts"
    done = settled(place.database, attempt.lease)
    # What an earlier attempt wrote and did not get to settle is made again.
    lines = _Lines(done, parts)
    feed = read_feed(attempt, path, mapping, labels=True)
    reading = _Reading(attempt.lease.job_id, tree, place.pictures, unknown, feed.mapping.id_from != "line")
    for first, rows in numbered(feed.rows, done, PART_ROWS):
        made = [_judged(row, first + at, reading, lines) for at, row in enumerate(rows)]
        add_products(
            place.database,
            attempt.lease,
            [one.product for one in made if isinstance(one, _Made)],
            owner_id=owner_id,
            existing=existing,
            settle=(first, first + len(rows)),
            note=partial(_note, parts, first, made, lines),
        )
        lines.keep()
    return _report(attempt, feed, lines, parts, tree)


def _note(
    parts: Path, first: int, made: Sequence[_Made | BadRow], lines: _Lines, settled: Sequence[Settled]
) -> Counts:
    """Write the lines of a part, and how often there is what with them."""
    by_id = iter(settled)
    written = [_line_of_bad(one) if isinstance(one, BadRow) else _line_of(one, next(by_id)) for one in made]
    write_part(parts, first, written)
    return lines.with_part(written)


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
        **{f"n_{name}": n for name, n in lines.counts.items()},
        "rejected": dict(lines.rejected),
        "warnings": dict(lines.warnings),
        "columns": columns,
        "taxonomy_version": tree.version,
        "files": [IMPORTED, REJECTED],
    }


class _Lines:
    """What became of each record, and how often it came to what."""

    def __init__(self, done: int, parts: Path) -> None:
        self.counts: Counter[str] = Counter({"rows": 0, "added": 0, "replaced": 0, "skipped": 0, "rejected": 0})
        self.rejected: Counter[str] = Counter()
        self.warnings: Counter[str] = Counter()
        self.seen: set[bytes] = set()
        self._part: Sequence[dict[str, Any]] = ()
        for path in parts.glob("*.jsonl"):
            if int(path.stem) >= done:
                path.unlink()
        for line in read_parts(parts):
            self._count(line)
            if line["id"] is not None:
                self.seen.add(_digest(line["product_id"]))

    def with_part(self, lines: Sequence[dict[str, Any]]) -> Counts:
        """The counts once these lines are kept, too."""
        self._part = lines
        part = Counter(chain(*map(_counted, lines)))
        return {name: n + part[name] for name, n in self.counts.items()}

    def keep(self) -> None:
        """The latest part is settled."""
        for line in self._part:
            self._count(line)
        self._part = ()

    def is_new(self, product_id: str) -> bool:
        """Whether no accepted record has had this id."""
        return _digest(product_id) not in self.seen

    def _count(self, line: dict[str, Any]) -> None:
        self.counts.update(_counted(line))
        if line["id"] is None:
            self.rejected[line["code"]] += 1
        else:
            self.warnings.update(line["warnings"])


def _counted(line: dict[str, Any]) -> tuple[str, str]:
    # A line that an older worker wrote tells no outcome.
    return "rows", "rejected" if line["id"] is None else line.get("outcome", "added")


def _digest(product_id: str) -> bytes:
    return hashlib.sha256(product_id.encode("utf-8", "surrogatepass")).digest()[:8]


@dataclass(frozen=True, slots=True)
class _Reading:
    """What the records of a feed are read with; `named`: their ids are the seller's own."""

    job_id: str
    tree: Taxonomy
    pictures: PictureStore
    unknown: UnknownCategory
    named: bool


@dataclass(frozen=True, slots=True)
class _Made:
    """The product of a record, with what was left out of it."""

    line: int
    product_id: str
    product: NewProduct
    warnings: list[str]


def _line_of(made: _Made, settled: Settled) -> dict[str, Any]:
    return {
        "line": made.line,
        "id": settled.id,
        "product_id": made.product_id,
        "outcome": settled.outcome,
        "warnings": [*made.warnings, *settled.warnings],
    }


def _line_of_bad(bad: BadRow) -> dict[str, Any]:
    return {
        "line": bad.line,
        "id": None,
        "product_id": bad.product_id,
        "code": bad.code,
        "field": bad.field,
        "message": bad.message,
        "excerpt": bad.excerpt,
    }


def _judged(row: ProductRow | BadRow, number: int, reading: _Reading, lines: _Lines) -> _Made | BadRow:
    """The product of a record, or why it is none."""
    if isinstance(row, BadRow):
        return row
    # As it is stored: of two that would be stored alike, the second is refused.
    product_id = (_text(row.product.product_id) or "").strip()
    if not lines.is_new(product_id):
        message = f"an earlier row has the product_id {product_id[:80]!r}"
        return _refused(row, Code.duplicate_id, message, field="product_id")
    made = _made(row, number, product_id, reading)
    if isinstance(made, _Made):
        lines.seen.add(_digest(product_id))
    return made


def _made(row: ProductRow, number: int, product_id: str, reading: _Reading) -> _Made | BadRow:
    said, warnings, tree = row.product, list(row.warnings), reading.tree
    node_id = None
    if row.category is not None:
        node_id = node_named(row.category, tree)
        if node_id is None:
            text = row.category if isinstance(row.category, str) else " > ".join(row.category)
            if reading.unknown == "refuse":
                return _refused(
                    row, Code.unknown_category, f"the tree has no category {text[:120]!r}", field="category"
                )
            warnings.append(Code.unknown_category.value)
    if said.image_urls:
        warnings.append("picture_not_fetched")
    stored: list[Stored] = []
    for data in said.images[:MAX_PICTURES]:
        try:
            stored.append(reading.pictures.put(data))
        except ImageError as error:
            warnings.append(error.code)
    if len(said.images) > MAX_PICTURES:
        warnings.append("too_many_pictures")
    if not stored and not (said.title or said.description or said.brand):
        return _refused(row, Code.empty_product, "neither a text nor a picture that can be kept")
    try:
        body = ProductBody(
            seller_product_id=product_id if reading.named else None,
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
        field = str(first["loc"][0]).removeprefix("seller_")
        return _refused(row, Code.wrong_type, first["msg"], field=field)
    product = NewProduct(
        id_of_row(reading.job_id, number), body, None if node_id is None else tree.version, tuple(stored)
    )
    return _Made(row.line, product_id, product, list(dict.fromkeys(warnings)))


def _text(text: str | None) -> str | None:
    """Without halves of surrogate pairs, which a feed can hold and a database cannot."""
    return None if text is None else text.encode("utf-8", "replace").decode()


def _refused(row: ProductRow, code: Code, message: str, *, field: str | None = None) -> BadRow:
    return bad_row(row.line, code, message, field=field, product_id=row.product.product_id)
