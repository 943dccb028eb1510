"""Policies over HTTP: those of the model, and before them the service's own."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import select

from shelver.decide import DEEPEST, Policy
from shelver.errors import ConfigError
from shelver.service.state import Service
from shelver.service.tables.accounts import AuditEntry

As = Callable[..., TestClient]


def test_a_policy_is_written_read_and_deleted_and_decides_at_once(as_role: As, service: Service) -> None:
    admin, seller = as_role("admin"), as_role("seller")
    node_id = service.models.current().taxonomy.ids[0]
    body = {"decoder": "climb", "thresholds": [0.5, 0.7], "strict": {node_id: 0.9}}
    written = admin.put("/v1/policies/wary", json=body)
    assert written.status_code == 200, written.text
    assert written.json()["kept_by"] == "service"
    assert written.json()["changed_by"] == admin.headers["X-User"]
    assert service.models.policy("wary") == Policy.model_validate(body)
    assert seller.get("/v1/policies/wary").json() == written.json()
    listed = seller.get("/v1/policies").json()
    assert [(one["name"], one["kept_by"]) for one in listed["policies"]] == [
        ("default", "model"),
        ("wary", "service"),
    ]
    assert admin.put("/v1/policies/wary", json={"decoder": "greedy"}).status_code == 200
    assert service.models.policy("wary").decoder == "greedy"
    assert admin.delete("/v1/policies/wary").status_code == 204
    for gone in (admin.delete("/v1/policies/wary"), seller.get("/v1/policies/wary")):
        assert gone.status_code == 404
        assert "those that /v1/policies lists" in gone.json()["detail"]
    with pytest.raises(ConfigError, match="wary"):
        service.models.policy("wary")
    with service.database.reading() as session:
        rows = session.scalars(
            select(AuditEntry).where(AuditEntry.action.startswith("policy.")).order_by(AuditEntry.at)
        )
        noted = [(row.action, row.subject, json.loads(row.detail)) for row in rows]
    assert [(action, name) for action, name, _ in noted] == [
        ("policy.write", "wary"),
        ("policy.write", "wary"),
        ("policy.delete", "wary"),
    ]
    assert noted[0][2]["before"] is None
    assert json.loads(noted[1][2]["after"]) == {"decoder": "greedy"}


def test_a_policy_of_the_service_stands_before_the_models_own(as_role: As, service: Service) -> None:
    admin = as_role("admin")
    assert service.models.policy() == DEEPEST
    admin.put("/v1/policies/default", json={"decoder": "greedy"})
    assert service.models.policy().decoder == "greedy"
    kept = service.models.policy()
    service.models.read_policies()
    assert service.models.policy() is kept  # a plan is worked out once a policy
    admin.delete("/v1/policies/default")
    assert service.models.policy() == DEEPEST
    assert admin.get("/v1/policies/default").json()["kept_by"] == "model"


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ({"strict": {"no such node": 0.5}}, "no such node"),
        ({"decoder": "cost", "costs": {"values": {"no such node": 1}}}, "costs.values"),
        ({"attributes": {"colour": {"threshold": 0.5}}}, "learned no attribute"),
        ({"decoder": "best"}, "body.decoder"),
        ({"thresholds": []}, "body.thresholds"),
        ({"threshold": [0.5]}, "body.threshold"),
    ],
)
def test_a_policy_that_does_not_fit_is_a_problem_and_changes_nothing(
    body: dict[str, Any], says: str, as_role: As, service: Service
) -> None:
    before = service.models.current()
    answer = as_role("admin").put("/v1/policies/new", json=body)
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_input")
    assert says in answer.json()["detail"]
    assert service.models.current() is before


def test_only_administrators_write_policies(as_role: As, client: TestClient) -> None:
    for role in ("seller", "reviewer", "service"):
        other = as_role(role)
        assert other.put("/v1/policies/new", json={}).status_code == 403
        assert other.delete("/v1/policies/default").status_code == 403
        assert other.get("/v1/policies").status_code == 200
    assert client.get("/v1/policies").status_code == 401
    for name in ("a b", ".hidden", "x" * 65):
        assert as_role("admin").put(f"/v1/policies/{name}", json={}).status_code == 422
