"""Reports, against scikit-learn and against counting by hand."""

from __future__ import annotations

import io
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.metrics import accuracy_score, brier_score_loss, confusion_matrix, f1_score

from shelver import metrics, registry
from shelver.catalog.ingest import ingest
from shelver.catalog.split import Part
from shelver.catalog.store import Catalog
from shelver.decide import Policy, Predictions, Promise, write_policies
from shelver.errors import CatalogError, InputError, ModelError
from shelver.evaluate import Example, Figures, Report, evaluate, read_report, thumbnails, write_report
from shelver.evaluate.examples import Best, examples_of_rows
from shelver.evaluate.figures import bins, curve, honesty_at
from shelver.evaluate.mistakes import branches, confusions, siblings
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
        outcome=np.array(answered, np.int8),
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
    assert found.by == "frequency"
    assert found.stake == pytest.approx([(truth == k).mean() for k in order])
    assert found.unanswered == tuple(int((~answered & (truth == k)).sum()) for k in order)
    whole = confusion_matrix(truth[answered], node[answered], labels=range(7))
    np.fill_diagonal(whole, 0)
    assert [pair.n for pair in found.pairs] == sorted(whole[whole > 0].tolist(), reverse=True)[:20]
    for pair in found.pairs:
        true, predicted = (seven.paths.index(path) for path in (pair.true_path, pair.predicted_path))
        assert whole[true, predicted] == pair.n
        assert pair.share == pytest.approx(pair.n / (truth == true).sum(), abs=1e-5)


def test_the_most_valuable_categories_come_first_in_the_confusions(seven: Taxonomy) -> None:
    truth = np.array([3, 3, 3, 4, 5, 5], np.int32)
    said = said_of(seven, [3, 3, 4, 4, 5, 3], [0.5] * 6, [True] * 6)
    worth = np.array([0, 0, 0, 0, 10, 1.0, 7])[truth]
    found = confusions(seven, truth, said, worth)
    assert found.by == "value"
    assert found.paths == tuple(seven.paths[k] for k in (4, 5, 3))
    assert found.stake == pytest.approx([10 / 12, 2 / 12, 0], abs=1e-6)
    assert found.matrix == ((1, 0, 0), (0, 1, 1), (1, 0, 2))


@pytest.mark.parametrize("seed", range(8))
def test_branches_are_what_counting_product_by_product_gives(seven: Taxonomy, seed: int) -> None:
    rng = np.random.default_rng(seed)
    n = int(rng.integers(1, 80))
    truth = rng.choice([1, 3, 4, 5, 6], n).astype(np.int32)
    node = np.where(rng.random(n) < 0.5, truth, rng.integers(0, 7, n))
    answered, worth = rng.random(n) < 0.8, rng.random(n)
    said = said_of(seven, node.tolist(), rng.random(n).tolist(), answered.tolist())
    found = branches(seven, truth, said, worth)
    right = answered & (truth == node)
    lost = worth[~right].sum() or 1
    named = {branch.name: (branch, rows) for branch, rows in zip(found.branches, found.wrong, strict=True)}
    assert set(named) == {seven.names[a] for k in truth.tolist() for a in [*seven.ancestors(k).tolist(), k]}
    for name, (branch, rows) in named.items():
        k = seven.names.index(name)
        under = [k, *seven.descendants(k).tolist()]
        here = np.isin(truth, under)
        assert branch.n == here.sum()
        assert branch.accuracy == pytest.approx(right[here].mean(), abs=1e-5)
        assert branch.inside == pytest.approx((answered & np.isin(node, under))[here].mean(), abs=1e-5)
        assert branch.stake == pytest.approx(worth[here].sum() / worth.sum(), abs=1e-5)
        assert branch.lost == pytest.approx(worth[here & ~right].sum() / lost, abs=1e-5)
        above = None if branch.parent is None else found.branches[branch.parent].name
        assert above == (None if seven.parent[k] < 0 else seven.names[seven.parent[k]])
        wrong = [i for i in range(n) if answered[i] and truth[i] == k != node[i]]
        assert rows.tolist() == sorted(wrong, key=lambda i: -said.confidence[i])[:2]


def test_of_too_many_branches_those_that_lose_the_most_are_kept_with_all_above_them() -> None:
    rng = np.random.default_rng(0)
    parents = [None if i < 10 else int(rng.integers(max(0, i - 60), i)) for i in range(1500)]
    tree = Taxonomy.from_parents([str(i) for i in range(1500)], ["n"] * 1500, parents)
    truth = rng.integers(0, 1500, 4000).astype(np.int32)
    node = np.where(rng.random(4000) < 0.6, truth, rng.integers(0, 1500, 4000))
    said = said_of(tree, node.tolist(), rng.random(4000).tolist(), [True] * 4000)
    worth = rng.pareto(1.1, 4000)
    found = branches(tree, truth, said, worth)
    assert len(found.branches) == 300
    assert sum(map(len, found.wrong)) <= 150
    for branch in found.branches:
        if branch.parent is not None:
            assert found.branches[branch.parent].lost >= branch.lost
    lost = np.zeros(1500)
    for level in range(1, tree.n_levels + 1):
        at = tree.ancestors_at(truth, level)
        np.add.at(lost, at[at >= 0], (worth * (truth != node))[at >= 0])
    least = sorted(lost / (worth * (truth != node)).sum(), reverse=True)[299]
    assert min(branch.lost for branch in found.branches) == pytest.approx(least, abs=1e-5)


def test_siblings_that_are_taken_for_each_other_come_by_what_they_lose(seven: Taxonomy) -> None:
    # Bar 5 and Deck 6 are siblings, so are Lamps 3 and Chairs 2, and Home 0 and Toys 1.
    truth = np.array([5, 5, 5, 6, 3, 3, 6, 5, 1], np.int32)
    node = [6, 6, 6, 5, 2, 4, 6, 5, 0]
    said = said_of(seven, node, [0.5, 0.9, 0.7, 0.6, 0.4, 0.99, 0.8, 0.3, 0.2], [True] * 9)
    worth = np.array([1, 1, 1, 1, 10, 10, 1, 1, 2.0])
    found = siblings(seven, truth, said, worth)
    pairs = [(one.true_path, one.predicted_path, one.n) for one in found.mistakes]
    path = seven.paths
    assert pairs == [(path[3], path[2], 1), (path[5], path[6], 3), (path[1], path[0], 1), (path[6], path[5], 1)]
    assert found.mistakes[0].lost == pytest.approx(10 / 26, abs=1e-6)
    assert found.mistakes[1].share == pytest.approx(3 / 4)
    assert found.wrong[1].tolist() == [1, 2, 0]
    assert found.alike[1].tolist() == [6]
    assert found.alike[0].tolist() == []
    alone = siblings(seven, truth, said)
    assert alone.mistakes[0].n == 3
    assert siblings(seven, truth, said_of(seven, truth.tolist(), [0.5] * 9, [True] * 9)).mistakes == ()


def test_examples_read_again_are_the_products_of_those_rows(both_model: Path, tiny_catalog: Catalog) -> None:
    products = [p for batch in tiny_catalog.products("train") for p in batch if p.node_id is not None]
    said = Classifier.open(both_model, threads=1)(products)
    truth = tiny_catalog.taxonomy.indices(p.node_id for p in products if p.node_id is not None)
    found = examples_of_rows(tiny_catalog, "train", {3, 0, len(products) - 1}, truth, said)
    assert set(found) == {0, 3, len(products) - 1}
    for row, one in found.items():
        assert one.product_id == products[row].product_id
        assert one.title == products[row].title
        assert one.predicted_path == said[row].path
    assert examples_of_rows(tiny_catalog, "train", set(), truth, said) == {}


def test_selective_figures_count_abstentions(report: Report, text_model: Path, tiny_catalog: Catalog) -> None:
    silent = evaluate(text_model, tiny_catalog, say=quiet, threads=1)
    for scores in (report, silent):
        assert scores.aurc is not None
        assert scores.coverage_at_90 is not None
        assert scores.hierarchical_coverage is not None
        assert 0 <= (scores.e_aurc or 0) <= scores.aurc <= 1
        assert (scores.coverage_at_99 or 0) <= (scores.coverage_at_95 or 0) <= scores.coverage_at_90
    assert (silent.coverage_at_90 or 0) <= (silent.coverage or 0) < 1
    assert (silent.hierarchical_coverage or 0) < 1
    assert report.hierarchical_coverage == 1.0
    assert silent.value_score is None
    assert silent.values is None


def test_brier_and_calibration_are_those_of_scikit_learn_over_what_the_classifier_says(
    report: Report, both_model: Path, test_products: list[Product], tiny_catalog: Catalog
) -> None:
    classifier = Classifier.open(both_model, threads=1)
    tree = classifier.taxonomy
    said = classifier(test_products)
    right = [a.node_id == p.node_id for a, p in zip(said, test_products, strict=True)]
    assert report.brier == pytest.approx(brier_score_loss(right, said.confidence), abs=1e-5)
    after = report.calibration.decided.after
    assert (after.n, after.ece, after.brier) == (report.n, report.ece, report.brier)
    assert after.reliability == report.reliability.all
    embedded = classifier.embed(test_products)
    probs = classifier.emb2prob(embedded.text, embedded.image).nodes
    truth = tree.indices(p.node_id for p in test_products if p.node_id is not None)
    assert list(report.calibration.by_level) == ["1", "2", "3"]
    for level in (1, 2, 3):
        both = report.calibration.by_level[str(level)]
        expected = metrics.level_brier(tree, probs, truth)[:, level - 1].mean()
        assert both.after.brier_all == pytest.approx(expected, abs=1e-5)
        assert both.after.ece == report.by_level[str(level)].ece
        assert both.before.n > 0
        assert both.before.brier_all is not None
        assert both.before.brier_all != both.after.brier_all
    assert list(report.selective_by_level) == ["1", "2", "3"]
    assert report.selective_by_level["1"].accuracy[-1] == report.by_level["1"].accuracy


def test_a_confidence_that_a_product_lies_at_a_level_also_counts_for_those_that_do_not(seven: Taxonomy) -> None:
    # Half of the products stand at Toys; all were said to be Cars, with .5: honest.
    truth = np.array([1, 4] * 50, np.int32)
    node, answered = np.full(100, 4, np.int32), np.ones(100, np.bool_)
    level_confidence = np.tile(np.array([1.0, 0.5, np.nan], np.float32), (100, 1))
    found = honesty_at(seven, truth, node, level_confidence, answered, 2)
    assert (found.n, found.ece, found.reliability.accuracy) == (100, 0.0, (0.5,))
    assert honesty_at(seven, truth, node, level_confidence, answered, 3).n == 0


def test_values_of_a_file_weigh_the_products(both_model: Path, tiny_catalog: Catalog, tmp_path: Path) -> None:
    tree = tiny_catalog.taxonomy
    path = tmp_path / "values.csv"
    value = {"Home > Chairs > Bar": 5, "Home > Chairs > Deck": 0, "Home > Lamps": 1, "Toys > Cars": 2, "Toys": 9}
    path.write_text("path,value\n" + "".join(f"{name},{v}\n" for name, v in value.items()))
    scores = evaluate(both_model, tiny_catalog, values=path, say=quiet, threads=1)
    products = [p for batch in tiny_catalog.products("test") for p in batch]
    said = Classifier.open(both_model, threads=1)(products)
    worth = [value[tree.paths[tree.index(p.node_id)]] for p in products if p.node_id is not None]
    right = [a.node_id == p.node_id for a, p in zip(said, products, strict=True)]
    expected = accuracy_score([True] * len(right), right, sample_weight=worth)
    assert scores.value_score == pytest.approx(expected, abs=1e-6)
    assert (scores.value_score_partial or 0) >= expected - 1e-6
    assert scores.by_level["1"].value_score is not None
    assert scores.values == "file"
    assert scores.confusions.by == "value"
    assert scores.confusions.paths[0] == "Toys"


def test_without_a_file_the_catalogs_own_values_count(text_model: Path, tmp_path: Path) -> None:
    feed = tmp_path / "feed.csv"
    feed.write_text(
        "product_id,title,category,split,value\n1,bar stool,Home > Chairs > Bar,test,3\n"
        "2,qqq,Home > Lamps,test,1\n3,deck chair,Home > Chairs > Deck,train,50\n"
    )
    ingest(feed, tmp_path / "catalog")
    scores = evaluate(text_model, Catalog.open(tmp_path / "catalog"), say=quiet, threads=1)
    assert scores.values == "catalog"
    assert scores.confusions.stake == (0.75, 0.25)


def test_each_policy_of_the_model_folder_is_a_point(
    both_model: Path, tiny_catalog: Catalog, tmp_path: Path, test_products: list[Product]
) -> None:
    model = tmp_path / "model"
    shutil.copytree(both_model, model)
    promise = Promise(
        precision=0.9,
        model_version="x",
        catalog_version="y",
        split="validation",
        n_products=1,
        n_decided=1,
        n_right=1,
        coverage=1,
    )
    policies = {
        "sure": Policy(thresholds=(0.7,), unsure="review", promise=promise),
        "shallow": Policy(decoder="climb", max_level=1),
        "never": Policy(thresholds=(1.0,), unsure="abstain"),
    }
    write_policies(model / "policies.json", policies)
    points = evaluate(model, tiny_catalog, say=quiet, threads=1).policies
    assert list(points) == ["default", *policies]
    classifier = Classifier.open(model, threads=1)
    tree = classifier.taxonomy
    truth = tree.indices(p.node_id for p in test_products if p.node_id is not None)
    for name, policy in policies.items():
        said = classifier(test_products, policy=policy)
        decided = np.array([answer.node_id is not None for answer in said])
        right = [
            answer.path is not None and f"{tree.paths[true]} > ".startswith(f"{answer.path} > ")
            for answer, true in zip(said, truth.tolist(), strict=True)
        ]
        assert points[name].coverage == pytest.approx(decided.mean(), abs=1e-6)
        expected = np.mean(np.array(right)[decided]) if decided.any() else None
        assert points[name].precision == (None if expected is None else pytest.approx(expected, abs=1e-6))
        assert sum(points[name].outcomes.values()) == len(test_products)
    assert points["sure"].promised == 0.9
    assert points["shallow"].hierarchical_coverage < points["default"].hierarchical_coverage == 1.0
    assert points["shallow"].accuracy < points["shallow"].coverage


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


def test_products_that_all_end_above_the_deepest_level_are_evaluated(text_model: Path, tmp_path: Path) -> None:
    catalog = catalog_of(tmp_path, ["1,reading lamp,Home > Lamps,test,en", "2,desk lamp,Home > Lamps,test,en"])
    scores = evaluate(text_model, catalog, say=quiet, threads=1)
    assert {level: row.n for level, row in scores.by_level.items()} == {"1": 2, "2": 2, "3": 0}
    assert set(scores.selective_by_level) == {"1", "2"}


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
