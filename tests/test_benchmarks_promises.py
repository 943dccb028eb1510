"""The benchmark of promises on small pools: what a row says, and what the model of a pool may see."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from benchmarks import promises
from shelver.calibrate import GRID
from shelver.catalog.reader import ProductRow
from shelver.catalog.rows import BadRow
from shelver.datasets.recipes import RECIPES
from shelver.product import Product


@pytest.fixture(scope="module")
def pool() -> promises.Pool:
    return promises.generated(n=6_000, n_drawn=600)


def test_a_row_says_what_became_of_the_promises(pool: promises.Pool) -> None:
    rows = {(row["decoder"], row["target"]): row for row in promises.rows_of(pool, 20)}
    assert set(rows) == {(d, t) for d in ("greedy", "climb", "best_leaf") for t in (0.9, 0.95, 0.99)}
    for row in rows.values():
        assert {"set", "decoder", "target", "draws", "refused", "kept", "coverage", "plain_kept"} <= row.keys()
        assert (row["draws"], row["drawn"], row["pool"]) == (20, 600, 6_000)
        assert (row["kept"] is None) == (row["refused"] == 20)
    greedy = rows["greedy", 0.9]
    assert greedy["refused"] == 0
    assert greedy["kept"] >= 0.85
    assert greedy["plain_kept"] < 0.85
    assert 0.8 < greedy["ratio_apart"] < 1
    assert greedy["coverage"] < greedy["hindsight_apart"] <= 1
    assert rows["greedy", 0.99]["hindsight"] < greedy["hindsight"]
    assert "greedy 0.90" in promises.told(greedy)
    assert "kept -" in promises.told({**greedy, "kept": None})


def test_the_generated_model_is_surer_than_it_should_be(pool: promises.Pool) -> None:
    paths = pool.paths["best_leaf"]
    sure = np.nanmin(paths.level_confidence, axis=1)
    right = paths.node == paths.truth
    assert 0.01 < sure.mean() - right.mean() < 0.2


def test_what_just_meets_the_target_and_hindsight_are_the_loosest_of_their_kind(pool: promises.Pool) -> None:
    turns = pool.paths["greedy"].turns()
    threshold = promises.just_meets(turns, 0.95)
    assert threshold is not None
    (n,), (wrong,) = turns.counts(threshold)
    assert n - wrong >= 0.95 * n
    looser = GRID[threshold > GRID]
    n_decided, n_wrong = turns.counts(looser)
    assert (n_decided - n_wrong < 0.95 * n_decided).all()
    assert promises.hindsight(turns, 0.95) >= n / len(turns)
    assert promises.just_meets(turns, 1.1) is None


def test_the_model_of_a_pool_sees_nothing_of_it() -> None:
    def rows(source: Path) -> Iterator[ProductRow | BadRow]:
        for i in range(400):
            part = ("train", "train", "validation", "test")[i % 4]
            product = Product(f"p{i}", title=f"thing {i}", images=(b"x",), split=part)
            yield ProductRow(i + 1, product, "a", ())

    recipe = promises.unseen_pool(replace(RECIPES["instacart"], rows=rows))
    found = [row for row in recipe.rows(Path()) if isinstance(row, ProductRow)]
    was = {f"p{i}": ("train", "train", "validation", "test")[i % 4] for i in range(400)}
    assert all((row.product.split == "test") == (was[row.product.product_id] != "train") for row in found)
    n_held = sum(row.product.split == "validation" for row in found)
    assert 10 < n_held < 45  # of 200, an eighth
    assert not any(row.product.images for row in found)


def test_the_command_writes_its_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pool: promises.Pool) -> None:
    monkeypatch.setattr(promises, "generated", lambda: pool)
    out = tmp_path / "rows.json"
    assert promises.main(["--sets", "generated", "--draws", "2", "--json", str(out)]) == 0
    assert len(json.loads(out.read_text())) == 9
