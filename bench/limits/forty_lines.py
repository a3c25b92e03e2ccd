"""A durable engine by hand: what is left of one when nothing is asked of it but speed.

It stores items, takes them in chunks, runs them with workers on one iterator, and records their
outcomes and the count in one durable transaction a chunk. It knows no retries, no leases, no
watchers, no other process and no API.

``python -m bench.limits.forty_lines (driver|core) URL`` reads a number of items from each line of
its input and answers with the seconds that they took. With ``core``, rows go in through SQLAlchemy
Core, as most engines of forty lines would do it; with ``driver``, past it.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Iterator
from typing import Any

import orjson
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from bench.items import inputs
from bench.limits.connection import Insert, Row, connected, insert_by_core, insert_by_driver

CHUNK = 500
WORKERS = 25  # as many as a server has unless it is told otherwise

_metadata = sa.MetaData()
sa.Table(
    "batches",
    _metadata,
    sa.Column("batch", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("done", sa.BigInteger, nullable=False),
)
_items = sa.Table(
    "items",
    _metadata,
    sa.Column("batch", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("place", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("item_id", sa.Text, nullable=False),
    sa.Column("data_json", sa.Text, nullable=False),
    sqlite_with_rowid=False,
)
_outcomes = sa.Table(
    "outcomes",
    _metadata,
    sa.Column("batch", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("place", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("state", sa.Text, nullable=False),
    sa.Column("result_json", sa.Text, nullable=False),
    sa.Column("end_time", sa.BigInteger, nullable=False),
    sqlite_with_rowid=False,
)

_INSERTS: dict[str, Insert] = {"driver": insert_by_driver, "core": insert_by_core}


async def noop(data: Any) -> dict[str, Any]:
    return {"ok": True}


async def run_batch(
    connection: AsyncConnection, batch: int, items: list[Row], *, insert: Insert
) -> None:
    async with connection.begin():
        await connection.exec_driver_sql(f"INSERT INTO batches VALUES ({batch}, 0)")
        rows = [(batch, place, *item) for place, item in enumerate(items)]
        await insert(connection, _items, rows)
    for first in range(0, len(items), CHUNK):
        async with connection.begin():
            chunk = await connection.exec_driver_sql(
                "SELECT place, data_json FROM items WHERE batch = "
                f"{batch} AND place >= {first} AND place < {first + CHUNK} ORDER BY place"
            )
            outcomes: list[Row] = []
            waiting = iter(chunk.all())
            async with asyncio.TaskGroup() as workers:
                for _ in range(WORKERS):
                    workers.create_task(_work(batch, waiting, outcomes))
            await insert(connection, _outcomes, outcomes)
            await connection.exec_driver_sql(
                f"UPDATE batches SET done = done + {len(outcomes)} WHERE batch = {batch}"
            )


async def _work(batch: int, waiting: Iterator[Any], outcomes: list[Row]) -> None:
    for place, data_json in waiting:
        result = orjson.dumps(await noop(orjson.loads(data_json))).decode()
        outcomes.append((batch, place, "SUCCEEDED", result, time.time_ns() // 1000))


async def main(way: str, url: str) -> None:
    async with connected(url) as connection:
        async with connection.begin():
            await connection.run_sync(_metadata.create_all)
        for batch, line in enumerate(sys.stdin):
            items: list[Row] = [(item.item_id, item.data_json) for item in inputs(int(line))]
            begin = time.perf_counter()
            await run_batch(connection, batch, items, insert=_INSERTS[way])
            seconds = time.perf_counter() - begin
            done = await connection.scalar(sa.text("SELECT done FROM batches ORDER BY batch DESC"))
            await connection.rollback()
            assert done == len(items)
            print(seconds, flush=True)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
