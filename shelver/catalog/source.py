"""What an ingest reads: a feed or a recipe, made alike, with the fingerprint of its content and options."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.parquet as pq

from shelver.catalog.mapping import Mapping
from shelver.catalog.reader import ProductRow, read_products
from shelver.catalog.rows import BadRow, Limits
from shelver.catalog.split import Split
from shelver.catalog.store import FORMAT_VERSION
from shelver.taxonomy import Taxonomy

if TYPE_CHECKING:
    from shelver.datasets.recipes import Recipe


@dataclass(frozen=True, slots=True)
class Source:
    """A feed or a recipe, made alike.

    Attributes:
        name: for people.
        rows: called once; one item for each row.
        taxonomy: the tree, or None for that of the rows' paths.
        wish: the shares of the parts.
        own_split_counts: a split in the rows wins over `wish`.
        fingerprint: SHA-256 over content and options.
        n_rows: an estimate of the rows, or None.
    """

    name: str
    rows: Callable[[], Iterable[ProductRow | BadRow]]
    taxonomy: Taxonomy | None
    wish: Split
    own_split_counts: bool
    fingerprint: str
    n_rows: int | None


def feed_source(
    path: Path,
    mapping: Mapping | None,
    image_root: Path | str | None,
    taxonomy: Taxonomy | None,
    split: Split | None,
    limits: Limits,
) -> Source:
    """A feed; raises what opening it raises."""
    # Opening it first gives the reader's errors before anything is hashed or written.
    rows = iter(read_products(path, mapping=mapping, image_root=image_root, limits=limits))
    options = mapping.model_dump(mode="json", exclude={"image_folder"}) if mapping is not None else None
    folder = image_root if image_root is not None else (mapping.image_folder if mapping is not None else None)
    fingerprint, n_rows = _fingerprint(
        [path],
        # Another place of the same pictures is the same source; other pictures are not.
        pictures=None if folder is None else path.parent / folder,
        options={"mapping": options, "taxonomy": taxonomy.version if taxonomy else None, "split": str(split)},
    )
    return Source(path.name, lambda: rows, taxonomy, split or Split(), True, fingerprint, n_rows)


def recipe_source(recipe: Recipe, source: Path, taxonomy: Taxonomy | None, split: Split | None) -> Source:
    """A public set by its recipe; raises FeedError where its files are missing."""
    files = recipe.files(source)
    tree = taxonomy if taxonomy is not None else recipe.taxonomy(source)
    fingerprint, n_rows = _fingerprint(
        files,
        pictures=recipe.pictures(source),
        options={"recipe": recipe.name, "taxonomy": tree.version if tree else None, "split": str(split)},
    )
    return Source(
        recipe.name,
        lambda: recipe.rows(source),
        tree,
        split or recipe.split or Split(),
        split is None,
        fingerprint,
        n_rows,
    )


def _fingerprint(
    files: list[Path], *, pictures: Path | None, options: dict[str, object]
) -> tuple[str, int | None]:
    """SHA-256 over the options, the content of the files, and the names and sizes of the pictures.

    Also an estimate of the rows of the first file, since it is read anyway.
    """
    total = hashlib.sha256(json.dumps([FORMAT_VERSION, options], sort_keys=True).encode())
    n_rows: int | None = None
    for number, path in enumerate(files):
        digest = hashlib.sha256()
        n_lines = 0
        with path.open("rb") as file:
            start = file.read(4)
            file.seek(0)
            while block := file.read(1 << 20):
                digest.update(block)
                n_lines += block.count(b"\n")
        total.update(digest.digest())
        if number == 0 and start == b"PAR1":
            try:
                n_rows = pq.read_metadata(path).num_rows
            except (pa.ArrowInvalid, OSError):
                n_rows = None  # the reader will say so
        elif number == 0 and not start.startswith(b"\x1f\x8b"):
            n_rows = max(0, n_lines - 1) or None
    if pictures is not None:
        for folder, _, names in sorted(os.walk(pictures)):
            for name in sorted(names):
                picture = Path(folder, name)
                where = picture.relative_to(pictures).as_posix()
                size = picture.stat().st_size if picture.is_file() else 0
                total.update(f"{where}\0{size}\n".encode("utf-8", "surrogateescape"))
    return total.hexdigest(), n_rows
