"""The catalog folder: products in Parquet shards, their tree, and a `catalog.json` that is written last.

::

    catalog.json                    what is here, with the SHA-256 of every other file
    taxonomy.json                   the tree; `node_id` in the shards is one of its ids
    attributes.json                 the attributes and their values; only where some product has any
    train-00000.parquet, ...        products, by split, in the order of the feed
    quarantine.jsonl                the rows that could not be used, one a line

While an ingest runs, its work stands in `staging/`; without `catalog.json` the folder is no catalog.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pydantic import BaseModel, ConfigDict, ValidationError

from shelver.attributes import EMPTY, Vocabulary
from shelver.catalog.attributes import LABELS
from shelver.catalog.split import PARTS, Part, SplitReport
from shelver.errors import CatalogError
from shelver.folders import sha256_of
from shelver.product import Product
from shelver.taxonomy import Taxonomy

FORMAT_VERSION = 1
SHARD_ROWS = 50_000
SHARD_BYTES = 32 * 1024 * 1024
"""A shard is closed when it has this many rows or uncompressed bytes; what reads one needs little memory."""

INFO_FILE = "catalog.json"
TAXONOMY_FILE = "taxonomy.json"
ATTRIBUTES_FILE = "attributes.json"
QUARANTINE_FILE = "quarantine.jsonl"

SCHEMA = pa.schema(
    [
        ("product_id", pa.string()),
        ("title", pa.string()),
        ("description", pa.string()),
        ("brand", pa.string()),
        ("images", pa.list_(pa.binary())),
        ("image_urls", pa.list_(pa.string())),
        ("node_id", pa.string()),
        ("split", pa.string()),
        ("source", pa.string()),
        ("language", pa.string()),
        ("value", pa.float64()),
        ("also_node_ids", pa.list_(pa.string())),
        ("attributes", LABELS),
    ]
)

# Of what came later; left out where empty, so that a catalog without them has the bytes it always had.
_LATER = ("attributes", "unknown_values", "n_with_also")


class Shard(BaseModel):
    """One Parquet file of a catalog."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    file: str
    split: Part
    n_rows: int
    n_bytes: int
    sha256: str


class CatalogInfo(BaseModel):
    """What `catalog.json` says.

    Attributes:
        format, format_version: of the folder.
        name: the recipe or the feed's file name.
        fingerprint: SHA-256 over the source's content and the options of the ingest.
        rows_in: rows of the feed; n_products + n_quarantined, always.
        quarantine_by_code, warnings_by_code: counts of the reasons.
        by_split: products in each part; a part without products is left out.
        n_labelled: products with a category.
        n_with_text: products with a title, a description or a brand.
        n_with_images: products with the bytes of a picture. n_with_both: with both.
        n_with_urls_only: products with an address of a picture but no bytes.
        taxonomy_version, n_nodes, n_leaves, n_levels: of the tree.
        split: how the products were split.
        shards: in the order in which `Catalog.products` reads them.
        files: SHA-256 of the other files.
        attributes: labelled products by attribute, in the order of `attributes.json`.
        unknown_values: by attribute, how many labels (a product's value) a given vocabulary does not have; they
            are kept as seen.
        n_with_also: products with more than one right category.
        frozen: a golden set, refused where a byte of it changed.
        frozen_from: the fingerprint of the catalog it was copied from.
        seal: SHA-256 of this file with an empty seal; "" unless frozen.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Literal["shelver catalog"] = "shelver catalog"
    format_version: Literal[1] = 1
    name: str
    fingerprint: str
    rows_in: int
    n_products: int
    n_quarantined: int
    quarantine_by_code: dict[str, int]
    warnings_by_code: dict[str, int]
    by_split: dict[Part, int]
    n_labelled: int
    n_with_text: int
    n_with_images: int
    n_with_both: int
    n_with_urls_only: int
    taxonomy_version: str
    n_nodes: int
    n_leaves: int
    n_levels: int
    split: SplitReport
    shards: tuple[Shard, ...]
    files: dict[str, str]
    attributes: dict[str, int] = {}
    unknown_values: dict[str, int] = {}
    n_with_also: int = 0
    frozen: bool = False
    frozen_from: str | None = None
    seal: str = ""

    def to_bytes(self) -> bytes:
        """The bytes of `catalog.json`; equal catalogs have equal bytes."""
        empty = {name for name in _LATER if not getattr(self, name)}
        content = self.model_dump(mode="json", exclude=empty)
        return (json.dumps(content, ensure_ascii=False, indent=1) + "\n").encode()


class Catalog:
    """An open catalog. Make one with `Catalog.open`.

    Attributes:
        folder: where it stands.
        info: what `catalog.json` says.
    """

    def __init__(self, folder: Path, info: CatalogInfo) -> None:
        self.folder = folder
        self.info = info

    @classmethod
    def open(cls, folder: Path | str) -> Catalog:
        """Opens a catalog folder.

        A golden set is read through and held against its hashes; of another catalog only the presence and the
        sizes of the shards are checked (`verify` does the rest).

        Raises:
            CatalogError: no catalog, an unfinished one, one of another format version, or a damaged one.
        """
        folder = Path(folder)
        catalog = cls(folder, read_info(folder))
        for shard in catalog.info.shards:
            path = folder / shard.file
            if not path.is_file() or path.stat().st_size != shard.n_bytes:
                raise _damaged(folder, f"{shard.file} is missing or has another size", catalog.info.frozen)
        if catalog.info.frozen:
            catalog.verify()
        return catalog

    def verify(self) -> None:
        """Reads every file and holds it against the hashes in `catalog.json`.

        Raises:
            CatalogError: a byte was changed.
        """
        frozen = self.info.frozen
        if frozen:
            raw = (self.folder / INFO_FILE).read_bytes()
            if raw != self.info.to_bytes() or self.info.seal != seal_of(self.info):
                raise _damaged(self.folder, f"{INFO_FILE} was changed", frozen)
        hashes = {**self.info.files, **{shard.file: shard.sha256 for shard in self.info.shards}}
        for name, expected in hashes.items():
            path = self.folder / name
            if not path.is_file() or sha256_of(path) != expected:
                raise _damaged(self.folder, f"{name} was changed", frozen)

    @cached_property
    def taxonomy(self) -> Taxonomy:
        """The tree.

        Raises:
            CatalogError: it is not the tree that the catalog was made with.
            TaxonomyError: the file cannot be read.
        """
        taxonomy = Taxonomy.load(self.folder / TAXONOMY_FILE)
        if taxonomy.version != self.info.taxonomy_version:
            raise _damaged(self.folder, f"{TAXONOMY_FILE} holds another tree", self.info.frozen)
        return taxonomy

    @cached_property
    def vocabulary(self) -> Vocabulary:
        """The attributes and their values; empty where the catalog has none.

        Raises:
            CatalogError: the file is missing, or is not the one that the catalog was made with.
        """
        expected = self.info.files.get(ATTRIBUTES_FILE)
        if expected is None:
            return EMPTY
        path = self.folder / ATTRIBUTES_FILE
        if not path.is_file() or sha256_of(path) != expected:
            raise _damaged(self.folder, f"{ATTRIBUTES_FILE} was changed", self.info.frozen)
        return Vocabulary.load(path)

    def products(
        self, split: Part | None = None, *, images: bool = True, batch_rows: int = 1024
    ) -> Iterator[list[Product]]:
        """The products, in batches, always in the same order: that of the feed within each split.

        Args:
            split: one part, or None for train, validation and test, one after the other.
            images: False leaves the picture bytes unread (`Product.images` is then empty).
            batch_rows: most products of a batch.

        Raises:
            CatalogError: `split` is no part.
        """
        columns = [name for name in SCHEMA.names if images or name != "images"]
        for table in self.tables(split, columns=columns, batch_rows=batch_rows):
            yield [_product(row) for row in table.to_pylist()]

    def tables(
        self, split: Part | None = None, *, columns: Sequence[str] | None = None, batch_rows: int = 8192
    ) -> Iterator[pa.RecordBatch]:
        """The columns of `SCHEMA` as Arrow batches; arguments and order as `products`.

        A column that an older catalog lacks is empty.
        """
        if split is not None and split not in PARTS:
            raise CatalogError(f"split {split!r}", allowed=", ".join(PARTS), remedy="Name one of these.")
        for shard in self.info.shards:
            if split is None or shard.split == split:
                with pq.ParquetFile(self.folder / shard.file) as file:
                    for batch in file.iter_batches(batch_size=batch_rows, columns=columns):
                        yield _completed(batch, columns or SCHEMA.names)


def read_info(folder: Path) -> CatalogInfo:
    """Reads `catalog.json`; raises as `Catalog.open`."""
    path = folder / INFO_FILE
    allowed = f"a folder with a {INFO_FILE}, as `shelver ingest --out` makes it"
    if not path.is_file():
        unfinished = (folder / "staging").is_dir()
        raise CatalogError(
            f"{folder} is {'an unfinished catalog' if unfinished else 'no catalog'}",
            allowed=allowed,
            remedy="Run the same `shelver ingest` again: it goes on where it stopped."
            if unfinished
            else "Check the path, or make one with `shelver ingest`.",
        )
    try:
        content: Any = json.loads(path.read_bytes())
        version = content.get("format_version") if isinstance(content, dict) else None
        if isinstance(version, int) and version != FORMAT_VERSION:
            raise CatalogError(
                f"{folder} has catalog format version {version}",
                allowed=f"version {FORMAT_VERSION}",
                remedy="Ingest it again with this shelver.",
            )
        return CatalogInfo.model_validate(content)
    except (ValueError, ValidationError) as error:
        raise CatalogError(
            f"{path} is no catalog's {INFO_FILE}", allowed=allowed, remedy="Ingest the catalog again."
        ) from error


def _damaged(folder: Path, what: str, frozen: bool) -> CatalogError:
    return CatalogError(
        f"{'golden set' if frozen else 'catalog'} {folder} is damaged: {what}",
        allowed=f"the files as {INFO_FILE} lists them, unchanged",
        remedy="Bring it back from a copy." if frozen else "Run `shelver ingest` again with --overwrite.",
    )


def _completed(batch: pa.RecordBatch, columns: Sequence[str]) -> pa.RecordBatch:
    have = batch.schema.names
    for name in columns:
        if name not in have and name in SCHEMA.names:
            batch = batch.append_column(name, pa.nulls(batch.num_rows, SCHEMA.field(name).type))
    return batch


def _product(row: dict[str, Any]) -> Product:
    row["images"] = tuple(row.get("images") or ())
    row["image_urls"] = tuple(row["image_urls"] or ())
    row["also_node_ids"] = tuple(row["also_node_ids"] or ())
    row["attributes"] = {name: tuple(values or ()) for name, values in row["attributes"] or ()}
    return Product(**row)


class ShardWriter:
    """Writes tables as shards of limited size; each appears whole or not at all.

    Args:
        folder: where they go.
        split: their part, which also begins their names.
    """

    def __init__(self, folder: Path, split: Part) -> None:
        self.shards: list[Shard] = []
        self._folder = folder
        self._split = split
        self._tables: list[pa.Table] = []
        self._n_rows = 0
        self._n_bytes = 0

    def add(self, table: pa.Table) -> None:
        """Adds rows in `SCHEMA`; may write a shard."""
        if table.num_rows:
            self._tables.append(table)
            self._n_rows += table.num_rows
            self._n_bytes += table.nbytes
            if self._n_rows >= SHARD_ROWS or self._n_bytes >= SHARD_BYTES:
                self.flush()

    def flush(self) -> None:
        """Writes what waits."""
        if not self._tables:
            return
        path = self._folder / f"{self._split}-{len(self.shards):05d}.parquet"
        write_table(path, pa.concat_tables(self._tables))
        self.shards.append(
            Shard(
                file=path.name,
                split=self._split,
                n_rows=self._n_rows,
                n_bytes=path.stat().st_size,
                sha256=sha256_of(path),
            )
        )
        self._tables, self._n_rows, self._n_bytes = [], 0, 0


def write_table(path: Path, table: pa.Table) -> None:
    """Writes a Parquet file that appears under its name only when it is whole and on the disk."""
    unfinished = path.with_name(path.name + ".tmp")
    with unfinished.open("wb") as file:
        # A row group is what a reader holds at once, so rows with large pictures come in small groups.
        per_row = max(1, table.nbytes // max(1, table.num_rows))
        pq.write_table(
            table,
            file,
            compression="zstd",
            row_group_size=max(64, min(16_384, 8 * 1024 * 1024 // per_row)),
            use_dictionary=["brand", "node_id", "split", "source", "language"],
        )
        file.flush()
        os.fsync(file.fileno())
    unfinished.replace(path)
    sync_folder(path.parent)


def write_bytes(path: Path, content: bytes) -> None:
    """Writes a file that appears under its name only when it is whole and on the disk."""
    unfinished = path.with_name(path.name + ".tmp")
    with unfinished.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    unfinished.replace(path)
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Makes renames in a folder last; a system that cannot do this does without."""
    try:
        handle = os.open(folder, os.O_RDONLY)
    except OSError:
        return
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def seal_of(info: CatalogInfo) -> str:
    """The seal that a frozen catalog's info must carry."""
    return hashlib.sha256(info.model_copy(update={"seal": ""}).to_bytes()).hexdigest()


def taxonomy_facts(taxonomy: Taxonomy) -> Mapping[str, Any]:
    """The fields of `CatalogInfo` that follow from the tree."""
    return {
        "taxonomy_version": taxonomy.version,
        "n_nodes": taxonomy.n_nodes,
        "n_leaves": taxonomy.n_leaves,
        "n_levels": taxonomy.n_levels,
    }


def count_products(tables: Iterable[pa.RecordBatch | pa.Table]) -> Counter[str]:
    """The counts of `CatalogInfo` (`n_labelled`, `n_with_text`, ...) over rows in `SCHEMA`."""
    counts = Counter(
        n_labelled=0, n_with_text=0, n_with_images=0, n_with_both=0, n_with_urls_only=0, n_with_also=0
    )
    for rows in tables:
        table = pa.Table.from_batches([rows]) if isinstance(rows, pa.RecordBatch) else rows
        n_images = pc.fill_null(pc.list_value_length(table["images"]), 0).to_numpy()
        n_urls = pc.fill_null(pc.list_value_length(table["image_urls"]), 0).to_numpy()
        has_text = np.zeros(table.num_rows, bool)
        for name in ("title", "description", "brand"):
            has_text |= pc.fill_null(pc.greater(pc.utf8_length(table[name]), 0), False).to_numpy()
        counts["n_labelled"] += table.num_rows - table["node_id"].null_count
        n_also = pc.fill_null(pc.list_value_length(table["also_node_ids"]), 0).to_numpy()
        counts["n_with_also"] += int((n_also > 0).sum())
        counts["n_with_text"] += int(has_text.sum())
        counts["n_with_images"] += int((n_images > 0).sum())
        counts["n_with_both"] += int((has_text & (n_images > 0)).sum())
        counts["n_with_urls_only"] += int(((n_urls > 0) & (n_images == 0)).sum())
    return counts
