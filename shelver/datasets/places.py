"""Finds a recipe's files in the folder that the user names."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from shelver.errors import FeedError
from shelver.taxonomy import Taxonomy

PUBLISHED: Final = {
    "fashion": 'Kaggle\'s "Fashion Product Images (Small)", made into one Parquet file with the pictures inside',
    "flipkart": 'Kaggle\'s "Flipkart Products", its photos in images/',
    "grocery": "GroceryStoreDataset on GitHub, made into one Parquet file with the pictures inside",
    "instacart": 'Kaggle\'s "Instacart Market Basket Analysis", department and aisle by name',
    "hpc3level": "the set of stemmed descriptions with the columns Description, Level_1, Level_2 and Level_3",
    "rakuten-fr": "the Rakuten France Multimodal Product Data Classification challenge of ENS Challenge Data",
    "rakuten-2018": "the Rakuten Data Challenge of the SIGIR 2018 eCom workshop",
}
"""Where the files of each recipe come from."""


def file_in(source: Path, *patterns: str, recipe: str, given: Path | None = None) -> Path:
    """The file of a recipe.

    Args:
        source: the folder, or the file itself.
        patterns: names, also with `*`; the first that is there wins.
        recipe: for the message.
        given: what the user named, where `source` is the folder of it; for the message.

    Raises:
        FeedError: there is no such file.
    """
    if source.is_file():
        return source
    for pattern in patterns:
        found = sorted(path for path in source.glob(pattern) if path.is_file()) if source.is_dir() else []
        if found:
            return found[0]
    names = " or ".join(patterns)
    raise FeedError(
        f"{_shown(given or source)} {'has no ' + names if source.is_dir() else 'is not there'}",
        allowed=f"the folder of the set {recipe}, with {names}",
        remedy=f"Check the path. The set is {PUBLISHED[recipe]}.",
    )


def _shown(path: Path) -> str:
    if path.is_file():
        return f"the folder of {path}"
    return f"the folder {path.resolve()}" if path == Path() else str(path)


def no_taxonomy(_: Path) -> Taxonomy | None:
    """For sets whose tree is that of the rows' paths."""
    return None


def no_pictures(_: Path) -> Path | None:
    """For sets whose pictures stand in their rows, or that have none."""
    return None
