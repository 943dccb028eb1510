"""People and machines sign in, and out; nothing tells who has an account."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import select, update

from shelver.service.accounts.one_time import make_token
from shelver.service.state import Service
from shelver.service.tables.accounts import ApiKey, OneTimeToken, RefreshToken, User
from shelver.service.tables.declarative import now
from shelver.service.tables.records import ProductRow

PASSWORD = "four words are enough"
ANN = {"email": "Ann@Example.org", "name": "Ann  Example", "password": PASSWORD}


def sign_in(client: TestClient, email: str = "ann@example.org", password: str = PASSWORD) -> Any:
    return client.post("/v1/login", data={"username": email, "password": password})


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


@pytest.fixture
def ann(client: TestClient) -> dict[str, Any]:
    """Ann's account, and her first pair of tokens."""
    account = client.post("/v1/register", json=ANN)
    assert account.status_code == 201, account.text
    return {**account.json(), **sign_in(client).json()}


def test_a_person_registers_as_a_seller_and_signs_in(client: TestClient, ann: dict[str, Any]) -> None:
    assert (ann["email"], ann["name"], ann["role"]) == ("ann@example.org", "Ann Example", "seller")
    me = client.get("/v1/me", headers=bearer(ann["access_token"]))
    assert me.json()["id"] == ann["id"]
    assert sign_in(client, " ANN@example.org ").status_code == 200


def test_an_address_has_one_account(client: TestClient, ann: dict[str, Any]) -> None:
    again = client.post("/v1/register", json=ANN)
    assert (again.status_code, again.json()["code"]) == (409, "account_exists")


@pytest.mark.parametrize(
    "change", [{"email": "ann"}, {"email": "a b@example.org"}, {"name": " "}, {"name": "\x00"}, {"password": None}]
)
def test_a_registration_that_makes_no_sense_names_the_field(client: TestClient, change: dict[str, Any]) -> None:
    refused = client.post("/v1/register", json={**ANN, **change})
    assert refused.status_code == 422
    assert [field["field"] for field in refused.json()["fields"]] == [f"body.{next(iter(change))}"]
    assert PASSWORD not in refused.text


@pytest.mark.parametrize("password", ["short", "x" * 201])
def test_a_password_has_a_least_and_a_greatest_length(client: TestClient, password: str) -> None:
    assert client.post("/v1/register", json={**ANN, "password": password}).json()["code"] == "password_unfit"


def test_no_password_or_token_is_stored_as_it_is(service: Service, ann: dict[str, Any]) -> None:
    with service.database.reading() as session:
        hashed = session.scalars(select(User.password_hash)).one()
        assert hashed is not None
        assert hashed.startswith("$argon2id$")
        assert ann["refresh_token"] not in session.scalars(select(RefreshToken.hash)).one()


def test_registration_can_be_closed(make_app: Callable[..., TestClient]) -> None:
    refused = make_app(registration="closed").post("/v1/register", json=ANN)
    assert (refused.status_code, refused.json()["code"]) == (403, "registration_closed")


def test_a_wrong_password_and_an_unknown_account_get_the_same_answer(
    client: TestClient, ann: dict[str, Any]
) -> None:
    answers = [sign_in(client, email, "not the password").json() for email in ("ann@example.org", "x@example.org")]
    for answer in answers:
        assert answer.pop("request_id")
    assert answers[0] == answers[1]
    assert answers[0]["code"] == "sign_in_failed"


def test_an_account_is_locked_after_failures_whether_it_exists_or_not(
    make_app: Callable[..., TestClient],
) -> None:
    client = make_app(sign_in_failures=3)
    client.post("/v1/register", json=ANN)
    for email in ("ann@example.org", "nobody@example.org", "no address at all"):
        codes = [sign_in(client, email, "not the password").status_code for _ in range(4)]
        assert codes == [401, 401, 401, 429]
    locked = sign_in(client)
    assert locked.status_code == 429, "even with the right password"
    assert 0 < int(locked.headers["Retry-After"]) <= 900
    client.post("/v1/register", json={**ANN, "email": "other@example.org"})
    assert sign_in(client, "other@example.org").status_code == 200


def test_one_address_has_so_many_attempts_a_minute(make_app: Callable[..., TestClient]) -> None:
    client = make_app(sign_ins_per_minute=4)
    codes = [sign_in(client, f"{i}@example.org").status_code for i in range(6)]
    assert codes == [401] * 4 + [429] * 2


def test_a_flood_of_sign_ins_is_refused_at_the_door_and_others_are_answered(
    make_app: Callable[..., TestClient],
) -> None:
    client = make_app(password_kib=16384, password_passes=2, sign_in_failures=1000)
    with ThreadPoolExecutor(30) as pool:
        flood = [pool.submit(sign_in, client, f"{i}@example.org") for i in range(30)]
        assert client.get("/healthz").elapsed.total_seconds() < 1
        answers = [one.result() for one in flood]
    refused = [answer for answer in answers if answer.status_code == 429]
    assert refused
    assert all(answer.json()["code"] == "too_many_requests" for answer in refused)
    assert all(int(answer.headers["Retry-After"]) > 0 for answer in refused)
    assert {answer.status_code for answer in answers} == {401, 429}


def test_a_refresh_token_is_good_for_one_pair(client: TestClient, ann: dict[str, Any]) -> None:
    second = client.post("/v1/refresh", json={"refresh_token": ann["refresh_token"]})
    assert second.status_code == 200
    assert client.get("/v1/me", headers=bearer(second.json()["access_token"])).status_code == 200
    third = client.post("/v1/refresh", json={"refresh_token": second.json()["refresh_token"]})
    assert third.status_code == 200


def test_a_refresh_token_that_comes_twice_ends_the_whole_sign_in(client: TestClient, ann: dict[str, Any]) -> None:
    second = client.post("/v1/refresh", json={"refresh_token": ann["refresh_token"]}).json()
    other = sign_in(client).json()
    copied = client.post("/v1/refresh", json={"refresh_token": ann["refresh_token"]})
    assert (copied.status_code, copied.json()["code"]) == (401, "token_unusable")
    assert client.post("/v1/refresh", json={"refresh_token": second["refresh_token"]}).status_code == 401
    assert client.get("/v1/me", headers=bearer(second["access_token"])).status_code == 401
    assert client.get("/v1/me", headers=bearer(other["access_token"])).status_code == 200


def test_of_many_who_bring_a_refresh_token_at_once_at_most_one_gets_a_pair(
    client: TestClient, ann: dict[str, Any]
) -> None:
    with ThreadPoolExecutor(4) as pool:
        call = lambda _: client.post("/v1/refresh", json={"refresh_token": ann["refresh_token"]})  # noqa: E731
        codes = sorted(answer.status_code for answer in pool.map(call, range(4)))
    assert codes == [200, 401, 401, 401]


def test_signing_out_ends_the_access_token_too(client: TestClient, ann: dict[str, Any]) -> None:
    other = sign_in(client).json()
    assert client.post("/v1/logout", headers=bearer(ann["access_token"])).status_code == 204
    assert client.get("/v1/me", headers=bearer(ann["access_token"])).status_code == 401
    assert client.post("/v1/refresh", json={"refresh_token": ann["refresh_token"]}).status_code == 401
    assert client.get("/v1/me", headers=bearer(other["access_token"])).status_code == 200
    third = sign_in(client).json()
    client.post("/v1/logout?everywhere=true", headers=bearer(third["access_token"]))
    assert client.get("/v1/me", headers=bearer(other["access_token"])).status_code == 401


def test_a_new_password_ends_every_sign_in(client: TestClient, ann: dict[str, Any]) -> None:
    new = "quite another password"
    body = {"old_password": "wrong wrong wrong", "new_password": new}
    headers = bearer(ann["access_token"])
    assert client.post("/v1/password", json=body, headers=headers).status_code == 401
    assert client.post("/v1/password", json={**body, "old_password": PASSWORD}, headers=headers).status_code == 204
    assert client.get("/v1/me", headers=headers).status_code == 401
    assert sign_in(client).status_code == 401
    assert sign_in(client, password=new).status_code == 200


def test_an_administrator_resets_a_password_with_a_token_that_works_once(
    client: TestClient, ann: dict[str, Any], as_role: Callable[..., TestClient]
) -> None:
    admin = as_role("admin")
    first, second = (admin.post(f"/v1/users/{ann['id']}/password-token").json()["token"] for _ in range(2))
    body = {"token": first, "new_password": "quite another password"}
    assert client.post("/v1/reset", json=body).json()["code"] == "token_unusable", "a newer token ends it"
    body["token"] = second
    assert client.post("/v1/reset", json={**body, "new_password": "short"}).status_code == 422
    assert client.post("/v1/reset", json=body).status_code == 204
    assert client.post("/v1/reset", json=body).status_code == 401
    assert client.get("/v1/me", headers=bearer(ann["access_token"])).status_code == 401
    assert sign_in(client, password="quite another password").status_code == 200


def test_a_token_that_has_expired_sets_no_password(
    client: TestClient, service: Service, ann: dict[str, Any]
) -> None:
    with service.database.writing() as session:
        token = make_token(session, "password", user_id=ann["id"], lives_s=60)
        session.execute(update(OneTimeToken).values(expires_at=now() - timedelta(seconds=1)))
    body = {"token": token, "new_password": "quite another password"}
    assert client.post("/v1/reset", json=body).status_code == 401


def test_the_first_administrator_needs_the_token_of_the_command_line(client: TestClient, service: Service) -> None:
    body = {**ANN, "token": "sho_guessed"}
    assert client.post("/v1/first-admin", json=body).json()["code"] == "token_unusable"
    with service.database.writing() as session:
        body["token"] = make_token(session, "first_admin", user_id=None, lives_s=60)
    made = client.post("/v1/first-admin", json=body)
    assert (made.status_code, made.json()["role"]) == (201, "admin")
    again = client.post("/v1/first-admin", json={**body, "email": "eve@example.org"})
    assert again.json()["code"] == "token_unusable"


def test_a_user_who_is_disabled_is_out_at_once_and_comes_back_when_enabled(
    client: TestClient, ann: dict[str, Any], as_role: Callable[..., TestClient]
) -> None:
    headers = bearer(ann["access_token"])
    assert client.get("/v1/me", headers=headers).status_code == 200
    admin = as_role("admin")
    admin.patch(f"/v1/users/{ann['id']}", json={"disabled": True})
    assert client.get("/v1/me", headers=headers).status_code == 401
    assert client.post("/v1/refresh", json={"refresh_token": ann["refresh_token"]}).status_code == 401
    assert sign_in(client).json()["code"] == "sign_in_failed"
    admin.patch(f"/v1/users/{ann['id']}", json={"disabled": False})
    assert client.get("/v1/me", headers=headers).status_code == 401, "the old token stays dead"
    assert sign_in(client).status_code == 200


def test_a_new_role_ends_access_tokens_but_not_the_sign_in(
    client: TestClient, ann: dict[str, Any], as_role: Callable[..., TestClient]
) -> None:
    assert client.get("/v1/users", headers=bearer(ann["access_token"])).status_code == 403
    changed = as_role("admin").patch(f"/v1/users/{ann['id']}", json={"role": "admin"})
    assert changed.json()["role"] == "admin"
    assert client.get("/v1/me", headers=bearer(ann["access_token"])).status_code == 401
    pair = client.post("/v1/refresh", json={"refresh_token": ann["refresh_token"]}).json()
    assert client.get("/v1/users", headers=bearer(pair["access_token"])).status_code == 200


def test_the_last_administrator_stays(as_role: Callable[..., TestClient]) -> None:
    admin = as_role("admin")
    me = admin.headers["X-User"]
    for change in ({"role": "seller"}, {"disabled": True}):
        assert admin.patch(f"/v1/users/{me}", json=change).json()["code"] == "last_admin"
    deleted = admin.post("/v1/me/delete", json={"password": "a long enough password"})
    assert deleted.json()["code"] == "last_admin"
    as_role("admin")
    assert admin.patch(f"/v1/users/{me}", json={"role": "seller"}).status_code == 200


def test_an_administrator_makes_an_account_whose_owner_sets_the_password(
    client: TestClient, as_role: Callable[..., TestClient]
) -> None:
    body = {"email": "rob@example.org", "name": "Rob", "role": "reviewer"}
    made = as_role("admin").post("/v1/users", json=body).json()
    assert sign_in(client, "rob@example.org", "").status_code in (401, 422)
    client.post("/v1/reset", json={"token": made["token"], "new_password": PASSWORD})
    token = sign_in(client, "rob@example.org").json()["access_token"]
    assert client.get("/v1/me", headers=bearer(token)).json()["role"] == "reviewer"


def test_administrators_list_users_page_by_page(as_role: Callable[..., TestClient]) -> None:
    admin = as_role("admin")
    made = {as_role("seller").headers["X-User"] for _ in range(5)} | {admin.headers["X-User"]}
    seen: list[str] = []
    after: dict[str, str] = {}
    while True:
        page = admin.get("/v1/users", params={"limit": "2", **after}).json()
        seen += [user["id"] for user in page["items"]]
        if page["next"] is None:
            break
        after = {"after": page["next"]}
    assert sorted(seen) == sorted(made)
    assert len(admin.get("/v1/users", params={"role": "seller"}).json()["items"]) == 5


def test_accounts_are_found_by_a_part_of_name_or_address_and_by_state(
    service: Service, ann: dict[str, Any], as_role: Callable[..., TestClient]
) -> None:
    admin = as_role("admin", "Root 100%_")
    new = admin.post("/v1/users", json={"email": "rob@example.org", "name": "Rob", "role": "reviewer"}).json()
    off = as_role("seller", "Off").headers["X-User"]
    admin.patch(f"/v1/users/{off}", json={"disabled": True})

    def found(**query: str) -> set[str]:
        answer = admin.get("/v1/users", params=query)
        assert answer.status_code == 200, answer.text
        return {user["id"] for user in answer.json()["items"]}

    root = admin.headers["X-User"]
    assert found(q="ANN ex") == found(q="ann@exa") == found(email=" Ann@example.org ") == {ann["id"]}
    assert found(q="100%_") == {root}
    assert found(q="%") == {root}, "no joker"
    assert found(state="new") == found(role="reviewer") == {new["user_id"]}
    assert found(state="disabled") == {off}
    assert found(state="active") == {root, ann["id"], new["user_id"]}
    assert found(q="rob", state="active") == {new["user_id"]}
    assert admin.get("/v1/users", params={"state": "gone"}).status_code == 422
    assert admin.get("/v1/users", params={"after": "0" * 32}).json()["code"] == "invalid_input"


def test_a_user_is_signed_out_everywhere_by_an_administrator_and_elsewhere_by_himself(
    client: TestClient, ann: dict[str, Any], as_role: Callable[..., TestClient]
) -> None:
    here, there = bearer(ann["access_token"]), sign_in(client).json()
    listed = client.get("/v1/me/sign-ins", headers=here).json()["items"]
    assert sorted(one["this"] for one in listed) == [False, True]
    assert {one["agent"] for one in listed} == {"testclient"}
    assert client.post("/v1/me/end-other-sign-ins", headers=here).status_code == 204
    assert client.get("/v1/me", headers=bearer(there["access_token"])).status_code == 401
    assert client.post("/v1/refresh", json={"refresh_token": there["refresh_token"]}).status_code == 401
    assert [one["this"] for one in client.get("/v1/me/sign-ins", headers=here).json()["items"]] == [True]
    assert as_role("admin").post(f"/v1/users/{ann['id']}/end-sign-ins").status_code == 204
    assert client.get("/v1/me", headers=here).status_code == 401
    assert sign_in(client).status_code == 200


def test_a_key_says_when_it_last_got_a_prediction(
    client: TestClient, service: Service, as_role: Callable[..., TestClient]
) -> None:
    admin = as_role("admin")
    made = admin.post("/v1/keys", json={"name": "nightly sync"}).json()
    assert (made["used_at"], admin.get("/v1/keys").json()[0]["used_at"]) == (None, None)
    for _ in range(2):
        answer = client.post("/v1/predict", json={"title": "Chair"}, headers={"X-API-Key": made["key"]}).json()
    service.log.settle(answer["prediction_id"])
    logged = admin.get(f"/v1/predictions/{answer['prediction_id']}").json()
    assert admin.get("/v1/keys").json()[0]["used_at"] == logged["at"]


def test_the_audit_is_narrowed_by_person_and_time(ann: dict[str, Any], as_role: Callable[..., TestClient]) -> None:
    admin = as_role("admin", "Root")
    admin.patch(f"/v1/users/{ann['id']}", json={"role": "reviewer"})

    def found(**query: str) -> list[tuple[str, str]]:
        answer = admin.get("/v1/audit", params=query)
        assert answer.status_code == 200, answer.text
        return [(line["action"], line["user_name"]) for line in answer.json()["items"]]

    everything = [("user.role", "Root"), ("user.created", "Ann Example")]
    assert found() == found(subject=ann["id"]) == found(**{"from": "2020-01-01T00:00:00Z"}) == everything
    assert found(user_id=admin.headers["X-User"]) == found(action="user.role") == everything[:1]
    assert found(to="2020-01-01T00:00:00Z") == []
    at = admin.get("/v1/audit").json()["items"][0]["at"]
    assert found(to=at) == everything[1:]
    assert found(**{"from": at}) == everything[:1]


def test_a_machine_signs_in_with_a_key_that_is_shown_once(
    client: TestClient, service: Service, as_role: Callable[..., TestClient]
) -> None:
    admin = as_role("admin")
    made = admin.post("/v1/keys", json={"name": "nightly sync"}).json()
    for headers in (bearer(made["key"]), {"X-API-Key": made["key"]}):
        me = client.get("/v1/me", headers=headers).json()
        assert (me["role"], me["id"]) == ("service", made["user_id"])
    (listed,) = admin.get("/v1/keys").json()
    assert made["key"] not in str(listed)
    assert made["key"].startswith(listed["hint"])
    with service.database.reading() as session:
        assert made["key"] not in session.scalars(select(ApiKey.hash)).one()
    assert client.get("/v1/keys", headers=bearer(made["key"])).status_code == 403
    assert admin.delete(f"/v1/keys/{made['id']}").status_code == 204
    assert client.get("/v1/me", headers=bearer(made["key"])).status_code == 401


def test_a_key_may_have_an_end(client: TestClient, service: Service, as_role: Callable[..., TestClient]) -> None:
    made = as_role("admin").post("/v1/keys", json={"name": "short", "days": 1}).json()
    assert made["expires_at"] is not None
    with service.database.writing() as session:
        session.execute(update(ApiKey).values(expires_at=now() - timedelta(seconds=1)))
    assert client.get("/v1/me", headers=bearer(made["key"])).status_code == 401


def test_people_export_all_that_is_stored_about_them_but_hashes(client: TestClient, ann: dict[str, Any]) -> None:
    export = client.get("/v1/me/export", headers=bearer(ann["access_token"])).json()
    assert export["account"]["email"] == "ann@example.org"
    assert {"sign_ins", "audit", "predictions", "products"} <= export["tables"].keys()
    (sign_in_row,) = export["tables"]["sign_ins"]
    assert sign_in_row["user_id"] == ann["id"]
    assert "argon2" not in str(export)


def test_a_deleted_account_leaves_neither_name_nor_products_and_its_address_is_free(
    client: TestClient, service: Service, ann: dict[str, Any]
) -> None:
    headers = bearer(ann["access_token"])
    assert client.post("/v1/products", json={"title": "Ann's chair"}, headers=headers).status_code == 201
    assert client.post("/v1/me/delete", json={"password": "wrong wrong"}, headers=headers).status_code == 401
    assert client.post("/v1/me/delete", json={"password": PASSWORD}, headers=headers).status_code == 204
    assert client.get("/v1/me", headers=headers).status_code == 401
    assert sign_in(client).status_code == 401
    with service.database.reading() as session:
        user = session.get_one(User, ann["id"])
        assert (user.email, user.name, user.password_hash) == (None, "deleted", None)
        assert session.scalars(select(ProductRow.id)).all() == []
    assert client.post("/v1/register", json=ANN).status_code == 201


def test_changes_of_accounts_stand_in_the_audit_with_who_made_them(
    ann: dict[str, Any], as_role: Callable[..., TestClient]
) -> None:
    admin = as_role("admin")
    request_id = "change-of-role-1"
    admin.patch(f"/v1/users/{ann['id']}", json={"role": "reviewer"}, headers={"X-Request-ID": request_id})
    newest, oldest = admin.get("/v1/audit", params={"subject": ann["id"]}).json()["items"]
    assert (newest["action"], newest["detail"]) == ("user.role", {"from": "seller", "to": "reviewer"})
    assert (newest["user_id"], newest["request_id"]) == (admin.headers["X-User"], request_id)
    assert (oldest["action"], oldest["user_id"]) == ("user.created", ann["id"])
    page = admin.get("/v1/audit", params={"subject": ann["id"], "limit": 1}).json()
    rest = admin.get("/v1/audit", params={"subject": ann["id"], "after": page["next"]}).json()
    assert [line["id"] for line in rest["items"]] == [oldest["id"]]
