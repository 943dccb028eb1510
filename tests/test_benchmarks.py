"""The benchmark compares fairly: the same rows, honest folds, the metric functions of the reports."""

from __future__ import annotations

import json
import os
import sys
from collections import Counter
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from shelver.catalog.reader import ProductRow
from shelver.catalog.store import Catalog
from shelver.datasets.recipes import RECIPES, Recipe
from shelver.evaluate import evaluate
from shelver.pipeline import Classifier
from shelver.product import Product

REPO = Path(__file__).parent.parent
sys.path.insert(0, str(REPO))

from benchmarks import data, pictures, rivals, run, table  # noqa: E402
from benchmarks.measure import Learned, Stopwatch, score  # noqa: E402
from benchmarks.ours import predictor  # noqa: E402
from benchmarks.systems import SYSTEMS, named_paths, systems_named  # noqa: E402
from shelver.errors import ConfigError, InputError  # noqa: E402

SET = data.Set("tiny", "tiny", "text")


def installed(name: str) -> None:
    """Skip where a rival is not there; fail where it ought to be: all but fastText, compiled by `make bench`."""
    if find_spec(name) is None:
        assert os.environ.get("CI") != "true" or name == "fasttext", f"{name} ought to be installed"
        pytest.skip(f"{name} is not installed: `make bench` installs it, and needs a C++ compiler for it")


@pytest.mark.parametrize(
    ("learn", "library"), [(rivals.learn_svm, "sklearn"), (rivals.learn_fasttext, "fasttext")]
)
def test_a_text_rival_learns_the_tiny_catalog_and_is_scored(
    tiny_catalog: Catalog, tmp_path: Path, learn: Callable[..., Learned], library: str
) -> None:
    installed(library)
    learned = learn(tiny_catalog, SET, tmp_path, 1)
    found = score(learned, *data.labelled(tiny_catalog, ("test",), "text"), min_cpu_s=0.01)
    assert found.accuracy > 0.6  # a few products of the tiny catalog have no text
    assert found.train_cpu_s > 0
    assert found.predict_cpu_us > 0
    assert found.n_test == tiny_catalog.info.by_split["test"]


def test_ours_is_scored_as_the_report_scores_it(
    tiny_catalog: Catalog, trained: Callable[[str, str], Path]
) -> None:
    model = trained("ngram", "none")
    classifier = Classifier.open(model, threads=1)
    learned = Learned(list, predictor(classifier), 0.0, 0.0, "")
    products, truth = data.labelled(tiny_catalog, ("test",), "both")
    found = score(learned, products, truth, min_cpu_s=0.01)
    report = evaluate(model, tiny_catalog, say=lambda line: None, threads=1)
    assert (found.accuracy, found.macro_f1) == (report.accuracy, report.macro_f1)


def test_what_is_not_asked_with_is_taken_away(tiny_catalog: Catalog) -> None:
    texts, _ = data.labelled(tiny_catalog, ("test",), "text")
    pictures, _ = data.labelled(tiny_catalog, ("test",), "picture")
    both, nodes = data.labelled(tiny_catalog, ("test",), "both")
    assert any(p.images for p in both)
    assert any(p.title for p in both)
    assert not any(p.images for p in texts)
    assert not any(p.title or p.description or p.brand for p in pictures)
    assert len(texts) == len(pictures) == len(both) == len(nodes)


def test_bare_runs_the_models_own_network_on_the_same_pixels(
    tiny_catalog: Catalog, trained: Callable[[str, str], Path]
) -> None:
    model = trained("none", "lite0")
    classifier = Classifier.open(model, threads=1)
    products = [p for p in data.labelled(tiny_catalog, ("train",), "picture")[0] if p.images][:20]
    run_bare = pictures.bare(model, 1)
    embedded = classifier.embed(products).image
    assert embedded is not None
    found = np.concatenate(run_bare([p.images[0] for p in products]))
    assert np.allclose(found, embedded.values, atol=1e-4)
    took = pictures.turn(classifier, run_bare, products)
    assert min(took.ours_wall_s, took.ours_cpu_s, took.bare_wall_s, took.bare_cpu_s) > 0


def flat_recipe(titles: list[str]) -> Recipe:
    rows = [
        ProductRow(line=i, product=Product(str(i), title=title, brand="b"), category=("A", "B", "C"), warnings=())
        for i, title in enumerate(titles)
    ]
    return Recipe("flat", "", lambda source: iter(rows), lambda source: [])


def test_each_product_is_tested_in_one_fold_and_equal_titles_stay_together(tmp_path: Path) -> None:
    recipe = flat_recipe([f"Chair {i // 2}" if i % 2 else f"chair, {i // 2}!" for i in range(300)])
    tested: Counter[str] = Counter()
    for fold in range(data.N_FOLDS):
        rows = list(data.folded(recipe, level=2, fold=fold).rows(tmp_path))
        products = [row.product for row in rows if isinstance(row, ProductRow)]
        parts = Counter(p.split for p in products)
        assert parts["train"] > parts["test"] > 0
        assert parts["validation"] > 0
        assert {row.category for row in rows if isinstance(row, ProductRow)} == {("A", "B")}
        assert all(a.split == b.split for a, b in zip(products[::2], products[1::2], strict=True))
        assert all(p.brand is None for p in products)
        tested.update(p.product_id for p in products if p.split == "test")
    assert set(tested.values()) == {1}
    assert len(tested) == 300


def test_a_fold_is_a_catalog_of_its_own() -> None:
    names = {data.folded(RECIPES["flipkart"], level=1, fold=fold).name for fold in range(data.N_FOLDS)}
    assert len(names) == data.N_FOLDS  # the name is part of the catalog's fingerprint


def test_the_clock_counts_work_and_not_sleep() -> None:
    watch = Stopwatch()
    while watch.cpu_s() < 0.05:
        sum(range(1000))
    assert 0.05 <= watch.cpu_s() <= watch.wall_s() + 0.05


def row(of: str, system: str, **figures: Any) -> dict[str, Any]:
    facts = {"machine": "m", "libraries": "l", "date": "2026-01-01", "load_before": 0.0, "commit": None}
    scores = {"accuracy": 0.9, "macro_f1": 0.8, "train_cpu_s": 2.0, "predict_cpu_us": 5.0, "settings": "s"}
    return {"set": of, "system": system, **scores, **facts, **figures}


def test_a_row_replaces_that_of_the_same_set_and_system(tmp_path: Path) -> None:
    file = tmp_path / "results.json"
    run.keep(file, [row("instacart", "svm"), row("fashion-text", "svm")])
    run.keep(file, [row("instacart", "svm", accuracy=0.5), row("instacart", "ours")])
    kept = json.loads(file.read_text(encoding="utf-8"))
    assert [(r["set"], r["system"], r["accuracy"]) for r in kept] == [
        ("fashion-text", "svm", 0.9),
        ("instacart", "ours", 0.9),
        ("instacart", "svm", 0.5),
    ]


def test_folds_give_a_mean_and_its_standard_error() -> None:
    accuracies = [0.5, 0.6, 0.7]
    figures = dict.fromkeys(("train_cpu_s", "predict_cpu_us", "train_wall_s", "predict_wall_us"), 1.0)
    scores = [{**figures, "accuracy": a, "macro_f1": 0.5, "n_test": 10, "settings": "s"} for a in accuracies]
    found = run.over_folds(scores)
    assert found["accuracy"] == pytest.approx(0.6)
    assert found["accuracy_se"] == pytest.approx(np.std(accuracies, ddof=1) / 3**0.5)
    assert found["n_test"] == 30


def test_the_page_gets_its_tables_and_keeps_its_words(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    names = ("measured-on", "systems", "against", "pictures")
    page.write_text("Before\n" + "".join(f"<!-- {n} -->\nold\n<!-- /{n} -->\n" for n in names) + "After\n")
    folds = {"fold_accuracy": [0.8, 1.0], "fold_macro_f1": [0.8, 0.8]}
    ours = row("flipkart-l1-both", "ours", **folds)
    svm = row("flipkart-l1-text", "svm", accuracy=0.8, fold_accuracy=[0.7, 0.9], fold_macro_f1=[0.8, 0.8])
    table.render(page, [ours, svm], [])
    once = page.read_text(encoding="utf-8")
    assert once.startswith("Before\n")
    assert once.endswith("After\n")
    assert "old" not in once
    assert "| flipkart-l1-both | ours | +10.00 ± 0.00 | +0.00 ± 0.00 |" in once
    table.render(page, [ours, svm], [])
    assert page.read_text(encoding="utf-8") == once
    speeds = {"fp32": 100.0, "int8": 150.0}
    seen = [
        row("grocery", name, precision=name, products_per_s=speed, bare_per_s=speed, ratio=1.0)
        for name, speed in speeds.items()
    ]
    table.render(page, [ours, svm], seen)
    assert "| grocery | int8 | int8 | 150.0 | 150.0 | 1.000 | 1.50 |" in page.read_text(encoding="utf-8")


def test_a_page_without_its_markers_is_refused(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("nothing")
    with pytest.raises(InputError, match="measured-on"):
        table.render(page, [], [])


def test_the_published_page_has_its_markers(tmp_path: Path) -> None:
    copy = tmp_path / "benchmarks.md"
    copy.write_text((REPO / "docs" / "benchmarks.md").read_text(encoding="utf-8"), encoding="utf-8")
    table.render(copy, [], [])
    assert copy.read_text(encoding="utf-8").count("Nothing was measured yet.") == 4


def test_every_set_has_ours_and_a_rival() -> None:
    for one in data.SETS:
        names = {s.name for s in SYSTEMS if s.answers(one)}
        assert "ours" in names
        if one.ask != "both":
            assert names & {"svm", "fasttext", "lite0-lr"}


def test_sets_and_systems_are_found_by_name_and_others_refused() -> None:
    assert {s.catalog for s in data.sets_named(["flipkart"])} == {"flipkart-l1", "flipkart-l2", "flipkart-l3"}
    assert [s.name for s in data.sets_named(["grocery"])] == ["grocery"]
    assert "google5k" not in {s.name for s in data.sets_named([])}
    assert [s.name for s in systems_named(["trial"], ["trial=configs/trial.py"])] == ["trial"]
    assert named_paths(["a=b"]) == [("a", Path("b"))]
    with pytest.raises(ConfigError, match="NAME=PATH"):
        named_paths(["a"])
    with pytest.raises(ConfigError, match="instacart"):
        data.sets_named(["nothing"])
    with pytest.raises(ConfigError, match="lite0-lr"):
        systems_named(["nothing"])
