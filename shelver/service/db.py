"""The database: engines, sessions, and the only place that commits.

One request is one transaction, committed before the answer leaves. What only reads never waits for a writer.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final

from fastapi import Depends, Request
from sqlalchemy import Connection, Engine, create_engine, event, text
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, NoSuchModuleError
from sqlalchemy.orm import Session

from shelver.errors import ConfigError, MissingExtraError

WAIT_S: Final = 10
"""How long a statement waits for another writer, or for a free connection."""
_READS: Final = {"GET", "HEAD", "OPTIONS"}
_AFTERWARDS: Final = "shelver_afterwards"


@dataclass(frozen=True)
class Database:
    """An open database.

    Attributes:
        engine: begins transactions that only read.
        writer: the same connections; its transactions take SQLite's write lock at their first statement, since one
            that read before it writes would fail where another has written in between.
    """

    engine: Engine
    writer: Engine

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
                action()

    def answers(self) -> bool:
        """Whether the database answers now."""
        try:
            with self.engine.connect() as connection:
                connection.execute(text("SELECT 1"))
        except Exception:  # whatever the driver raises, the answer is no
            return False
        return True


def after_commit(session: Session, action: Callable[[], None]) -> None:
    """Do something once the transaction is committed; not at all where it is not."""
    session.info.setdefault(_AFTERWARDS, []).append(action)


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
        yield Database(engine, engine.execution_options(shelver_begin="BEGIN IMMEDIATE"))
    finally:
        engine.dispose()


def _url(url: str) -> URL:
    try:
        return make_url(url)
    except ArgumentError as error:
        raise _no_url() from error


def _no_url() -> ConfigError:
    return ConfigError(
        "a database URL that cannot be read",  # it may hold a password
        allowed="such as sqlite:////srv/shelver.db or postgresql+psycopg://user@host/name",
        remedy="Change --database or SHELVER_SERVICE_DATABASE.",
    )


def _engine(url: URL) -> Engine:
    try:
        if url.get_backend_name() != "sqlite":
            return create_engine(url, pool_pre_ping=True, pool_recycle=1800, pool_timeout=WAIT_S)
        engine = create_engine(url, connect_args={"timeout": WAIT_S}, pool_timeout=WAIT_S)
    except NoSuchModuleError as error:
        raise _no_url() from error
    except ModuleNotFoundError as error:
        raise MissingExtraError(
            f"{url.drivername} needs {error.name}, not installed",
            allowed="a database whose driver is installed",
            remedy=f"Run `pip install {error.name}`, or use SQLite.",
        ) from error
    event.listen(engine, "connect", _prepare_sqlite)
    event.listen(engine, "begin", _begin_sqlite)
    return engine


def _prepare_sqlite(connection: sqlite3.Connection, _record: Any) -> None:
    connection.isolation_level = None  # the driver begins nothing by itself; _begin_sqlite does
    # A commit that was acknowledged survives a loss of power: full sync.
    for pragma in ("journal_mode = WAL", "synchronous = FULL", "foreign_keys = ON"):
        connection.execute(f"PRAGMA {pragma}")


def _begin_sqlite(connection: Connection) -> None:
    connection.exec_driver_sql(connection.get_execution_options().get("shelver_begin", "BEGIN"))


def migrate(engine: Engine) -> None:
    """Bring a database to the tables of this version; of several servers that start at once, one does it.

    Raises:
        ConfigError: a newer shelver has changed the database.
    """
    from alembic.operations import Operations
    from alembic.runtime.migration import MigrationContext
    from alembic.script import ScriptDirectory
    from alembic.util import CommandError

    scripts = ScriptDirectory(str(Path(__file__).parent / "migrations"))
    target = scripts.get_current_head() or "base"
    with engine.execution_options(shelver_begin="BEGIN IMMEDIATE").begin() as connection:
        _lock(connection)
        context = MigrationContext.configure(
            connection,
            opts={
                "fn": lambda found, _context: scripts._upgrade_revs(target, found),
                "transactional_ddl": engine.dialect.name != "mysql",
            },
        )
        try:
            with Operations.context(context):
                context.run_migrations()
        except CommandError as error:
            raise ConfigError(
                f"a database of a newer version ({', '.join(context.get_current_heads())})",
                allowed=f"a new one, or one up to version {target}",
                remedy="Start the shelver that changed it, or restore a backup of before.",
            ) from error


def _lock(connection: Connection) -> None:
    """Wait until no other server migrates; SQLite's transaction has the lock already."""
    if connection.dialect.name == "postgresql":
        connection.execute(text("SELECT pg_advisory_xact_lock(7435291)"))
    elif connection.dialect.name in ("mysql", "mariadb"):
        connection.execute(text("SELECT GET_LOCK('shelver_migration', 60)"))  # until the connection is closed
