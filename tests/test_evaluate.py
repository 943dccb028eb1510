"""Reports, against scikit-learn and against counting by hand."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.metrics import accuracy_score, confusion_matrix, f1_score

from shelver import registry
from shelver.catalog.ingest import ingest
from shelver.catalog.split import Part
from shelver.catalog.store import Catalog
from shelver.decide import Predictions
from shelver.errors import CatalogError, InputError, ModelError
from shelver.evaluate import Example, Figures, Report, evaluate, read_report, thumbnails, write_report
from shelver.evaluate.examples import Best
from shelver.evaluate.figures import bins, confusions, curve
from shelver.pipeline import Classifier
from shelver.product import Product
from shelver.taxonomy import Taxonomy

ROW = set(Figures.model_fields)


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
    assert report.n == len(test_products)
    assert report.accuracy == pytest.approx(accuracy_score(truth, predicted), abs=1e-6)
    assert report.macro_f1 == pytest.approx(f1_score(truth, predicted, average="macro"), abs=1e-6)
    assert report.weighted_f1 == pytest.approx(f1_score(truth, predicted, average="weighted"), abs=1e-6)
    in_top3 = [t in [a.node_id for a in answer.alternatives[:3]] for t, answer in zip(truth, said, strict=True)]
    assert report.top3_accuracy == pytest.approx(np.mean(in_top3), abs=1e-6)
    assert report.coverage == 1.0
    assert report.products_per_s > 0


def test_a_report_has_the_same_figures_for_every_part_and_the_parts_add_up(
    report: Report, test_products: list[Product]
) -> None:
    written = json.loads(json.dumps(report.model_dump(mode="json"), allow_nan=False))
    assert written.keys() >= ROW | {"products_per_s", "by_level", "by_modality", "by_frequency", "by_source"}
    for part in ("by_modality", "by_frequency", "by_source"):
        assert sum(row["n"] for row in written[part].values()) == report.n
    for part in ("by_level", "by_modality", "by_frequency", "by_source", "asked"):
        for name, row in written[part].items():
            assert row.keys() == ROW, (part, name)
    assert list(report.by_level) == ["1", "2", "3"]
    assert report.by_level["1"].n == report.n
    assert (report.by_level["1"].accuracy or 0) >= (report.accuracy or 0)
    has_both = [p for p in test_products if p.title and p.images]
    # The one damaged picture stands in the test split: its product came with text alone.
    assert {row.n for row in report.asked.values()} == {report.by_modality["both"].n}
    assert report.by_modality["both"].n in (len(has_both), len(has_both) - 1)
    assert report.asked["both"] == report.by_modality["both"]
    assert set(report.by_source) == {"web", "app"}
    assert report.by_language == {}


def test_the_curves_of_a_report_fit_its_figures(report: Report) -> None:
    for bins_of, curve_of, row in (
        (report.reliability.all, report.selective.all, report.figures),
        *((report.reliability.asked[m], report.selective.asked[m], report.asked[m]) for m in report.asked),
        *(
            (report.reliability.by_modality[m], report.selective.by_modality[m], report.by_modality[m])
            for m in report.by_modality
        ),
    ):
        assert sum(bins_of.n) == row.n
        assert np.average(bins_of.accuracy, weights=bins_of.n) == pytest.approx(row.accuracy, abs=1e-5)
        assert curve_of.coverage[-1] == row.coverage == 1
        assert curve_of.accuracy[-1] == pytest.approx(row.accuracy, abs=1e-5)
        assert list(curve_of.threshold) == sorted(curve_of.threshold, reverse=True)
    assert set(report.reliability.asked) == {"text", "image", "both"}
    found = report.confusions
    assert sum(map(sum, found.matrix)) + sum(found.other) + sum(found.unanswered) == report.n
    assert sum(found.matrix[i][i] for i in range(len(found.paths))) == round(report.n * (report.accuracy or 0))


def said_of(tree: Taxonomy, node: list[int], confidence: list[float], answered: list[bool]) -> Predictions:
    n = len(node)
    return Predictions(
        taxonomy=tree,
        answered=np.array(answered),
        node=np.array(node, np.int32),
        confidence=np.where(answered, confidence, np.nan).astype(np.float32),
        level_confidence=np.ones((n, tree.n_levels), np.float32),
        top_node=np.array(node, np.int32)[:, None],
        top_confidence=np.array(confidence, np.float32)[:, None],
        modality=np.array(answered, np.int8),
        errors=(None,) * n,
        picture_errors=(None,) * n,
    )


@pytest.mark.parametrize("seed", range(5))
def test_accuracy_over_coverage_is_what_counting_at_each_threshold_gives(seven: Taxonomy, seed: int) -> None:
    rng = np.random.default_rng(seed)
    n = int(rng.integers(1, 300))
    confidence = rng.integers(1, 5 if seed % 2 else 10_000, n) / 10_000  # few values: many ties
    answered = rng.random(n) < 0.8
    truth, node = rng.integers(0, 7, n).astype(np.int32), rng.integers(0, 7, n)
    said = said_of(seven, node.tolist(), confidence.tolist(), answered.tolist())
    found = curve(truth, said)
    assert len(found.threshold) == len(found.coverage) == len(found.accuracy) <= 50
    for threshold, coverage, accuracy in zip(found.threshold, found.coverage, found.accuracy, strict=True):
        sure = answered & (confidence >= threshold - 1e-6)
        assert coverage == pytest.approx(sure.sum() / n, abs=1e-5)
        assert accuracy == pytest.approx((truth == node)[sure].mean(), abs=1e-5)
    if answered.any():
        assert found.coverage[-1] == pytest.approx(answered.mean(), abs=1e-5)
    assert sum(bins(truth, said).n) == answered.sum()


def test_nothing_answered_gives_empty_curves_and_confusions(seven: Taxonomy) -> None:
    said = said_of(seven, [0, 0], [0.5, 0.5], [False, False])
    truth = np.array([3, 4], np.int32)
    assert curve(truth, said).threshold == bins(truth, said).n == ()
    found = confusions(seven, truth, said)
    assert found.pairs == ()
    assert found.unanswered == (1, 1)


def test_confusions_are_those_of_scikit_learn(seven: Taxonomy) -> None:
    rng = np.random.default_rng(2)
    truth = rng.choice([3, 4, 5, 6], 200, p=[0.5, 0.3, 0.15, 0.05]).astype(np.int32)
    node = np.where(rng.random(200) < 0.6, truth, rng.integers(0, 7, 200))
    answered = rng.random(200) < 0.9
    said = said_of(seven, node.tolist(), [0.5] * 200, answered.tolist())
    found = confusions(seven, truth, said)
    order = [seven.paths.index(path) for path in found.paths]
    assert order == sorted(order, key=lambda k: -int((truth == k).sum()))
    expected = confusion_matrix(truth[answered], node[answered], labels=order)
    assert np.array_equal(np.array(found.matrix), expected)
    assert found.unanswered == tuple(int((~answered & (truth == k)).sum()) for k in order)
    whole = confusion_matrix(truth[answered], node[answered], labels=range(7))
    np.fill_diagonal(whole, 0)
    assert [pair.n for pair in found.pairs] == sorted(whole[whole > 0].tolist(), reverse=True)[:20]
    for pair in found.pairs:
        true, predicted = (seven.paths.index(path) for path in (pair.true_path, pair.predicted_path))
        assert whole[true, predicted] == pair.n
        assert pair.share == pytest.approx(pair.n / (truth == true).sum(), abs=1e-5)


@pytest.mark.parametrize("seed", range(20))
def test_the_kept_few_are_the_best_of_each_key_among_all(seed: int) -> None:
    rng = np.random.default_rng(seed)
    best, offered = Best(4), []
    for i in range(150):
        key, score = int(rng.integers(9)), int(rng.integers(40)) / 40
        offered.append((score, -i, key))
        if best.wants(score):
            best.offer(
                key,
                score,
                Example(
                    product_id=str(i),
                    title=None,
                    true_path=str(key),
                    predicted_path="",
                    confidence=score,
                    modality="text",
                ),
            )
    of_key = {key: max(one for one in offered if one[2] == key) for _, _, key in offered}
    expected = sorted(of_key.values(), reverse=True)[:4]
    assert [one.confidence for one in best.best_first()] == [score for score, _, _ in expected]
    assert len({one.true_path for one in best.best_first()}) == 4


def test_examples_are_the_surest_and_the_least_sure_answers(
    report: Report, both_model: Path, test_products: list[Product]
) -> None:
    answers = dict(
        zip(
            [p.product_id for p in test_products],
            Classifier.open(both_model, threads=1)(test_products),
            strict=True,
        )
    )
    found = report.examples
    for one in (*found.right, *found.wrong, *found.unsure):
        assert one.predicted_path == answers[one.product_id].path
        assert one.confidence == pytest.approx(answers[one.product_id].confidence, abs=1e-5)
        assert one.modality == answers[one.product_id].modality
    assert all(one.true_path == one.predicted_path for one in found.right)
    assert all(one.true_path != one.predicted_path for one in found.wrong)
    confidences = [answer.confidence for answer in answers.values() if answer.confidence is not None]
    assert found.unsure[0].confidence == pytest.approx(min(confidences), abs=1e-5)
    assert len({one.true_path for one in found.right}) == len(found.right)
    assert found.product_ids == {one.product_id for one in (*found.right, *found.wrong, *found.unsure)}


def test_thumbnails_are_small_pictures_of_the_products_that_have_one(
    tiny_catalog: Catalog, test_products: list[Product]
) -> None:
    found = thumbnails(tiny_catalog, "test", [p.product_id for p in test_products])
    assert set(found) == {p.product_id for p in test_products if p.images} - {"p149"}  # its picture is damaged
    for data in found.values():
        with Image.open(io.BytesIO(data)) as small:
            assert small.format == "JPEG"
            assert max(small.size) <= 96
    assert thumbnails(tiny_catalog, "test", []) == {}
    assert thumbnails(tiny_catalog, "train", [test_products[0].product_id]) == {}


def test_unanswered_products_count_against_everything_but_false_alarms(
    text_model: Path, tiny_catalog: Catalog, test_products: list[Product]
) -> None:
    scores = evaluate(text_model, tiny_catalog, say=quiet, threads=1)
    silent = sum(p.title is None for p in test_products)
    assert silent > 0
    assert scores.n == len(test_products)
    assert scores.coverage == pytest.approx(1 - silent / len(test_products), abs=1e-6)
    assert sum(scores.n_errors.values()) == silent
    assert (scores.accuracy or 0) <= (scores.coverage or 0)
    assert scores.selective.all.coverage[-1] == scores.coverage
    assert scores.asked == {}


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
    assert (scores.n, scores.n_unlabelled) == (3, 1)
    assert {name: row.n for name, row in scores.by_language.items()} == {"en": 2, "fr": 1}


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
    assert evaluate(text_model, catalog_of(tmp_path, rows), say=quiet, threads=1).n == 1
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


def test_a_report_is_written_whole_and_over_an_older_one_and_read_back(report: Report, tmp_path: Path) -> None:
    for name in ("first", "é \ud800"):
        path = write_report(report.model_copy(update={"model": name}), tmp_path / "deep" / "report")
    assert [file.name for file in path.parent.iterdir()] == ["report.json"]
    assert json.loads(path.read_text(encoding="utf-8"))["model"] == "é ?"
    write_report(report, path.parent)
    assert read_report(path) == report


@pytest.mark.parametrize("content", ["", "{}", "[1]", '{"format_version": 1}', None])
def test_what_is_no_report_is_refused_with_a_remedy(content: str | None, tmp_path: Path) -> None:
    path = tmp_path / "report.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(InputError, match="is no report"):
        read_report(path)
