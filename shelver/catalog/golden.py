"""Golden sets: a frozen copy of one part of a catalog, against which models are judged for years.

A golden set is itself a catalog. Its `catalog.json` carries the SHA-256 of every file and a seal over itself;
`Catalog.open` reads all of it and refuses the set where a single byte changed.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from shelver.catalog.attributes import Seen, unknown_labels
from shelver.catalog.split import PARTS, Part
from shelver.catalog.store import (
    ATTRIBUTES_FILE,
    INFO_FILE,
    QUARANTINE_FILE,
    TAXONOMY_FILE,
    Catalog,
    CatalogInfo,
    count_products,
    seal_of,
    sync_folder,
    write_bytes,
)
from shelver.errors import CatalogError
from shelver.folders import sha256_of


def freeze(catalog: Catalog, split: Part, out: Path | str) -> Catalog:
    """Copies one part of a catalog into a new, frozen one.

    A feed of its own becomes a golden set by `ingest(..., split=Split.parse("0/0/100"))` and then this.

    Args:
        catalog: whole and undamaged; it is read through and verified.
        split: the part, mostly "test".
        out: a new or empty folder, or the golden set that this very call made before.

    Raises:
        CatalogError: the part is empty, `out` holds something else, or the catalog is damaged.
    """
    out = Path(out)
    if split not in PARTS:
        raise CatalogError(f"split {split!r}", allowed=", ".join(PARTS), remedy="Name one of these.")
    shards = tuple(shard for shard in catalog.info.shards if shard.split == split)
    if not shards:
        raise CatalogError(
            f"{catalog.folder} has no product in {split}",
            allowed=f"a part with products, one of {', '.join(catalog.info.by_split) or 'none'}",
            remedy="Ingest it with another split, for example 0/0/100.",
        )
    info = _info(catalog, split)
    if (out / INFO_FILE).is_file():
        existing = Catalog.open(out)
        if existing.info == info:
            return existing
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise CatalogError(
            f"{out} is there already and is not this golden set",
            allowed="a new or empty folder",
            remedy="Name another folder; golden sets are never overwritten.",
        )
    catalog.verify()
    unfinished = _fresh(out.with_name(f"{out.name}.partial"))
    copied = [name for name in info.files if name != QUARANTINE_FILE]
    for name in [*(shard.file for shard in shards), *copied]:
        shutil.copyfile(catalog.folder / name, unfinished / name)
    (unfinished / QUARANTINE_FILE).write_bytes(b"")
    for name, digest in {**info.files, **{shard.file: shard.sha256 for shard in shards}}.items():
        if sha256_of(unfinished / name) != digest:
            raise CatalogError(
                f"{name} changed while it was copied",
                allowed="a catalog that nothing writes to",
                remedy="Freeze again when nothing writes to it.",
            )
    write_bytes(unfinished / INFO_FILE, info.to_bytes())
    unfinished.replace(out)
    sync_folder(out.parent)
    return Catalog.open(out)


def _fresh(folder: Path) -> Path:
    """An empty folder in the place of what a killed run may have left.

    Raises:
        CatalogError: something else stands there.
    """
    ours = (".parquet", ".json", ".jsonl", ".tmp")
    if folder.is_symlink() or (folder.exists() and not folder.is_dir()):
        strange = True
    else:
        strange = folder.is_dir() and any(path.suffix not in ours or path.is_dir() for path in folder.iterdir())
    if strange:
        raise CatalogError(
            f"{folder} is there already and is not what an interrupted freeze leaves",
            allowed="no file or folder of this name",
            remedy="Move it away, or name another folder for the golden set.",
        )
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


def _info(catalog: Catalog, split: Part) -> CatalogInfo:
    old = catalog.info
    empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"  # SHA-256 of no bytes
    n_products = old.by_split[split]
    seen = Seen()
    for batch in catalog.tables(split, columns=["node_id", "attributes"]):
        seen.add(batch)
    info = old.model_copy(
        update={
            "name": f"{old.name} ({split})",
            "rows_in": n_products,
            "n_products": n_products,
            "n_quarantined": 0,
            "quarantine_by_code": {},
            "warnings_by_code": {},
            "by_split": {split: n_products},
            "shards": tuple(shard for shard in old.shards if shard.split == split),
            "files": {
                TAXONOMY_FILE: old.files[TAXONOMY_FILE],
                QUARANTINE_FILE: empty,
                **{name: digest for name, digest in old.files.items() if name == ATTRIBUTES_FILE},
            },
            "attributes": {name: n for name in old.attributes if (n := seen.products[name])},
            "unknown_values": {name: n.total() for name, n in unknown_labels(seen, catalog.vocabulary).items()},
            "frozen": True,
            "frozen_from": old.fingerprint,
            **count_products(catalog.tables(split, batch_rows=1024)),
        }
    )
    return info.model_copy(update={"seal": seal_of(info)})
