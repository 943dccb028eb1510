"""`shelver.client` against a service at a port of this machine, and against one that fails on purpose."""

from __future__ import annotations

import asyncio
import base64
import inspect
import json
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple, TypedDict, assert_type

import httpx2
import numpy as np
import pytest
from belongings import picture_bytes
from service_rig import PASSWORD, make_user, token_of
from sqlalchemy import update

import shelver.client
from shelver.client import (
    ApiError,
    AsyncClient,
    Client,
    EvaluateParams,
    InputError,
    InvalidError,
    MappingIn,
    NoAnswerError,
    NotAllowedError,
    NotFoundError,
    NotSignedInError,
    UnavailableError,
    Verdict,
    accounts,
    answers,
    configuration,
    product,
    records,
    reviewing,
    vectors,
)
from shelver.client.call import IDEMPOTENCY_KEY, Call, get
from shelver.decide import Policy
from shelver.service.answers.payloads import PredictOut
from shelver.service.app import create_app
from shelver.service.jobs.events import happened
from shelver.service.jobs.payloads import ImportParams
from shelver.service.openapi import operations_of
from shelver.service.products.payloads import PictureIn, ProductBody
from shelver.service.server import Server
from shelver.service.state import Service
from shelver.service.tables.accounts import User
from shelver.service.tables.work import JobRow
from shelver.settings import ServiceSettings


class Person(TypedDict):
    """How somebody signs in."""

    email: str
    password: str


class Live(NamedTuple):
    """A service that runs: its address, and what it works with."""

    url: str
    service: Service

    def person(self, role: Any = "seller") -> Person:
        user = make_user(self.service, role)
        assert user.email is not None
        return {"email": user.email, "password": PASSWORD}


@pytest.fixture
def live(service_settings: Callable[..., ServiceSettings], logs: Any) -> Iterator[Live]:
    """Served as `shelver serve` does, in a thread of this process."""
    settings = service_settings(port=0)
    app = create_app(settings)
    server = Server(app, settings)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    until = time.monotonic() + 60
    while not server.started:
        assert thread.is_alive(), "it did not start"
        assert time.monotonic() < until, "it did not start in time"
        time.sleep(0.01)
    port = server.servers[0].sockets[0].getsockname()[1]
    yield Live(f"http://127.0.0.1:{port}", app.state.service)
    app.state.stopping = True
    server.should_exit = True
    thread.join(30)
    assert not thread.is_alive(), "it did not stop"


def test_a_seller_s_day(live: Live, tmp_path: Path) -> None:
    picture = tmp_path / "chair.png"
    picture.write_bytes(picture_bytes())
    with Client(live.url, **live.person()) as shelver:
        answer = shelver.predict(title="blue denim jeans", picture=picture, product_id="sku-1", top_n=2)
        assert_type(answer, PredictOut)
        assert answer.product_id == "sku-1"
        assert len(answer.alternatives) <= 2
        several = shelver.predict_batch([product(title="red shoes"), product(title="a", picture=b"no picture")])
        assert several.answers[0].answer is not None
        label = shelver.give_feedback(answer.prediction_id, "reject", note="not mine")
        assert label.node_after is None
        assert shelver.read_prediction(answer.prediction_id).answer["prediction_id"] == answer.prediction_id
        assert shelver.list_predictions(limit=1).next is not None
        body = ProductBody(title="Deck chair", pictures=[PictureIn(hash=None, base64=encoded(picture))])
        made = shelver.create_product(body)
        assert shelver.list_products(q="deck").items[0].id == made.id
        changed = shelver.replace_product(made.id, ProductBody(title="Chair"), version=made.version)
        assert (changed.title, changed.pictures) == ("Chair", made.pictures)
        with pytest.raises(ApiError) as refused:
            shelver.replace_product(made.id, ProductBody(title="Stool"), version=made.version)
        assert (refused.value.status, refused.value.code) == (412, "changed_meanwhile")
        shelver.delete_product(made.id)
        with pytest.raises(NotFoundError):
            shelver.read_product(made.id)
        assert shelver.propose_category(title="red shoes").prediction_id
        assert shelver.read_me().role == "seller"
        shelver.sign_out()
        with pytest.raises(NotSignedInError):
            shelver.read_me()


def test_the_stages_put_together_give_the_whole(live: Live) -> None:
    with Client(live.url, **live.person()) as shelver:
        texts = ["blue denim jeans", "red running shoes"]
        embedded = shelver.embed_text(texts)
        assert vectors(embedded).shape == (2, embedded.width)
        assert np.isfinite(vectors(embedded)).all()
        rows = shelver.probabilities(text=embedded)
        decided = shelver.decide(rows.probabilities)
        whole = shelver.predict_batch([product(title=text) for text in texts])
        for one, other in zip(decided.decisions, whole.answers, strict=True):
            assert other.answer is not None
            assert one.node_id == other.answer.node_id
        top = shelver.probabilities([product(title=texts[0])], top_n=2).probabilities[0].top
        assert top is not None
        assert len(top) == 2


def test_an_administrator_s_day(live: Live) -> None:
    with Client(live.url, **live.person("admin")) as shelver:
        tree = shelver.read_taxonomy()
        node = shelver.search_nodes(tree.roots[0].name, n=3).nodes[0]
        assert shelver.read_node(node.node_id).name == node.name
        version = shelver.list_models().models[0].model_version
        assert shelver.read_model(version).aliases == ["champion"]
        assert shelver.promote_model(version).champion == version
        kept = shelver.write_policy("careful", Policy(decoder="climb", thresholds=(0.9,)))
        assert kept.kept_by == "service"
        assert "careful" in [one.name for one in shelver.list_policies().policies]
        assert shelver.predict(title="blue jeans", policy="careful").policy == "careful"
        assert shelver.read_policy("careful").policy.thresholds == (0.9,)
        shelver.delete_policy("careful")
        assert shelver.read_quality(by="policy").by == "policy"
        assert shelver.list_feedback(audit=True).items == []
        with pytest.raises(ApiError) as refused:
            shelver.roll_back()
        assert refused.value.code in ("no_previous_model", "conflict")
        with pytest.raises(InvalidError):
            shelver.register_model("../elsewhere")


def test_both_clients_do_the_same(live: Live) -> None:
    async def asking() -> tuple[PredictOut, list[str]]:
        async with AsyncClient(live.url, **live.person()) as shelver:
            several = await asyncio.gather(*(shelver.predict(title=f"shoes {i}") for i in range(5)))
            with pytest.raises(InvalidError) as refused:
                await shelver.predict(title="x", top_n=1000)
            return several[0], list(refused.value.fields)

    answer, fields = asyncio.run(asking())
    assert isinstance(answer, PredictOut)
    assert fields == ["body.top_n"]
    public = {name for name in vars(Client) | vars(shelver.client.clients._Operations) if not name.startswith("_")}
    assert public == {
        name for name in vars(AsyncClient) | vars(shelver.client.clients._Operations) if not name.startswith("_")
    }


def test_refusals_say_all_that_the_problem_said(live: Live) -> None:
    with Client(live.url, **live.person()) as shelver:
        with pytest.raises(InvalidError) as refused:
            shelver.predict(title="x", top_n=0)
        error = refused.value
        assert (error.status, error.code) == (422, "invalid_input")
        assert error.fields.keys() == {"body.top_n"}
        assert error.request_id
        assert error.request_id in str(error)
        with pytest.raises(NotAllowedError):
            shelver.list_feedback()
        with pytest.raises(ApiError, match="no product"):
            shelver.read_product("0" * 32)
    with Client(live.url) as nobody, pytest.raises(NotSignedInError):
        nobody.predict(title="x")
    with Client(live.url, email="a@example.org", password="wrong") as wrong, pytest.raises(NotSignedInError) as no:
        wrong.read_me()
    assert no.value.code == "sign_in_failed"


def test_tokens_are_renewed_by_themselves_and_only_once(live: Live) -> None:
    user = make_user(live.service, "seller")
    with Client(live.url, email=user.email, password=PASSWORD) as shelver:
        first = shelver.read_me()
        before = shelver._session.tokens
        shelver._session.good_until = time.monotonic()  # about to expire
        together = [threading.Thread(target=shelver.read_me) for _ in range(6)]
        for thread in together:
            thread.start()
        for thread in together:
            thread.join()
        after = shelver._session.tokens
        assert before is not None
        assert after is not None
        assert before.refresh_token != after.refresh_token
        assert shelver.read_me() == first  # a refresh token that came twice would have ended the sign-in
        # A sign-in that was ended from elsewhere begins anew, as there is a password.
        with live.service.database.writing() as session:
            session.execute(update(User).where(User.id == user.id).values(version=2))
        live.service.identities.forget(user.id)
        assert shelver.read_me() == first


def test_a_machine_signs_in_with_its_key(live: Live) -> None:
    machine = make_user(live.service, "service")
    with Client(live.url, api_key=token_of(live.service, machine)) as shelver:
        assert shelver.read_me().role == "service"
    with Client(live.url, api_key="shk_" + "A" * 43) as shelver, pytest.raises(NotSignedInError):
        shelver.read_me()


def test_a_job_is_followed_to_its_end(live: Live, tmp_path: Path) -> None:
    feed = tmp_path / "feed.csv"
    feed.write_text("product_id,title\n1,chair\n", encoding="utf-8")
    with Client(live.url, **live.person()) as shelver:
        upload = shelver.upload_feed(feed)
        assert (upload.name, upload.n_bytes) == ("feed.csv", feed.stat().st_size)
        job = shelver.start_job(ImportParams(kind="import_products", upload_id=upload.id))

        def work() -> None:
            """What a worker would note."""
            for kind, state in (("started", "running"), ("progress", "running"), ("done", "done")):
                time.sleep(0.3)
                with live.service.database.writing() as session:
                    row = session.get(JobRow, job.id, with_for_update=True)
                    assert row is not None
                    row.state = state
                    happened(session, row, kind)

        worker = threading.Thread(target=work)
        worker.start()
        followed = shelver.follow_job(job.id)
        first = next(followed)
        assert (first.number, first.kind) == (1, "queued")
        followed.close()  # type: ignore[attr-defined]
        rest = [event.kind for event in shelver.follow_job(job.id, after=first.number)]
        assert rest == ["started", "progress", "done"]
        assert shelver.wait_for_job(job.id).state == "done"
        assert shelver.list_jobs(state="done").items[0].id == job.id
        assert shelver.cancel_job(job.id).state == "done"
        with pytest.raises(NotFoundError):
            list(shelver.follow_job("0" * 32))

        async def following() -> list[int]:
            async with AsyncClient(live.url, **live.person("admin")) as other:
                return [event.number async for event in other.follow_job(job.id, after=1)]

        assert asyncio.run(following()) == [2, 3, 4]
        worker.join()


class Script:
    """A network that answers by a script: a status with its problem, or an error. The last line repeats."""

    def __init__(self, *lines: Any) -> None:
        self.lines = list(lines)
        self.asked: list[httpx2.Request] = []

    def __call__(self, request: httpx2.Request) -> httpx2.Response:
        self.asked.append(request)
        line = self.lines.pop(0) if len(self.lines) > 1 else self.lines[0]
        if isinstance(line, Exception):
            raise line
        status, code, headers = line
        problem = {"Content-Type": "application/problem+json", **headers}
        return httpx2.Response(status, headers=problem, content=json.dumps({"code": code, "detail": "no"}))


@pytest.fixture
def scripted(monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[Client, Script]]:
    monkeypatch.setattr("shelver.client.exchange._FIRST_WAIT_S", 0.001)

    def make(*lines: Any) -> tuple[Client, Script]:
        script = Script(*lines)
        return Client("http://service.test", api_key="shk_x", transport=httpx2.MockTransport(script)), script

    return make


BUSY = (503, "busy", {"Retry-After": "0"})
LOST = httpx2.ReadError("lost")


@pytest.mark.parametrize(
    ("call", "lines", "n_asked", "raised"),
    [
        (answers.predict(title="x"), (BUSY, BUSY, (422, "invalid_input", {})), 3, InvalidError),
        (answers.predict(title="x"), (BUSY,), 4, UnavailableError),
        (answers.predict(title="x"), (LOST,), 4, NoAnswerError),
        (answers.predict(title="x"), ((503, "database_unavailable", {}),), 4, UnavailableError),
        (answers.predict(title="x"), ((503, "busy", {"Retry-After": "600"}),), 1, UnavailableError),
        (answers.predict(title="x"), ((500, "internal", {}),), 1, UnavailableError),
        # What may have been done already is not done again.
        (records.delete_product("0" * 32), (LOST,), 1, NoAnswerError),
        (
            records.delete_product("0" * 32),
            ((503, "database_unavailable", {"Retry-After": "0"}),),
            1,
            ApiError,
        ),
        (records.delete_product("0" * 32), (httpx2.ConnectError("refused"),), 4, NoAnswerError),
        (records.delete_product("0" * 32), (BUSY, (409, "conflict", {})), 2, ApiError),
        (
            records.read_me(),
            ((502, "unknown", {}), (429, "too_many_requests", {"Retry-After": "0"}), LOST),
            4,
            None,
        ),
        (records.read_me(), ((401, "not_signed_in", {}),), 1, NotSignedInError),
        (records.create_product(ProductBody()), (LOST,), 4, NoAnswerError),
        (records.read_me(), ((503, "busy", {"Retry-After": "nan"}),), 4, UnavailableError),
    ],
)
def test_calls_are_made_again_where_that_helps_and_is_safe(
    scripted: Callable[..., tuple[Client, Script]],
    call: Call[Any],
    lines: tuple[Any, ...],
    n_asked: int,
    raised: type[Exception] | None,
) -> None:
    client, script = scripted(*lines)
    with pytest.raises(raised or NoAnswerError):
        client.send(call)
    assert len(script.asked) == n_asked
    keys = {request.headers.get(IDEMPOTENCY_KEY) for request in script.asked}
    assert len(keys) == 1, "each attempt has the same key"
    assert (keys == {None}) == (IDEMPOTENCY_KEY not in call.headers)


def test_a_stream_that_breaks_goes_on_where_it_broke(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shelver.client.exchange._FIRST_WAIT_S", 0.001)
    monkeypatch.setattr("shelver.client.following._AGAIN_S", 0.001)

    def events(*numbers: int, last: str = "progress", broken: bool = False) -> httpx2.Response:
        def lines() -> Iterator[bytes]:
            yield b"retry: 2000\n\n: still here\n\n"
            for number in numbers:
                kind = last if number == numbers[-1] else "progress"
                yield f'id: {number}\nevent: {kind}\ndata: {{"state": "running"}}\n\n'.encode()
            if broken:
                yield b"id: 9\nevent: pro"
                raise httpx2.ReadError("broken")

        return httpx2.Response(200, headers={"Content-Type": "text/event-stream"}, content=lines())

    script: list[httpx2.Response | Exception] = [
        events(1, 2, broken=True),
        httpx2.ConnectError("refused"),
        httpx2.Response(503, headers={"Retry-After": "0"}),
        events(2, 3),  # in good order, before the job has ended
        events(4, last="done"),
    ]
    asked: list[str] = []

    def answer(request: httpx2.Request) -> httpx2.Response:
        asked.append(request.headers["Last-Event-ID"])
        found = script.pop(0)
        if isinstance(found, Exception):
            raise found
        return found

    with Client("http://service.test", api_key="shk_x", transport=httpx2.MockTransport(answer)) as client:
        followed = list(client.follow_job("0" * 32))
    assert [event.number for event in followed] == [1, 2, 3, 4]
    assert followed[-1].kind == "done"
    assert asked == ["0", "2", "2", "2", "3"]


def test_each_prediction_has_a_key_of_its_own() -> None:
    first, second = answers.predict(title="x"), answers.predict(title="x")
    assert first.headers[IDEMPOTENCY_KEY] != second.headers[IDEMPOTENCY_KEY]
    assert answers.predict(title="x", idempotency_key="mine").headers[IDEMPOTENCY_KEY] == "mine"


def test_a_sign_in_outlives_a_service_that_is_away_for_a_while() -> None:
    tokens = {"access_token": "a", "token_type": "bearer", "expires_in": 900, "refresh_token": "r"}
    away = False
    asked: list[str] = []

    def answer(request: httpx2.Request) -> httpx2.Response:
        asked.append(request.url.path)
        if away:
            raise httpx2.ConnectError("refused")
        return httpx2.Response(200, json=tokens)

    with Client("http://service.test", attempts=1, transport=httpx2.MockTransport(answer)) as client:
        client.sign_in("ann@example.org", "x")
        client._session.good_until = 0
        away = True
        with pytest.raises(NoAnswerError):
            client.read_me()
        away = False
        with pytest.raises(ApiError):  # the answer is no account, but it is asked for
            client.read_me()
    assert asked == ["/v1/login", "/v1/refresh", "/v1/refresh", "/v1/me"]


@pytest.mark.parametrize("body", [b"<html>", b"{}", b'{"code": 3, "fields": ["x"]}', b"[]", b""])
def test_answers_of_others_are_errors_of_a_known_kind(body: bytes) -> None:
    def answer(request: httpx2.Request) -> httpx2.Response:
        status = 200 if request.method == "GET" else 418
        return httpx2.Response(status, headers={"Content-Type": "application/problem+json"}, content=body)

    with Client("http://proxy.test", transport=httpx2.MockTransport(answer)) as client:
        with pytest.raises(ApiError):
            client.read_me()
        with pytest.raises(InvalidError) as refused:
            client.predict(title="x")
        assert refused.value.code in ("unknown", "3")


def test_a_picture_is_a_path_an_address_or_bytes(tmp_path: Path) -> None:
    path = tmp_path / "p.png"
    path.write_bytes(b"abc")
    for picture in (path, str(path), b"abc"):
        assert answers.predict(picture=picture).body["json"]["image_base64"] == "YWJj"
    body = answers.predict(picture="https://example.org/p.png").body["json"]
    assert body["image_url"] == "https://example.org/p.png"
    with pytest.raises(OSError, match="nowhere"):
        answers.predict(picture=tmp_path / "nowhere")


def test_secrets_do_not_stand_in_what_is_printed() -> None:
    with Client("http://service.test", email="a@example.org", password="s3cret") as client:
        assert "s3cret" not in repr(client._session)
        assert "s3cret" not in repr(vars(client))


def test_every_call_is_an_operation_of_the_document(tmp_path: Path) -> None:
    document = create_app(ServiceSettings(model=tmp_path, data=tmp_path)).openapi()
    known = {operation["operationId"]: (method, path) for method, path, operation in operations_of(document)}
    file = tmp_path / "feed.csv"
    file.touch()
    examples: dict[str, Any] = {"path": file, "body": ProductBody(), "policy": Policy(), "action": "accept"}
    for module in (accounts, answers, records, reviewing, configuration):
        for name, make in vars(module).items():
            if (
                not inspect.isfunction(make)
                or make.__module__ != module.__name__
                or name in ("product", "vectors")
                or name.startswith("_")
            ):
                continue
            needed = [one.name for one in inspect.signature(make).parameters.values() if one.default is one.empty]
            values = {
                one: examples.get(one, [])
                if one in ("products", "rows", "verdicts")
                else examples.get(one, f"<{one}>")
                for one in needed
            }
            if name == "start_job":
                values["body"] = ImportParams(kind="import_products", upload_id="0" * 32)
            if name in ("embed_text", "embed_image"):
                values = {one: [] for one in needed}
            if name == "register_model":
                values["path"] = "fashion-2"
            call = make(**values)
            method, path = known[name]
            assert call.method == method, name
            assert len(call.path.split("/")) == len(path.split("/")), f"{name}: {call.path} is not {path}"
            for one, other in zip(call.path.split("/"), path.split("/"), strict=True):
                assert one == other or other.startswith("{"), f"{name}: {call.path} is not {path}"
            assert hasattr(Client, name)


def test_a_body_is_a_model_or_a_mapping() -> None:
    said = {"title": "Chair", "attributes": {"material": ["beech"]}, "pictures": [{"base64": "YWJj"}]}
    as_model = ProductBody.model_validate(said)
    for body in (said, MappingProxyType(said), as_model):
        assert records.create_product(body).body["json"].items() >= said.items()
        assert records.replace_product("a", body).body["json"]["title"] == "Chair"
    job = {"kind": "import_products", "upload_id": "0" * 32, "mapping": {"columns": {"title": "name"}}}
    mapping = MappingIn(columns={"title": "name"})
    model = ImportParams(kind="import_products", upload_id="0" * 32, mapping=mapping)
    assert records.start_job(job).body == records.start_job(model).body == {"json": job}
    for call in (
        answers.predict_batch([{"title": "a"}, product(title="a")]),
        answers.probabilities([{"title": "a"}]),
    ):
        assert call.body["json"]["products"][0] == {"title": "a"}
    row = {"modality": "text", "nodes": [0.5, 0.5]}
    assert answers.decide([row]).body["json"]["probabilities"] == [row]
    verdict = {"prediction_ids": ["0" * 32], "action": "accept"}
    of_model = reviewing.decide_review_items([Verdict(prediction_ids=["0" * 32], action="accept")])
    assert reviewing.decide_review_items([verdict]).body == of_model.body == {"json": {"verdicts": [verdict]}}
    policy = {"decoder": "climb", "thresholds": [0.9]}
    assert configuration.write_policy("p", policy).body == {"json": policy}


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (
            lambda: records.create_product({"titel": "Chair"}),
            "body.titel: .* Allowed: ProductBody, or a mapping with its fields: seller_product_id, title, ",
        ),
        (lambda: records.create_product(product(title="Chair")), "body: .*ProductBody"),  # type: ignore[arg-type]
        (lambda: records.create_product("Chair"), "body: .*ProductBody"),  # type: ignore[arg-type]
        (
            lambda: records.start_job({"kind": "paint"}),
            "body: .*'train'.* Allowed: TrainParams or EvaluateParams or",
        ),
        (lambda: records.start_job({"kind": "evaluate"}), r"body\.evaluate\.catalog: Field required"),
        (lambda: answers.predict_batch([{}, {"title": 3}]), r"products\[1\]\.title: "),
        (lambda: answers.predict(title=3), r"product\.title: "),  # type: ignore[arg-type]
        (lambda: configuration.write_policy("p", {"decoder": "dice"}), r"policy\.decoder: "),
        (lambda: records.create_product({str(i): i for i in range(5)}), "; and 2 more"),
    ],
)
def test_a_body_that_does_not_fit_is_refused_before_it_is_sent(make: Callable[[], Any], told: str) -> None:
    with pytest.raises(InputError, match=told) as refused:
        make()
    assert "nothing was sent" in str(refused.value)
    assert EvaluateParams(kind="evaluate", catalog="demo").catalog == "demo"


def test_half_a_sign_in_and_half_an_address_are_refused_at_once() -> None:
    for kind in (Client, AsyncClient):
        with pytest.raises(InputError, match="`email` without `password`"):
            kind("http://service.test", email="ann@example.org")
        with pytest.raises(InputError, match="`password` without `email`") as refused:
            kind("http://service.test", email="", password="s3cret")
        assert "s3cret" not in str(refused.value)
        for url in ("127.0.0.1:8000", "localhost:8000", "shop.example", "ftp://shop.example", ""):
            with pytest.raises(InputError, match="does not begin with http:// or https://") as no_address:
                kind(url)
            assert repr(url) in str(no_address.value)
        with pytest.raises(InputError, match="names no host"):
            kind("http://")
        with pytest.raises(InputError, match="Allowed: one that begins with http"):
            kind("http://shop.example:port")


def test_a_feed_is_a_path_or_its_text(tmp_path: Path) -> None:
    feed = tmp_path / "feed.csv"
    feed.write_text("title\nchair\n", encoding="utf-8")
    call, same = records.upload_feed(str(feed)), records.upload_feed(feed)
    assert (call.params, call.headers, call.body) == (same.params, same.headers, same.body)
    assert call.params == {"name": "feed.csv"}
    assert call.body == {"file": feed}


def test_the_text_of_a_refusal_names_its_fields_and_the_request() -> None:
    fields = {"body.a": "too long", "body.b": "x" * 500, "body.c": "no number", "body.d": "left out", "e": "f"}
    text = str(ApiError(422, "invalid_input", "It cannot be used.", fields=fields, request_id="5c1f"))
    assert text.startswith("422 invalid_input: It cannot be used. [body.a: too long; body.b: xxx")
    assert text.endswith("…; body.c: no number; and 2 more] (request 5c1f)")
    assert len(text) < 400
    assert str(ApiError(404, "not_found", "None.")) == "404 not_found: None."


def test_a_reviewer_s_day(live: Live) -> None:
    with Client(live.url, **live.person()) as seller:
        answer = seller.predict(title="blue denim jeans", product_id="sku-1")
        seller.give_feedback(answer.prediction_id, "reject")
        with pytest.raises(NotAllowedError):
            seller.count_review_items()
        made = seller.create_product({"title": "blue denim jeans"})
        assert made.id not in [one.product_id for one in seller.find_similar_to_product(made.id).items]
        assert seller.export_predictions(outcome=answer.outcome).count(b"\n") == 2
        assert seller.export_predictions(policy="another").count(b"\n") == 1
        assert seller.export_me().tables["products"][0]["id"] == made.id
    with Client(live.url, **live.person("reviewer")) as shelver:
        assert [one.prediction_id for one in shelver.list_review_items().items] == [answer.prediction_id]
        assert shelver.claim_review_items(n=1).items[0].prediction_id == answer.prediction_id
        assert shelver.count_review_items().mine == 1
        assert shelver.release_review_items([answer.prediction_id]).n_released == 1
        assert shelver.release_review_items().n_released == 0
        shelver.claim_review_items()
        done = shelver.decide_review_items([{"prediction_ids": [answer.prediction_id], "action": "reject"}])
        assert (done.n_problems, [one.role for one in done.items[0].others]) == (0, ["seller"])
        assert shelver.undo_review_decision(done.decision_id).prediction_ids == [answer.prediction_id]
        assert len(shelver.list_review_items(mine=True).items) == 1


def test_who_registers_may_sign_in(live: Live) -> None:
    with Client(live.url) as shelver:
        made = shelver.register(email="new@example.org", name="New", password=PASSWORD)
        shelver.sign_in("new@example.org", PASSWORD)
        assert shelver.read_me() == made
        with pytest.raises(ApiError):
            shelver.register(email="new@example.org", name="New", password="x")
        assert shelver.send(get("/v1/uploads", dict))["items"] == []


def test_an_administrator_minds_accounts_keys_and_the_audit(live: Live) -> None:
    root = live.person("admin")
    with Client(live.url, **root) as shelver:
        made = shelver.create_user("rob@example.org", "Rob", role="reviewer")
        assert [one.id for one in shelver.list_users(state="new", q="rob").items] == [made.user_id]
        newer = shelver.create_password_token(made.user_id)
        with Client(live.url) as rob:
            with pytest.raises(ApiError) as refused:
                rob.reset_password(made.token, PASSWORD)
            assert refused.value.code == "token_unusable"
            rob.reset_password(newer.token, PASSWORD)
            rob.sign_in("rob@example.org", PASSWORD)
            assert rob.rename_me("Robert").name == "Robert"
            (here,) = rob.list_sign_ins().items
            assert (here.this, here.address) == (True, "127.0.0.1")
            shelver.end_sign_ins(made.user_id)
            with pytest.raises(NotSignedInError):
                rob.read_me()
        assert shelver.change_user(made.user_id, role="seller").role == "seller"
        assert shelver.change_user(made.user_id, disabled=True).disabled_at is not None
        assert shelver.read_user(made.user_id).name == "Robert"
        assert shelver.list_users(role="seller", limit=1).items[0].id == made.user_id
        key = shelver.create_key("nightly sync", days=1)
        with Client(live.url, api_key=key.key) as machine:
            assert machine.read_me().role == "service"
        shelver.revoke_key(key.id)
        assert [(one.name, one.revoked_at is None) for one in shelver.list_keys()] == [("nightly sync", False)]
        lines = shelver.list_audit(subject=made.user_id)
        assert [line.action for line in lines.items[:2]] == ["user.disabled", "user.role"]
        assert lines.items[1].detail == {"from": "reviewer", "to": "seller"}
        me = shelver.read_me()
        of_root = shelver.list_audit(user_id=me.id, start=me.created_at, limit=3)
        assert {line.user_name for line in of_root.items} == {me.name}
        assert len(shelver.list_audit(user_id=me.id, limit=3, after=of_root.next).items) == 3
        assert shelver.list_audit(end=me.created_at).items == []
        assert shelver.read_sign_in_options().openid is False
        for refusal in (
            lambda: shelver.first_admin(token="sho_x", email="a@example.org", name="A", password=PASSWORD),
            lambda: shelver.forgot_password("a@example.org"),
        ):
            with pytest.raises(ApiError):
                refusal()


def test_a_person_minds_his_own_account_with_either_client(live: Live) -> None:
    person = live.person()

    async def minding() -> int:
        async with AsyncClient(live.url) as shelver, AsyncClient(live.url, **person) as other:
            await shelver.sign_in(**person)
            await other.read_me()
            n_sign_ins = len((await shelver.list_sign_ins()).items)
            await shelver.end_other_sign_ins()
            assert len((await shelver.list_sign_ins()).items) == 1
            await shelver.change_password(PASSWORD, "another good password")
            await shelver.sign_in(person["email"], "another good password")
            with pytest.raises(NotSignedInError):
                await shelver.delete_me("not the password")
            await shelver.delete_me("another good password")
            with pytest.raises(NotSignedInError):
                await shelver.read_me()
            return n_sign_ins

    assert asyncio.run(minding()) == 2


def test_operations_without_a_method_stand_in_the_documentation(tmp_path: Path) -> None:
    document = create_app(ServiceSettings(model=tmp_path, data=tmp_path)).openapi()
    lacking = {one["operationId"] for _, _, one in operations_of(document)} - set(dir(Client))
    told = documented().split("These operations have no method:", 1)[1]
    listed, others = told.split(". `login`", 1)
    assert set(re.findall(r"`(\w+)`", listed)) == lacking - {"login", "refresh", "logout"}
    assert "`logout`" in others


def test_the_example_of_bodies_and_jobs_runs(
    live: Live, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "feed.csv").write_text("product_id,product_name\n1,chair\n", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(Client, "wait_for_job", Client.read_job)  # there is no worker
    person = live.person()
    code = re.findall(r"```python\n(.*?)```", documented(), re.DOTALL)[1]
    code = code.replace("http://127.0.0.1:8000", live.url).replace("ann@example.org", person["email"])
    exec(code.replace("four words are enough", PASSWORD), {})
    assert capsys.readouterr().out == "queued\n"


def test_the_client_needs_nothing_of_the_service_s_libraries() -> None:
    program = "import sys\n"
    program += (
        "for name in ('fastapi', 'starlette', 'sqlalchemy', 'onnxruntime', 'PIL', 'structlog', 'pyarrow'):\n"
    )
    program += "    sys.modules[name] = None\n"
    program += "import shelver.client\n"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_the_example_of_its_documentation_runs(live: Live) -> None:
    person = live.person()
    text = inspect.getdoc(shelver.client) or ""
    lines = text.split("::\n\n", 1)[1].splitlines()
    code = "\n".join(line[4:] for line in lines[: next(i for i, line in enumerate(lines) if line[:1].strip())])
    code = code.replace("http://127.0.0.1:8000", live.url).replace("ann@example.org", person["email"])
    code = code.replace("four words are enough", PASSWORD)
    exec(code, {})


def encoded(path: Path) -> str:
    return base64.b64encode(path.read_bytes()).decode()


def documented() -> str:
    """What docs/api.md says of the client."""
    page = (Path(__file__).parents[2] / "docs" / "api.md").read_text(encoding="utf-8")
    return page.split("## Calling it from Python", 1)[1].split("\n## ", 1)[0]
