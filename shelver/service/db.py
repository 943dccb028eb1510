"""The database: engines, sessions, and the only place that commits.

One request is one transaction, committed before the answer leaves. What only reads never waits for a writer.
"""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Final

import structlog
from fastapi import Depends, Request
from sqlalchemy import Connection, Engine, create_engine, event, text
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, NoSuchModuleError
from sqlalchemy.orm import Session

from shelver.errors import ConfigError, MissingExtraError
from shelver.service.drivers import lock_migration, server_engine, with_driver

WAIT_S: Final = 10
"""How long a statement waits for another writer, or for a free connection."""
PULSE_S: Final = 2.0
_READS: Final = {"GET", "HEAD", "OPTIONS"}
_AFTERWARDS: Final = "shelver_afterwards"
_MIGRATIONS: Final = Path(__file__).parent / "migrations"
_BEGIN: Final = "shelver_begin"
_log = structlog.get_logger("shelver.service")


class Pulse:
    """Asks one question at a time, in a thread that may hang."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._answer: Future[bool] | None = None

    def felt(self, ask: Callable[[], bool]) -> bool:
        """What `ask` says; False where it takes too long."""
        with self._lock:
            answer = self._answer
            if answer is None or answer.done():
                answer = self._answer = Future()
                threading.Thread(
                    target=lambda: answer.set_result(ask()), name="shelver-pulse", daemon=True
                ).start()
        try:
            return answer.result(PULSE_S)
        except TimeoutError:
            return False


@dataclass(frozen=True)
class Database:
    """An open database.

    Attributes:
        engine: begins transactions that only read.
        writer: the same connections; its transactions take SQLite's write lock at their first statement, since one
            that read before it writes would fail where another has written in between.
        pulse: whether it answers.
    """

    engine: Engine
    writer: Engine
    pulse: Pulse = field(default_factory=Pulse)

    @contextmanager
    def reading(self) -> Iterator[Session]:
        """A session for reading; nothing of it is kept."""
        with Session(self.engine, expire_on_commit=False) as session:
            yield session

    @contextmanager
    def writing(self) -> Iterator[Session]:
        """A session that is committed when the block ends, unless it ends in an error."""
        with Session(self.writer, expire_on_commit=False) as session:
            yield session
            session.commit()
        for action in session.info.pop(_AFTERWARDS, ()):
            try:
                action()
            except Exception as error:  # what was committed is true all the same
                _log.error("an action after a commit failed", error=type(error).__name__, exc_info=error)

    def answers(self) -> bool:
        """Whether the database answers now; told within `PULSE_S`. Who asks while another does gets his answer."""
        return self.pulse.felt(self._select_one)

    def _select_one(self) -> bool:
        try:
            with self.engine.connect() as connection:
                connection.execute(text("SELECT 1"))
        except Exception:  # whatever the driver raises, the answer is no
            return False
        return True


def after_commit(session: Session, action: Callable[[], None]) -> None:
    """Do something once the transaction is committed; not at all where it is not.

    An action that fails goes to the log, and the answer is that of the transaction.
    """
    session.info.setdefault(_AFTERWARDS, []).append(action)


def undo(session: Session) -> None:
    """Take back what a request has done so far: its page comes again, and says what is wrong."""
    session.rollback()
    session.info.pop(_AFTERWARDS, None)


def get_session(request: Request) -> Iterator[Session]:
    """The session of a request: committed after the handler and before the answer leaves."""
    database: Database = request.app.state.service.database
    with database.reading() if request.method in _READS else database.writing() as session:
        yield session


SessionDep = Annotated[Session, Depends(get_session, scope="function")]
"""With FastAPI's default scope the answer would have left before the commit."""


@contextmanager
def open_database(url: str) -> Iterator[Database]:
    """Open a database, and close it when the block ends.

    Raises:
        ConfigError: the URL is none.
        MissingExtraError: the driver that it names is not installed.
    """
    engine = _engine(_url(url))
    try:
        yield Database(engine, engine.execution_options(**{_BEGIN: "BEGIN IMMEDIATE"}))
    finally:
        engine.dispose()


def _url(url: str) -> URL:
    try:
        return with_driver(make_url(url))
    except ArgumentError as error:
        raise _no_url() from error


def _no_url() -> ConfigError:
    return ConfigError(
        "a database URL that cannot be read",  # it may hold a password
        allowed="such as sqlite:////srv/shelver.db or postgresql+psycopg://user@host/name",
        remedy="Change --database or SHELVER_SERVICE_DATABASE.",
    )


def _engine(url: URL, *, migrates: bool = False) -> Engine:
    try:
        if url.get_backend_name() != "sqlite":
            return server_engine(url, pool_timeout_s=WAIT_S, migrates=migrates)
        begin = "BEGIN IMMEDIATE" if migrates else "BEGIN"
        engine = create_engine(
            url,
            connect_args={"timeout": WAIT_S},
            pool_timeout=WAIT_S,
            hide_parameters=True,
            execution_options={_BEGIN: begin},
        )
    except NoSuchModuleError as error:
        raise _no_url() from error
    except ModuleNotFoundError as error:
        raise MissingExtraError(
            f"{url.drivername} needs {error.name}, not installed",
            allowed="a database whose driver is installed",
            remedy="Run `pip install 'shelver[postgresql]'` or `'shelver[mariadb]'`, or use SQLite.",
        ) from error
    event.listen(engine, "connect", _prepare_sqlite)
    event.listen(engine, "begin", _begin_sqlite)
    return engine


def _prepare_sqlite(connection: sqlite3.Connection, _record: Any) -> None:
    connection.isolation_level = None  # the driver begins nothing by itself; _begin_sqlite does
    _begin_wal(connection)
    # A commit that was acknowledged survives a loss of power: full sync.
    for pragma in ("synchronous = FULL", "foreign_keys = ON"):
        connection.execute(f"PRAGMA {pragma}")


def _begin_wal(connection: sqlite3.Connection) -> None:
    """Turn a database to its write-ahead log; SQLite itself does not wait for others who do the same."""
    until = time.monotonic() + WAIT_S
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            return
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode != sqlite3.SQLITE_BUSY or time.monotonic() > until:
                raise
            time.sleep(0.02)


def _begin_sqlite(connection: Connection) -> None:
    connection.exec_driver_sql(connection.get_execution_options()[_BEGIN])


def migrate(engine: Engine, to: str = "heads") -> None:
    """Bring a database to the tables of this version; of several servers that start at once, one does it.

    A server that is killed meanwhile leaves nothing half done, or on MariaDB what the next one goes on from.

    Args:
        engine: of the database.
        to: a revision; the newest by default.

    Raises:
        ConfigError: a newer shelver has changed the database.
    """
    from alembic import command
    from alembic.config import Config
    from alembic.runtime.migration import MigrationContext
    from alembic.util import CommandError

    config = Config()
    config.set_main_option("script_location", str(_MIGRATIONS).replace("%", "%%"))
    patient = _engine(engine.url, migrates=True)
    try:
        with patient.begin() as connection:
            lock_migration(connection)  # SQLite's transaction has the lock already
            config.attributes["connection"] = connection
            try:
                command.upgrade(config, to)
            except CommandError as error:
                found = MigrationContext.configure(connection).get_current_heads()
                raise ConfigError(
                    f"a database of a newer version ({', '.join(found)})",
                    allowed="a new one, or one of this version or before",
                    remedy="Start the shelver that changed it, or restore a backup of before.",
                ) from error
    finally:
        patient.dispose()
