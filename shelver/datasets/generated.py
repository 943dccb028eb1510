"""The generated demo catalog: a small shop with every trouble that real feeds have, and a known truth."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from random import Random

import pyarrow as pa
import pyarrow.parquet as pq

from shelver.datasets.generated_pictures import COLOURS, draw_product
from shelver.datasets.generated_tree import Shelf, shelves
from shelver.datasets.generated_words import SELLERS, Seller, Text, write_text
from shelver.errors import ConfigError
from shelver.product import Product

P_NO_PICTURE = 0.08
P_WRONG_PICTURE = 0.02
P_NO_TEXT = 0.05
P_WRONG_LABEL = 0.02

ATTRIBUTES = ("color", "material", "pattern")
"""Columns of the feed that are true labels, empty where nothing of the listing tells."""

FEED_NAME = "demo.parquet"
_ROWS_IN_A_GROUP = 500
_COLUMNS = pa.schema(
    [
        *((name, pa.string()) for name in ("product_id", "title", "description", "brand")),
        ("image", pa.binary()),
        *((name, pa.string()) for name in ("category", "source", "language")),
        ("value", pa.float64()),
        *((name, pa.string()) for name in ATTRIBUTES),
    ]
)
_SHELVES = shelves()
_SHELF_ODDS = list(accumulate(shelf.weight for shelf in _SHELVES))
_SELLER_ODDS = list(accumulate(seller.share for seller in SELLERS))


@dataclass(frozen=True, slots=True)
class MessyListing:
    """A listing for the demo's summary.

    Attributes:
        product: what a seller sent.
        shelf: the path that a person would call right, joined by " > ".
        trouble: what is wrong with it, in a few words.
    """

    product: Product
    shelf: str
    trouble: str


def write_demo(out_dir: Path, *, n_products: int = 6_000, seed: int = 0) -> Path:
    """Writes the demo feed: one Parquet file with the pictures inside, ready for `shelver ingest`.

    Product i depends on `seed` and i alone: a larger feed starts with the smaller one, and writing it twice
    gives the same bytes. Some 8 % of the products lack their picture, 5 % their text, never both; 2 % show
    the picture of something else, 2 % stand on a wrong shelf.

    Args:
        out_dir: made where missing; the file in it is replaced.
        n_products: rows.
        seed: another seed is another stock of the same shop.

    Returns:
        The file: columns product_id, title, description, brand, image (JPEG bytes), category (path joined by
        " > "), source (the seller), language ("en", "fr"), value (sales, heavy-tailed), and the true attributes,
        in English: color, which is drawn and often said; material, where the title says one; pattern, where the
        product was drawn.

    Raises:
        ConfigError: `n_products` is below 1.
    """
    if n_products < 1:
        raise ConfigError(
            f"n_products = {n_products}", allowed="1 or more", remedy="Ask for at least one product."
        )
    out_dir.mkdir(parents=True, exist_ok=True)
    feed = out_dir / FEED_NAME
    unfinished = feed.with_suffix(".partial")
    with pq.ParquetWriter(unfinished, _COLUMNS, compression="zstd") as writer:
        for start in range(0, n_products, _ROWS_IN_A_GROUP):
            numbers = range(start, min(start + _ROWS_IN_A_GROUP, n_products))
            writer.write_table(pa.Table.from_pylist([_row(seed, number) for number in numbers], schema=_COLUMNS))
    unfinished.replace(feed)
    return feed


def demo_rows(numbers: Iterable[int], *, seed: int = 0) -> Iterator[dict[str, object]]:
    """Rows of the demo feed by their numbers; beyond its last one they are new products of the same shop."""
    for number in numbers:
        yield _row(seed, number)


def messy_listings() -> tuple[MessyListing, ...]:
    """Three listings as sellers send them; their pictures are drawn on the spot, always the same."""
    return (
        MessyListing(
            Product(
                "messy-1",
                title="PROMO *** Shampoing antipelliculaire Lumeo 250 ml &amp; soin *** LIVRAISON OFFERTE".upper(),
                description="<p>LavÃ© en douceur, mÃªme les cuirs chevelus sensibles.<br />Lot de 2.</p>",
                source="brocante-lune",
                language="fr",
            ),
            "Beauty > Hair > Shampoo",
            "shouted, escaped and garbled French; no picture",
        ),
        MessyListing(
            Product(
                "messy-2",
                title="Nordika area rug, boho, R220",
                description="Soft &amp; easy to clean.<style>p {margin: 0}</style> Best seller!",
                images=(_example("Home & Kitchen > Textiles > Rugs > Checked rugs", SELLERS[1]),),
                source="megadeals",
                language="en",
            ),
            "Home & Kitchen > Textiles > Rugs > Checked rugs",
            "the words fit three shelves; only the picture says which",
        ),
        MessyListing(
            Product(
                "messy-3",
                title="L@@K!! new carry bag for women gfit idea",
                images=(_example("Bags > Handbags", SELLERS[4]),),
                source="old-import",
                language="en",
            ),
            "Bags > Handbags",
            "a vague, misspelt title and a poor photo in a cluttered room",
        ),
    )


def _row(seed: int, number: int) -> dict[str, object]:
    # A generator for each row, seeded by text: the same on every machine and Python, whatever came before.
    rng = Random(f"shelver demo {seed} {number}")
    shelf = rng.choices(_SHELVES, cum_weights=_SHELF_ODDS)[0]
    seller = rng.choices(SELLERS, cum_weights=_SELLER_ODDS)[0]
    language = rng.choices(tuple(seller.languages), tuple(seller.languages.values()))[0]
    colour = rng.choice(tuple(COLOURS))
    text = write_text(rng, shelf, seller, language, colour)
    image: bytes | None = None
    pattern: str | None = None
    fate = rng.random()
    if fate < P_NO_TEXT:
        text = Text(None, None, None, None)
    # Who lacks the text keeps the picture: a product without both says nothing.
    if not P_NO_TEXT <= fate < P_NO_TEXT + P_NO_PICTURE:
        shown = shelf
        if rng.random() < P_WRONG_PICTURE:
            shown = rng.choice(_SHELVES)
        image, drawn = _photo(rng, shown, seller, colour)
        pattern = drawn if shown is shelf else None
    label = shelf
    if rng.random() < P_WRONG_LABEL:
        label = rng.choices(_SHELVES, cum_weights=_SHELF_ODDS)[0]
    return {
        "product_id": f"D{number:07d}",
        "title": text.title,
        "description": text.description,
        "brand": text.brand,
        "image": image,
        "category": label.path,
        "source": seller.name,
        "language": language,
        "value": round(math.exp(rng.gauss(3.5, 1.2)), 2),
        "color": colour,
        "material": text.material,
        "pattern": pattern,
    }


def _photo(rng: Random, shelf: Shelf, seller: Seller, colour: str) -> tuple[bytes, str | None]:
    """A photo, and the pattern that it shows; None for a parcel."""
    shapes = shelf.shapes if len(shelf.shapes) == 1 else rng.sample(shelf.shapes, 2)
    zoom = 1.0
    fate = rng.random()
    if fate < seller.p_parcel:
        shapes = ("parcel",)
    elif fate < seller.p_parcel + seller.p_closeup:
        zoom = rng.uniform(2.2, 3.2)
    pattern = rng.choice(shelf.patterns)
    photo = draw_product(
        rng,
        shapes=shapes,
        colour=colour,
        pattern=pattern,
        background=seller.background,
        quality=rng.randint(*seller.quality),
        zoom=zoom,
    )
    return photo, pattern if "parcel" not in shapes else None


def _example(path: str, seller: Seller) -> bytes:
    """A plain photo for a listing of the summary, always the same."""
    shelf = next(shelf for shelf in _SHELVES if shelf.path == path)
    return draw_product(
        Random(path),
        shapes=shelf.shapes,
        colour="blue",
        pattern=shelf.patterns[0],
        background=seller.background,
        quality=seller.quality[0],
    )
