"""Servers are killed, and databases stop: what was acknowledged is stored, exactly once, on all three databases.

`make drills` kills a hundred times on each, and stops databases for half a minute; the ordinary tests do a little
of it.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import httpx2
import pytest
from database_rig import Kind, Server, frozen, start_server
from processes_rig import Acknowledged, Nursery, free_port, nursery, seller_token, wait_until, writers
from sqlalchemy import func, select

from shelver.service.accounts import secret
from shelver.service.db import Database, open_database
from shelver.service.tables.records import FeedbackRow, PredictionRow, ProductRow
from shelver.settings import ServiceSettings

KINDS: list[Kind] = ["sqlite", "postgresql", "mariadb"]
SERVERS: list[Kind] = ["postgresql", "mariadb"]
ENDS = ["stopped", "killed", "frozen"]
WRITES = "product keyed prediction feedback"


@contextmanager
def durable(kind: Kind) -> Iterator[tuple[str | None, Server | None]]:
    """The URL of a new database that syncs its commits, and the server of our own that it is on."""
    if kind == "sqlite":
        yield None, None
        return
    server = start_server(kind, durable=True)
    try:
        yield server.create_empty(), server
    finally:
        server.close()


@contextmanager
def stopped(server: Server) -> Iterator[None]:
    server.stop()
    try:
        yield
    finally:
        server.start()


@contextmanager
def killed(server: Server) -> Iterator[None]:
    server.kill()
    try:
        yield
    finally:
        server.start()


AWAY: dict[str, Callable[[Server], AbstractContextManager[None]]] = {
    "stopped": stopped,
    "killed": killed,
    "frozen": frozen,
}


def settings_of(model: Path, folder: Path, url: str | None) -> ServiceSettings:
    return ServiceSettings(
        model=model,
        data=folder / "data",
        database=url,
        port=free_port(),
        threads=1,
        access_s=24 * 3600,
        password_kib=8,
        password_passes=1,
    )


def assert_once(database: Database, told: Acknowledged) -> None:
    """All that was acknowledged is stored, and nothing twice."""
    with database.reading() as session:
        titles = session.scalars(select(ProductRow.title)).all()
        products = set(session.scalars(select(ProductRow.id)))
        judgements = set(session.scalars(select(FeedbackRow.id)))
        predictions = set(session.scalars(select(PredictionRow.id)))
    assert sorted(titles, key=str) == sorted(f"chair {key}" for key in told.products)
    assert products == set(told.products.values())
    assert not set(told.judgements) - judgements
    assert not set(told.predictions) - predictions
    assert len(told.predictions) == len(set(told.predictions))


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nursery]:
    with nursery(tmp_path_factory.mktemp("servers")) as opened:
        yield opened


def kill_servers(servers: Nursery, kind: Kind, n: int, model: Path, folder: Path) -> Acknowledged:
    """Kill the server n times under writes, and look at what is stored."""
    luck = random.Random(n)
    with durable(kind) as (url, _):
        settings = settings_of(model, folder, url)
        token = seller_token(settings)
        here = f"http://127.0.0.1:{settings.port}"
        server = servers.start(settings)
        with writers(4, here, token, WRITES) as told:
            for _ in range(n):
                begun = len(told.predictions) + len(told.products)
                wait_until(lambda begun=begun: len(told.predictions) + len(told.products) > begun)  # type: ignore[misc]
                time.sleep(luck.uniform(0, 0.3))
                servers.kill(server)
                server = servers.start(settings)
        with httpx2.Client(base_url=here, headers={"Authorization": f"Bearer {token}"}, timeout=20) as client:
            for key, answer in [*told.keyed.items()][:50]:  # the same again, whoever gave it
                again = client.post(
                    "/v1/predict", json={"title": f"chair {key}"}, headers={"Idempotency-Key": key}
                )
                assert again.content == answer
        servers.kill(server)
        server = servers.start(settings)  # it takes over what the last one left
        with open_database(secret.database_url(settings)) as database:
            wait_until(lambda: not list((settings.data / "log").glob("*.jsonl")))
            assert_once(database, told)
        servers.kill(server)
    print(
        f"{kind}: {n} kills, {len(told.products)} products, {len(told.predictions)} predictions "
        f"({len(told.keyed)} with a key), {len(told.judgements)} judgements: each once"
    )
    return told


def stop_database(
    servers: Nursery, kind: Kind, how: str, seconds: float, model: Path, folder: Path
) -> Acknowledged:
    """Let the database be away for some time under predictions, and look at what is stored."""
    with durable(kind) as (url, database_server):
        assert database_server is not None
        settings = settings_of(model, folder, url)
        token = seller_token(settings)
        process = servers.start(settings)
        here = f"http://127.0.0.1:{settings.port}"
        with writers(3, here, token, "prediction") as told:
            wait_until(lambda: len(told.predictions) > 20)
            with AWAY[how](database_server):
                n_before = len(told.predictions)
                began = time.monotonic()
                with httpx2.Client(
                    base_url=here, headers={"Authorization": f"Bearer {token}"}, timeout=40
                ) as other:
                    assert other.get("/readyz").status_code == 503
                    assert time.monotonic() - began < 5
                    refused = other.post("/v1/products", json={"title": "a chair"})
                    if how != "frozen" or seconds > 20:
                        assert (refused.status_code, refused.json()["code"]) == (503, "database_unavailable")
                time.sleep(max(0.0, began + seconds - time.monotonic()))
                n_meanwhile = len(told.predictions) - n_before
            wait_until(lambda: len(told.predictions) > n_before + n_meanwhile + 20)
        assert not told.refused
        assert n_meanwhile > 3 * seconds
        assert max(told.seconds) < 5
        with open_database(secret.database_url(settings)) as database:

            def stored() -> int:
                with database.reading() as session:
                    return session.scalar(select(func.count()).select_from(PredictionRow)) or 0

            wait_until(lambda: stored() >= len(told.predictions))
            assert_once(database, told)
            assert stored() == len(told.predictions)
        servers.kill(process)
    print(
        f"{kind} {how} for {seconds:.0f} s: {n_meanwhile} predictions meanwhile, none refused, the slowest "
        f"{max(told.seconds):.2f} s; all {len(told.predictions)} in the log, each once"
    )
    return told


@pytest.mark.parametrize("kind", KINDS)
def test_what_a_killed_server_acknowledged_is_stored_once(
    servers: Nursery, kind: Kind, text_model: Path, tmp_path: Path
) -> None:
    told = kill_servers(servers, kind, 3, text_model, tmp_path)
    assert told.products
    assert told.keyed


@pytest.mark.parametrize(("kind", "how"), [("postgresql", "killed"), ("mariadb", "frozen")])
def test_predictions_go_on_while_the_database_is_away(
    servers: Nursery, kind: Kind, how: str, text_model: Path, tmp_path: Path
) -> None:
    stop_database(servers, kind, how, 2.5, text_model, tmp_path)


@pytest.mark.drill
@pytest.mark.parametrize("kind", KINDS)
def test_a_hundred_kills(servers: Nursery, kind: Kind, text_model: Path, tmp_path: Path) -> None:
    kill_servers(servers, kind, 100, text_model, tmp_path)


@pytest.mark.drill
@pytest.mark.parametrize("how", ENDS)
@pytest.mark.parametrize("kind", SERVERS)
def test_half_a_minute_without_the_database(
    servers: Nursery, kind: Kind, how: str, text_model: Path, tmp_path: Path
) -> None:
    stop_database(servers, kind, how, 30, text_model, tmp_path)
