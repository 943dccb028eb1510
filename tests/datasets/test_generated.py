"""The generated demo catalog: the same bytes by seed, and every trouble in its promised share."""

from __future__ import annotations

import re
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from shelver.datasets.generated import FEED_NAME, messy_listings, write_demo
from shelver.datasets.generated_pictures import BACKGROUNDS, COLOURS, draw_product
from shelver.datasets.generated_shapes import SHAPES
from shelver.datasets.generated_tree import shelves
from shelver.datasets.generated_words import SELLERS
from shelver.errors import ConfigError
from shelver.images import decode, sniff
from shelver.product import TextSpec, clean, text_of

N = 1_500


@pytest.fixture(scope="module")
def feed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_demo(tmp_path_factory.mktemp("demo"), n_products=N, seed=3)


@pytest.fixture(scope="module")
def rows(feed: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = pq.read_table(feed).to_pylist()
    return found


def test_the_tree_is_ragged_with_some_sixty_leaves_on_four_levels_and_products_at_inner_nodes() -> None:
    paths = {shelf.path for shelf in shelves()}
    inner = {path for path in paths if any(other.startswith(path + " > ") for other in paths)}
    assert 55 <= len(paths - inner) <= 65
    assert len(inner) >= 3
    assert {path.count(" > ") + 1 for path in paths - inner} == {2, 3, 4}
    assert abs(sum(shelf.weight for shelf in shelves()) - 1) < 1e-9


def test_popularity_is_heavy_tailed() -> None:
    weights = sorted((shelf.weight for shelf in shelves()), reverse=True)
    assert weights[0] > 8 * weights[-1]
    assert sum(weights[:15]) > 0.4


def test_some_siblings_share_their_drawing_and_some_their_words() -> None:
    by_path = {shelf.path: shelf for shelf in shelves()}
    novels, guides = by_path["Books > Novels"], by_path["Books > Travel guides"]
    assert novels.shapes == guides.shapes
    assert novels.nouns != guides.nouns
    rugs = "Home & Kitchen > Textiles > Rugs > "
    striped, plain = by_path[rugs + "Striped rugs"], by_path[rugs + "Plain rugs"]
    assert striped.nouns == plain.nouns
    assert striped.patterns != plain.patterns


def test_every_shape_is_drawn_and_the_same_state_draws_the_same_bytes() -> None:
    for number, shape in enumerate(sorted(SHAPES)):
        colour, background = tuple(COLOURS)[number % len(COLOURS)], BACKGROUNDS[number % 5]
        pattern = ("plain", "striped", "checked", "dotted", "floral")[number % 5]
        drawn = [
            draw_product(
                Random(number), shapes=[shape], colour=colour, pattern=pattern, background=background, quality=70
            )
            for _ in "ab"
        ]
        assert drawn[0] == drawn[1]
        assert 96 <= decode(drawn[0]).width <= 160


def test_the_same_seed_writes_the_same_bytes_and_a_smaller_feed_is_the_start_of_a_larger(
    tmp_path: Path, rows: list[dict[str, Any]]
) -> None:
    one = write_demo(tmp_path / "one", n_products=40, seed=3)
    two = write_demo(tmp_path / "two", n_products=40, seed=3)
    assert one.read_bytes() == two.read_bytes()
    assert pq.read_table(one).to_pylist() == rows[:40]
    other = write_demo(tmp_path / "one", n_products=40, seed=4)
    assert other.read_bytes() != two.read_bytes()
    assert [file.name for file in other.parent.iterdir()] == [FEED_NAME]


def test_the_feed_has_every_standard_column(rows: list[dict[str, Any]]) -> None:
    standard = "product_id title description brand image category source language value"
    assert " ".join(rows[0]) == f"{standard} color material pattern"
    assert len({row["product_id"] for row in rows}) == len(rows) == N
    assert {row["category"] for row in rows} <= {shelf.path for shelf in shelves()}
    assert {row["source"] for row in rows} == {seller.name for seller in SELLERS}
    assert {row["language"] for row in rows} == {"en", "fr"}
    assert all(row["value"] > 0 for row in rows)


def test_attributes_are_true_colours_are_drawn_and_often_said(rows: list[dict[str, Any]]) -> None:
    assert {row["color"] for row in rows} == set(COLOURS)
    english = [row for row in rows if row["language"] == "en" and row["title"]]
    said = sum(row["color"] in clean(row["title"]).lower() for row in english)
    assert 0.4 < said / len(english) < 0.6
    leather = [row for row in rows if row["material"] == "leather" and row["source"] == "northwind"]
    assert leather
    assert all(re.search(r"leath|l.?eather|letaher", row["title"].lower()) for row in leather)
    patterns = {path.path: path.patterns for path in shelves()}
    drawn = [row for row in rows if row["pattern"] and row["category"] == "Clothing > Dresses"]
    assert {row["pattern"] for row in drawn} <= set(patterns["Clothing > Dresses"]) | {"plain"}
    assert all(row["pattern"] is None for row in rows if row["image"] is None)
    plain_red = [row for row in rows if row["color"] == "red" and row["source"] == "northwind" and row["image"]]
    blue_too = [row for row in rows if row["color"] == "blue" and row["source"] == "northwind" and row["image"]]
    assert mean_redness(plain_red) > mean_redness(blue_too) + 20


def mean_redness(rows: list[dict[str, Any]]) -> float:
    found = [np.asarray(decode(row["image"]), float)[..., [0, 2]].mean(axis=(0, 1)) for row in rows]
    red, blue = np.mean(found, axis=0)
    return float(red - blue)


def test_pictures_and_texts_are_missing_as_often_as_promised_but_never_both(rows: list[dict[str, Any]]) -> None:
    no_picture = sum(row["image"] is None for row in rows)
    no_text = sum(row["title"] is None for row in rows)
    assert 0.055 * N < no_picture < 0.105 * N
    assert 0.03 * N < no_text < 0.07 * N
    assert not any(row["image"] is None and row["title"] is None for row in rows)
    assert all(row["description"] is None for row in rows if row["title"] is None)


def test_every_picture_is_a_small_jpeg(rows: list[dict[str, Any]]) -> None:
    for row in rows[::20]:
        if row["image"] is not None:
            assert sniff(row["image"]) == "JPEG"
            assert max(decode(row["image"]).size) <= 160


def test_sellers_bring_html_entities_mojibake_and_shouting_and_clean_takes_it_away(
    rows: list[dict[str, Any]],
) -> None:
    raw = [text for row in rows for text in (row["title"], row["description"]) if text]
    for habit in ("<br />", "<style>", "&eacute;", "Ã©", "!!!"):
        assert sum(habit in text for text in raw) > 5, habit
    cleaned = " ".join(map(clean, raw))
    for trace in ("<br", "color:#333", "&eacute;", "Ã©"):
        assert trace not in cleaned


def test_titles_are_mostly_unique(rows: list[dict[str, Any]]) -> None:
    titles = [row["title"] for row in rows if row["title"]]
    assert len(set(titles)) > 0.97 * len(titles)


def test_the_three_messy_listings_are_the_same_each_time_and_stand_on_real_shelves() -> None:
    listings = messy_listings()
    assert listings == messy_listings()
    assert len(listings) == 3
    for listing in listings:
        assert listing.shelf in {shelf.path for shelf in shelves()}
        assert text_of(listing.product, TextSpec())
        for image in listing.product.images:
            assert decode(image).mode == "RGB"


def test_a_demo_without_products_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="n_products = 0"):
        write_demo(tmp_path, n_products=0)
