"""Who may call what: every route by every identity, and tokens that somebody forged."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import jwt
import pytest
from fastapi.routing import APIRoute, iter_route_contexts
from fastapi.testclient import TestClient
from sqlalchemy import update

from shelver.service.identity import Rule, rule_of
from shelver.service.state import Service
from shelver.service.tables.accounts import ApiKey, SignIn, User
from shelver.service.tables.declarative import now

ROLES = ("seller", "reviewer", "admin", "service")


def dependencies_of(dependant: Any) -> Iterator[Any]:
    for one in dependant.dependencies:
        yield one.call
        yield from dependencies_of(one)


def routes_of(client: TestClient) -> Iterator[tuple[str, str, list[Rule]]]:
    """Method, path with made-up ids, and the rules that are declared, of every route of the application."""
    for context in iter_route_contexts(client.app.routes):  # type: ignore[attr-defined]
        route = context.original_route
        if not isinstance(route, APIRoute):
            assert context.path == "/openapi.json", f"{context.path} is no route of ours"
            continue
        rules = [rule for call in dependencies_of(route.dependant) if (rule := rule_of(call)) is not None]
        assert context.path is not None
        path = context.path
        for part in [piece for piece in path.split("/") if piece.startswith("{")]:
            path = path.replace(part, "0" * 32)
        for method in sorted(route.methods or ()):
            yield method, path, rules


def token_of(client: TestClient) -> str:
    return client.headers["Authorization"].removeprefix("Bearer ")


def claims_of(token: str) -> dict[str, Any]:
    claims: dict[str, Any] = jwt.decode(token, options={"verify_signature": False})
    return claims


def test_every_route_says_once_who_may_call_it(client: TestClient) -> None:
    silent = [f"{method} {path}" for method, path, rules in routes_of(client) if len(rules) != 1]
    assert not silent, "declare each with allowed(...)"


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


def test_every_route_lets_in_whom_it_names_and_nobody_else(
    client: TestClient, as_role: Callable[..., TestClient], dead: dict[str, str]
) -> None:
    wrong = []
    n_asked = 0
    people = {role: as_role(role) for role in ROLES}
    for method, path, (rule,) in routes_of(client):

        def answer(headers: dict[str, str], method: str = method, path: str = path) -> tuple[int, str | None]:
            found = client.request(method, path, headers=headers)
            is_problem = found.headers.get("Content-Type") == "application/problem+json"
            return found.status_code, found.json()["code"] if is_problem else None

        public = "public" in rule.roles
        for role in ROLES:
            person = as_role(role) if path == "/v1/logout" else people[role]
            status, code = answer({"Authorization": person.headers["Authorization"]})
            n_asked += 1
            if public or role in rule.roles:
                right = code not in ("not_signed_in", "not_allowed", "internal")
            else:
                right = (status, code) == (403, "not_allowed")
            if not right:
                wrong.append(f"{method} {path} as {role}: {status} {code}")
        for name, token in {"anonymous": None, **dead}.items():
            status, code = answer({} if token is None else {"Authorization": f"Bearer {token}"})
            n_asked += 1
            if ((status, code) == (401, "not_signed_in")) == public:
                wrong.append(f"{method} {path} as {name}: {status} {code}")
    assert not wrong, "\n".join(wrong)
    assert n_asked >= 13 * 20


def forged(token: str, secret: str, other: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Tokens that are wrong in one way each."""
    claims = claims_of(token)
    head, body, signature = token.split(".")

    def coded(value: object) -> str:
        return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()

    for name in claims:
        yield f"without {name}", jwt.encode({k: v for k, v in claims.items() if k != name}, secret, "HS256")
    changes: dict[str, list[object]] = {
        "sub": [other["sub"], "", "admin", "0" * 32],
        "sid": [other["sid"], "", "0" * 32, "' OR 1=1 --", "\x00"],
        "ver": [0, 2, -1, "1", 1.0, True, None, [1]],
        "iss": ["", "shelver ", "https://shelver", None],
        "aud": ["", "shelver", ["another"], None],
        "exp": [0, -1, claims["iat"] - 1, "soon", None],
        "iat": [2**33, "now"],
        "nbf": [2**33],
    }
    for name, values in changes.items():
        for value in values:
            changed = coded({**claims, name: value})
            key = jwt.get_algorithm_by_name("HS256")
            signed = key.sign(f"{head}.{changed}".encode(), secret.encode())
            yield f"{name} {value!r}", f"{head}.{changed}.{base64.urlsafe_b64encode(signed).rstrip(b'=').decode()}"
            yield f"{name} {value!r}, not signed again", f"{head}.{changed}.{signature}"
    for algorithm in ("HS384", "HS512"):
        yield algorithm, jwt.encode(claims, secret, algorithm)
    for algorithm in ("none", "None", "NONE", "HS256", "RS256", ""):
        for end in ("", signature[:-2], "AAAA"):
            yield f"{algorithm} signed {end!r}", f"{coded({'alg': algorithm, 'typ': 'JWT'})}.{body}.{end}"
    for guess in ("", "secret", secret[:-1], secret + " ", secret.swapcase()):
        yield f"secret {guess!r}", jwt.encode(claims, guess or "\x00", "HS256")
    yield "two parts", f"{head}.{body}"
    yield "four parts", f"{token}.{signature}"
    yield "no parts", "..."
    yield "no token", "shelver"
    yield "a key that nobody has", "shk_" + "A" * 43
    yield "a key of NUL", "shk_\x00"
    yield "long", "x" * 20_000


@pytest.mark.filterwarnings("ignore::jwt.InsecureKeyLengthWarning")
def test_forged_tokens_are_refused(
    client: TestClient, service: Service, as_role: Callable[..., TestClient]
) -> None:
    token = token_of(as_role("seller"))
    assert client.get("/v1/me", headers={"Authorization": f"Bearer {token}"}).status_code == 200
    other = claims_of(token_of(as_role("admin")))
    accepted, n_forged = [], 0
    for name, made in forged(token, service.tokens.secret, other):
        # A header may hold no NUL: such tokens are given to what reads the header.
        if not made.isprintable():
            assert service.tokens.read(made) is None
            continue
        n_forged += 1
        answer = client.get("/v1/me", headers={"Authorization": f"Bearer {made}"})
        if (answer.status_code, answer.json().get("code")) != (401, "not_signed_in"):
            accepted.append(f"{name}: {answer.status_code}")
    assert not accepted
    assert n_forged >= 60


@pytest.mark.parametrize("header", ["", "Bearer", "Basic YTpi", "Bearer  ", "Token x"])
def test_a_header_that_is_no_bearer_token_is_nobody(client: TestClient, header: str) -> None:
    answer = client.get("/v1/me", headers={"Authorization": header})
    assert (answer.status_code, answer.headers["WWW-Authenticate"]) == (401, "Bearer")
