"""The database: what was acknowledged is stored, readers do not wait, a new one is made whole, an older one comes
up; all of it on SQLite, PostgreSQL and MariaDB."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from database_rig import Kind
from fastapi import FastAPI
from fastapi.testclient import TestClient
from sqlalchemy import Engine, event, func, select, text
from sqlalchemy.exc import StatementError

from shelver.errors import ConfigError, MissingExtraError
from shelver.service import db
from shelver.service.db import Database, SessionDep, after_commit, migrate, open_database
from shelver.service.state import Service
from shelver.service.tables import Base
from shelver.service.tables.accounts import SignIn, User
from shelver.service.tables.declarative import new_id
from shelver.service.tables.records import PredictionRow, ProductRow

PREDICTION = {
    "at": datetime(2026, 1, 2, tzinfo=UTC),
    "input_hash": "00",
    "answer": "{}",
    "outcome": "decided",
    "policy": "deepest",
    "model_version": "m",
    "taxonomy_version": "t",
    "latency_ms": 1.0,
}


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


def test_many_writers_that_lock_what_they_read_all_succeed(service: Service) -> None:
    with service.database.writing() as session:
        session.add(User(id="one", name="0", role="seller"))

    def count(_: int) -> None:
        with service.database.writing() as session:
            user = session.get_one(User, "one", with_for_update=True)
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


class Killed(BaseException):
    """In place of SIGKILL."""


@dataclass(eq=False)
class Stopper:
    """Fails at the n-th statement that changes tables, as if the process were killed then."""

    left: int

    def __call__(self, _connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        if statement.lstrip().startswith(("CREATE", "ALTER")):
            self.left -= 1
            if self.left == 0:
                raise Killed


def heads(database: Database) -> list[str]:
    with database.engine.connect() as connection:
        return sorted(MigrationContext.configure(connection).get_current_heads())


def expected_heads() -> list[str]:
    return sorted(ScriptDirectory(str(Path(db.__file__).parent / "migrations")).get_heads())


def assert_whole(database: Database) -> None:
    """It has the tables that the code has."""
    with database.engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), Base.metadata) == []
    assert heads(database) == expected_heads()


def test_a_new_database_has_the_tables_that_the_code_has(new_database_url: str) -> None:
    with open_database(new_database_url) as database:
        migrate(database.engine)
        migrate(database.engine)  # nothing is left to do
        assert_whole(database)


def test_servers_that_start_at_once_make_a_new_database_once(new_database_url: str) -> None:
    def start(_: int) -> list[str]:
        with open_database(new_database_url) as database:
            migrate(database.engine)
            return heads(database)

    with ThreadPoolExecutor(3) as pool:
        assert list(pool.map(start, range(3))) == [expected_heads()] * 3


def test_a_database_of_the_first_version_comes_up_with_its_rows(new_database_url: str) -> None:
    with open_database(new_database_url) as database:
        migrate(database.engine, "0001")
        assert heads(database) == ["0001"]
        at = datetime(2026, 1, 2, tzinfo=UTC)
        with database.writing() as session:
            session.add(User(id="u", name="Ann", role="seller"))
            session.flush()
            sent = {"id": "p", "owner_id": "u", "title": "a chair", "attributes": "{}", "search_key": "a chair"}
            session.execute(
                text(
                    "INSERT INTO products (id, owner_id, title, attributes, search_key, version, created_at, "
                    "updated_at) VALUES (:id, :owner_id, :title, :attributes, :search_key, 1, :at, :at)"
                ),
                sent | {"at": at.replace(tzinfo=None)},
            )
        migrate(database.engine)
        assert_whole(database)
        with database.reading() as session:
            product = session.get_one(ProductRow, "p")
            assert (product.title, product.created_at) == ("a chair", at)


@pytest.mark.parametrize("n", [2, 9, 30])
def test_a_migration_that_was_killed_half_way_is_gone_on_from(new_database_url: str, n: int) -> None:
    stopper = Stopper(n)
    event.listen(Engine, "after_cursor_execute", stopper)
    try:
        with open_database(new_database_url) as database, pytest.raises(Killed):
            migrate(database.engine)
    finally:
        event.remove(Engine, "after_cursor_execute", stopper)
    with open_database(new_database_url) as database:
        migrate(database.engine)
        assert_whole(database)


def test_a_database_of_a_newer_shelver_is_refused(new_database_url: str) -> None:
    with open_database(new_database_url) as database:
        migrate(database.engine)
        with database.writing() as session:
            session.execute(text("DELETE FROM alembic_version"))
            session.execute(text("INSERT INTO alembic_version VALUES ('9999')"))
        with pytest.raises(ConfigError, match="newer"):
            migrate(database.engine)


def test_texts_are_stored_and_compared_to_the_letter(service: Service) -> None:
    nodes = ["a", "A", "á", "ä", "\U0001f4a1", "\U0001f4a9", "ß", "ss"]
    with service.database.writing() as session:
        for node in nodes:
            session.add(PredictionRow(id=new_id(), node_id=node, **PREDICTION))
    with service.database.reading() as session:
        for node in nodes:
            found = select(PredictionRow.node_id).where(PredictionRow.node_id == node)
            assert session.scalars(found).all() == [node]


def test_of_two_transactions_that_wait_for_each_other_one_is_told_to_try_again(
    client: TestClient, service: Service, database_kind: Kind
) -> None:
    if database_kind == "sqlite":
        pytest.skip("its writers follow each other")
    app = client.app
    assert isinstance(app, FastAPI)
    with service.database.writing() as session:
        session.add_all([User(id=name, name="0", role="seller") for name in "ab"])
    both = threading.Barrier(2, timeout=10)

    @app.post("/test/{first}/{second}")
    def lock(session: SessionDep, first: str, second: str) -> None:
        session.get_one(User, first, with_for_update=True)
        with suppress(threading.BrokenBarrierError):
            both.wait()
        session.get_one(User, second, with_for_update=True)

    with ThreadPoolExecutor(2) as pool:
        answers = list(pool.map(client.post, ["/test/a/b", "/test/b/a"]))
    told = {answer.status_code: answer for answer in answers}
    assert set(told) == {200, 409}
    assert told[409].json()["code"] == "conflict"
    assert told[409].headers["Retry-After"] == "1"


def test_what_a_database_cannot_hold_is_refused(client: TestClient, service: Service, database_kind: Kind) -> None:
    if database_kind == "sqlite":
        pytest.skip("it holds everything")
    app = client.app
    assert isinstance(app, FastAPI)

    @app.post("/test/long")
    def long(session: SessionDep) -> None:
        session.add(User(name="x" * 1000, role="seller"))

    answer = client.post("/test/long")
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_input")


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
