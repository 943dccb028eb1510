"""`shelver policy fit | show | compare` as a person types them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from shelver.catalog.ingest import ingest
from shelver.catalog.mapping import Mapping
from shelver.catalog.store import Catalog
from shelver.decide import read_policies
from shelver.pipeline import Classifier

SMALL = {"text_width": 16, "hidden": 16, "epochs": 12, "batch_size": 8, "lr": 1e-2, "folds": 0, "refit": False}
"""A config that learns the feed with attributes in seconds, on train alone."""
Row = dict[str, Any]


Run = Callable[..., Any]
"""The fixture `run`: a command line to how it ended, with `status`, `out`, `err` and `json`."""


@pytest.fixture
def model(text_model: Path, tmp_path: Path) -> Path:
    copy = tmp_path / "model"
    shutil.copytree(text_model, copy)
    return copy


@pytest.fixture
def catalog_of(tiny_feed: Path, tmp_path: Path) -> Callable[[str, Callable[[Row], Row]], Path]:
    """A catalog of the tiny feed with its rows changed."""

    def make(name: str, change: Callable[[Row], Row]) -> Path:
        feed, folder = tmp_path / f"{name}.parquet", tmp_path / name
        pq.write_table(pa.Table.from_pylist([change(row) for row in pq.read_table(tiny_feed).to_pylist()]), feed)
        ingest(feed, folder)
        return folder

    return make


def test_a_policy_is_fitted_shown_and_held_to_its_word(run: Run, model: Path, tiny_catalog: Catalog) -> None:
    before = {path.name: path.read_bytes() for path in model.iterdir() if path.is_file()}
    catalog = tiny_catalog.folder
    fitted = run("policy", "fit", model, catalog, "--name", "search", "--precision", ".6", "--unsure", "suggest")
    assert fitted.status == 0, fitted.err
    assert "at least 0.6 of all decisions are right" in fitted.out
    assert "of the coverage" in fitted.out
    assert "calibrated on these products" in fitted.err
    policies = read_policies(model / "policies.json")
    promise = policies["search"].promise
    assert promise is not None
    assert (policies["search"].decoder, policies["search"].unsure) == ("greedy", "suggest")
    assert (promise.precision, promise.delta, promise.split) == (0.6, 0.05, "validation")
    assert (promise.n_products, promise.catalog_version) == (30, tiny_catalog.info.fingerprint)
    assert promise.model_version == Classifier.open(model).model_version
    assert {path.name: path.read_bytes() for path in model.iterdir() if path.name in before} == before

    second = run(
        *("policy", "fit", model, catalog, "--name", "test", "--precision", ".5", "--split", "test"),
        *("--decoder", "climb", "--max-level", "2", "--json"),
    ).json
    assert (second["decoder"], second["max_level"], second["promise"]["split"]) == ("climb", 2, "test")
    assert set(read_policies(model / "policies.json")) == {"search", "test"}

    shown = run("policy", "show", model)
    assert shown.status == 0
    assert "0.6 at 0.05" in shown.out
    assert "default" in shown.out
    assert list(run("policy", "show", model, "search", "--json").json) == ["search"]

    compared = run("policy", "compare", model, catalog, "--json")
    assert "test was fitted on these very products" in compared.err
    by_name = {one["name"]: one for one in compared.json["policies"]}
    assert list(by_name) == ["default", "search", "test"]
    for one in by_name.values():
        n_decided = one["outcomes"]["decided"]
        assert sum(one["outcomes"].values()) == one["n_products"] == 30
        assert one["precision"] == pytest.approx(one["n_right"] / n_decided, abs=1e-6)
        assert one["precision_low"] <= one["precision"] <= one["precision_high"]
        assert one["value"] is None
    assert by_name["search"]["promise"] in ("kept", "in doubt")
    assert (by_name["default"]["promised"], by_name["default"]["promise"]) == (None, None)
    table = run("policy", "compare", model, catalog, "search").out.splitlines()
    assert len(table) == 2
    assert table[0].split()[:3] == ["policy", "coverage", "precision"]


def test_values_of_products_are_counted(
    run: Run, model: Path, catalog_of: Callable[[str, Callable[[Row], Row]], Path]
) -> None:
    valued = catalog_of("valued", lambda row: {**row, "value": 5.0 if row["category"] == "Toys" else None})
    (one,) = run("policy", "compare", model, valued, "default", "--json").json["policies"]
    assert 0 < one["value"] <= 1


def test_a_promise_that_the_products_cannot_carry_is_refused(run: Run, model: Path, tiny_catalog: Catalog) -> None:
    ended = run("policy", "fit", model, tiny_catalog.folder, "--name", "tax", "--precision", ".99")
    assert ended.status == 2
    assert "cannot carry a precision of 0.99" in ended.err
    assert "at least 299 decisions without a mistake" in ended.err
    assert "more labelled products" in ended.err
    assert not (model / "policies.json").exists()


def test_products_that_the_model_learned_from_are_refused(
    run: Run, model: Path, tiny_catalog: Catalog, catalog_of: Callable[[str, Callable[[Row], Row]], Path]
) -> None:
    call = ("policy", "fit", model)
    said = ("--name", "a", "--precision", ".6")
    learned = run(*call, tiny_catalog.folder, *said, "--split", "train")
    assert learned.status == 2
    assert "learned from the train split" in learned.err
    assert "--split validation or test" in learned.err

    # As after a refit: what the model learned from is train and validation of this catalog.
    def refitted(row: Row) -> Row:
        number = int(row["product_id"][1:])
        kept = row["split"] == "train"
        return {**row, "split": "validation" if kept and number % 25 < 5 else "train" if kept else "test"}

    ended = run(*call, catalog_of("refitted", refitted), *said)
    assert ended.status == 2
    assert "learned from the validation split" in ended.err
    assert "--no-refit" in ended.err

    strange = catalog_of("strange", lambda row: {**row, "split": "test" if row["split"] == "train" else "train"})
    doubtful = run(*call, strange, *said, "--split", "test")
    assert "learned from another catalog" in doubtful.err


def test_a_risk_list_gives_branches_promises_of_their_own(
    run: Run, model: Path, tiny_catalog: Catalog, tmp_path: Path
) -> None:
    risks = tmp_path / "risks.json"
    call = ("policy", "fit", model, tiny_catalog.folder, "--name", "a", "--precision", ".4", "--strict", risks)
    risks.write_text('{"Toys": 0.9}')
    refused = run(*call)
    assert refused.status == 2
    assert "in the branch 'Toys' at delta 0.025" in refused.err
    for content, said in (
        ('{"Boats": 0.9}', "'Boats'"),
        ('{"Toys": 2}', "2"),
        ('{"Toys": true}', "True"),
        ("[]", "no such object"),
        ("{", "risks.json"),
    ):
        risks.write_text(content)
        ended = run(*call)
        assert (ended.status, said in ended.err) == (2, True), ended.err
    risks.write_text('{"Home > Chairs": 0.5}')
    assert run(*call).status == 0
    policy = read_policies(model / "policies.json")["a"]
    assert policy.promise is not None
    assert all(threshold > policy.thresholds[0] for threshold in policy.strict.values())


@pytest.fixture(scope="module")
def with_attributes(
    tmp_path_factory: pytest.TempPathFactory, embeddings_cache: Path, tiny_feed: Path
) -> tuple[Path, Path]:
    """A model and its catalog: every title says a colour and perhaps rooms; one product in ten has no label."""
    from shelver.train.config import TrainConfig
    from shelver.train.run import train

    folder = tmp_path_factory.mktemp("attributes")
    rng = np.random.default_rng(0)
    rows = []
    for i, row in enumerate(pq.read_table(tiny_feed).to_pylist() * 2):
        colour = ("red", "blue", "green")[rng.integers(3)]
        rooms = [room for room in ("hall", "bath", "porch") if rng.random() < 0.5]
        said = f"{colour} {' '.join(rooms)}"
        row |= {"product_id": f"p{i}", "title": f"{said} {row['title'] or 'thing'}", "image": None}
        labelled = {"colour": colour, "rooms": ";".join(rooms)} if i % 10 else {"colour": None, "rooms": None}
        rows.append({**row, **labelled})
    pq.write_table(pa.Table.from_pylist(rows), folder / "feed.parquet")
    mapping = Mapping(attributes={"colour": "colour", "rooms": "rooms"}, attribute_separator=";")
    ingest(folder / "feed.parquet", folder / "catalog", mapping=mapping)
    config = TrainConfig.model_validate({"text_encoder": "ngram", "image_encoder": "none", **SMALL})
    opened = Catalog.open(folder / "catalog")
    train(opened, folder / "model", config, cache=embeddings_cache, say=lambda line: None)
    return folder / "model", folder / "catalog"


def test_attributes_have_promises_of_their_own(
    run: Run, with_attributes: tuple[Path, Path], tmp_path: Path
) -> None:
    model, catalog = with_attributes
    file = tmp_path / "p.json"
    call = ("policy", "fit", model, catalog, "--name", "a", "--precision", ".6", "--policies", file)
    refused = run(*call, "--attribute", "colour=.99")
    assert refused.status == 2
    assert "cannot carry a precision of 0.99 for attribute 'colour'" in refused.err
    assert "more labelled products" in refused.err
    assert not file.exists()

    fitted = run(*call, "--attribute", "colour=.8", "--attribute", "rooms=.7", "--delta", ".1")
    assert fitted.status == 0, fitted.err
    assert "colour: at least 0.8 of its answers are right" in fitted.out
    rules = read_policies(file)["a"].attributes
    assert list(rules) == ["colour", "rooms"]
    # 60 validation products, of which every tenth says nothing.
    for name, target in (("colour", 0.8), ("rooms", 0.7)):
        promise = rules[name].promise
        assert promise is not None
        assert (promise.precision, promise.delta, promise.split) == (target, 0.1, "validation")
        assert promise.n_right >= target * promise.n_decided
        assert promise.n_products <= 54
        assert promise.n_decided > 0
    shown = run("policy", "show", model, "--policies", file).out
    assert "0.8 at 0.1" in shown
    compared = run("policy", "compare", model, catalog, "--policies", file, "--json").json
    assert [(one["policy"], one["attribute"]) for one in compared["attributes"]] == [
        ("a", "colour"),
        ("a", "rooms"),
    ]
    for one in compared["attributes"]:
        assert one["promise"] in ("kept", "in doubt")
        assert one["precision_low"] <= one["precision"] <= one["precision_high"]
    said = run("predict", model, "--title", "blue hall bath bar stool for the counter", "--json").json
    assert said["attributes"]["colour"]["value"] == "blue"
    assert said["attributes"]["colour"]["source"] == "text"
    assert set(said["attributes"]["rooms"]["value"]) == {"hall", "bath"}
    assert "  colour: blue  (" in run("predict", model, "--title", "blue hall bath bar stool").out


def test_rules_for_attributes_are_shown_and_a_model_without_them_refuses_them(
    run: Run, model: Path, tiny_catalog: Catalog, tmp_path: Path
) -> None:
    promise = {
        "precision": 0.95,
        "model_version": "0" * 12,
        "catalog_version": "1" * 16,
        "split": "test",
        "n_products": 400,
        "n_decided": 300,
        "n_right": 297,
        "coverage": 0.75,
    }
    rules = {"colour": {"threshold": 0.8, "promise": promise}, "size": {"answer": False}, "season": {}}
    elsewhere = tmp_path / "p.json"
    elsewhere.write_text(json.dumps({"filters": {"attributes": rules}}))
    lines = run("policy", "show", model, "--policies", elsewhere).out.splitlines()
    table = [line.split() for line in lines[lines.index("") + 1 :]]
    assert table[0] == ["policy", "attribute", "answered", "promise", "coverage"]
    assert table[1] == [
        "filters",
        "colour",
        "from",
        "0.8",
        *["0.95", "at", "0.05", "(for", "model", "000000000000)"],
        "0.7500",
    ]
    assert table[2:] == [["filters", "size", "never", "-", "-"], ["filters", "season", "always", "-", "-"]]
    shown = run("policy", "show", model, "filters", "--policies", elsewhere, "--json").json
    assert shown["filters"]["attributes"]["colour"]["promise"]["n_right"] == 297

    compared = run("policy", "compare", model, tiny_catalog.folder, "--policies", elsewhere)
    assert compared.status == 2
    assert "'colour' and 2 more, which this model has not learned" in compared.err
    call = ("policy", "fit", model, tiny_catalog.folder, "--name", "a", "--precision", ".5")
    for given, said in (
        (("colour=.9",), "this model has learned no attribute"),
        (("colour",), "--attribute colour"),
        (("colour=1",), "--attribute colour=1"),
        (("=.9",), "--attribute =.9"),
        (("colour=.9", "colour=.8"), "each attribute once"),
    ):
        ended = run(*call, *(word for one in given for word in ("--attribute", one)))
        assert (ended.status, said in ended.err) == (2, True), ended.err
    assert not (model / "policies.json").exists()


def test_mistakes_say_what_is_allowed(run: Run, model: Path, tiny_catalog: Catalog, tmp_path: Path) -> None:
    catalog = tiny_catalog.folder
    elsewhere = tmp_path / "p.json"
    elsewhere.write_text('{"cheap": {"decoder": "cost"}}')
    assert run("policy", "show", model, "--policies", elsewhere, "--json").json["cheap"]["decoder"] == "cost"
    for args, said in (
        (("fit", model, catalog, "--name", "a", "--precision", "1.5"), "precision"),
        (("fit", model, catalog, "--name", "a", "--precision", ".5", "--start", "2"), "--start"),
        (("fit", model, catalog, "--name", "a", "--precision", ".5", "--outside", "0"), "--outside"),
        (("fit", model, catalog, "--name", "a", "--precision", ".5", "--decoder", "cost"), "cost"),
        (("show", model, "nobody"), "nobody"),
        (("compare", model, catalog, "nobody"), "nobody"),
        (("show", tmp_path), "manifest.json"),
    ):
        ended = run("policy", *args)
        assert ended.status == 2, (args, ended)
        assert said in ended.err, (args, ended.err)
        assert "Traceback" not in ended.err
