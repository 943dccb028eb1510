"""What PostgreSQL and MariaDB need that SQLite does not: limits of time, one isolation level, tables that do not
depend on the server's defaults.

Transactions are READ COMMITTED on both. Who decides by what it has read locks it (`with_for_update`), or changes
it with a condition: two transactions may read the same before either writes.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Generator
from typing import Any, Final

from sqlalchemy import Connection, Dialect, Engine, NullPool, create_engine, event, text
from sqlalchemy.engine import URL
from sqlalchemy.exc import DBAPIError, InterfaceError, InternalError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from shelver.errors import ConfigError

ANSWER_S: Final = 10
"""How long a server may be silent before its connection is given up."""
CONNECT_S: Final = 3
RETRY_S: Final = 0.5
"""How long nobody tries to connect to a server that did not answer."""
LOCK_S: Final = 5
"""How long a statement waits for what another transaction has locked."""
MIGRATION_S: Final = 600
MARIADB: Final = ("mysql", "mariadb")
DOWN: Final = (OperationalError, InterfaceError, InternalError, PoolTimeoutError)
"""What SQLAlchemy raises when a server does not answer, or ends the connection; also for a conflict."""
_DRIVERS: Final = {"postgresql": "psycopg", "mysql": "pymysql", "mariadb": "pymysql"}
_CONFLICTS: Final = frozenset({"40001", "40P01", "55P03", 1020, 1205, 1213})
"""SQLSTATEs of PostgreSQL, numbers of MariaDB: a deadlock, or what others have locked for too long or changed."""
_SQL_MODE: Final = (
    "STRICT_TRANS_TABLES,NO_ZERO_DATE,NO_ZERO_IN_DATE,ERROR_FOR_DIVISION_BY_ZERO,NO_ENGINE_SUBSTITUTION"
)
_TABLES: Final = "ENGINE=InnoDB ROW_FORMAT=DYNAMIC CHARACTER SET utf8mb4 COLLATE utf8mb4_bin"
_THERE_ALREADY: Final = frozenset({1050, 1051, 1060, 1061, 1091, 1826})
"""MariaDB's and MySQL's numbers: such a table, column, index or foreign key exists, or one to drop is gone."""


def with_driver(url: URL) -> URL:
    """The URL with the driver that we know, where it names none: `mariadb://…` is enough."""
    driver = None if "+" in url.drivername else _DRIVERS.get(url.drivername)
    return url if driver is None else url.set(drivername=f"{url.drivername}+{driver}")


def server_engine(url: URL, *, pool_timeout_s: float, migrates: bool = False) -> Engine:
    """An engine for PostgreSQL or MariaDB.

    Args:
        url: with a driver.
        pool_timeout_s: how long to wait for a free connection.
        migrates: for one connection whose statements may take as long as they need.
    """
    pool: dict[str, Any] = {"poolclass": NullPool} if migrates else {"pool_timeout": pool_timeout_s}
    engine = create_engine(
        url,
        pool_pre_ping=True,
        hide_parameters=True,
        pool_recycle=1800,
        isolation_level="READ COMMITTED",
        connect_args=_arguments(url, migrates=migrates),
        **pool,
    )
    if not migrates:
        event.listen(engine, "do_connect", _Outage().connect)
    if engine.driver == "psycopg":
        event.listen(engine, "connect", _prepare_postgresql)
    if migrates and engine.dialect.name in MARIADB:
        event.listen(engine, "do_execute", _execute_once)
    return engine


def lock_migration(connection: Connection) -> None:
    """Wait until no other server migrates; the lock ends with the transaction, on MariaDB with the connection.

    Raises:
        ConfigError: another one has it for too long.
    """
    if connection.dialect.name == "postgresql":
        connection.execute(text("SET LOCAL lock_timeout = 0"))
        connection.execute(text("SELECT pg_advisory_xact_lock(7435291)"))
    elif connection.dialect.name in MARIADB:
        locked = text("SELECT GET_LOCK(CONCAT('shelver_migration ', MD5(DATABASE())), :wait_s)")
        if connection.scalar(locked, {"wait_s": MIGRATION_S}) != 1:
            raise ConfigError(
                f"a database that another server has been migrating for {MIGRATION_S} s",
                allowed="one that nobody migrates",
                remedy="Look what that server does, or end it, and start again.",
            )


def is_conflict(error: BaseException) -> bool:
    """Whether a transaction was ended because of another one: done again it may succeed."""
    if not isinstance(error, DBAPIError) or error.orig is None:
        return False
    number = error.orig.args[0] if error.orig.args else None
    return getattr(error.orig, "sqlstate", None) in _CONFLICTS or (
        isinstance(number, int) and number in _CONFLICTS
    )


def _arguments(url: URL, *, migrates: bool) -> dict[str, Any]:
    driver = url.get_driver_name()
    if driver == "psycopg":
        return {"connect_timeout": CONNECT_S, "keepalives_idle": ANSWER_S, "tcp_user_timeout": ANSWER_S * 1000}
    if driver in ("pymysql", "mysqldb"):
        limits = {} if migrates else {"read_timeout": ANSWER_S, "write_timeout": ANSWER_S}
        session = f"SET SESSION sql_mode='{_SQL_MODE}', time_zone='+00:00', innodb_lock_wait_timeout={LOCK_S}"
        return {"charset": "utf8mb4", "connect_timeout": CONNECT_S, "init_command": session, **limits}
    return {}


def _prepare_postgresql(connection: Any, _record: Any) -> None:
    connection.autocommit = True
    connection.execute(f"SET lock_timeout = '{LOCK_S}s'")
    connection.autocommit = False


class _Outage:
    """So that not every request waits for a server that is down: where one cannot connect, all are refused at once
    for a moment; then one tries for all. Who has a connection is not touched: those that broke are thrown away."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._down = False
        self._try_at = 0.0

    def connect(self, dialect: Dialect, _record: Any, arguments: list[Any], named: dict[str, Any]) -> Any:
        """A new connection, in place of SQLAlchemy's own way to it."""
        with self._lock:
            if self._down and time.monotonic() < self._try_at:
                raise OperationalError("", None, OSError("the database did not answer a moment ago"))
            self._try_at = time.monotonic() + CONNECT_S + RETRY_S
        try:
            if dialect.driver == "psycopg":
                connection = _connect_to_postgresql(arguments, named)
            else:
                connection = dialect.loaded_dbapi.connect(*arguments, **named)
        except Exception:
            with self._lock:
                self._down, self._try_at = True, time.monotonic() + RETRY_S
            raise
        self._down = False
        return connection


def _connect_to_postgresql(arguments: list[Any], named: dict[str, Any]) -> Any:
    """A connection that is given up when the server is silent: the driver would wait for ever."""
    from psycopg import Connection as Plain
    from psycopg import OperationalError as Refused

    class Impatient(Plain[Any]):
        def wait(self, gen: Any, *given: Any, **also: Any) -> Any:
            try:
                return super().wait(_heard(gen), *given, **also)
            except _SilentError as error:
                self.close()
                raise Refused(str(error)) from error

    return Impatient.connect(*arguments, **named)


class _SilentError(Exception):
    """The server has been silent for too long."""


def _heard(work: Generator[Any, Any, Any]) -> Generator[Any, Any, Any]:
    """The driver's work on a connection, which is told now and then whether something has come."""
    heard = time.monotonic()
    try:
        wanted = next(work)
        while True:
            ready = yield wanted
            if ready:
                heard = time.monotonic()
            elif time.monotonic() - heard > ANSWER_S:
                raise _SilentError(f"no answer for {ANSWER_S} s")
            wanted = work.send(ready)
    except StopIteration as ended:
        return ended.value


def _execute_once(cursor: Any, statement: str, parameters: Any, _context: Any) -> bool:
    """A statement of a migration, on MariaDB. One that was killed half way has left some of its tables, since each
    is committed by itself: they are not made twice."""
    if statement.lstrip().startswith("CREATE TABLE"):
        statement = f"{statement.rstrip()} {_TABLES}"
    try:
        cursor.execute(statement, parameters)
    except Exception as error:  # the driver's own; it is not imported for that
        if not error.args or error.args[0] not in _THERE_ALREADY:
            raise
    return True
