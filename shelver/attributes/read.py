"""Reads a vocabulary; the format is told by what stands at the path."""

from __future__ import annotations

import json
from pathlib import Path

from shelver.attributes.lines import read_text
from shelver.attributes.shopify import read_shopify_listing, read_shopify_vocabulary
from shelver.attributes.table import read_table
from shelver.attributes.vocabulary import Vocabulary
from shelver.errors import InputError


def read_vocabulary(path: Path | str) -> Vocabulary:
    """Reads Shopify's folder, one of its `LANGUAGE.attributes.json`, our own `attributes.json`, or a CSV.

    Raises:
        InputError: there is no such file or folder, or it is not understood; names the line where there is one.
    """
    path = Path(path)
    if path.is_dir():
        return read_shopify_vocabulary(path)
    if not path.is_file():
        raise InputError(
            f"{path}: no such file or folder",
            allowed="a vocabulary, see docs/attributes.md",
            remedy="Check the path.",
        )
    if path.suffix != ".json":
        return read_table(path)
    return read_shopify_listing(path) if _is_shopifys(path) else Vocabulary.load(path)


def _is_shopifys(path: Path) -> bool:
    """Shopify's values have handles; ours do not, and say so by refusing unknown fields."""
    try:
        content = json.loads(read_text(path))
        return "handle" in content["attributes"][0]
    except (ValueError, RecursionError, KeyError, IndexError, TypeError):
        return False
