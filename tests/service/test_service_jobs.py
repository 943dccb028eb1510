"""Jobs: who may start and see them, what state follows which, and that one attempt at a time may write."""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from fastapi.testclient import TestClient
from jobs_rig import code_of, read, start, started, taken
from sqlalchemy import func, select, update

from shelver.service.jobs.leases import (
    LeaseLostError,
    claim,
    extend,
    finish,
    give_back,
    is_over,
    owner_may,
    put_back,
    refuse,
    stopped,
    tell,
    watch,
)
from shelver.service.products.imports import NewProduct, add_products, settled
from shelver.service.products.payloads import ProductBody
from shelver.service.state import Service
from shelver.service.tables.accounts import User
from shelver.service.tables.declarative import new_id, now
from shelver.service.tables.records import ProductRow
from shelver.service.tables.work import JobEventRow, JobRow

AsRole = Callable[..., TestClient]


@pytest.fixture
def seller(as_role: AsRole) -> TestClient:
    return as_role("seller", "Ann")


def events(service: Service, job_id: str) -> list[str]:
    with service.database.reading() as session:
        rows = session.scalars(select(JobEventRow).where(JobEventRow.job_id == job_id)).all()
    rows = sorted(rows, key=lambda row: row.number)
    assert [row.number for row in rows] == list(range(1, len(rows) + 1))
    return [row.kind for row in rows]


def run_out(service: Service, job_id: str) -> None:
    """Let the lease of a job be over."""
    with service.database.writing() as session:
        past = now() - timedelta(seconds=1)
        session.execute(update(JobRow).where(JobRow.id == job_id).values(lease_until=past))


def at_once(service: Service) -> None:
    """Let nothing wait for its next attempt."""
    with service.database.writing() as session:
        session.execute(update(JobRow).values(not_before=now()))


def test_a_job_goes_from_the_queue_through_a_worker_to_its_end(seller: TestClient, service: Service) -> None:
    job = start(seller, kind="predict", format="jsonl")
    assert (job["state"], job["attempts"], job["progress"]["fraction"]) == ("queued", 0, None)
    assert job["params"]["format"] == "jsonl"
    lease = taken(service)
    assert (lease.job_id, lease.kind, lease.attempt) == (job["id"], "predict", 1)
    assert claim(service.database, worker="other", lease_s=60) is None
    tell(service.database, lease, fraction=0.5, phase="predicting", words="half of it")
    running = read(seller, job["id"])
    assert (running["state"], running["progress"]["words"]) == ("running", "half of it")
    finish(service.database, lease, {"n_rows": 3, "files": ["predictions.jsonl"]})
    done = read(seller, job["id"])
    assert (done["state"], done["result"], done["files"]) == ("done", {"n_rows": 3}, ["predictions.jsonl"])
    assert done["created_at"] <= done["started_at"] <= done["ended_at"]
    assert events(service, job["id"]) == ["queued", "started", "progress", "done"]
    assert watch(service.database, lease) == "ended"
    assert is_over(service.database, job["id"])


def test_the_job_that_waits_longest_is_taken_first(seller: TestClient, service: Service) -> None:
    ids = [started(seller) for _ in range(3)]
    assert [taken(service).job_id for _ in ids] == ids


def test_who_has_no_job_at_work_comes_before_who_has_one(
    seller: TestClient, as_role: AsRole, service: Service
) -> None:
    mine = [started(seller) for _ in range(2)]
    his = started(as_role("seller"))
    assert [taken(service).job_id for _ in range(3)] == [mine[0], his, mine[1]]


def test_a_worker_of_some_kinds_leaves_the_others(seller: TestClient, service: Service) -> None:
    started(seller)
    assert claim(service.database, worker="test", lease_s=60, kinds=("train",)) is None
    assert claim(service.database, worker="test", lease_s=60, kinds=("train", "predict")) is not None


def test_an_attempt_that_lost_its_lease_can_write_nothing(seller: TestClient, service: Service) -> None:
    job_id = started(seller)
    old = taken(service)
    run_out(service, job_id)
    assert claim(service.database, worker="other", lease_s=60) is None  # it goes back first, and waits a moment
    at_once(service)
    new = taken(service)
    assert (new.job_id, new.attempt) == (job_id, 2)
    database = service.database
    changes: tuple[Callable[[], None], ...] = (
        lambda: extend(database, old),
        lambda: tell(database, old, fraction=None, phase="x", words="x"),
        lambda: finish(database, old, {}),
        lambda: refuse(database, old, code="internal", detail="x"),
        lambda: give_back(database, old),
        lambda: put_back(database, old, "x"),
        lambda: stopped(database, old),
        lambda: add_products(database, old, [], owner_id=old.owner_id, settle=(0, 1), note=lambda _: {}),
    )
    for change in changes:
        with pytest.raises(LeaseLostError):
            change()
    assert watch(database, old) == "lost"
    assert watch(database, new) == "go_on"
    finish(database, new, {})
    with pytest.raises(LeaseLostError):
        finish(database, new, {})
    assert events(service, job_id) == ["queued", "started", "put_back", "started", "done"]


def test_an_attempt_that_says_it_is_alive_keeps_its_lease(seller: TestClient, service: Service) -> None:
    job_id = started(seller)
    lease = taken(service)
    run_out(service, job_id)
    extend(service.database, lease)
    at_once(service)
    assert claim(service.database, worker="other", lease_s=60) is None
    finish(service.database, lease, {})


def test_after_the_last_attempt_a_job_fails_and_says_why(seller: TestClient, service: Service) -> None:
    job_id = started(seller)
    for _ in range(3):
        at_once(service)
        put_back(service.database, taken(service), "its process ended with signal 9")
    failed = read(seller, job_id)
    assert (failed["state"], failed["attempts"]) == ("failed", 3)
    assert "attempt 3 of 3" in failed["problem"]["detail"]
    assert "signal 9" in failed["problem"]["detail"]
    at_once(service)
    assert claim(service.database, worker="test", lease_s=60) is None


def test_a_lease_that_runs_out_in_the_last_attempt_fails_the_job(seller: TestClient, service: Service) -> None:
    job_id = started(seller)
    for _ in range(3):
        taken(service)
        run_out(service, job_id)
        assert claim(service.database, worker="test", lease_s=60) is None
        at_once(service)
    assert read(seller, job_id)["state"] == "failed"


def test_a_job_that_a_worker_gives_back_has_lost_no_attempt(seller: TestClient, service: Service) -> None:
    job_id = started(seller)
    give_back(service.database, taken(service))
    assert read(seller, job_id)["attempts"] == 0
    assert taken(service).attempt == 1
    assert events(service, job_id) == ["queued", "started", "given_back", "started"]


def test_a_job_is_cancelled_while_it_waits_and_while_it_runs(seller: TestClient, service: Service) -> None:
    waiting = started(seller)
    assert seller.post(f"/v1/jobs/{waiting}/cancel").json()["state"] == "cancelled"
    assert claim(service.database, worker="test", lease_s=60) is None
    running = started(seller)
    lease = taken(service)
    asked = seller.post(f"/v1/jobs/{running}/cancel").json()
    assert (asked["state"], asked["cancel_requested"]) == ("running", True)
    assert watch(service.database, lease) == "cancel"
    stopped(service.database, lease)
    again = seller.post(f"/v1/jobs/{running}/cancel")
    assert (again.status_code, again.json()["state"]) == (200, "cancelled")
    assert events(service, running) == ["queued", "started", "cancel_requested", "cancelled"]


@pytest.mark.parametrize("change", [give_back, lambda database, lease: put_back(database, lease, "it died")])
def test_a_job_to_be_cancelled_does_not_go_back_to_the_queue(
    seller: TestClient, service: Service, change: Callable[..., None]
) -> None:
    job_id = started(seller)
    lease = taken(service)
    seller.post(f"/v1/jobs/{job_id}/cancel")
    change(service.database, lease)
    assert read(seller, job_id)["state"] == "cancelled"


def test_of_workers_that_ask_at_once_each_job_goes_to_one(
    as_role: AsRole, make_app: Any, service: Service
) -> None:
    sellers = [as_role("seller") for _ in range(2)]
    ids = [started(seller) for seller in sellers for _ in range(6)]
    found: list[str] = []

    def ask_patiently() -> None:
        for _ in range(200):  # others may just be taking all that a claim has seen
            lease = claim(service.database, worker="test", lease_s=60)
            if lease is not None:
                found.append(lease.job_id)
            elif len(found) >= len(ids):
                return

    threads = [threading.Thread(target=ask_patiently) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(found) == sorted(ids)


def test_products_of_an_import_are_added_with_its_cursor_or_not_at_all(
    seller: TestClient, service: Service
) -> None:
    started(seller)
    lease = taken(service)
    one = NewProduct(new_id(), ProductBody(title="chair"), None, ())

    def add(settle: tuple[int, int]) -> None:
        add_products(
            service.database,
            lease,
            [one],
            owner_id=lease.owner_id,
            settle=settle,
            note=lambda _: {},
        )

    add((0, 5))
    assert settled(service.database, lease) == 5
    with pytest.raises(LeaseLostError):
        add((0, 5))
    with service.database.reading() as session:
        assert session.scalar(select(func.count()).select_from(ProductRow)) == 1
    assert [item["title"] for item in seller.get("/v1/products").json()["items"]] == ["chair"]


def test_the_same_key_gives_the_same_job_again(seller: TestClient, as_role: AsRole) -> None:
    key = {"Idempotency-Key": "one"}
    first = seller.post("/v1/jobs", json={"kind": "predict"}, headers=key)
    again = seller.post("/v1/jobs", json={"kind": "predict", "format": "csv"}, headers=key)
    assert again.json() == first.json()
    assert "Idempotency-Replayed" not in first.headers
    assert again.headers["Idempotency-Replayed"] == "true"
    other = seller.post("/v1/jobs", json={"kind": "predict", "format": "parquet"}, headers=key)
    assert code_of(other) == (409, "key_reused")
    assert start(as_role("seller"), headers=key, kind="predict")["id"] != first.json()["id"]
    assert len(seller.get("/v1/jobs").json()["items"]) == 1


def test_the_owner_of_a_job_may_be_gone_by_the_time_it_runs(seller: TestClient, service: Service) -> None:
    started(seller)
    lease = taken(service)
    assert owner_may(service.database, lease) == "seller"
    with service.database.writing() as session:
        session.execute(update(User).values(disabled_at=now()))
    assert owner_may(service.database, lease) is None
    assert watch(service.database, lease) == "cancel"
    with pytest.raises(LeaseLostError):
        add_products(service.database, lease, [], owner_id=lease.owner_id, settle=(0, 1), note=lambda _: {})
