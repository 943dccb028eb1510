"""Who may call what: every route by every identity, each about one seller's things."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import jwt
import pytest
from belongings import OWN, SHARED, filled, named_in, picture_bytes, shared_things, thing
from fastapi import FastAPI
from fastapi.testclient import TestClient
from service_rig import another
from sqlalchemy import update

from shelver.service.openapi import declared
from shelver.service.state import Service
from shelver.service.tables.accounts import ApiKey, SignIn, User
from shelver.service.tables.declarative import now

ROLES = ("seller", "reviewer", "admin", "service")
ENDS = ("/v1/logout", "/v1/me/delete", "/v1/password", "/sign-out", "/account/delete", "/account/password")
"""Routes that may end the sign-in of who calls them."""


def app_of(client: TestClient) -> FastAPI:
    app: FastAPI = client.app  # type: ignore[assignment]
    return app


def token_of(client: TestClient) -> str:
    return client.headers["Authorization"].removeprefix("Bearer ")


def claims_of(token: str) -> dict[str, Any]:
    claims: dict[str, Any] = jwt.decode(token, options={"verify_signature": False})
    return claims


def test_every_route_says_once_who_may_call_it(client: TestClient) -> None:
    silent = [f"{method} {path}" for method, path, rules in declared(app_of(client)) if len(rules) != 1]
    assert not silent, "declare each with allowed(...)"


def test_every_id_in_a_path_has_something_to_be_tried_with(client: TestClient) -> None:
    keys = {key for _, path, _ in declared(app_of(client)) for key in named_in(path)}
    assert not keys - OWN.keys() - SHARED.keys(), "add each to tests/belongings.py: OWN if it belongs to somebody"
    for _, path, _ in declared(app_of(client)):
        assert path.count("{") == len(list(named_in(path))), f"{path}: an id needs a word before it"


@pytest.fixture
def dead(service: Service, as_role: Callable[..., TestClient]) -> dict[str, str]:
    """Tokens that were good once, or look as if they were."""
    dead = {}
    for name in ("disabled", "deleted", "revoked", "ended", "changed"):
        person = as_role("admin")
        token = dead[name] = token_of(person)
        user_id, sign_in_id = person.headers["X-User"], claims_of(token)["sid"]
        with service.database.writing() as session:
            match name:
                case "disabled":
                    session.execute(update(User).where(User.id == user_id).values(disabled_at=now()))
                case "deleted":
                    session.execute(update(User).where(User.id == user_id).values(deleted_at=now()))
                case "revoked":
                    session.execute(update(SignIn).where(SignIn.id == sign_in_id).values(revoked_at=now()))
                case "ended":
                    session.execute(update(SignIn).where(SignIn.id == sign_in_id).values(expires_at=now()))
                case _:
                    session.execute(update(User).where(User.id == user_id).values(version=2))
    claims = claims_of(token_of(as_role("admin")))
    secret = service.tokens.secret
    dead["expired"] = jwt.encode({**claims, "exp": now() - timedelta(seconds=1)}, secret, "HS256")
    dead["wrong audience"] = jwt.encode({**claims, "aud": "another"}, secret, "HS256")
    machine = as_role("service")
    dead["revoked key"] = token_of(machine)
    with service.database.writing() as session:
        session.execute(update(ApiKey).where(ApiKey.user_id == machine.headers["X-User"]).values(revoked_at=now()))
    return dead


@dataclass
class Matrix:
    """Every route, asked by everybody about one seller's things."""

    anonymous: TestClient
    as_role: Callable[..., TestClient]
    owner: TestClient
    shared: dict[str, str]
    things: dict[str, str] = field(default_factory=dict)
    wrong: list[str] = field(default_factory=list)
    n_asked: int = 0

    def ask(self, who: str, person: TestClient, method: str, path: str, right: Callable[[int, str], bool]) -> None:
        """Ask as the document's example does, about a thing of the owner's."""
        for key in named_in(path):
            if key in OWN:
                thing(key, self.owner, self.things)
        address = filled(path, self.shared | self.things)
        answer = person.request(method, address, **self.body(method, path))
        problem = answer.headers.get("Content-Type") == "application/problem+json"
        code = answer.json()["code"] if problem else ""
        self.n_asked += 1
        if not right(answer.status_code, code):
            self.wrong.append(f"{method} {path} as {who}: {answer.status_code} {code} {answer.text[:200]}")
        if answer.status_code < 300 and method != "GET":
            self.things.clear()  # it may be gone, or changed

    def body(self, method: str, path: str) -> dict[str, Any]:
        operation = app_of(self.anonymous).openapi()["paths"].get(path, {}).get(method.lower(), {})
        content = operation.get("requestBody", {}).get("content", {})
        if "application/json" in content:
            return {"json": content["application/json"]["example"]}
        if "multipart/form-data" in content:
            (name,) = content["multipart/form-data"]["example"]
            return {"files": {name: ("chair.png", picture_bytes())}}
        (form,) = content.values() or [{"example": {}}]
        return {"data": form["example"]}


def test_every_route_lets_in_whom_it_names_and_nobody_else(
    client: TestClient, as_role: Callable[..., TestClient], dead: dict[str, str]
) -> None:
    people = {role: as_role(role) for role in ROLES}
    matrix = Matrix(client, as_role, people["seller"], shared_things(people["admin"]))
    people = {"owner": people["seller"], "other seller": as_role("seller")} | people
    del people["seller"]
    nobodies = {name: another(client, {"Authorization": f"Bearer {token}"}) for name, token in dead.items()}
    nobodies["anonymous"] = client
    assert len(people) + len(nobodies) >= 10
    n_routes = 0
    for method, path, (rule,) in declared(app_of(client)):
        n_routes += 1
        public = "public" in rule.roles
        owned = any(key in OWN for key in named_in(path))
        for who, nobody in nobodies.items():
            matrix.ask(who, nobody, method, path, refused_unless(public))
        # Whom it does not belong to asks first, as long as it is there.
        for who in ("other seller", "service", "reviewer", "admin", "owner"):
            role = "seller" if who in ("owner", "other seller") else who
            person = as_role(role) if path in ENDS else people[who]
            if not (public or role in rule.roles):
                expected = is_not_allowed
            elif owned and who in ("other seller", "service"):
                expected = is_not_found
            elif owned and who in ("owner", "admin"):
                expected = is_found
            else:
                expected = is_let_in
            matrix.ask(who, person, method, path, expected)
    assert not matrix.wrong, "\n".join(matrix.wrong)
    assert matrix.n_asked >= 10 * n_routes


def refused_unless(public: bool) -> Callable[[int, str], bool]:
    return lambda _, code: (code == "not_signed_in") != public


def is_let_in(status: int, code: str) -> bool:
    return (code not in ("not_signed_in", "not_allowed") and status < 500) or code in ("busy", "not_ready")


def is_found(status: int, code: str) -> bool:
    return is_let_in(status, code) and status != 404


def is_not_found(status: int, code: str) -> bool:
    return (status, code) == (404, "not_found")


def is_not_allowed(status: int, code: str) -> bool:
    return (status, code) == (403, "not_allowed")


@pytest.mark.parametrize("header", ["", "Bearer", "Basic YTpi", "Bearer  ", "Token x"])
def test_a_header_that_is_no_bearer_token_is_nobody(client: TestClient, header: str) -> None:
    answer = client.get("/v1/me", headers={"Authorization": header})
    assert (answer.status_code, answer.headers["WWW-Authenticate"]) == (401, "Bearer")
