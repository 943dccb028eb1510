"""The routes of jobs and uploads: who may start and see what, and what is refused at once."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from fastapi.testclient import TestClient
from jobs_rig import FEED, code_of, start, started, taken, upload
from service_rig import service_behind, signed_in
from sqlalchemy import select

from shelver.service.jobs.keeping import days_ago, drop_old_jobs, drop_old_uploads, erase_work_of, job_folder
from shelver.service.jobs.leases import finish, give_back, stopped, watch
from shelver.service.state import Service
from shelver.service.tables.accounts import AuditEntry
from shelver.service.tables.declarative import now
from shelver.service.tables.work import JobRow

AsRole = Callable[..., TestClient]


def token_of_job(service: Service, job_id: str) -> str:
    with service.database.reading() as session:
        return str(session.get_one(JobRow, job_id).lease_token)


@pytest.fixture
def seller(as_role: AsRole) -> TestClient:
    return as_role("seller", "Ann")


def test_others_jobs_are_not_there_for_a_seller(seller: TestClient, as_role: AsRole, service: Service) -> None:
    job_id = started(seller)
    for role in ("seller", "service"):
        other = as_role(role)
        for answer in (
            other.get(f"/v1/jobs/{job_id}"),
            other.post(f"/v1/jobs/{job_id}/cancel"),
            other.get(f"/v1/jobs/{job_id}/events"),
            other.get(f"/v1/jobs/{job_id}/files/predictions.csv"),
        ):
            assert code_of(answer) == (404, "not_found")
        assert other.get("/v1/jobs").json()["items"] == []
    for role in ("reviewer", "admin"):
        assert as_role(role).get(f"/v1/jobs/{job_id}").json()["id"] == job_id
    assert code_of(as_role("reviewer").post(f"/v1/jobs/{job_id}/cancel")) == (403, "not_allowed")
    assert as_role("admin").post(f"/v1/jobs/{job_id}/cancel").json()["state"] == "cancelled"


def test_sellers_and_machines_start_what_concerns_their_own_products(as_role: AsRole, service: Service) -> None:
    tree_jobs: list[dict[str, Any]] = [{"kind": "train"}, {"kind": "reset_demo"}]
    for role in ("seller", "service"):
        client = as_role(role)
        start(client, kind="predict")
        start(client, kind="import_products", upload_id=upload(client))
        for said in tree_jobs:
            assert code_of(client.post("/v1/jobs", json=said)) == (403, "not_allowed")
        version = service.models.current().model_version
        named = {"kind": "predict", "model_version": version}
        assert code_of(client.post("/v1/jobs", json=named)) == (403, "not_allowed")
    admin = as_role("admin")
    for said in tree_jobs:
        start(admin, **said)
    assert code_of(as_role("reviewer").post("/v1/jobs", json={"kind": "predict"})) == (403, "not_allowed")


def test_what_a_job_names_must_be_there(seller: TestClient, as_role: AsRole) -> None:
    admin = as_role("admin")
    foreign = upload(admin)
    for client, said, expected in (
        (seller, {"kind": "import_products", "upload_id": foreign}, (404, "not_found")),
        (seller, {"kind": "import_products"}, (422, "invalid_input")),
        (seller, {"kind": "bake_bread"}, (422, "invalid_input")),
        (seller, {"kind": "predict", "policy": "nobody's"}, (422, "invalid_input")),
        (seller, {"kind": "predict", "surprise": 1}, (422, "invalid_input")),
        (seller, {"kind": "predict", "mapping": {"columns": {"sort": "x"}}}, (422, "invalid_input")),
        (seller, {"kind": "predict", "mapping": {"image_folder": "/etc"}}, (422, "invalid_input")),
        (admin, {"kind": "predict", "model_version": "0" * 12}, (404, "not_found")),
        (admin, {"kind": "evaluate", "catalog": "nowhere"}, (404, "not_found")),
        (admin, {"kind": "evaluate", "catalog": "../secret"}, (422, "invalid_input")),
        (admin, {"kind": "train", "catalog": "nowhere"}, (404, "not_found")),
        (admin, {"kind": "train", "text_encoder": "hf:someone/something"}, (422, "invalid_input")),
    ):
        assert code_of(client.post("/v1/jobs", json=said)) == expected, said
    assert seller.get("/v1/jobs").json()["items"] == []
    catalog = admin.post("/v1/jobs", json={"kind": "train", "catalog": "nowhere"}).json()["detail"]
    assert "no catalog nowhere" in catalog
    assert "`catalogs/`" in catalog
    assert "is yours" not in catalog


def test_an_account_may_have_so_many_jobs_at_a_time(make_app: Callable[..., TestClient]) -> None:
    client = signed_in(make_app(jobs_waiting=2), "seller")
    first = started(client)
    started(client)
    refused = client.post("/v1/jobs", json={"kind": "predict"})
    assert code_of(refused) == (429, "too_many_requests")
    assert int(refused.headers["Retry-After"]) > 0
    client.post(f"/v1/jobs/{first}/cancel")
    started(client)


def test_jobs_are_listed_newest_first_and_filtered(seller: TestClient, service: Service) -> None:
    ids = [started(seller) for _ in range(3)]
    finish(service.database, taken(service), {})
    page = seller.get("/v1/jobs", params={"limit": 2}).json()
    rest = seller.get("/v1/jobs", params={"limit": 2, "after": page["next"]}).json()
    assert [job["id"] for job in [*page["items"], *rest["items"]]] == ids[::-1]
    assert rest["next"] is None
    assert [job["id"] for job in seller.get("/v1/jobs?state=done").json()["items"]] == ids[:1]
    assert seller.get("/v1/jobs?kind=train").json()["items"] == []


def test_starting_and_cancelling_stand_in_the_audit(seller: TestClient, service: Service) -> None:
    job_id = started(seller)
    seller.post(f"/v1/jobs/{job_id}/cancel")
    with service.database.reading() as session:
        rows = session.scalars(select(AuditEntry).where(AuditEntry.subject == job_id)).all()
    assert sorted(row.action for row in rows) == ["job.cancel", "job.start"]


def test_the_same_bytes_are_one_upload_of_each_owner(
    seller: TestClient, as_role: AsRole, service: Service
) -> None:
    first = upload(seller)
    assert upload(seller, name="again.csv") == first
    other = as_role("seller")
    second = upload(other)
    assert second != first
    form = seller.post("/v1/uploads", files={"file": ("feed.csv", FEED, "text/csv")})
    assert (form.status_code, form.json()["id"]) == (201, first)
    files = [path for path in (service.settings.data / "uploads").rglob("*") if path.is_file()]
    assert [path.read_bytes() for path in files] == [FEED]
    assert [item["id"] for item in seller.get("/v1/uploads").json()["items"]] == [first]
    assert code_of(other.delete(f"/v1/uploads/{first}")) == (404, "not_found")
    assert other.delete(f"/v1/uploads/{second}").status_code == 204
    assert files[0].is_file()
    # What has just come in may be about to be named by somebody else, and stays for a while.
    assert seller.delete(f"/v1/uploads/{first}").status_code == 204
    assert files[0].is_file()
    os.utime(files[0], (time.time() - 7200,) * 2)
    kept = upload(seller, b"another")
    assert drop_old_uploads(service.database, service.settings.data, days_ago(0)) == 0
    assert not files[0].exists()
    assert drop_old_uploads(service.database, service.settings.data, now()) == 1
    assert seller.get("/v1/uploads").json()["items"] == []
    assert kept


def test_an_upload_may_be_larger_than_other_requests_but_not_than_the_limit(
    make_app: Callable[..., TestClient],
) -> None:
    client = signed_in(make_app(body_max_bytes=2000, upload_max_bytes=5000), "seller")
    data = service_behind(client).settings.data
    assert upload(client, b"x" * 4000)
    for refused in (
        client.post("/v1/uploads", content=b"y" * 6000),
        client.post("/v1/uploads", content=iter([b"y" * 3000] * 2)),
        client.post("/v1/uploads", files={"file": ("feed.csv", b"y" * 6000, "text/csv")}),
        client.post("/v1/products", json={"title": "x", "description": "y" * 3000}),
    ):
        assert code_of(refused) == (413, "too_large")
    for empty in (client.post("/v1/uploads"), client.post("/v1/uploads", files={"other": b"x"})):
        assert code_of(empty) == (422, "invalid_input")
    for i in range(4):
        answer = client.post("/v1/uploads", content=str(i).encode() * 4500)
    assert code_of(answer) == (413, "too_large")  # of one account together
    files = [path for path in (data / "uploads").rglob("*") if path.is_file()]
    assert len(files) == 4


def test_parameters_have_an_end(seller: TestClient) -> None:
    for columns in ({"title": ["x"] * 21}, {f"attribute {i}": "x" for i in range(51)}):
        refused = seller.post("/v1/jobs", json={"kind": "predict", "mapping": {"columns": columns}})
        assert code_of(refused) == (422, "invalid_input")
    long = {f"a{i}": "x" * 255 for i in range(200)}
    refused = seller.post("/v1/jobs", json={"kind": "predict", "mapping": {"attributes": long}})
    assert code_of(refused) == (413, "too_large")


def test_the_work_of_who_has_left_is_deleted(seller: TestClient, as_role: AsRole, service: Service) -> None:
    other = as_role("seller")
    stays, ended, runs = started(other), started(seller), started(seller)
    upload(seller)
    folder = job_folder(service.settings.data, ended)
    folder.mkdir(parents=True)
    lease = next(one for one in (taken(service), taken(service), taken(service)) if one.job_id == runs)
    give_back(service.database, replace(lease, job_id=ended, token=token_of_job(service, ended)))
    erase_work_of(service.database, service.settings.data, seller.headers["X-User"])
    assert [job["id"] for job in seller.get("/v1/jobs").json()["items"]] == [runs]
    assert not folder.exists()
    assert seller.get("/v1/uploads").json()["items"] == []
    assert watch(service.database, lease) == "cancel"
    stopped(service.database, lease)
    assert drop_old_jobs(service.database, service.settings.data, now()) == 1
    assert other.get(f"/v1/jobs/{stays}").status_code == 200
