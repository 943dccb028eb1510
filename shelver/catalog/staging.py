"""The unfinished work of an ingest: accepted rows in shards, refused rows in a file, and how far it came.

A shard counts once `progress.json` says so. Whatever a kill leaves behind after that, half a shard, more lines
of quarantine, is cut off when the work is taken up again, and the same rows are read once more: nothing is lost
and nothing stands twice.
"""

from __future__ import annotations

import hashlib
import json
import os
from array import array
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO, Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import BaseModel, ConfigDict

from shelver.catalog.attributes import LABELS
from shelver.catalog.rows import BadRow
from shelver.catalog.store import (
    QUARANTINE_FILE,
    SCHEMA,
    SHARD_BYTES,
    SHARD_ROWS,
    sync_folder,
    write_bytes,
    write_table,
)
from shelver.images import content_hash
from shelver.product import Product

STAGING = "staging"
PROGRESS_FILE = "progress.json"

# Beside the product: its paths in the feed's own tree, what may tie it to others in the split, and its table of
# specifications. Its attributes are still as the feed has them.
STAGED = pa.schema(
    [
        *SCHEMA,
        ("path", pa.list_(pa.string())),
        ("also_paths", pa.list_(pa.list_(pa.string()))),
        ("key", pa.string()),
        ("pictures", pa.list_(pa.binary())),
        ("specified", LABELS),
    ]
)


class Progress(BaseModel):
    """How far an ingest came; the content of `progress.json`.

    Attributes:
        layout: of the shards; work of another layout is begun again.
        fingerprint: of the source and the options.
        rows_in: rows read and settled.
        n_shards, n_accepted: what the staging shards hold.
        quarantine_bytes: the length of the quarantine file.
        quarantine_by_code, warnings_by_code: counts.
        all_read: the feed's end was reached.
    """

    model_config = ConfigDict(extra="forbid")

    layout: Literal[2]
    fingerprint: str
    rows_in: int = 0
    n_shards: int = 0
    n_accepted: int = 0
    quarantine_bytes: int = 0
    quarantine_by_code: dict[str, int] = {}
    warnings_by_code: dict[str, int] = {}
    all_read: bool = False


def read_progress(folder: Path) -> Progress | None:
    """The progress of an ingest that was interrupted; None where there is none to go on with."""
    try:
        return Progress.model_validate_json((folder / PROGRESS_FILE).read_bytes())
    except (OSError, ValueError):
        return None  # killed before the first commit, or written by something else: begin again


class Staging:
    """Takes the rows of a feed, in order; opened on a new folder or on one that a kill left behind.

    Attributes:
        progress: as of the last commit.
    """

    def __init__(self, folder: Path, progress: Progress) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.progress = progress
        self._folder = folder
        self._rows: list[dict[str, Any]] = []
        self._n_bytes = 0
        self._n_new = 0
        self._codes = Counter(progress.quarantine_by_code)
        self._warnings = Counter(progress.warnings_by_code)
        self._seen = SeenIds()
        for path in folder.iterdir():
            if path.suffix in (".parquet", ".tmp") and path.name not in map(_name, range(progress.n_shards)):
                path.unlink()
        for batch in self.batches(["product_id"]):
            for product_id in batch.column(0).to_pylist():
                self._seen.add(product_id)
        self._quarantine: BinaryIO = (folder / QUARANTINE_FILE).open("ab")
        self._quarantine.truncate(progress.quarantine_bytes)
        self._quarantine.seek(0, os.SEEK_END)

    def __enter__(self) -> Staging:
        return self

    def __exit__(self, *_: object) -> None:
        self._quarantine.close()

    def is_new(self, product_id: str) -> bool:
        """Whether no accepted row has had this id; from now on one has."""
        return self._seen.add(product_id)

    def accept(
        self,
        product: Product,
        *,
        paths: Sequence[tuple[str, ...]],
        key: str,
        warnings: tuple[str, ...],
        specification: Iterable[tuple[str, str]] = (),
    ) -> None:
        """Takes a product, whose `node_id` and `also_node_ids` are final.

        Args:
            product: its `attributes` are as the feed has them.
            paths: of these nodes, where the tree will be made of the feed's paths.
            key: ties it to products with an equal or nearly equal one.
            warnings: what was left out.
            specification: pairs of its table of specifications.
        """
        specified: dict[str, list[str]] = {}
        for name, value in specification:
            specified.setdefault(storable(name) or "", []).append(storable(value) or "")
        self._rows.append(
            {
                "product_id": storable(product.product_id),
                "title": storable(product.title),
                "description": storable(product.description),
                "brand": storable(product.brand),
                "images": list(product.images),
                "image_urls": [storable(url) for url in product.image_urls],
                "node_id": product.node_id,
                "split": product.split,
                "source": storable(product.source),
                "language": storable(product.language),
                "value": product.value,
                "also_node_ids": list(product.also_node_ids),
                "attributes": {
                    storable(name): [storable(value) for value in values]
                    for name, values in product.attributes.items()
                },
                "path": list(paths[0]) if paths else None,
                "also_paths": [list(path) for path in paths[1:]],
                "key": key,
                "pictures": [content_hash(image) for image in product.images],
                "specified": specified,
            }
        )
        self._n_bytes += sum(map(len, product.images)) + len(product.title or "")
        self._n_bytes += len(product.description or "") + len(key)
        self._warnings.update(warnings)
        self._settled()

    def refuse(self, row: BadRow) -> None:
        """Takes a row that goes to quarantine."""
        line = {
            "line": row.line,
            "field": row.field,
            "code": row.code,
            "message": row.message,
            "product_id": row.product_id,
            "excerpt": row.excerpt,
        }
        # ASCII, so that half a surrogate pair in an excerpt is written as the escape that it was.
        self._quarantine.write(json.dumps(line).encode() + b"\n")
        self._codes[row.code] += 1
        self._settled()

    def _settled(self) -> None:
        self._n_new += 1
        if len(self._rows) >= SHARD_ROWS or self._n_bytes >= SHARD_BYTES or self._n_new >= 4 * SHARD_ROWS:
            self.commit()

    def commit(self, *, all_read: bool = False) -> None:
        """Puts everything taken so far on the disk."""
        done = self.progress
        if self._rows:
            write_table(self._folder / _name(done.n_shards), pa.Table.from_pylist(self._rows, schema=STAGED))
        self._quarantine.flush()
        os.fsync(self._quarantine.fileno())
        self.progress = Progress(
            layout=done.layout,
            fingerprint=done.fingerprint,
            rows_in=done.rows_in + self._n_new,
            n_shards=done.n_shards + bool(self._rows),
            n_accepted=done.n_accepted + len(self._rows),
            quarantine_bytes=self._quarantine.tell(),
            quarantine_by_code=dict(sorted(self._codes.items())),
            warnings_by_code=dict(sorted(self._warnings.items())),
            all_read=all_read,
        )
        write_bytes(self._folder / PROGRESS_FILE, self.progress.model_dump_json().encode())
        sync_folder(self._folder)
        self._rows, self._n_bytes, self._n_new = [], 0, 0

    def batches(self, columns: list[str] | None = None, *, batch_rows: int = 2048) -> Iterator[pa.RecordBatch]:
        """What was committed, in the order of the feed."""
        for number in range(self.progress.n_shards):
            with pq.ParquetFile(self._folder / _name(number)) as file:
                yield from file.iter_batches(batch_size=batch_rows, columns=columns)


class SeenIds:
    """A set of texts that only grows: some 8 bytes each, kept as 64 bits of their SHA-256.

    Two of ten million different ids fall together with probability 3e-6.
    """

    def __init__(self) -> None:
        self._sorted = array("Q")
        self._recent: set[int] = set()

    def add(self, text: str) -> bool:
        """Adds a text; False where it was there."""
        digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()
        number = int.from_bytes(digest[:8], "big")
        if number in self._recent:
            return False
        at = bisect_left(self._sorted, number)
        if at < len(self._sorted) and self._sorted[at] == number:
            return False
        self._recent.add(number)
        if len(self._recent) >= max(65_536, len(self._sorted) // 8):
            merged = np.sort(np.append(np.array(self._sorted, np.uint64), np.array([*self._recent], np.uint64)))
            self._sorted = array("Q", merged.tobytes())
            self._recent = set()
        return True


def storable(text: str | None) -> str | None:
    """The text without halves of surrogate pairs, which JSON feeds can hold and UTF-8 cannot."""
    if text is None or text.isascii():
        return text
    return text.encode("utf-8", "replace").decode("utf-8")


def _name(number: int) -> str:
    return f"{number:05d}.parquet"
