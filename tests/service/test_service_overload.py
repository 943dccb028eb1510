"""A real server with more to do than it can: early refusals, bodies of strangers, a stop in the midst of it."""

from __future__ import annotations

import asyncio
import json
import socket
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from ipaddress import IPv4Network
from pathlib import Path
from typing import Any, cast

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from server_rig import Asker, key_for, serving
from service_rig import service_behind
from starlette.exceptions import HTTPException
from starlette.types import Message

from shelver.errors import ShelverError
from shelver.service.app import create_app
from shelver.service.body_limits import SMALL_BYTES, in_time
from shelver.service.limits import Limits
from shelver.service.problems import ServiceError
from shelver.service.server import Server, serve
from shelver.service.state import Service
from shelver.settings import ServiceSettings


@contextmanager
def served(settings: ServiceSettings) -> Iterator[tuple[int, Service]]:
    """Our server, with its Door, in a thread: its port, and what it uses."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
    app: FastAPI = create_app(settings.model_copy(update={"port": port}))
    server = Server(app, settings.model_copy(update={"port": port}))
    # Signals belong to the main thread, where the tests run.
    thread = threading.Thread(target=lambda: asyncio.run(server._serve()), daemon=True)
    thread.start()
    try:
        until = time.monotonic() + 60
        while not server.started:
            assert thread.is_alive()
            assert time.monotonic() < until
            time.sleep(0.02)
        yield port, app.state.service
    finally:
        server.should_exit = True
        thread.join(30)
        assert not thread.is_alive()


def talk(port: int, sent: bytes, *, until: Callable[[bytes], bool] = lambda _: False) -> bytes:
    """What a server says on one connection until it closes it, or until that is enough."""
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
        connection.sendall(sent)
        said = b""
        while not until(said) and (part := connection.recv(65536)):
            said += part
        return said


def predict(
    body: bytes = b'{"title": "lamp"}', *headers: str, method: str = "POST", version: str = "1.1"
) -> bytes:
    lines = [f"{method} /v1/predict HTTP/{version}", "Host: x", f"Content-Length: {len(body)}", *headers]
    return "\r\n".join([*lines, "", ""]).encode() + body


def parsed(said: bytes) -> tuple[int, dict[str, str], Any]:
    head, _, body = said.partition(b"\r\n\r\n")
    first, *lines = head.decode().split("\r\n")
    headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
    return int(first.split()[1]), headers, json.loads(body[: int(headers["content-length"])])


def test_the_door_refuses_as_the_application_does_and_goes_on(
    service_settings: Callable[..., ServiceSettings], logs: Any
) -> None:
    settings = service_settings()
    key = f"Authorization: Bearer {key_for(settings, 'service')}"
    last = "Connection: close"
    with served(settings) as (port, service):
        status, headers, answer = parsed(talk(port, predict(b'{"title": "lamp"}', key, last)))
        assert (status, answer["outcome"]) == (200, "decided"), answer
        batcher = service.answering.batcher
        (user_id,) = service.answering.callers.values()
        with batcher.reserve(user_id, batcher.n_places):
            asked = predict(b'{"title": "lamp"}', key, "X-Request-ID: mine", last)
            status, headers, answer = parsed(talk(port, asked))
            assert (status, answer["code"], answer["status"]) == (503, "busy", 503)
            assert answer["request_id"] == headers["x-request-id"] == "mine"
            assert answer["instance"] == "/v1/predict"
            assert headers["content-type"] == "application/problem+json"
            assert headers["connection"] == "close"
            assert int(headers["retry-after"]) >= 1
            assert {"date", "cache-control", "x-content-type-options"} <= headers.keys()

            # On one connection: the body of what is refused is not taken for the next request.
            body = b'{"title": "GET / HTTP/1.1"}' + b" " * 200_000
            both = predict(body, key)
            with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
                for _ in range(3):
                    connection.sendall(both)
                    assert parsed(connection.recv(65536))[0] == 503

            # A head has no body, whoever is at the door.
            said = talk(port, predict(b"", key, last, method="HEAD"))
            assert said.endswith(b"\r\n\r\n")
            assert not said.startswith(b"HTTP/1.1 200")
            assert parsed(talk(port, predict(b"{}", key, version="1.0")))[0] == 503

            # One who does not read what he is told is shut out.
            with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
                connection.sendall(predict(b"{}", key) * 100)
                said = b""
                while part := connection.recv(65536):
                    said += part
            assert said.count(b"HTTP/1.1 503") == 2
            assert b"Connection: close" in said
        assert parsed(talk(port, predict(b'{"title": "lamp"}', key, last)))[0] == 200

        # Many at once, some of which are wrong, and some leave: all are counted off.
        many = [predict(b'{"title": "lamp"}', key), predict(b"{", key), predict(b"{}"), predict(b"x" * 70_000)]
        for one in many:
            assert parsed(talk(port, one.replace(b"Host: x", b"Host: x\r\nConnection: close")))[0] in (
                200,
                401,
                413,
                422,
            )
            with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
                connection.sendall(one)
            with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
                connection.sendall(one * 3)
            with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
                connection.sendall(one[:-1])
        until = time.monotonic() + 20
        while service.answering.n_inside or batcher.n_held:
            assert time.monotonic() < until
            time.sleep(0.02)
        assert service.answering.n_inside == 0
        shown = service.metrics.get_sample_value("shelver_refused_total", {"route": "/v1/predict"})
        assert shown is not None
        assert shown >= 6
    assert "refused, all places are taken" in logs.getvalue()


def test_strangers_send_little_and_who_has_signed_in_may_send_more(
    make_app: Callable[..., TestClient], client: TestClient, as_role: Callable[..., TestClient]
) -> None:
    seller = as_role("seller")
    large = {"title": "lamp", "description": "x" * SMALL_BYTES}
    for path in ("/v1/predict", "/v1/products", "/v1/register", "/v1/login"):
        answer = client.post(path, json=large)
        assert (answer.status_code, answer.json()["code"]) == (413, "too_large"), path
    broken = client.post("/v1/predict", json=large, headers={"Authorization": "Bearer shk_none"})
    assert broken.status_code == 413
    assert client.post("/v1/predict", json={"title": "lamp"}).status_code == 401
    assert seller.post("/v1/predict", json=large).status_code == 200
    answer = seller.put("/v1/policies/wide", json=large)
    assert (answer.status_code, answer.json()["code"]) == (413, "too_large")
    assert as_role("admin").put("/v1/policies/wide", json=large).json()["code"] == "invalid_input"
    assert seller.patch("/v1/me", json={"name": "x" * SMALL_BYTES}).json()["code"] == "too_large"


def test_the_public_may_send_pictures_where_it_may_predict(make_app: Callable[..., TestClient]) -> None:
    client = make_app(public_per_minute=10)
    large = {"title": "lamp", "description": "x" * SMALL_BYTES}
    assert client.post("/v1/predict", json=large).json().get("code") != "too_large"
    assert client.post("/v1/products", json=large).json()["code"] == "too_large"


def test_a_body_that_comes_too_slowly_is_given_up() -> None:
    async def slowly() -> Message:
        await asyncio.sleep(0.05)
        return {"type": "http.request", "body": b"x" * 100, "more_body": True}

    async def read() -> None:
        receive = in_time(slowly, patience_s=0.12)
        for _ in range(20):
            await receive()

    with pytest.raises(HTTPException, match="408"):
        asyncio.run(read())

    async def whole() -> Message:
        return {"type": "http.request", "body": b"x", "more_body": False}

    async def wait_for_his_leaving() -> None:
        receive = in_time(whole, patience_s=0.01)
        await receive()
        await asyncio.sleep(0.03)
        assert (await receive())["body"] == b"x", "what is whole has no time to keep"

    asyncio.run(wait_for_his_leaving())


def test_more_at_once_than_there_are_in_a_minute_is_waited_for_afterwards() -> None:
    clock = [0.0]
    limits = Limits(lambda: clock[0])
    limits.take("a", 60, n=256)
    with pytest.raises(ServiceError) as refused:
        limits.take("a", 60)
    assert refused.value.retry_after_s == 197
    clock[0] = 197.0
    limits.take("a", 60)


def test_the_metrics_tell_of_log_models_and_decoders(
    client: TestClient, as_role: Callable[..., TestClient], tmp_path: Path
) -> None:
    service = service_behind(client)
    shown = as_role("admin").get("/metrics").text
    version = service.models.current().model_version
    assert f'shelver_model{{model_version="{version}"' in shown
    for line in (
        "shelver_log_database_up 1.0",
        "shelver_log_disk_bytes 0.0",
        "shelver_log_spilled 0.0",
        "shelver_model_stale_seconds 0.0",
        "shelver_models_ready 0.0",
        "shelver_decoders_replaced_total 0.0",
    ):
        assert line in shown, line
    (service.settings.data / "log").mkdir(exist_ok=True)
    (service.settings.data / "log" / "left.txt").write_text("x" * 40)
    assert "shelver_log_disk_bytes 40.0" in as_role("admin").get("/metrics").text


def test_health_is_told_to_those_who_only_ask_for_the_head(client: TestClient) -> None:
    for path in ("/healthz", "/readyz"):
        answer = client.head(path)
        assert answer.status_code == 200


def test_a_server_whose_database_is_down_says_so_and_does_not_start(
    service_settings: Callable[..., ServiceSettings], logs: Any
) -> None:
    with socket.socket() as taken:  # nobody listens there
        taken.bind(("127.0.0.1", 0))
        url = f"postgresql+psycopg://shelver:hidden@127.0.0.1:{taken.getsockname()[1]}/shelver"
        with pytest.raises(ShelverError, match="a database that does not answer"):
            serve(service_settings(database=url, port=0))
    assert "hidden" not in logs.getvalue()
    assert "Traceback" not in logs.getvalue()


@pytest.mark.usefixtures("only_sqlite")
def test_a_server_that_is_stopped_under_load_keeps_every_answer_that_it_gave(
    service_settings: Callable[..., ServiceSettings],
) -> None:
    settings = service_settings()
    key = key_for(settings, "service")
    given: set[str] = set()
    with serving(settings) as server:

        def ask() -> None:
            asker = Asker(server.port, key)
            try:
                while True:
                    status, answer = asker.ask("POST", "/v1/predict", {"title": "bar stool"})
                    assert status in (200, 503), answer
                    if status == 200:
                        given.add(answer["prediction_id"])
            except OSError:
                pass  # it has stopped
            except Exception as error:
                if "Disconnected" not in type(error).__name__:
                    failed.append(error)

        failed: list[Exception] = []
        asking = [threading.Thread(target=ask) for _ in range(4)]
        for one in asking:
            one.start()
        until = time.monotonic() + 30
        while len(given) < 100:
            assert time.monotonic() < until
            time.sleep(0.01)
        began = time.monotonic()
        server.stop()
        assert time.monotonic() - began < 20
        for one in asking:
            one.join(30)
    assert not failed
    with sqlite3.connect(settings.data / "shelver.db") as database:
        kept = {cast(str, row[0]) for row in database.execute("SELECT id FROM predictions")}
    assert given <= kept
    assert len(given) >= 100


@pytest.mark.parametrize(
    ("trusted", "n_answered"),
    [((), 2), ((IPv4Network("127.0.0.1"),), 4)],
    ids=["nobody is believed", "the proxy is"],
)
def test_callers_behind_a_proxy_are_told_apart_only_where_the_proxy_is_trusted(
    trusted: tuple[IPv4Network, ...], n_answered: int, service_settings: Callable[..., ServiceSettings]
) -> None:
    settings = service_settings(public_per_minute=2, trusted_proxies=trusted)
    body = b'{"title": "a red shirt"}'
    statuses = []
    with served(settings) as (port, _):
        for caller in ("198.51.100.7", "198.51.100.7", "198.51.100.8", "198.51.100.8"):
            head = f"POST /v1/predict HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: {caller}\r\nConnection: close\r\n"
            head += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
            statuses.append(talk(port, head.encode() + body).split(b" ", 2)[1])
    assert statuses.count(b"200") == n_answered
    assert statuses.count(b"429") == 4 - n_answered


def test_a_database_file_that_cannot_be_used_is_named_with_the_reason(
    service_settings: Callable[..., ServiceSettings], tmp_path: Path
) -> None:
    settings = service_settings(database=f"sqlite:///{tmp_path / 'no such folder' / 'shelver.db'}")
    with pytest.raises(ShelverError, match=r"unable to open database file.*Make room, or name another file"):
        serve(settings)
