"""What PostgreSQL reads for the items of a batch that is newer than its statistics."""

from __future__ import annotations

from typing import Any

from batchwork_server.store.database import Database, open_database
from batchwork_server.store.sql_store import SqlStore

from tests.fakes import START
from tests.store.test_chunks import claim, insert

ITEMS = 2_000


async def run(database: Database, statement: str) -> list[Any]:
    async with database.transaction() as tx:
        result = await tx.connection.exec_driver_sql(statement)
        return list(result.fetchall()) if result.returns_rows else []


async def do_first_items(database: Database, batch_key: int, count: int) -> None:
    """Leaves what a worker leaves that has done the first items of a batch."""
    await run(
        database,
        "INSERT INTO outcomes (batch_key, item_index, state, attempt_count)"
        f" SELECT batch_key, item_index, 'SUCCEEDED', 1 FROM items"
        f" WHERE batch_key = {batch_key} AND item_index < {count}",
    )
    await run(
        database,
        f"UPDATE chunks SET state = 'DONE' WHERE batch_key = {batch_key} AND first_index < {count}",
    )


async def rows_read(database_url: str) -> int:
    """Returns how many rows of outcomes were found by its key; who has closed has told it all."""
    database = await open_database(database_url)
    [(count,)] = await run(
        database,
        "SELECT idx_tup_read FROM pg_stat_user_indexes WHERE indexrelname = 'pk_outcomes'",
    )
    await database.close()
    return int(count)


async def test_a_claim_reads_no_more_of_a_batch_than_its_chunks(postgresql_url):
    # The story: 60,000 items a second became 800 as soon as PostgreSQL had analyzed its tables.
    # It took each newer batch for empty and read all of its outcomes for each item.
    database = await open_database(postgresql_url)
    store = SqlStore(database)
    for number in range(6):
        old = await insert(store, ITEMS, chunk_size=250, batch_id=f"old-{number}")
        await do_first_items(database, old.key, ITEMS)
    await run(database, "ANALYZE")
    new = await insert(store, ITEMS, chunk_size=250, batch_id="new-batch")
    await do_first_items(database, new.key, ITEMS // 2)
    await database.close()
    before = await rows_read(postgresql_url)

    database = await open_database(postgresql_url)
    claimed = await claim(SqlStore(database), now=START)
    await database.close()

    assert sum(len(chunk.items) for chunk in claimed) == ITEMS // 2
    assert await rows_read(postgresql_url) - before <= 2 * ITEMS
