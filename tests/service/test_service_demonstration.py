"""The demo's shop: weeks that look like weeks, made once, by real answers; and `shelver demo --serve` itself."""

from __future__ import annotations

import base64
import dataclasses
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random
from typing import Any

import httpx2
import pytest
from fastapi.testclient import TestClient
from service_rig import service_behind
from sqlalchemy import DateTime, func, select

from shelver.catalog.ingest import ingest
from shelver.catalog.store import Catalog
from shelver.cli.demo_service import Made, empty, made, note, ready_to_serve, refuse_another, refuse_others
from shelver.datasets.generated import write_demo
from shelver.errors import ConfigError, InputError
from shelver.folders import writing_alone
from shelver.images import sniff
from shelver.ngrams import NgramSpec
from shelver.product import clean
from shelver.registry import MANIFEST
from shelver.service.accounts.secret import database_url
from shelver.service.app import create_app
from shelver.service.db import open_database
from shelver.service.demonstration.calendar import DAYS, days_until, nights, visits_by_day
from shelver.service.demonstration.cast import hand_out
from shelver.service.demonstration.shop import READY, Stock, is_ready, prepare, settings_of
from shelver.service.demonstration.visits import WAREHOUSE, WINDOW
from shelver.service.problems import ServiceError
from shelver.service.products.samples import example_of
from shelver.service.tables.declarative import Base
from shelver.settings import ServiceSettings

N_PRODUCTS = 200
N_VISITS = 75
LATER = {"expires_at", "claimed_until", "not_before", "lease_until"}
"""Columns that may lie in the future."""


@dataclass(frozen=True)
class Shop:
    """A demo that was made: its folder, as `shelver demo --out` leaves it, and its service."""

    out: Path
    settings: ServiceSettings
    stock: Stock


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Shop:
    """A shop whose weeks have passed; nobody has a password yet. Tests that change it take a copy."""
    from shelver.train.config import TrainConfig
    from shelver.train.run import train

    out = tmp_path_factory.mktemp("shop") / "demo"
    ingest(write_demo(out / "feed", n_products=N_PRODUCTS, seed=1), out / "catalog")
    config = TrainConfig(
        text_width=16,
        hidden=16,
        batch_size=16,
        lr=1e-2,
        linear=False,
        epochs=8,
        folds=0,
        text_encoder="ngram",
        image_encoder="none",
        ngrams=NgramSpec(),
        refit=False,
    )
    catalog = Catalog.open(out / "catalog")
    train(catalog, out / "model", config, cache=out / "cache", threads=1, say=lambda line: None)
    # The first model is the same, only less sure of itself: another training would teach us nothing.
    manifest = json.loads(shutil.copytree(out / "model", out / "earlier").joinpath(MANIFEST).read_bytes())
    manifest["calibration"]["weights"]["text"] = [[0.6] * len(manifest["calibration"]["weights"]["text"][0])]
    manifest["calibration"]["weights"]["both"] = manifest["calibration"]["weights"]["text"]
    (out / "earlier" / MANIFEST).write_text(json.dumps(manifest), encoding="utf-8")
    (out / ".shelver-demo").write_text(json.dumps({"products": N_PRODUCTS, "seed": 1}), encoding="utf-8")
    stock = Stock(out / "catalog", out / "earlier", out / "model", N_PRODUCTS, 1)
    with without_settings(out):
        settings = settings_of(out / "service", threads=1, password_kib=8, password_passes=1)
        prepare(settings, stock, n_visits=N_VISITS)
    return Shop(out, settings, stock)


@contextmanager
def without_settings(folder: Path) -> Iterator[None]:
    """In a folder without `shelver.toml`, without `SHELVER_` variables."""
    with pytest.MonkeyPatch.context() as patch:
        for name in list(os.environ):
            if name.startswith("SHELVER_"):
                patch.delenv(name)
        patch.chdir(folder)
        yield


@pytest.fixture
def copy(shop: Shop, tmp_path: Path) -> Shop:
    """The shop, to be changed."""
    out = tmp_path / "demo"
    shutil.copytree(shop.out, out)
    with without_settings(out):
        settings = settings_of(out / "service", threads=1, password_kib=8, password_passes=1)
    stock = Stock(out / "catalog", out / "earlier", out / "model", N_PRODUCTS, 1)
    return Shop(out, settings, stock)


@pytest.fixture
def by_role(copy: Shop) -> Iterator[dict[str, TestClient]]:
    """The people of the demo, signed in."""
    with open_database(database_url(copy.settings)) as database:
        people = hand_out(database, copy.settings, anew=False)
    app = create_app(copy.settings)
    with TestClient(app, base_url="http://127.0.0.1") as anybody:
        found: dict[str, TestClient] = {}
        for one in people:
            pair = anybody.post("/v1/login", data={"username": one.email, "password": one.password}).json()
            client = TestClient(app, base_url="http://127.0.0.1")
            client.headers["Authorization"] = f"Bearer {pair['access_token']}"
            client.portal = anybody.portal
            found[one.role] = client
        yield found


def got(client: TestClient, path: str) -> Any:
    answer = client.get(path)
    assert answer.status_code == 200, f"{path}: {answer.text}"
    return answer.json()


def counts(settings: ServiceSettings) -> dict[str, int]:
    with open_database(database_url(settings)) as database, database.reading() as session:
        return {
            table.name: session.scalar(select(func.count()).select_from(table)) or 0
            for table in Base.metadata.sorted_tables
        }


def test_every_list_has_something_to_show(by_role: dict[str, TestClient]) -> None:
    admin, reviewer, seller = by_role["admin"], by_role["reviewer"], by_role["seller"]
    for client in (admin, seller):
        products = got(client, "/v1/products?limit=50")["items"]
        assert len(products) > 5
        assert sum(bool(product["pictures"]) for product in products) > len(products) / 2
        assert any(product["attributes"] for product in products)
        assert client.get(f"/v1/pictures/{max(p['pictures'] for p in products)[0]}").status_code == 200
        assert len(got(client, "/v1/predictions")["items"]) > 5
    assert {row["policy"] for row in got(admin, "/v1/predictions?limit=200")["items"]} >= {"default", WAREHOUSE}
    actions = {row["action"] for row in got(reviewer, "/v1/feedback?limit=200")["items"]}
    assert actions == {"accept", "correct", "reject"}
    waiting = got(reviewer, "/v1/review?limit=200")["items"]
    titles = [item["product"]["title"] for item in waiting if item["product"] is not None]
    assert any(title and title.endswith(", as new") for title in titles)
    assert {entry["action"] for entry in got(admin, "/v1/audit")["items"]} >= {
        *("user.created", "key.created", "policy.write", "model.register", "model.promote", "job.start")
    }
    assert {job["kind"] for job in got(admin, "/v1/jobs")["items"]} == {"import_products", "evaluate"}
    assert len(got(seller, "/v1/uploads")["items"]) == 2
    aliases = [model["aliases"] for model in got(admin, "/v1/models")["models"]]
    assert sorted(aliases) == [["champion"], ["previous"]]
    kept = {policy["name"]: policy["kept_by"] for policy in got(admin, "/v1/policies")["policies"]}
    assert (kept[WAREHOUSE], kept[WINDOW]) == ("service", "service")
    assert len(got(admin, "/v1/users")["items"]) > 8
    assert len(got(admin, "/v1/keys")) == 2
    began = (datetime.now(UTC) - timedelta(days=DAYS + 1)).strftime("%Y-%m-%dT%H:%M:%SZ")
    quality = got(reviewer, f"/v1/metrics?by=model_version&from={began}")
    assert len(quality["slices"]) == 2
    assert quality["overall"]["acceptance"]["n"] > 20
    assert got(seller, "/v1/examples/random")["media_type"] in ("image/jpeg", None)


def test_everything_lies_in_the_past_and_the_predictions_over_six_weeks(shop: Shop) -> None:
    now = datetime.now(UTC)
    with open_database(database_url(shop.settings)) as database, database.reading() as session:
        for table in Base.metadata.sorted_tables:
            for column in table.columns:
                if not isinstance(column.type, DateTime) and "DateTime" not in type(column.type).__name__:
                    continue
                latest = session.scalar(select(func.max(column)))
                assert column.name in LATER or latest is None or latest <= now, f"{table.name}.{column.name}"
        predictions = Base.metadata.tables["predictions"]
        rows = session.execute(select(predictions.c.at, predictions.c.model_version)).all()
        feedback = Base.metadata.tables["feedback"]
        judged = session.execute(select(feedback.c.at, feedback.c.predicted_at)).all()
        review = Base.metadata.tables["review_items"]
        created = session.scalars(select(review.c.created_at)).all()
    moments = sorted(at for at, _ in rows)
    assert timedelta(days=DAYS - 3) < moments[-1] - moments[0] < timedelta(days=DAYS)
    assert now - moments[-1] < timedelta(days=2)
    first, second = (
        {at for at, model in rows if model == version} for version in dict.fromkeys(m for _, m in sorted(rows))
    )
    assert max(first) < min(second)
    assert judged
    assert all(at > predicted for at, predicted in judged)
    assert min(created) < now - timedelta(days=20)


def test_the_weeks_have_weekends_and_nights() -> None:
    now = datetime(2026, 11, 22, 0, 7, tzinfo=UTC)  # a Sunday, right after midnight
    days = visits_by_day(Random(1), now, 4_000)
    of_weekday: dict[int, int] = {}
    for day, moments in zip(days_until(now), days, strict=True):
        of_weekday[day.weekday()] = of_weekday.get(day.weekday(), 0) + len(moments)
    assert max(of_weekday[5], of_weekday[6]) < 0.7 * min(of_weekday[day] for day in range(5))
    moments = [moment for day in days for moment in day] + [
        moment for night in nights(now, 100) for moment in night
    ]
    assert len(moments) == 4_100
    assert max(moments) < now
    assert sum(moment.hour < 6 for day in days for moment in day) < 40


def test_the_confidences_are_those_of_the_real_model(by_role: dict[str, TestClient]) -> None:
    seller = by_role["seller"]
    champion = next(m for m in got(seller, "/v1/models")["models"] if m["aliases"] == ["champion"])
    compared = 0
    for product in got(seller, "/v1/products?limit=200")["items"]:
        said = got(seller, f"/v1/predictions/{product['prediction_id']}")
        if said["model_version"] != champion["model_version"]:
            continue
        body = {name: product[name] for name in ("title", "description", "brand")} | {"policy": said["policy"]}
        if product["pictures"]:
            picture = seller.get(f"/v1/pictures/{product['pictures'][0]}").content
            body["image_base64"] = base64.b64encode(picture).decode()
        again = seller.post("/v1/predict", json=body).json()
        assert again["node_id"] == said["node_id"]
        assert again["confidence"] == pytest.approx(said["confidence"], abs=1e-4)
        compared += 1
    assert compared >= 3


def test_a_shop_that_is_there_is_left_alone_and_half_a_one_is_made_anew(copy: Shop) -> None:
    before = counts(copy.settings)
    assert before["predictions"] >= N_VISITS
    prepare(copy.settings, copy.stock, n_visits=N_VISITS)
    assert counts(copy.settings) == before
    (copy.settings.data / READY).unlink()
    assert not is_ready(copy.settings)
    prepare(copy.settings, copy.stock, n_visits=30)
    assert 30 <= counts(copy.settings)["predictions"] < before["predictions"]


def test_passwords_are_made_once_and_stored_as_hashes_only(copy: Shop) -> None:
    with open_database(database_url(copy.settings)) as database:
        first = hand_out(database, copy.settings, anew=False)
        assert [one.role for one in first] == ["seller", "reviewer", "admin"]
        assert len({one.password for one in first}) == 3
        assert hand_out(database, copy.settings, anew=False) == []
        second = hand_out(database, copy.settings, anew=True)
        assert {one.password for one in first}.isdisjoint(one.password for one in second)
    secrets = [one.password.encode() for one in (*first, *second)]
    for path in copy.out.rglob("*"):
        if path.is_file():
            content = path.read_bytes()
            assert not any(secret in content for secret in secrets), path


def test_settings_of_this_machine_keep_nothing_of_the_demo_elsewhere(
    empty_settings: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SHELVER_SERVICE_DATABASE", "postgresql://elsewhere/real")
    monkeypatch.setenv("SHELVER_SERVICE_MODEL", "another")
    found = settings_of(empty_settings / "service")
    assert found.database == f"sqlite:///{empty_settings / 'service' / 'shelver.db'}"
    assert (found.model, found.similar_across_sellers) == (None, True)
    monkeypatch.setenv("SHELVER_SERVICE_STORAGE", "s3://bucket/prefix")
    with pytest.raises(ConfigError, match="object storage"):
        settings_of(empty_settings / "service")


def test_a_demo_with_other_numbers_and_a_stranger_s_folder_are_refused(tmp_path: Path) -> None:
    assert made(tmp_path) is None
    refuse_others(tmp_path)
    (tmp_path / "catalog").mkdir()
    with pytest.raises(InputError, match="not a demo"):
        refuse_others(tmp_path)
    empty(tmp_path)  # what a demo does first: from then on the folder is its own, but not whole
    assert [path.name for path in tmp_path.iterdir()] == [".shelver-demo"]
    assert made(tmp_path) is None
    refuse_others(tmp_path)
    note(tmp_path, Made(500, 3))
    there = made(tmp_path)
    assert there == Made(500, 3)
    refuse_another(tmp_path, there, None, None)
    refuse_another(tmp_path, there, 500, 3)
    for products, seed in ((501, None), (None, 4)):
        with pytest.raises(InputError, match="500 products, seed 3"):
            refuse_another(tmp_path, there, products, seed)


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
    return port


@contextmanager
def demo(out: Path, port: int, *flags: str) -> Iterator[subprocess.Popen[str]]:
    """`shelver demo --serve`, until it answers; killed at the end where it still runs."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("SHELVER_SERVICE")}
    command = [sys.executable, "-m", "shelver", "demo", "--serve", "--out", str(out), "--port", str(port), *flags]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment, cwd=out.parent
    ) as process:
        try:
            yield process
        finally:
            if process.poll() is None:
                process.kill()


def answers(process: subprocess.Popen[str], port: int) -> None:
    until = time.monotonic() + 120
    while time.monotonic() < until:
        if process.poll() is not None:
            raise AssertionError(process.communicate()[1])
        try:
            if httpx2.get(f"http://127.0.0.1:{port}/readyz", timeout=5).status_code == 200:
                return
        except httpx2.HTTPError:
            time.sleep(0.1)
    raise AssertionError("no answer")


def signed_in(port: int, email: str, password: str) -> httpx2.Client:
    url = f"http://127.0.0.1:{port}"
    pair = httpx2.post(f"{url}/v1/login", data={"username": email, "password": password}, timeout=30)
    assert pair.status_code == 200, pair.text
    return httpx2.Client(
        base_url=url, headers={"Authorization": f"Bearer {pair.json()['access_token']}"}, timeout=30
    )


def test_the_demo_serves_is_killed_goes_on_where_it_was_and_ends_when_told(copy: Shop) -> None:
    port = free_port()
    with demo(copy.out, port, "--json") as process:
        answers(process, port)
        process.kill()
        told = json.loads(process.communicate()[0])
    people = {one["role"]: one for one in told["people"]}
    assert told["url"] == f"http://127.0.0.1:{port}"
    with demo(copy.out, port, "--json") as process:
        answers(process, port)
        with signed_in(port, people["seller"]["email"], people["seller"]["password"]) as seller:
            added = seller.post("/v1/products", json={"title": "Kept over a restart"})
            assert added.status_code == 201
            until = time.monotonic() + 120
            states: dict[str, int] = {}
            while time.monotonic() < until and states.get("done") != 1 and states.get("failed") != 1:
                jobs = seller.get("/v1/jobs").json()["items"]
                states = {state: sum(job["state"] == state for job in jobs) for state in ("done", "failed")}
                time.sleep(0.2)
        with pytest.raises(InputError, match="another process is writing"), writing_alone(copy.out):
            pass
        with without_settings(copy.out.parent), pytest.raises(InputError, match=f":{port} cannot be listened at"):
            ready_to_serve(copy.out.parent / "another", None, port)
        process.send_signal(Random().choice((signal.SIGINT, signal.SIGTERM)))
        out, err = process.communicate(timeout=60)
        assert process.returncode == 0
        assert json.loads(out)["people"] == []
        assert "stopped; the same command goes on where it was" in err
    assert not (copy.out.parent / "another").exists()
    assert counts(copy.settings)["products"] > counts_of_products(copy)
    log = (copy.out / "service.log").read_text(encoding="utf-8")
    assert not any(one["password"] in log for one in people.values())


def counts_of_products(shop: Shop) -> int:
    """How many products the weeks have left."""
    with open_database(database_url(shop.settings)) as database, database.reading() as session:
        products = Base.metadata.tables["products"]
        return session.scalar(select(func.count()).where(products.c.prediction_id.is_not(None))) or 0


def test_an_example_is_of_the_test_split_and_only_there_where_the_setting_names_a_catalog(
    by_role: dict[str, TestClient], shop: Shop
) -> None:
    known = {p.product_id: p for batch in Catalog.open(shop.out / "catalog").products("test") for p in batch}
    drawn = [got(by_role["seller"], "/v1/examples/random") for _ in range(12)]
    assert len({one["product_id"] for one in drawn}) > 3
    for one in drawn:
        product = known[one["product_id"]]
        assert one["title"] == (clean(product.title) if product.title else None)
        if product.images:
            data = base64.b64decode(one["image_base64"])
            assert (data, sniff(data), one["media_type"]) == (product.images[0], "JPEG", "image/jpeg")
    assert sum(one["title"] is not None and one["image_base64"] is not None for one in drawn) >= 10
    assert by_role["reviewer"].get("/v1/examples/random").status_code == 403
    service = service_behind(by_role["seller"])
    without = dataclasses.replace(service, settings=service.settings.model_copy(update={"examples": None}))
    missing = dataclasses.replace(service, settings=service.settings.model_copy(update={"examples": "gone"}))
    for one, why in ((without, "no catalog is set"), (missing, "'gone' cannot be opened")):
        with pytest.raises(ServiceError, match=why) as refused:
            example_of(one)
        assert refused.value.code == "not_found"
