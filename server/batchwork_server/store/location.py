"""Where a database is: the URL that names it, and the SQLite file before anything opens it."""

from __future__ import annotations

import fcntl
import os
import sqlite3
from contextlib import closing, suppress
from pathlib import Path
from typing import IO

import sqlalchemy as sa

from batchwork_server.errors import ConfigurationError
from batchwork_server.store.schema import VERSION_TABLE

_ASYNC_DRIVERS = {"sqlite": "sqlite+aiosqlite", "postgresql": "postgresql+asyncpg"}


def parse_url(url: str, *, variable: str = "BATCHWORK_DATABASE_URL or DATABASE_URL") -> sa.URL:
    """Reads a URL; one of PostgreSQL as libpq and its relatives write it, too.

    Args:
        variable: Names where the URL comes from.

    Raises:
        ConfigurationError: it is no URL of a database that is supported.
    """
    try:
        parsed = sa.make_url(url)
        if parsed.drivername == "postgres":
            parsed = parsed.set(drivername="postgresql")
        backend = parsed.get_backend_name()
    except (sa.exc.ArgumentError, sa.exc.NoSuchModuleError) as error:
        raise ConfigurationError(
            f"The database is not named by a URL; write {variable} as sqlite:///batchwork.db or "
            "postgresql://user:password@host/name."
        ) from error
    if backend not in _ASYNC_DRIVERS:
        raise ConfigurationError(
            f"{variable} names {backend!r}; sqlite and postgresql are supported."
        )
    if backend == "postgresql" and "sslmode" in parsed.query:
        # The driver takes the words of libpq under another name.
        mode = parsed.query["sslmode"]
        parsed = parsed.difference_update_query(["sslmode"]).update_query_dict({"ssl": mode})
    return parsed.set(drivername=_ASYNC_DRIVERS[backend])


def shown(url: sa.URL) -> str:
    """Returns a URL as people may see it: without the password, which can be a parameter, too."""
    return url.set(query={}).render_as_string(hide_password=True)


def database_file(url: sa.URL) -> Path:
    """Returns the file that a URL of SQLite names.

    Raises:
        ConfigurationError: there can be no such file, or we may not use it.
    """
    if not url.database or url.database == ":memory:":
        raise ConfigurationError(
            "BATCHWORK_DATABASE_URL or DATABASE_URL names no file; a batch must outlive its "
            "process, so write sqlite:///batchwork.db."
        )
    path = Path(url.database)
    if not path.absolute().parent.is_dir():
        raise ConfigurationError(f"The folder of the database file {path} does not exist.")
    if path.exists() and not os.access(path, os.R_OK | os.W_OK):
        raise ConfigurationError(f"The database file {path} cannot be read and written by us.")
    return path


def lock_file(path: Path) -> IO[str]:
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
    with suppress(OSError):  # on a full disk nobody learns who has it
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
    return lock


_SQLITE_TABLES = "SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT GLOB 'sqlite_*'"


def look_into(path: Path) -> tuple[set[str], str | None]:
    """Returns the tables of a SQLite file, and the revision of its schema if it is ours.

    Nothing is changed, not even by a pragma, and no lock is taken that keeps a server waiting.

    Raises:
        sqlite3.DatabaseError: it cannot be read, or is no database.
    """
    wal = path.with_name(path.name + "-wal")
    # Without a log to read, `immutable` keeps SQLite from making one beside somebody else's file.
    mode = "mode=ro" if wal.exists() else "immutable=1"
    with closing(sqlite3.connect(f"{path.absolute().as_uri()}?{mode}", uri=True)) as connection:
        tables = {name for (name,) in connection.execute(_SQLITE_TABLES)}
        return tables, _sqlite_revision(connection) if VERSION_TABLE in tables else None


def _sqlite_revision(connection: sqlite3.Connection) -> str | None:
    row = connection.execute(f"SELECT version_num FROM {VERSION_TABLE}").fetchone()
    return None if row is None else str(row[0])
