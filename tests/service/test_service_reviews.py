"""What waits for a reviewer, who gets it, and what becomes of it: no item twice, no label lost, nothing told."""

from __future__ import annotations

import json
import threading
import time
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest
from fastapi.testclient import TestClient
from service_rig import another, service_behind, signed_in, token_of
from sqlalchemy import func, select

from shelver.decide import Policy
from shelver.decide.policy import Costs
from shelver.product import Product
from shelver.service.records.entries import Entry, insert_entries
from shelver.service.records.feedback import erase_records_of
from shelver.service.reviews.claims import queue
from shelver.service.reviews.waiting import DESCRIPTION_CHARS, worth
from shelver.service.state import Service
from shelver.service.tables.accounts import User
from shelver.service.tables.declarative import new_id
from shelver.service.tables.records import FeedbackRow
from shelver.service.tables.reviews import ReviewItem, ReviewText
from shelver.taxonomy import Taxonomy

AsRole = Callable[..., TestClient]


@pytest.fixture
def tree(service: Service) -> Taxonomy:
    return service.models.current().taxonomy


@pytest.fixture
def seller(as_role: AsRole) -> TestClient:
    return as_role("seller", "Ann")


@pytest.fixture
def reviewer(as_role: AsRole) -> TestClient:
    return as_role("reviewer", "Bob")


def entry_for(client: TestClient, confidence: float | None = 0.3, **changes: Any) -> Entry:
    """A prediction for the client's user, of a product with an id of its own; doubtful unless told otherwise."""
    tree = service_behind(client).models.current().taxonomy
    node = changes.pop("node_id", tree.ids[-1] if confidence is not None else None)
    top = [{"node_id": tree.ids[-1], "path": tree.paths[-1], "confidence": 0.2}] if node is None else []
    said: dict[str, Any] = {
        "id": new_id(),
        "at": datetime.now(UTC),
        "user_id": client.headers["X-User"],
        "input_hash": new_id(),
        "product_id": "sku-1",
        "answer": json.dumps({"alternatives": top}),
        "node_id": node,
        "confidence": confidence,
        "outcome": "review" if node is None else "decided",
        "policy": "default",
        "model_version": "m1",
        "taxonomy_version": "t1",
        "modality": "text",
        "latency_ms": 2.0,
    }
    return Entry(**{**said, **changes})


def predicted(client: TestClient, confidence: float | None = 0.3, **changes: Any) -> str:
    """As `entry_for`, in the log; its id."""
    log = service_behind(client).log
    entry = entry_for(client, confidence, **changes)
    assert log.safe(log.write(entry))
    return entry.id


def many(client: TestClient, n: int) -> list[str]:
    log = service_behind(client).log
    entries = [entry_for(client, 0.1 + 0.3 * i / n) for i in range(n)]
    for entry in entries:
        number = log.write(entry)
    assert log.safe(number)
    return [entry.id for entry in entries]


def waiting(client: TestClient, **filters: Any) -> list[str]:
    answer = client.get("/v1/review", params={"limit": 200, **filters})
    assert answer.status_code == 200, answer.text
    return [one["prediction_id"] for one in answer.json()["items"]]


def claim(client: TestClient, n: int = 10, **more: Any) -> list[str]:
    answer = client.post("/v1/review/claim", json={"n": n, **more})
    assert answer.status_code == 200, answer.text
    return [one["prediction_id"] for one in answer.json()["items"]]


def decide(client: TestClient, *verdicts: dict[str, Any]) -> dict[str, Any]:
    answer = client.post("/v1/review/decide", json={"verdicts": list(verdicts)})
    assert answer.status_code == 200, answer.text
    decided: dict[str, Any] = answer.json()
    return decided


def judge(client: TestClient, prediction_id: str, action: str, **more: Any) -> Any:
    return client.post(f"/v1/predictions/{prediction_id}/feedback", json={"action": action} | more)


def code_of(answer: Any) -> tuple[int, str]:
    return answer.status_code, answer.json()["code"]


def reasons(service: Service) -> dict[str, str]:
    with service.database.reading() as session:
        return {row.prediction_id: row.reason for row in session.scalars(select(ReviewItem))}


def test_what_is_doubtful_waits_and_what_is_sure_or_only_being_typed_does_not(
    seller: TestClient, reviewer: TestClient, service: Service
) -> None:
    doubtful = {
        predicted(seller, None, product_id=None): "review",
        predicted(seller, None, outcome="abstained"): "abstained",
        predicted(seller, None, outcome="outside"): "outside",
        predicted(seller, 0.49): "unsure",
    }
    predicted(seller, 0.51)
    predicted(seller, 0.2, product_id=None)  # half a title
    predicted(seller, None, product_id=None, outcome="abstained")
    predicted(seller, None, outcome="suggested")
    predicted(seller, None, outcome="error")
    predicted(seller, None, user_id=None)  # the public
    assert set(waiting(reviewer)) == set(doubtful)
    assert reasons(service) == doubtful


def test_an_entry_that_is_written_again_waits_once(seller: TestClient, service: Service) -> None:
    entry = entry_for(seller)
    for _ in range(2):
        insert_entries(service.database, [entry], again=True, also=service.waiting.add)
    assert list(reasons(service)) == [entry.id]


def test_an_answer_that_is_odd_is_logged_and_waits_all_the_same(seller: TestClient, reviewer: TestClient) -> None:
    long = json.dumps({"alternatives": [{"node_id": "n\x00" * 300, "path": None, "confidence": 0.1}]})
    ids = {
        predicted(seller, None, answer=long),
        predicted(seller, None, answer='{"alternatives": [{"node_id": "n", "confidence": NaN}]}'),
        predicted(seller, None, answer='{"alternatives": 7}'),
        predicted(seller, None, answer="no JSON"),
        predicted(seller, 0.3, node_id="x" * 300, policy="gone"),
    }
    assert set(waiting(reviewer)) == ids
    for prediction in ids:
        assert seller.get(f"/v1/predictions/{prediction}/feedback").status_code == 200


def test_a_saved_product_a_rejection_and_a_draw_bring_a_prediction_into_the_queue(
    make_app: Callable[..., TestClient],
) -> None:
    client = make_app(audit_share=1.0)
    seller, reviewer = signed_in(client, "seller"), signed_in(client, "reviewer")
    typed = predicted(seller, 0.2, product_id=None)
    rejected, accepted, own = (predicted(seller, 0.9) for _ in range(3))
    assert waiting(reviewer) == []
    saved = seller.post("/v1/products", json={"title": "bar stool", "brand": "Sit", "prediction_id": typed})
    assert saved.status_code == 201, saved.text
    assert judge(seller, rejected, "reject").status_code == 201
    assert judge(seller, accepted, "accept").status_code == 201
    assert judge(reviewer, own, "accept").status_code == 201  # what reviewers accept is not drawn
    assert reasons(service_behind(client)) == {typed: "unsure", rejected: "rejected", accepted: "audit"}
    (item,) = [one for one in reviewer.get("/v1/review").json()["items"] if one["prediction_id"] == typed]
    assert item["product"]["id"] == saved.json()["id"]
    assert (item["product"]["title"], item["product"]["brand"]) == ("bar stool", "Sit")


def test_a_doubtful_answer_that_is_drawn_waits_in_the_order_of_chance(make_app: Callable[..., TestClient]) -> None:
    client = make_app(audit_share=1.0)
    seller = signed_in(client, "seller")
    prediction = predicted(seller, 0.3)
    judge(seller, prediction, "accept")
    assert reasons(service_behind(client)) == {prediction: "audit"}


def test_what_a_reviewer_has_judged_does_not_wait(seller: TestClient, reviewer: TestClient) -> None:
    first, second = predicted(seller), predicted(seller, 0.9)
    judge(reviewer, first, "accept")
    judge(reviewer, second, "accept")
    judge(seller, second, "reject")
    assert waiting(reviewer) == []


def test_the_least_certain_come_first(seller: TestClient, reviewer: TestClient) -> None:
    by_confidence = {confidence: predicted(seller, confidence) for confidence in (0.4, 0.1, 0.45, 0.2)}
    assert waiting(reviewer) == [by_confidence[c] for c in (0.1, 0.2, 0.4, 0.45)]
    assert set(claim(reviewer, 2)) == {by_confidence[0.1], by_confidence[0.2]}


def test_a_category_is_worth_its_share_of_the_most_valuable_one() -> None:
    policy = Policy(costs=Costs(values={"a": 10.0, "b": 2.0}))
    assert [worth(policy, node) for node in ("a", "b", "c", None)] == [1.0, 0.2, 0.6, 0.6]
    assert worth(None, "a") == worth(Policy(), "a") == worth(Policy(costs=Costs(values={"a": 0.0})), "a") == 1.0


def test_valuable_categories_come_before_cheap_ones(
    seller: TestClient, reviewer: TestClient, as_role: AsRole, tree: Taxonomy
) -> None:
    policy = {"decoder": "cost", "costs": {"values": {tree.ids[-1]: 100.0, tree.ids[0]: 1.0}}}
    stored = as_role("admin").put("/v1/policies/dear", json=policy)
    assert stored.status_code in (200, 201), stored.text
    cheap = predicted(seller, 0.1, node_id=tree.ids[0], policy="dear")
    dear = predicted(seller, 0.4, node_id=tree.ids[-1], policy="dear")
    assert waiting(reviewer) == [dear, cheap]


def test_an_item_tells_nothing_that_would_lead_the_reviewer(
    make_app: Callable[..., TestClient],
) -> None:
    client = make_app(audit_share=1.0)
    seller, reviewer = signed_in(client, "seller"), signed_in(client, "reviewer")
    doubtful, accepted = predicted(seller, 0.3), predicted(seller, 0.99)
    judge(seller, accepted, "accept", note="surely")
    found = {one["prediction_id"]: one for one in reviewer.get("/v1/review").json()["items"]}
    assert found.keys() == {doubtful, accepted}
    for item in found.values():
        assert item.keys() == {
            "prediction_id",
            "at",
            "product",
            "asked",
            "product_id",
            "suggestions",
            "claimed_until",
        }
        assert [set(one) for one in item["suggestions"]] == [{"node_id", "path"}]


def test_what_was_drawn_is_mixed_into_every_claim(make_app: Callable[..., TestClient]) -> None:
    client = make_app(audit_share=1.0)
    seller, reviewer = signed_in(client, "seller"), signed_in(client, "reviewer")
    many(seller, 90)
    for _ in range(15):
        judge(seller, predicted(seller, 0.9), "accept")
    why = reasons(service_behind(client))
    kinds = Counter(why[one] for one in claim(reviewer, 50))
    # At most 15 of 50; none by chance once in seventy thousand times.
    assert kinds["audit"] >= 1
    assert kinds["unsure"] >= 35


def test_reviewers_who_claim_at_once_never_get_the_same_item(
    client: TestClient, seller: TestClient, as_role: AsRole
) -> None:
    ids = many(seller, 60)
    reviewers = [as_role("reviewer") for _ in range(4)]
    found: list[str] = []
    refused: list[int] = []
    begin = threading.Barrier(len(reviewers))

    def work(reviewer: TestClient) -> None:
        begin.wait()
        for _ in range(6):
            answer = reviewer.post("/v1/review/claim", json={"n": 5})
            if answer.status_code == 200:
                found.extend(one["prediction_id"] for one in answer.json()["items"])
            else:
                refused.append(answer.status_code)

    threads = [threading.Thread(target=work, args=(reviewer,)) for reviewer in reviewers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == len(set(found))
    assert set(found) <= set(ids)
    assert set(refused) <= {409}  # a deadlock, to be tried again
    for reviewer in reviewers:
        found += claim(reviewer, 50)
    assert Counter(found) == Counter(ids)


def test_a_claim_that_runs_out_goes_to_somebody_else(make_app: Callable[..., TestClient]) -> None:
    client = make_app(review_lease_s=1)
    seller, one, other = (signed_in(client, role) for role in ("seller", "reviewer", "admin"))
    first, second = predicted(seller), predicted(seller)
    assert set(claim(one)) == {first, second}
    assert claim(other) == []
    time.sleep(1.1)
    # Nobody has taken it meanwhile, so it can still be decided.
    assert decide(one, {"prediction_ids": [first], "action": "accept"})["n_problems"] == 0
    assert claim(other) == [second]
    late = decide(one, {"prediction_ids": [second], "action": "accept"})
    assert (late["decision_id"], late["items"][0]["problem"]["code"]) == (None, "conflict")
    assert decide(other, {"prediction_ids": [second], "action": "reject"})["n_problems"] == 0


def test_what_is_released_is_free_again(seller: TestClient, reviewer: TestClient, as_role: AsRole) -> None:
    ids = {predicted(seller) for _ in range(3)}
    other = as_role("reviewer")
    held = claim(reviewer)
    assert set(held) == set(waiting(reviewer, mine=True)) == ids
    assert other.post("/v1/review/release", json={}).json() == {"n_released": 0}
    assert reviewer.post("/v1/review/release", json={"prediction_ids": held[:1]}).json() == {"n_released": 1}
    assert claim(other) == held[:1]
    assert reviewer.post("/v1/review/release", json={}).json() == {"n_released": 2}
    assert set(waiting(other)) == set(held[1:])


def test_what_is_skipped_comes_again_when_nothing_else_waits(
    seller: TestClient, reviewer: TestClient, as_role: AsRole
) -> None:
    skipped, then = predicted(seller, 0.1), predicted(seller, 0.4)
    assert claim(reviewer, 1) == [skipped]
    gone = reviewer.post("/v1/review/release", json={"prediction_ids": [skipped], "skip": True})
    assert gone.json() == {"n_released": 1}
    other = as_role("reviewer")
    assert claim(other, 1) == [skipped], "for others it is what it was"
    other.post("/v1/review/release", json={})
    assert claim(reviewer, 1) == [then]
    assert claim(reviewer, 1) == [skipped]


def test_what_was_asked_is_kept_with_what_waits_and_with_nothing_else(
    seller: TestClient, reviewer: TestClient, service: Service
) -> None:
    """And goes with it, and is among what is stored about who asked."""
    asked = {"title": "vase", "category_hint": "gl\u00e4ser", "product_id": "sku-1"}
    answers = [seller.post("/v1/predict", json=one) for one in (asked, {"title": "vas"})]
    assert all(answer.is_success for answer in answers), answers[0].text
    first, typing = (answer.json() for answer in answers)
    assert service.log.safe()
    with service.database.reading() as session:
        doubtful = session.scalars(select(ReviewItem.prediction_id)).all()
        kept = session.scalars(select(ReviewText)).all()
    # The tiny model may be sure of it: what waits has its text, and nothing else has one.
    assert [row.prediction_id for row in kept] == doubtful
    sure = first["outcome"] == "decided" and first["confidence"] >= service.waiting.below
    assert doubtful == ([] if sure else [first["prediction_id"]]), typing


def test_a_reviewer_reads_what_was_asked_where_no_product_is_kept(
    seller: TestClient, reviewer: TestClient, service: Service
) -> None:
    entry = entry_for(seller)
    product = Product("sku-1", title="vase \ud800", description="x" * 5000, brand=None)
    log = service.log
    assert log.safe(log.write(service.waiting.with_texts(entry, product, "glass\x00es")))
    (item,) = reviewer.get("/v1/review").json()["items"]
    assert item["product"] is None
    assert item["asked"] == {
        "title": "vase ?",
        "description": "x" * DESCRIPTION_CHARS,
        "brand": None,
        "category_hint": "glasses",
    }
    assert seller.get("/v1/me/export").json()["tables"]["review_texts"][0]["title"] == "vase ?"
    claim(reviewer)
    assert reviewer.get("/v1/me/export").json()["tables"]["review_texts"] == []
    sure = entry_for(seller, 0.99)
    assert service.waiting.with_texts(sure, product, None) is sure
    with service.database.writing() as session:
        erase_records_of(session, service, seller.headers["X-User"])
    with service.database.reading() as session:
        assert session.scalars(select(ReviewText)).all() == []


def test_the_counts_are_those_of_the_caller(seller: TestClient, reviewer: TestClient, as_role: AsRole) -> None:
    many(seller, 7)
    other = as_role("reviewer")
    held = claim(reviewer, 3)
    claim(other, 2)
    assert reviewer.get("/v1/review/counts").json() == {
        "waiting": 2,
        "mine": 3,
        "others": 2,
        "decided_today": 0,
    }
    decide(reviewer, {"prediction_ids": held[:2], "action": "accept"})
    assert reviewer.get("/v1/review/counts").json() == {
        "waiting": 2,
        "mine": 1,
        "others": 2,
        "decided_today": 2,
    }
    reviewer.post("/v1/review/undo", json={})
    assert reviewer.get("/v1/review/counts").json()["decided_today"] == 0


def test_many_are_decided_in_one_go_and_what_cannot_be_has_a_problem(
    seller: TestClient, reviewer: TestClient, tree: Taxonomy
) -> None:
    right, wrong = tree.ids[0], tree.ids[-1]
    a, b, c, d, e = (predicted(seller) for _ in range(5))
    undecided, nothing = predicted(seller, None), predicted(seller, None, answer="{}")
    judge(seller, a, "reject", note="not mine")
    claim(reviewer, 50)
    reviewer.post("/v1/review/release", json={"prediction_ids": [e]})
    done = decide(
        reviewer,
        {"prediction_ids": [a, b], "action": "correct", "node_id": right, "note": "a chair"},
        {"prediction_ids": [c, undecided], "action": "accept"},
        {"prediction_ids": [d], "action": "correct", "node_id": "nowhere"},
        {"prediction_ids": [e, new_id(), nothing], "action": "accept"},
    )
    assert done["n_problems"] == 4
    assert [one["problem"] and one["problem"]["code"] for one in done["items"]] == [
        None,
        None,
        None,
        None,
        "unknown_category",
        "conflict",
        "not_found",
        "invalid_input",
    ]
    labels = [one["label"] for one in done["items"]]
    assert [(one["action"], one["node_before"], one["node_after"]) for one in labels[:4]] == [
        ("correct", wrong, right),
        ("correct", wrong, right),
        ("accept", wrong, wrong),
        ("correct", None, wrong),  # the first suggestion
    ]
    assert labels[4:] == [None] * 4
    assert done["items"][0]["others"] == [{"role": "seller", "action": "reject", "node_id": None}]
    assert [one["disagreement"] for one in done["items"][:4]] == [True, True, False, True]
    assert [one["reason"] for one in done["items"][:4]] == ["unsure", "unsure", "unsure", "review"]
    assert set(waiting(reviewer, mine=True)) == {d, nothing}
    # They are the labels of feedback.
    history = reviewer.get(f"/v1/predictions/{b}/feedback").json()
    assert history == [labels[1]]
    assert reviewer.get("/v1/metrics").json()["overall"]["n_corrected"] == 3


def test_no_prediction_is_decided_twice_in_one_go(seller: TestClient, reviewer: TestClient) -> None:
    prediction = predicted(seller)
    claim(reviewer)
    verdicts = [{"prediction_ids": [prediction], "action": action} for action in ("accept", "reject")]
    refused = reviewer.post("/v1/review/decide", json={"verdicts": verdicts})
    assert code_of(refused) == (422, "invalid_input")
    assert waiting(reviewer, mine=True) == [prediction]


def test_of_two_decisions_at_once_one_is_the_label(seller: TestClient, reviewer: TestClient) -> None:
    ids = many(seller, 8)
    assert set(claim(reviewer, 50)) == set(ids)
    done: list[dict[str, Any]] = []
    verdict = {"prediction_ids": ids, "action": "accept"}

    def work() -> None:
        answer = reviewer.post("/v1/review/decide", json={"verdicts": [verdict]})
        if answer.status_code == 200:
            done.append(answer.json())

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(8 - one["n_problems"] for one in done) == 8
    for prediction in ids:
        assert len(reviewer.get(f"/v1/predictions/{prediction}/feedback").json()) == 1


def test_an_undone_decision_leaves_the_label_before_it_and_the_history(
    seller: TestClient, reviewer: TestClient, tree: Taxonomy, service: Service
) -> None:
    first, second = predicted(seller), predicted(seller)
    judge(seller, first, "reject")
    claim(reviewer)
    one = decide(reviewer, {"prediction_ids": [first], "action": "accept"})
    two = decide(reviewer, {"prediction_ids": [second], "action": "correct", "node_id": tree.ids[0]})
    assert reviewer.get("/v1/metrics").json()["overall"]["accuracy"]["n"] == 2
    undone = reviewer.post("/v1/review/undo", json={}).json()
    assert undone == {"decision_id": two["decision_id"], "prediction_ids": [second]}
    undone = reviewer.post("/v1/review/undo", json={"decision_id": one["decision_id"]}).json()
    assert undone == {"decision_id": one["decision_id"], "prediction_ids": [first]}
    assert set(waiting(reviewer, mine=True)) == {first, second}
    overall = reviewer.get("/v1/metrics").json()["overall"]
    assert (overall["n_rejected"], overall["accuracy"]["n"]) == (1, 1)  # the seller's is the label again
    history = reviewer.get(f"/v1/predictions/{first}/feedback").json()
    assert [(one["action"], one["current"]) for one in history] == [("reject", True), ("accept", False)]
    assert code_of(reviewer.post("/v1/review/undo", json={})) == (404, "not_found")
    # And it can be decided again.
    assert decide(reviewer, {"prediction_ids": [first], "action": "reject"})["n_problems"] == 0
    with service.database.reading() as session:
        current = select(func.count()).select_from(FeedbackRow).where(FeedbackRow.current_of.is_not(None))
        assert session.scalar(current) == 2


def test_the_judgement_before_a_decision_counts_again_when_that_is_undone(
    client: TestClient, seller: TestClient, as_role: AsRole, service: Service
) -> None:
    # He judged it as a seller, and became a reviewer.
    prediction = predicted(seller)
    judge(seller, prediction, "reject")
    assert as_role("admin").patch(f"/v1/users/{seller.headers['X-User']}", json={"role": "reviewer"}).is_success
    with service.database.reading() as session:
        user = session.get_one(User, seller.headers["X-User"])
    seller = another(client, {"Authorization": f"Bearer {token_of(service, user)}"})
    claim(seller)
    decide(seller, {"prediction_ids": [prediction], "action": "accept"})
    assert seller.post("/v1/review/undo", json={}).is_success
    history = seller.get(f"/v1/predictions/{prediction}/feedback").json()
    assert [(one["action"], one["current"]) for one in history] == [("reject", True), ("accept", False)]


def test_what_was_judged_anew_is_not_undone(seller: TestClient, reviewer: TestClient) -> None:
    first, second = predicted(seller), predicted(seller)
    claim(reviewer)
    decide(reviewer, {"prediction_ids": [first, second], "action": "accept"})
    judge(reviewer, second, "reject")
    assert code_of(reviewer.post("/v1/review/undo", json={})) == (409, "conflict")
    history = reviewer.get(f"/v1/predictions/{first}/feedback").json()
    assert [one["current"] for one in history] == [True]
    assert waiting(reviewer, mine=True) == []


def test_nobody_undoes_what_another_has_decided(seller: TestClient, reviewer: TestClient, as_role: AsRole) -> None:
    prediction = predicted(seller)
    claim(reviewer)
    done = decide(reviewer, {"prediction_ids": [prediction], "action": "accept"})
    other = as_role("admin")
    for body in ({}, {"decision_id": done["decision_id"]}):
        assert code_of(other.post("/v1/review/undo", json=body)) == (404, "not_found")


def test_an_undone_item_that_another_reviewer_has_judged_does_not_wait_again(
    seller: TestClient, reviewer: TestClient, as_role: AsRole
) -> None:
    prediction = predicted(seller)
    claim(reviewer)
    decide(reviewer, {"prediction_ids": [prediction], "action": "accept"})
    judge(as_role("admin"), prediction, "reject")
    assert reviewer.post("/v1/review/undo", json={}).is_success
    assert waiting(reviewer) == waiting(reviewer, mine=True) == []


def test_look_alikes_are_claimed_as_a_group_and_decided_by_one_verdict(
    seller: TestClient, reviewer: TestClient, service: Service
) -> None:
    """Products of nearly the same words, and the same input twice; not what looks different."""
    ids: dict[str, list[str]] = {"chair": [], "car": []}
    for title, kind in (
        ("folding deck chair", "chair"),
        ("folding deck chair", "chair"),
        ("racing car, small", "car"),
        ("racing car, small", "car"),
    ):
        prediction = predicted(seller, 0.3, product_id=None)
        assert seller.post("/v1/products", json={"title": title, "prediction_id": prediction}).is_success
        ids[kind].append(prediction)
    again = predicted(seller, 0.05, product_id="a", input_hash="aa" * 32)
    twin = predicted(seller, 0.4, product_id="b", input_hash="aa" * 32)
    assert service.lookalikes.settled()
    assert claim(reviewer, 1) == [again]
    reviewer.post("/v1/review/release", json={})
    assert claim(reviewer, 10, group="alike") == [again, twin]
    for _ in range(2):
        group = claim(reviewer, 10, group="alike")
        assert set(group) in (set(ids["chair"]), set(ids["car"]))
        done = decide(reviewer, {"prediction_ids": group, "action": "reject"})
        assert (len(done["items"]), done["n_problems"]) == (2, 0)
    assert claim(reviewer, 10, group="alike") == []


def test_a_reviewer_holds_no_more_than_200(seller: TestClient, reviewer: TestClient) -> None:
    many(seller, 210)
    assert [len(claim(reviewer, 50)) for _ in range(5)] == [50, 50, 50, 50, 0]


def test_items_go_with_their_predictions(seller: TestClient, reviewer: TestClient, service: Service) -> None:
    prediction = predicted(seller)
    claim(reviewer)
    decide(reviewer, {"prediction_ids": [prediction], "action": "accept"})
    predicted(seller)
    with service.database.writing() as session:
        erase_records_of(session, service, seller.headers["X-User"])
    assert waiting(reviewer) == []
    assert reasons(service) == {}
    assert reviewer.post("/v1/review/undo", json={}).json()["prediction_ids"] == [prediction]


def test_items_are_found_by_their_first_suggestion(
    seller: TestClient, reviewer: TestClient, tree: Taxonomy
) -> None:
    one, other = predicted(seller, node_id=tree.ids[0]), predicted(seller, node_id=tree.ids[1])
    assert waiting(reviewer, node_id=tree.ids[0]) == [one]
    assert claim(reviewer, 5, node_id=tree.ids[1]) == [other]
    assert waiting(reviewer, mine=True, node_id=tree.ids[0]) == []


def test_nobody_else_reaches_the_review(client: TestClient, seller: TestClient, as_role: AsRole) -> None:
    predicted(seller)
    for person, refusal in (
        (seller, (403, "not_allowed")),
        (as_role("service"), (403, "not_allowed")),
        (client, (401, "not_signed_in")),
    ):
        for answer in (
            person.get("/v1/review"),
            person.get("/v1/review/counts"),
            person.post("/v1/review/claim", json={}),
            person.post("/v1/review/release", json={}),
            person.post("/v1/review/decide", json={"verdicts": []}),
            person.post("/v1/review/undo", json={}),
        ):
            assert code_of(answer) == refusal


@pytest.mark.usefixtures("only_sqlite")
def test_an_index_serves_the_queue(service: Service) -> None:
    statement = queue(audit=False).limit(10).compile(service.database.engine)
    values = tuple(str(statement.params[name]) for name in statement.positiontup or ())
    with service.database.engine.connect() as connection:
        plan = str(connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", values).all())
    assert "ix_review_items_queue" in plan
    assert "TEMP B-TREE" not in plan
