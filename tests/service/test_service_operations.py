"""Health, metrics, logs and ids of requests; and the server as a process."""

from __future__ import annotations

import io
import json
import os
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx2
import pytest
from fastapi.testclient import TestClient
from typer.testing import CliRunner, Result

from shelver.cli.serve import app as account_commands
from shelver.service.accounts.secret import read_secret
from shelver.service.problems import ServiceError
from shelver.service.state import Service
from shelver.settings import ServiceSettings

PASSWORD = "four words are enough"


def lines(logs: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in logs.getvalue().splitlines()]


def test_a_new_installation_is_alive_and_ready(client: TestClient) -> None:
    assert client.get("/healthz").json() == {"status": "alive"}
    assert client.get("/readyz").json() == {"status": "ready"}


@pytest.mark.usefixtures("only_sqlite")
def test_a_database_that_does_not_answer_is_not_ready(
    client: TestClient, service: Service, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    service.database.engine.dispose()
    database = tmp_path / "data" / "shelver.db"
    database.rename(tmp_path / "elsewhere")
    database.mkdir()
    answer = client.get("/readyz")
    assert (answer.status_code, answer.json()["code"]) == (503, "not_ready")
    assert "database" in answer.json()["detail"]
    assert int(answer.headers["Retry-After"]) > 0
    assert client.get("/healthz").status_code == 200
    refused = client.post("/v1/refresh", json={"refresh_token": "shr_x"})
    assert (refused.status_code, refused.json()["code"]) == (503, "database_unavailable")


@pytest.mark.usefixtures("only_sqlite")
def test_who_was_known_a_moment_ago_is_known_while_the_database_is_away(
    client: TestClient, service: Service, as_role: Callable[..., TestClient], tmp_path: Path
) -> None:
    admin = as_role("admin")
    assert admin.get("/metrics").status_code == 200
    service.database.engine.dispose()
    database = tmp_path / "data" / "shelver.db"
    database.rename(tmp_path / "elsewhere")
    database.mkdir()
    assert admin.get("/metrics").status_code == 200


def test_metrics_count_by_route_and_not_by_path(client: TestClient, as_role: Callable[..., TestClient]) -> None:
    admin = as_role("admin")
    admin.get("/v1/users/one")
    admin.get("/v1/users/two")
    client.get("/no/such/path")
    shown = admin.get("/metrics").text
    assert 'shelver_requests_total{method="GET",route="/v1/users/{user_id}",status="404"} 2.0' in shown
    assert 'shelver_requests_total{method="GET",route="none",status="404"} 1.0' in shown
    assert "/v1/users/one" not in shown
    assert "shelver_log_waiting 0.0" in shown


@pytest.mark.parametrize(("given", "taken"), [("my-id.7", True), ("", False), ("x" * 65, False), ("a b", False)])
def test_a_request_has_an_id_its_own_or_ours(client: TestClient, given: str, taken: bool) -> None:
    answer = client.get("/no/such/path", headers={"X-Request-ID": given})
    assert (answer.headers["X-Request-ID"] == given) == taken
    assert answer.json()["request_id"] == answer.headers["X-Request-ID"] != ""


def test_the_log_has_a_line_a_request_and_no_secret(client: TestClient, logs: io.StringIO) -> None:
    account = {"email": "ann@example.org", "name": "Ann", "password": PASSWORD}
    client.post("/v1/register", json=account)
    pair = client.post("/v1/login", data={"username": account["email"], "password": PASSWORD}).json()
    client.post("/v1/login", data={"username": account["email"], "password": "another s3cret"})
    headers = {"Authorization": f"Bearer {pair['access_token']}"}
    client.get("/v1/me?token=s3cret", headers=headers)
    client.post("/v1/refresh", json={"refresh_token": pair["refresh_token"]})
    client.post("/v1/refresh", json={"refresh_token": {"s3cret": 1}})
    for secret in (PASSWORD, pair["access_token"], pair["refresh_token"], "s3cret", "ann@example.org"):
        assert secret not in logs.getvalue()
    requests = [line for line in lines(logs) if line["event"] == "request"]
    assert [line["route"] for line in requests] == [
        "/v1/register",
        *["/v1/login"] * 2,
        "/v1/me",
        *["/v1/refresh"] * 2,
    ]
    assert [line["status"] for line in requests] == [201, 200, 401, 200, 200, 422]
    assert [line["code"] for line in requests[2:]] == ["sign_in_failed", None, None, "invalid_input"]
    assert requests[3]["user_id"] is not None
    assert all(line["ms"] > 0 and line["at"] and line["request_id"] for line in requests)


def test_an_error_that_nobody_expected_is_in_the_log_and_not_in_the_answer(
    client: TestClient, logs: io.StringIO
) -> None:
    @client.app.get("/test/broken")  # type: ignore[attr-defined, untyped-decorator]
    def broken() -> None:
        raise RuntimeError("what nobody may read")

    answer = client.get("/test/broken")
    assert (answer.status_code, answer.json()["code"]) == (500, "internal")
    assert "nobody may read" not in answer.text
    (line,) = [line for line in lines(logs) if line["event"] == "unexpected error"]
    assert "what nobody may read" in line["exception"]
    assert line["request_id"] == answer.headers["X-Request-ID"]


def test_answers_are_not_kept_by_caches(client: TestClient) -> None:
    assert client.get("/healthz").headers["Cache-Control"] == "no-store"


def test_a_secret_is_made_once_and_only_its_owner_can_read_it(
    service_settings: Callable[..., ServiceSettings], tmp_path: Path
) -> None:
    settings = service_settings()
    settings.data.mkdir()
    first = read_secret(settings)
    assert len(first) >= 32
    assert read_secret(settings) == first
    assert stat.S_IMODE((tmp_path / "data" / "secret").stat().st_mode) == 0o600
    given = service_settings(secret="x" * 32)
    assert read_secret(given) == "x" * 32
    assert "x" * 32 not in repr(given)


def test_the_command_line_prints_a_token_for_the_first_administrator_only(
    empty_settings: Path, make_app: Callable[..., TestClient], database_url: str | None
) -> None:
    def call() -> Result:
        database = [] if database_url is None else ["--database", database_url]
        return CliRunner().invoke(account_commands, ["--data", str(empty_settings / "data"), "--json", *database])

    first, second = (json.loads(call().stdout)["token"] for _ in range(2))
    client = make_app()
    body = {"token": first, "email": "a@example.org", "name": "A", "password": PASSWORD}
    assert client.post("/v1/first-admin", json=body).status_code == 401, "the later token ended it"
    assert client.post("/v1/first-admin", json={**body, "token": second}).status_code == 201
    refused = call()
    assert isinstance(refused.exception, ServiceError)
    assert "there is an administrator already" in str(refused.exception)


def test_a_server_starts_from_nothing_answers_and_ends_what_it_has_begun(
    text_model: Path, tmp_path: Path, empty_settings: Path
) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = {**os.environ, "SHELVER_SERVICE_DATA": str(tmp_path / "data"), "SHELVER_SERVICE_THREADS": "1"}
    environment |= {"SHELVER_SERVICE_PASSWORD_KIB": "8", "SHELVER_SERVICE_PASSWORD_PASSES": "1"}
    program = (
        "from shelver.service.server import first_admin_token, serve\n"
        "from shelver.settings import read_service_settings\n"
        f"settings = read_service_settings(model={str(text_model)!r}, port={port})\n"
        "print(first_admin_token(settings), flush=True)\n"
        "serve(settings)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program], env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as server:
        try:
            assert server.stdout is not None
            token = server.stdout.readline().strip()
            with httpx2.Client(base_url=f"http://127.0.0.1:{port}", timeout=60) as client:
                until = time.monotonic() + 60
                while time.monotonic() < until:
                    try:
                        if client.get("/readyz").status_code == 200:
                            break
                    except httpx2.TransportError:
                        assert server.poll() is None, server.communicate()[1]
                    time.sleep(0.1)
                body = {"token": token, "email": "a@example.org", "name": "A", "password": PASSWORD}
                assert client.post("/v1/first-admin", json=body).status_code == 201
                form = {"username": "a@example.org", "password": PASSWORD}
                pair = client.post("/v1/login", data=form).json()
                headers = {"Authorization": f"Bearer {pair['access_token']}"}
                assert client.get("/v1/me", headers=headers).json()["role"] == "admin"
            server.send_signal(signal.SIGTERM)
            _, log = server.communicate(timeout=30)
        finally:
            server.kill()
    assert server.returncode in (0, -signal.SIGTERM)
    events = [json.loads(line) for line in log.splitlines()]
    assert any("Finished server process" in event["event"] for event in events)
    assert PASSWORD not in log
    assert pair["access_token"] not in log
