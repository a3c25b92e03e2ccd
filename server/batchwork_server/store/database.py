"""Opens a database: the engine, the pragmas, the pool, the lock, the migrations."""

from __future__ import annotations

import asyncio
import inspect
import sqlite3
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractContextManager, asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Literal
from weakref import WeakKeyDictionary

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import (
    AsyncConnection,
    AsyncEngine,
    AsyncTransaction,
    create_async_engine,
)

from batchwork_server.errors import ConfigurationError, StorageFull, StoreUnavailable
from batchwork_server.store.disk import NO_LIMITS, DiskLimits, DiskSpace
from batchwork_server.store.location import database_file, lock_file, look_into, parse_url, shown
from batchwork_server.store.patience import patient, to_its_end
from batchwork_server.store.points import PointReader, PostgresPoints, SqlitePoints
from batchwork_server.store.schema import needs_upgrade, refuse_strangers, upgrade
from batchwork_server.store.silence import (
    APPLICATION_NAME,
    end_stalled,
    give_up_on_silence,
    keepalive_of_postgresql,
)
from batchwork_server.store.store import Transaction

Dialect = Literal["sqlite", "postgresql"]
Synchronous = Literal["FULL", "NORMAL"]

_GOODBYE = timedelta(seconds=5)  # for PostgreSQL to answer at the end

BUSY_TIMEOUT = timedelta(seconds=5)
"""How long a SQLite statement waits for a lock before the call answers UNAVAILABLE."""

SILENT_AFTER = timedelta(seconds=30)
"""When PostgreSQL and we give each other up, unless the caller says otherwise."""

# Alembic keeps the migration that is running in a global.
_migrating: WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Lock] = WeakKeyDictionary()


@dataclass(frozen=True, slots=True, kw_only=True)
class PostgresLimits:
    """How much of PostgreSQL one server takes.

    Attributes:
        connect_timeout: How long a connection may take to be made.
        max_open: Connections at once, those for point reads included.
        max_idle: Those of them that are kept when nobody needs them.
    """

    connect_timeout: timedelta = timedelta(seconds=30)
    max_open: int = 20
    max_idle: int = 12


_CACHE_KIB = 4000
"""The pages that each connection of SQLite keeps; the system keeps them as well."""

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
        silent_after: timedelta = SILENT_AFTER,
        disk: DiskSpace | None = None,
        lock: IO[str] | None = None,
    ) -> None:
        self._writer = writer
        self._reader = reader
        self._points = points
        self._silent_after = silent_after
        self._disk = disk
        self._lock = lock
        self.dialect: Dialect = "sqlite" if writer.dialect.name == "sqlite" else "postgresql"

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Transaction]:
        """Opens a write transaction; it commits when the block ends well.

        Raises:
            StoreUnavailable: the database is away or locked; nothing was changed.
            StorageFull: there is no space to write; nothing was changed.
        """
        durable: list[Callable[[], None]] = []
        try:
            async with connected(self._writer, self._disk) as connection:
                begun = connection.begin()
                tx = Transaction(connection=patient(connection))
                await to_its_end(_begin(begun))
                try:
                    yield tx
                except BaseException:
                    await to_its_end(begun.rollback())
                    raise
                await to_its_end(_commit(begun, tx, durable))
        finally:
            for tell in durable:  # nothing that is told of runs before whoever wrote it goes on
                tell()

    @asynccontextmanager
    async def reading(self) -> AsyncIterator[AsyncConnection]:
        """Opens a connection that only reads.

        Raises:
            StoreUnavailable: the database is away.
        """
        async with connected(self._reader, self._disk) as connection:
            yield patient(connection)

    async def fetch_row(self, sql: str, parameters: tuple[Any, ...]) -> tuple[Any, ...] | None:
        """Returns the first row of a query that finds its row by a key.

        It goes around SQLAlchemy and, on SQLite, around the thread of aiosqlite.

        Args:
            sql: With ``?`` for each parameter, and nowhere else.
            parameters: Bound, never pasted.

        Raises:
            StoreUnavailable: the database is away.
        """
        with StoreErrors(self._disk):
            return await self._points.fetch_row(sql, parameters)

    async def ping(self) -> None:
        """Asks the database for an answer.

        Raises:
            StoreUnavailable: there was none.
        """
        async with self.reading() as connection:
            await connection.execute(sa.text("SELECT 1"))

    async def end_stalled(self) -> int:
        """Ends connections of servers that are frozen in the middle of a statement.

        Nobody else could have left one behind on SQLite.

        Returns:
            How many there were.

        Raises:
            StoreUnavailable: the database is away.
        """
        if self.dialect == "sqlite":
            return 0
        async with self.reading() as connection:
            return await end_stalled(connection, silent_after=self._silent_after)

    def refuse_when_full(self) -> None:
        """Refuses when what is left of SQLite's disk is for the work that was accepted before.

        It is a look at the disk, quick enough for every call. The disk of PostgreSQL is not ours
        to see.

        Raises:
            StorageFull: so it is.
        """
        if self._disk is not None:
            self._disk.refuse_when_full()

    @asynccontextmanager
    async def ballast_dropped(self) -> AsyncIterator[None]:
        """Gives the block the space that was kept in reserve, and takes it back afterwards.

        A delete needs space before it frees any, so this is how to purge on a full disk. On
        PostgreSQL there is no reserve.
        """
        if self._disk is None:
            yield
            return
        await asyncio.to_thread(self._disk.drop_ballast)
        try:
            yield
        finally:
            with suppress(StoreUnavailable):
                await self._empty_log()
            await asyncio.to_thread(self._disk.put_ballast)

    async def _empty_log(self) -> None:
        """Moves the log of SQLite into the file, so that its space is there for the reserve."""
        async with connected(self._writer, self._disk) as connection:
            raw: Any = await connection.get_raw_connection()  # a checkpoint fits no transaction
            await raw.driver_connection.execute_fetchall("PRAGMA wal_checkpoint(TRUNCATE)")

    async def close(self) -> None:
        """Closes every connection, and then lets the next server have the file."""
        if self.dialect == "postgresql":
            # One that does not answer is not told: it learns of it when the process has gone.
            with suppress(TimeoutError):
                async with asyncio.timeout(_GOODBYE.total_seconds()):
                    await self._close_connections()
        else:
            await self._close_connections()
        if self._lock is not None:
            self._lock.close()

    async def _close_connections(self) -> None:
        await self._points.close()
        await self._reader.dispose()
        # The last connection of SQLite tidies the files up, and only a writer can.
        await self._writer.dispose()


async def _commit(
    begun: AsyncTransaction, tx: Transaction, durable: list[Callable[[], None]]
) -> None:
    """Commits, and says what is to be told, also when nobody waits for it any more."""
    await begun.commit()
    durable += tx.after_commit


async def _begin(transaction: AsyncTransaction) -> None:
    await transaction


@asynccontextmanager
async def connected(
    engine: AsyncEngine, disk: DiskSpace | None = None
) -> AsyncIterator[AsyncConnection]:
    """Opens a connection, whose errors are ours when the database is away."""
    with StoreErrors(disk):
        try:
            connection = await _connect(engine)
        except OSError as error:  # only here: an OSError of the block is not the database's
            raise _unavailable(error) from error
        try:
            yield connection
        finally:
            await to_its_end(connection.close())


async def _connect(engine: AsyncEngine) -> AsyncConnection:
    connection = engine.connect()
    if engine.dialect.name != "sqlite":
        return await connection
    try:
        return await to_its_end(connection.start())
    except asyncio.CancelledError:
        if connection.sync_connection is not None:
            await to_its_end(connection.close())
        raise


class StoreErrors(AbstractContextManager[None]):
    """Tells what is away, and safe to try again, from what is wrong and passes through.

    A cancellation wins over both: a loop that was told to end while its connection broke would
    otherwise go on for ever.
    """

    def __init__(self, disk: DiskSpace | None) -> None:
        self._disk = disk
        self._cancellations = _cancellations()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if error is None:
            return
        if _cancellations() > self._cancellations and isinstance(error, Exception):
            raise asyncio.CancelledError from error
        if _is_full(error, self._disk):
            raise StorageFull(
                f"The database has no space to write: {_first_line(error)}. Free some space; what "
                "waits goes on by itself."
            ) from error
        if _is_away(error):
            raise _unavailable(error) from error


def _cancellations() -> int:
    """Returns how often the current task was told to end; none in a thread of its own."""
    try:
        task = asyncio.current_task()
    except RuntimeError:
        return 0
    return 0 if task is None else task.cancelling()


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

_PERHAPS_FULL_IN_SQLITE = frozenset({sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CANTOPEN})

_FULL_IN_POSTGRESQL = "53100"

_AWAY_IN_POSTGRESQL = (
    "08",  # the connection is gone
    "25P03",  # we said nothing for so long that it gave our transaction up
    "53",  # out of disk, memory or connections
    "57",  # shutting down, starting up, or the statement was cancelled
    "40001",  # serialization failure
    "40P01",  # deadlock
    "55P03",  # lock not available
)


def _is_full(error: BaseException, disk: DiskSpace | None) -> bool:
    cause = getattr(error, "orig", None) or error
    code: int | None = getattr(cause, "sqlite_errorcode", None)
    if code is None:
        return getattr(cause, "sqlstate", None) == _FULL_IN_POSTGRESQL
    if code & 0xFF in _PERHAPS_FULL_IN_SQLITE:
        return disk is not None and disk.is_exhausted()
    return code & 0xFF == sqlite3.SQLITE_FULL


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
    url: str,
    *,
    synchronous: Synchronous = "FULL",
    busy_timeout: timedelta = BUSY_TIMEOUT,
    disk_limits: DiskLimits = NO_LIMITS,
    silent_after: timedelta = SILENT_AFTER,
    shared: bool = False,
    postgres_limits: PostgresLimits = PostgresLimits(),
) -> Database:
    """Opens the database, creates it when it is not there, and brings its schema up to date.

    What is refused is left as it was, to the byte.

    Args:
        url: ``sqlite:///path`` or ``postgresql://user:password@host/name``.
        synchronous: Of SQLite: FULL survives a power cut with all that was acknowledged, NORMAL
            may lose the last moments. PostgreSQL has a setting of its own.
        busy_timeout: Of SQLite: how long a statement waits for a lock.
        disk_limits: Of SQLite: what is kept free of its disk.
        silent_after: Of PostgreSQL: how long it and we wait for each other. It ends a transaction
            that says nothing, because who opened it is cut off or stopped, and its locks keep
            others from the work; we end a connection on which its machine acknowledges nothing.
        shared: Of SQLite: opens the file beside a server and keeps no other away. Who takes chunks
            must not: they would be another's, too.
        postgres_limits: Of PostgreSQL: how many connections there are.

    Raises:
        ConfigurationError: the URL is not understood, another server has the file, the file is
            not a database of ours, or it is newer than this code.
        StoreUnavailable: the database does not answer; try again.
        StorageFull: there is no space even to open it.
    """
    parsed = parse_url(url)
    if parsed.get_backend_name() == "sqlite":
        return await _open_sqlite(
            parsed,
            synchronous=synchronous,
            busy_timeout=busy_timeout,
            disk_limits=disk_limits,
            shared=shared,
        )
    return await _open_postgresql(parsed, silent_after=silent_after, limits=postgres_limits)


async def _open_sqlite(
    url: sa.URL,
    *,
    synchronous: Synchronous,
    busy_timeout: timedelta,
    disk_limits: DiskLimits,
    shared: bool,
) -> Database:
    path = database_file(url)
    disk = DiskSpace(path, disk_limits)
    lock = None if shared else lock_file(path)
    try:
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
        await _prepare_sqlite(writer, path, disk)
        points = SqlitePoints(path, busy_timeout=busy_timeout)
        return Database(writer, reader, points=points, disk=disk, lock=lock)
    except BaseException:
        if lock is not None:
            lock.close()
        raise


async def _prepare_sqlite(writer: AsyncEngine, path: Path, disk: DiskSpace) -> None:
    """Looks into the file and brings it up to date; on a full disk at the cost of the reserve.

    A server that cannot start cannot purge either.
    """

    async def prepare() -> None:
        await asyncio.to_thread(_refuse_foreign_file, path, disk)
        await _prepare(writer, name=str(path), disk=disk)

    try:
        await prepare()
    except StorageFull:
        if not disk.drop_ballast():
            raise
        await prepare()
    else:
        await asyncio.to_thread(disk.put_ballast)


def _refuse_foreign_file(path: Path, disk: DiskSpace) -> None:
    """Looks into a file before anything opens it for writing.

    Raises:
        ConfigurationError: it is not a database, not ours, or newer than this code.
        StoreUnavailable: it cannot be read now.
    """
    if not path.exists():
        return
    try:
        with StoreErrors(disk):
            tables, revision = look_into(path)
    except sqlite3.DatabaseError as error:
        raise unusable(str(path), error) from error
    refuse_strangers(tables, revision, name=str(path))


def unusable(name: str, error: BaseException) -> ConfigurationError:
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
            f"cache_size = -{_CACHE_KIB}",
        ):
            cursor.execute(f"PRAGMA {pragma}")
        cursor.close()

    @sa.event.listens_for(engine.sync_engine, "begin")
    def on_begin(connection: sa.Connection) -> None:
        connection.exec_driver_sql(begin)

    return engine


async def _open_postgresql(
    url: sa.URL, *, silent_after: timedelta, limits: PostgresLimits
) -> Database:
    idle = max(1, limits.max_idle - PostgresPoints.CONNECTIONS)
    most = max(idle, limits.max_open - PostgresPoints.CONNECTIONS)
    writer = postgresql_engine(
        url,
        silent_after=silent_after,
        connect_timeout=limits.connect_timeout,
        pool_size=idle,
        max_overflow=most - idle,
        pool_timeout=30,
    )
    await _prepare(writer, name=shown(url), disk=None)
    # Reading needs no BEGIN and no ROLLBACK: two round trips saved on every call.
    return Database(
        writer,
        writer.execution_options(isolation_level="AUTOCOMMIT"),
        points=PostgresPoints(_driver_arguments(writer, url, limits), silent_after=silent_after),
        silent_after=silent_after,
    )


def postgresql_engine(
    url: sa.URL, *, silent_after: timedelta, connect_timeout: timedelta, **pool: Any
) -> AsyncEngine:
    """Returns an engine that has not connected yet.

    Raises:
        ConfigurationError: the driver is not installed.
    """
    try:
        engine = create_async_engine(
            url,
            connect_args={
                "timeout": connect_timeout.total_seconds(),
                "server_settings": _server_settings(silent_after),
            },
            **pool,
        )
    except ModuleNotFoundError as error:
        name = shown(url)
        raise ConfigurationError(
            f"{name} needs a driver that is not installed; install batchwork[server,postgres]."
        ) from error
    _refuse_unknown_parameters(engine, url)
    sa.event.listen(engine.sync_engine, "checkout", _replace_closed_connection)

    @sa.event.listens_for(engine.sync_engine, "connect")
    def on_connect(connection: Any, _record: object) -> None:
        give_up_on_silence(connection.driver_connection, silent_after=silent_after)

    return engine


def _refuse_unknown_parameters(engine: AsyncEngine, url: sa.URL) -> None:
    import asyncpg

    known = inspect.signature(asyncpg.connect).parameters.keys() | {*_FOR_SQLALCHEMY}
    _, arguments = engine.dialect.create_connect_args(url)
    if unknown := sorted(arguments.keys() - known):
        raise ConfigurationError(
            f"The URL of the database has parameters that the driver does not know: "
            f"{', '.join(unknown)}. Leave them out."
        )


def _server_settings(silent_after: timedelta) -> dict[str, str]:
    milliseconds = max(1, round(silent_after / timedelta(milliseconds=1)))
    return {
        "application_name": APPLICATION_NAME,
        "idle_in_transaction_session_timeout": str(milliseconds),
        # Between the parts of a statement, or of a COPY, a transaction is not idle; there the line
        # itself has to tell, or a peer has to look.
        **{name: str(value) for name, value in keepalive_of_postgresql(silent_after).items()},
    }


_FOR_SQLALCHEMY = (
    "prepared_statement_cache_size",
    "prepared_statement_name_func",
    "async_fallback",
)


def _driver_arguments(engine: AsyncEngine, url: sa.URL, limits: PostgresLimits) -> dict[str, Any]:
    """Returns what SQLAlchemy would hand to asyncpg, without what is meant for SQLAlchemy."""
    _, arguments = engine.dialect.create_connect_args(url)
    chosen = {name: value for name, value in arguments.items() if name not in _FOR_SQLALCHEMY}
    return chosen | {"timeout": limits.connect_timeout.total_seconds()}


def _replace_closed_connection(connection: Any, _record: object, _proxy: object) -> None:
    """Makes the pool connect again when the server has hung up meanwhile; asks it nothing."""
    if connection.driver_connection.is_closed():
        raise sa.exc.DisconnectionError


_REFUSED_BY_POSTGRESQL = ("28", "3D", "42501")  # who you are, no such database, not allowed


async def _prepare(engine: AsyncEngine, *, name: str, disk: DiskSpace | None) -> None:
    """Brings the schema up to date in one transaction, or refuses a database that is not ours."""
    try:
        async with connected(engine, disk) as connection, connection.begin():
            if engine.dialect.name == "postgresql":
                await connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_MIGRATION_LOCK)))
            if await connection.run_sync(needs_upgrade, name):
                async with _migrating.setdefault(asyncio.get_running_loop(), asyncio.Lock()):
                    await connection.run_sync(upgrade)
    except BaseException as error:
        await engine.dispose()
        if is_refusal(error):
            raise unusable(name, error) from error
        raise


def is_refusal(error: BaseException) -> bool:
    """Tells whether the database itself says that it will never do."""
    cause = getattr(error, "orig", None) or error
    if isinstance(cause, sqlite3.DatabaseError):
        return True
    state: str | None = getattr(cause, "sqlstate", None)
    return state is not None and state.startswith(_REFUSED_BY_POSTGRESQL)
