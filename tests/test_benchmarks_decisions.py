"""The benchmarks of decisions: the figures are what they say, on a tiny tree and a tiny model."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from benchmarks import decisions, value
from shelver.catalog.store import Catalog
from shelver.taxonomy import SiblingGroups, Taxonomy


def test_generated_probabilities_are_coherent_and_read_back_chunk_by_chunk(
    seven: Taxonomy, tmp_path: Path
) -> None:
    path = tmp_path / "nodes.npy"
    n = decisions.CHUNK + 7
    like = decisions.generate(path, SiblingGroups.of(seven), n)
    parts = [part.copy() for part in decisions.chunks(path)]
    assert [len(part) for part in parts] == [decisions.CHUNK, 7]
    nodes = np.concatenate(parts)
    assert (nodes == np.load(path)).all()
    np.testing.assert_allclose(nodes[:, seven.level == 1].sum(axis=1), 1, atol=1e-5)
    assert 0.5 < like["accuracy"] < 1
    assert like["best_quantiles"] == sorted(like["best_quantiles"])


def test_every_decoder_is_measured_and_hiclass_decides_as_greedy_does(seven: Taxonomy, tmp_path: Path) -> None:
    path = tmp_path / "nodes.npy"
    groups = SiblingGroups.of(seven)
    decisions.generate(path, groups, 600)
    rows = decisions.measure(path, groups, 1)
    assert [row["decoder"] for row in rows] == ["read", "read + max", *decisions.policies(seven)]
    assert all(row["cpu_us"] >= 0 for row in rows)
    coverage = {row["decoder"]: row["coverage"] for row in rows[2:]}
    assert coverage["best_leaf"] == coverage["cost"] == 1
    assert 0 == coverage["top_n"] < coverage["greedy"] < 1
    rival = decisions.of_hiclass(path, groups, 100)
    if rival is None:
        pytest.skip("hiclass is not installed")
    assert rival["agrees"] == 1
    assert "| greedy | 0 |" in decisions.table([{**row, "n_stops": 0} for row in rows])


def test_a_review_earns_the_full_value_of_what_is_doubted_most() -> None:
    worth = np.array([8.0, 4.0, 2.0, 1.0])
    decided = value.Decided(np.array([0.0, 4.0, 0.0, 1.0]), np.array([0.1, 0.2, 0.9, 0.3]))
    assert value.earned(decided, worth, 0.0).tolist() == [0, 4, 0, 1]
    assert value.earned(decided, worth, 0.5).tolist() == [0, 4, 2, 1]
    assert value.earned(decided, worth, 1.0).tolist() == worth.tolist()


def test_the_interval_is_of_paired_draws() -> None:
    rng = np.random.default_rng(3)
    worth = rng.pareto(2, 500) + 1
    ours = worth * (rng.random(500) < 0.8)
    assert value.interval(ours, ours, worth) == (0.0, 0.0)
    low, high = value.interval(ours, ours * 0.9, worth)
    apart = 0.1 * ours.sum() / worth.sum()
    assert low < apart < high < 2 * apart


def test_a_comparison_has_a_row_for_each_load(text_model: Path, tiny_catalog: Catalog, tmp_path: Path) -> None:
    out = tmp_path / "value.json"
    assert value.main(["tiny", str(text_model), str(tiny_catalog.folder), "--results", str(out)]) == 0
    rows = json.loads(out.read_text(encoding="utf-8"))["rows"]
    assert [row["load"] for row in rows] == list(value.LOADS)
    for row in rows:
        assert row["low"] <= row["difference"] <= row["high"]
        assert row["difference"] == pytest.approx(row["cost"] - row["greedy"], abs=2e-4)
        assert row["wrong"] in value.WRONG
    assert rows[-1]["greedy"] >= rows[0]["greedy"]
