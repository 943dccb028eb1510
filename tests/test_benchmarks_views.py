"""The benchmark of views: products are drawn where it says, and the probe learns what is there to learn."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import ImageChops

from benchmarks import views
from benchmarks.drawn import KINDS, draw


@pytest.mark.parametrize("kind", KINDS)
def test_a_drawn_product_is_where_it_is_said_to_be(kind: str) -> None:
    (known,) = (one for one in KINDS if one == kind)
    for seed in range(12):
        image, place = draw(seed, known)
        again, same = draw(seed, known)
        assert ImageChops.difference(image, again).getbbox() is None
        assert place == same
        assert 0 <= place[0] < place[2] <= image.width
        assert 0 <= place[1] < place[3] <= image.height
    if kind == "plain":
        ground = np.asarray(image).reshape(-1, 3)[0]
        rows, columns = np.nonzero((np.asarray(image) != ground).any(axis=2))
        assert (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1) == place


def test_overlap_is_shared_area_over_all_area() -> None:
    assert views.overlap((0, 0, 2, 2), (0, 0, 2, 2)) == 1
    assert views.overlap((0, 0, 2, 2), (1, 0, 3, 2)) == pytest.approx(1 / 3)
    assert views.overlap((0, 0, 1, 1), (2, 2, 3, 3)) == 0


def test_the_probe_learns_what_the_features_tell_and_nothing_else() -> None:
    rng = np.random.default_rng(0)
    n = 500
    shape, shade = rng.integers(0, 3, n), rng.integers(0, 2, n)
    features = np.stack([shape == 0, shape == 1, shape == 2], axis=1) + rng.normal(0, 0.2, (n, 3))
    split = np.array(["train", "validation", "test"])[np.minimum(2, rng.integers(0, 6, n) // 2 % 4)]
    labels = {"path": shape.astype(np.int64), "season": shade.astype(np.int64)}
    labels["path"][split == "test"] = -1
    found = views.probe(features.astype(np.float32), split, labels)
    assert found["validation"]["path"] > 0.95
    assert found["validation"]["season"] < 0.65
    assert found["test"]["path"] == 0, "a label that the training part lacks cannot be right"


def test_the_detectors_figures_are_written_beside_those_of_the_machine(tmp_path: Path) -> None:
    results = tmp_path / "views.json"
    assert views.main(["--drawn", "6", "--no-fashion", "--json", str(results)]) == 0
    rows = json.loads(results.read_text(encoding="utf-8"))["detector"]
    assert [row["background"] for row in rows] == list(KINDS)
    for row in rows:
        assert row["whole_mean_iou"] < row["mean_iou"] <= 1
        assert {"machine", "date", "commit", "cpu_ms", "unsure", "holds_product"} <= row.keys()


def test_a_row_replaces_that_of_the_same_parts_and_no_other(tmp_path: Path) -> None:
    results = tmp_path / "views.json"
    row = {"parts": "fit", "every": 4, "width": 1}
    views.keep(results, {"detector": [{"background": "plain", "n": 1}], "ablation": [row, {**row, "every": 1}]})
    views.keep(results, {"ablation": [{**row, "width": 2}]})
    kept = json.loads(results.read_text(encoding="utf-8"))
    assert kept["detector"] == [{"background": "plain", "n": 1}]
    assert kept["ablation"] == [{**row, "width": 2}, {**row, "every": 1}]
