"""The whole service around a tiny model, and clients that have signed in. `database_rig` chooses its database."""

from __future__ import annotations

import io
import logging
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import structlog
from fastapi.testclient import TestClient

from shelver.service.accounts.identity import COOKIE, Role
from shelver.service.accounts.tokens import KEY_PREFIX, PAGES, Access, hash_of, random_token
from shelver.service.app import create_app
from shelver.service.operations import set_up_logs
from shelver.service.state import Service
from shelver.service.tables.accounts import ApiKey, SignIn, User
from shelver.service.tables.declarative import now
from shelver.settings import ServiceSettings

PASSWORD = "a long enough password"


@pytest.fixture
def service_settings(
    text_model: Path, tmp_path: Path, empty_settings: Path, database_url: str | None
) -> Callable[..., ServiceSettings]:
    """Settings of a small installation; keywords change them. Its passwords cost little."""

    def make(**changes: Any) -> ServiceSettings:
        small = {
            "model": text_model,
            "data": tmp_path / "data",
            "database": database_url,
            "threads": 1,
            "password_kib": 8,
            "password_passes": 1,
            "sign_ins_per_minute": 1000,
        }
        return ServiceSettings(**{**small, **changes})

    return make


@pytest.fixture
def logs() -> Iterator[io.StringIO]:
    """What the service writes to its log, as it is set up in earnest."""
    root = logging.getLogger()
    before = list(root.handlers), root.level
    stream = io.StringIO()
    set_up_logs(stream=stream)
    yield stream
    root.handlers[:], root.level = before
    structlog.reset_defaults()


@pytest.fixture
def make_app(
    service_settings: Callable[..., ServiceSettings], sqlite_template: Path, logs: io.StringIO
) -> Iterator[Callable[..., TestClient]]:
    """Starts a service and gives an anonymous client of it; keywords go to its settings."""
    with ExitStack() as stack:

        def start(**changes: Any) -> TestClient:
            settings = service_settings(**changes)
            file = settings.data / "shelver.db"
            if settings.database is None and not file.exists():
                settings.data.mkdir(mode=0o700, parents=True, exist_ok=True)
                shutil.copy(sqlite_template, file)
            app = create_app(settings)
            return stack.enter_context(TestClient(app, base_url="http://127.0.0.1"))

        yield start


@pytest.fixture
def client(make_app: Callable[..., TestClient]) -> TestClient:
    """An anonymous client of a service."""
    return make_app()


@pytest.fixture
def service(client: TestClient) -> Service:
    """What the service of `client` uses."""
    return service_behind(client)


@pytest.fixture
def as_role(client: TestClient) -> Callable[..., TestClient]:
    """Clients of the service of `client`, by role; each call makes a new account: `as_role("seller")`."""

    def make(role: Role, name: str = "") -> TestClient:
        return signed_in(client, role, name=name)

    return make


@pytest.fixture
def browsing(client: TestClient) -> Callable[..., TestClient]:
    """Browsers of people who have signed in, by role; each call makes a new account. They follow no redirects."""

    def make(role: Role, name: str = "") -> TestClient:
        return browser(client, role, name=name)

    return make


def service_behind(client: TestClient) -> Service:
    service: Service = client.app.state.service  # type: ignore[attr-defined]
    return service


def another(client: TestClient, headers: dict[str, str], *, follow: bool = True) -> TestClient:
    """A client of the same running service that sends these headers."""
    other = TestClient(client.app, base_url="http://127.0.0.1", headers=headers, follow_redirects=follow)
    other.portal = client.portal  # the same event loop as the service's
    return other


def make_user(service: Service, role: Role, *, name: str = "") -> User:
    """An account of this role; the password is PASSWORD, but machines have none."""
    machine = role == "service"
    user = User(name=name or f"a {role}", role=role, password_hash=None)
    with service.database.writing() as session:
        session.add(user)
        session.flush()
        if not machine:
            user.email = f"{user.id}@example.org"
            user.password_hash = service.passwords.hash(PASSWORD)
    return user


def token_of(service: Service, user: User, *, version: int | None = None) -> str:
    """An access token of a new sign-in; a machine's is an API key."""
    with service.database.writing() as session:
        if user.role == "service":
            key = random_token(KEY_PREFIX)
            session.add(ApiKey(user_id=user.id, hash=hash_of(key), hint=key[:8]))
            return key
        sign_in = SignIn(user_id=user.id, expires_at=now() + timedelta(hours=1))
        session.add(sign_in)
        session.flush()
        return service.tokens.sign(Access(user.id, sign_in.id, version or user.version))


def signed_in(client: TestClient, role: Role, *, name: str = "") -> TestClient:
    """A client that has signed in with a new account of this role; `client.headers["X-User"]` is its user id."""
    service = service_behind(client)
    user = make_user(service, role, name=name)
    return another(client, {"Authorization": f"Bearer {token_of(service, user)}", "X-User": user.id})


BROWSER = {"Accept": "text/html,application/xhtml+xml", "Origin": "http://127.0.0.1"}
"""What a browser sends from our own pages; to a host without https it says no Sec-Fetch-Site."""


def browser(client: TestClient, role: Role | None, *, name: str = "") -> TestClient:
    """A browser of somebody with this role, or of nobody; `headers["X-User"]` is his id."""
    if role is None:
        return another(client, BROWSER, follow=False)
    service = service_behind(client)
    user = make_user(service, role, name=name)
    with service.database.writing() as session:
        sign_in = SignIn(user_id=user.id, expires_at=now() + timedelta(hours=1))
        session.add(sign_in)
        session.flush()
        token = service.tokens.sign(Access(user.id, sign_in.id, user.version), audience=PAGES, lifetime_s=3600)
    made = another(client, {**BROWSER, "X-User": user.id}, follow=False)
    made.cookies.set(COOKIE, token)
    return made
