"""Words apart from subwords, or not: what held-out products say."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from shelver import registry
from shelver.catalog.ingest import ingest
from shelver.catalog.store import Catalog
from shelver.ngrams import NgramSpec
from shelver.taxonomy import Taxonomy
from shelver.train.build import Plan
from shelver.train.config import TrainConfig
from shelver.train.data import Examples
from shelver.train.run import train
from shelver.train.weighing import WORD_SHARE, choose_ngrams

PLAN = Plan(
    head="tree", fusion="auto", ngrams=NgramSpec(), linear=True, network=False, text_width=8, hidden=8,
    dropout=0.0, image_dropout=0.0, min_count=1, max_features=1 << 18, seed=0,
)  # fmt: skip
TREE = Taxonomy.from_paths([(f"Shelf {i}",) for i in range(4)])


def examples(texts: list[str | None], nodes: list[int]) -> Examples:
    return Examples(texts, None, np.array(nodes, np.int32), np.full(len(nodes), np.nan, np.float32))


def told_by_one_word(n: int, seed: int) -> Examples:
    """A short word says the shelf; long ones, of the same letters on every shelf, drown its subwords."""
    rng = np.random.default_rng(seed)
    nodes = rng.integers(0, 4, n).tolist()
    noise = ["".join(rng.choice(list("abcd"), 14)) for _ in range(300)]
    words = ["ab", "ba", "cd", "dc"]
    texts: list[str | None] = [" ".join([*rng.choice(noise, 12), words[k], *rng.choice(noise, 12)]) for k in nodes]
    return examples(texts, nodes)


def told_by_endings(n: int, seed: int) -> Examples:
    """Every word is new; its ending says the shelf."""
    rng = np.random.default_rng(seed)
    nodes = rng.integers(0, 4, n).tolist()
    endings = ["ora", "ito", "esk", "uul"]
    texts: list[str | None] = ["".join(rng.choice(list("bcdfgh"), 5)) + endings[k] for k in nodes]
    return examples(texts, nodes)


@pytest.mark.parametrize("folds", [0, 3])
def test_words_get_a_share_of_their_own_where_they_would_drown(folds: int) -> None:
    learned, held = told_by_one_word(150, 0), told_by_one_word(150, 1)
    spec, why = choose_ngrams(PLAN, TREE, learned, held, folds=folds, seed=0)
    assert spec == NgramSpec(word_share=WORD_SHARE)
    assert "as much as all subwords" in why
    assert f"{300 if folds else 150:,} held-out" in why


def test_subwords_stay_as_they_come_where_they_tell() -> None:
    spec, why = choose_ngrams(PLAN, TREE, told_by_endings(150, 0), told_by_endings(150, 1), folds=0, seed=0)
    assert spec == NgramSpec()
    assert "as they come" in why


def test_nothing_held_out_leaves_the_n_grams_alone() -> None:
    learned = examples(["oak chair", None, "lamp"], [0, 1, 2])
    spec, why = choose_ngrams(PLAN, TREE, learned, examples([], []), folds=0, seed=0)
    assert spec == NgramSpec()
    assert "nothing to compare" in why
    assert choose_ngrams(PLAN, TREE, learned, examples([None], [0]), folds=0, seed=0)[0] == NgramSpec()


def test_the_choice_is_said_and_stands_in_the_model(tmp_path: Path) -> None:
    learned = told_by_one_word(200, 0)
    rows: list[dict[str, Any]] = [
        {
            "product_id": str(i),
            "title": text,
            "category": f"Shelf {node}",
            "split": "train" if i % 2 else "validation",
        }
        for i, (text, node) in enumerate(zip(learned.texts, learned.node.tolist(), strict=True))
    ]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "feed.parquet")
    ingest(tmp_path / "feed.parquet", tmp_path / "catalog")
    config = TrainConfig(text_encoder="ngram", network=False, linear=True, folds=0)
    catalog = Catalog.open(tmp_path / "catalog")
    trained = train(catalog, tmp_path / "m", config, cache=tmp_path, threads=1, say=lambda line: None)
    assert any("as much as all subwords" in choice for choice in trained.choices)
    text = registry.read_manifest(tmp_path / "m").text
    assert text is not None
    assert text.parts[-1].ngrams == NgramSpec(word_share=WORD_SHARE)
    assert json.loads((tmp_path / "m" / "manifest.json").read_text())["config"]["ngrams"] is None
