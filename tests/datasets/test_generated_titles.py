"""Generated text feeds over any tree."""

from __future__ import annotations

import csv
import gzip
import io
import json
from collections import Counter
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from shelver.datasets.generated_titles import COLUMNS, ENDINGS, write_text_feed
from shelver.errors import ConfigError
from shelver.taxonomy import Taxonomy

NAMES = ["Shop", "Tools", "Hand saws", "Drills", "Garden", "Rakes", "Café & Thé", "手机"]
PARENTS = [None, 0, 1, 1, 0, 4, 4, 0]


@pytest.fixture(scope="module")
def tree() -> Taxonomy:
    return Taxonomy.from_parents([str(number) for number in range(8)], NAMES, PARENTS)


def read(file: Path) -> list[dict[str, str]]:
    if file.suffix == ".parquet":
        return [{name: str(value) for name, value in row.items()} for row in pq.read_table(file).to_pylist()]
    data = file.read_bytes()
    lines = io.StringIO((gzip.decompress(data) if file.suffix == ".gz" else data).decode("utf-8"), newline="")
    if ".jsonl" in file.name:
        return [{name: str(value) for name, value in json.loads(line).items()} for line in lines]
    return list(csv.DictReader(lines, delimiter="\t" if ".tsv" in file.name else ","))


def test_every_format_holds_the_same_rows(tree: Taxonomy, tmp_path: Path) -> None:
    feeds = [
        read(write_text_feed(tree, tmp_path / f"feed{ending}", n_rows=300, seed=5, language="fr"))
        for ending in ENDINGS
    ]
    assert all(feed == feeds[0] for feed in feeds)
    assert len(feeds[0]) == 300
    assert tuple(feeds[0][0]) == COLUMNS
    assert len(list(tmp_path.iterdir())) == len(ENDINGS)


def test_the_same_seed_gives_the_same_bytes(tree: Taxonomy, tmp_path: Path) -> None:
    for ending in (".csv.gz", ".parquet"):
        one, two, other = (
            write_text_feed(tree, tmp_path / f"{name}{ending}", n_rows=200, seed=seed).read_bytes()
            for name, seed in (("one", 1), ("two", 1), ("other", 2))
        )
        assert one == two != other


def test_products_stand_on_leaves_only_and_on_all_of_them(tree: Taxonomy, tmp_path: Path) -> None:
    rows = read(write_text_feed(tree, tmp_path / "feed.csv", n_rows=2_000, seed=0))
    assert {row["category"] for row in rows} == {tree.ids[leaf] for leaf in tree.leaves}
    assert len({row["product_id"] for row in rows}) == 2_000
    assert all(row["title"] and row["brand"] and float(row["value"]) > 0 for row in rows)


def test_another_seed_sells_other_products_in_the_same_words(tree: Taxonomy, tmp_path: Path) -> None:
    votes: dict[str, Counter[str]] = {}
    for row in read(write_text_feed(tree, tmp_path / "train.csv", n_rows=3_000, seed=1)):
        for word in row["title"].lower().split():
            votes.setdefault(word, Counter())[row["category"]] += 1
    test = read(write_text_feed(tree, tmp_path / "test.csv", n_rows=600, seed=2))
    right = 0
    for row in test:
        odds: dict[str, float] = dict.fromkeys(("2", "3", "5", "6", "7"), 0.0)
        for word in row["title"].lower().split():
            seen = votes.get(word, Counter())
            for category, count in seen.items():
                odds[category] += (count / seen.total()) ** 3
        right += max(odds, key=lambda category: odds[category]) == row["category"]
    # Learnable from the other seed, and yet not without error.
    assert 0.85 < right / len(test) < 1


def test_a_feed_longer_than_one_batch_is_whole(tree: Taxonomy, tmp_path: Path) -> None:
    rows = read(write_text_feed(tree, tmp_path / "feed.tsv", n_rows=10_007, seed=0))
    assert len(rows) == 10_007
    assert rows[-1]["product_id"] == "G000010006"


@pytest.mark.parametrize("name", ["feed.xlsx", "feed", "feed.parquet.gz"])
def test_an_unknown_ending_is_an_error_that_lists_the_known_ones(
    tree: Taxonomy, tmp_path: Path, name: str
) -> None:
    with pytest.raises(ConfigError, match=r"\.jsonl\.gz"):
        write_text_feed(tree, tmp_path / name, n_rows=10)


def test_no_rows_is_an_error(tree: Taxonomy, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="n_rows = 0"):
        write_text_feed(tree, tmp_path / "feed.csv", n_rows=0)
