"""What a person should know of an ingest beside its counts: sentences, each with what to do about it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from shelver.catalog.mapping import DEFAULT_SEPARATOR
from shelver.catalog.rows import Code, Warn
from shelver.catalog.source import Source
from shelver.catalog.staging import Progress
from shelver.catalog.store import QUARANTINE_FILE, TAXONOMY_FILE, CatalogInfo
from shelver.errors import CatalogError
from shelver.taxonomy import Taxonomy

_SEPARATORS = (">>", ">", "::", "|", "/")
_CELLS = (Code.too_few_cells, Code.too_many_cells, Code.unbalanced_quote)
_SHOWN_COLUMNS = 40


def is_truncated(info: CatalogInfo) -> bool:
    """Whether the feed broke off before its end."""
    return Code.damaged_file.value in info.quarantine_by_code


def example_of(out: Path, info: CatalogInfo) -> str | None:
    """The first quarantined row, as a person reads it; None where there is none."""
    first = next(_quarantined(out), None) if info.n_quarantined else None
    return f"line {first['line']}, {first['code']}: {first['message']}" if first else None


def hints(out: Path, info: CatalogInfo, source: Source) -> tuple[str, ...]:
    """What looks wrong with an ingest that went through; mostly nothing."""
    found = []
    if is_truncated(info):
        line = next(row["line"] for row in _quarantined(out) if row["code"] == Code.damaged_file)
        place = f"after line {line - 1:,}" if line > 1 else "in line 1"
        found.append(
            f"the file breaks off {place}: what came after it is not in the catalog; get the whole "
            "file and run again with --overwrite"
        )
    return (*found, *_on_categories(out, source), *_on_pictures(info, source))


def _quarantined(out: Path) -> Iterator[dict[str, Any]]:
    with (out / QUARANTINE_FILE).open("rb") as file:
        yield from map(json.loads, file)


def _on_categories(out: Path, source: Source) -> list[str]:
    """A feed's own tree that is flat because its paths were not read as paths."""
    mapping = source.feed.mapping if source.feed is not None else None
    if mapping is None or source.taxonomy is not None or mapping.category_format == "id":
        return []
    if not isinstance(mapping.columns.get("category"), str):
        return []  # the columns are the levels
    tree = Taxonomy.load(out / TAXONOMY_FILE)
    tops = [name for name, level in zip(tree.names, tree.level.tolist(), strict=True) if level == 1]
    if tree.n_levels == 1 and all(name.isdecimal() for name in tops):
        return ["the categories look like ids: name their tree with --taxonomy and run again with --overwrite"]
    if mapping.category_separator != DEFAULT_SEPARATOR:
        return []
    for separator in _SEPARATORS:
        joined = re.compile(rf"[\w)]\s*{re.escape(separator)}\s*[\w(]")
        n = sum(joined.search(name) is not None for name in tops)
        if 2 * n > len(tops):
            return [
                f'{n:,} category names hold "{separator}": if it separates levels, set category_separator in a '
                "mapping and run again with --overwrite"
            ]
    return []


def _on_pictures(info: CatalogInfo, source: Source) -> list[str]:
    """A picture folder that is not the one that the feed means."""
    code = Warn.image_missing.value
    n_missing = info.warnings_by_code.get(code, 0) + info.quarantine_by_code.get(code, 0)
    n_named = info.n_with_images + n_missing
    if 2 * n_missing <= n_named or (found := source.missing_picture()) is None:
        return []
    folder, name = found
    return [
        f"{n_missing:,} of {n_named:,} named pictures were not found in {folder} (for example {name}): "
        "pass --images FOLDER and run again with --overwrite"
    ]


def nothing_to_learn(out: Path, source: Source, done: Progress) -> CatalogError:
    """The error for a feed of which nothing could be made a catalog; the advice follows the commonest reason."""
    columns = source.feed.columns if source.feed is not None else ()
    shown = ", ".join(columns[:_SHOWN_COLUMNS]) + (", …" if len(columns) > _SHOWN_COLUMNS else "")
    if not done.rows_in:
        return CatalogError(
            f"{source.name} has no row" + (f" below its header ({shown})" if shown else ""),
            allowed="a feed with one row or more",
            remedy="Check how the feed was written.",
        )
    codes = ", ".join(f"{code} {n:,}" for code, n in done.quarantine_by_code.items()) or "none"
    refused = f"{done.rows_in - done.n_accepted:,} quarantined ({codes})"
    accepted = f"{done.n_accepted:,} accepted" + (", none with a category," if done.n_accepted else "")
    return CatalogError(
        f"{source.name}: {done.rows_in:,} rows = {accepted} + {refused}",
        allowed="a feed in which some rows have a category, or a taxonomy"
        if done.n_accepted
        else "a feed of which some rows can be used",
        remedy=f"{_remedy(source, done, shown)} {out / QUARANTINE_FILE} says what was wrong with each row.",
    )


def _remedy(source: Source, done: Progress, shown: str) -> str:
    read = source.feed.mapping.columns if source.feed is not None else None
    if read is None:
        return "Check that these are the files of the set."
    if done.n_accepted:
        if "category" in read:
            named = source.columns["category"]
            return f"The category column ({named}) is empty: map another with --column category=NAME."
        return f"No column was read as category; the feed has: {shown}. Map one with --column category=NAME."
    counts = done.quarantine_by_code
    code = max(counts, key=lambda code: counts[code])
    if code == Code.empty_product:
        parts = [name for name in ("title", "description", "brand", "image") if name in read]
        if parts:
            return f"The columns read as {', '.join(parts)} are empty; the feed has: {shown}."
        other = next((column for column in source.unused if column), "NAME")
        return (
            f"No column was read as title, description or image; the feed has: {shown}; map one with "
            f"--column title={other}."
        )
    if code == Code.missing_id:
        return "Map another column with --column product_id=NAME, or set id_from = 'line' in a mapping."
    if code == Code.unknown_category:
        return "Check that --taxonomy is the tree of this feed, and category_separator in a mapping."
    if code == Code.image_missing:
        found = source.missing_picture()
        where = f" The pictures were not found in {found[0]} (for example {found[1]})." if found else ""
        return f"Pass --images FOLDER.{where}"
    if code in _CELLS:
        return "Set the delimiter in a mapping, or quoted = false where quotes are plain characters."
    if code == Code.bad_encoding:
        return "Set the encoding in a mapping."
    if code in (Code.bad_category, Code.bad_split, Code.bad_value):
        return f"Check which column is read as {code.removeprefix('bad_')}, or map another with --column."
    if code == Code.damaged_file:
        return "Get the whole file."
    return "Check how the feed was written."
