"""A request that is sent again is answered as before: by any server, after any restart, whatever it changes."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from datetime import timedelta

import pytest
from fastapi.testclient import TestClient
from prometheus_client import CollectorRegistry
from sqlalchemy import func, select, update

from shelver.service.answers.repeat_store import RepeatStore, forget_old, name_of, remember, repeated
from shelver.service.answers.repeats import Repeats
from shelver.service.db import Database, migrate, open_database
from shelver.service.problems import ServiceError
from shelver.service.state import Service
from shelver.service.tables.declarative import now
from shelver.service.tables.records import ProductRow
from shelver.service.tables.repeats import RepeatRow


@pytest.fixture
def database(new_database_url: str) -> Iterator[Database]:
    with open_database(new_database_url) as opened:
        migrate(opened.engine)
        yield opened


@pytest.fixture
def server(database: Database) -> Iterator[Callable[[], Repeats]]:
    """Each call is another server of one database."""
    with ExitStack() as stack:

        def start() -> Repeats:
            repeats = Repeats(RepeatStore(database, CollectorRegistry()))
            stack.callback(repeats.close)
            return repeats

        yield start


async def once(repeats: Repeats, said: str, *, key: str = "k", body: str = "b") -> tuple[str, bool]:
    async def answer() -> bytes:
        return said.encode()

    made, again = await repeats.once("ann", key, body, answer)
    return made.decode(), again


def outdate(database: Database) -> None:
    with database.writing() as session:
        session.execute(update(RepeatRow).values(at=now() - timedelta(days=1, minutes=1)))


def n_kept(database: Database) -> int:
    with database.reading() as session:
        return session.scalar(select(func.count()).select_from(RepeatRow)) or 0


def test_every_server_gives_the_same_answer_again(server: Callable[[], Repeats]) -> None:
    async def ask() -> None:
        first, second = server(), server()
        assert await once(first, "one") == ("one", False)
        assert await once(first, "two") == ("one", True)
        assert await once(second, "three") == ("one", True)
        assert await once(server(), "four", key="another") == ("four", False)
        for repeats in (first, second, server()):
            with pytest.raises(ServiceError) as refused:
                await once(repeats, "five", body="another")
            assert refused.value.code == "key_reused"

    asyncio.run(ask())


def test_of_two_servers_that_answer_at_the_same_time_the_first_is_right(server: Callable[[], Repeats]) -> None:
    async def ask() -> None:
        servers = [server() for _ in range(3)]
        answers = await asyncio.gather(*(once(one, f"of {i}") for i, one in enumerate(servers * 2)))
        assert len({said for said, _ in answers}) == 1
        assert [again for _, again in answers].count(False) == 1

    asyncio.run(ask())


def test_many_keys_at_once_and_an_answer_of_a_megabyte(server: Callable[[], Repeats], database: Database) -> None:
    long = "x" * 2**20

    async def ask() -> None:
        one, other = server(), server()
        answers = await asyncio.gather(*(once(one, f"of {i}", key=f"k{i}") for i in range(150)))
        assert answers == [(f"of {i}", False) for i in range(150)]
        assert await once(other, "", key="k77") == ("of 77", True)
        await once(one, long, key="long")
        assert await once(other, "", key="long") == (long, True)

    asyncio.run(ask())
    assert n_kept(database) == 151


def test_answers_are_kept_for_a_day(server: Callable[[], Repeats], database: Database) -> None:
    async def ask(said: str) -> tuple[str, bool]:
        return await once(server(), said)

    assert asyncio.run(ask("one")) == ("one", False)
    outdate(database)
    assert asyncio.run(ask("two")) == ("two", False)
    assert asyncio.run(ask("three")) == ("two", True)
    with database.writing() as session:
        assert forget_old(session) == 0
    outdate(database)
    with database.writing() as session:
        assert (forget_old(session), forget_old(session)) == (1, 0)
    assert n_kept(database) == 0


def test_without_the_database_a_server_remembers_by_itself(tmp_path_factory: pytest.TempPathFactory) -> None:
    lost = tmp_path_factory.mktemp("lost") / "no folder" / "x.db"
    with open_database(f"sqlite:///{lost}") as database:
        metrics = CollectorRegistry()
        repeats = Repeats(RepeatStore(database, metrics))

        async def ask() -> None:
            assert await once(repeats, "one") == ("one", False)
            assert await once(repeats, "two") == ("one", True)

        asyncio.run(ask())
        repeats.close()
    assert (metrics.get_sample_value("shelver_repeats_missed_total") or 0) >= 1


def test_what_is_changed_and_what_is_remembered_are_committed_together(database: Database) -> None:
    both = threading.Barrier(2, timeout=1)

    def change(i: int) -> str:
        try:
            with database.writing() as session:
                kept = repeated(session, "ann", "k", "b")
                if kept is not None:
                    return kept.decode()
                if database.engine.dialect.name != "sqlite":  # its writers follow each other
                    both.wait()
                session.add(RepeatRow(name=f"the change {i}", body_hash="", answer=b"", at=now()))
                remember(session, "ann", "k", "b", b"answer %d" % i)
                return f"answer {i}"
        except ServiceError as error:
            return f"{error.code} {error.retry_after_s}"

    with ThreadPoolExecutor(2) as pool:
        told = list(pool.map(change, range(2)))
    kept = {one for one in told if one.startswith("answer")}
    assert len(kept) == 1
    assert set(told) - kept <= {"conflict 1"}
    with database.reading() as session:
        names = set(session.scalars(select(RepeatRow.name)))
        assert repeated(session, "ann", "k", "b") == kept.pop().encode()
        assert repeated(session, "bob", "k", "b") is None
    assert len(names) == 2
    assert name_of("ann", "k") in names


def test_a_restarted_service_gives_the_same_answers(
    make_app: Callable[..., TestClient], as_role: Callable[..., TestClient], service: Service
) -> None:
    seller = as_role("seller")
    key = {"Idempotency-Key": "k"}
    asked, product = {"title": "bar stool"}, {"title": "a chair"}
    answer = seller.post("/v1/predict", json=asked, headers=key)
    added = seller.post("/v1/products", json=product, headers={"Idempotency-Key": "p"})
    assert (answer.status_code, added.status_code) == (200, 201)
    other = make_app()  # a second server of the same database
    headers = {"Authorization": seller.headers["Authorization"]}
    again = other.post("/v1/predict", json=asked, headers=headers | key)
    assert (again.content, again.headers["Idempotency-Replayed"]) == (answer.content, "true")
    twice = other.post("/v1/products", json=product, headers=headers | {"Idempotency-Key": "p"})
    assert twice.json() == added.json()
    assert other.post("/v1/products", json=asked, headers=headers | {"Idempotency-Key": "p"}).status_code == 409
    assert len(other.get("/v1/products", headers=headers).json()["items"]) == 1
    with service.database.reading() as session:
        assert session.scalar(select(func.count()).select_from(ProductRow)) == 1
