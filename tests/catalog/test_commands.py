"""ingest, describe, golden and generate as a person types them."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import get_args

import pytest

from shelver.catalog.store import Catalog
from shelver.cli import main
from shelver.cli.catalogs import TreeFormatName, ingest_text
from shelver.taxonomy import TreeFormat

TREE = "1 - Garden\n2 - Garden > Chairs\n3 - Garden > Chairs > Deck chairs\n4 - Kitchen\n"
FRENCH = "1 - Jardin\n2 - Jardin > Chaises\n4 - Cuisine\n9 - Neuf\n"
Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], empty_settings: Path) -> Run:
    """Runs a command line in this process, in an empty folder; status, standard output, standard error."""

    def call(*args: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["shelver", *map(str, args)])
        capfd.readouterr()
        status: int | str | None = 0
        try:
            main()
        except SystemExit as ended:
            status = ended.code
        return int(status or 0), *capfd.readouterr()

    return call


@pytest.fixture
def feed(empty_settings: Path) -> Path:
    path = empty_settings / "feed.csv"
    path.write_text("product_id,title,category\n1,folding chair,3\n2,wok,4\n3,bench,Jardin\n")
    (empty_settings / "tree.txt").write_text(TREE)
    (empty_settings / "fr-FR.txt").write_text(FRENCH)
    return path


def test_the_tree_of_an_ingest_may_have_other_names_and_be_cut(run: Run, feed: Path) -> None:
    flags = ("--taxonomy", "tree.txt", "--taxonomy-names", "fr-FR.txt", "--taxonomy-level", 2)
    status, out, err = run("ingest", feed, *flags, "--taxonomy-format", "google", "--out", "c")
    assert (status, out.splitlines()[0][:37]) == (0, "3 rows = 3 accepted + 0 quarantined, ")
    assert "names: 1 nodes have no name in fr-FR.txt" in err
    assert "names: 1 ids of fr-FR.txt are not in the tree" in err
    catalog = Catalog.open("c")
    assert sorted(catalog.taxonomy.paths) == ["Cuisine", "Jardin", "Jardin > Chaises"]
    assert {p.product_id: p.node_id for b in catalog.products() for p in b} == {"1": "2", "2": "4", "3": "1"}


def test_the_separator_of_a_path_list_may_be_said(run: Run, feed: Path) -> None:
    Path("paths.txt").write_text("Garden~Chairs\n")
    feed.write_text("product_id,title,category\n1,folding chair,Garden > Chairs\n")
    status, _, err = run("ingest", feed, "--taxonomy", "paths.txt", "--taxonomy-separator", "~", "--out", "c")
    assert (status, err) == (0, "tree: 1 ancestors that no line names were created\n")


def test_a_generated_feed_stands_on_the_leaves_of_the_cut_tree(run: Run, feed: Path) -> None:
    flags = ("--taxonomy", "tree.txt", "--taxonomy-level", 1)
    assert run("generate", *flags, "--rows", 40, "--out", "g.jsonl")[0] == 0
    rows = [json.loads(line) for line in Path("g.jsonl").read_text().splitlines()]
    assert {row["category"] for row in rows} == {"1", "4"}


def test_mistakes_in_the_flags_of_an_ingest_say_what_to_do(run: Run, feed: Path) -> None:
    Path("m.toml").write_text('id_from = "line"\n[constants]\nlanguage = "en"\n')
    Path("file").write_text("")
    calls: list[tuple[tuple[object, ...], str]] = [
        (("--out", "c", "--taxonomy-level", 2), "without --taxonomy"),
        (("--out", "c", "--taxonomy", "tree.txt", "--taxonomy-level", 0), "taxonomy-level"),
        (("--out", "c", "--taxonomy", "tree.txt", "--taxonomy-format", "xml"), "taxonomy-format"),
        (("--out", "c", "--mapping", "m.toml", "--column", "language=category"), "`language` is a column and"),
        (("--out", "c", "--mapping", "m.toml", "--column", "product_id=title"), "id_from is 'line'"),
        (("--out", "file"), "file is a file"),
        (("--out", "file/c"), "file is a file"),
    ]
    for flags, said in calls:
        status, out, err = run("ingest", feed, *flags)
        assert (status, out) == (2, ""), (flags, err)
        assert said in " ".join(err.replace("\u2502", " ").split()), (flags, err)
        assert "bug" not in err
    assert run("ingest", "fashion", ".", "--out", "c", "--taxonomy-level", 2)[0] == 2
    assert not Path("c").exists()


def test_the_help_keeps_what_stands_in_brackets(run: Run) -> None:
    assert "or 80/10/10" in " ".join(run("ingest", "--help")[1].split())


def test_the_formats_of_a_tree_are_those_that_can_be_read() -> None:
    assert get_args(TreeFormatName) == get_args(TreeFormat)


def test_an_ingest_tells_of_narrowed_titles_and_describe_as_well(run: Run, feed: Path) -> None:
    lines = [f"{i},genuine replacement cover for the famous acme no {i:03d},A > B" for i in range(200)]
    feed.write_text("product_id,title,category\n" + "\n".join(lines) + "\n")
    status, out, _ = run("ingest", feed, "--out", "c")
    assert status == 0
    assert "200 texts are one chain" in out
    assert "products are tied to one in another part" in out
    assert "200 texts are one chain" in run("describe", "c")[1]
    described = json.loads(run("describe", "c", "--json")[1])
    assert (described["n_narrowed"], described["near_exhaustive"]) == (200, True)


def test_a_resumed_ingest_says_how_far_it_had_come(tmp_path: Path) -> None:
    from dataclasses import replace

    from shelver.catalog.ingest import ingest

    feed = tmp_path / "f.csv"
    feed.write_text("product_id,title,category\n1,chair,A\n")
    report = ingest(feed, tmp_path / "c")
    assert "resumed after" not in ingest_text(report)
    assert "resumed after 12,345 rows" in ingest_text(replace(report, resumed_rows=12_345))


def test_a_recipe_without_its_folder_says_so_and_a_missing_file_names_the_path(run: Run, feed: Path) -> None:
    status, _, err = run("ingest", "fashion", "--out", "x")
    assert status == 2
    assert "fashion is a recipe" in err
    assert "`shelver ingest fashion FOLDER --out x`" in err
    Path("sets").mkdir()
    for name, file, home in (
        ("flipkart", "products.csv", "Kaggle"),
        ("rakuten-fr", "X_train", "ENS Challenge Data"),
    ):
        status, _, err = run("ingest", name, "sets", "--out", "x")
        assert (status, err.startswith("shelver: sets has no ")) == (2, True), err
        assert file in err
        assert home in err
        assert "README" not in err
    assert str(Path.cwd()) in run("ingest", "fashion", ".", "--out", "x")[2]


def test_the_json_of_an_ingest_tells_what_the_text_does(run: Run, feed: Path) -> None:
    status, out, _ = run("ingest", feed, "--taxonomy", "tree.txt", "--out", "c", "--json")
    record = json.loads(out)
    assert (status, record["truncated"], record["unused"], record["n_levels"]) == (0, False, [], 3)
    assert record["columns"] == {"product_id": "product_id", "title": "title", "category": "category"}
    assert record["example"].startswith("line 4, unknown_category: ")


def test_a_generated_feed_has_a_language_where_one_is_given_and_needs_its_folder(run: Run, feed: Path) -> None:
    flags = ("generate", "--taxonomy", "tree.txt", "--rows", 3)
    for more, language in (((), None), (("--language", "fr"), "fr")):
        assert run(*flags, *more, "--out", "g.jsonl")[0] == 0
        rows = [json.loads(line) for line in Path("g.jsonl").read_text().splitlines()]
        assert {row["language"] for row in rows} == {language}
    status, _, err = run(*flags, "--out", "nowhere/g.jsonl")
    assert (status, "no folder nowhere" in err, "Create it first" in err) == (2, True, True)
    assert not Path("nowhere").exists()


def test_attributes_are_named_on_the_command_line_and_told(run: Run, feed: Path) -> None:
    feed.write_text("product_id,title,category,tint\n1,Blue chair,A,bordeaux\n2,blue wok,B,\n3,bench,B,octarine\n")
    Path("v.csv").write_text("attribute,value,synonyms\ncolour,Red,bordeaux\ncolour,Blue,\n")
    flags = ("--attributes", "v.csv", "--attribute", "colour=tint", "--out", "c")
    status, out, _ = run("ingest", feed, *flags)
    assert status == 0
    assert "attributes.colour=tint" in out
    assert "attributes, products with a label: colour 3" in out
    assert "accepted, with a warning, attribute_unknown: 1" in out
    found = {p.product_id: p.attributes for batch in Catalog.open("c").products() for p in batch}
    assert found == {"1": {"colour": ("Red",)}, "2": {"colour": ("Blue",)}, "3": {"colour": ("octarine",)}}
    status, out, _ = run("describe", "c")
    assert "colour: 100.0% of the products, 3 values" in out
    assert "1 labels are not in the vocabulary (octarine 1)" in out
    summary = json.loads(run("describe", "c", "--json")[1])["attributes"][0]
    assert (summary["name"], summary["n_labelled"], summary["n_unknown"]) == ("colour", 3, 1)
    assert run("ingest", feed, *flags, "--no-extract", "--overwrite")[0] == 0
    assert Catalog.open("c").info.attributes == {"colour": 2}


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (("--attribute", "colour"), "--attribute colour"),
        (("--attribute", "colour=tint", "--attribute", "colour=hue"), "colour is given twice"),
        (("--attribute", "colour=hue"), "column 'hue' is mapped"),
        (("--attributes", "absent.csv"), "absent.csv: no such file or folder"),
        (("--attributes", "tree.txt"), "tree.txt, line 1"),
    ],
)
def test_a_wrong_attribute_flag_is_a_sentence_with_a_remedy(
    run: Run, feed: Path, flags: tuple[str, ...], said: str
) -> None:
    status, _, err = run("ingest", feed, *flags, "--out", "c")
    assert status != 0
    assert said in err
    assert "Traceback" not in err
    assert not Path("c").exists()


def test_a_recipe_takes_a_vocabulary_but_no_columns(run: Run, feed: Path) -> None:
    status, _, err = run("ingest", "fashion", ".", "--attribute", "colour=tint", "--out", "c")
    assert status != 0
    assert "--attribute" in err
