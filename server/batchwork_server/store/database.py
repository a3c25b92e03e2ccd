"""Opens a database: the engine, the pragmas, the pool, the lock, the migrations."""

from __future__ import annotations

import asyncio
import fcntl
import os
import sqlite3
from collections.abc import AsyncIterator, Collection
from contextlib import AbstractContextManager, AsyncExitStack, asynccontextmanager, closing
from datetime import timedelta
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Literal
from weakref import WeakKeyDictionary

import sqlalchemy as sa
from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from batchwork_server.errors import ConfigurationError, StoreUnavailable
from batchwork_server.store.points import PointReader, PostgresPoints, SqlitePoints
from batchwork_server.store.store import Transaction

Dialect = Literal["sqlite", "postgresql"]
Synchronous = Literal["FULL", "NORMAL"]

BUSY_TIMEOUT = timedelta(seconds=5)
"""How long a SQLite statement waits for a lock before the call answers UNAVAILABLE."""

VERSION_TABLE = "batchwork_schema"
"""Holds the revision of the schema; by this table we know a database of ours."""

_MIGRATIONS = Path(__file__).parent / "migrations"
_ASYNC_DRIVERS = {"sqlite": "sqlite+aiosqlite", "postgresql": "postgresql+asyncpg"}

# Alembic keeps the migration that is running in a global.
_migrating: WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Lock] = WeakKeyDictionary()

_MIGRATION_LOCK = 0x62617463
"""The advisory lock of PostgreSQL that lets one server at a time upgrade the schema."""


class Database:
    """A database with its schema in place.

    On SQLite one connection writes, with the write lock taken at the start of each transaction,
    so that a transaction never has to go from reading to writing; others read beside it (WAL).
    On PostgreSQL both come from one pool.

    Attributes:
        dialect: Which of the two it is, for the few statements that differ.
    """

    def __init__(
        self,
        writer: AsyncEngine,
        reader: AsyncEngine,
        *,
        points: PointReader,
        lock: IO[str] | None = None,
    ) -> None:
        self._writer = writer
        self._reader = reader
        self._points = points
        self._lock = lock
        self.dialect: Dialect = "sqlite" if writer.dialect.name == "sqlite" else "postgresql"

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Transaction]:
        """Opens a write transaction; it commits when the block ends well.

        Raises:
            StoreUnavailable: the database is away, locked or full; nothing was changed.
        """
        async with _connected(self._writer) as connection, connection.begin():
            yield Transaction(connection=connection)

    @asynccontextmanager
    async def reading(self) -> AsyncIterator[AsyncConnection]:
        """Opens a connection that only reads.

        Raises:
            StoreUnavailable: the database is away.
        """
        async with _connected(self._reader) as connection:
            yield connection

    async def fetch_row(self, sql: str, parameters: tuple[Any, ...]) -> tuple[Any, ...] | None:
        """Returns the first row of a query that finds its row by a key.

        It goes around SQLAlchemy and, on SQLite, around the thread of aiosqlite.

        Args:
            sql: With ``?`` for each parameter, and nowhere else.
            parameters: Bound, never pasted.

        Raises:
            StoreUnavailable: the database is away.
        """
        with _StoreErrors():
            return await self._points.fetch_row(sql, parameters)

    async def ping(self) -> None:
        """Asks the database for an answer.

        Raises:
            StoreUnavailable: there was none.
        """
        async with self.reading() as connection:
            await connection.execute(sa.text("SELECT 1"))

    async def close(self) -> None:
        """Closes every connection, and then lets the next server have the file."""
        await self._points.close()
        await self._reader.dispose()
        # The last connection of SQLite tidies the files up, and only a writer can.
        await self._writer.dispose()
        if self._lock is not None:
            self._lock.close()


@asynccontextmanager
async def _connected(engine: AsyncEngine) -> AsyncIterator[AsyncConnection]:
    with _StoreErrors():
        async with AsyncExitStack() as stack:
            try:
                connection = await stack.enter_async_context(engine.connect())
            except OSError as error:  # only here: an OSError of the block is not the database's
                raise _unavailable(error) from error
            yield connection


class _StoreErrors(AbstractContextManager[None]):
    """Tells what is away, and safe to try again, from what is wrong and passes through."""

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if error is not None and _is_away(error):
            raise _unavailable(error) from error


def _unavailable(error: BaseException) -> StoreUnavailable:
    return StoreUnavailable(f"The database does not answer: {_first_line(error)}")


_AWAY_IN_SQLITE = frozenset(
    {
        sqlite3.SQLITE_BUSY,
        sqlite3.SQLITE_LOCKED,
        sqlite3.SQLITE_NOMEM,
        sqlite3.SQLITE_READONLY,
        sqlite3.SQLITE_IOERR,
        sqlite3.SQLITE_FULL,
        sqlite3.SQLITE_CANTOPEN,
    }
)

_AWAY_IN_POSTGRESQL = (
    "08",  # the connection is gone
    "53",  # out of disk, memory or connections
    "57",  # shutting down, starting up, or the statement was cancelled
    "40001",  # serialization failure
    "40P01",  # deadlock
    "55P03",  # lock not available
)


def _is_away(error: BaseException) -> bool:
    if isinstance(error, (sa.exc.TimeoutError, ConnectionError)):
        return True
    if isinstance(error, sa.exc.DBAPIError):
        if error.connection_invalidated:
            return True
        return error.orig is not None and _is_away_by_code(error.orig)
    return _is_away_by_code(error)


def _is_away_by_code(error: BaseException) -> bool:
    code: int | None = getattr(error, "sqlite_errorcode", None)
    if code is not None:
        return code & 0xFF in _AWAY_IN_SQLITE  # the rest of the number is the detail
    state: str | None = getattr(error, "sqlstate", None)
    return state is not None and state.startswith(_AWAY_IN_POSTGRESQL)


def _first_line(error: BaseException) -> str:
    cause = getattr(error, "orig", None) or error
    return (str(cause).splitlines() or [type(cause).__name__])[0][:300]


async def open_database(
    url: str, *, synchronous: Synchronous = "FULL", busy_timeout: timedelta = BUSY_TIMEOUT
) -> Database:
    """Opens the database, creates it when it is not there, and brings its schema up to date.

    What is refused is left as it was, to the byte.

    Args:
        url: ``sqlite:///path`` or ``postgresql://user:password@host/name``.
        synchronous: Of SQLite: FULL survives a power cut with all that was acknowledged, NORMAL
            may lose the last moments. PostgreSQL has a setting of its own.
        busy_timeout: Of SQLite: how long a statement waits for a lock.

    Raises:
        ConfigurationError: the URL is not understood, another server has the file, the file is
            not a database of ours, or it is newer than this code.
        StoreUnavailable: the database does not answer; try again.
    """
    parsed = _parse(url)
    if parsed.get_backend_name() == "sqlite":
        return await _open_sqlite(parsed, synchronous=synchronous, busy_timeout=busy_timeout)
    return await _open_postgresql(parsed)


def _parse(url: str) -> sa.URL:
    try:
        parsed = sa.make_url(url)
        backend = parsed.get_backend_name()
    except (sa.exc.ArgumentError, sa.exc.NoSuchModuleError) as error:
        raise ConfigurationError(
            "BATCHWORK_DATABASE_URL is not a URL; write sqlite:///batchwork.db or "
            "postgresql://user:password@host/name."
        ) from error
    if backend not in _ASYNC_DRIVERS:
        raise ConfigurationError(
            f"BATCHWORK_DATABASE_URL names {backend!r}; sqlite and postgresql are supported."
        )
    return parsed.set(drivername=_ASYNC_DRIVERS[backend])


async def _open_sqlite(
    url: sa.URL, *, synchronous: Synchronous, busy_timeout: timedelta
) -> Database:
    path = _database_file(url)
    lock = _lock(path)
    try:
        await asyncio.to_thread(_refuse_foreign_file, path)
        writer, reader = (
            _sqlite_engine(
                url,
                synchronous=synchronous,
                busy_timeout=busy_timeout,
                begin=begin,
                connections=connections,
            )
            for begin, connections in (("BEGIN IMMEDIATE", 1), ("BEGIN", 4))
        )
        await _prepare(writer, name=str(path))
        points = SqlitePoints(path, busy_timeout=busy_timeout)
        return Database(writer, reader, points=points, lock=lock)
    except BaseException:
        lock.close()
        raise


def _database_file(url: sa.URL) -> Path:
    if not url.database or url.database == ":memory:":
        raise ConfigurationError(
            "BATCHWORK_DATABASE_URL names no file; a batch must outlive its process, so write "
            "sqlite:///batchwork.db."
        )
    path = Path(url.database)
    if not path.absolute().parent.is_dir():
        raise ConfigurationError(f"The folder of the database file {path} does not exist.")
    if path.exists() and not os.access(path, os.R_OK | os.W_OK):
        raise ConfigurationError(f"The database file {path} cannot be read and written by us.")
    return path


def _lock(path: Path) -> IO[str]:
    """Takes the lock of a database file; the kernel gives it back when the process ends.

    Two servers on one file would each hold the other's work for lost.
    """
    file = path.resolve()  # by every name that the file has
    try:
        lock = file.with_name(file.name + ".lock").open("a+")
    except OSError as error:
        raise ConfigurationError(
            f"The database file {path} cannot be locked: {error.strerror}. The server has to be "
            "able to write to its folder."
        ) from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        lock.seek(0)
        owner = lock.read().strip() or "unknown"
        lock.close()
        raise ConfigurationError(
            f"Another server (process {owner}) uses the database file {path}; stop it, or give "
            "this one a file of its own with BATCHWORK_DATABASE_URL."
        ) from error
    lock.truncate(0)
    lock.write(str(os.getpid()))
    lock.flush()
    return lock


_SQLITE_TABLES = "SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT GLOB 'sqlite_*'"


def _refuse_foreign_file(path: Path) -> None:
    """Looks into a file before anything opens it for writing: even a pragma would change it.

    Raises:
        ConfigurationError: it is not a database, not ours, or newer than this code.
    """
    if not path.exists():
        return
    wal = path.with_name(path.name + "-wal")
    # Without a log to read, `immutable` keeps SQLite from making one beside somebody else's file.
    mode = "mode=ro" if wal.exists() else "immutable=1"
    try:
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?{mode}", uri=True)) as connection:
            tables = {name for (name,) in connection.execute(_SQLITE_TABLES)}
            revision = _sqlite_revision(connection) if VERSION_TABLE in tables else None
    except sqlite3.OperationalError as error:
        if _is_away_by_code(error):
            raise _unavailable(error) from error
        raise _unusable(str(path), error) from error
    except sqlite3.DatabaseError as error:
        raise _unusable(str(path), error) from error
    _refuse_strangers(tables, revision, name=str(path))


def _sqlite_revision(connection: sqlite3.Connection) -> str | None:
    row = connection.execute(f"SELECT version_num FROM {VERSION_TABLE}").fetchone()
    return None if row is None else str(row[0])


def _unusable(name: str, error: BaseException) -> ConfigurationError:
    return ConfigurationError(
        f"{name} is not a database that can be used: {_first_line(error)}. It was left as it is; "
        "move it away, or name another one with BATCHWORK_DATABASE_URL."
    )


def _sqlite_engine(
    url: sa.URL,
    *,
    synchronous: Synchronous,
    busy_timeout: timedelta,
    begin: str,
    connections: int,
) -> AsyncEngine:
    engine = create_async_engine(
        url,
        pool_size=connections,
        max_overflow=0,
        pool_timeout=30,
        connect_args={"timeout": busy_timeout.total_seconds()},
    )

    @sa.event.listens_for(engine.sync_engine, "connect")
    def on_connect(connection: Any, _record: object) -> None:
        connection.isolation_level = None  # we say BEGIN ourselves, below
        cursor = connection.cursor()
        for pragma in (
            "journal_mode = WAL",
            f"synchronous = {synchronous}",
            "foreign_keys = ON",
            "temp_store = MEMORY",
            "cache_size = -16000",
        ):
            cursor.execute(f"PRAGMA {pragma}")
        cursor.close()

    @sa.event.listens_for(engine.sync_engine, "begin")
    def on_begin(connection: sa.Connection) -> None:
        connection.exec_driver_sql(begin)

    return engine


async def _open_postgresql(url: sa.URL) -> Database:
    name = url.render_as_string(hide_password=True)
    try:
        writer = create_async_engine(url, pool_size=8, max_overflow=8, pool_timeout=30)
    except ModuleNotFoundError as error:
        raise ConfigurationError(
            f"{name} needs a driver that is not installed; install batchwork[server,postgres]."
        ) from error
    sa.event.listen(writer.sync_engine, "checkout", _replace_closed_connection)
    await _prepare(writer, name=name)
    # Reading needs no BEGIN and no ROLLBACK: two round trips saved on every call.
    return Database(
        writer,
        writer.execution_options(isolation_level="AUTOCOMMIT"),
        points=PostgresPoints(_driver_arguments(writer, url)),
    )


def _driver_arguments(engine: AsyncEngine, url: sa.URL) -> dict[str, Any]:
    """Returns what SQLAlchemy would hand to asyncpg, without what is meant for SQLAlchemy."""
    _, arguments = engine.dialect.create_connect_args(url)
    ours = ("prepared_statement_cache_size", "prepared_statement_name_func", "async_fallback")
    return {name: value for name, value in arguments.items() if name not in ours}


def _replace_closed_connection(connection: Any, _record: object, _proxy: object) -> None:
    """Makes the pool connect again when the server has hung up meanwhile; asks it nothing."""
    if connection.driver_connection.is_closed():
        raise sa.exc.DisconnectionError


_REFUSED_BY_POSTGRESQL = ("28", "3D", "42501")  # who you are, no such database, not allowed


async def _prepare(engine: AsyncEngine, *, name: str) -> None:
    """Brings the schema up to date in one transaction, or refuses a database that is not ours."""
    try:
        async with _connected(engine) as connection, connection.begin():
            if engine.dialect.name == "postgresql":
                await connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_MIGRATION_LOCK)))
            if await connection.run_sync(_needs_upgrade, name):
                async with _migrating.setdefault(asyncio.get_running_loop(), asyncio.Lock()):
                    await connection.run_sync(_upgrade)
    except BaseException as error:
        await engine.dispose()
        if _is_refusal(error):
            raise _unusable(name, error) from error
        raise


def _is_refusal(error: BaseException) -> bool:
    """Tells whether the database itself says that it will never do."""
    cause = getattr(error, "orig", None) or error
    if isinstance(cause, sqlite3.DatabaseError):
        return True
    state: str | None = getattr(cause, "sqlstate", None)
    return state is not None and state.startswith(_REFUSED_BY_POSTGRESQL)


def _needs_upgrade(connection: sa.Connection, name: str) -> bool:
    tables = sa.inspect(connection).get_table_names()
    revision: str | None = None
    if VERSION_TABLE in tables:
        version_num = sa.table(VERSION_TABLE, sa.column("version_num"))
        revision = connection.execute(sa.select(version_num)).scalar_one_or_none()
    _refuse_strangers(tables, revision, name=name)
    return revision != _script().get_current_head()


def _refuse_strangers(tables: Collection[str], revision: str | None, *, name: str) -> None:
    strangers = sorted(set(tables) - {VERSION_TABLE})
    if revision is None and strangers:
        raise ConfigurationError(
            f"{name} holds tables that are not Batchwork's ({', '.join(strangers[:3])}); it was "
            "left as it is. Name another database with BATCHWORK_DATABASE_URL."
        )
    known = {script.revision for script in _script().walk_revisions()}
    if revision is not None and revision not in known:
        raise ConfigurationError(
            f"{name} is newer than this server: its schema is {revision!r}. It was left as it is; "
            "start the version that wrote it, or a newer one."
        )


def _upgrade(connection: sa.Connection) -> None:
    config = _config()
    config.attributes["connection"] = connection
    config.attributes["version_table"] = VERSION_TABLE
    command.upgrade(config, "head")


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(_MIGRATIONS).replace("%", "%%"))
    return config


def _script() -> ScriptDirectory:
    return ScriptDirectory.from_config(_config())
