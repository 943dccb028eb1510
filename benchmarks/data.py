"""The sets: where their catalogs come from, and the products of a split as a system is asked for them.

A set is a catalog and a question: from the text, from the picture, or from both. A catalog may have folds; each
fold is a catalog of its own, with a test part that no other fold has.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

from shelver.catalog.ingest import ingest
from shelver.catalog.reader import ProductRow
from shelver.catalog.rows import BadRow
from shelver.catalog.split import Part
from shelver.catalog.store import Catalog
from shelver.datasets.generated_titles import write_text_feed
from shelver.datasets.recipes import RECIPES, Recipe
from shelver.errors import ConfigError
from shelver.product import Product
from shelver.taxonomy import read_taxonomy

Ask = Literal["text", "picture", "both"]

N_FOLDS: Final = 5
_NON_WORD = re.compile(r"\W+")
_GOOGLE: Final = "google.en-US.txt"


@dataclass(frozen=True, slots=True)
class Set:
    """What is asked of which catalog.

    Attributes:
        name: as in the table.
        catalog: the name of the catalog; sets of one catalog share a model where the system answers them all.
        ask: what of a product is shown; the rest is taken away.
        folds: how many catalogs it has.
        lite0_px: (width, height) at which the frozen picture network looks.
    """

    name: str
    catalog: str
    ask: Ask
    folds: int = 1
    lite0_px: tuple[int, int] = (224, 224)


SETS: Final = (
    *(Set(f"fashion-{ask}", "fashion", ask, lite0_px=(96, 128)) for ask in ("text", "picture", "both")),
    Set("instacart", "instacart", "text"),
    Set("hpc3level", "hpc3level", "text"),
    *(
        Set(f"flipkart-l{level}-{ask}", f"flipkart-l{level}", ask, folds=N_FOLDS)
        for level in (1, 2, 3)
        for ask in ("text", "both")
    ),
    Set("grocery", "grocery", "picture"),
    Set("google200k", "google200k", "text"),
    Set("google5k", "google5k", "text"),
)
"""Every set; google5k is a small google200k, to see whether all works."""
NOT_UNLESS_NAMED: Final = ("google5k",)
GENERATED_ROWS: Final = {"google200k": 200_000, "google5k": 5_000}


def sets_named(names: Sequence[str]) -> list[Set]:
    """The sets of these names, or of catalogs whose names begin so ("flipkart"); without names, all.

    Raises:
        ConfigError: a name fits none.
    """
    if not names:
        return [s for s in SETS if s.name not in NOT_UNLESS_NAMED]
    unknown = [n for n in names if not any(_fits(s, n) for s in SETS)]
    if unknown:
        raise ConfigError(
            f"set {unknown[0]!r}",
            allowed=", ".join(s.name for s in SETS),
            remedy="Name some of these, or a prefix.",
        )
    return [s for s in SETS if any(_fits(s, n) for n in names)]


def _fits(one: Set, name: str) -> bool:
    return one.name == name or one.name.startswith(name + "-")


def catalogs_of(one: Set, source: Path, work: Path) -> list[Path]:
    """The folders of a set's catalogs, one a fold; made where they are not there.

    Args:
        one: the set.
        source: folder of the data sets, one folder each.
        work: where catalogs go.
    """
    folder = work / "catalogs"
    if one.catalog in GENERATED_ROWS:
        return [_generated(one.catalog, source, folder)]
    if one.folds == 1:
        ingest(source / one.catalog, folder / one.catalog, recipe=RECIPES[one.catalog])
        return [folder / one.catalog]
    level = int(one.catalog.rpartition("-l")[2])
    made = []
    for fold in range(one.folds):
        recipe = folded(RECIPES["flipkart"], level=level, fold=fold)
        ingest(source / "flipkart", folder / recipe.name, recipe=recipe)
        made.append(folder / recipe.name)
    return made


def _generated(name: str, source: Path, folder: Path) -> Path:
    tree = read_taxonomy(source / "taxonomies" / _GOOGLE)
    feed = folder / f"{name}.parquet"
    folder.mkdir(parents=True, exist_ok=True)
    if not feed.is_file():
        write_text_feed(tree, feed, n_rows=GENERATED_ROWS[name])
    ingest(feed, folder / name, taxonomy=tree)
    return folder / name


def folded(recipe: Recipe, *, level: int, fold: int) -> Recipe:
    """A recipe dealt into folds: a text of title and description, a label cut at a level.

    Test is the fold; of the rest, a tenth by another hash is validation. The hash is of the title, so that equal
    titles are on one side.
    """

    def rows(source: Path) -> Iterator[ProductRow | BadRow]:
        for row in recipe.rows(source):
            if isinstance(row, BadRow) or row.category is None:
                yield row
                continue
            title = row.product.title or row.product.description or ""
            product = replace(row.product, brand=None, split=fold_part(title, fold))
            category = row.category if isinstance(row.category, str) else row.category[:level]
            yield replace(row, product=product, category=category)

    return replace(recipe, name=f"{recipe.name}-l{level}-fold{fold}", rows=rows)


def fold_part(title: str, fold: int) -> Part:
    """The part of a title when `fold` of `N_FOLDS` is tested."""
    t = _NON_WORD.sub(" ", title.lower()).strip()
    if _hash("s:", t) % N_FOLDS == fold:
        return "test"
    return "validation" if _hash("v:", t) % 10 == 0 else "train"


def _hash(salt: str, text: str) -> int:
    return int(hashlib.sha256((salt + text).encode("utf-8", "surrogatepass")).hexdigest(), 16)


def labelled(catalog: Catalog, parts: Sequence[Part], ask: Ask) -> tuple[list[Product], NDArray[np.int32]]:
    """The labelled products of some parts with only what is asked, and their nodes, shape (N,)."""
    shown = SHOWN[ask]
    found = [
        shown(product)
        for part in parts
        for products in catalog.products(part, images=ask != "text")
        for product in products
        if product.node_id is not None
    ]
    return found, catalog.taxonomy.indices([p.node_id for p in found if p.node_id is not None])


def _text_alone(product: Product) -> Product:
    return replace(product, images=(), image_urls=())


def _picture_alone(product: Product) -> Product:
    return replace(product, title=None, description=None, brand=None)


def _whole(product: Product) -> Product:
    return product


SHOWN: Final[dict[Ask, Callable[[Product], Product]]] = {
    "text": _text_alone,
    "picture": _picture_alone,
    "both": _whole,
}
"""What is left of a product when a system is asked so."""
