"""The second pass of an ingest: from staged rows to the split catalog."""

from __future__ import annotations

import shutil
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from shelver.catalog.progress import Clock
from shelver.catalog.source import Source
from shelver.catalog.split import PARTS, UNKNOWN, Ties
from shelver.catalog.staging import STAGED, STAGING, Staging
from shelver.catalog.store import (
    INFO_FILE,
    QUARANTINE_FILE,
    SCHEMA,
    TAXONOMY_FILE,
    CatalogInfo,
    Shard,
    ShardWriter,
    sha256_of,
    sync_folder,
    taxonomy_facts,
    write_bytes,
)
from shelver.errors import CatalogError
from shelver.taxonomy import Taxonomy


@dataclass(slots=True)
class _Facts:
    """What the second pass learns about the products on its way."""

    ties: Ties = field(default_factory=Ties)
    own: list[int] = field(default_factory=list)
    paths: dict[tuple[str, ...], None] = field(default_factory=dict)
    labelled: int = 0
    text: int = 0
    images: int = 0
    both: int = 0
    urls_only: int = 0


def publish(out: Path, source: Source, staging: Staging, clock: Clock) -> CatalogInfo:
    """Splits what was staged and writes the catalog; done again from its start after a kill.

    Raises:
        CatalogError: there is no tree, since no row has a category.
    """
    facts = _gather(staging)
    done = staging.progress
    taxonomy = source.taxonomy
    if taxonomy is None:
        if not facts.paths:
            raise _nothing_labelled(out, source, staging)
        taxonomy = Taxonomy.from_paths(facts.paths)
    groups = facts.ties.groups()
    own = np.array(facts.own, np.int64)
    if source.own_split_counts and (own != UNKNOWN).any():
        parts, split = groups.respect(own)
    else:
        parts, split = groups.deal(source.wish)
    final = out / STAGING / "final"
    shutil.rmtree(final, ignore_errors=True)
    final.mkdir()
    shards = _write_shards(final, staging, parts, clock)
    taxonomy.save(final / TAXONOMY_FILE)
    shutil.copyfile(out / STAGING / QUARANTINE_FILE, final / QUARANTINE_FILE)
    info = CatalogInfo(
        name=source.name,
        fingerprint=source.fingerprint,
        rows_in=done.rows_in,
        n_products=done.n_accepted,
        n_quarantined=done.rows_in - done.n_accepted,
        quarantine_by_code=done.quarantine_by_code,
        warnings_by_code=done.warnings_by_code,
        by_split={part: n for i, part in enumerate(PARTS) if (n := int((parts == i).sum()))},
        n_labelled=facts.labelled,
        n_with_text=facts.text,
        n_with_images=facts.images,
        n_with_both=facts.both,
        n_with_urls_only=facts.urls_only,
        split=split,
        shards=tuple(shards),
        files={name: sha256_of(final / name) for name in (TAXONOMY_FILE, QUARANTINE_FILE)},
        **taxonomy_facts(taxonomy),
    )
    assert info.n_quarantined == sum(info.quarantine_by_code.values())
    _install(final, out, info)
    clock.end()
    return info


def _gather(staging: Staging) -> _Facts:
    facts = _Facts()
    light = [name for name in STAGED.names if name not in ("images", "value", "source", "language")]
    part_of: dict[str | None, int] = {None: UNKNOWN, **{part: i for i, part in enumerate(PARTS)}}
    for batch in staging.batches(light):
        for row in batch.to_pylist():
            facts.ties.add(row["key"], row["pictures"], identity=row["product_id"])
            facts.own.append(part_of[row["split"]])
            if row["path"] is not None:
                facts.paths.setdefault(tuple(row["path"]))
            text = any(row[name] for name in ("title", "description", "brand"))
            image = bool(row["pictures"])
            facts.labelled += row["node_id"] is not None
            facts.text += text
            facts.images += image
            facts.both += text and image
            facts.urls_only += bool(row["image_urls"]) and not image
    return facts


def _write_shards(folder: Path, staging: Staging, parts: NDArray[np.int64], clock: Clock) -> list[Shard]:
    writers = [ShardWriter(folder, part) for part in PARTS]
    at = 0
    place = SCHEMA.get_field_index("split")
    for batch in staging.batches(SCHEMA.names):
        of = parts[at : at + batch.num_rows]
        at += batch.num_rows
        table = pa.Table.from_batches([batch]).select(SCHEMA.names)
        for i, (part, writer) in enumerate(zip(PARTS, writers, strict=True)):
            chosen = table.filter(pa.array(of == i))
            if chosen.num_rows:
                column = pa.repeat(pa.scalar(part), chosen.num_rows)
                writer.add(chosen.set_column(place, "split", pc.cast(column, pa.string())))
        clock.step(batch.num_rows)
    for writer in writers:
        writer.flush()
    return [shard for writer in writers for shard in writer.shards]


def _install(final: Path, out: Path, info: CatalogInfo) -> None:
    """Moves the finished files into place. `catalog.json` goes first and comes last."""
    (out / INFO_FILE).unlink(missing_ok=True)
    for part in PARTS:
        for old in out.glob(f"{part}-[0-9]*.parquet"):
            old.unlink()
    for path in sorted(final.iterdir()):
        path.replace(out / path.name)
    sync_folder(out)
    write_bytes(out / INFO_FILE, info.to_bytes())


def _nothing_labelled(out: Path, source: Source, staging: Staging) -> CatalogError:
    done = staging.progress
    shutil.copyfile(out / STAGING / QUARANTINE_FILE, out / QUARANTINE_FILE)
    shutil.rmtree(out / STAGING)  # another mapping must find a free folder
    codes = ", ".join(f"{code} {n:,}" for code, n in done.quarantine_by_code.items()) or "none"
    return CatalogError(
        f"{source.name}: {done.rows_in:,} rows = {done.n_accepted:,} accepted, none with a category, + "
        f"{done.rows_in - done.n_accepted:,} quarantined ({codes})",
        allowed="a feed in which some rows have a category, or a taxonomy",
        remedy=f"Map the category column; {out / QUARANTINE_FILE} says what was wrong with each row.",
    )
