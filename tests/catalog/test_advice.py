"""What an ingest says beside its counts, and the advice of its errors."""

from __future__ import annotations

import gzip
import random
from pathlib import Path

import pytest

from shelver.catalog.ingest import IngestReport, ingest
from shelver.catalog.mapping import Mapping
from shelver.catalog.progress import Clock, Tick
from shelver.cli.catalogs import ingest_text
from shelver.errors import CatalogError, ConfigError
from shelver.taxonomy import Taxonomy


def run(tmp_path: Path, text: str, *, mapping: Mapping | None = None, name: str = "f.csv") -> IngestReport:
    (tmp_path / name).write_text(text)
    return ingest(tmp_path / name, tmp_path / "out", mapping=mapping, overwrite=True)


def merchant(*items: str, end: str = "</channel></rss>") -> str:
    return f'<rss xmlns:g="http://base.google.com/ns/1.0"><channel>\n{"".join(items)}{end}'


def item(i: int, more: str = "") -> str:
    return f"<item><g:id>{i}</g:id><g:title>shoe {i}</g:title>{more}</item>\n"


def test_a_feed_that_breaks_off_is_said_on_a_line_of_its_own(tmp_path: Path) -> None:
    rows = "".join(f"{i},{random.Random(i).random()},A > B\n" for i in range(3_000))
    packed = gzip.compress(f"product_id,title,category\n{rows}".encode())
    (tmp_path / "f.csv.gz").write_bytes(packed[: len(packed) // 2])
    report = ingest(tmp_path / "f.csv.gz", tmp_path / "c")
    said = f"the file breaks off after line {report.rows_in:,}: what came after it is not in the catalog; get the "
    assert report.truncated
    assert [line.strip() for line in ingest_text(report).splitlines()][1].startswith(said)
    again = ingest(tmp_path / "f.csv.gz", tmp_path / "c")
    assert again.up_to_date
    assert again.truncated
    assert again.hints == report.hints
    category = "<g:product_type>Home &gt; Rugs</g:product_type>"
    cut = run(tmp_path, merchant(item(1, category), item(2, category), "<item><g:id>3</g:", end=""), name="f.xml")
    assert (cut.truncated, cut.by_code) == (True, {"damaged_file": 1})
    assert "breaks off after line 3" in cut.hints[0]
    assert not run(tmp_path, "product_id,title,category\n1,a,A > B\n").truncated


@pytest.mark.parametrize("separator", ["/", "|", "::", ">>", " >> ", " / "])
def test_a_separator_that_nobody_named_is_asked_about(tmp_path: Path, separator: str) -> None:
    text = "product_id,title,category\n" + "".join(f"{i},t{i},Home{separator}Rugs {i}\n" for i in range(5))
    report = run(tmp_path, text)
    assert f'5 category names hold "{separator.strip()}": if it separates levels' in report.hints[0]
    assert "5 leaves among 5 nodes in 1 level\n" in ingest_text(report)
    mapped = run(tmp_path, text, mapping=Mapping(category_separator=separator))
    assert (mapped.hints, mapped.n_levels) == ((), 2)
    assert "in 2 levels" in ingest_text(mapped)


def test_some_names_with_a_stroke_are_no_trouble(tmp_path: Path) -> None:
    text = "product_id,title,category\n1,a,Audio/Video\n2,b,Garden\n3,c,Kitchen > Pans/Pots\n"
    assert run(tmp_path, text).hints == ()


def test_the_default_separator_needs_no_spaces(tmp_path: Path) -> None:
    report = run(tmp_path, "product_id,title,category\n1,a,A>B\n2,b,A  > C\n3,c,>5 kg\n4,d,A > B >\n")
    assert (report.accepted, report.n_nodes) == (4, 4)


def test_an_ingest_says_which_column_is_what_and_shows_a_quarantined_row(tmp_path: Path) -> None:
    report = run(tmp_path, "sku,name,category,price,stock\n1,oak,A > B,3,4\n,elm,A > B,3,4\n")
    assert report.columns == {"product_id": "sku", "title": "name", "category": "category"}
    assert report.unused == ("price", "stock")
    text = ingest_text(report)
    assert "columns: product_id=sku, title=name, category=category; not used: price, stock\n" in text
    assert f"for example line 3, missing_id: the row has no product_id; all of them: {tmp_path / 'out'}" in text


def test_numbers_for_categories_ask_for_their_tree(tmp_path: Path) -> None:
    text = "product_id,title,category\n1,oak,537\n2,elm,1604\n"
    assert "--taxonomy" in run(tmp_path, text).hints[0]
    assert run(tmp_path, text, mapping=Mapping(category_format="id")).hints == ()


def test_pictures_that_are_mostly_missing_name_the_folder_and_one_of_them(tmp_path: Path) -> None:
    (tmp_path / "p0.png").write_bytes(b"picture")
    head = "product_id,title,category,image\n"
    rows = [f"{i},t{i},A > B,p{i}.png\n" for i in range(3)]
    said = f"2 of 3 named pictures were not found in {tmp_path} (for example p1.png): pass --images FOLDER"
    assert run(tmp_path, head + "".join(rows)).hints[0].startswith(said)
    assert run(tmp_path, head + "".join(rows[:2])).hints == ()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("product_id,title,category\n", r"has no row below its header \(product_id, title, category\)"),
        (
            "product_id,label,category\n1,a,A\n",
            "No column was read as title, description or image; the feed has: product_id, label, category; map "
            "one with --column title=label",
        ),
        ("product_id,title,category\n1,,A\n", "columns read as title are empty"),
        ("product_id,title,category\n,a,A\n", "--column product_id=NAME"),
        ("product_id,title,category,value\n1,a,A,dear\n", "which column is read as value"),
        ("product_id,title,category\n1,a\n", "Set the delimiter"),
        ("product_id,image,category\n1,a.png,A\n", "Pass --images FOLDER.*for example a.png"),
        ("product_id,title\n1,a\n", "No column was read as category; the feed has: product_id, title"),
        ("product_id,title,category\n1,a,\n", r"The category column \(category\) is empty"),
    ],
)
def test_the_advice_of_a_feed_without_a_usable_row_follows_the_reason(
    tmp_path: Path, text: str, said: str
) -> None:
    with pytest.raises(CatalogError, match=said):
        run(tmp_path, text)
    assert run(tmp_path, "product_id,title,category\n1,oak,A\n").accepted == 1  # the folder is free


def test_a_feed_whose_categories_are_all_unknown_makes_no_catalog(tmp_path: Path) -> None:
    (tmp_path / "f.csv").write_text("product_id,title,category\n1,oak,Nowhere\n")
    with pytest.raises(CatalogError, match="Check that --taxonomy is the tree of this feed"):
        ingest(tmp_path / "f.csv", tmp_path / "out", taxonomy=Taxonomy.from_paths([["A", "B"]]))


def test_merchant_columns_may_be_named_without_their_prefix_and_unknown_ones_are_refused(tmp_path: Path) -> None:
    kind = "<g:product_type>Home &gt; Rugs</g:product_type><g:custom_label_0>x</g:custom_label_0>"
    feed = merchant(item(1, kind), item(2, kind))
    assert run(tmp_path, feed, name="f.xml").columns["category"] == "g:product_type"
    mapping = Mapping(columns={"description": "custom_label_0"}, id_from="hash", id_columns=("id",))
    report = run(tmp_path, feed, mapping=mapping, name="f.xml")
    assert (report.accepted, report.columns["description"]) == (2, "g:custom_label_0")
    both = kind + "<g:google_product_category>A &gt; B</g:google_product_category>"
    columns = run(tmp_path, merchant(item(1, both)), name="f.xml").columns
    assert columns["category"] == "g:google_product_category"
    with pytest.raises(ConfigError, match="column 'naem' is mapped, but the feed has: g:id"):
        run(tmp_path, feed, mapping=Mapping(columns={"title": "naem"}), name="f.xml")


def test_the_first_two_seconds_foretell_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    times = [0.0]
    monkeypatch.setattr("time.monotonic", lambda: times[-1])
    ticks: list[Tick] = []
    clock = Clock(ticks.append, "read", 1_000, 0)
    for now in (1.0, 3.0):
        times.append(now)
        clock.step(100)
    assert [tick.seconds_left for tick in ticks] == [None, pytest.approx(12.0)]
