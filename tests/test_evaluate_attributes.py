"""Attributes and several right paths in reports: against scikit-learn, and against going product by product."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Callable, Sequence
from collections.abc import Mapping as Mapped
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from numpy.typing import NDArray
from sklearn.metrics import accuracy_score, brier_score_loss, f1_score
from sklearn.preprocessing import MultiLabelBinarizer

from shelver import metrics
from shelver.attributes import EMPTY, Attribute, Value, Vocabulary
from shelver.calibrate import Modality
from shelver.catalog.ingest import ingest
from shelver.catalog.mapping import Mapping
from shelver.catalog.store import SCHEMA, Catalog
from shelver.compare import compare
from shelver.decide import Policy, Predictions, Probabilities, Promise
from shelver.decide.attributes import Applying, AttributeColumn
from shelver.decide.policy import AttributeRule
from shelver.evaluate import AttributeReport, Report, evaluate, read_report, row, write_report
from shelver.evaluate.attributes import AttributeTally, Judged, concatenated, figures
from shelver.evaluate.figures import level_row
from shelver.evaluate.honesty import PolicyTally
from shelver.evaluate.several import Also
from shelver.images import ImageSpec
from shelver.pipeline import Classifier, Prob2Pred
from shelver.product import Product
from shelver.report import publish
from shelver.taxonomy import SiblingGroups, Taxonomy

COLOURS = ("red", "green", "blue", "black")
SOURCES: tuple[Modality, ...] = ("text", "image", "both")


def quiet(line: str) -> None:
    pass


def predictions(
    tree: Taxonomy, n: int, attributes: Mapped[str, AttributeColumn], modality: int | NDArray[np.int8] = 3
) -> Predictions:
    """N products on the first leaf, whatever their attributes."""
    return Predictions(
        taxonomy=tree,
        answered=np.ones(n, np.bool_),
        node=np.full(n, 3, np.int32),
        confidence=np.full(n, 0.5, np.float32),
        level_confidence=np.ones((n, tree.n_levels), np.float32),
        top_node=np.full((n, 1), 3, np.int32),
        top_confidence=np.full((n, 1), 0.5, np.float32),
        modality=np.full(n, modality, np.int8) if isinstance(modality, int) else modality,
        errors=(None,) * n,
        picture_errors=(None,) * n,
        outcome=np.ones(n, np.int8),
        attributes=attributes,
    )


def column_of(
    said: Sequence[tuple[str, ...]],
    values: tuple[str, ...],
    *,
    multi: bool,
    confidence: Sequence[float] | None = None,
    source: Sequence[int] | None = None,
) -> AttributeColumn:
    """The column of what is said of each product; confidence and source by product."""
    row = np.array([i for i, names in enumerate(said) for _ in names], np.int32)
    value = [values.index(name) for names in said for name in names]
    sure = np.full(len(said), 0.5) if confidence is None else np.asarray(confidence)
    of = np.full(len(said), 3) if source is None else np.asarray(source)
    return AttributeColumn(
        values, multi, row, np.array(value, np.int32), sure[row].astype(np.float32), of[row].astype(np.int8)
    )


def labelled(labels: Sequence[tuple[str, ...] | None], name: str = "colour") -> list[Product]:
    return [Product(str(i), attributes={} if one is None else {name: one}) for i, one in enumerate(labels)]


def report_of(
    tree: Taxonomy,
    labels: Sequence[tuple[str, ...] | None],
    column: AttributeColumn,
    *,
    vocabulary: Vocabulary = EMPTY,
    modality: int | NDArray[np.int8] = 3,
    size: int = 7,
) -> AttributeReport:
    """A report of "colour", the products taken in batches of `size`."""
    tally = AttributeTally(vocabulary)
    products = labelled(labels)
    of_all = np.full(len(labels), modality, np.int8) if isinstance(modality, int) else modality
    for start in range(0, len(products), size):
        batch = products[start : start + size]
        rows = (column.row >= start) & (column.row < start + len(batch))
        part = AttributeColumn(
            column.values,
            column.multi,
            column.row[rows] - np.int32(start),
            column.value[rows],
            column.confidence[rows],
            column.source[rows],
        )
        tally.add(batch, predictions(tree, len(batch), {"colour": part}, of_all[start : start + len(batch)]))
    return tally.reports()["colour"]


@pytest.mark.parametrize("seed", range(6))
def test_figures_of_one_value_a_product_are_those_of_scikit_learn(seven: Taxonomy, seed: int) -> None:
    rng = np.random.default_rng(seed)
    n = int(rng.integers(30, 300))
    truth = rng.choice([*COLOURS, "taupe"], n, p=[0.4, 0.3, 0.2, 0.05, 0.05])  # taupe was never learned
    said = np.where((rng.random(n) < 0.7) & (truth != "taupe"), truth, rng.choice(COLOURS, n))
    answered, known = rng.random(n) < 0.85, rng.random(n) < 0.8
    answered[0] = known[0] = True
    sure = rng.choice([0.25, 0.5, 0.75, 1.0], n)
    column = column_of(
        [(str(s),) if a else () for s, a in zip(said, answered, strict=True)],
        COLOURS,
        multi=False,
        confidence=sure.tolist(),
    )
    found = report_of(seven, [(str(t),) if k else None for t, k in zip(truth, known, strict=True)], column)

    t, s, a, c = truth[known], np.where(answered, said, "")[known], answered[known], sure[known]
    present = sorted({*t.tolist(), *s[a].tolist()})
    common = [value for value, count in Counter(t.tolist()).items() if count >= 20]

    def f1(average: str, labels: list[str]) -> float:
        return float(f1_score(t, s, average=average, labels=labels, zero_division=0))

    assert (found.n, found.n_values, found.n_learned) == (len(t), len(set(t.tolist())), 4)
    assert found.n_unlearned == (t == "taupe").sum()
    assert found.accuracy == pytest.approx(accuracy_score(t, s), abs=1e-6)
    assert found.coverage == pytest.approx(a.mean(), abs=1e-6)
    assert found.precision == pytest.approx((t == s)[a].mean(), abs=1e-6)
    assert found.macro_f1 == pytest.approx(f1("macro", present), abs=1e-6)
    assert found.macro_f1_common == (pytest.approx(f1("macro", common), abs=1e-6) if common else None)
    assert found.weighted_f1 == pytest.approx(f1("weighted", present), abs=1e-6)
    right = t == s
    assert found.brier == pytest.approx(brier_score_loss(right[a], c[a], pos_label=1), abs=1e-6)
    assert found.ece == pytest.approx(metrics.ece(c[a], right[a]), abs=1e-6)
    assert found.aurc == pytest.approx(metrics.aurc(c, right, answered=a), abs=1e-6)
    at_90 = max(
        ((a & (c >= least)).mean() for least in c if right[a & (c >= least)].mean() >= 0.9 and a.any()), default=0
    )
    assert found.coverage_at_90 == pytest.approx(at_90, abs=1e-6)
    assert sum(found.reliability.n) == a.sum()
    assert found.selective.coverage[-1] == pytest.approx(a.mean(), abs=1e-6)


@pytest.mark.parametrize("seed", range(6))
def test_figures_of_several_values_a_product_are_those_of_scikit_learn(seven: Taxonomy, seed: int) -> None:
    rng = np.random.default_rng(seed)
    n = 150
    truth = rng.random((n, 4)) < 0.35
    said = np.where(rng.random((n, 4)) < 0.8, truth, ~truth)

    def names(of: NDArray[np.bool_]) -> list[tuple[str, ...]]:
        return [tuple(value for value, there in zip(COLOURS, one, strict=True) if there) for one in of]

    found = report_of(seven, names(truth), column_of(names(said), COLOURS, multi=True))
    known = truth.any(axis=1)  # an empty list says nothing
    both = MultiLabelBinarizer(classes=COLOURS).fit([])
    t, s = both.transform(names(truth[known])), both.transform(names(said[known]))
    assert found.multi
    assert found.n == known.sum()
    assert found.accuracy == pytest.approx(accuracy_score(t, s), abs=1e-6)
    assert found.micro_f1 == pytest.approx(f1_score(t, s, average="micro"), abs=1e-6)
    assert found.macro_f1 == pytest.approx(f1_score(t, s, average="macro"), abs=1e-6)
    assert found.weighted_f1 == pytest.approx(f1_score(t, s, average="weighted"), abs=1e-6)
    assert found.precision == pytest.approx(t[s == 1].mean(), abs=1e-6)
    assert found.coverage == pytest.approx(s.any(axis=1).mean(), abs=1e-6)
    # Each value is a decision of its own: answered ones, and those that were missed.
    assert found.selective.coverage[-1] == pytest.approx(s.sum() / (s | t).sum(), abs=1e-6)
    assert sum(found.reliability.n) == s.sum()


def test_a_report_does_not_depend_on_how_the_products_were_cut_into_batches(seven: Taxonomy) -> None:
    rng = np.random.default_rng(3)
    labels = [(str(v),) if rng.random() < 0.7 else None for v in rng.choice([*COLOURS, "x", "y"], 60)]
    column = column_of(
        [(str(v),) if rng.random() < 0.8 else () for v in rng.choice(COLOURS, 60)],
        COLOURS,
        multi=False,
        confidence=rng.random(60).tolist(),
        source=rng.integers(1, 4, 60).tolist(),
    )
    whole = report_of(seven, labels, column, size=60)
    assert report_of(seven, labels, column, size=7) == report_of(seven, labels, column, size=1) == whole
    assert whole.n == sum(one is not None for one in labels)


def test_what_carried_the_answers_and_what_products_came_with_are_told(seven: Taxonomy) -> None:
    labels = [("red",), ("red",), ("green",), ("green",), ("blue",), None]
    said = [("red",), ("green",), ("green",), ("green",), (), ("red",)]
    column = column_of(said, COLOURS, multi=False, source=[1, 1, 2, 3, 3, 3])
    found = report_of(seven, labels, column, modality=np.array([1, 1, 2, 3, 3, 3], np.int8), size=6)
    assert {k: (v.n, v.share, v.precision) for k, v in found.by_source.items()} == {
        "text": (2, 0.5, 0.5),
        "image": (1, 0.25, 1.0),
        "both": (1, 0.25, 1.0),
    }
    assert {k: (v.n, v.accuracy) for k, v in found.by_modality.items()} == {
        "text": (2, 0.5),
        "image": (1, 1.0),
        "both": (2, 0.5),
    }
    assert found.asked == {}


def test_labels_kept_as_seen_and_labels_never_learned_are_counted(seven: Taxonomy) -> None:
    vocabulary = Vocabulary(
        attributes=(Attribute(name="colour", values=tuple(Value(name=name) for name in (*COLOURS, "gold"))),)
    )
    labels = [("red",), ("gold",), ("goldish",), ("goldish",), ("blue",)]
    column = column_of([("red",)] * 5, ("red", "blue"), multi=False)
    found = report_of(seven, labels, column, vocabulary=vocabulary)
    assert (found.n_unlearned, found.n_unknown) == (3, 2)
    assert report_of(seven, labels, column).n_unknown == 5  # a catalog without a vocabulary


def test_of_an_attribute_with_one_value_the_first_label_counts(seven: Taxonomy) -> None:
    column = column_of([("red",), ("blue",)], COLOURS, multi=False)
    found = report_of(seven, [("red", "blue"), ("red", "blue")], column)
    assert found.accuracy == 0.5
    assert found.n_values == 1


def test_the_commonest_confusions_come_first_with_their_share_of_the_truth(seven: Taxonomy) -> None:
    labels = [("red",)] * 5 + [("green",)] * 4 + [("blue",)]
    said = [
        ("red",),
        ("green",),
        ("green",),
        ("green",),
        ("black",),
        ("red",),
        ("green",),
        (),
        ("red",),
        ("blue",),
    ]
    found = report_of(seven, labels, column_of(said, COLOURS, multi=False))
    pairs = [(one.true_value, one.predicted_value, one.n, one.share) for one in found.confusions]
    assert pairs == [("red", "green", 3, 0.6), ("green", "red", 2, 0.5), ("red", "black", 1, 0.2)]
    several = report_of(
        seven,
        [("red", "green"), ("red", "green"), ("red",)],
        column_of([("red", "blue"), ("red", "green"), ("green",)], COLOURS, multi=True),
    )
    pairs = [(one.true_value, one.predicted_value, one.n, one.share) for one in several.confusions]
    assert sorted(pairs) == [("green", "blue", 1, 0.5), ("red", "green", 1, round(1 / 3, 6))]


def test_products_that_are_asked_three_ways_have_figures_for_each(seven: Taxonomy) -> None:
    tally = AttributeTally(EMPTY)
    products = labelled([("red",), ("green",), None, ("blue",)])
    natural = column_of([("red",), ("green",), ("red",), ("red",)], COLOURS, multi=False)
    tally.add(products, predictions(seven, 4, {"colour": natural}, np.array([3, 3, 3, 1], np.int8)))
    by_way = {"text": [("red",), ("red",), ()], "image": [(), ("green",), ()], "both": [("red",), ("green",), ()]}
    for way in SOURCES:
        column = column_of(by_way[way], COLOURS, multi=False)
        tally.add(products[:3], predictions(seven, 3, {"colour": column}), asked=way)
    found = tally.reports()["colour"]
    assert {way: one.n for way, one in found.asked.items()} == dict.fromkeys(SOURCES, 2)
    assert {way: one.accuracy for way, one in found.asked.items()} == {"text": 0.5, "image": 0.5, "both": 1.0}
    assert {way: one.coverage for way, one in found.asked.items()} == {"text": 1.0, "image": 0.5, "both": 1.0}
    assert set(found.selective_asked) == set(SOURCES)
    assert found.n == 3
    assert found.accuracy == pytest.approx(2 / 3, abs=1e-6)


def test_a_policy_is_judged_by_the_attributes_that_it_has_a_rule_for(seven: Taxonomy) -> None:
    attributes = (
        Attribute(name="colour", values=tuple(Value(name=name) for name in COLOURS)),
        Attribute(name="cut", values=(Value(name="slim"),), nodes=("Toys",)),
        Attribute(name="use", values=(Value(name="home"), Value(name="sport"))),
    )
    vocabulary = Vocabulary(attributes=attributes)
    groups = SiblingGroups.of(seven, np.zeros(7, np.bool_))
    prob2pred = Prob2Pred(seven, groups, Applying.of(vocabulary, seven))
    promise = Promise(
        precision=0.9,
        delta=0.05,
        model_version="m",
        catalog_version="c",
        split="validation",
        n_products=9,
        n_decided=9,
        n_right=9,
        coverage=1.0,
    )
    careful = Policy(
        attributes={
            "colour": AttributeRule(threshold=0.6, promise=promise),
            "cut": AttributeRule(threshold=0.1),
            "use": AttributeRule(answer=False),
        }
    )
    tally = PolicyTally({"careful": careful, "plain": Policy()}, vocabulary)
    nodes = np.zeros((4, 7), np.float32)
    nodes[:, [0, 3]] = 1  # lamps, of which no cut is told
    sure = np.array([0.9, 0.7, 0.65, 0.4], np.float32)
    colours = np.repeat((1 - sure)[:, None] / 3, 4, axis=1)
    colours[:, 1] = sure  # all green
    probs = Probabilities(
        nodes,
        np.full(4, 1, np.int8),
        attributes={
            "colour": colours.astype(np.float32),
            "cut": np.ones((4, 1), np.float32),
            "use": np.full((4, 2), 0.5, np.float32),
        },
    )
    products = [
        Product(str(i), attributes={"colour": (colour,), "cut": ("slim",), "use": ("home",)})
        for i, colour in enumerate(("green", "red", "green", "green"))
    ]
    tally.add(prob2pred, products[:1], _rows(probs, slice(0, 1)))
    tally.add(prob2pred, products[1:], _rows(probs, slice(1, 4)))
    points = tally.points(seven, np.full(4, 3, np.int32), None)
    assert points["plain"].attributes == {}
    assert {name: tuple(one.model_dump().values()) for name, one in points["careful"].attributes.items()} == {
        "colour": (0.9, 0.75, 0.666667),  # promised, coverage, precision
        "cut": (None, 0.0, None),
    }
    assert points["careful"].precision == 1.0


def _rows(probs: Probabilities, rows: slice) -> Probabilities:
    some = {name: one[rows] for name, one in probs.attributes.items()}
    return Probabilities(probs.nodes[rows], probs.modality[rows], attributes=some)


def test_an_attribute_without_a_label_has_no_figures_but_is_named(seven: Taxonomy) -> None:
    found = report_of(seven, [None, None], column_of([("red",), ()], COLOURS, multi=False))
    assert (found.n, found.n_learned) == (0, 4)
    assert found.accuracy is found.ece is found.macro_f1 is None


def test_where_no_product_is_answered_all_are_wrong(seven: Taxonomy) -> None:
    found = report_of(seven, [("red",), ("blue",)], column_of([(), ()], COLOURS, multi=False))
    assert (found.accuracy, found.coverage, found.macro_f1, found.aurc) == (0, 0, 0, 1)
    assert found.precision is found.ece is None
    assert found.selective.coverage == found.reliability.n == ()


def test_some_of_the_products_have_the_figures_of_those_alone() -> None:
    rng = np.random.default_rng(0)
    n = 40
    labels = metrics.Pairs(np.arange(n), rng.integers(0, 4, n))
    rows = np.flatnonzero(rng.random(n) < 0.8)
    answers = metrics.Pairs(rows, rng.integers(0, 4, len(rows)))
    sure = rng.random(len(rows)).astype(np.float32)
    source = rng.integers(1, 4, len(rows)).astype(np.int8)
    whole = Judged(n, False, labels, answers, sure, source, np.full(n, 3, np.int8))
    some = rng.random(n) < 0.5
    part, rest = whole.of(some), whole.of(~some)
    assert part.n + rest.n == n
    assert np.array_equal(part.exactly_right(), whole.exactly_right()[some])
    again = concatenated([part, rest])
    assert figures(again) == figures(whole)


# Several right paths


def test_other_right_nodes_are_padded_and_unknown_ones_passed_over(seven: Taxonomy) -> None:
    also = Also({name: k for k, name in enumerate(seven.ids)})
    also.add([Product("1", node_id="Bar", also_node_ids=("Bar",)), Product("2", node_id="Deck")])
    assert also.nodes() is None
    more = [
        Product("3", node_id="Bar", also_node_ids=("Deck", "Sofa", "Lamps")),
        Product("4", node_id="Cars"),
        Product("5", node_id="Cars", also_node_ids=("Toys",)),
    ]
    also.add(more)
    found = also.nodes()
    assert found is not None
    assert found.tolist() == [[-1, -1], [-1, -1], [6, 3], [-1, -1], [1, -1]]


def said_of(
    tree: Taxonomy, node: NDArray[np.int32], answered: NDArray[np.bool_], top: NDArray[np.int32]
) -> Predictions:
    n = len(node)
    return Predictions(
        taxonomy=tree,
        answered=answered,
        node=node,
        confidence=np.random.default_rng(0).random(n, dtype=np.float32),
        level_confidence=np.full((n, tree.n_levels), 0.5, np.float32),
        top_node=top,
        top_confidence=np.full(top.shape, 0.3, np.float32),
        modality=np.ones(n, np.int8),
        errors=(None,) * n,
        picture_errors=(None,) * n,
        outcome=answered.astype(np.int8),
    )


@pytest.mark.parametrize("seed", range(8))
def test_lenient_figures_are_those_of_the_nearest_right_path(seven: Taxonomy, seed: int) -> None:
    rng = np.random.default_rng(seed)
    n = 80
    truth, node = rng.integers(0, 7, (2, n)).astype(np.int32)
    also = rng.integers(-1, 7, (n, 2)).astype(np.int32)
    top = np.array([rng.permutation(7)[:3] for _ in range(n)], np.int32)
    top[:, 0] = node
    answered, worth = rng.random(n) < 0.9, rng.random(n)
    said = said_of(seven, node, answered, top)
    strict, lenient = row(seven, truth, said, worth), row(seven, truth, said, worth, also=also)

    def share(a: int, b: int) -> float:
        left, right = ({*seven.ancestors(k).tolist(), k} for k in (a, b))
        return len(left & right) / max(len(left), len(right))

    paths = [[t, *(o for o in others if o >= 0)] for t, others in zip(truth.tolist(), also.tolist(), strict=True)]
    hits = [bool(a) and p in right for p, a, right in zip(node.tolist(), answered, paths, strict=True)]
    shares = [
        max(share(p, k) for k in right) if a else 0.0
        for p, a, right in zip(node.tolist(), answered, paths, strict=True)
    ]
    in_top = [bool(a) and bool({*t} & {*right}) for t, a, right in zip(top.tolist(), answered, paths, strict=True)]
    assert lenient.accuracy == pytest.approx(np.mean(hits), abs=1e-6)
    assert lenient.relative_lca == pytest.approx(np.mean(shares), abs=1e-6)
    assert lenient.top3_accuracy == pytest.approx(np.mean(in_top), abs=1e-6)
    assert lenient.value_score == pytest.approx(worth @ np.array(hits) / worth.sum(), abs=1e-6)
    assert lenient.value_score_partial == pytest.approx(worth @ np.array(shares) / worth.sum(), abs=1e-6)
    nearest = [
        max(right, key=lambda k, p=p: share(p, k)) if a else right[0]  # type: ignore[misc]
        for p, a, right in zip(node.tolist(), answered, paths, strict=True)
    ]
    guess = np.where(answered, node, -1)
    present = sorted({*nearest, *node[answered].tolist()})
    for average, figure in (("macro", lenient.macro_f1), ("weighted", lenient.weighted_f1)):
        expected = f1_score(nearest, guess, labels=present, average=average, zero_division=0)
        assert figure == pytest.approx(expected, abs=1e-6)
    assert (lenient.accuracy or 0) >= (strict.accuracy or 0)
    assert (lenient.coverage, lenient.n) == (strict.coverage, strict.n)


def test_at_a_level_any_right_path_that_agrees_there_is_right(seven: Taxonomy) -> None:
    # Bar is said of a lamp that may be a deck chair too, and of a car that is nothing else.
    truth, node = np.array([3, 4], np.int32), np.array([5, 5], np.int32)
    also = np.array([[6], [-1]], np.int32)
    said = said_of(seven, node, np.ones(2, np.bool_), node[:, None])
    accuracies = []
    for level in (1, 2, 3):
        top = seven.ancestors_at(node, level)[:, None].astype(np.int32)
        strict = level_row(seven, truth, said, level, top=top)
        lenient = level_row(seven, truth, said, level, top=top, also=also)
        accuracies.append((strict.accuracy, lenient.accuracy, lenient.n))
    assert accuracies == [(0.5, 0.5, 2), (0.0, 0.5, 2), (None, 0.0, 1)]


def with_columns(catalog: Catalog, folder: Path, **columns: Mapped[str, object]) -> Catalog:
    """A copy of a catalog whose test products have other values in some columns, by product id."""
    shutil.copytree(catalog.folder, folder)
    for shard in catalog.info.shards:
        if shard.split != "test":
            continue
        table = pq.read_table(folder / shard.file)
        ids = table["product_id"].to_pylist()
        for name, values in columns.items():
            if name in table.column_names:
                table = table.drop_columns([name])
            table = table.append_column(
                SCHEMA.field(name), pa.array([values.get(one) for one in ids], SCHEMA.field(name).type)
            )
        pq.write_table(table.select(SCHEMA.names), folder / shard.file)
    return Catalog(folder, catalog.info)


@pytest.fixture(scope="module")
def plain(text_model: Path, tiny_catalog: Catalog) -> Report:
    return evaluate(text_model, tiny_catalog, say=quiet, threads=1)


def test_a_report_tells_strict_from_lenient_only_where_a_product_has_several_right_paths(
    plain: Report, text_model: Path, tiny_catalog: Catalog, tmp_path: Path
) -> None:
    assert plain.lenient is None
    assert plain.attributes == {}
    tree = tiny_catalog.taxonomy
    products = [p for batch in tiny_catalog.products("test") for p in batch]
    # What was said of it, or all others: then not one answer is wrong.
    every = [tree.ids[k] for k in range(tree.n_nodes)]
    catalog = with_columns(
        tiny_catalog, tmp_path / "several", also_node_ids={p.product_id: every for p in products[:4]}
    )
    found = evaluate(text_model, catalog, say=quiet, threads=1)
    assert found.lenient is not None
    assert found.lenient.n_several == 4
    assert found.figures == plain.figures
    assert found.by_level == plain.by_level
    answered = [p.title is not None for p in products]
    right = round((plain.accuracy or 0) * plain.n)
    assert (found.lenient.figures.accuracy or 0) * plain.n >= right
    whole = with_columns(tiny_catalog, tmp_path / "all", also_node_ids={p.product_id: every for p in products})
    lenient = evaluate(text_model, whole, say=quiet, threads=1).lenient
    assert lenient is not None
    assert lenient.figures.accuracy == pytest.approx(np.mean(answered), abs=1e-6)
    assert all(
        one.accuracy in (None, pytest.approx(np.mean(answered), abs=0.1)) for one in lenient.by_level.values()
    )
    path = write_report(found, tmp_path / "report")
    assert read_report(path) == found


def test_labels_of_attributes_do_not_change_the_report_of_a_model_that_answers_none(
    plain: Report, text_model: Path, tiny_catalog: Catalog, tmp_path: Path
) -> None:
    products = [p for batch in tiny_catalog.products("test") for p in batch]
    catalog = with_columns(
        tiny_catalog,
        tmp_path / "labelled",
        attributes={p.product_id: [("colour", ["red"])] for p in products},
    )
    assert next(catalog.products("test"))[0].attributes == {"colour": ("red",)}
    found = evaluate(text_model, catalog, say=quiet, threads=1)
    same = {"products_per_s": plain.products_per_s, "catalog": plain.catalog}
    assert found.model_copy(update=same) == plain


# A model that learned attributes


@pytest.fixture(scope="module")
def coloured(
    tmp_path_factory: pytest.TempPathFactory, draw: Callable[[tuple[int, int, int], int], bytes]
) -> Catalog:
    """Products whose colour the picture shows and the title sometimes names; some have no category."""
    words = {"red": (200, 20, 20), "green": (20, 200, 20), "blue": (20, 20, 200)}
    rows = []
    for i in range(240):
        colour = [*words][i * 7 % 3]
        kind = ("Home > Lamps", "Toys > Cars")[i % 2]
        rows.append(
            {
                "product_id": f"p{i}",
                "title": f"{kind[-5:]} {colour if i % 4 else ''} no. {i * 31 % 97}" if i % 5 else None,
                "image": draw(words[colour], i) if i % 3 or not i % 5 else None,
                "category": kind if i % 9 else None,
                "split": ("train", "train", "validation", "test")[i // 4 % 4],
                "shade": None if i % 11 == 1 else colour,
                "use": ["home", "away"][: 1 + i % 2],
            }
        )
    folder = tmp_path_factory.mktemp("coloured")
    pq.write_table(pa.Table.from_pylist(rows), folder / "feed.parquet")
    mapping = Mapping(attributes={"shade": "shade", "use": "use"})
    ingest(folder / "feed.parquet", folder / "catalog", mapping=mapping)
    return Catalog.open(folder / "catalog")


@pytest.fixture(scope="module")
def colour_model(coloured: Catalog, embeddings_cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    from shelver.train.config import TrainConfig
    from shelver.train.run import train

    config = TrainConfig(
        text_encoder="ngram",
        image_encoder="colour",
        image=ImageSpec(height_px=32, width_px=32),
        text_width=16,
        hidden=16,
        epochs=4,
        batch_size=16,
        lr=1e-2,
        linear=True,
        folds=0,
        refit=False,
    )
    folder = tmp_path_factory.mktemp("models") / "coloured"
    train(coloured, folder, config, cache=embeddings_cache, say=quiet)
    return folder


def test_a_model_is_judged_by_the_attributes_that_its_classifier_answers(
    colour_model: Path, coloured: Catalog, tmp_path: Path
) -> None:
    report = evaluate(colour_model, coloured, say=quiet, threads=1)
    assert list(report.attributes) == ["shade", "use"]
    products = [p for batch in coloured.products("test") for p in batch]
    said = Classifier.open(colour_model, threads=1)(products)
    for name, found in report.attributes.items():
        known = [i for i, product in enumerate(products) if name in product.attributes]
        answers = [said[i].attributes.get(name) for i in known]
        values = ["" if one is None else one.value for one in answers]
        given = [{one} if isinstance(one, str) else {*one} for one in values]
        right = [one == {*products[i].attributes[name]} for i, one in zip(known, given, strict=True)]
        assert found.n == len(known) > sum(products[i].node_id is not None for i in known)
        assert found.accuracy == pytest.approx(np.mean(right), abs=1e-6)
        assert set(found.asked) == set(SOURCES)
        assert sum(one.n for one in found.by_modality.values()) == found.n
    shade, use = report.attributes["shade"], report.attributes["use"]
    assert (shade.multi, use.multi) == (False, True)
    assert (shade.asked["image"].accuracy or 0) > (shade.asked["text"].accuracy or 0)
    assert report.n_unlabelled == sum(p.node_id is None for p in products) > 0
    written = publish(report, model=colour_model, catalog=coloured, out=tmp_path / "out", say=quiet)
    assert read_report(written[0]) == report
    card = (colour_model / "README.md").read_text(encoding="utf-8")
    assert "| shade | 3 | every category |" in card


def test_a_model_compared_with_itself_has_the_same_attributes(colour_model: Path, coloured: Catalog) -> None:
    found = compare([colour_model, colour_model], coloured, threads=1, say=quiet)
    assert [(one.name, one.verdict) for one in found.pairs[0].attributes] == [("shade", "same"), ("use", "same")]
    assert found.pairs[0].warnings == ()
