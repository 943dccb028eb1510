"""/v1/explain: the reasons of an answer over HTTP, for who may ask for predictions, and never in their way."""

from __future__ import annotations

import base64
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from service_rig import service_behind
from sqlalchemy import func, select

from shelver.explain import explain, see
from shelver.explain.regions import Seen
from shelver.product import Product
from shelver.service.answers.explain import MAX_PLACES
from shelver.service.tables.records import PredictionRow

AsRole = Callable[..., TestClient]
Draw = Callable[[tuple[int, int, int], int], bytes]
TITLE = "racing car, small"
BOTH = pytest.mark.parametrize("client", [("ngram", "lite0")], indirect=True)


@pytest.fixture
def client(
    request: pytest.FixtureRequest,
    make_app: Callable[..., TestClient],
    trained: Callable[[str, str], Path],
) -> TestClient:
    return make_app(model=trained(*getattr(request, "param", ("ngram", "none"))))


@pytest.fixture
def seller(as_role: AsRole) -> TestClient:
    client: TestClient = as_role("seller", "Ann")
    return client


def explained(client: TestClient, **said: Any) -> dict[str, Any]:
    answer = client.post("/v1/explain", json=said)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def in_base64(data: bytes) -> str:
    return base64.b64encode(data).decode()


@BOTH
def test_the_reasons_are_those_of_the_library_and_of_what_predict_answers(seller: TestClient, draw: Draw) -> None:
    classifier = service_behind(seller).models.current().classifier
    assert classifier.image2emb is not None
    picture = draw((200, 20, 20), 3)
    for title in (TITLE, None):
        for data in (picture, None) if title else (picture,):
            sent = {"title": title, "image_base64": in_base64(data) if data else None}
            found = explained(seller, **sent)
            predicted = seller.post("/v1/predict", json=sent).json()
            assert (found["node_id"], found["path"]) == (predicted["node_id"], predicted["path"])
            seen = see(data, classifier.image2emb) if data else None
            expected = explain(classifier, Product("", title=title), seen=seen if isinstance(seen, Seen) else None)
            assert found["probability"] == pytest.approx(expected.probability, abs=2e-6)
            assert found["falls_to"] == pytest.approx(expected.falls_to, abs=1e-4)
            assert [one["word"] for one in found["words"]] == [
                one.word.text for one in expected.words for _ in one.word.places
            ]
            assert (found["picture"] is None) == (expected.region is None)
            if expected.region is not None:
                assert found["picture"]["box"] == pytest.approx(list(expected.region.box))
            for one in found["words"]:
                assert (title or "")[one["start"] : one["end"]] == one["word"]
            weights = sum(one["weight"] for one in found["words"]) + (found["picture"] or {"weight": 0})["weight"]
            assert weights == pytest.approx(found["probability"] - found["falls_to"], abs=1e-5)
    assert found["model_version"] == classifier.model_version


def test_places_are_those_of_the_text_as_it_was_sent(seller: TestClient) -> None:
    sent = {"title": "\U0001f697 <b>racing</b>&nbsp;c&#97;r", "description": "small " * (MAX_PLACES + 9)}
    found = explained(seller, **sent)
    assert {one["word"] for one in found["words"]} == {"racing", "car", "small"}
    assert sum(one["field"] == "description" for one in found["words"]) == MAX_PLACES
    for one in found["words"]:
        assert sent[one["field"]][one["start"] : one["end"]].replace("&#97;", "a") == one["word"]


def test_a_node_that_is_named_is_explained_and_one_that_is_not_there_is_refused(seller: TestClient) -> None:
    tree = service_behind(seller).models.current().taxonomy
    lamps = tree.paths.index("Home > Lamps")
    found = explained(seller, title="bar stool, reading lamp", node_id=tree.ids[lamps])
    assert found["path"] == "Home > Lamps"
    refused = seller.post("/v1/explain", json={"title": "a", "node_id": "nowhere"})
    assert (refused.status_code, refused.json()["code"]) == (422, "unknown_category")


def test_what_cannot_be_explained_is_refused_and_says_why(seller: TestClient, client: TestClient) -> None:
    for body in ({}, {"title": "<br>"}, {"title": "a", "policy": "none such"}, {"titel": "a"}):
        refused = seller.post("/v1/explain", json=body)
        assert (refused.status_code, refused.json()["code"]) == (422, "invalid_input"), refused.text
    assert client.post("/v1/explain", json={"title": "a"}).status_code == 401
    assert seller.post("/v1/explain", json={"title": "a" * 200_000}).status_code == 422


@BOTH
def test_a_picture_that_cannot_be_used_is_left_out_where_there_is_a_text(seller: TestClient) -> None:
    found = explained(seller, title=TITLE, image_base64=in_base64(b"no picture"))
    assert found["picture_error"] == "image_format"
    assert found["picture"] is None
    assert found["words"]
    refused = seller.post("/v1/explain", json={"image_base64": in_base64(b"no picture")})
    assert (refused.status_code, refused.json()["code"]) == (422, "picture_unusable")


def test_nothing_of_it_stands_in_the_log(seller: TestClient) -> None:
    explained(seller, title=TITLE)
    answered = seller.post("/v1/predict", json={"title": TITLE}).json()
    service = service_behind(seller)
    service.log.settle(answered["prediction_id"])
    with service.database.reading() as session:
        assert session.scalar(select(func.count()).select_from(PredictionRow)) == 1


def test_one_caller_has_two_at_work_and_places_that_are_taken_refuse(seller: TestClient) -> None:
    service = service_behind(seller)
    caller = seller.headers["X-User"]
    with service.explaining.one(caller), service.explaining.one(caller):
        refused = seller.post("/v1/explain", json={"title": TITLE})
        assert (refused.status_code, refused.json()["code"]) == (429, "too_many_requests")
        assert "Retry-After" in refused.headers
    batcher = service.answering.batcher
    with batcher.reserve("others", batcher.n_places), batcher.reserve(caller):
        refused = seller.post("/v1/explain", json={"title": TITLE})
        assert (refused.status_code, refused.json()["code"]) == (503, "busy")
    assert explained(seller, title=TITLE)["words"]


def test_predictions_go_first(seller: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    """While one waits to be answered no piece of an explanation begins, for a while at least."""
    service = service_behind(seller)
    classifier = service.models.current().classifier
    began, held = threading.Event(), threading.Event()
    answer_all = service.answering.batcher._answer

    def slowly(items: Any) -> Any:
        began.set()
        assert held.wait(10)
        return answer_all(items)

    monkeypatch.setattr(service.answering.batcher, "_answer", slowly)
    monkeypatch.setattr("shelver.service.answers.explain._PATIENCE_S", 30.0)
    with ThreadPoolExecutor(3) as threads:
        first = threads.submit(seller.post, "/v1/predict", json={"title": TITLE})
        assert began.wait(10)
        second = threads.submit(seller.post, "/v1/predict", json={"title": TITLE})
        until = time.monotonic() + 10
        while not service.answering.batcher.n_waiting and time.monotonic() < until:
            time.sleep(0.005)
        third = threads.submit(explained, seller, title=TITLE)
        time.sleep(0.1)
        assert not third.done()
        held.set()
        assert third.result(20)["words"]
        assert {first.result(20).status_code, second.result(20).status_code} == {200}
    assert classifier is service.models.current().classifier
