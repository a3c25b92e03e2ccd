"""A connection with the settings of the server, and rows for it without a layer in between."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection, create_async_engine

Row = tuple[Any, ...]

_DRIVERS = {"sqlite": "sqlite+aiosqlite", "postgresql": "postgresql+asyncpg"}
_PRAGMAS = ("journal_mode = WAL", "synchronous = FULL", "cache_size = -16000")


@asynccontextmanager
async def connected(url: str) -> AsyncIterator[AsyncConnection]:
    """Opens one connection for all the work; whoever has it begins and commits."""
    parsed = sa.make_url(url)
    engine = create_async_engine(parsed.set(drivername=_DRIVERS[parsed.get_backend_name()]))
    if engine.dialect.name == "sqlite":
        sa.event.listen(engine.sync_engine, "connect", _configure)
        sa.event.listen(engine.sync_engine, "begin", _begin)
    async with engine.connect() as connection:
        yield connection
    await engine.dispose()


def _configure(connection: Any, _record: object) -> None:
    connection.isolation_level = None  # the driver would begin by itself, too late
    cursor = connection.cursor()
    for pragma in _PRAGMAS:
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _begin(connection: sa.Connection) -> None:
    connection.exec_driver_sql("BEGIN IMMEDIATE")


Insert = Callable[[AsyncConnection, sa.Table, list[Row]], Awaitable[None]]


async def insert_by_driver(connection: AsyncConnection, table: sa.Table, rows: list[Row]) -> None:
    """Inserts rows the fastest way that each driver has: ``executemany``, or COPY."""
    columns = [column.name for column in table.columns]
    if connection.dialect.name == "sqlite":
        marks = ", ".join("?" for _ in columns)
        names = ", ".join(columns)
        await connection.exec_driver_sql(
            f"INSERT INTO {table.name} ({names}) VALUES ({marks})", rows
        )
        return
    raw: Any = await connection.get_raw_connection()
    await raw.driver_connection.copy_records_to_table(table.name, columns=columns, records=rows)


async def insert_by_core(connection: AsyncConnection, table: sa.Table, rows: list[Row]) -> None:
    """Inserts rows as the manual of SQLAlchemy does."""
    columns = [column.name for column in table.columns]
    await connection.execute(table.insert(), [dict(zip(columns, row, strict=True)) for row in rows])
