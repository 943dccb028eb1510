"""Reads a tree from a file of any known format, told by its content."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Literal, get_args

from shelver.taxonomy import own
from shelver.taxonomy.build import fail
from shelver.taxonomy.flat import delimiter, flat_tree, is_header
from shelver.taxonomy.google import LINE as GOOGLE_LINE
from shelver.taxonomy.google import google_tree
from shelver.taxonomy.gs1 import gs1_tree
from shelver.taxonomy.paths import id_paths_tree, paths_tree
from shelver.taxonomy.shopify import LINE as SHOPIFY_LINE
from shelver.taxonomy.shopify import shopify_tree
from shelver.taxonomy.source import Source, read_source
from shelver.taxonomy.tree import Taxonomy, from_own

TreeFormat = Literal["shelver", "google", "shopify", "gs1", "paths", "idpaths", "flat"]
FORMATS: tuple[TreeFormat, ...] = get_args(TreeFormat)

# In this order: " > " within ">> " would leave a ">" on each name.
SEPARATORS = (" >> ", ">>", " > ", ">", " › ", " » ", " / ", " | ", "|", " :: ")
ID_PATH = re.compile(r"\s*\d+(>\d+)*\s*")
CODE = re.compile(r'\s*"?[\w.-]*\d[\w.-]*"?\s*')
SAMPLE = 1000
"""Lines that detection looks at."""


def read_taxonomy(path: Path | str, *, format: TreeFormat | None = None, sep: str | None = None) -> Taxonomy:  # noqa: A002
    """Reads a tree.

    Args:
        path: the file, plain, gzipped or bzipped; or a folder that holds a `taxonomy.json`, such as a
            catalog or a model.
        format: its format; told by the content where None.
        sep: what stands between the names of a path or the columns of a table; told by the content where
            None. A `sep` without a `format` means a path list.

    Raises:
        TaxonomyError: the format cannot be told, or the file is no tree; names the line.
    """
    path = Path(path)
    source = read_source(path / "taxonomy.json" if path.is_dir() else path)
    if not source.text.strip():
        fail(f"{source.name}: an empty file", allowed="the file of a category tree")
    if format is not None and format not in FORMATS:
        fail(f"format {format!r}", allowed=", ".join(FORMATS), remedy="Choose one of them.")
    match format or ("paths" if sep is not None else detect(source)):
        case "shelver":
            return from_own(own.parse(source))
        case "google":
            return google_tree(source)
        case "shopify":
            return shopify_tree(source)
        case "gs1":
            return gs1_tree(source)
        case "idpaths":
            return id_paths_tree(source, sep or ">")
        case "flat":
            return flat_tree(source, sep)
        case "paths":
            return paths_tree(source, sep or separator(source) or " > ")


def detect(source: Source) -> TreeFormat:
    """Tells the format of a file by its content.

    Raises:
        TaxonomyError: it looks like none, or could be several.
    """
    head = source.text[:4096].lstrip()
    if head.startswith("{"):
        return "shelver" if f'"{own.FORMAT}"' in head else "gs1"
    if head.startswith("["):
        return "gs1"
    lines = [text for _, text in source.lines[:SAMPLE]]
    if not lines:
        return "paths"
    # Most lines decide, so that a broken one is named by its reader.
    if sum(SHOPIFY_LINE.fullmatch(text) is not None for text in lines) * 2 > len(lines):
        return "shopify"
    if sum(GOOGLE_LINE.fullmatch(text) is not None for text in lines) * 2 > len(lines):
        return "google"
    if any(">" in text for text in lines) and all(map(ID_PATH.fullmatch, lines)):
        return "idpaths"
    cells = [text.split(delimiter(source)) for text in lines]
    coded = all(len(row) > 1 and CODE.fullmatch(row[0]) for row in cells)
    if is_header(cells[0]) or coded or ("\t" in lines[0] and all(len(row) == 2 for row in cells)):
        return "flat"
    if separator(source):
        return "paths"
    if any("\t" in text or "," in text or ";" in text for text in lines):
        fail(
            f"{source.name}: a format that cannot be told from its content, it begins {head[:60]!r}",
            allowed=", ".join(FORMATS),
            remedy="Name the format, and the separator of its paths.",
        )
    return "paths"  # one name a line: a tree of one level


def separator(source: Source) -> str | None:
    """The separator of a path list: the first of SEPARATORS that a line holds."""
    sample = "\n".join(text for _, text in source.lines[:SAMPLE])
    return next((sep for sep in SEPARATORS if sep in sample), None)
