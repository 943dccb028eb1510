"""How much was asked, how it ended and how fast: counted as the definitions say, on every database."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient
from service_rig import service_behind

from shelver.metrics import hierarchical, weighted_f1
from shelver.service.records.entries import Entry, insert_entries
from shelver.service.records.intervals import f1_figures, shares
from shelver.service.records.traffic import most_doubtful, slowest, traffic
from shelver.service.state import Service
from shelver.service.tables.declarative import new_id
from shelver.taxonomy import Taxonomy

AsRole = Callable[..., TestClient]
NOON = datetime(2026, 11, 10, 12, tzinfo=UTC)


def entry(**changes: Any) -> Entry:
    said: dict[str, Any] = {
        "id": new_id(),
        "at": NOON,
        "user_id": None,
        "input_hash": "00" * 32,
        "product_id": None,
        "answer": "{}",
        "node_id": "n",
        "confidence": 0.8,
        "outcome": "decided",
        "policy": "default",
        "model_version": "m1",
        "taxonomy_version": "t1",
        "modality": "text",
        "latency_ms": 10.0,
    }
    return Entry(**{**said, **changes})


@pytest.fixture
def written(service: Service) -> list[Entry]:
    """Two days with predictions and an empty one between."""
    nothing = {"node_id": None, "confidence": None}
    entries = [entry(at=NOON + timedelta(minutes=i), latency_ms=float(i + 1)) for i in range(8)]
    entries.append(entry(outcome="review", **nothing, modality="both", policy="strict", latency_ms=990.0))
    entries.append(entry(outcome="error", **nothing, modality=None, latency_ms=3000.0))
    entries.append(entry(at=NOON + timedelta(days=2, hours=3), model_version="m2", confidence=0.1))
    entries.append(entry(at=NOON - timedelta(days=30), latency_ms=9999.0, confidence=0.01))
    insert_entries(service.database, entries)
    return entries


def test_traffic_is_counted_by_day_outcome_modality_policy_and_model(
    as_role: AsRole, written: list[Entry]
) -> None:
    said = as_role("reviewer").get(
        "/v1/traffic", params={"from": "2026-11-10T00:00:00Z", "to": "2026-11-13T00:00:00Z", "every": "day"}
    )
    assert said.status_code == 200, said.text
    found = said.json()
    assert found["n"] == 11
    assert found["outcomes"] == {"decided": 9, "review": 1, "error": 1}
    assert [(one["start"][:10], one["n"], one["n_decided"]) for one in found["periods"]] == [
        ("2026-11-10", 10, 8),
        ("2026-11-11", 0, 0),
        ("2026-11-12", 1, 1),
    ]
    assert found["periods"][1]["latency"] is None
    assert (found["coverage"]["value"], found["coverage"]["n"]) == (0.9, 10), "an error had nothing to answer from"
    assert {name: one["n"] for name, one in found["by_modality"].items()} == {"text": 9, "both": 1, "none": 1}
    assert found["by_modality"]["none"]["coverage"] is None
    assert {name: one["n_decided"] for name, one in found["by_policy"].items()} == {"default": 9, "strict": 0}
    assert {name: one["n"] for name, one in found["by_model_version"].items()} == {"m1": 10, "m2": 1}


def test_traffic_by_the_hour_has_every_hour(as_role: AsRole, written: list[Entry]) -> None:
    found = as_role("admin").get("/v1/traffic?from=2026-11-10T10:30:00Z&to=2026-11-10T14:00:00Z").json()
    assert found["every"] == "hour"
    assert [(one["start"][11:13], one["n"]) for one in found["periods"]] == [
        ("10", 0),
        ("11", 0),
        ("12", 10),
        ("13", 0),
    ]


def test_the_quantiles_are_the_latencies_that_so_many_did_not_exceed(service: Service) -> None:
    rng = random.Random(3)
    latencies = [math.exp(rng.gauss(3, 1.5)) for _ in range(400)]
    insert_entries(service.database, [entry(latency_ms=one) for one in latencies])
    with service.database.reading() as session:
        found = traffic(session, NOON, NOON + timedelta(hours=1), "day").latency
    assert found is not None
    for share, value in ((0.5, found.p50_ms), (0.95, found.p95_ms), (0.99, found.p99_ms)):
        exact = float(np.quantile(latencies, share, method="inverted_cdf"))
        assert value == pytest.approx(exact, rel=0.051), "two digits are kept"


def test_the_slowest_and_the_most_doubtful_come_first(service: Service, written: list[Entry]) -> None:
    with service.database.reading() as session:
        late = slowest(session, NOON, NOON + timedelta(days=3), 3)
        doubtful = most_doubtful(session, NOON, NOON + timedelta(days=3), 2)
    assert [one.latency_ms for one in late] == [3000.0, 990.0, 10.0]
    assert [one.confidence for one in doubtful] == [0.1, 0.8]


def test_who_may_see_traffic_and_what_range(as_role: AsRole, written: list[Entry]) -> None:
    assert as_role("seller").get("/v1/traffic").status_code == 403
    admin = as_role("admin")
    for query in (
        "from=2026-11-12T00:00:00Z&to=2026-11-10T00:00:00Z",
        "from=2024-11-12T00:00:00Z&to=2026-11-10T00:00:00Z",
        "from=2026-10-12T00:00:00Z&to=2026-11-10T00:00:00Z&every=hour",
    ):
        refused = admin.get(f"/v1/traffic?{query}")
        assert (refused.status_code, refused.json()["code"]) == (422, "invalid_input"), query
    empty = admin.get("/v1/traffic?from=2020-01-01T00:00:00Z&to=2020-01-08T00:00:00Z").json()
    assert (empty["n"], empty["coverage"], empty["latency"], len(empty["periods"])) == (0, None, None, 7)


def judged(client: TestClient, prediction: Entry, action: str, **more: Any) -> None:
    service_behind(client).log.settle(prediction.id)
    answer = client.post(f"/v1/predictions/{prediction.id}/feedback", json={"action": action} | more)
    assert answer.status_code == 201, answer.text


def test_predicted_against_true_shows_the_label_who_gave_it_and_the_title(
    as_role: AsRole, service: Service
) -> None:
    tree = service.models.current().taxonomy
    seller, reviewer = as_role("seller", "Ann"), as_role("reviewer", "Rob")
    owner = seller.headers["X-User"]
    recent = datetime.now(UTC) - timedelta(hours=2)
    made = [
        entry(at=recent + timedelta(minutes=i // 2), user_id=owner, node_id=tree.ids[-1], product_id=f"own {i}")
        for i in range(5)
    ]
    insert_entries(service.database, made)
    body = {"title": "Folding deck chair", "node_id": tree.ids[-1], "prediction_id": made[0].id}
    assert seller.post("/v1/products", json=body).status_code == 201
    for one in made:
        judged(seller, one, "accept")
    judged(reviewer, made[4], "correct", node_id=tree.ids[0])
    judged(reviewer, made[3], "reject")
    items = reviewer.get("/v1/labelled").json()["items"]
    said = {one["prediction_id"]: one for one in items}
    assert [one["predicted_at"] for one in items] == sorted((one["predicted_at"] for one in items), reverse=True)
    assert said.keys() == {one.id for one in made}
    assert said[made[0].id]["title"] == "Folding deck chair"
    assert (said[made[0].id]["right"], said[made[0].id]["judged_by"]) == (True, "Ann")
    corrected = said[made[4].id]
    assert (corrected["right"], corrected["judged_by"], corrected["role"]) == (False, "Rob", "reviewer")
    assert (corrected["path_before"], corrected["path_after"]) == (tree.paths[-1], tree.paths[0])
    assert said[made[3].id]["node_after"] is None
    only = reviewer.get("/v1/labelled?right=false").json()["items"]
    assert {one["prediction_id"] for one in only} == {made[3].id, made[4].id}


def test_pages_of_labelled_predictions_repeat_and_leave_out_none(as_role: AsRole, service: Service) -> None:
    tree = service.models.current().taxonomy
    admin = as_role("admin")
    recent = datetime.now(UTC) - timedelta(hours=3)
    made = [entry(at=recent + timedelta(seconds=i // 3), node_id=tree.ids[-1]) for i in range(17)]
    insert_entries(service.database, made)
    for one in made:
        judged(admin, one, "accept")
    seen: list[str] = []
    after: str | None = None
    for _ in range(20):
        found = admin.get("/v1/labelled", params={"limit": 2} | ({"after": after} if after else {})).json()
        seen += [one["prediction_id"] for one in found["items"]]
        after = found["next"]
        if after is None:
            break
    assert sorted(seen) == sorted(one.id for one in made)


def test_f1_of_drawn_pairs_is_that_of_the_metrics(service: Service) -> None:
    tree: Taxonomy = service.models.current().taxonomy
    rng = np.random.default_rng(5)
    truth = rng.integers(tree.n_nodes, size=300)
    predicted = np.where(rng.random(300) < 0.7, truth, rng.integers(-1, tree.n_nodes, size=300))
    weighted, by_path = f1_figures(tree, truth, predicted)
    assert weighted is not None
    assert by_path is not None
    assert weighted.value == weighted_f1(truth, predicted)
    assert by_path.value == hierarchical(tree, truth, predicted).f1
    # The same interval as from resampling the products one by one, up to chance.
    rows = rng.integers(300, size=(400, 300))
    for figure, score in (
        (weighted, weighted_f1),
        (by_path, lambda t, p: hierarchical(tree, t, p).f1),
    ):
        low, high = np.quantile([score(truth[one], predicted[one]) for one in rows], [0.025, 0.975])
        assert figure.low == pytest.approx(low, abs=0.015)
        assert figure.high == pytest.approx(high, abs=0.015)


def test_shares_of_many_are_those_of_each() -> None:
    found = shares([(0, 0), (3, 7), (7, 7), (0, 5)])
    assert found[0, 0] is None
    for (k, n), figure in found.items():
        assert figure == shares([(k, n)])[k, n]
