from __future__ import annotations

import csv
import hashlib
import os
import re
from collections import Counter
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest

from shelver.catalog.ingest import IngestReport, ingest
from shelver.catalog.split import Split
from shelver.catalog.store import Catalog
from shelver.datasets.recipes import RECIPES, flipkart_paths, hash_part
from shelver.errors import FeedError

DATA = Path(os.environ.get("SHELVER_DATA") or Path(__file__).parents[3] / "shared" / "data")


def real(name: str) -> Path:
    if not (DATA / name).is_dir():
        pytest.skip(f"the set {name} is not in {DATA}; set SHELVER_DATA to the folder that has it")
    return DATA / name


@pytest.fixture(scope="module")
def ingested(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], tuple[IngestReport, Catalog]]:
    """Ingests a set once for all tests of this file."""
    folder = tmp_path_factory.mktemp("recipes")

    @cache
    def run(name: str) -> tuple[IngestReport, Catalog]:
        report = ingest(real(name), folder / name, recipe=RECIPES[name])
        return report, Catalog.open(folder / name)

    return run


Ingested = Callable[[str], tuple[IngestReport, Catalog]]


@pytest.mark.parametrize(
    ("name", "rows", "accepted", "leaves", "by_split"),
    [
        ("fashion", 39_668, 39_668, 165, {"train": 30_906, "validation": 4_392, "test": 4_370}),
        ("grocery", 5_421, 5_421, 81, {"train": 2_640, "validation": 296, "test": 2_485}),
        ("instacart", 18_151, 18_151, 134, {"train": 13_089, "validation": 1_394, "test": 3_668}),
        ("hpc3level", 10_649, 10_637, 43, {"train": 7_660, "validation": 836, "test": 2_141}),
        ("flipkart", 1_050, 1_050, 242, {"train": 840, "validation": 105, "test": 105}),
    ],
)
def test_a_public_set_is_ingested_whole(
    ingested: Ingested, name: str, rows: int, accepted: int, leaves: int, by_split: dict[str, int]
) -> None:
    report, catalog = ingested(name)
    assert (report.rows_in, report.accepted, report.n_leaves) == (rows, accepted, leaves)
    assert report.rows_in == report.accepted + report.quarantined
    assert report.by_split == by_split
    assert ingest(real(name), catalog.folder, recipe=RECIPES[name]).up_to_date


def test_flipkart_misses_three_pictures_and_is_cut_at_level_three(ingested: Ingested) -> None:
    report, catalog = ingested("flipkart")
    assert report.warnings["image_missing"] == 3
    assert catalog.info.n_with_images == 1_047
    assert catalog.taxonomy.n_levels == 3


def test_fashion_brings_its_four_attributes_under_their_names_for_every_product(ingested: Ingested) -> None:
    _, catalog = ingested("fashion")
    assert catalog.info.attributes == dict.fromkeys(("gender", "baseColour", "season", "usage"), 39_668)
    vocabulary = catalog.vocabulary
    assert [(a.name, a.kind, a.multi, a.nodes) for a in vocabulary.attributes] == [
        (name, "open", False, ()) for name in catalog.info.attributes
    ]
    assert [len(a.values) for a in vocabulary.attributes] == [5, 46, 4, 8]
    first = next(p for batch in catalog.products(images=False) for p in batch if p.product_id == "1163")
    assert first.attributes == {
        "gender": ("Men",),
        "baseColour": ("Blue",),
        "season": ("Summer",),
        "usage": ("Sports",),
    }


def test_flipkarts_specifications_are_attributes_where_five_products_have_the_key(ingested: Ingested) -> None:
    report, catalog = ingested("flipkart")
    assert min(catalog.info.attributes.values()) >= 5
    assert catalog.info.attributes["Color"] > 500
    assert report.warnings["specification_rare"] > 0
    curtain = next(
        p for b in catalog.products(images=False) for p in b if "Duster25" in p.attributes.get("Model ID", ())
    )
    assert (curtain.attributes["Material"], curtain.attributes["Color"]) == (("Polyester",), ("Multicolor",))
    applies = catalog.vocabulary.applies(catalog.taxonomy)
    dial = [a.name for a in catalog.vocabulary.attributes].index("Dial Shape")
    tops = {catalog.taxonomy.path(int(k)).split(" > ")[0] for k in applies[:, dial].nonzero()[0]}
    assert "Watches" in tops
    assert len(tops) < 5


@pytest.mark.parametrize(("name", "column"), [("instacart", "product_name"), ("hpc3level", "Description")])
def test_the_hash_split_is_the_one_of_the_data_page(ingested: Ingested, name: str, column: str) -> None:
    expected: Counter[str] = Counter()
    with (real(name) / "products.csv").open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            t = re.sub(r"\W+", " ", row[column].lower()).strip()
            if t:
                held = int(hashlib.sha256(f"s:{t}".encode()).hexdigest(), 16) % 100 >= 80
                expected["test" if held else "rest"] += 1
    got = ingested(name)[1].info.by_split
    assert got["test"] == expected["test"]
    assert got["train"] + got["validation"] == expected["rest"]
    assert 0.08 < got["validation"] / expected["rest"] < 0.12


def test_equal_texts_have_equal_parts_whatever_their_signs() -> None:
    assert hash_part("All-Seasons  Salt!") == hash_part("all seasons salt")
    assert Counter(hash_part(f"text {i}") for i in range(2_000)).keys() == {"train", "validation", "test"}


def test_the_split_flag_overrides_a_recipe(tmp_path: Path) -> None:
    report = ingest(real("grocery"), tmp_path / "out", recipe=RECIPES["grocery"], split=Split.parse("90/10/0"))
    assert report.split.method == "grouped"
    assert report.by_split == {"train": 4_879, "validation": 542}


@pytest.mark.parametrize(
    ("cell", "path"),
    [
        ('["A >> B & C >> D >> E"]', ("A", "B & C", "D")),
        ('["A >> 14\\" screens"]', ("A", '14" screens')),
        ('["A >> B..."', ("A", "B...")),
        ('["A >> B", "C >> D >> E >> F", "A >> B"]', ("A", "B")),
        ("[]", None),
        ("", None),
    ],
)
def test_a_flipkart_tree_is_cut_at_level_three(cell: str, path: tuple[str, ...] | None) -> None:
    assert next(iter(flipkart_paths(cell)), None) == path


def test_a_flipkart_cell_of_several_paths_gives_all_of_them_once() -> None:
    assert flipkart_paths('["A >> B", "C >> D >> E >> F", "A >> B"]') == [("A", "B"), ("C", "D", "E")]


def write_rakuten_fr(folder: Path, *, pictures: bool) -> None:
    """The official layout: an unnamed index, HTML in the text, empty descriptions, labels in a file beside."""
    with (folder / "X_train_update.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["", "designation", "description", "productid", "imageid"])
        for i in range(60):
            text = "" if i % 3 else f"Une <br /> caract&#39;istique {i}"
            writer.writerow([i, f"Jeu n° {i * 7919}, édition &eacute;t&eacute;", text, 1000 + i, 9000 + i])
    with (folder / "Y_train_CVw08PX.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["", "prdtypecode"])
        writer.writerows([i, ["10", "2905", "1281"][i % 3]] for i in reversed(range(59)))
    if pictures:
        (folder / "images" / "image_train").mkdir(parents=True)
        for i in range(0, 60, 2):
            name = f"image_{9000 + i}_product_{1000 + i}.jpg"
            (folder / "images" / "image_train" / name).write_bytes(b"\xff\xd8\xff" + bytes([i]))


@pytest.mark.parametrize("pictures", [False, True])
def test_rakuten_france_is_joined_by_its_index(tmp_path: Path, pictures: bool) -> None:
    write_rakuten_fr(tmp_path, pictures=pictures)
    report = ingest(tmp_path, tmp_path / "out", recipe=RECIPES["rakuten-fr"])
    assert (report.rows_in, report.accepted, report.by_code) == (60, 59, {"missing_category": 1})
    assert report.n_nodes == report.n_leaves == 27
    catalog = Catalog.open(tmp_path / "out")
    products = {p.product_id: p for batch in catalog.products() for p in batch}
    assert {products[str(1000 + i)].node_id for i in range(0, 59, 3)} == {"10"}
    assert products["1003"].node_id == "10"
    assert products["1003"].description == "Une <br /> caract&#39;istique 3"
    assert products["1001"].description is None
    assert catalog.taxonomy.path(catalog.taxonomy.index("2905")) == "2905"
    assert catalog.info.n_with_images == (30 if pictures else 0)
    assert report.warnings == ({"image_missing": 29} if pictures else {})


def test_the_test_file_of_rakuten_france_changes_nothing(tmp_path: Path) -> None:
    write_rakuten_fr(tmp_path, pictures=False)
    ingest(tmp_path, tmp_path / "out", recipe=RECIPES["rakuten-fr"])
    (tmp_path / "X_test_update.csv").write_text(",designation,description,productid,imageid\n60,a,,1,2\n")
    assert ingest(tmp_path, tmp_path / "out", recipe=RECIPES["rakuten-fr"]).up_to_date


def test_rakuten_2018_is_read_without_a_header_and_its_codes_are_paths(tmp_path: Path) -> None:
    lines = [f'{i} inch 5" shelf "left\t{["1>2>3", "1>2", "4>2>3"][i % 3]}\n' for i in range(1, 31)]
    (tmp_path / "rdc-catalog-train.tsv").write_text("".join(lines))
    report = ingest(tmp_path, tmp_path / "out", recipe=RECIPES["rakuten-2018"])
    assert (report.rows_in, report.accepted) == (30, 30)
    catalog = Catalog.open(tmp_path / "out")
    assert {catalog.taxonomy.path(k) for k in range(catalog.taxonomy.n_nodes)} == {
        *("1", "1 > 2", "1 > 2 > 3", "4", "4 > 2", "4 > 2 > 3")
    }
    assert set(catalog.taxonomy.ids) == {"1", "1>2", "1>2>3", "4", "4>2", "4>2>3"}
    assert catalog.taxonomy.path(catalog.taxonomy.index("4>2>3")) == "4 > 2 > 3"
    assert {p.node_id for b in catalog.products() for p in b} == {"1>2>3", "1>2", "4>2>3"}
    first = next(p for b in catalog.products() for p in b if p.product_id == "1")
    assert first.title == '1 inch 5" shelf "left'


@pytest.mark.parametrize("name", sorted(RECIPES))
def test_a_recipe_without_its_files_says_which_it_needs(tmp_path: Path, name: str) -> None:
    with pytest.raises(FeedError, match=name):
        ingest(tmp_path, tmp_path / "out", recipe=RECIPES[name])
    assert not (tmp_path / "out").exists()


def test_a_recipe_takes_its_file_as_well_as_its_folder(ingested: Ingested) -> None:
    _, catalog = ingested("instacart")
    source = real("instacart") / "products.csv"
    assert ingest(source, catalog.folder, recipe=RECIPES["instacart"]).up_to_date
