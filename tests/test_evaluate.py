"""Reports, against scikit-learn and against counting by hand."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, f1_score

from shelver import registry
from shelver.catalog.ingest import ingest
from shelver.catalog.split import Part
from shelver.catalog.store import Catalog
from shelver.errors import CatalogError, ModelError
from shelver.evaluate import evaluate, write_report
from shelver.pipeline import Classifier
from shelver.product import Product

ROW = {
    "n",
    "accuracy",
    "weighted_f1",
    "macro_f1",
    "top3_accuracy",
    "hierarchical_precision",
    "hierarchical_recall",
    "hierarchical_f1",
    "relative_lca",
    "coverage",
    "ece",
}
Report = dict[str, Any]


def quiet(line: str) -> None:
    pass


def catalog_of(folder: Path, rows: list[str]) -> Catalog:
    feed = folder / "feed.csv"
    feed.write_text("product_id,title,category,split,language\n" + "".join(f"{row}\n" for row in rows))
    ingest(feed, folder / "catalog")
    return Catalog.open(folder / "catalog")


@pytest.fixture(scope="module")
def report(both_model: Path, tiny_catalog: Catalog) -> Report:
    return evaluate(both_model, tiny_catalog, say=quiet, threads=1)


@pytest.fixture(scope="module")
def test_products(tiny_catalog: Catalog) -> list[Product]:
    return [p for batch in tiny_catalog.products("test") for p in batch]


def test_the_figures_are_those_of_scikit_learn_over_what_the_classifier_says(
    report: Report, both_model: Path, test_products: list[Product]
) -> None:
    said = Classifier.open(both_model, threads=1)(test_products)
    truth = [p.node_id for p in test_products]
    predicted = [answer.node_id for answer in said]
    assert all(predicted)
    assert report["n"] == len(test_products)
    assert report["accuracy"] == pytest.approx(accuracy_score(truth, predicted), abs=1e-6)
    assert report["macro_f1"] == pytest.approx(f1_score(truth, predicted, average="macro"), abs=1e-6)
    assert report["weighted_f1"] == pytest.approx(f1_score(truth, predicted, average="weighted"), abs=1e-6)
    in_top3 = [t in [a.node_id for a in answer.alternatives[:3]] for t, answer in zip(truth, said, strict=True)]
    assert report["top3_accuracy"] == pytest.approx(np.mean(in_top3), abs=1e-6)
    assert report["coverage"] == 1.0
    assert report["products_per_s"] > 0


def test_a_report_has_the_same_figures_for_every_part_and_the_parts_add_up(
    report: Report, test_products: list[Product]
) -> None:
    assert report.keys() >= ROW | {"products_per_s", "by_level", "by_modality", "by_frequency", "by_source"}
    n = report["n"]
    for part in ("by_modality", "by_frequency", "by_source"):
        assert sum(row["n"] for row in report[part].values()) == n
    for part in ("by_level", "by_modality", "by_frequency", "by_source", "asked"):
        for name, row in report[part].items():
            assert row.keys() == ROW, (part, name)
    assert list(report["by_level"]) == ["1", "2", "3"]
    assert report["by_level"]["1"]["n"] == n
    assert report["by_level"]["1"]["accuracy"] >= report["accuracy"]
    has_both = [p for p in test_products if p.title and p.images]
    # The one damaged picture stands in the test split: its product came with text alone.
    assert {row["n"] for row in report["asked"].values()} == {report["by_modality"]["both"]["n"]}
    assert report["by_modality"]["both"]["n"] in (len(has_both), len(has_both) - 1)
    assert report["asked"]["both"] == report["by_modality"]["both"]
    assert set(report["by_source"]) == {"web", "app"}
    assert "by_language" in report
    json.dumps(report, allow_nan=False)


def test_unanswered_products_count_against_everything_but_false_alarms(
    text_model: Path, tiny_catalog: Catalog, test_products: list[Product]
) -> None:
    scores = evaluate(text_model, tiny_catalog, say=quiet, threads=1)
    silent = sum(p.title is None for p in test_products)
    assert silent > 0
    assert scores["n"] == len(test_products)
    assert scores["coverage"] == pytest.approx(1 - silent / len(test_products), abs=1e-6)
    assert sum(scores["n_errors"].values()) == silent
    assert scores["accuracy"] <= scores["coverage"]
    assert "asked" not in scores


def test_products_without_a_label_are_counted_apart(text_model: Path, tmp_path: Path) -> None:
    catalog = catalog_of(
        tmp_path,
        [
            "1,bar stool,Home > Chairs > Bar,test,en",
            "2,reading lamp,Home > Lamps,test,fr",
            "3,something,,test,en",
            "4,deck chair,Home > Chairs > Deck,test,en",
        ],
    )
    scores = evaluate(text_model, catalog, say=quiet, threads=1)
    assert (scores["n"], scores["n_unlabelled"]) == (3, 1)
    assert {name: row["n"] for name, row in scores["by_language"].items()} == {"en": 2, "fr": 1}


def test_a_split_without_labels_is_an_error(text_model: Path, tmp_path: Path) -> None:
    catalog = catalog_of(tmp_path, ["1,bar stool,Home > Lamps,train,en", "2,stool,,test,en"])
    splits: tuple[Part, ...] = ("test", "validation")
    for split in splits:
        with pytest.raises(CatalogError, match=f"no labelled product in its {split} split"):
            evaluate(text_model, catalog, split=split, say=quiet, threads=1)


def test_labels_that_the_model_has_never_heard_of_are_an_error_unless_no_product_bears_them(
    text_model: Path, tmp_path: Path
) -> None:
    rows = ["1,bar stool,Home > Chairs > Bar,test,en", "2,spoon,Kitchen > Spoons,train,en"]
    assert evaluate(text_model, catalog_of(tmp_path, rows), say=quiet, threads=1)["n"] == 1
    (tmp_path / "b").mkdir()
    wrong = catalog_of(tmp_path / "b", [*rows, "3,fork,Kitchen > Forks,test,en"])
    with pytest.raises(CatalogError, match=r"Kitchen > Forks"):
        evaluate(text_model, wrong, say=quiet, threads=1)


def test_only_a_whole_model_folder_is_evaluated(tiny_catalog: Catalog, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    with pytest.raises(ModelError, match="unfinished training"):
        evaluate(tmp_path, tiny_catalog, say=quiet)


def test_the_labels_of_the_model_tell_the_frequent_from_the_rare(text_model: Path, tiny_catalog: Catalog) -> None:
    counts = registry.read_labels(text_model)
    products = [p for batch in tiny_catalog.products("train") for p in batch]
    assert sum(counts.values()) == len(products)
    assert set(counts) == {p.node_id for p in products}


def test_a_report_is_written_whole_and_over_an_older_one(tmp_path: Path) -> None:
    for value in (1, 2):
        path = write_report({"n": value, "name": "é"}, tmp_path / "deep" / "report")
        assert json.loads(path.read_text(encoding="utf-8")) == {"n": value, "name": "é"}
    assert [file.name for file in path.parent.iterdir()] == ["report.json"]
