"""Queries that find one row by a key, on the shortest way to it.

Such a query takes tens of microseconds. The way through a pool, a transaction and another thread
takes ten times as long, and a server that answers ``GetBatch`` does little else.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Mapping
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from typing import Any, Protocol

from batchwork_server.errors import StoreUnavailable
from batchwork_server.store.silence import give_up_on_silence
from batchwork_server.store.statements import for_driver

Row = tuple[Any, ...]


class PointReader(Protocol):
    """Finds rows by their keys."""

    async def fetch_row(self, sql: str, parameters: Row) -> Row | None:
        """Returns the first row; ``sql`` has ``?`` for each parameter, and nowhere else.

        What the driver raises passes through, but for a connection that is not there.

        Raises:
            StoreUnavailable: nobody takes a connection, or it ended meanwhile.
        """
        ...

    async def close(self) -> None: ...


class SqlitePoints:
    """A connection of its own, used on the thread of the event loop."""

    def __init__(self, path: Path, *, busy_timeout: timedelta) -> None:
        self._connection = sqlite3.connect(
            f"{path.absolute().as_uri()}?mode=ro",
            uri=True,
            timeout=busy_timeout.total_seconds(),
            isolation_level=None,
            cached_statements=64,
            check_same_thread=False,
        )

    async def fetch_row(self, sql: str, parameters: Row) -> Row | None:
        with closing(self._connection.execute(sql, parameters)) as cursor:
            row: Row | None = cursor.fetchone()
            return row

    async def close(self) -> None:
        self._connection.close()


def _unreachable(error: Exception) -> StoreUnavailable:
    return StoreUnavailable(f"The database does not answer: {error}")


class PostgresPoints:
    """A few connections of their own, straight from the driver.

    They are opened when they are first needed, and again when the server has hung up. The pool of
    the driver would make a task for each query, which takes longer than the query.
    """

    CONNECTIONS = 4
    READ_SIZE = 16 * 1024  # bytes

    def __init__(self, arguments: Mapping[str, Any], *, silent_after: timedelta) -> None:
        self._arguments = dict(arguments)
        self._silent_after = silent_after
        self._room = asyncio.Semaphore(self.CONNECTIONS)
        self._idle: list[Any] = []

    async def fetch_row(self, sql: str, parameters: Row) -> Row | None:
        async with self._room:
            connection = self._idle.pop() if self._idle else None
            if connection is None or connection.is_closed():
                connection = await self._connect()
            try:
                row = await connection.fetchrow(for_driver(sql, "postgresql"), *parameters)
            except BaseException as error:
                hung_up = connection.is_closed()
                connection.terminate()  # whatever it was in the middle of
                if hung_up and isinstance(error, Exception):
                    raise _unreachable(error) from error
                raise
            self._idle.append(connection)
        return None if row is None else tuple(row)

    async def _connect(self) -> Any:
        import asyncpg

        try:
            connection = await asyncpg.connect(**self._arguments)
        except OSError as error:  # such as a socket file that is not there
            raise _unreachable(error) from error
        give_up_on_silence(connection, silent_after=self._silent_after)
        self._read_little(connection)
        return connection

    def _read_little(self, connection: Any) -> None:
        """Makes the transport read a row's worth at a time, where it has a size to read.

        asyncio reads 256 KiB, which it takes from the system for each answer and gives back: three
        system calls, and an interrupt of every processor on which the server has threads.
        """
        transport: Any = getattr(connection, "_transport", None)  # asyncpg has no setting for it
        if hasattr(transport, "max_size"):
            transport.max_size = self.READ_SIZE

    async def close(self) -> None:
        for connection in self._idle:
            await connection.close()
        self._idle.clear()
