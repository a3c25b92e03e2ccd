"""Statements that go to the driver as they are: many rows a time, without a layer in between.

SQLAlchemy compiles and checks each row of an ``executemany``; on the path of items that costs
more than the database itself. What is here keeps its transactions and connections and hands rows
to the driver as tuples. Values are always bound.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from itertools import chain
from typing import Any, Literal

import orjson
from sqlalchemy.ext.asyncio import AsyncConnection

Dialect = Literal["sqlite", "postgresql"]
Row = tuple[Any, ...]


@lru_cache(maxsize=1024)
def for_driver(sql: str, dialect: Dialect) -> str:
    """Rewrites ``?`` to the ``$1``, ``$2`` of PostgreSQL; on SQLite it is what the driver wants.

    On SQLite a statement has as many ``?`` as there are keys, so only the newest are kept.
    """
    if dialect == "sqlite":
        return sql
    head, *rest = sql.split("?")
    return head + "".join(f"${number}{part}" for number, part in enumerate(rest, start=1))


def dialect_of(connection: AsyncConnection) -> Dialect:
    return "sqlite" if connection.dialect.name == "sqlite" else "postgresql"


def one_of(
    column: str, keys: Collection[Any], dialect: Dialect, *, key_type: str = "bigint"
) -> tuple[str, Row]:
    """Returns the condition that a column is one of the keys, and what it binds.

    On PostgreSQL the keys are one array, so that the statement is the same however many there are:
    every connection keeps what it prepared, here and in the database, up to a hundred of them.

    Args:
        key_type: Of the column, on PostgreSQL.
    """
    if dialect == "postgresql":
        return f"{column} = ANY(?::{key_type}[])", (list(keys),)
    return f"{column} IN ({_marks(keys)})", tuple(keys)


def none_of(
    column: str, keys: Collection[Any], dialect: Dialect, *, key_type: str = "bigint"
) -> tuple[str, Row]:
    """Returns the condition that a column is none of the keys, as ``one_of`` does."""
    if dialect == "postgresql":
        return f"{column} <> ALL(?::{key_type}[])", (list(keys),)
    return f"{column} NOT IN ({_marks(keys)})", tuple(keys)


def _marks(values: Collection[Any]) -> str:
    return ", ".join("?" for _ in values)


async def run(connection: AsyncConnection, sql: str, parameters: Row = ()) -> list[Row]:
    """Runs one statement and returns its rows, if it has any."""
    result = await connection.exec_driver_sql(for_driver(sql, dialect_of(connection)), parameters)
    return [tuple(row) for row in result.fetchall()] if result.returns_rows else []


async def run_for_many(
    connection: AsyncConnection, sql: str, columns: tuple[str, ...], parameters: Row
) -> list[Sequence[Any]]:
    """Runs one ``SELECT`` that has many rows, of numbers and texts, and returns them in order.

    SQLite hands them over as one text, for the reason that ``insert_rows`` gives.

    Args:
        columns: The names of the columns that ``sql`` selects.
    """
    if dialect_of(connection) != "sqlite":
        return [tuple(row) for row in await run(connection, sql, parameters)]
    [(text,)] = await run(connection, _as_one_text(sql, columns), parameters)
    rows: list[Sequence[Any]] = orjson.loads(text)
    return rows


@cache
def _as_one_text(sql: str, columns: tuple[str, ...]) -> str:
    return f"SELECT json_group_array(json_array({', '.join(columns)})) FROM ({sql})"


@dataclass(frozen=True, slots=True)
class Column:
    """A column of rows that are handed over together, with its type on PostgreSQL."""

    name: str
    type: str = "bigint"


async def insert_rows(
    connection: AsyncConnection,
    table: str,
    columns: tuple[Column, ...],
    rows: Sequence[Row],
    *,
    on_conflict: str = "",
) -> None:
    """Inserts many rows.

    SQLite takes hundreds of rows in a statement: the driver hands the interpreter over for each
    statement, and while the event loop is busy it comes back for it only milliseconds later.
    PostgreSQL takes them by COPY, or, where a row may be there already, by one over arrays.
    """
    if not rows:
        return
    if dialect_of(connection) == "sqlite":
        for block in _blocks(rows, most=_MOST_VALUES // len(columns)):
            values = tuple(chain.from_iterable(block))
            statement = _insert_values(table, columns, on_conflict, len(block))
            await connection.exec_driver_sql(statement, values)
    elif on_conflict:
        arrays = tuple(list(values) for values in zip(*rows, strict=True))
        await connection.exec_driver_sql(_insert_arrays(table, columns, on_conflict), arrays)
    else:
        await _copy(connection, table, columns, rows)


async def _copy(
    connection: AsyncConnection, table: str, columns: tuple[Column, ...], rows: Sequence[Row]
) -> None:
    """Copies rows inside the open transaction; that has begun, for a statement came before."""
    raw = await connection.get_raw_connection()
    driver: Any = raw.driver_connection
    if not driver.is_in_transaction():
        raise RuntimeError(f"rows for {table} would be stored outside of the transaction")
    names = [column.name for column in columns]
    await driver.copy_records_to_table(table, records=rows, columns=names)


_MOST_VALUES = 32_000  # SQLite binds at most 32,766 in a statement
_BLOCKS = (512, 128, 32, 8, 1)


def _blocks(rows: Sequence[Row], *, most: int) -> Iterator[Sequence[Row]]:
    """Cuts rows into blocks of few different sizes, so that each statement is compiled once."""
    place = 0
    for size in _BLOCKS:
        while size <= most and len(rows) - place >= size:
            yield rows[place : place + size]
            place += size


@cache
def _insert_values(
    table: str, columns: tuple[Column, ...], on_conflict: str, row_count: int
) -> str:
    names = ", ".join(column.name for column in columns)
    marks = _marks(columns)
    rows = ", ".join([f"({marks})"] * row_count)
    return f"INSERT INTO {table} ({names}) VALUES {rows} {on_conflict}"


@cache
def _insert_arrays(table: str, columns: tuple[Column, ...], on_conflict: str) -> str:
    names = ", ".join(column.name for column in columns)
    return f"INSERT INTO {table} ({names}) SELECT * FROM {_unnest(columns)} {on_conflict}"


def _unnest(columns: tuple[Column, ...]) -> str:
    arrays = ", ".join(f"${n}::{column.type}[]" for n, column in enumerate(columns, start=1))
    return f"unnest({arrays})"


async def update_rows(
    connection: AsyncConnection,
    sql: str,
    columns: tuple[Column, ...],
    rows: Sequence[Row],
) -> list[Row]:
    """Runs one statement over many rows, such as ``UPDATE … FROM {rows} … RETURNING …``.

    Returns:
        What the statement returns; nothing for one that returns no rows.

    Args:
        sql: Names the rows as ``{rows}``; they are called ``v`` and have the columns' names.
        rows: Numbers and short texts only.
    """
    if not rows:
        return []
    if dialect_of(connection) == "sqlite":
        parameters: Row = (orjson.dumps(rows).decode(),)
    else:
        parameters = tuple(list(values) for values in zip(*rows, strict=True))
    statement = _with_rows(sql, columns, dialect_of(connection))
    result = await connection.exec_driver_sql(statement, parameters)
    return [tuple(row) for row in result.fetchall()] if result.returns_rows else []


@cache
def _with_rows(sql: str, columns: tuple[Column, ...], dialect: Dialect) -> str:
    if dialect == "sqlite":
        fields = ", ".join(
            f"json_extract(value, '$[{n}]') AS {column.name}" for n, column in enumerate(columns)
        )
        source = f"(SELECT {fields} FROM json_each(?)) AS v"
    else:
        source = f"{_unnest(columns)} AS v({', '.join(column.name for column in columns)})"
    return sql.replace("{rows}", source)
