"""Helpers of the tests of jobs."""

from __future__ import annotations

from typing import Any

from fastapi.testclient import TestClient

from shelver.service.jobs.leases import Lease, claim
from shelver.service.jobs.workplace import Workplace
from shelver.service.state import Service

FEED = b"id,title,category\n1,folding deck chair,Home > Chairs > Deck\n"


def upload(client: TestClient, feed: bytes = FEED, name: str = "feed.csv") -> str:
    answer = client.post("/v1/uploads", content=feed, params={"name": name})
    assert answer.status_code == 201, answer.text
    return str(answer.json()["id"])


def start(client: TestClient, headers: dict[str, str] | None = None, **said: Any) -> dict[str, Any]:
    answer = client.post("/v1/jobs", json=said, headers=headers)
    assert answer.status_code == 201, answer.text
    job: dict[str, Any] = answer.json()
    return job


def started(client: TestClient) -> str:
    return str(start(client, kind="predict")["id"])


def read(client: TestClient, job_id: str) -> dict[str, Any]:
    job: dict[str, Any] = client.get(f"/v1/jobs/{job_id}").json()
    return job


def taken(service: Service, lease_s: float = 60.0) -> Lease:
    lease = claim(service.database, worker="test", lease_s=lease_s)
    assert lease is not None
    return lease


def code_of(answer: Any) -> tuple[int, str]:
    return answer.status_code, answer.json()["code"]


def workplace_of(service: Service) -> Workplace:
    """What a worker of this process works with."""
    return Workplace(
        data=service.settings.data,
        database=service.database,
        pictures=service.pictures,
        store=service.models.store,
        threads=1,
        limit_s=60,
        review_below=0.5,
        keep_days=1,
    )
