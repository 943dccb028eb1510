"""The second pass of an ingest: from staged rows to the split catalog."""

from __future__ import annotations

import shutil
from array import array
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from shelver.catalog.advice import nothing_to_learn
from shelver.catalog.attributes import Seen, unknown_labels
from shelver.catalog.labelling import Labeller
from shelver.catalog.progress import Clock
from shelver.catalog.rows import Warn
from shelver.catalog.source import Source
from shelver.catalog.split import PARTS, UNKNOWN, Ties
from shelver.catalog.staging import STAGING, Staging
from shelver.catalog.store import (
    ATTRIBUTES_FILE,
    INFO_FILE,
    QUARANTINE_FILE,
    SCHEMA,
    TAXONOMY_FILE,
    CatalogInfo,
    Shard,
    ShardWriter,
    count_products,
    sync_folder,
    taxonomy_facts,
    write_bytes,
)
from shelver.errors import CatalogError
from shelver.folders import sha256_of
from shelver.taxonomy import Taxonomy


@dataclass(slots=True)
class _Facts:
    """What the split and the tree are made from.

    Attributes:
        ties: of the products. own: their parts where the feed says so.
        mapped, specified: labels of attributes, from columns and from tables of specifications.
        paths: the distinct categories of a feed without a tree. codes: likewise, where they are ids.
    """

    ties: Ties = field(default_factory=Ties)
    own: array[int] = field(default_factory=lambda: array("b"))
    mapped: Seen = field(default_factory=Seen)
    specified: Seen = field(default_factory=Seen)
    paths: dict[tuple[str, ...], None] = field(default_factory=dict)
    codes: dict[str, None] = field(default_factory=dict)


def publish(out: Path, source: Source, staging: Staging, clock: Clock) -> CatalogInfo:
    """Splits what was staged and writes the catalog; done again from its start after a kill.

    Raises:
        CatalogError: no row was accepted, or there is no tree, since none has a category.
    """
    facts = _gather(staging)
    done = staging.progress
    taxonomy = source.tree if done.n_accepted else None
    if taxonomy is None and facts.paths:
        taxonomy = Taxonomy.from_paths(facts.paths)
    elif taxonomy is None and facts.codes:
        codes = list(facts.codes)
        taxonomy = Taxonomy.from_parents(codes, codes, [None] * len(codes), source=source.name)
    elif taxonomy is None:
        raise _given_up(out, source, staging)
    own = np.array(facts.own, np.int64)
    if source.own_split_counts and (own != UNKNOWN).any():
        parts, split = facts.ties.respect(own)
    else:
        parts, split = facts.ties.deal(source.wish)
    final = out / STAGING / "final"
    shutil.rmtree(final, ignore_errors=True)
    final.mkdir()
    labeller = Labeller(
        facts.mapped,
        facts.specified,
        order=source.attributes,
        given=source.labelling.vocabulary,
        taxonomy=taxonomy,
        extract=source.labelling.extract,
        n_products=done.n_accepted,
    )
    seen = Seen()
    shards, counts = _write_shards(final, staging, parts, clock, labeller, seen)
    taxonomy.save(final / TAXONOMY_FILE)
    vocabulary = labeller.vocabulary(seen)
    if vocabulary.attributes:
        vocabulary.save(final / ATTRIBUTES_FILE)
    unknown = unknown_labels(seen, vocabulary)
    warnings = Counter(done.warnings_by_code)
    warnings[Warn.attribute_unknown.value] += sum(values.total() for values in unknown.values())
    warnings[Warn.specification_rare.value] += labeller.n_rare
    files = (TAXONOMY_FILE, QUARANTINE_FILE, *([ATTRIBUTES_FILE] if vocabulary.attributes else []))
    shutil.copyfile(out / STAGING / QUARANTINE_FILE, final / QUARANTINE_FILE)
    info = CatalogInfo(
        name=source.name,
        fingerprint=source.fingerprint,
        rows_in=done.rows_in,
        n_products=done.n_accepted,
        n_quarantined=done.rows_in - done.n_accepted,
        quarantine_by_code=done.quarantine_by_code,
        warnings_by_code={code: n for code, n in sorted(warnings.items()) if n},
        by_split={part: n for i, part in enumerate(PARTS) if (n := int((parts == i).sum()))},
        n_labelled=counts["n_labelled"],
        n_with_text=counts["n_with_text"],
        n_with_images=counts["n_with_images"],
        n_with_both=counts["n_with_both"],
        n_with_urls_only=counts["n_with_urls_only"],
        split=split,
        shards=tuple(shards),
        files={name: sha256_of(final / name) for name in files},
        attributes={a.name: n for a in vocabulary.attributes if (n := seen.products[a.name])},
        unknown_values={name: values.total() for name, values in unknown.items()},
        n_with_also=counts["n_with_also"],
        **taxonomy_facts(taxonomy),
    )
    assert info.n_quarantined == sum(info.quarantine_by_code.values())
    _install(final, out, info)
    clock.end()
    return info


def _gather(staging: Staging) -> _Facts:
    facts = _Facts()
    part_of: dict[str | None, int] = {None: UNKNOWN, **{part: i for i, part in enumerate(PARTS)}}
    columns = ["product_id", "node_id", "split", "path", "key", "pictures"]
    columns += ["also_paths", "also_node_ids"]
    for batch in staging.batches([*columns, "attributes", "specified"]):
        facts.mapped.add(batch)
        facts.specified.add(batch, "specified")
        for row in batch.select(columns).to_pylist():
            facts.ties.add(row["key"], row["pictures"], identity=row["product_id"])
            facts.own.append(part_of[row["split"]])
            if row["path"] is not None:
                for path in (row["path"], *row["also_paths"]):
                    facts.paths.setdefault(tuple(path))
            elif row["node_id"] is not None:
                for code in (row["node_id"], *row["also_node_ids"]):
                    facts.codes.setdefault(code)
    return facts


def _write_shards(
    folder: Path, staging: Staging, parts: NDArray[np.int64], clock: Clock, labeller: Labeller, seen: Seen
) -> tuple[list[Shard], Counter[str]]:
    """The shards, and the counts of `CatalogInfo` over all products; `seen` takes their labels."""
    counts: Counter[str] = Counter()
    writers = [ShardWriter(folder, part) for part in PARTS]
    at = 0
    place, labels = (SCHEMA.get_field_index(name) for name in ("split", "attributes"))
    for batch in staging.batches([*SCHEMA.names, "specified"]):
        of = parts[at : at + batch.num_rows]
        at += batch.num_rows
        table = pa.Table.from_batches([batch]).select(SCHEMA.names)
        table = table.set_column(labels, "attributes", labeller.settle(batch))
        seen.add(table)
        counts.update(count_products([table]))
        for i, (part, writer) in enumerate(zip(PARTS, writers, strict=True)):
            chosen = table.filter(pa.array(of == i))
            if chosen.num_rows:
                column = pa.repeat(pa.scalar(part), chosen.num_rows)
                writer.add(chosen.set_column(place, "split", pc.cast(column, pa.string())))
        clock.step(batch.num_rows)
    for writer in writers:
        writer.flush()
    return [shard for writer in writers for shard in writer.shards], counts


def _install(final: Path, out: Path, info: CatalogInfo) -> None:
    """Moves the finished files into place. `catalog.json` goes first and comes last."""
    (out / INFO_FILE).unlink(missing_ok=True)
    (out / ATTRIBUTES_FILE).unlink(missing_ok=True)
    for part in PARTS:
        for old in out.glob(f"{part}-[0-9]*.parquet"):
            old.unlink()
    for path in sorted(final.iterdir()):
        path.replace(out / path.name)
    sync_folder(out)
    write_bytes(out / INFO_FILE, info.to_bytes())


def _given_up(out: Path, source: Source, staging: Staging) -> CatalogError:
    done = staging.progress
    if done.rows_in:
        shutil.copyfile(out / STAGING / QUARANTINE_FILE, out / QUARANTINE_FILE)
    shutil.rmtree(out / STAGING)  # another mapping must find a free folder
    return nothing_to_learn(out, source, done)
