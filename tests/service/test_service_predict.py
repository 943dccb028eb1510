"""Predictions over HTTP: the same answers as the Classifier gives, whatever is sent."""

from __future__ import annotations

import asyncio
import base64
import io
import json
import random
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient
from PIL import Image
from starlette.requests import ClientDisconnect, Request

from shelver.decide import Policy, Prediction
from shelver.pipeline import Classifier
from shelver.product import Product
from shelver.service.answers.answering import policy_version
from shelver.service.answers.predict import unless_left
from shelver.service.state import Service

RED, BLUE = (200, 20, 20), (20, 20, 200)
TITLES = (
    "bar stool for the counter",
    "reading lamp with shade",
    "racing car, small",
    "???",
    "deck chair lamp toys",
)


BOTH = pytest.mark.parametrize("client", [("ngram", "lite0")], indirect=True)
"""The model reads texts and pictures."""


@pytest.fixture
def client(
    request: pytest.FixtureRequest,
    make_app: Callable[..., TestClient],
    trained: Callable[[str, str], Path],
) -> TestClient:
    return make_app(model=trained(*getattr(request, "param", ("ngram", "none"))))


@pytest.fixture
def seller(as_role: Callable[..., TestClient]) -> TestClient:
    client: TestClient = as_role("seller", "Ann")
    return client


def drawn(colour: tuple[int, int, int], seed: int, kind: str = "PNG") -> bytes:
    noise = np.random.default_rng(seed).integers(0, 55, (40, 30, 3))
    file = io.BytesIO()
    Image.fromarray((noise + np.array(colour)).astype(np.uint8)).save(file, kind)
    return file.getvalue()


def base64_of(data: bytes) -> str:
    return base64.b64encode(data).decode()


def service_of(client: TestClient) -> Service:
    service: Service = client.app.state.service  # type: ignore[attr-defined]
    return service


def as_answered(said: Prediction) -> dict[str, Any]:
    """A prediction of the Classifier as the service tells it."""

    def six(p: float) -> float:
        return min(round(p, 6), 1.0)

    return {
        "outcome": said.outcome,
        "node_id": said.node_id,
        "path": said.path,
        "confidence": None if said.confidence is None else six(said.confidence),
        "level_confidence": [six(p) for p in said.level_confidence],
        "alternatives": [
            {"node_id": a.node_id, "path": a.path, "confidence": six(a.confidence)} for a in said.alternatives
        ],
        "attributes": {name: answer.as_json() for name, answer in said.attributes.items()},
        "modality": said.modality,
        "error": said.error,
    }


def same(answer: dict[str, Any], expected: dict[str, Any]) -> None:
    """Equal but for the last of six digits: a batch adds up in another order."""
    for name, value in expected.items():
        if name in ("confidence", "level_confidence"):
            assert answer[name] == pytest.approx(value, abs=2e-6)
        elif name == "alternatives":
            assert [one["node_id"] for one in answer[name]] == [one["node_id"] for one in value]
            confidences = [one["confidence"] for one in value]
            assert [one["confidence"] for one in answer[name]] == pytest.approx(confidences, abs=2e-6)
        else:
            assert answer[name] == value, name


@BOTH
def test_an_answer_is_that_of_the_classifier_for_json_form_and_batch(seller: TestClient) -> None:
    classifier = service_of(seller).models.current().classifier
    picture = drawn(RED, 7)
    for title in (*TITLES, None):
        for data in (picture, None):
            said = classifier([Product("p", title=title, images=(data,) if data else ())])[0]
            sent = {"title": title, "product_id": "p", "category_hint": "seats"}
            asked = {**sent, "image_base64": base64_of(data) if data else None}
            answer = seller.post("/v1/predict", json=asked)
            assert answer.status_code == 200, answer.text
            found = answer.json()
            same(found, as_answered(said))
            assert (found["product_id"], found["category_hint"], found["policy"]) == ("p", "seats", "default")
            assert found["versions"] == {
                "model": classifier.model_version,
                "taxonomy": classifier.taxonomy.version,
                "policy": policy_version(Policy()),
            }
            assert found["request_id"] == answer.headers["X-Request-ID"]
            batch = seller.post("/v1/predict/batch", json={"products": [asked] * 3}).json()
            assert batch["n_problems"] == 0
            for item in batch["answers"]:
                same(item["answer"], as_answered(said))
            files = {"image": ("a.png", data)} if data else {"ignored": (None, "")}
            form = seller.post("/v1/predict", data={k: v for k, v in sent.items() if v}, files=files)
            if data:
                same(form.json(), as_answered(said))
            else:
                assert form.status_code == 422, "a field that nobody knows"


def test_a_full_batch_is_answered_in_its_order(seller: TestClient) -> None:
    classifier = service_of(seller).models.current().classifier
    titles = [f"{TITLES[i % 5]} {i}" for i in range(256)]
    answer = seller.post("/v1/predict/batch", json={"products": [{"title": title} for title in titles]})
    said = classifier([Product("p", title=title) for title in titles])
    for item, expected in zip(answer.json()["answers"], said, strict=True):
        same(item["answer"], as_answered(expected))
    assert seller.post("/v1/predict/batch", json={"products": [{"title": "a"}] * 257}).status_code == 422


def test_the_policy_decides_and_top_n_says_how_many_alternatives(seller: TestClient) -> None:
    service = service_of(seller)
    classifier = service.models.current().classifier
    admin_policy = Policy(thresholds=(2.0,), unsure="review", n_top=2)
    service.models.current().policies["careful"] = admin_policy  # type: ignore[index]
    asked = {"title": TITLES[0]}
    said = classifier([Product("p", title=TITLES[0])], policy=admin_policy)[0]
    careful = seller.post("/v1/predict", json={**asked, "policy": "careful"}).json()
    same(careful, as_answered(said))
    assert (careful["outcome"], careful["node_id"], careful["policy"]) == ("review", None, "careful")
    assert careful["versions"]["policy"] == policy_version(admin_policy)
    for top_n in (1, 2, 3, 100):
        found = seller.post("/v1/predict", json={**asked, "policy": "careful", "top_n": top_n}).json()
        expected = classifier([Product("p", title=TITLES[0])], policy=Policy(n_top=top_n))[0]
        assert [a["node_id"] for a in found["alternatives"]] == [a.node_id for a in expected.alternatives]
    unknown = seller.post("/v1/predict", json={**asked, "policy": "no such"})
    assert (unknown.status_code, unknown.json()["code"]) == (422, "invalid_input")
    assert "careful" in unknown.json()["detail"]
    assert seller.post("/v1/predict", json=asked).status_code == 200, "the next one is answered"


@BOTH
def test_the_stages_put_together_give_what_predict_gives(seller: TestClient) -> None:
    products: list[dict[str, Any]] = [{"title": title} for title in TITLES]
    products += [{"title": None}, {"title": TITLES[1]}]
    images = [base64_of(drawn(RED, 1)), None, base64_of(b"none"), base64_of(drawn(BLUE, 2)), None, None, None]
    whole = [
        seller.post("/v1/predict", json={**product, "image_base64": image, "top_n": 3}).json()
        for product, image in zip(products, images, strict=True)
    ]
    for encoding in ("float32", "list"):
        text = seller.post("/v1/embed/text", json={"products": products, "encoding": encoding}).json()
        image = seller.post("/v1/embed/image", json={"images": images, "encoding": encoding}).json()
        assert text["errors"][5] == "empty_product"
        assert image["errors"][2] == whole[2]["picture_error"] == "image_format"
        embedded = {"text": text["embeddings"], "image": image["embeddings"], "encoding": encoding}
        asked = {**embedded, "model_version": text["model_version"]}
        for source in (
            asked,
            {"products": [{**p, "image_base64": i} for p, i in zip(products, images, strict=True)]},
        ):
            probs = seller.post("/v1/probabilities", json=source).json()
            sent = {
                "probabilities": probs["probabilities"],
                "encoding": probs["encoding"],
                "top_n": 3,
                "model_version": probs["model_version"],
            }
            decided = seller.post("/v1/decide", json=sent)
            assert decided.status_code == 200, decided.text
            for one, answer in zip(decided.json()["decisions"], whole, strict=True):
                same(one, {name: answer[name] for name in one})
    half = seller.post("/v1/embed/text", json={"products": products, "encoding": "float16"}).json()
    top = {"text": half["embeddings"], "encoding": "float16", "top_n": 2, "with_node_ids": True}
    found = seller.post("/v1/probabilities", json=top).json()
    assert [len(row["top"]) for row in found["probabilities"]] == [2] * len(products)
    assert found["node_ids"] == list(service_of(seller).models.current().taxonomy.ids)


def test_every_answer_stands_in_the_log(seller: TestClient) -> None:
    service = service_of(seller)
    one = seller.post("/v1/predict", json={"title": TITLES[0], "product_id": "sku-1"}).json()
    batch = seller.post("/v1/predict/batch", json={"products": [{"title": TITLES[0]}, {"title": None}]}).json()
    assert service.log.safe()
    from sqlalchemy import select

    from shelver.service.tables.records import PredictionRow

    with service.database.reading() as session:
        rows = {row.id: row for row in session.scalars(select(PredictionRow))}
    answers = [one, *(item["answer"] for item in batch["answers"])]
    assert rows.keys() == {answer["prediction_id"] for answer in answers}
    for answer in answers:
        row = rows[answer["prediction_id"]]
        assert json.loads(row.answer) == answer
        assert (row.user_id, row.product_id) == (seller.headers["X-User"], answer["product_id"])
        assert (row.node_id, row.outcome, row.modality) == (
            answer["node_id"],
            answer["outcome"],
            answer["modality"],
        )
        assert row.latency_ms > 0
    hashes = [rows[answer["prediction_id"]].input_hash for answer in answers]
    assert hashes[0] == hashes[1] != hashes[2], "of what is asked, not of what it is called"


def test_the_same_key_gives_the_same_answer_and_another_request_is_refused(seller: TestClient) -> None:
    key = {"Idempotency-Key": "k1"}
    first = seller.post("/v1/predict", json={"title": TITLES[0]}, headers=key)
    again = seller.post("/v1/predict", json={"title": TITLES[0]}, headers=key)
    assert again.content == first.content
    assert ("Idempotency-Replayed" in first.headers, again.headers["Idempotency-Replayed"]) == (False, "true")
    other = seller.post("/v1/predict", json={"title": TITLES[1]}, headers=key)
    assert (other.status_code, other.json()["code"]) == (409, "key_reused")
    batch = {"products": [{"title": TITLES[0]}]}
    assert seller.post("/v1/predict/batch", json=batch, headers=key).status_code == 409
    refused = seller.post("/v1/predict", json={"title": "a", "policy": "none"}, headers={"Idempotency-Key": "k2"})
    mended = seller.post("/v1/predict", json={"title": "a"}, headers={"Idempotency-Key": "k2"})
    assert (refused.status_code, mended.status_code) == (422, 200), "only answers are kept"


def test_keys_belong_to_their_callers(as_role: Callable[..., TestClient]) -> None:
    key = {"Idempotency-Key": "same"}
    ann, bob = as_role("seller", "Ann"), as_role("seller", "Bob")
    first = ann.post("/v1/predict", json={"title": TITLES[0]}, headers=key)
    second = bob.post("/v1/predict", json={"title": TITLES[1]}, headers=key)
    assert (first.status_code, second.status_code) == (200, 200)
    assert first.json()["prediction_id"] != second.json()["prediction_id"]


def test_without_a_token_nothing_is_answered(client: TestClient) -> None:
    assert client.post("/v1/predict", json={"title": "a"}).status_code == 401
    assert client.post("/v1/embed/text", json={"products": [{"title": "a"}]}).status_code == 401


def test_the_public_may_ask_so_often(make_app: Callable[..., TestClient]) -> None:
    public = make_app(public_per_minute=3)
    assert public.post("/v1/predict", json={"title": "a"}).status_code == 200
    asked = {"products": [{"title": "a"}, {"title": "b"}]}
    assert public.post("/v1/predict/batch", json=asked).status_code == 200
    refused = public.post("/v1/predict", json={"title": "a"})
    assert (refused.status_code, refused.json()["code"]) == (429, "too_many_requests")


@BOTH
def test_a_picture_that_cannot_be_used_is_left_out(seller: TestClient) -> None:
    broken = base64_of(drawn(RED, 1)[:60])
    alone = seller.post("/v1/predict", json={"image_base64": broken}).json()
    assert (alone["outcome"], alone["node_id"]) == ("error", None)
    assert alone["error"] == alone["picture_error"] is not None
    text = seller.post("/v1/predict", json={"image_base64": broken, "title": TITLES[0]}).json()
    assert (text["outcome"], text["modality"], text["picture_error"]) == ("decided", "text", alone["error"])


@BOTH
def test_hostile_bodies_are_refused_and_never_fail(seller: TestClient) -> None:
    deep = "[" * 50_000 + "]" * 50_000
    bodies: list[bytes] = [
        b"",
        b"{",
        b"null",
        b"[]",
        b"\xff\xfe",
        deep.encode(),
        b'{"title": ' + deep.encode() + b"}",
        b'{"title": 1}',
        b'{"title": NaN}',
        b'{"title": "\\ud800"}',
        b'{"title": "a", "unknown": 1}',
        b'{"top_n": 0}',
        b'{"top_n": 1e400}',
        b'{"top_n": 101, "title": "a"}',
        b'{"policy": ""}',
        b'{"policy": null}',
        b'{"product_id": "' + b"x" * 300 + b'"}',
        b'{"title": "' + b"x" * 200_000 + b'"}',
        b'{"image_base64": "%%%"}',
        b'{"image_base64": "abc"}',
        b'{"image_base64": 1}',
        b'{"image_base64": "' + "é".encode() + b'"}',
        b'{"image_base64": "' + b"A" * 12_000_000 + b'"}',
    ]
    json_kind = {"Content-Type": "application/json"}
    for body in bodies:
        answer = seller.post("/v1/predict", content=body, headers=json_kind)
        assert 400 <= answer.status_code < 500, (body[:40], answer.text[:200])
        assert answer.json()["code"] in ("invalid_input", "picture_unusable", "too_large")
    for kind in ("text/plain", "multipart/form-data", "multipart/form-data; boundary=x", "", "*/*"):
        answer = seller.post("/v1/predict", content=b"--x\r\n\r\nhello", headers={"Content-Type": kind})
        assert 400 <= answer.status_code < 500, (kind, answer.text)
    tiny: tuple[bytes, ...] = (
        b'{"image_base64": ""}',
        b'{"image_base64": "data:,"}',
        b'{"title": "\\u0000"}',
        b"{}",
    )
    for body in tiny:
        answer = seller.post("/v1/predict", content=body, headers=json_kind)
        assert answer.status_code == 200, answer.text
    two = seller.post("/v1/predict", files=[("image", ("a", b"1")), ("image", ("b", b"2"))])
    named = seller.post("/v1/predict", files={"image": (None, "text")})
    file = seller.post("/v1/predict", files={"title": ("a", b"1")}, data={"top_n": "x"})
    assert [answer.status_code for answer in (two, named, file)] == [400, 422, 422]


@BOTH
def test_hostile_stages_are_refused_and_never_fail(seller: TestClient) -> None:
    width = seller.post("/v1/embed/text", json={"products": [{"title": "a"}]}).json()["width"]
    good = seller.post("/v1/probabilities", json={"products": [{"title": TITLES[0]}]}).json()["probabilities"][0]
    k = len(service_of(seller).models.current().taxonomy.ids)
    for asked in (
        {},
        {"text": [None], "image": [None, None]},
        {"products": [{"title": "a"}], "text": [None]},
        {"text": ["AAAA"]},
        {"text": ["?"]},
        {"text": [[1.0]]},
        {"text": [[1e300] * width], "encoding": "list"},
        {"text": [base64_of(np.full(width, np.nan, "<f4").tobytes())]},
        {"text": [None], "model_version": "another"},
        {"products": [{"title": "a", "image_base64": "?"}]},
    ):
        answer = seller.post("/v1/probabilities", json=asked)
        assert 400 <= answer.status_code < 500, (asked, answer.text)
    nowhere = seller.post("/v1/probabilities", json={"text": [None]}).json()["probabilities"][0]
    assert nowhere["modality"] is None
    assert (
        seller.post("/v1/decide", json={"probabilities": [nowhere]}).json()["decisions"][0]["outcome"] == "error"
    )
    for change in (
        {"nodes": None},
        {"nodes": "AAAA"},
        {"nodes": [0.0] * k},
        {"nodes": [-1.0] * k},
        {"nodes": [0.5] * (k + 1)},
        {"nodes": [1.0] * k},
        {"modality": "smell"},
        {"outside": "no"},
    ):
        answer = seller.post("/v1/decide", json={"probabilities": [{**good, **change}]})
        assert answer.status_code == 422, (change, answer.text)
    for name in ("/v1/decide", "/v1/embed/text", "/v1/embed/image", "/v1/predict/batch"):
        for body in (b"", b"[]", b"{}", b"null", b'{"products": [], "images": [], "probabilities": []}'):
            assert seller.post(name, content=body).status_code == 422


@BOTH
def test_mutated_pictures_never_fail(seller: TestClient) -> None:
    rng = random.Random(5)
    whole = [drawn(RED, 3, kind) for kind in ("PNG", "JPEG", "WEBP", "GIF", "BMP")]
    outcomes = set()
    for i in range(60):
        data = bytearray(whole[i % len(whole)])
        for _ in range(rng.choice((1, 3, 30))):
            data[rng.randrange(len(data))] = rng.randrange(256)
        if i % 4 == 0:
            del data[rng.randrange(len(data)) :]
        answer = seller.post("/v1/predict", files={"image": ("a.jpg", bytes(data))})
        assert answer.status_code == 200, answer.text
        outcomes.add(answer.json()["outcome"])
    assert outcomes == {"decided", "error"}


def test_large_bodies_cost_next_to_nothing_before_they_are_refused(seller: TestClient, client: TestClient) -> None:
    def took_s(sender: TestClient, path: str, body: bytes, status: int, code: str) -> float:
        began = time.process_time()
        answer = sender.post(path, content=body, headers={"Content-Type": "application/json"})
        assert (answer.status_code, answer.json()["code"]) == (status, code), answer.text[:300]
        assert len(answer.content) < 20_000
        return time.process_time() - began

    keys = b",".join(b'"%x":0' % i for i in range(600_000))
    lists = b'{"products":[' + b"{}," * 1_000_000 + b"{}]}"
    few_keys = b",".join(b'"%x":0' % i for i in range(20_000))
    for path in ("/v1/predict", "/v1/predict/batch", "/v1/embed/text", "/v1/decide", "/v1/probabilities"):
        assert took_s(seller, path, b'{"title":"x",' + keys + b"}", 413, "too_large") < 1
        assert took_s(seller, path, lists, 413, "too_large") < 1
        assert took_s(seller, path, b'{"title":"x",' + few_keys + b"}", 422, "invalid_input") < 1
        assert took_s(client, path, b"{}", 401, "not_signed_in") < 1, "who asks is known before what is asked"
    asked = {"products": [{"title": "a"}] * 64}
    tree = service_of(seller).models.current().taxonomy
    whole = seller.post("/v1/probabilities", json={**asked, "encoding": "list"})
    assert len(whole.json()["probabilities"][0]["nodes"]) == tree.n_nodes, "a small tree is told as lists"


def test_when_it_is_full_the_answer_is_503_at_once(as_role: Callable[..., TestClient]) -> None:
    ann, bob = as_role("seller", "Ann"), as_role("seller", "Bob")
    batcher = service_of(ann).answering.batcher
    assert ann.post("/v1/predict", json={"title": "a"}).status_code == 200
    with batcher.reserve(ann.headers["X-User"], batcher.n_places):
        for body in ({"title": "a"}, {"wrong": "is not even read"}):
            refused = ann.post("/v1/predict", json=body)
            assert (refused.status_code, refused.json()["code"]) == (503, "busy")
            assert int(refused.headers["Retry-After"]) >= 1
        for name in ("/v1/predict/batch", "/v1/embed/text"):
            assert ann.post(name, json={"products": [{"title": "a"}]}).status_code == 503
        assert bob.post("/v1/predict", json={"title": "a"}).status_code == 200, "he had none at work"
    assert bob.post("/v1/predict", json={"title": "a"}).status_code == 200


def test_each_answer_is_that_of_the_version_it_names_while_models_are_swapped(
    seller: TestClient, trained: Callable[[str, str], Path], text_model: Path
) -> None:
    models = service_of(seller).models
    other = models.store.register(trained("ngram", "lite0"), by="a test", trial=False).model_version
    versions = [models.current().model_version, other]
    picture = drawn(RED, 7)
    asked = {"title": TITLES[0], "image_base64": base64_of(picture)}
    product = [Product("p", title=TITLES[0], images=(picture,))]
    expected = {}
    for folder in (text_model, trained("ngram", "lite0")):
        classifier = Classifier.open(folder, threads=1)
        expected[classifier.model_version] = as_answered(classifier(product)[0])
    assert set(expected) == set(versions)
    over = threading.Event()

    def ask() -> list[dict[str, Any]]:
        answers: list[dict[str, Any]] = []
        while not over.is_set() or len(answers) < 5:
            answer = seller.post("/v1/predict", json=asked)
            assert answer.status_code == 200, answer.text
            answers.append(answer.json())
        return answers

    with ThreadPoolExecutor(4) as threads:
        asking = [threads.submit(ask) for _ in range(4)]
        for i in range(8):
            models.promote(models.prepare(versions[(i + 1) % 2]), by="a test")
            time.sleep(0.1)  # a swap takes less than an answer
        over.set()
        answers = [answer for one in asking for answer in one.result()]
    for answer in answers:
        same(answer, expected[answer["versions"]["model"]])
    assert {answer["versions"]["model"] for answer in answers} == set(versions)


def test_work_for_a_caller_who_left_is_given_up() -> None:
    ended = 0

    async def gone() -> dict[str, str]:
        return {"type": "http.disconnect"}

    async def still_there() -> dict[str, str]:
        await asyncio.sleep(60)
        return {}

    async def work(seconds: float) -> str:
        nonlocal ended
        try:
            await asyncio.sleep(seconds)
        finally:
            ended += 1
        return "done"

    async def ask() -> None:
        scope = {"type": "http", "method": "POST", "headers": []}
        with pytest.raises(ClientDisconnect):
            await unless_left(Request(scope, gone), work(60))
        await asyncio.sleep(0)
        assert ended == 1
        assert await unless_left(Request(scope, still_there), work(0.1)) == "done"

    asyncio.run(ask())
    assert ended == 2


def test_metrics_tell_of_stages_batches_and_answers(
    seller: TestClient, as_role: Callable[..., TestClient]
) -> None:
    seller.post("/v1/predict", json={"title": TITLES[0]})
    text = as_role("admin").get("/metrics").text
    assert 'shelver_answers_total{outcome="decided",policy="default"} 1.0' in text
    for stage in ("embed_text", "probabilities", "decide", "wait", "batch"):
        assert f'shelver_stage_seconds_count{{stage="{stage}"}} 1.0' in text
    assert "shelver_batch_products_count 1.0" in text
    assert "shelver_queue_products 0.0" in text
