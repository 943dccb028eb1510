"""The benchmark of pages: how its figures are made; the measuring itself needs a browser and an idle machine."""

from __future__ import annotations

import numpy as np

from benchmarks import pages
from shelver.catalog.store import Catalog


def test_a_row_tells_the_slow_ones_and_an_answer_that_never_came() -> None:
    row = pages.row_of("text", [*range(1, 100), float("inf")])
    assert (row["n"], row["p50_ms"], row["p95_ms"]) == (100, 51, 96)
    assert row["max_ms"] == np.inf


def test_the_same_products_are_drawn_again_each_with_title_and_picture(tiny_catalog: Catalog) -> None:
    some = pages.drawn(tiny_catalog, 5, 0)
    assert some == pages.drawn(tiny_catalog, 5, 0)
    assert len(some) == 5
    assert all(product.title and product.images for product in some)
