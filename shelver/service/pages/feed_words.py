"""What codes of feeds say to people."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from shelver.service.pages.locales import mark

REASONS: Final[Mapping[str, str]] = {
    "bad_encoding": mark("letters that cannot be read in the encoding of the file"),
    "nul_byte": mark("a NUL byte in the row"),
    "too_few_cells": mark("fewer cells than there are columns"),
    "too_many_cells": mark("more cells than there are columns"),
    "unbalanced_quote": mark("a quotation mark that is never closed"),
    "cell_too_large": mark("a cell that is too large"),
    "row_too_large": mark("a row that is too large"),
    "bad_json": mark("a line that is no valid JSON"),
    "not_an_object": mark("a line of JSON that is no object"),
    "bad_xml": mark("broken XML"),
    "damaged_file": mark("the file breaks off or is damaged here"),
    "wrong_type": mark("a value of the wrong kind, or too long"),
    "missing_id": mark("no id"),
    "bad_id": mark("an id that is too long or has control characters"),
    "empty_product": mark("neither a text nor a picture"),
    "image_missing": mark("nothing but a picture, which is not in the file"),
    "image_too_many_bytes": mark("nothing but a picture, which is too large"),
    "image_refused": mark("nothing but a picture, at an address that is not followed"),
    "bad_value": mark("a value that is no number of at least 0"),
    "bad_split": mark("a split that is unknown"),
    "bad_category": mark("a category path with an empty level, or too long"),
    "duplicate_id": mark("an id that an earlier row has"),
    "missing_category": mark("no category"),
    "unknown_category": mark("a category that is not in the tree"),
}
"""Why a row was refused; see `shelver.catalog.rows.Code`."""
TOLD_IN_FULL: Final = frozenset(
    {
        "bad_encoding",
        "nul_byte",
        "too_few_cells",
        "too_many_cells",
        "unbalanced_quote",
        "bad_json",
        "not_an_object",
        "missing_id",
        "bad_id",
        "empty_product",
        "duplicate_id",
        "missing_category",
    }
)
"""Those of which the reader's own message says no more than our words, or only in figures."""
WARNINGS: Final[Mapping[str, str]] = {
    "unknown_category": mark("the category is not in the tree: listed without one"),
    "picture_not_fetched": mark("pictures at addresses: feeds bring none, add them at the listing"),
    "image_missing": mark("a picture that is not in the file"),
    "image_too_many_bytes": mark("a picture that is too large"),
    "image_refused": mark("a picture at an address that is not followed"),
    "too_many_pictures": mark("more pictures than a listing can have"),
    "too_many_attributes": mark("more attributes than a listing can have: those of the feed were left out"),
    "also_bad_category": mark("a further category that cannot be read"),
    "attribute_refused": mark("an attribute that cannot be used"),
    "image_empty": mark("an empty picture"),
    "image_format": mark("a picture of a format that is not known"),
    "image_truncated": mark("a picture that breaks off"),
    "image_broken": mark("a broken picture"),
    "image_too_large": mark("a picture with too many points"),
}
"""What was left out of a product that was taken."""
