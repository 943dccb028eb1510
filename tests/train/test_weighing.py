"""Words apart from subwords, or not: what held-out products say."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from shelver import registry
from shelver.catalog.ingest import ingest
from shelver.catalog.store import Catalog
from shelver.ngrams import NgramSpec
from shelver.taxonomy import Taxonomy
from shelver.train.build import Plan
from shelver.train.config import TrainConfig
from shelver.train.run import train
from shelver.train.weighing import WORD_SHARE, choose_ngrams

PLAN = Plan(
    head="tree", fusion="auto", ngrams=NgramSpec(), linear=True, network=False, text_width=8, hidden=8,
    dropout=0.0, image_dropout=0.0, min_count=1, max_features=1 << 18, seed=0,
)  # fmt: skip
TREE = Taxonomy.from_paths([(f"Shelf {i}",) for i in range(4)])


Labelled = tuple[list[str | None], NDArray[np.int32]]


def told_by_one_word(n: int, seed: int) -> Labelled:
    """A short word says the shelf; long ones, of the same letters on every shelf, drown its subwords."""
    rng = np.random.default_rng(seed)
    nodes = rng.integers(0, 4, n).tolist()
    noise = ["".join(rng.choice(list("abcd"), 14)) for _ in range(300)]
    words = ["ab", "ba", "cd", "dc"]
    texts: list[str | None] = [" ".join([*rng.choice(noise, 12), words[k], *rng.choice(noise, 12)]) for k in nodes]
    return texts, np.array(nodes, np.int32)


def told_by_endings(n: int, seed: int) -> Labelled:
    """Every word is new; its ending says the shelf."""
    rng = np.random.default_rng(seed)
    nodes = rng.integers(0, 4, n).tolist()
    endings = ["ora", "ito", "esk", "uul"]
    texts: list[str | None] = ["".join(rng.choice(list("bcdfgh"), 5)) + endings[k] for k in nodes]
    return texts, np.array(nodes, np.int32)


def test_words_get_a_share_of_their_own_where_they_would_drown() -> None:
    spec, why = choose_ngrams(PLAN, TREE, *told_by_one_word(300, 0), seed=0)
    assert spec == NgramSpec(word_share=WORD_SHARE)
    assert "as much as all subwords" in why
    assert "300 held-out" in why


def test_subwords_stay_as_they_come_where_they_tell() -> None:
    spec, why = choose_ngrams(PLAN, TREE, *told_by_endings(300, 0), seed=0)
    assert spec == NgramSpec()
    assert "as they come" in why


def test_too_few_texts_leave_the_n_grams_alone() -> None:
    spec, why = choose_ngrams(PLAN, TREE, ["oak chair", None, "lamp"], np.arange(3, dtype=np.int32), seed=0)
    assert spec == NgramSpec()
    assert "nothing to compare" in why
    assert choose_ngrams(PLAN, TREE, [], np.zeros(0, np.int32), seed=0)[0] == NgramSpec()


def test_the_choice_is_said_and_stands_in_the_model(tmp_path: Path) -> None:
    texts, nodes = told_by_one_word(200, 0)
    rows: list[dict[str, Any]] = [
        {
            "product_id": str(i),
            "title": text,
            "category": f"Shelf {node}",
            "split": "train" if i % 2 else "validation",
        }
        for i, (text, node) in enumerate(zip(texts, nodes.tolist(), strict=True))
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
