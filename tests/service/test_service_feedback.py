"""People judge predictions; what they say is a label, and /v1/metrics counts it as its definitions say."""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from fastapi.testclient import TestClient
from service_rig import service_behind, signed_in

from shelver.metrics import hierarchical, weighted_f1
from shelver.service.records.entries import Entry
from shelver.service.records.feedback import erase_records_of
from shelver.service.state import Service
from shelver.service.tables.declarative import new_id
from shelver.taxonomy import Taxonomy

AsRole = Callable[..., TestClient]


@pytest.fixture
def tree(service: Service) -> Taxonomy:
    return service.models.current().taxonomy


@pytest.fixture
def seller(as_role: AsRole) -> TestClient:
    return as_role("seller", "Ann")


def predicted(client: TestClient, node_id: str | None, **changes: Any) -> str:
    """A prediction in the log, made for the client's user; its id."""
    said: dict[str, Any] = {
        "id": new_id(),
        "at": datetime.now(UTC),
        "user_id": client.headers["X-User"],
        "input_hash": "00" * 32,
        "product_id": None,
        "answer": "{}",
        "node_id": node_id,
        "confidence": None if node_id is None else 0.8,
        "outcome": "review" if node_id is None else "decided",
        "policy": "default",
        "model_version": "m1",
        "taxonomy_version": "t1",
        "modality": "text",
        "latency_ms": 2.0,
    }
    entry = Entry(**{**said, **changes})
    service_behind(client).log.write(entry)
    return entry.id


def judge(client: TestClient, prediction_id: str, action: str, **more: Any) -> Any:
    return client.post(f"/v1/predictions/{prediction_id}/feedback", json={"action": action} | more)


def code_of(answer: Any) -> tuple[int, str]:
    return answer.status_code, answer.json()["code"]


def test_a_judgement_says_who_when_which_model_and_how_sure(seller: TestClient, tree: Taxonomy) -> None:
    right, wrong = tree.ids[-1], tree.ids[-2]
    prediction = predicted(seller, wrong, product_id="p7")
    answer = judge(seller, prediction, "correct", node_id=right, note="see the title")
    assert answer.status_code == 201, answer.text
    said = answer.json()
    assert datetime.now(UTC) - datetime.fromisoformat(said.pop("at")) < timedelta(minutes=1)
    said.pop("id")
    assert said == {
        "prediction_id": prediction,
        "user_id": seller.headers["X-User"],
        "action": "correct",
        "note": "see the title",
        "current": True,
        "product_id": "p7",
        "node_before": wrong,
        "node_after": right,
        "confidence": 0.8,
        "outcome": "decided",
        "policy": "default",
        "model_version": "m1",
        "taxonomy_version": tree.version,
        "audit": None,
    }


def test_a_prediction_that_was_made_a_moment_ago_can_be_judged(seller: TestClient, tree: Taxonomy) -> None:
    for _ in range(5):
        assert judge(seller, predicted(seller, tree.ids[-1]), "accept").status_code == 201


def test_the_latest_judgement_counts_and_the_others_are_kept(seller: TestClient, tree: Taxonomy) -> None:
    prediction = predicted(seller, tree.ids[-1])
    for action, more in (("accept", {}), ("reject", {}), ("correct", {"node_id": tree.ids[0]})):
        assert judge(seller, prediction, action, **more).status_code == 201
    history = seller.get(f"/v1/predictions/{prediction}/feedback").json()
    assert [(one["action"], one["current"], one["node_after"]) for one in history] == [
        ("accept", False, tree.ids[-1]),
        ("reject", False, None),
        ("correct", True, tree.ids[0]),
    ]


def test_of_judgements_at_the_same_moment_one_is_the_latest(
    seller: TestClient, as_role: AsRole, tree: Taxonomy
) -> None:
    prediction = predicted(seller, tree.ids[-1])
    statuses: list[int] = []
    threads = [
        threading.Thread(target=lambda: statuses.append(judge(seller, prediction, "accept").status_code))
        for _ in range(6)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert set(statuses) <= {201, 409}
    history = as_role("reviewer").get(f"/v1/predictions/{prediction}/feedback").json()
    assert sum(one["current"] for one in history) == 1
    assert len(history) == statuses.count(201)


def test_to_correct_to_what_was_decided_is_to_accept(seller: TestClient, tree: Taxonomy) -> None:
    prediction = predicted(seller, tree.ids[-1])
    assert judge(seller, prediction, "correct", node_id=tree.ids[-1]).json()["action"] == "accept"


def test_what_makes_no_sense_is_refused(seller: TestClient, tree: Taxonomy) -> None:
    prediction, undecided = predicted(seller, tree.ids[-1]), predicted(seller, None)
    assert code_of(judge(seller, prediction, "correct")) == (422, "invalid_input")
    assert code_of(judge(seller, prediction, "accept", node_id=tree.ids[0])) == (422, "invalid_input")
    assert code_of(judge(seller, prediction, "correct", node_id="nowhere")) == (422, "unknown_category")
    assert code_of(judge(seller, prediction, "praise")) == (422, "invalid_input")
    assert code_of(judge(seller, undecided, "accept")) == (422, "invalid_input")
    assert code_of(judge(seller, predicted(seller, "a lost node"), "accept")) == (422, "unknown_category")
    assert code_of(judge(seller, new_id(), "accept")) == (404, "not_found")
    assert seller.get(f"/v1/predictions/{prediction}/feedback").json() == []


def test_sellers_judge_their_own_predictions_and_reviewers_all(
    seller: TestClient, as_role: AsRole, client: TestClient, tree: Taxonomy
) -> None:
    prediction = predicted(seller, tree.ids[-1])
    other, reviewer = as_role("seller"), as_role("reviewer")
    url = f"/v1/predictions/{prediction}/feedback"
    assert code_of(judge(other, prediction, "accept")) == (404, "not_found")
    assert code_of(other.get(url)) == (404, "not_found")
    assert code_of(judge(client, prediction, "accept")) == (401, "not_signed_in")
    assert judge(reviewer, prediction, "reject").status_code == 201
    assert judge(seller, prediction, "accept").status_code == 201
    assert [one["action"] for one in reviewer.get(url).json()] == ["reject", "accept"]
    assert [one["action"] for one in seller.get(url).json()] == ["accept"]
    assert code_of(seller.get("/v1/feedback")) == (403, "not_allowed")
    assert code_of(seller.get("/v1/metrics")) == (403, "not_allowed")


def test_a_part_of_what_is_accepted_goes_to_review_and_accepting_again_draws_no_more(
    make_app: Callable[..., TestClient],
) -> None:
    client = make_app(audit_share=0.5)
    seller, reviewer = signed_in(client, "seller"), signed_in(client, "reviewer")
    node = service_behind(client).models.current().taxonomy.ids[-1]
    predictions = [predicted(seller, node) for _ in range(24)]
    for prediction in predictions:
        assert judge(seller, prediction, "accept").json()["audit"] is None

    def drawn() -> set[str]:
        found = reviewer.get("/v1/feedback", params={"audit": True, "limit": 200}).json()["items"]
        return {one["prediction_id"] for one in found}

    first = drawn()
    assert 2 <= len(first) <= 22  # beyond, by chance, once in some hundred thousand times
    for prediction in predictions[:8]:
        judge(seller, prediction, "reject")
        judge(seller, prediction, "accept")
    assert drawn() == first


def test_what_was_drawn_stays_drawn_and_reviewers_do_not_audit_themselves(
    make_app: Callable[..., TestClient],
) -> None:
    client = make_app(audit_share=1.0)
    seller, reviewer = signed_in(client, "seller"), signed_in(client, "reviewer")
    node = service_behind(client).models.current().taxonomy.ids[-1]
    own, changed, right = (predicted(seller, node) for _ in range(3))
    assert judge(reviewer, own, "accept").json()["audit"] is False
    for prediction in (changed, right):
        judge(seller, prediction, "accept")
    judge(seller, changed, "reject")  # he sees his mistake: it stays in the sample
    judge(reviewer, changed, "reject")
    judge(reviewer, right, "accept")
    audited = reviewer.get("/v1/metrics").json()["overall"]["audited_accuracy"]
    assert (audited["value"], audited["n"]) == (0.5, 2)


def test_figures_are_of_a_year_at_most(as_role: AsRole) -> None:
    answer = as_role("reviewer").get("/v1/metrics", params={"from": "2020-01-01T00:00:00Z"})
    assert code_of(answer) == (422, "invalid_input")


def test_feedback_is_listed_by_page_and_filter(seller: TestClient, as_role: AsRole, tree: Taxonomy) -> None:
    for i in range(5):
        judge(seller, predicted(seller, tree.ids[-1]), "accept" if i % 2 else "reject")
    reviewer = as_role("reviewer")
    first = reviewer.get("/v1/feedback", params={"limit": 2, "action": "reject"}).json()
    second = reviewer.get("/v1/feedback", params={"limit": 2, "action": "reject", "after": first["next"]}).json()
    assert [len(first["items"]), len(second["items"]), second["next"]] == [2, 1, None]
    assert {one["action"] for one in first["items"] + second["items"]} == {"reject"}
    assert reviewer.get("/v1/feedback", params={"from": "2030-01-01T00:00:00Z"}).json()["items"] == []


def test_the_figures_are_those_of_the_definitions(seller: TestClient, as_role: AsRole, tree: Taxonomy) -> None:
    reviewer, ids = as_role("reviewer"), tree.ids
    truth, answer = [], []
    for i in range(30):
        k = i % tree.n_nodes
        prediction = predicted(seller, ids[k], model_version=f"m{i % 2}")
        if i % 3:
            judge(seller, prediction, "accept")
            truth.append(k)
        else:
            judge(seller, prediction, "correct", node_id=ids[(k + 1) % tree.n_nodes])
            truth.append((k + 1) % tree.n_nodes)
        answer.append(k)
    undecided = predicted(seller, None, model_version="m0")
    judge(seller, undecided, "correct", node_id=ids[0])
    truth.append(0)
    answer.append(-1)
    judge(seller, predicted(seller, ids[0], model_version="m0"), "reject")
    predicted(seller, ids[0], model_version="m1")  # nobody said anything
    # A seller accepted what a reviewer corrects: the reviewer's is the label, both count for acceptance.
    doubtful = predicted(seller, ids[1], model_version="m1")
    judge(reviewer, doubtful, "correct", node_id=ids[2])
    judge(seller, doubtful, "accept")
    truth.append(2)
    answer.append(1)
    found = reviewer.get("/v1/metrics", params={"by": "model_version"}).json()
    overall = found["overall"]

    import numpy as np

    t, p = np.array(truth), np.array(answer)
    assert overall["accuracy"]["value"] == pytest.approx(20 / 33)
    assert overall["accuracy"]["n"] == 33
    assert overall["accuracy"]["low"] < 20 / 33 < overall["accuracy"]["high"]
    assert overall["weighted_f1"]["value"] == pytest.approx(weighted_f1(t, p))
    assert overall["hierarchical_f1"]["value"] == pytest.approx(hierarchical(tree, t, p).f1)
    assert overall["hierarchical_f1"]["n"] == 32
    assert overall["hierarchical_f1"]["low"] < overall["hierarchical_f1"]["value"] <= 1
    assert overall["acceptance"]["value"] == pytest.approx(21 / 33)
    # Adopted: 20 accepted and the doubtful one, of 30, the rejected, the silent and the doubtful one.
    assert overall["adoption"]["value"] == pytest.approx(21 / 33)
    assert (overall["n_accepted"], overall["n_corrected"], overall["n_rejected"]) == (20, 12, 1)
    assert found["slices"].keys() == {"m0", "m1"}
    assert sum(one["accuracy"]["n"] for one in found["slices"].values()) == 33
    assert found["slices"]["m0"]["weighted_f1"]["low"] is None, "too few for an interval"
    assert found["complete"]
    assert found["taxonomy_version"] == tree.version


def test_a_category_that_was_saved_with_a_product_is_adopted(
    seller: TestClient, as_role: AsRole, tree: Taxonomy
) -> None:
    saved, other, silent = (predicted(seller, tree.ids[-1]) for _ in range(3))
    for prediction, node_id in ((saved, tree.ids[-1]), (other, tree.ids[-2])):
        body = {"title": "chair", "prediction_id": prediction, "node_id": node_id}
        assert seller.post("/v1/products", json=body).status_code == 201
    adoption = as_role("admin").get("/v1/metrics").json()["overall"]["adoption"]
    assert (adoption["value"], adoption["n"]) == (pytest.approx(1 / 3), 3)
    assert silent
    theirs = as_role("seller").post("/v1/products", json={"title": "x", "prediction_id": saved})
    assert code_of(theirs) == (404, "not_found")


def test_slices_by_category_and_time_and_a_range_without_labels(
    seller: TestClient, as_role: AsRole, tree: Taxonomy
) -> None:
    monday = datetime.now(UTC) - timedelta(days=10)
    judge(seller, predicted(seller, tree.ids[-1], at=monday), "accept")
    judge(seller, predicted(seller, tree.ids[0]), "accept")
    judge(seller, predicted(seller, None), "correct", node_id=tree.ids[0])
    reviewer = as_role("reviewer")
    year, week, _ = monday.isocalendar()
    for by, name in (
        ("category", tree.path_names(tree.n_nodes - 1)[0]),
        ("day", monday.date().isoformat()),
        ("week", f"{year}-W{week:02}"),
        ("modality", "text"),
        ("outcome", "review"),
        ("policy", "default"),
    ):
        slices = reviewer.get("/v1/metrics", params={"by": by}).json()["slices"]
        assert name in slices
        assert sum(one["n_accepted"] + one["n_corrected"] for one in slices.values()) == 3
        assert sum(one["adoption"]["n"] for one in slices.values() if one["adoption"]) == 2
    empty = reviewer.get("/v1/metrics", params={"from": "1990-01-01T00:00:00Z", "to": "1990-02-01T00:00:00Z"})
    assert empty.json()["overall"]["accuracy"] is None
    assert reviewer.get("/v1/metrics", params={"from": "1990-01-01"}).status_code == 422
    assert reviewer.get("/v1/metrics", params={"from": "0001-01-01T00:00:00+14:00"}).status_code == 422


def test_labels_of_nodes_that_the_tree_has_lost_are_left_out_of_the_f1(
    seller: TestClient, as_role: AsRole, service: Service, tree: Taxonomy
) -> None:
    from sqlalchemy import update

    from shelver.service.tables.records import FeedbackRow

    kept, lost = predicted(seller, tree.ids[-1]), predicted(seller, tree.ids[-1])
    judge(seller, kept, "accept")
    judge(seller, lost, "accept")
    with service.database.writing() as session:
        session.execute(update(FeedbackRow).where(FeedbackRow.prediction_id == lost).values(node_after="gone"))
    found = as_role("reviewer").get("/v1/metrics").json()
    assert found["n_outside_tree"] == 1
    assert found["overall"]["accuracy"]["n"] == 2
    assert found["overall"]["weighted_f1"]["n"] == 1


def test_what_was_drawn_for_review_has_an_accuracy_of_its_own(make_app: Callable[..., TestClient]) -> None:
    client = make_app(audit_share=1.0)
    seller, reviewer = signed_in(client, "seller"), signed_in(client, "reviewer")
    ids = service_behind(client).models.current().taxonomy.ids
    predictions = [predicted(seller, ids[-1]) for _ in range(4)]
    for prediction in predictions:
        judge(seller, prediction, "accept")
    judge(reviewer, predictions[0], "accept")
    judge(reviewer, predictions[1], "correct", node_id=ids[0])
    figures = reviewer.get("/v1/metrics").json()["overall"]
    assert (figures["audited_accuracy"]["value"], figures["audited_accuracy"]["n"]) == (0.5, 2)
    assert figures["acceptance"]["value"] == pytest.approx(5 / 6)


def test_what_belongs_to_somebody_is_erased_but_for_his_labels(
    seller: TestClient, as_role: AsRole, service: Service, tree: Taxonomy
) -> None:
    other = as_role("seller")
    mine, theirs = predicted(seller, tree.ids[-1]), predicted(other, tree.ids[-1])
    judge(seller, mine, "reject", note="call me: Ann")
    for client in (seller, other):
        assert client.post("/v1/products", json={"title": "chair"}).status_code == 201
    with service.database.writing() as session:
        erase_records_of(session, service, seller.headers["X-User"])
    assert seller.get("/v1/products").json()["items"] == []
    assert seller.get("/v1/predictions").json()["items"] == []
    assert [one["id"] for one in other.get("/v1/predictions").json()["items"]] == [theirs]
    assert len(other.get("/v1/products").json()["items"]) == 1
    kept = as_role("reviewer").get("/v1/feedback").json()["items"]
    assert [(one["action"], one["note"]) for one in kept] == [("reject", None)]
