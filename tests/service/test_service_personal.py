"""What is stored about oneself: all of it to take along, row by row, and all of it gone when the account is."""

from __future__ import annotations

import json
import resource
import threading
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from service_rig import PASSWORD, make_user, service_behind, signed_in, token_of
from sqlalchemy import func, insert, select

from shelver.service.accounts import personal
from shelver.service.accounts.one_time import make_token
from shelver.service.accounts.personal import erased
from shelver.service.housekeeping import Housekeeping, parts_of
from shelver.service.state import Service
from shelver.service.tables.accounts import SignIn, User
from shelver.service.tables.declarative import new_id, now
from shelver.service.tables.records import PictureRow, PredictionRow, ProductPicture, ProductRow


def prediction(user_id: str, **more: Any) -> dict[str, Any]:
    row = {
        "id": new_id(),
        "at": now(),
        "user_id": user_id,
        "input_hash": "0" * 64,
        "answer": "{}",
        "latency_ms": 1.0,
    }
    words = {"outcome": "decided", "policy": "default", "model_version": "m", "taxonomy_version": "t"}
    return {**row, **words, **more}


def test_an_export_is_written_row_by_row_however_large_it_is(client: TestClient) -> None:
    service = service_behind(client)
    seller = signed_in(client, "seller")
    user_id = seller.headers["X-User"]
    answer = json.dumps({"é": "x" * 20_000})
    with service.database.writing() as session:
        session.execute(insert(PredictionRow), [prediction(user_id, answer=answer) for _ in range(2000)])
        session.execute(insert(PredictionRow), [prediction("0" * 32)])
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    n_bytes, tail = 0, b""
    with seller.stream("GET", "/v1/me/export") as export:
        assert export.headers["Content-Type"] == "application/json"
        for chunk in export.iter_bytes():
            n_bytes += len(chunk)
            tail = (tail + chunk)[-2:]
    assert n_bytes > 40e6
    assert tail == b"}}"
    grown_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    # The test's client takes the whole answer before it gives the first piece of it; the service adds little.
    assert grown_kib * 1024 < 4 * n_bytes


def test_an_export_is_json_with_all_that_is_ones_own(client: TestClient) -> None:
    service = service_behind(client)
    seller = signed_in(client, "seller")
    user_id = seller.headers["X-User"]
    with service.database.writing() as session:
        session.execute(insert(PredictionRow), [prediction(user_id), prediction("0" * 32)])
        make_token(session, "password", user_id=user_id, lives_s=60)
    found = seller.get("/v1/me/export").json()
    assert found["account"]["id"] == user_id
    assert [row["user_id"] for row in found["tables"]["predictions"]] == [user_id]
    (token,) = found["tables"]["one_time_tokens"]
    assert "hash" not in token
    assert token["expires_at"].endswith("Z")
    assert "users" not in found["tables"]


def test_exports_are_few_at_once_and_a_minute(client: TestClient) -> None:
    seller, other = signed_in(client, "seller"), signed_in(client, "seller")
    for expected in (200, 200, 429):
        assert seller.get("/v1/me/export").status_code == expected
    for _ in range(2):
        assert personal._EXPORTS.acquire(blocking=False)
    try:
        crowded = other.get("/v1/me/export")
        assert (crowded.status_code, crowded.headers["Retry-After"]) == (429, "10")
    finally:
        for _ in range(2):
            personal._EXPORTS.release()
    assert other.get("/v1/me/export").status_code == 200


def filled(service: Service, user_id: str, draw: Callable[..., bytes]) -> str:
    """1,200 products and predictions, and a picture that one of the products shows; gives its hash."""
    stored = service.pictures.put(draw((9, 9, 9), int(user_id[:6], 16)))
    with service.database.writing() as session:
        rows = [ProductRow(owner_id=user_id, attributes={}, search_key="") for _ in range(1200)]
        session.add_all(rows)
        session.execute(insert(PredictionRow), [prediction(user_id) for _ in range(1200)])
        session.flush()
        session.add(PictureRow(hash=stored.hash, n_bytes=1, kind="PNG"))
        session.flush()
        session.add(ProductPicture(product_id=rows[0].id, hash=stored.hash, position=0))
    return stored.hash


def left(service: Service, user_id: str) -> list[int | None]:
    with service.database.reading() as session:
        return [
            session.scalar(select(func.count()).where(column == user_id))
            for column in (ProductRow.owner_id, PredictionRow.user_id)
        ]


def test_a_deleted_account_is_erased_in_steps_and_the_rest_is_found_later(
    client: TestClient, draw: Callable[..., bytes]
) -> None:
    service = service_behind(client)
    seller, other = signed_in(client, "seller"), make_user(service, "seller")
    user_id = seller.headers["X-User"]
    filled(service, user_id, draw)
    filled(service, other.id, draw)
    steps = erased(service.database, service.pictures, service.settings.data, user_id)
    assert [next(steps), next(steps)] == [500, 500], "nobody waits for all of it"
    assert seller.post("/v1/me/delete", json={"password": PASSWORD}).status_code == 204
    assert left(service, user_id) == [0, 0]
    assert left(service, other.id) == [1200, 1200]
    # The log may be late.
    with service.database.writing() as session:
        session.execute(insert(PredictionRow), [prediction(user_id)])
    (part,) = [
        part
        for part in parts_of(service.settings, service.database, service.pictures)
        if part.name == "deleted_accounts"
    ]
    assert Housekeeping((part,), service.metrics.__class__()).do(part)
    assert left(service, user_id) == [0, 0]


def test_where_erasing_fails_the_account_is_deleted_all_the_same(
    client: TestClient, monkeypatch: pytest.MonkeyPatch, logs: Any
) -> None:
    service = service_behind(client)
    seller = signed_in(client, "seller")

    def broken(*_: Any) -> Any:
        raise OSError("no disk")

    monkeypatch.setattr(personal, "erased", broken)
    assert seller.post("/v1/me/delete", json={"password": PASSWORD}).status_code == 204
    assert "not everything erased yet" in logs.getvalue()
    with service.database.reading() as session:
        assert session.get_one(User, seller.headers["X-User"]).deleted_at is not None


def test_a_sign_in_with_the_old_password_does_not_outlive_a_new_one(client: TestClient, service: Service) -> None:
    """On databases that lock rows: whoever signs in waits for a change of the password, and then fails."""
    if service.database.engine.dialect.name == "sqlite":
        pytest.skip("SQLite has one writer at a time")
    user = make_user(service, "seller")
    form = {"username": user.email or "", "password": PASSWORD}
    assert client.post("/v1/login", data=form).status_code == 200
    answers: list[Any] = []
    with service.database.writing() as session:
        locked = session.get(User, user.id, with_for_update=True)
        assert locked is not None
        signing = threading.Thread(target=lambda: answers.append(client.post("/v1/login", data=form)))
        signing.start()
        time.sleep(1)
        assert not answers, "it waits"
        locked.password_hash = service.passwords.hash("quite another password")
        locked.version += 1
    signing.join(20)
    assert answers[0].json()["code"] == "sign_in_failed"
    with service.database.reading() as session:
        assert session.scalar(select(func.count()).select_from(SignIn).where(SignIn.user_id == user.id)) == 1


def test_an_unknown_refresh_token_costs_no_writer_and_is_limited(
    make_app: Callable[..., TestClient],
) -> None:
    client = make_app(sign_ins_per_minute=3)
    service = service_behind(client)
    with service.database.writing() as session:
        session.add(User(name="x", role="seller"))
        session.flush()  # the writer's turn is taken
        began = time.monotonic()
        codes = [client.post("/v1/refresh", json={"refresh_token": f"shr_{i}"}).status_code for i in range(5)]
        assert time.monotonic() - began < 5
    assert codes == [401, 401, 401, 429, 429]


def test_a_sign_in_is_refreshed_so_many_times_a_minute(client: TestClient, service: Service) -> None:
    user = make_user(service, "seller")
    pair = client.post("/v1/login", data={"username": user.email or "", "password": PASSWORD}).json()
    codes = []
    for _ in range(12):
        answer = client.post("/v1/refresh", json={"refresh_token": pair["refresh_token"]})
        codes.append(answer.status_code)
        pair = answer.json() if answer.status_code == 200 else pair
    assert codes == [200] * 10 + [429] * 2


def test_strangers_do_not_lock_somebody_out_of_where_he_has_signed_in_before(
    make_app: Callable[..., TestClient], service_settings: Any, tmp_path: Path
) -> None:
    client = make_app(sign_in_failures=2, lockout_s=3600)
    service = service_behind(client)
    user = make_user(service, "seller")
    right = {"username": user.email or "", "password": PASSWORD}
    wrong = {**right, "password": "not the password"}

    def from_address(address: str) -> TestClient:
        other = TestClient(client.app, base_url="http://127.0.0.1", client=(address, 1))
        other.portal = client.portal
        return other

    home, cafe = from_address("192.0.2.1"), from_address("192.0.2.2")
    assert home.post("/v1/login", data=right).status_code == 200
    for i in range(10):
        stranger = from_address(f"198.51.100.{i}")
        assert [stranger.post("/v1/login", data=wrong).status_code for _ in range(3)] == [401, 401, 429]
    assert cafe.post("/v1/login", data=right).status_code == 429
    assert home.post("/v1/login", data=right).status_code == 200
    assert cafe.post("/v1/login", data=right).status_code == 200, "the owner's success ends it"


def test_two_addresses_alone_lock_nobody_out_elsewhere(make_app: Callable[..., TestClient]) -> None:
    client = make_app(sign_in_failures=2, lockout_s=3600)
    service = service_behind(client)
    user = make_user(service, "seller")
    wrong = {"username": user.email or "", "password": "not the password"}
    for address in ("198.51.100.1", "198.51.100.2"):
        stranger = TestClient(client.app, base_url="http://127.0.0.1", client=(address, 1))
        stranger.portal = client.portal
        for _ in range(30):
            stranger.post("/v1/login", data=wrong)
    assert client.post("/v1/login", data={**wrong, "password": PASSWORD}).status_code == 200


def test_two_changes_of_one_user_raise_his_version_twice(client: TestClient, service: Service) -> None:
    admin, user = signed_in(client, "admin"), make_user(service, "seller")
    answers: list[Any] = []

    def change(role: str) -> None:
        answers.append(admin.patch(f"/v1/users/{user.id}", json={"role": role}))

    threads = [threading.Thread(target=change, args=(role,)) for role in ("reviewer", "admin")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [answer.status_code for answer in answers] == [200, 200], [answer.text for answer in answers]
    with service.database.reading() as session:
        assert session.get_one(User, user.id).version == 3
    assert token_of(service, user)
    assert timedelta(0) <= now() - user.created_at < timedelta(minutes=5)
