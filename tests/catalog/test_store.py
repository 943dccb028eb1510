from __future__ import annotations

import csv
from pathlib import Path

import pytest

from shelver.catalog import store
from shelver.catalog.describe import describe
from shelver.catalog.golden import freeze
from shelver.catalog.ingest import ingest
from shelver.catalog.split import Split
from shelver.catalog.staging import SeenIds
from shelver.catalog.store import Catalog
from shelver.errors import CatalogError, InputError


def make(folder: Path, rows: list[tuple[str, str, str]], split: str = "60/20/20") -> Catalog:
    feed = folder / "feed.csv"
    with feed.open("w", newline="") as file:
        csv.writer(file).writerows([("product_id", "title", "category"), *rows])
    ingest(feed, folder / "catalog", split=Split.parse(split))
    return Catalog.open(folder / "catalog")


def rows(n: int) -> list[tuple[str, str, str]]:
    return [(f"{i:03d}", f"article {i * 104729} for test", f"A > {'BCD'[i % 3]}") for i in range(n)]


def test_batches_are_bounded_and_ids_stay_text(tmp_path: Path) -> None:
    catalog = make(tmp_path, rows(50))
    batches = list(catalog.products(batch_rows=7))
    assert max(map(len, batches)) <= 7
    assert sorted(p.product_id for batch in batches for p in batch) == [f"{i:03d}" for i in range(50)]
    assert [p for b in catalog.products() for p in b] == [p for b in batches for p in b]
    assert {p.split for batch in catalog.products("test") for p in batch} == {"test"}


def test_many_shards_are_read_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "SHARD_ROWS", 5)
    catalog = make(tmp_path, rows(50), "100/0/0")
    assert [p.product_id for b in catalog.products("train") for p in b] == [f"{i:03d}" for i in range(50)]


def test_no_catalog_an_unknown_part_and_a_missing_shard_are_errors(tmp_path: Path) -> None:
    with pytest.raises(CatalogError, match="no catalog"):
        Catalog.open(tmp_path)
    catalog = make(tmp_path, rows(20))
    with pytest.raises(CatalogError, match="train, validation, test"):
        list(catalog.products("dev"))  # type: ignore[arg-type]
    (catalog.folder / catalog.info.shards[0].file).unlink()
    with pytest.raises(CatalogError, match="missing"):
        Catalog.open(catalog.folder)


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"format_version": 2}', "\x00"])
def test_a_strange_catalog_file_is_an_error_and_no_traceback(tmp_path: Path, text: str) -> None:
    (tmp_path / "catalog.json").write_text(text)
    with pytest.raises(CatalogError):
        Catalog.open(tmp_path)


def test_a_golden_set_is_a_catalog_and_refuses_every_changed_byte(tmp_path: Path) -> None:
    catalog = make(tmp_path, rows(60))
    golden = freeze(catalog, "test", tmp_path / "golden")
    of_catalog = [p for b in catalog.products("test") for p in b]
    assert [p for b in golden.products() for p in b] == of_catalog
    assert (golden.info.frozen, golden.info.n_with_text) == (True, len(of_catalog))
    assert freeze(catalog, "test", tmp_path / "golden").info == golden.info
    assert describe(golden).frozen
    for path in golden.folder.iterdir():
        content = path.read_bytes()
        for at in range(0, len(content), max(1, len(content) // 6)):
            path.write_bytes(content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :])
            with pytest.raises(InputError):
                Catalog.open(golden.folder)
        path.write_bytes(content + b"\n")
        with pytest.raises(CatalogError):
            Catalog.open(golden.folder)
        path.write_bytes(content)
    Catalog.open(golden.folder)


def test_a_golden_set_is_never_overwritten(tmp_path: Path) -> None:
    catalog = make(tmp_path, rows(60))
    freeze(catalog, "test", tmp_path / "golden")
    with pytest.raises(CatalogError, match="never overwritten"):
        freeze(catalog, "validation", tmp_path / "golden")
    with pytest.raises(CatalogError, match="golden set"):
        ingest(tmp_path / "feed.csv", tmp_path / "golden", overwrite=True)
    (tmp_path / "b").mkdir()
    only_train = make(tmp_path / "b", rows(9), "100/0/0")
    with pytest.raises(CatalogError, match="no product in test"):
        freeze(only_train, "test", tmp_path / "other")


def test_a_golden_set_that_was_killed_halfway_can_be_made_again(tmp_path: Path) -> None:
    catalog = make(tmp_path, rows(60))
    partial = tmp_path / "golden.partial"
    partial.mkdir()
    (partial / "test-00000.parquet").write_bytes(b"half")
    (tmp_path / "golden").mkdir()
    assert freeze(catalog, "test", tmp_path / "golden").info.frozen
    assert not partial.exists()
    (tmp_path / "golden").rename(tmp_path / "old")
    partial.mkdir()
    (partial / "thesis.txt").write_text("mine")
    with pytest.raises(CatalogError, match="not what an interrupted freeze leaves"):
        freeze(catalog, "validation", tmp_path / "golden")
    assert (partial / "thesis.txt").read_text() == "mine"


def test_a_file_of_its_own_becomes_a_golden_set(tmp_path: Path) -> None:
    golden = freeze(make(tmp_path, rows(12), "0/0/100"), "test", tmp_path / "golden")
    assert golden.info.by_split == {"test": 12}


def test_a_description_counts_what_is_there_and_what_is_missing(tmp_path: Path) -> None:
    many = [(f"h{i}", f"hammer {i * 7919} steel", "Tools > Hammers") for i in range(60)]
    few = [(f"s{i}", f"saw {i * 104729} wood", "Tools > Saws") for i in range(10)]
    odd = [("u", "unlabelled thing", ""), ("h0", "again", "Tools"), ("r", "HAMMER 0, steel!", "Tools > Hammers")]
    catalog = make(tmp_path, [*many, *few, *odd], "100/0/0")
    d = describe(catalog)
    assert (d.rows_in, d.n_products, d.n_quarantined) == (73, 72, 1)
    assert d.quarantine_by_code == {"duplicate_id": 1}
    assert (d.n_unlabelled, d.n_repeated_texts, d.n_texts_on_several_sides) == (1, 1, 0)
    assert d.by_level == {1: 0, 2: 71}
    assert d.balance is not None
    assert (d.balance.n_head, d.balance.n_torso, d.balance.n_tail) == (1, 0, 1)
    assert d.balance.top[0] == ("Tools > Hammers", 61)
    assert d.balance.gini == pytest.approx(abs(61 - 10) / (2 * 71), abs=1e-4)
    assert d.n_without_images == 72
    assert d.to_dict()["balance"]["largest"] == 61
    assert "73 = 72 accepted + 1 quarantined (duplicate_id 1)" in str(d)


def test_a_label_that_train_lacks_is_counted(tmp_path: Path) -> None:
    lone = [("x", "quite another article", "A > E")]
    d = describe(make(tmp_path, [*rows(3), *lone], "0/0/100"))
    assert d.labels_only_in_test == 4
    assert d.products_with_such_a_label == 4
    assert d.balance is None


def test_a_million_ids_would_be_remembered_in_little_memory() -> None:
    seen = SeenIds()
    assert all(seen.add(str(i)) for i in range(150_000))
    assert not any(seen.add(str(i)) for i in range(0, 150_000, 1000))
    assert seen.add("x")
    assert not seen.add("x")
