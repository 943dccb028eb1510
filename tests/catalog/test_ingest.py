from __future__ import annotations

import csv
import fcntl
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from shelver.catalog import staging, store
from shelver.catalog.ingest import ingest
from shelver.catalog.mapping import Mapping
from shelver.catalog.progress import Tick
from shelver.catalog.split import PARTS, Split
from shelver.catalog.store import Catalog
from shelver.errors import CatalogError, ConfigError, FeedError, InputError
from shelver.taxonomy import Taxonomy, path_id

HEADER = ["product_id", "title", "category", "split"]


def write_feed(path: Path, rows: list[list[str]], header: list[str] = HEADER) -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(header)
        writer.writerows(rows)
    return path


def plain_rows(n: int) -> list[list[str]]:
    kinds = ["Garden > Chairs", "Garden > Tables", "Kitchen > Pans > Woks", "Kitchen > Pans"]
    return [[f"p{i}", f"thing {i * 7919} of sort {i % 97}", kinds[i % 4], ""] for i in range(n)]


def tree() -> Taxonomy:
    return Taxonomy.from_parents(["1", "2", "3"], ["Garden", "Chairs", "Tables"], [None, 0, 0])


def quarantine(folder: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in (folder / "quarantine.jsonl").read_text().splitlines()]


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_rows_in_are_accepted_plus_quarantined_and_each_refusal_names_its_line(tmp_path: Path) -> None:
    rows = [
        ["1", "oak chair", "Garden > Chairs", ""],
        ["1", "another chair", "Garden > Chairs", ""],
        ["", "no id", "Garden > Chairs", ""],
        ["2", "pine table", "Garden > Tables", "somewhere"],
        ["3", "", "Garden > Tables", ""],
        ["4", "stool", "", ""],
    ]
    report = ingest(write_feed(tmp_path / "feed.csv", rows), tmp_path / "out")
    assert (report.rows_in, report.accepted, report.quarantined) == (6, 2, 4)
    assert report.by_code == {"bad_split": 1, "duplicate_id": 1, "empty_product": 1, "missing_id": 1}
    lines = {q["line"]: (q["code"], q["field"], q["product_id"]) for q in quarantine(tmp_path / "out")}
    assert lines[3] == ("duplicate_id", "product_id", "1")
    assert lines[5][0] == "bad_split"
    unlabelled = [p for batch in Catalog.open(tmp_path / "out").products() for p in batch if p.node_id is None]
    assert [p.product_id for p in unlabelled] == ["4"]


def test_without_a_taxonomy_the_tree_is_that_of_the_accepted_paths(tmp_path: Path) -> None:
    rows = [*plain_rows(40), ["p1", "twice", "Never > Seen", ""]]
    report = ingest(write_feed(tmp_path / "feed.csv", rows), tmp_path / "out")
    catalog = Catalog.open(tmp_path / "out")
    assert catalog.taxonomy.names == ("Garden", "Kitchen", "Chairs", "Tables", "Pans", "Woks")
    nodes = {p.node_id for batch in catalog.products() for p in batch}
    assert path_id(["Kitchen", "Pans"]) in nodes  # products may stand at inner nodes
    assert (report.n_nodes, report.n_leaves) == (6, 3)


def test_with_a_taxonomy_a_category_is_an_id_or_a_path_and_others_are_refused(tmp_path: Path) -> None:
    rows = [
        ["a", "one", "2", ""],
        ["b", "two", "Garden > Tables", ""],
        ["c", "three", "Garden > Sheds", ""],
        ["d", "four", "Garden", ""],
    ]
    report = ingest(write_feed(tmp_path / "feed.csv", rows), tmp_path / "out", taxonomy=tree())
    nodes = {p.product_id: p.node_id for batch in Catalog.open(tmp_path / "out").products() for p in batch}
    assert nodes == {"a": "2", "b": "3", "d": "1"}
    assert report.by_code == {"unknown_category": 1}


def test_the_feeds_own_split_wins_over_the_flag(tmp_path: Path) -> None:
    rows = [[f"p{i}", f"title number {i}", "A > B", ["train", "val", "test"][i % 3]] for i in range(30)]
    feed = write_feed(tmp_path / "feed.csv", rows)
    report = ingest(feed, tmp_path / "out", split=Split.parse("90/10/0"))
    assert report.by_split == {"train": 10, "validation": 10, "test": 10}
    assert report.split.method == "own"


def test_running_again_does_nothing_and_another_source_is_refused(tmp_path: Path) -> None:
    feed = write_feed(tmp_path / "feed.csv", plain_rows(50))
    out = tmp_path / "out"
    first = ingest(feed, out)
    before = contents(out)
    again = ingest(feed, out)
    assert again.up_to_date
    assert not first.up_to_date
    assert (again.rows_in, again.by_split) == (first.rows_in, first.by_split)
    assert contents(out) == before
    with pytest.raises(CatalogError, match="other options"):
        ingest(feed, out, split=Split.parse("50/25/25"))
    write_feed(feed, plain_rows(51))
    with pytest.raises(CatalogError, match="overwrite"):
        ingest(feed, out)
    assert contents(out) == before
    assert ingest(feed, out, overwrite=True).rows_in == 51
    assert Catalog.open(out).info.n_products == 51


def test_a_folder_with_other_files_is_left_alone(tmp_path: Path) -> None:
    feed = write_feed(tmp_path / "feed.csv", plain_rows(5))
    for overwrite in (False, True):
        with pytest.raises(CatalogError, match="nothing was touched"):
            ingest(feed, tmp_path, overwrite=overwrite)
    assert [path.name for path in tmp_path.iterdir()] == ["feed.csv"]


def test_a_feed_that_cannot_be_read_leaves_no_half_catalog(tmp_path: Path) -> None:
    (tmp_path / "empty.csv").write_text("")
    with pytest.raises(FeedError):
        ingest(tmp_path / "empty.csv", tmp_path / "out")
    with pytest.raises(ConfigError):
        ingest(write_feed(tmp_path / "f.csv", [["x"]], ["weight"]), tmp_path / "out")
    whole = pa.table({"product_id": [str(i) for i in range(9000)], "title": ["t"] * 9000})
    pq.write_table(whole, tmp_path / "f.parquet", row_group_size=1000)
    damaged = bytearray((tmp_path / "f.parquet").read_bytes())
    damaged[4000:9000] = bytes(5000)
    (tmp_path / "f.parquet").write_bytes(damaged)
    with pytest.raises(FeedError):
        ingest(tmp_path / "f.parquet", tmp_path / "out")
    assert ingest(write_feed(tmp_path / "g.csv", plain_rows(9)), tmp_path / "out").accepted == 9


def test_a_feed_without_any_category_says_what_became_of_its_rows(tmp_path: Path) -> None:
    feed = write_feed(tmp_path / "f.csv", [["1", "chair", "", ""], ["", "table", "", ""]])
    with pytest.raises(CatalogError, match=r"2 rows = 1 accepted, none with a category, \+ 1 quarantined"):
        ingest(feed, tmp_path / "out")
    assert len(quarantine(tmp_path / "out")) == 1
    assert ingest(feed, tmp_path / "out", taxonomy=tree()).accepted == 1


def test_half_surrogates_and_separators_in_names_are_no_trouble(tmp_path: Path) -> None:
    rows = [
        {"product_id": "1", "title": "fine", "category": ["A", 'B "x" > y']},
        {"product_id": "2", "title": "bad \ud83d half", "category": ["A"]},
    ]
    (tmp_path / "f.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    report = ingest(tmp_path / "f.jsonl", tmp_path / "out")
    assert report.rows_in == report.accepted + report.quarantined == 2
    assert 'B "x" > y' in Catalog.open(tmp_path / "out").taxonomy.names


def test_pictures_come_back_byte_for_byte_in_the_order_of_the_feed(tmp_path: Path) -> None:
    pictures = {f"{i}.jpg": os.urandom(300 + i) for i in range(20)}
    (tmp_path / "pics").mkdir()
    for name, data in pictures.items():
        (tmp_path / "pics" / name).write_bytes(data)
    rows = [[str(i), f"picture {i}", "A > B", f"{i}.jpg"] for i in range(20)]
    feed = write_feed(tmp_path / "f.csv", rows, ["product_id", "title", "category", "image"])
    report = ingest(feed, tmp_path / "out", image_root=tmp_path / "pics")
    catalog = Catalog.open(tmp_path / "out")
    assert catalog.info.n_with_both == 20
    assert not report.warnings
    for part in PARTS:
        products = [p for batch in catalog.products(part, batch_rows=3) for p in batch]
        assert [int(p.product_id) for p in products] == sorted(int(p.product_id) for p in products)
        assert all(p.images == (pictures[f"{p.product_id}.jpg"],) for p in products)
        assert all(not p.images for batch in catalog.products(part, images=False) for p in batch)
    (tmp_path / "pics" / "3.jpg").write_bytes(b"another")
    with pytest.raises(CatalogError):
        ingest(feed, tmp_path / "out", image_root=tmp_path / "pics")


@pytest.mark.parametrize("way", ["beside the feed", "a relative folder", "a mapping"])
def test_other_pictures_are_another_source_wherever_they_stand(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    pictures = tmp_path / ("shop" if way == "beside the feed" else "shop/pics")
    pictures.mkdir(parents=True)
    rows = [[str(i), f"picture {i}", "A > B", f"{i}.jpg"] for i in range(4)]
    for i in range(3):
        (pictures / f"{i}.jpg").write_bytes(bytes(10 + i))
    feed = write_feed(tmp_path / "shop" / "f.csv", rows, ["product_id", "title", "category", "image"])
    monkeypatch.chdir(tmp_path / "shop")
    folder = "pics" if way == "a relative folder" else None
    mapping = Mapping(image_folder="pics") if way == "a mapping" else None
    out = tmp_path / "shop" / "out"

    def again() -> bool:
        return ingest(feed, out, image_root=folder, mapping=mapping).up_to_date

    assert not again()
    assert Catalog.open(out).info.n_with_images == 3
    assert again()
    (pictures / "unnamed.jpg").write_bytes(b"no row names it")
    (pictures / "0.jpg").touch()
    assert again()
    (pictures / "3.jpg").write_bytes(b"now it is there")
    with pytest.raises(CatalogError, match="another source"):
        again()


def test_ids_without_a_tree_are_the_nodes_of_a_flat_one(tmp_path: Path) -> None:
    rows = [[str(i), f"thing {i * 7919}", ["0040", "10"][i % 2], ""] for i in range(20)]
    feed = write_feed(tmp_path / "f.csv", rows)
    ingest(feed, tmp_path / "out", mapping=Mapping(category_format="id"))
    catalog = Catalog.open(tmp_path / "out")
    assert catalog.taxonomy.ids == catalog.taxonomy.names == ("0040", "10")
    assert {p.node_id for batch in catalog.products() for p in batch} == {"0040", "10"}


def test_white_space_in_names_never_parts_a_feed_from_its_tree(tmp_path: Path) -> None:
    rows = [["1", "one", "Garden\u00a0 Sheds > Log  stores", ""], ["2", "two", "Garden Sheds", ""]]
    odd = Taxonomy.from_parents(["1", "2"], ["Garden  Sheds", "Log\u00a0stores"], [None, 0])
    report = ingest(write_feed(tmp_path / "f.csv", rows), tmp_path / "out", taxonomy=odd)
    assert report.accepted == 2


def test_a_tree_is_cut_and_deeper_labels_are_their_ancestors(tmp_path: Path) -> None:
    deep = Taxonomy.from_parents(["1", "2", "3"], ["Garden", "Chairs", "Deck"], [None, 0, 1])
    rows = [["a", "one", "3", ""], ["b", "two", "Garden > Chairs > Deck", ""], ["c", "three", "1", ""]]
    feed = write_feed(tmp_path / "f.csv", rows)
    ways: list[tuple[int | None, Mapping | None]] = [
        (2, None),
        (None, Mapping(max_level=2)),
        (2, Mapping(max_level=3)),
    ]
    for number, (level, mapping) in enumerate(ways):
        out = tmp_path / str(number)
        report = ingest(feed, out, taxonomy=deep, taxonomy_level=level, mapping=mapping)
        catalog = Catalog.open(out)
        assert catalog.taxonomy.ids == ("1", "2")
        nodes = {p.product_id: p.node_id for batch in catalog.products() for p in batch}
        assert (report.accepted, nodes) == (3, {"a": "2", "b": "2", "c": "1"})
    with pytest.raises(CatalogError, match="other options"):
        ingest(feed, tmp_path / "0", taxonomy=deep)


def test_an_out_that_is_a_file_or_below_one_is_an_error_that_says_so(tmp_path: Path) -> None:
    feed = write_feed(tmp_path / "f.csv", plain_rows(5))
    for out in (feed, feed / "out" / "deeper"):
        with pytest.raises(InputError, match=r"f\.csv is a file"):
            ingest(feed, out)


def test_who_comes_to_the_lock_after_another_has_ended_does_not_do_the_work_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    feed = write_feed(tmp_path / "f.csv", plain_rows(30))
    lock = fcntl.flock

    def late(handle: int, how: int) -> None:
        monkeypatch.setattr(fcntl, "flock", lock)
        assert not ingest(feed, tmp_path / "out").up_to_date
        lock(handle, how)

    monkeypatch.setattr(fcntl, "flock", late)
    assert ingest(feed, tmp_path / "out").up_to_date
    assert not (tmp_path / "out" / "staging").exists()


def test_the_progress_ends_at_the_total(tmp_path: Path) -> None:
    ticks: list[Tick] = []
    ingest(write_feed(tmp_path / "f.csv", plain_rows(300)), tmp_path / "out", progress=ticks.append)
    assert [(t.phase, t.rows, t.total) for t in ticks if t.rows == t.total][-2:] == [
        ("read", 300, 300),
        ("split", 300, 300),
    ]


def test_two_at_once_on_one_folder_are_refused(tmp_path: Path) -> None:
    feed = write_feed(tmp_path / "f.csv", plain_rows(20))
    refused: list[str] = []

    def start_another(tick: Tick) -> None:
        if tick.phase == "read":
            with pytest.raises(InputError) as caught:
                ingest(feed, tmp_path / "out")
            refused.append(str(caught.value))

    ingest(feed, tmp_path / "out", progress=start_another)
    assert "another process" in refused[0]


# --- kills ----------------------------------------------------------------------------------------------------

# Runs an ingest in small shards and dies at the N-th time that something is put on the disk.
KILLED = """
import os, signal, sys
from pathlib import Path
from shelver.catalog import staging, store
from shelver.catalog.ingest import ingest
feed, out, n, rows, how = sys.argv[1], sys.argv[2], *map(int, sys.argv[3:])
staging.SHARD_ROWS = store.SHARD_ROWS = rows
fsync, replace = os.fsync, Path.replace
# A shell's background job starts with the keyboard's interrupt ignored.
signal.signal(signal.SIGINT, signal.default_int_handler)
left = n
def counted():
    global left
    left -= 1
    if left == 0:
        os.kill(os.getpid(), how)
def sync(handle):
    counted(); fsync(handle); counted()
def rename(self, target):
    counted(); found = replace(self, target); counted(); return found
os.fsync, Path.replace = sync, rename
report = ingest(feed, out)
print(report.resumed_rows)
"""


def feed_with_troubles(path: Path, n: int) -> Path:
    rows = plain_rows(n)
    rows[n // 2][0] = rows[3][0]  # a repeat far from the first
    rows[n // 3][1] = rows[n // 3][2] = ""
    rows[5][0] = ""
    return write_feed(path, rows)


def run_killed_at(feed: Path, out: Path, n: int, *, rows: int, how: signal.Signals = signal.SIGKILL) -> int:
    return subprocess.run(
        [sys.executable, "-c", KILLED, str(feed), str(out), str(n), str(rows), str(int(how))],
        check=False,
        capture_output=True,
        timeout=60,
    ).returncode


def assert_survives(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, points: list[int], n_rows: int) -> None:
    feed = feed_with_troubles(tmp_path / "f.csv", n_rows)
    shard = n_rows // 8
    monkeypatch.setattr(staging, "SHARD_ROWS", shard)
    monkeypatch.setattr(store, "SHARD_ROWS", shard)
    expected = ingest(feed, tmp_path / "whole")
    for point in points:
        if (code := run_killed_at(feed, tmp_path / "killed", point, rows=shard)) == 0:
            break
        assert code == -9
    report = ingest(feed, tmp_path / "killed")
    assert (report.rows_in, report.by_code) == (expected.rows_in, expected.by_code)
    assert contents(tmp_path / "killed") == contents(tmp_path / "whole")
    Catalog.open(tmp_path / "killed").verify()


@pytest.mark.parametrize("points", [[1, 5, 12, 30, 25], [61, 70, 95, 33, 3]])
def test_a_killed_ingest_resumes_to_the_same_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, points: list[int]
) -> None:
    assert_survives(tmp_path, monkeypatch, points, 400)


def test_an_ingest_that_was_interrupted_from_the_keyboard_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    feed = feed_with_troubles(tmp_path / "f.csv", 400)
    for module in (staging, store):
        monkeypatch.setattr(module, "SHARD_ROWS", 50)
    assert run_killed_at(feed, tmp_path / "out", 40, rows=50, how=signal.SIGINT) != 0
    with pytest.raises(CatalogError, match="unfinished"):
        Catalog.open(tmp_path / "out")
    assert ingest(feed, tmp_path / "out").resumed_rows > 0
    ingest(feed, tmp_path / "whole")
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")


@pytest.mark.drill
@pytest.mark.parametrize("point", range(1, 140))
def test_a_kill_at_any_write_loses_and_repeats_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, point: int
) -> None:
    assert_survives(tmp_path, monkeypatch, [point], 400)


def test_a_full_disk_says_so_and_the_next_run_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    feed = feed_with_troubles(tmp_path / "f.csv", 400)
    monkeypatch.setattr(staging, "SHARD_ROWS", 50)
    write = store.write_table

    def full(path: Path, table: pa.Table) -> None:
        if path.name.startswith("00004"):
            raise OSError(28, "No space left on device")
        write(path, table)

    monkeypatch.setattr(staging, "write_table", full)
    with pytest.raises(CatalogError, match="no space left"):
        ingest(feed, tmp_path / "out")
    monkeypatch.setattr(staging, "write_table", write)
    with pytest.raises(CatalogError, match="unfinished"):
        Catalog.open(tmp_path / "out")
    report = ingest(feed, tmp_path / "out")
    assert report.resumed_rows > 150
    ingest(feed, tmp_path / "whole")
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")


def test_another_feed_cannot_take_up_an_interrupted_ingest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    feed = feed_with_troubles(tmp_path / "f.csv", 400)
    assert run_killed_at(feed, tmp_path / "out", 40, rows=50) == -9
    other = write_feed(tmp_path / "g.csv", plain_rows(30))
    with pytest.raises(CatalogError, match="unfinished"):
        ingest(other, tmp_path / "out")
    assert ingest(other, tmp_path / "out", overwrite=True).rows_in == 30


def test_a_mapping_is_part_of_what_makes_a_catalog_the_same(tmp_path: Path) -> None:
    feed = write_feed(tmp_path / "f.csv", plain_rows(20))
    ingest(feed, tmp_path / "out", mapping=Mapping(max_level=1))
    assert Catalog.open(tmp_path / "out").taxonomy.n_levels == 1
    with pytest.raises(CatalogError):
        ingest(feed, tmp_path / "out", mapping=Mapping(max_level=2))
