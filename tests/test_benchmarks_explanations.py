"""The benchmark of explanations: what it takes away, how it compares, and a row for each way."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from benchmarks import explanations
from shelver.catalog.store import Catalog

Draw = Callable[[tuple[int, int, int], int], bytes]


def test_reasons_hurt_more_than_as_much_at_random(
    tiny_catalog: Catalog, both_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    results = tmp_path / "rows.json"
    said = [str(both_model), str(tiny_catalog.folder), "--json", str(results), "--products", "6"]
    assert explanations.main(said) == 0
    rows = json.loads(results.read_text(encoding="utf-8"))
    assert len(capsys.readouterr().out.splitlines()) == len(rows)
    by = {(row["asked"], row["taken"], row["by"]): row for row in rows}
    for way in ("deleted", "replaced"):
        row = by["text", "words", way]
        assert row["n"] <= 6
        assert row["low"] <= row["difference"] <= row["high"]
        assert row["difference"] == pytest.approx(row["fall"] - row["fall_random"], abs=2e-4)
    assert by["text", "words", "deleted"]["difference"] > 0
    assert {"machine", "date", "commit", "model", "shown", "more"} <= row.keys()


@pytest.mark.parametrize("fill", explanations.FILLS)
def test_a_filled_region_shows_nothing_and_the_rest_stays(draw: Draw, fill: str) -> None:
    data = draw((200, 20, 20), 5)

    def changed() -> bytes:
        return explanations.filled(data, (0.2, 0.4, 0.6, 0.8), fill, np.random.default_rng(0))

    before = np.asarray(Image.open(io.BytesIO(data)))
    after = np.asarray(Image.open(io.BytesIO(changed())))
    inside = np.zeros(before.shape[:2], bool)
    inside[16:32, 6:18] = True
    assert (after[~inside] == before[~inside]).all()
    assert (after[inside] != before[inside]).any()
    assert changed() == changed(), "the seed is fixed"


def test_figures_tell_a_difference_from_none() -> None:
    rng = np.random.default_rng(0)
    random = rng.random(200)
    clear = explanations.figures((random + 0.1).tolist(), random.tolist(), rng)
    assert clear["low"] == clear["high"] == clear["difference"] == pytest.approx(0.1)
    assert clear["more"] == 1
    none = explanations.figures(rng.random(200).tolist(), random.tolist(), rng)
    assert none["low"] < 0 < none["high"]
