"""What a database reads for what is asked often: of many rows, few."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from batchwork_server.domain.firing import NextRun
from batchwork_server.store.database import Database, open_database
from batchwork_server.store.occurrences import NEXT_START
from batchwork_server.store.sql_store import SqlStore

from tests.factories import TENANT
from tests.fakes import START
from tests.store.test_chunks import claim, insert
from tests.store.test_jobs import make_stored

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


async def rows_read(database_url: str, index: str = "pk_outcomes") -> int:
    """Returns how many rows were found by an index; who has closed has told it all."""
    database = await open_database(database_url)
    [(count,)] = await run(
        database,
        f"SELECT idx_tup_read FROM pg_stat_user_indexes WHERE indexrelname = '{index}'",
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


JOBS = 2_000


async def put_scheduled_jobs(store: SqlStore) -> None:
    """Stores jobs of which one is due every minute."""
    jobs = [make_stored(f"job_{number}") for number in range(JOBS)]
    runs = (START + number * timedelta(minutes=1) for number in range(JOBS))
    next_runs = {
        job.definition.job_id: NextRun(due_time=start, start_time=start)
        for job, start in zip(jobs, runs, strict=True)
    }
    async with store.transaction() as tx:
        await store.jobs.put(tx, jobs)
        await store.jobs.schedule(tx, next_runs, tenant_id=TENANT)


async def test_postgresql_reads_one_job_to_know_when_the_next_one_starts(postgresql_url):
    database = await open_database(postgresql_url)
    await put_scheduled_jobs(SqlStore(database))
    await run(database, "ANALYZE")
    await database.close()
    before = await rows_read(postgresql_url, "ix_jobs_next_start_time")

    database = await open_database(postgresql_url)
    start = await SqlStore(database).occurrences.next_start_time(after=START)
    await database.close()

    assert start == START + timedelta(minutes=1)
    assert await rows_read(postgresql_url, "ix_jobs_next_start_time") - before == 1


async def test_sqlite_finds_the_next_start_by_its_index(sqlite_url):
    database = await open_database(sqlite_url)

    plan = await run(database, f"EXPLAIN QUERY PLAN {NEXT_START.replace('?', '0')}")
    await database.close()

    assert [row[-1] for row in plan] == [
        "SEARCH jobs USING COVERING INDEX ix_jobs_next_start_time (next_start_time>?)"
    ]
