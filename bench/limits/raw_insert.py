"""The rows of a new batch, inserted in one durable transaction by nobody who checks anything.

``python -m bench.limits.raw_insert URL`` reads a number of items from each line of its input and
answers with the seconds that they took.
"""

from __future__ import annotations

import asyncio
import sys
import time

import sqlalchemy as sa

from bench.items import inputs
from bench.limits.connection import Row, connected, insert_by_driver

_metadata = sa.MetaData()
# The keys are those of the server's own table: no id twice in a batch.
_items = sa.Table(
    "items",
    _metadata,
    sa.Column("batch_key", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("item_index", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("item_id", sa.Text, nullable=False),
    sa.Column("user_id", sa.Text),
    sa.Column("data_json", sa.Text, nullable=False),
    sa.UniqueConstraint("batch_key", "item_id"),
    sqlite_with_rowid=False,
)


async def main(url: str) -> None:
    async with connected(url) as connection:
        async with connection.begin():
            await connection.run_sync(_metadata.create_all)
        for batch, line in enumerate(sys.stdin):
            items = [(item.item_id, item.data_json) for item in inputs(int(line))]
            begin = time.perf_counter()
            rows: list[Row] = [
                (batch, n, item_id, None, data) for n, (item_id, data) in enumerate(items)
            ]
            async with connection.begin():
                await insert_by_driver(connection, _items, rows)
            print(time.perf_counter() - begin, flush=True)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
