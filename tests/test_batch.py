"""Whole feeds: one row out for each row in, in every format, whatever the rows are."""

from __future__ import annotations

import csv
import gzip
import json
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from shelver import batch
from shelver.attributes import Attribute, Value, Vocabulary
from shelver.batch import COLUMNS, BatchReport, check_output, classify_feed
from shelver.decide import Applying, AttributeRule, Policy, Probabilities
from shelver.errors import FeedError, InputError
from shelver.pipeline import BATCH_PRODUCTS, Classifier, Emb2Prob, Embedding, Prob2Pred
from shelver.product import Product

HOSTILE = [
    '{"product_id": "a\\ud800", "title": "bar stool"}',
    '{"product_id": "b\\rc", "title": "bar stool"}',
    '{"product_id": "0012", "title": "bar stool"}',
    '{"product_id": "0012", "title": "deck chair, \\"folding\\"\\nnew"}',
    '{"product_id": "empty"}',
    '{"title": "no id"}',
    "{broken",
    "[1, 2]",
    '{"product_id": "x", "title": "\\ud83d"}',
    '{"product_id": "=1+1", "title": "=cmd"}',
    '{"product_id": "é,\\"ü", "title": "' + "lamp " * 5000 + '"}',
]


@pytest.fixture(scope="module")
def classifier(text_model: Path) -> Classifier:
    return Classifier.open(text_model, threads=1)


@pytest.fixture
def hostile(tmp_path: Path) -> Path:
    feed = tmp_path / "feed.jsonl"
    feed.write_text("\n".join(HOSTILE) + "\n", encoding="utf-8")
    return feed


def quiet(line: str) -> None:
    pass


def read(path: Path) -> list[dict[str, object]]:
    """Rows of an output of any format, with the values that a JSON line would have."""
    if path.suffix == ".parquet":
        rows: list[dict[str, Any]] = pq.read_table(path).to_pylist()
        for row in rows:
            row["level_confidence"] = [round(p, 6) for p in row["level_confidence"]]
            row["attributes"] = json.loads(row["attributes"])
        return rows
    content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    text = content.decode("utf-8")
    if ".jsonl" in path.name:
        return [json.loads(line) for line in text.split("\n")[:-1]]
    read_back: list[dict[str, object]] = []
    for row in csv.DictReader(text.splitlines(keepends=True), delimiter="\t" if ".tsv" in path.name else ","):
        values: dict[str, object] = {name: value or None for name, value in row.items()}
        values["level_confidence"] = json.loads(row["level_confidence"])
        values["attributes"] = json.loads(row["attributes"])
        values["confidence"] = float(row["confidence"]) if row["confidence"] else None
        read_back.append(values)
    return read_back


class Coloured(Emb2Prob):
    """A model's stage that also knows of colours and rooms, by what the product has."""

    def __init__(self, plain: Emb2Prob) -> None:
        vars(self).update(vars(plain))

    def __call__(self, text: Embedding | None, image: Embedding | None) -> Probabilities:
        probs = super().__call__(text, image)
        there = (probs.modality > 0).astype(np.float32)[:, None]
        found = {
            "colour": there * np.array([0.25, 0.75], np.float32),
            'rooms, "all"': there * np.array([0.625, 0.875, 0.25], np.float32),
            "wheels": there * np.array([0.5, 0.5], np.float32),
        }
        return replace(probs, attributes=found)


def values(*names: str) -> tuple[Value, ...]:
    return tuple(Value(name=name) for name in names)


@pytest.fixture(scope="module")
def coloured(classifier: Classifier) -> Classifier:
    tree, groups = classifier.taxonomy, classifier.prob2pred.groups
    toys = tree.find_path(["Toys"])
    assert toys is not None
    vocabulary = Vocabulary(
        attributes=(
            Attribute(name="colour", values=values("red", "bleu foncé")),
            Attribute(name='rooms, "all"', multi=True, values=values("a", "b\tb", "c")),
            Attribute(name="wheels", values=values("3", "4"), nodes=(tree.ids[toys],)),
        )
    )
    return Classifier(
        classifier.manifest,
        classifier.text2emb,
        classifier.image2emb,
        Coloured(classifier.emb2prob),
        Prob2Pred(tree, groups, Applying.of(vocabulary, tree)),
    )


def answer(classifier: Classifier, feed: Path, out: Path) -> BatchReport:
    return classify_feed(classifier, feed, out, say=quiet)


def test_every_row_in_is_a_row_out_in_its_place(classifier: Classifier, hostile: Path, tmp_path: Path) -> None:
    report = answer(classifier, hostile, tmp_path / "out.jsonl")
    rows = read(tmp_path / "out.jsonl")
    assert report.n_rows == len(rows) == len(HOSTILE)
    assert report.n_answered + sum(report.n_errors.values()) == report.n_rows
    assert [row["product_id"] for row in rows if row["error"] is None] == ["0012", "0012", "=1+1", 'é,"ü']
    counts: dict[object, int] = {}
    for row in rows:
        assert tuple(row) == COLUMNS
        assert row["model_version"] == classifier.model_version
        assert (row["node_id"] is None) == (row["error"] is not None)
        if row["error"] is not None:
            assert (row["path"], row["confidence"], row["level_confidence"]) == (None, None, [])
            assert row["alternatives"] == "[]"
            counts[row["error"]] = counts.get(row["error"], 0) + 1
    assert counts == report.n_errors
    assert rows[4]["error"] == "empty_product"
    assert rows[4]["product_id"] == "empty"


@pytest.mark.parametrize("name", ["o.csv", "o.tsv", "o.csv.gz", "o.tsv.gz", "o.jsonl.gz", "o.parquet", "O.x.csv"])
def test_every_format_says_the_same(classifier: Classifier, hostile: Path, tmp_path: Path, name: str) -> None:
    answer(classifier, hostile, tmp_path / "plain.jsonl")
    answer(classifier, hostile, tmp_path / name)
    found, expected = read(tmp_path / name), read(tmp_path / "plain.jsonl")
    assert len(found) == len(expected)
    for ours, theirs in zip(found, expected, strict=True):
        assert list(ours) == list(COLUMNS)
        assert ours.pop("confidence") == pytest.approx(theirs.pop("confidence"), abs=1e-6)
        assert ours.pop("level_confidence") == pytest.approx(theirs.pop("level_confidence"), abs=1e-6)
        assert ours == theirs


@pytest.mark.parametrize("name", ["o.csv", "o.tsv.gz", "o.jsonl", "o.parquet"])
def test_attributes_are_an_object_in_every_format(
    coloured: Classifier, hostile: Path, tmp_path: Path, name: str
) -> None:
    with hostile.open("a", encoding="utf-8") as feed:
        feed.write('{"product_id": "t", "title": "racing car, small"}\n')
    answer(coloured, hostile, tmp_path / name)
    rows = read(tmp_path / name)
    assert COLUMNS[-1] == "attributes"  # last, so that every older column keeps its place
    everywhere = {
        "colour": {"value": "bleu foncé", "confidence": 0.75, "source": "text"},
        'rooms, "all"': {"value": ["b\tb", "a"], "confidence": 0.625, "source": "text"},
    }
    wheels = {"wheels": {"value": "3", "confidence": 0.5, "source": "text"}}
    n_toys = 0
    for row in rows:
        if row["error"] is not None:
            assert row["attributes"] == {}
            continue
        is_toy = str(row["path"]).startswith("Toys")
        assert row["attributes"] == {**everywhere, **(wheels if is_toy else {})}
        n_toys += is_toy
    assert 0 < n_toys < sum(row["error"] is None for row in rows)
    if name == "o.parquet":
        assert pq.read_schema(tmp_path / name).field("attributes").type == pa.string()


def test_a_policy_leaves_attributes_out(coloured: Classifier, hostile: Path, tmp_path: Path) -> None:
    rules = {"colour": AttributeRule(threshold=0.8), 'rooms, "all"': AttributeRule(threshold=0.8)}
    policy = Policy(attributes={**rules, "wheels": AttributeRule(answer=False)})
    classify_feed(coloured, hostile, tmp_path / "o.jsonl", policy=policy, say=quiet)
    for row in read(tmp_path / "o.jsonl"):
        only = {'rooms, "all"': {"value": ["b\tb"], "confidence": 0.875, "source": "text"}}
        assert row["attributes"] == ({} if row["error"] is not None else only)


def test_the_rows_are_what_the_classifier_says(classifier: Classifier, tmp_path: Path) -> None:
    feed, out = tmp_path / "feed.csv", tmp_path / "out.jsonl"
    titles = [f"{kind} {i}" for i in range(BATCH_PRODUCTS) for kind in ("bar stool", "racing car")]
    feed.write_text("product_id,title\n" + "".join(f"{i:04d},{title}\n" for i, title in enumerate(titles)))
    report = classify_feed(classifier, feed, out, policy=Policy(n_top=2), say=quiet)
    assert report.n_answered == 2 * BATCH_PRODUCTS
    said = classifier([Product(f"{i:04d}", title=title) for i, title in enumerate(titles)], policy=Policy(n_top=2))
    for i, (row, one) in enumerate(zip(read(out), said, strict=True)):
        assert row["product_id"] == f"{i:04d}"
        assert (row["node_id"], row["path"], row["modality"]) == (one.node_id, one.path, "text")
        assert row["confidence"] == pytest.approx(one.confidence, abs=1e-6)
        assert row["level_confidence"] == pytest.approx(list(one.level_confidence), abs=1e-6)
        alternatives = json.loads(str(row["alternatives"]))
        assert [a["node_id"] for a in alternatives] == [a.node_id for a in one.alternatives]
        assert [a["path"] for a in alternatives] == [a.path for a in one.alternatives]
        assert len(alternatives) == 2


@pytest.mark.parametrize("unsure", ["stop", "abstain", "suggest", "review"])
def test_every_row_has_one_outcome_and_the_report_counts_them(
    classifier: Classifier, hostile: Path, tmp_path: Path, unsure: str
) -> None:
    policy = Policy.model_validate({"decoder": "climb", "thresholds": [1, 0.999], "unsure": unsure})
    out = tmp_path / "out.jsonl"
    report = classify_feed(classifier, hostile, out, policy=policy, policy_name="tax", say=quiet)
    rows = read(out)
    found = Counter(str(row["outcome"]) for row in rows)
    counts = {
        "decided": report.n_answered,
        "suggested": report.n_suggested,
        "review": report.n_review,
        "abstained": report.n_abstained,
        "outside": report.n_outside,
        "error": sum(report.n_errors.values()),
    }
    assert sum(counts.values()) == report.n_rows == len(HOSTILE)
    assert found == Counter({what: n for what, n in counts.items() if n})
    named = {"stop": "abstained", "abstain": "abstained", "suggest": "suggested", "review": "review"}
    assert counts[named[unsure]] > 0
    for row in rows:
        assert row["policy"] == "tax"
        assert (row["outcome"] == "error") == (row["error"] is not None)
        assert (row["outcome"] == "decided") == (row["path"] is not None)
        has_suggestions = row["outcome"] in ("decided", "suggested", "review")
        assert (row["alternatives"] != "[]") == has_suggestions


def test_pictures_that_cannot_be_used_are_counted(both_model: Path, tiny_feed: Path, tmp_path: Path) -> None:
    report = answer(Classifier.open(both_model, threads=1), tiny_feed, tmp_path / "out.parquet")
    assert report.n_rows == report.n_answered == 150
    assert sum(report.n_picture_errors.values()) == 1
    rows = read(tmp_path / "out.parquet")
    assert {row["modality"] for row in rows} == {"text", "image", "both"}
    assert [row["product_id"] for row in rows] == [f"p{i}" for i in range(150)]


def test_a_feed_without_rows_gives_a_file_without_rows(classifier: Classifier, tmp_path: Path) -> None:
    feed = tmp_path / "feed.csv"
    feed.write_text("product_id,title\n")
    for name in ("o.csv", "o.jsonl", "o.parquet"):
        report = answer(classifier, feed, tmp_path / name)
        assert report.n_rows == report.products_per_s == 0
        assert read(tmp_path / name) == []


@pytest.mark.parametrize("name", ["o", "o.xlsx", "o.parquet.gz", "o.gz", "o.CSV.zip", "nowhere/o.csv"])
def test_an_output_that_cannot_be_written_is_refused_at_once(tmp_path: Path, name: str) -> None:
    with pytest.raises(InputError):
        check_output(tmp_path / name)


@pytest.mark.parametrize("link", [False, True])
def test_the_feed_is_never_written_over(classifier: Classifier, hostile: Path, tmp_path: Path, link: bool) -> None:
    before = hostile.read_bytes()
    out = hostile
    if link:
        out = tmp_path / "link.jsonl"
        out.symlink_to(hostile)
    with pytest.raises(InputError, match="is the feed itself"):
        answer(classifier, hostile, out)
    assert hostile.read_bytes() == before


def test_an_older_output_stays_until_the_new_one_is_whole(
    classifier: Classifier, hostile: Path, tmp_path: Path
) -> None:
    class CutError(Exception):
        pass

    class Failing(Classifier):
        """Answers the first batch only."""

        n_batches = 0

        def __call__(self, products, *, policy=Policy()):  # type: ignore[no-untyped-def]  # noqa: B008
            self.n_batches += 1
            if self.n_batches > 1:
                raise CutError
            return super().__call__(products, policy=policy)

    failing = Failing(
        classifier.manifest,
        classifier.text2emb,
        classifier.image2emb,
        classifier.emb2prob,
        classifier.prob2pred,
    )
    feed = tmp_path / "long.csv"
    feed.write_text("product_id,title\n" + "".join(f"{i},lamp\n" for i in range(BATCH_PRODUCTS * 2)))
    for name in ("o.csv", "o.parquet", "o.jsonl.gz"):
        out = tmp_path / name
        out.write_bytes(b"older")
        failing.n_batches = 0
        with pytest.raises(CutError):
            answer(failing, feed, out)
        assert out.read_bytes() == b"older"
    assert not list(tmp_path.glob("*partial*"))
    assert not list(tmp_path.glob(".*partial*"))


def test_a_feed_that_cannot_be_read_at_all_is_an_error_and_leaves_no_output(
    classifier: Classifier, tmp_path: Path
) -> None:
    (tmp_path / "feed.parquet").write_bytes(b"PAR1 not really")
    for feed in (tmp_path / "feed.parquet", tmp_path / "nowhere.csv"):
        with pytest.raises(FeedError):
            answer(classifier, feed, tmp_path / "o.csv")
    assert [path.name for path in tmp_path.iterdir()] == ["feed.parquet"]


def test_progress_is_told_with_a_rate(
    classifier: Classifier, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batch, "TELL_EVERY_S", 0.0)
    feed = tmp_path / "feed.csv"
    feed.write_text("product_id,title\n" + "".join(f"{i},lamp\n" for i in range(BATCH_PRODUCTS + 1)))
    said: list[str] = []
    classify_feed(classifier, feed, tmp_path / "o.csv", say=said.append)
    assert len(said) == 2
    assert said[-1].startswith(f"{BATCH_PRODUCTS + 1:,} rows, ")
