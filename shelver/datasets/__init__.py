"""Data sets: recipes for public ones, and generated ones that need no network.

recipes.py      RECIPES: how to read public sets as their owners lay them out
rakuten.py      the two Rakuten challenges
places.py       finds a recipe's files
generated.py    the generated demo catalog; generated_titles.py: text feeds of any size over any tree
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from shelver.datasets.generated import MessyListing, messy_listings, write_demo
    from shelver.datasets.generated_titles import write_text_feed
    from shelver.datasets.recipes import RECIPES, Recipe

__all__ = ["RECIPES", "MessyListing", "Recipe", "messy_listings", "write_demo", "write_text_feed"]

_HOMES = {
    "RECIPES": "recipes",
    "Recipe": "recipes",
    "MessyListing": "generated",
    "messy_listings": "generated",
    "write_demo": "generated",
    "write_text_feed": "generated_titles",
}


def __getattr__(name: str) -> object:
    # Lazy: a recipe needs no drawing, and drawing needs no Parquet.
    if name in _HOMES:
        return getattr(import_module(f"shelver.datasets.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'shelver.datasets' has no attribute {name!r}")
