"""`shelver policy fit | show | compare` as a person types them."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from shelver.catalog.ingest import ingest
from shelver.catalog.store import Catalog
from shelver.decide import read_policies
from shelver.pipeline import Classifier

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
