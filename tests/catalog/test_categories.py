"""Products with several right categories, from the cell to the golden set."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from shelver.catalog.categories import MAX_ALTERNATIVES, categories_of
from shelver.catalog.describe import describe
from shelver.catalog.golden import freeze
from shelver.catalog.ingest import ingest
from shelver.catalog.mapping import Mapping
from shelver.catalog.rows import Cell, RefusedError
from shelver.catalog.split import Split
from shelver.catalog.store import Catalog
from shelver.taxonomy import Taxonomy, path_id

BARS = Mapping(category_alternatives=" || ")


@pytest.mark.parametrize(
    ("cell", "mapping", "found"),
    [
        ("A > B || C", BARS, [("A", "B"), ("C",)]),
        ("A > B || A >  B || ", BARS, [("A", "B")]),
        (" || C", BARS, [("C",)]),
        ("A > B || C", Mapping(), [("A", "B || C")]),
        (["A", "B"], Mapping(), [("A", "B")]),
        ([["A", "B"], ["C"]], Mapping(), [("A", "B"), ("C",)]),
        ([["A", "B"], "C > D"], Mapping(), [("A", "B"), ("C", "D")]),
        (["A > B", "C"], BARS, [("A", "B"), ("C",)]),
        ("[A > B || C > D]", BARS.model_copy(update={"category_strip": "[]"}), [("A", "B"), ("C", "D")]),
        ("1 || 2", BARS.model_copy(update={"category_format": "id"}), ["1", "2"]),
        ("A > B > C || A > B", BARS.model_copy(update={"max_level": 2}), [("A", "B")]),
        (None, BARS, []),
        ([], BARS, []),
    ],
)
def test_a_cell_holds_several_paths_where_the_mapping_says_so(
    cell: Cell, mapping: Mapping, found: list[Any]
) -> None:
    assert categories_of([cell], ["c"], mapping) == (found, True)


def test_another_category_that_is_no_path_is_left_out_but_the_first_is_refused() -> None:
    assert categories_of(["A || B >  > C"], ["c"], BARS) == ([("A",)], False)
    with pytest.raises(RefusedError, match="empty level"):
        categories_of(["B >  > C || A"], ["c"], BARS)
    many = " || ".join(f"n{i}" for i in range(MAX_ALTERNATIVES + 1))
    found, whole = categories_of([many], ["c"], BARS)
    assert (len(found), whole) == (MAX_ALTERNATIVES, False)


def write(folder: Path, cells: list[Any]) -> Path:
    rows = ({"id": f"p{i}", "title": f"thing {i * 104729}", "category": cell} for i, cell in enumerate(cells))
    (folder / "feed.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder / "feed.jsonl"


def also(catalog: Catalog) -> dict[str, tuple[str | None, tuple[str, ...]]]:
    return {p.product_id: (p.node_id, p.also_node_ids) for batch in catalog.products() for p in batch}


def test_without_a_taxonomy_all_paths_are_in_the_tree_and_golden_sets_keep_them(tmp_path: Path) -> None:
    feed = write(tmp_path, ["A > B || C > D", "A > B", "C || C > D || C"])
    report = ingest(feed, tmp_path / "out", mapping=BARS, split=Split.parse("0/0/100"))
    catalog = Catalog.open(tmp_path / "out")
    b, c, d = path_id(("A", "B")), path_id(("C",)), path_id(("C", "D"))
    assert also(catalog) == {"p0": (b, (d,)), "p1": (b, ()), "p2": (c, (d,))}
    assert (report.n_nodes, report.n_with_also, catalog.info.n_with_also) == (4, 2, 2)
    golden = freeze(catalog, "test", tmp_path / "golden")
    assert also(golden) == also(catalog)
    assert golden.info.n_with_also == describe(golden).n_with_also == 2
    assert "2 products have more than one right category" in str(describe(golden))


def test_with_a_taxonomy_an_unknown_other_category_is_a_warning_and_ids_work_too(tmp_path: Path) -> None:
    tree = Taxonomy.from_parents(["1", "2", "3"], ["Garden", "Chairs", "Tables"], [None, 0, 0])
    cells = ["Garden > Chairs || Garden > Sheds || 3", "2 || 2 || Garden >  > Chairs", "Sheds || 2"]
    report = ingest(write(tmp_path, cells), tmp_path / "out", mapping=BARS, taxonomy=tree)
    assert also(Catalog.open(tmp_path / "out")) == {"p0": ("2", ("3",)), "p1": ("2", ())}
    assert report.warnings == {"also_unknown_category": 1, "also_bad_category": 1}
    assert report.by_code == {"unknown_category": 1}


def test_ids_without_a_taxonomy_make_a_flat_tree_of_all_of_them(tmp_path: Path) -> None:
    mapping = Mapping(category_format="id", category_alternatives="|")
    ingest(write(tmp_path, ["7|9", "8"]), tmp_path / "out", mapping=mapping)
    catalog = Catalog.open(tmp_path / "out")
    assert set(catalog.taxonomy.ids) == {"7", "8", "9"}
    assert also(catalog)["p0"] == ("7", ("9",))
