"""Recipes: public product sets as their owners lay them out. shelver ships how to read them, never a row.

    ingest("data/fashion", "catalogs/fashion", recipe=RECIPES["fashion"])

A recipe brings its own split where its set has a published one; `split=` overrides it. The hash split of
`instacart` and `hpc3level` is a rule about a text t, the lower-cased text whose runs of non-word characters
became one space, stripped: train where int(sha256("s:" + t)) % 100 < 80, else test; and of train, validation
where int(sha256("v:" + t)) % 10 == 0. Equal texts are on one side. Nearly equal ones may not be, between train
and validation as between train and test, so that validation foretells test; the ingest report counts them.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType

from shelver.catalog.mapping import Mapping as Columns
from shelver.catalog.reader import ProductRow, read_products
from shelver.catalog.rows import BadRow
from shelver.catalog.split import Part, Split
from shelver.datasets import rakuten
from shelver.datasets.places import file_in, no_pictures, no_taxonomy
from shelver.taxonomy import Taxonomy

Rows = Iterator[ProductRow | BadRow]

_NON_WORD = re.compile(r"\W+")


@dataclass(frozen=True, slots=True)
class Recipe:
    """How to read one public set.

    Attributes:
        name: as on the command line.
        summary: one line for a person.
        rows: the folder (or the file itself) → one item for each row; a split in them is the recipe's own.
        taxonomy: the tree where the set has one beside its rows; None: the tree of the rows' paths.
        files: the files whose content decides what `rows` gives.
        pictures: the folder of the pictures, or None.
        attributes: the names of those that `rows` brings.
        version: counted up where `rows` gives other products than it did.
        split: how products without a split of their own are dealt; None: 80/10/10.
    """

    name: str
    summary: str
    rows: Callable[[Path], Rows]
    files: Callable[[Path], list[Path]]
    taxonomy: Callable[[Path], Taxonomy | None] = no_taxonomy
    pictures: Callable[[Path], Path | None] = no_pictures
    split: Split | None = None
    attributes: tuple[str, ...] = ()
    version: int = 1


def hash_part(text: str) -> Part:
    """The part of a text under the hash split; see the module."""
    t = _NON_WORD.sub(" ", text.lower()).strip()
    if _hash("s:", t) % 100 >= 80:
        return "test"
    return "validation" if _hash("v:", t) % 10 == 0 else "train"


def _hash(salt: str, text: str) -> int:
    return int(hashlib.sha256((salt + text).encode("utf-8", "surrogatepass")).hexdigest(), 16)


def _hash_split(rows: Rows) -> Rows:
    for row in rows:
        if isinstance(row, BadRow):
            yield row
        else:
            text = row.product.title or row.product.description or ""
            yield replace(row, product=replace(row.product, split=hash_part(text)))


# --- fashion --------------------------------------------------------------------------------------------------

_FASHION = Columns(
    columns={
        "product_id": "id",
        "title": "productDisplayName",
        "category": ("masterCategory", "subCategory", "articleType"),
        "image": "image",
        "split": "split",
    },
    attributes={name: name for name in ("gender", "baseColour", "season", "usage")},
    constants={"language": "en"},
)


def _fashion_files(source: Path) -> list[Path]:
    return [file_in(source, "fashion.parquet", recipe="fashion")]


def _fashion(source: Path) -> Rows:
    return read_products(_fashion_files(source)[0], mapping=_FASHION)


# --- flipkart -------------------------------------------------------------------------------------------------

# Deeper names are often the product itself.
_FLIPKART_LEVELS = 3
_FLIPKART = Columns(
    columns={
        "product_id": "uniq_id",
        "title": "product_name",
        "description": "description",
        "brand": "brand",
        "category": "product_category_tree",
        "image": "image",
        "specification": "product_specifications",
    },
    constants={"language": "en"},
    category_separator="\x1f",  # the cell is taken whole: it is a list of paths
    image_folder="images",
)


def _flipkart_files(source: Path) -> list[Path]:
    return [file_in(source, "products.csv", recipe="flipkart")]


def _flipkart_pictures(source: Path) -> Path | None:
    folder = _flipkart_files(source)[0].parent / "images"
    return folder if folder.is_dir() else None


def _flipkart(source: Path) -> Rows:
    for row in read_products(_flipkart_files(source)[0], mapping=_FLIPKART):
        if isinstance(row, ProductRow) and row.category is not None:
            first, *also = flipkart_paths(row.category[0]) or (None,)
            yield replace(row, category=first, also=tuple(filter(None, also)))
        else:
            yield row


def flipkart_paths(cell: str) -> list[tuple[str, ...]]:
    """The paths of `["A >> B >> C", ...]`, cut at level 3, each once; also where the list is no valid JSON."""
    try:
        listed = json.loads(cell)
    except ValueError:
        listed = None
    found: dict[tuple[str, ...], None] = {}
    for text in listed if isinstance(listed, list) else [cell.strip().strip('[]"')]:
        names = [" ".join(name.split()) for name in str(text).split(">>")]
        if path := tuple(name for name in names if name)[:_FLIPKART_LEVELS]:
            found[path] = None
    return list(found)


# --- grocery, instacart, hpc3level ----------------------------------------------------------------------------

_GROCERY = Columns(
    columns={"product_id": "path", "category": "category", "image": "image", "split": "split"},
)
# One class of the 81 (`fine_id` 67) stands under two paths; as two nodes it could never be told right.
_GROCERY_STRAY = ("Vegetables", "Brown-Cap-Mushroom")
_GROCERY_HOME = ("Vegetables", "Mushroom", "Brown-Cap-Mushroom")
_INSTACART = Columns(
    columns={"product_id": "product_id", "title": "product_name", "category": ("department", "aisle")},
    constants={"language": "en"},
)
# It has no ids, and its texts repeat.
_HPC = Columns(
    columns={"description": "Description", "category": ("Level_1", "Level_2", "Level_3")},
    constants={"language": "en"},
    id_from="line",
)


def _grocery_files(source: Path) -> list[Path]:
    return [file_in(source, "grocery.parquet", recipe="grocery")]


def _grocery(source: Path) -> Rows:
    for row in read_products(_grocery_files(source)[0], mapping=_GROCERY):
        if isinstance(row, ProductRow) and row.category == _GROCERY_STRAY:
            yield replace(row, category=_GROCERY_HOME)
        else:
            yield row


def _instacart_files(source: Path) -> list[Path]:
    return [file_in(source, "products.csv", recipe="instacart")]


def _instacart(source: Path) -> Rows:
    return _hash_split(read_products(_instacart_files(source)[0], mapping=_INSTACART))


def _hpc_files(source: Path) -> list[Path]:
    return [file_in(source, "products.csv", recipe="hpc3level")]


def _hpc(source: Path) -> Rows:
    return _hash_split(read_products(_hpc_files(source)[0], mapping=_HPC))


RECIPES: Mapping[str, Recipe] = MappingProxyType(
    {
        recipe.name: recipe
        for recipe in (
            Recipe(
                "fashion",
                "Fashion Product Images (Myntra): titles and small pictures, three levels, given split",
                _fashion,
                _fashion_files,
                attributes=tuple(_FASHION.attributes),
            ),
            Recipe(
                "flipkart",
                "Flipkart sample: titles, descriptions, specifications, a folder of photos; tree cut at level 3",
                _flipkart,
                _flipkart_files,
                version=2,
                pictures=_flipkart_pictures,
            ),
            Recipe(
                "grocery",
                "GroceryStoreDataset: natural photos without text, given split",
                _grocery,
                _grocery_files,
            ),
            Recipe(
                "instacart",
                "Instacart product names: department > aisle, 80/20 by a hash of the name",
                _instacart,
                _instacart_files,
            ),
            Recipe(
                "hpc3level",
                "Stemmed English descriptions, anonymised codes in three levels, 80/20 by a hash of the text",
                _hpc,
                _hpc_files,
            ),
            Recipe(
                "rakuten-fr",
                "Rakuten France challenge: titles, descriptions, pictures where they are there; 27 flat codes",
                rakuten.fr_rows,
                rakuten.fr_files,
                taxonomy=rakuten.fr_taxonomy,
                pictures=rakuten.fr_pictures,
            ),
            Recipe(
                "rakuten-2018",
                "Rakuten Data Challenge 2018: titles and id paths, tab separated without a header",
                rakuten.rows_2018,
                rakuten.files_2018,
                taxonomy=rakuten.taxonomy_2018,
            ),
        )
    }
)
"""Every recipe by its name."""
