"""Ingest: any feed or recipe becomes a catalog folder.

Two passes. The first reads the feed once, row by row, looks up categories, refuses what cannot be used (each
refused row has a line in `quarantine.jsonl`), and stages the rest; it is taken up where a kill left it. The
second splits the products and writes the catalog; it takes little time and is done again from its start.
"""

from __future__ import annotations

import errno
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from shelver.attributes import Vocabulary
from shelver.catalog.advice import example_of, hints, is_truncated
from shelver.catalog.categories import Category
from shelver.catalog.mapping import Mapping
from shelver.catalog.progress import Clock, Tick
from shelver.catalog.publish import publish
from shelver.catalog.reader import ProductRow
from shelver.catalog.rows import DEFAULT_LIMITS, BadRow, Code, Limits, RefusedError, Warn, bad_row
from shelver.catalog.source import Labelling, Source, feed_source, recipe_source
from shelver.catalog.split import Part, Split, SplitReport
from shelver.catalog.staging import STAGING, Progress, Staging, read_progress, storable
from shelver.catalog.store import INFO_FILE, QUARANTINE_FILE, CatalogInfo, read_info
from shelver.errors import CatalogError, InputError
from shelver.folders import refuse_file, writing_alone
from shelver.product import title_key
from shelver.taxonomy import Taxonomy, path_id

if TYPE_CHECKING:
    from shelver.datasets.recipes import Recipe


@dataclass(frozen=True, slots=True)
class IngestReport:
    """What an ingest did. rows_in = accepted + quarantined, always.

    Attributes:
        folder: the catalog.
        up_to_date: the catalog was there already, made from the same source with the same options.
        resumed_rows: rows that an earlier, interrupted run had settled.
        seconds: wall time of this run.
        truncated: the feed breaks off before its end; what came after is not in the catalog.
        columns: part of a product → the feed's column, several joined by " + "; empty for a recipe.
        unused: the feed's columns (JSON lines, XML: of its first rows) that nothing was read from.
        attributes: labelled products by attribute. unknown_values: labels by attribute that the vocabulary lacks.
        n_with_also: products with more than one right category.
        example: the first quarantined row in words.
        hints: what looks wrong and what to do, a sentence each; mostly none.
    """

    folder: Path
    rows_in: int
    accepted: int
    quarantined: int
    by_code: dict[str, int]
    warnings: dict[str, int]
    by_split: dict[Part, int]
    n_nodes: int
    n_leaves: int
    n_levels: int
    split: SplitReport
    seconds: float
    up_to_date: bool
    resumed_rows: int
    truncated: bool
    columns: dict[str, str]
    unused: tuple[str, ...]
    attributes: dict[str, int]
    unknown_values: dict[str, int]
    n_with_also: int
    example: str | None
    hints: tuple[str, ...]


def ingest(
    source: Path | str,
    out: Path | str,
    *,
    recipe: Recipe | None = None,
    mapping: Mapping | None = None,
    image_root: Path | str | None = None,
    taxonomy: Taxonomy | None = None,
    taxonomy_level: int | None = None,
    split: Split | None = None,
    vocabulary: Vocabulary | None = None,
    extract: bool | None = None,
    progress: Callable[[Tick], None] | None = None,
    overwrite: bool = False,
    limits: Limits = DEFAULT_LIMITS,
) -> IngestReport:
    """Makes a catalog of a feed, or of a public set by its recipe.

    Args:
        source: the feed's file, or the folder (or file) that the recipe reads.
        out: the catalog's folder; new, empty, or holding this very ingest.
        recipe: one of `shelver.datasets.recipes.RECIPES`; then `mapping` and `image_root` are not used.
        mapping: which column is what; what it leaves open is guessed.
        image_root: the folder of the pictures.
        taxonomy: the tree. A category is then a node's id or the path of one, and other categories are refused.
            Without it, the tree is that of the accepted rows' paths.
        taxonomy_level: cuts `taxonomy` here, as the mapping's `max_level` does; a category below is its ancestor.
        split: shares of the parts, 80/10/10 unless said. A feed's own `split` column wins over it, a recipe's
            does not.
        vocabulary: the attributes and their values. Labels are brought to its words, and a column that it knows by
            name or synonym is read without being mapped. Without it, it is that of the labels seen.
        extract: titles and descriptions are searched for values where neither a column nor a specification says
            one; None: where a vocabulary is given.
        progress: called some four times a second.
        overwrite: replaces a catalog made from another source or with other options; never a golden set.
        limits: bounds on sizes, for feeds.

    Raises:
        CatalogError: `out` holds something else, another process works on it, the disk is full, or not one row
            was accepted or has a category.
        FeedError, ConfigError, TaxonomyError: the source, the mapping or the tree cannot be used at all.
    """
    started = time.monotonic()
    out = Path(out)
    found = (
        recipe_source(recipe, Path(source), taxonomy, split, Labelling.of(vocabulary, extract))
        if recipe is not None
        else feed_source(
            Path(source),
            mapping,
            image_root,
            taxonomy,
            split,
            limits,
            taxonomy_level,
            Labelling.of(vocabulary, extract),
        )
    )
    refuse_file(out)
    resumed = 0
    info = existing = _existing(out, found.fingerprint, overwrite=overwrite)
    try:
        if info is None:
            out.mkdir(parents=True, exist_ok=True)
            with writing_alone(out):
                # Again: another process may just have ended.
                info = existing = _existing(out, found.fingerprint, overwrite=overwrite)
                if info is None:
                    info, resumed = _run(out, found, progress)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise CatalogError(
            f"no space left on the disk of {out}",
            allowed="about twice the space of the feed and its pictures",
            remedy="Make room and run the same command again: it goes on where it stopped.",
        ) from error
    if existing is not None:
        shutil.rmtree(out / STAGING, ignore_errors=True)  # of a run that was killed at its very end
    return _report(out, info, found, started, up_to_date=existing is not None, resumed_rows=resumed)


def _run(out: Path, source: Source, progress: Callable[[Tick], None] | None) -> tuple[CatalogInfo, int]:
    """Both passes; also the number of rows that an earlier run had settled."""
    staged = read_progress(out / STAGING)
    if staged is None or staged.fingerprint != source.fingerprint:
        shutil.rmtree(out / STAGING, ignore_errors=True)
        staged = Progress(layout=2, fingerprint=source.fingerprint)
    resumed = staged.rows_in
    with Staging(out / STAGING, staged) as staging:
        try:
            _read(source, staging, Clock(progress, "read", source.n_rows, resumed))
        except InputError:
            shutil.rmtree(out / STAGING)  # the feed breaks off here every time: nothing to go on with
            raise
        info = publish(out, source, staging, Clock(progress, "split", staging.progress.n_accepted, 0))
    shutil.rmtree(out / STAGING)
    return info, resumed


# --- the first pass -------------------------------------------------------------------------------------------


def _read(source: Source, staging: Staging, clock: Clock) -> None:
    if staging.progress.all_read:
        return
    # The reader is deterministic, so the rows of an earlier run are the first ones again.
    for row in islice(iter(source.rows()), staging.progress.rows_in, None):
        settled = _settle(row, source, staging)
        if isinstance(settled, BadRow):
            staging.refuse(settled)
        clock.step(1)
    staging.commit(all_read=True)
    clock.end()


def _settle(row: ProductRow | BadRow, source: Source, staging: Staging) -> BadRow | None:
    """Accepts a row, or says why not."""
    if isinstance(row, BadRow):
        return row
    product = row.product
    warnings = dict.fromkeys(row.warnings)
    places: dict[str, tuple[str, ...] | None] = {}
    if row.category is not None:
        for category in (row.category, *row.also):
            try:
                node_id, path = _place(category, source)
                places.setdefault(node_id, path)
            except RefusedError as refused:
                if not places:
                    return _refused(row, refused.code, str(refused), field=refused.field, raw=refused.raw)
                unknown = refused.code == Code.unknown_category
                warnings[Warn.also_unknown_category if unknown else Warn.also_bad_category] = None
    if not staging.is_new(storable(product.product_id) or ""):
        message = f"an earlier row has the product_id {product.product_id[:80]!r}"
        return _refused(row, Code.duplicate_id, message, field="product_id", raw=product.product_id)
    key = title_key(product.title or "") or title_key(product.description or "")
    first, *also = places or (None,)
    staging.accept(
        replace(product, node_id=first, also_node_ids=tuple(filter(None, also))),
        paths=[path for path in places.values() if path is not None],
        key=storable(key) or "",
        warnings=tuple(warnings),
        specification=row.specification,
    )
    return None


def _place(category: Category, source: Source) -> tuple[str, tuple[str, ...] | None]:
    """The id of a category's node, and its path where the tree will be made of the rows' paths.

    Raises:
        RefusedError: the path has an empty level, or the taxonomy does not have it.
    """
    names = (category,) if isinstance(category, str) else category
    text = " > ".join(names)
    if source.taxonomy is None and isinstance(category, str):
        return storable(category) or "", None  # a tree of one level will be made of these
    if source.taxonomy is None:
        path = tuple((storable(name) or "").strip() for name in names)
        if not all(path) or not path:
            raise RefusedError(Code.bad_category, "category", "a category path with an empty level", text)
        return path_id(path), path
    node_id = source.find_node(names)
    if node_id is None:
        message = f"the taxonomy has neither an id nor one path {text[:120]!r}"
        raise RefusedError(Code.unknown_category, "category", message, text)
    return node_id, None


def _refused(row: ProductRow, code: Code, message: str, *, field: str, raw: object) -> BadRow:
    return bad_row(row.line, code, message, field=field, raw=raw, product_id=row.product.product_id)


# --- the folder ------------------------------------------------------------------------------------------------


def _existing(out: Path, fingerprint: str, *, overwrite: bool) -> CatalogInfo | None:
    """The catalog that is there already and up to date; None where it has to be made.

    Raises:
        CatalogError: the folder holds something else.
    """
    allowed = "a new or empty folder, or the catalog of the same source and options"
    if (out / INFO_FILE).is_file():
        info = None if overwrite and not _is_frozen(out) else read_info(out)
        if info is not None and info.frozen:
            raise CatalogError(f"{out} is a golden set", allowed=allowed, remedy="Name another folder.")
        if info is not None and info.fingerprint != fingerprint:
            raise CatalogError(
                f"{out} holds a catalog of another source or other options ({info.name})",
                allowed=allowed,
                remedy="Name another folder, or replace it with --overwrite.",
            )
        return info
    staged = read_progress(out / STAGING)
    if staged is not None:
        if staged.fingerprint != fingerprint and not overwrite:
            raise CatalogError(
                f"{out} holds an unfinished ingest of another source or other options",
                allowed=allowed,
                remedy="Finish that one, name another folder, or replace it with --overwrite.",
            )
    elif out.is_dir() and (strange := {path.name for path in out.iterdir()} - {STAGING, QUARANTINE_FILE}):
        raise CatalogError(
            f"{out} holds other files, for example {min(strange)}",
            allowed=allowed,
            remedy="Name another folder; nothing was touched.",
        )
    return None


def _is_frozen(out: Path) -> bool:
    try:
        return read_info(out).frozen
    except CatalogError:
        return False


def _report(
    out: Path, info: CatalogInfo, source: Source, started: float, *, up_to_date: bool, resumed_rows: int
) -> IngestReport:
    return IngestReport(
        folder=out,
        rows_in=info.rows_in,
        accepted=info.n_products,
        quarantined=info.n_quarantined,
        by_code=info.quarantine_by_code,
        warnings=info.warnings_by_code,
        by_split=info.by_split,
        n_nodes=info.n_nodes,
        n_leaves=info.n_leaves,
        n_levels=info.n_levels,
        split=info.split,
        seconds=time.monotonic() - started,
        up_to_date=up_to_date,
        resumed_rows=resumed_rows,
        truncated=is_truncated(info),
        columns=source.columns,
        unused=source.unused,
        attributes=info.attributes,
        unknown_values=info.unknown_values,
        n_with_also=info.n_with_also,
        example=example_of(out, info),
        hints=hints(out, info, source),
    )
