"""Who forgot his password gets a token by mail, through a hook; nobody else learns who has an account."""

from __future__ import annotations

import hmac
import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from statistics import median
from typing import Any

import pytest
from fastapi.testclient import TestClient
from prometheus_client import CollectorRegistry
from service_rig import PASSWORD, make_user, service_behind
from sqlalchemy import select, update

from shelver.errors import ConfigError
from shelver.service.accounts.mail import MAX_WAITING, MailHook, mail_hook_of
from shelver.service.accounts.one_time import make_token
from shelver.service.problems import ServiceError
from shelver.service.tables.accounts import OneTimeToken
from shelver.service.tables.declarative import now
from shelver.service.tables.openid import OpenIdLink
from shelver.settings import ServiceSettings

SECRET = "thirty-two characters and some more"


class Mailer:
    """The shop's program: `statuses` are what it answers, one after the other, and then 204."""

    def __init__(self) -> None:
        self.got: list[tuple[dict[str, Any], str, bytes]] = []
        self.statuses: list[int] = []
        self.address = ""

    @contextmanager
    def running(self) -> Iterator[Mailer]:
        mailer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                mailer.got.append((json.loads(body), self.headers["X-Shelver-Signature"], body))
                self.send_response(mailer.statuses.pop(0) if mailer.statuses else 204)
                self.send_header("Location", f"{mailer.address}/elsewhere")
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: Any) -> None:
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"http://127.0.0.1:{server.server_port}/mail"
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield self
        finally:
            server.shutdown()
            server.server_close()
            thread.join()

    def wait(self, n: int = 1) -> list[dict[str, Any]]:
        until = time.monotonic() + 10
        while len(self.got) < n:
            assert time.monotonic() < until, f"{len(self.got)} mails"
            time.sleep(0.01)
        return [said for said, _, _ in self.got]


@pytest.fixture
def mailer() -> Iterator[Mailer]:
    with Mailer().running() as running:
        yield running


@pytest.fixture
def shop(make_app: Callable[..., TestClient], mailer: Mailer) -> TestClient:
    return make_app(mail_hook=mailer.address, mail_secret=SECRET)


def outcomes(client: TestClient) -> dict[str, float]:
    (found,) = [metric for metric in service_behind(client).metrics.collect() if metric.name == "shelver_mails"]
    return {one.labels["outcome"]: one.value for one in found.samples if one.name.endswith("_total")}


def settled(client: TestClient, n: int) -> dict[str, float]:
    """What became of so many mails, once it has."""
    until = time.monotonic() + 10
    while sum(outcomes(client).values()) < n:
        assert time.monotonic() < until, outcomes(client)
        time.sleep(0.01)
    return outcomes(client)


def test_who_forgot_his_password_gets_a_signed_token_that_works_once(
    shop: TestClient, mailer: Mailer, logs: Any
) -> None:
    user = make_user(service_behind(shop), "seller", name="Ann")
    assert user.email is not None
    assert shop.post("/v1/forgot", json={"email": user.email.upper()}).status_code == 202
    (said,) = mailer.wait()
    assert (said["kind"], said["email"], said["name"]) == ("password", user.email, "Ann")
    _, signature, body = mailer.got[0]
    parts = dict(part.split("=") for part in signature.split(","))
    expected = hmac.digest(SECRET.encode(), f"{parts['t']}.".encode() + body, "sha256").hex()
    assert hmac.compare_digest(parts["v1"], expected)
    assert abs(time.time() - int(parts["t"])) < 10
    new = {"token": said["token"], "new_password": "quite another password"}
    assert shop.post("/v1/reset", json=new).status_code == 204
    assert shop.post("/v1/reset", json=new).json()["code"] == "token_unusable"
    login = {"username": user.email, "password": "quite another password"}
    assert shop.post("/v1/login", data=login).status_code == 200
    assert settled(shop, 1) == {"sent": 1}
    for secret in (said["token"], user.email, SECRET):
        assert secret not in logs.getvalue()


def test_the_answer_is_the_same_for_whoever_has_no_account(shop: TestClient, mailer: Mailer) -> None:
    service = service_behind(shop)
    known = make_user(service, "seller").email
    took: dict[str | None, list[float]] = {known: [], "nobody@example.org": []}
    said = set()
    for _ in range(20):
        for email, times in took.items():
            began = time.perf_counter()
            answer = shop.post("/v1/forgot", json={"email": email})
            times.append(time.perf_counter() - began)
            said.add((answer.status_code, answer.text, tuple(sorted(set(answer.headers) - {"x-request-id"}))))
    ((status, text, _),) = said
    assert (status, text) == (202, "")
    one, other = (median(times) for times in took.values())
    assert abs(one - other) < 0.05, "both only fill a queue"
    assert settled(shop, 40) == {"sent": 1, "skipped": 39}, "one mail in five minutes, whoever asks"
    assert len(mailer.got) == 1


def test_disabled_people_machines_and_those_of_the_issuer_get_no_mail(shop: TestClient, mailer: Mailer) -> None:
    service = service_behind(shop)
    disabled, linked, plain = (make_user(service, "seller") for _ in range(3))
    with service.database.writing() as session:
        session.get_one(type(disabled), disabled.id).disabled_at = now()
        session.add(OpenIdLink(issuer="https://accounts.example.org", subject="1", user_id=linked.id))
    for user in (disabled, linked, plain):
        shop.post("/v1/forgot", json={"email": user.email})
    assert settled(shop, 3) == {"sent": 1, "skipped": 2}
    assert [said["email"] for said in mailer.wait()] == [plain.email]


def test_who_asks_for_a_mail_does_not_end_the_token_of_an_administrator(shop: TestClient, mailer: Mailer) -> None:
    service = service_behind(shop)
    user = make_user(service, "seller")
    with service.database.writing() as session:
        given = make_token(session, "password", user_id=user.id, lives_s=60)
    shop.post("/v1/forgot", json={"email": user.email})
    (said,) = mailer.wait()
    new = "quite another password"
    assert shop.post("/v1/reset", json={"token": given, "new_password": new}).status_code == 204
    answer = shop.post("/v1/reset", json={"token": said["token"], "new_password": new})
    assert answer.json()["code"] == "token_unusable", "a new password ends all of them"


def test_a_hook_that_fails_is_tried_again_and_a_refusal_is_not(
    shop: TestClient, mailer: Mailer, logs: Any
) -> None:
    service = service_behind(shop)
    hook = MailHook(
        service.database, mailer.address, SECRET, lives_s=60, metrics=CollectorRegistry(), retry_s=(0.01, 0.01)
    )
    with hook:
        for n, statuses in enumerate(([503, 429], [503, 503, 503], [400], [302])):
            del mailer.got[:]
            mailer.statuses = list(statuses)
            user = make_user(service, "seller")
            assert user.email is not None
            hook.ask(user.email)
            said = mailer.wait(3 if len(statuses) > 1 else 1)
            time.sleep(0.1)
            assert len(mailer.got) == len(said), f"attempt {n}"
            assert len({one["token"] for one in said}) == len({one["id"] for one in said}) == 1
    text = logs.getvalue()
    assert text.count("mail given up") == 1
    assert text.count("the mail hook refused") == 2
    assert "sho_" not in text


def test_a_hook_that_is_not_there_does_not_hold_up_the_stop(shop: TestClient) -> None:
    service = service_behind(shop)
    hook = MailHook(service.database, "http://127.0.0.1:9/", SECRET, lives_s=60, metrics=CollectorRegistry())
    user = make_user(service, "seller")
    assert user.email is not None
    began = time.monotonic()
    with hook:
        for _ in range(3):
            hook.ask(user.email)
    assert time.monotonic() - began < 4


def test_a_full_queue_is_busy_for_everybody(shop: TestClient, mailer: Mailer) -> None:
    hook = MailHook(service_behind(shop).database, mailer.address, SECRET, lives_s=60, metrics=CollectorRegistry())
    for i in range(MAX_WAITING):
        hook.ask(f"{i}@example.org")
    with pytest.raises(ServiceError) as refused:
        hook.ask("ann@example.org")
    assert (refused.value.code, refused.value.retry_after_s) == ("busy", 60)


def test_without_a_hook_everybody_is_told_so(client: TestClient) -> None:
    user = make_user(service_behind(client), "seller")
    details = set()
    for email in (user.email, "nobody@example.org"):
        answer = client.post("/v1/forgot", json={"email": email})
        assert (answer.status_code, answer.json()["code"]) == (404, "not_found")
        details.add(answer.json()["detail"])
    assert len(details) == 1
    assert client.post("/v1/login", data={"username": user.email or "", "password": PASSWORD}).status_code == 200


def test_requests_are_limited_by_address(make_app: Callable[..., TestClient], mailer: Mailer) -> None:
    shop = make_app(mail_hook=mailer.address, mail_secret=SECRET, sign_ins_per_minute=2)
    codes = [shop.post("/v1/forgot", json={"email": f"{i}@example.org"}).status_code for i in range(3)]
    assert codes == [202, 202, 429]


def test_a_mailed_token_lives_for_an_hour_at_most_and_the_next_one_ends_it(
    shop: TestClient, mailer: Mailer
) -> None:
    service = service_behind(shop)
    user = make_user(service, "seller")
    shop.post("/v1/forgot", json={"email": user.email})
    mailer.wait()
    with service.database.writing() as session:
        (row,) = session.scalars(select(OneTimeToken))
        assert 3500 < (row.expires_at - now()).total_seconds() <= 3600
        session.execute(update(OneTimeToken).values(created_at=now().replace(year=2020)))
    shop.post("/v1/forgot", json={"email": user.email})
    first, second = mailer.wait(2)
    new = {"new_password": "quite another password"}
    assert shop.post("/v1/reset", json={"token": first["token"], **new}).status_code == 401
    assert shop.post("/v1/reset", json={"token": second["token"], **new}).status_code == 204


@pytest.mark.parametrize(
    "changes",
    [
        {"mail_secret": None},
        {"mail_hook": None},
        {"mail_hook": "http://mail.shop.example/"},
        {"mail_hook": "https://a:b@mail.shop.example"},
    ],
)
def test_settings_that_cannot_work_are_refused_at_the_start(
    service_settings: Callable[..., ServiceSettings], changes: dict[str, Any]
) -> None:
    good = {"mail_hook": "https://mail.shop.example/", "mail_secret": SECRET}
    with pytest.raises(ConfigError):
        mail_hook_of(service_settings(**{**good, **changes}), None, CollectorRegistry())  # type: ignore[arg-type]
