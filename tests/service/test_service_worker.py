"""`shelver worker`: jobs done by real processes, from the route to the result, and taken up again after a kill."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fastapi.testclient import TestClient
from jobs_rig import read, start, upload
from service_rig import service_behind, signed_in
from sqlalchemy import func, select

from shelver.catalog.store import Catalog
from shelver.service.accounts import secret
from shelver.service.products.imports import DEMO_OWNER
from shelver.service.state import Service
from shelver.service.tables.accounts import AuditEntry
from shelver.service.tables.records import PictureRow, PredictionRow, ProductRow
from shelver.service.tables.work import JobEventRow, JobRow

AsRole = Callable[..., TestClient]
Draw = Callable[[tuple[int, int, int], int], bytes]
N_KILLS = 4


@pytest.fixture
def seller(as_role: AsRole) -> TestClient:
    return as_role("seller", "Ann")


def worker(service: Service, *arguments: str, **environment: str) -> subprocess.Popen[bytes]:
    """A worker of this service, as `shelver worker` starts it."""
    settings = service.settings
    call = [sys.executable, "-m", "shelver", "worker", "--data", str(settings.data)]
    call += ["--database", secret.database_url(settings), *arguments]
    small = {"OMP_NUM_THREADS": "1", "SHELVER_SERVICE_THREADS": "1", **environment}
    return subprocess.Popen(call, env={**os.environ, **small}, start_new_session=True)


@contextmanager
def workers(service: Service, n: int = 1, *arguments: str, **environment: str) -> Iterator[list[Any]]:
    """Workers as long as the block runs."""
    with ExitStack() as stack:
        started = []
        for _ in range(n):
            process = worker(service, *arguments, **environment)
            stack.callback(kill, process)
            started.append(process)
        yield started


def kill(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.wait()


def once(service: Service, **environment: str) -> None:
    """Let a worker do one job."""
    process = worker(service, "--once", **environment)
    try:
        assert process.wait(280) == 0
    finally:
        kill(process)


def until(client: TestClient, job_id: str, *states: str, seconds: float = 280) -> dict[str, Any]:
    """The job, once it is in one of these states."""
    ends = time.monotonic() + seconds
    while time.monotonic() < ends:
        job = read(client, job_id)
        if job["state"] in states:
            return job
        assert job["state"] not in ("failed", "cancelled"), job
        time.sleep(0.05)
    raise AssertionError(f"still {job}")


def lines_of(client: TestClient, job: dict[str, Any], name: str) -> list[dict[str, Any]]:
    answer = client.get(f"/v1/jobs/{job['id']}/files/{name}")
    assert answer.status_code == 200, answer.text
    return [json.loads(line) for line in answer.text.splitlines()]


def count(service: Service, table: Any) -> int:
    with service.database.reading() as session:
        return int(session.scalar(select(func.count()).select_from(table)) or 0)


def write_feed(path: Path, draw: Draw) -> Path:
    """Seven rows: two good ones, an empty one, an id twice, a bad picture, an unknown category, a long title."""
    good, bad = draw((200, 20, 20), 1), b"\x89PNG\r\n\x1a\nbroken"
    rows = [
        {"id": "a", "title": "bar stool", "category": "Home > Chairs > Bar", "image": good, "color": "red"},
        {"id": "b", "title": None, "category": "Home > Lamps", "image": good, "color": None},
        {"id": "c", "title": None, "category": "Home > Lamps", "image": None, "color": None},
        {"id": "a", "title": "bar stool again", "category": None, "image": None, "color": None},
        {"id": "d", "title": "lamp", "category": "Home > Lamps", "image": bad, "color": None},
        {"id": "e", "title": "boat", "category": "Sea > Boats", "image": None, "color": None},
        {"id": "f", "title": "x" * 1001, "category": None, "image": None, "color": None},
    ]
    pq.write_table(pa.Table.from_pylist(rows), path)
    return path


def test_a_feed_becomes_products_and_what_is_refused_is_reported(
    seller: TestClient, service: Service, tmp_path: Path, draw: Draw
) -> None:
    feed = write_feed(tmp_path / "feed.parquet", draw)
    job = start(seller, kind="import_products", upload_id=upload(seller, feed.read_bytes(), "feed.parquet"))
    once(service)
    done = until(seller, job["id"], "done")
    result = done["result"]
    assert (result["n_rows"], result["n_added"], result["n_rejected"]) == (7, 4, 3)
    assert result["rejected"] == {"empty_product": 1, "duplicate_id": 1, "wrong_type": 1}
    assert result["warnings"]["unknown_category"] == 1
    assert sum(result["warnings"].values()) == 2
    imported, rejected = (lines_of(seller, done, f"{name}.jsonl") for name in ("imported", "rejected"))
    assert [line["product_id"] for line in imported] == ["a", "b", "d", "e"]
    assert [line["product_id"] for line in rejected] == ["c", "a", "f"]
    assert [line["line"] for line in rejected] == [3, 4, 7]
    assert rejected[2]["field"] == "title"
    products = {item["id"]: item for item in seller.get("/v1/products").json()["items"]}
    assert products.keys() == {line["id"] for line in imported}
    first, second, third, fourth = (products[line["id"]] for line in imported)
    assert (first["path"], first["attributes"]) == ("Home > Chairs > Bar", {"color": ["red"]})
    assert first["pictures"] == second["pictures"]
    assert seller.get(f"/v1/pictures/{first['pictures'][0]}").content == draw((200, 20, 20), 1)
    assert (third["pictures"], third["path"]) == ([], "Home > Lamps")
    assert (fourth["title"], fourth["node_id"]) == ("boat", None)
    assert count(service, PictureRow) == 1
    assert seller.get(f"/v1/jobs/{job['id']}/files/secret").status_code == 404
    assert not (service.settings.data / "jobs" / job["id"] / "work").exists()


def test_a_feed_that_cannot_be_read_fails_its_job_with_a_sentence(seller: TestClient, service: Service) -> None:
    sent = upload(seller, b"PK\x03\x04 a spreadsheet", "feed.xlsx")
    job = start(seller, kind="import_products", upload_id=sent)
    gone = start(seller, kind="import_products", upload_id=upload(seller))
    seller.delete(f"/v1/uploads/{gone['params']['upload_id']}")
    with workers(service):
        ended = [until(seller, one["id"], "failed") for one in (job, gone)]
    for failed in ended:
        assert (failed["state"], failed["attempts"], failed["problem"]["code"]) == ("failed", 1, "invalid_input")
        assert str(service.settings.data) not in failed["problem"]["detail"]


def test_a_whole_feed_and_ones_own_products_are_answered(seller: TestClient, service: Service) -> None:
    feed = b"id,title\n" + b"".join(
        b"%s,racing car no. %d\n" % (b"=1+1" if not i else b"p%d" % i, i) for i in range(300)
    )
    job = start(seller, kind="predict", upload_id=upload(seller, feed))
    added = seller.post("/v1/products", json={"title": "reading lamp with shade"}).json()
    own = start(seller, kind="predict", format="jsonl")
    with workers(service):
        done, whole = (until(seller, one["id"], "done") for one in (job, own))
    assert done["result"]["n_rows"] == 300
    answer = seller.get(f"/v1/jobs/{job['id']}/files/predictions.csv")
    assert answer.headers["Content-Disposition"] == 'attachment; filename="predictions.csv"'
    rows = list(csv.DictReader(answer.text.splitlines()))
    assert [row["product_id"] for row in rows] == ["'=1+1", *[f"p{i}" for i in range(1, 300)]]
    assert {row["path"] for row in rows} == {"Toys > Cars"}
    (mine,) = lines_of(seller, whole, "predictions.jsonl")
    assert (mine["product_id"], mine["path"]) == (added["id"], "Home > Lamps")
    assert count(service, PredictionRow) == 301
    log = seller.get("/v1/predictions", params={"product_id": added["id"]}).json()["items"]
    assert [entry["outcome"] for entry in log] == ["decided"]


def with_catalog(service: Service, catalog: Catalog) -> None:
    catalogs = service.settings.data / "catalogs"
    catalogs.mkdir()
    (catalogs / "tiny").symlink_to(catalog.folder)


LITTLE: dict[str, Any] = {
    "text_encoder": "ngram",
    "image_encoder": "none",
    "epochs": 2,
    "folds": 0,
    "refit": False,
}


@pytest.mark.timeout(900)
def test_a_model_is_trained_on_stored_products_registered_judged_and_used(
    as_role: AsRole, service: Service, tiny_feed: Path, tiny_catalog: Catalog
) -> None:
    admin, seller = as_role("admin"), as_role("seller")
    with_catalog(service, tiny_catalog)
    start(seller, kind="import_products", upload_id=upload(seller, tiny_feed.read_bytes(), "feed.parquet"))
    job = start(admin, kind="train", seed=3, **LITTLE)
    with workers(service):
        done = until(admin, job["id"], "done")
        result = done["result"]
        version = result["model_version"]
        judged = start(admin, kind="evaluate", catalog="tiny", model_version=version)
        assert until(admin, judged["id"], "done")["result"]["n"] > 20
    assert result["n_stored"] == result["n_stored_used"] == count(service, ProductRow) == 150
    assert result["test"]["n"] > 0
    assert "report.json" in done["files"]
    (model,) = [one for one in admin.get("/v1/models").json()["models"] if one["model_version"] == version]
    assert (model["source"], model["aliases"], model["has_report"]) == (f"job-{job['id']}", [], True)
    assert service.models.current().model_version != version
    with service.database.reading() as session:
        noted = session.scalars(select(AuditEntry).where(AuditEntry.subject == version)).one()
    assert json.loads(noted.detail)["job"] == job["id"]
    assert {"queued", "started", "progress", "done"} == {row.kind for row in events_of(service, job["id"])}
    promoted = admin.post(f"/v1/models/{version}/promote")
    assert promoted.status_code == 200, promoted.text
    answer = seller.post("/v1/predict", json={"title": "folding deck chair"}).json()
    assert (answer["versions"]["model"], answer["path"]) == (version, "Home > Chairs > Deck")


@pytest.mark.drill
@pytest.mark.timeout(1800)
def test_a_training_killed_again_and_again_goes_on_to_the_model_of_an_unbroken_one(
    make_app: Callable[..., TestClient], tiny_catalog: Catalog
) -> None:
    client = make_app(job_attempts=50)
    service = service_behind(client)
    with_catalog(service, tiny_catalog)
    admin = signed_in(client, "admin")
    admin.post(
        "/v1/products", json={"title": "bar stool no. 1", "node_id": service.models.current().taxonomy.ids[0]}
    )
    said = {**LITTLE, "epochs": 40, "catalog": "tiny", "seed": 5}
    unbroken, broken = (start(admin, kind="train", **said) for _ in range(2))
    once(service)
    for number in range(5):
        with workers(service, 1, "--lease", "2"):
            until(admin, broken["id"], "running", "done")
            time.sleep(3 + 2 * number)
    with workers(service, 1, "--lease", "2"):
        results = [until(admin, job["id"], "done")["result"] for job in (unbroken, broken)]
    assert results[0]["model_version"] == results[1]["model_version"]
    assert results[0]["n_catalog"] == 150
    assert results[0]["n_stored"] == 1


def events_of(service: Service, job_id: str) -> list[JobEventRow]:
    with service.database.reading() as session:
        rows = session.scalars(
            select(JobEventRow).where(JobEventRow.job_id == job_id).order_by(JobEventRow.number)
        ).all()
    assert [row.number for row in rows] == list(range(1, len(rows) + 1))
    return list(rows)


def test_the_demo_is_brought_back_to_where_it_started(as_role: AsRole, service: Service) -> None:
    admin = as_role("admin")
    kept = admin.post("/v1/products", json={"title": "mine"}).json()
    with workers(service):
        for _ in range(2):
            job = start(admin, kind="reset_demo", n_products=40)
            done = until(admin, job["id"], "done")
            assert done["result"]["n_added"] == 40
            assert done["result"]["owner_id"] == DEMO_OWNER
            assert count(service, ProductRow) == 41
    assert admin.get(f"/v1/products/{kept['id']}").status_code == 200
    assert Catalog.open(service.settings.data / "catalogs" / "demo").info.n_products == 40


def large_feed(n: int, name: str = "x") -> bytes:
    return b"id,title\n" + b"".join(b"%s-%d,%s %d\n" % (name.encode(), i, name.encode(), i) for i in range(n))


def test_a_running_job_is_cancelled_with_all_its_processes(seller: TestClient, service: Service) -> None:
    job = start(seller, kind="import_products", upload_id=upload(seller, large_feed(200_000)))
    with workers(service) as (process,):
        until(seller, job["id"], "running")
        child = only_child(process)
        seller.post(f"/v1/jobs/{job['id']}/cancel")
        assert until(seller, job["id"], "cancelled", "done")["state"] == "cancelled"
        assert not child.is_running() or child.status() == psutil.STATUS_ZOMBIE
        assert process.poll() is None


def only_child(process: subprocess.Popen[bytes]) -> psutil.Process:
    ends = time.monotonic() + 100
    while time.monotonic() < ends:
        children = psutil.Process(process.pid).children()
        if children:
            return children[0]
        time.sleep(0.02)
    raise AssertionError("no child")


def test_a_worker_that_is_told_to_stop_gives_its_job_back_and_another_goes_on(
    seller: TestClient, service: Service
) -> None:
    job = start(seller, kind="import_products", upload_id=upload(seller, large_feed(3000)))
    with workers(service) as (process,):
        moved(service, job["id"], 300)
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
    back = read(seller, job["id"])
    assert (back["state"], back["attempts"]) == ("queued", 0)
    n_before = count(service, ProductRow)
    assert 0 < n_before < 3000
    once(service)
    assert until(seller, job["id"], "done")["result"]["n_added"] == 3000
    assert count(service, ProductRow) == 3000
    assert [row.kind for row in events_of(service, job["id"]) if row.kind != "progress"] == [
        "queued",
        "started",
        "given_back",
        "started",
        "done",
    ]


def moved(service: Service, job_id: str, n: int) -> None:
    """Wait until so many records are settled."""
    ends = time.monotonic() + 200
    while time.monotonic() < ends:
        with service.database.reading() as session:
            if (session.scalar(select(JobRow.cursor).where(JobRow.id == job_id)) or 0) >= n:
                return
        time.sleep(0.02)
    raise AssertionError("nothing moves")


def test_a_job_that_takes_too_long_is_ended(seller: TestClient, service: Service) -> None:
    job = start(seller, kind="import_products", upload_id=upload(seller, large_feed(200_000)))
    once(service, SHELVER_SERVICE_JOB_LIMIT_S="4")
    failed = read(seller, job["id"])
    assert (failed["state"], failed["problem"]["code"]) == ("failed", "too_large")


def busy_one(running: list[subprocess.Popen[bytes]]) -> int | None:
    """A worker whose process of a job has just begun or goes on; None where none has one for a while."""
    ends = time.monotonic() + 60
    while time.monotonic() < ends:
        for number, process in enumerate(running):
            if psutil.Process(process.pid).children():
                return number
        time.sleep(0.05)
    return None


def kill_and_see(
    client: TestClient, service: Service, *, n_jobs: int, n_rows: int, n_kills: int, pause_s: float
) -> None:
    """Two workers that are killed again and again: every record of every job counts once."""
    feeds = [upload(client, large_feed(n_rows, f"job{i}")) for i in range(n_jobs)]
    imports = [start(client, kind="import_products", upload_id=feed)["id"] for feed in feeds]
    answers = [start(client, kind="predict", upload_id=feeds[0])["id"]]
    running = [worker(service, "--lease", "2") for _ in range(2)]
    try:
        for number in range(n_kills):
            # Of the two, one that works; then at a moment that nobody chose.
            busy = busy_one(running)
            if busy is None:
                break  # all is done already
            time.sleep(pause_s * (0.2 + number % 7 / 10))
            kill(running[busy])
            running[busy] = worker(service, "--lease", "2")
        jobs = [until(client, job_id, "done", seconds=900) for job_id in (*imports, *answers)]
    finally:
        for process in running:
            kill(process)
    assert sum(job["attempts"] for job in jobs) > len(jobs)
    for job in jobs:
        assert job["result"]["n_rows"] == n_rows
        kinds = [row.kind for row in events_of(service, job["id"])]
        assert kinds.count("done") == 1
        assert kinds.count("started") == kinds.count("put_back") + 1
    for at, job in enumerate(jobs[: len(imports)]):
        lines = lines_of(client, job, "imported.jsonl")
        assert [line["product_id"] for line in lines] == [f"job{at}-{i}" for i in range(n_rows)]
    with service.database.reading() as session:
        titles = session.scalars(select(ProductRow.title)).all()
    assert sorted(map(str, titles)) == sorted(f"job{i} {row}" for i in range(n_jobs) for row in range(n_rows))
    assert count(service, PredictionRow) == n_rows
    rows = list(csv.DictReader(client.get(f"/v1/jobs/{answers[0]}/files/predictions.csv").text.splitlines()))
    assert [row["product_id"] for row in rows] == [f"job0-{i}" for i in range(n_rows)]


def test_two_workers_killed_four_times_do_each_job_once(make_app: Callable[..., TestClient]) -> None:
    client = make_app(job_attempts=50)
    kill_and_see(*seller_of(client), n_jobs=2, n_rows=1500, n_kills=N_KILLS, pause_s=2.0)


@pytest.mark.drill
@pytest.mark.timeout(1800)
def test_two_workers_killed_thirty_times_do_each_job_once(make_app: Callable[..., TestClient]) -> None:
    client = make_app(job_attempts=100)
    kill_and_see(*seller_of(client), n_jobs=6, n_rows=8000, n_kills=30, pause_s=3.0)


def seller_of(client: TestClient) -> tuple[TestClient, Service]:
    return signed_in(client, "seller"), service_behind(client)
