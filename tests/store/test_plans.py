"""What a database reads for what is asked often: of many rows, few."""

from __future__ import annotations

import sqlite3
from datetime import timedelta
from typing import Any

import pytest
import sqlalchemy as sa
from batchwork_server.domain.batch import Batch
from batchwork_server.domain.context import ContextItems
from batchwork_server.domain.filters import (
    BatchFilter,
    ItemFilter,
    PreferenceFilter,
    ReferenceFilter,
)
from batchwork_server.domain.firing import NextRun
from batchwork_server.domain.selection import NumberBound, Order, Selection
from batchwork_server.store.categories import SqlCategories
from batchwork_server.store.chunks import next_chunks_sql
from batchwork_server.store.database import Database, open_database
from batchwork_server.store.group_schedules import GROUPED_JOBS
from batchwork_server.store.group_schedules import NEXT_START as NEXT_GROUP
from batchwork_server.store.occurrences import NEXT_START
from batchwork_server.store.opt_outs import OPTED_OUT
from batchwork_server.store.own_items import has_part_in, is_for
from batchwork_server.store.preferences import FETCH_OF_USERS, select_page
from batchwork_server.store.sql_store import SqlStore
from batchwork_server.store.statistics import items_of_user
from batchwork_server.store.tables import batches, item_users, items
from sqlalchemy.dialects import sqlite

from tests.factories import TENANT, make_item
from tests.fakes import START
from tests.store.test_chunks import claim, insert
from tests.store.test_jobs import make_stored
from tests.store.test_references import for_user, give_own

ITEMS = 2_000
NEWEST = BatchFilter(tenant_id=TENANT)


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


async def test_a_claim_reads_no_more_of_a_batch_than_its_chunks(new_postgresql_url):
    # The story: 60,000 items a second became 800 as soon as PostgreSQL had analyzed its tables.
    # It took each newer batch for empty and read all of its outcomes for each item.
    database = await open_database(new_postgresql_url)
    store = SqlStore(database)
    for number in range(6):
        old = await insert(store, ITEMS, chunk_size=250, batch_id=f"old-{number}")
        await do_first_items(database, old.key, ITEMS)
    await run(database, "ANALYZE")
    new = await insert(store, ITEMS, chunk_size=250, batch_id="new-batch")
    await do_first_items(database, new.key, ITEMS // 2)
    await database.close()
    before = await rows_read(new_postgresql_url)

    database = await open_database(new_postgresql_url)
    claimed = await claim(SqlStore(database), now=START)
    await database.close()

    assert sum(len(chunk.items) for chunk in claimed) == ITEMS // 2
    assert await rows_read(new_postgresql_url) - before <= 2 * ITEMS


@pytest.mark.parametrize("left_out", [0, 3])
async def test_sqlite_finds_the_next_chunks_in_their_order_without_sorting(sqlite_url, left_out):
    database = await open_database(sqlite_url)

    sql, _ = next_chunks_sql("sqlite", now=START, limit=10, without=range(left_out))
    plan = await run(database, f"EXPLAIN QUERY PLAN {sql.replace('?', '0')}")
    await database.close()

    assert [row[-1] for row in plan] == ["SCAN chunks USING INDEX ix_chunks_dispatch_time"]


@pytest.mark.parametrize("left_out", [0, 3])
async def test_postgresql_reads_no_more_chunks_than_are_wanted(new_postgresql_url, left_out):
    database = await open_database(new_postgresql_url)
    store = SqlStore(database)
    others = [await insert(store, 50, batch_id=f"bat-{number}") for number in range(3)]
    await insert(store, ITEMS, chunk_size=1, batch_id="large")
    await run(database, "ANALYZE")
    await database.close()
    before = await rows_read(new_postgresql_url, "ix_chunks_dispatch_time")

    database = await open_database(new_postgresql_url)
    found = await SqlStore(database).chunks.next_chunks(
        now=START, limit=64, without=[batch.key for batch in others[:left_out]]
    )
    await database.close()

    assert len(found) == 64
    assert await rows_read(new_postgresql_url, "ix_chunks_dispatch_time") - before <= 100


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


async def test_postgresql_reads_one_job_to_know_when_the_next_one_starts(new_postgresql_url):
    database = await open_database(new_postgresql_url)
    await put_scheduled_jobs(SqlStore(database))
    await run(database, "ANALYZE")
    await database.close()
    before = await rows_read(new_postgresql_url, "ix_jobs_next_start_time")

    database = await open_database(new_postgresql_url)
    start = await SqlStore(database).occurrences.next_start_time(after=START)
    await database.close()

    assert start == START + timedelta(minutes=1)
    assert await rows_read(new_postgresql_url, "ix_jobs_next_start_time") - before == 1


async def test_sqlite_finds_the_next_start_by_its_index(sqlite_url):
    database = await open_database(sqlite_url)

    plan = await run(database, f"EXPLAIN QUERY PLAN {NEXT_START.replace('?', '0')}")
    await database.close()

    assert [row[-1] for row in plan] == [
        "SEARCH jobs USING COVERING INDEX ix_jobs_next_start_time (next_start_time>?)"
    ]


PREFERENCES = 5_000


async def put_preferences(database: Database, *, tenant_id: str = TENANT) -> None:
    await run(
        database,
        "INSERT INTO preferences (tenant_id, feature_type, user_id, enabled, overrides_json,"
        " revision, create_time, update_time)"
        f" SELECT '{tenant_id}', 'posts', 'user_' || n, true, '{{}}', 1, 0, 0"
        f" FROM generate_series(1, {PREFERENCES}) AS n",
    )


@pytest.mark.parametrize("analyzed", [True, False], ids=["analyzed", "new"])
async def test_postgresql_reads_of_some_users_what_they_wish_and_no_more(
    new_postgresql_url, analyzed
):
    database = await open_database(new_postgresql_url)
    await put_preferences(database)
    if analyzed:
        await run(database, "ANALYZE")
    await database.close()
    indexes = ("pk_preferences", "ix_preferences_tenant_id_user_id_feature_type")
    before = sum([await rows_read(new_postgresql_url, index) for index in indexes])

    database = await open_database(new_postgresql_url)
    user_ids = [f"user_{number}" for number in range(1, 501)]
    found = await SqlStore(database).preferences.of_users(user_ids, tenant_id=TENANT)
    [(scanned,)] = await run(
        database, "SELECT seq_tup_read FROM pg_stat_user_tables WHERE relname = 'preferences'"
    )
    await database.close()

    read = sum([await rows_read(new_postgresql_url, index) for index in indexes]) - before
    assert len(found) == 500
    assert read + scanned <= 2 * PREFERENCES


async def test_sqlite_finds_what_some_users_wish_by_an_index(sqlite_url):
    # The story: it took a tenant for ten preferences, and went through all of them for each user:
    # reading 5,000 users again took eleven seconds, and a million would have taken days.
    database = await open_database(sqlite_url)
    sql = FETCH_OF_USERS["sqlite"].replace("{rows}", "(SELECT 'a' AS member, 'b' AS tenant) AS v")

    plan = await run(database, f"EXPLAIN QUERY PLAN {sql}")
    await database.close()

    steps = [step[-1] for step in plan]
    assert (
        "SEARCH preferences USING INDEX ix_preferences_tenant_id_user_id_feature_type"
        " (tenant_id=? AND user_id=?)"
    ) in steps
    assert "SEARCH i USING PRIMARY KEY (tenant_id=? AND user_id=?)" in steps


PAGES = [
    pytest.param(
        PreferenceFilter(tenant_id=None),
        "SEARCH preferences USING PRIMARY KEY ((tenant_id,feature_type,user_id)>(?,?,?))",
        id="of all tenants",
    ),
    pytest.param(
        PreferenceFilter(tenant_id=TENANT),
        "SEARCH preferences USING PRIMARY KEY (tenant_id=? AND (feature_type,user_id)>(?,?))",
        id="of a tenant",
    ),
    pytest.param(
        PreferenceFilter(tenant_id=None, user_id="user_7"),
        "SEARCH preferences USING INDEX ix_preferences_tenant_id_user_id_feature_type"
        " (tenant_id=? AND user_id=?)",
        id="of a user of all tenants",
    ),
    pytest.param(
        PreferenceFilter(tenant_id=TENANT, user_id="user_7"),
        "SEARCH preferences USING INDEX ix_preferences_tenant_id_user_id_feature_type"
        " (tenant_id=? AND user_id=? AND feature_type>?)",
        id="of a user of a tenant",
    ),
]


@pytest.mark.parametrize(("wanted", "step"), PAGES)
async def test_sqlite_begins_a_page_of_preferences_where_the_last_one_ended(
    sqlite_url, wanted, step
):
    database = await open_database(sqlite_url)
    query = select_page(wanted, after=(TENANT, "posts", "user_1")).limit(100)
    text = query.compile(
        dialect=sqlite.dialect(),
        compile_kwargs={"literal_binds": True},
    ).string

    plan = await run(database, f"EXPLAIN QUERY PLAN {text}")
    await database.close()

    steps = [each[-1] for each in plan]
    assert steps[0] == step
    assert wanted.user_id or not any("TEMP B-TREE" in each for each in steps)


@pytest.mark.parametrize("user_id", ["", "user_7"], ids=["page by page", "of a user"])
async def test_postgresql_reads_few_of_the_preferences_of_all_tenants(new_postgresql_url, user_id):
    database = await open_database(new_postgresql_url)
    for number in range(10):
        await put_preferences(database, tenant_id=f"tenant_{number}")
    await run(database, "ANALYZE")
    await database.close()
    indexes = ("pk_preferences", "ix_preferences_tenant_id_user_id_feature_type")
    before = sum([await rows_read(new_postgresql_url, index) for index in indexes])

    database = await open_database(new_postgresql_url)
    page, _ = await SqlStore(database).preferences.list(
        PreferenceFilter(tenant_id=None, user_id=user_id),
        page_size=100,
        after=("tenant_3", "posts", "user_995"),
    )
    [(scanned,)] = await run(
        database, "SELECT seq_tup_read FROM pg_stat_user_tables WHERE relname = 'preferences'"
    )
    await database.close()

    read = sum([await rows_read(new_postgresql_url, index) for index in indexes]) - before
    assert {each.tenant_id for each in page} == (
        {f"tenant_{number}" for number in range(4, 10)} if user_id else {"tenant_3", "tenant_4"}
    )
    assert read + scanned < 500


async def test_sqlite_finds_the_next_group_by_its_index(sqlite_url):
    database = await open_database(sqlite_url)

    plan = await run(database, f"EXPLAIN QUERY PLAN {NEXT_GROUP.replace('?', '0')}")
    await database.close()

    assert [row[-1] for row in plan] == [
        "SEARCH group_schedules USING COVERING INDEX ix_group_schedules_next_start_time"
        " (next_start_time>?)"
    ]


async def test_sqlite_finds_preference_based_jobs_without_reading_the_others(sqlite_url):
    database = await open_database(sqlite_url)

    plan = await run(database, f"EXPLAIN QUERY PLAN {GROUPED_JOBS}")
    await database.close()

    steps = [row[-1] for row in plan]
    assert steps[0] == "SCAN j USING INDEX ix_jobs_preference_based"
    assert steps[1].startswith("SEARCH f USING PRIMARY KEY (tenant_id=?)")


async def test_what_one_user_was_given_of_a_batch_does_not_read_the_batch(new_postgresql_url):
    database = await open_database(new_postgresql_url)
    store = SqlStore(database)
    users = [f"user-{number}" for number in range(ITEMS)]
    for number in range(4):
        await give_own(store, f"batch-{number}", *map(for_user, users))
    await run(database, "ANALYZE")
    await database.close()
    indexes = ("pk_items", "ix_items_user_id_batch_key")
    before = [await rows_read(new_postgresql_url, index) for index in indexes]

    database = await open_database(new_postgresql_url)
    store = SqlStore(database)
    [batch] = (await store.batches.list(NEWEST, page_size=1, after=None))[0]
    given = ReferenceFilter(tenant_id=TENANT, user_id="user-7", batch_id=batch.batch_id)
    references, _ = await store.references.list(given, page_size=100, after=None)
    entries, _ = await store.user_items.entries(
        "user-7", tenant_id=TENANT, batch=batch, after=None, limit=100
    )
    known = await store.contexts.listed_in([batch], ContextItems(valid_users=("user-7",)))
    await database.close()

    assert [each.recipient.user_id for each in references] == ["user-7"]
    assert [each.batch.key for each in entries] == [batch.key]
    assert known.valid_users == ("user-7",)
    for index, count in zip(indexes, before, strict=True):
        assert await rows_read(new_postgresql_url, index) - count < 100


async def put_shared(database: Database, store: SqlStore, batches: int) -> Batch:
    """Stores batches of which each has one item for many users; returns the newest one."""
    for number in range(batches):
        batch = await give_own(
            store, f"batch-{number}", make_item("all", skip_reason="X"), together=[]
        )
        await run(
            database,
            "INSERT INTO item_users (batch_key, place, tenant_id, user_id, item_index)"
            f" WITH RECURSIVE n (n) AS (SELECT 0 UNION ALL SELECT n + 1 FROM n WHERE n < {ITEMS})"
            f" SELECT {batch.key}, n, '{TENANT}', 'user-' || n, 0 FROM n",
        )
    return batch


@pytest.mark.parametrize("tenant_id", [TENANT, None], ids=["of a tenant", "of all"])
async def test_what_a_user_shares_does_not_read_all_who_share_it(new_postgresql_url, tenant_id):
    database = await open_database(new_postgresql_url)
    batch = await put_shared(database, SqlStore(database), 4)
    await run(database, "ANALYZE")
    await database.close()
    indexes = ("pk_item_users", "ix_item_users_tenant_id_user_id_batch_key")
    before = [await rows_read(new_postgresql_url, index) for index in indexes]

    database = await open_database(new_postgresql_url)
    store = SqlStore(database)
    matching = BatchFilter(tenant_id=tenant_id, user_id="user-7")
    batches, _ = await store.batches.list(matching, page_size=10, after=None)
    items, _ = await store.batches.list_items(
        batch, ItemFilter(user_id="user-7"), page_size=10, after=None
    )
    counted = await store.statistics.count(matching, group_by=None)
    weights = await store.results.weights(batch, [0], states=(), user_id="user-7", with_data=False)
    [(scanned,)] = await run(
        database, "SELECT seq_tup_read FROM pg_stat_user_tables WHERE relname = 'item_users'"
    )
    await database.close()

    assert (len(batches), len(items), list(weights)) == (4, 1, [0])
    assert sum(each.item_counts.total for each in counted) == 4
    assert scanned == 0
    for index, count in zip(indexes, before, strict=True):
        assert await rows_read(new_postgresql_url, index) - count < 100


async def test_sqlite_finds_what_a_user_shares_by_an_index(sqlite_url):
    database = await open_database(sqlite_url)
    batch = await put_shared(database, SqlStore(database), 1)
    queries = [
        sa.select(batches.c.batch_key).where(has_part_in("user-7", tenant_id=TENANT)),
        sa.select(batches.c.batch_key).where(has_part_in("user-7", tenant_id=None)),
        sa.select(items.c.item_id).where(items.c.batch_key == 1, is_for("user-7", batch)),
        *(
            items_of_user(BatchFilter(tenant_id=tenant_id, user_id="user-7"), (), item_users)
            for tenant_id in (TENANT, None)
        ),
    ]

    found = []
    for query in queries:
        text = query.compile(compile_kwargs={"literal_binds": True}).string
        plan = await run(database, f"EXPLAIN QUERY PLAN {text}")
        found += [step for *_, step in plan if "item_users" in step]
    await database.close()

    index = "INDEX ix_item_users_tenant_id_user_id_batch_key (tenant_id=? AND user_id=?"
    assert found == [
        f"SEARCH item_users USING COVERING {index})",
        f"SEARCH item_users USING COVERING {index})",
        f"SEARCH item_users USING {index} AND batch_key>? AND batch_key<?)",
        f"SEARCH item_users USING {index})",
        f"SEARCH item_users USING {index})",
    ]


async def test_sqlite_finds_who_opted_out_of_a_shared_item_by_indexes(sqlite_url):
    database = await open_database(sqlite_url)
    rows = "(SELECT 'a' AS tenant, 'b' AS member, 1 AS batch, 'c' AS feature) AS v"

    plan = await run(database, f"EXPLAIN QUERY PLAN {OPTED_OUT.replace('{rows}', rows)}")
    await database.close()

    steps = [step for *_, step in plan if step.startswith("SEARCH")]
    assert steps == [
        "SEARCH u USING INDEX ix_item_users_tenant_id_user_id_batch_key"
        " (tenant_id=? AND user_id=? AND batch_key>? AND batch_key<?)",
        "SEARCH p USING PRIMARY KEY (tenant_id=? AND feature_type=? AND user_id=?) LEFT-JOIN",
        "SEARCH n USING PRIMARY KEY (tenant_id=? AND user_id=?) LEFT-JOIN",
    ]


CHOOSY = Selection(
    category="posts",
    conditions=(NumberBound(field="rank", minimum=1),),
    order=Order(field="rank", descending=True),
)


async def put_posts(database: Database, users: int, *, category: str = "posts") -> None:
    """Puts a thing of each user into a category, and the first hundred users themselves."""
    data = """'{"rank": ' || n || '}'"""
    await run(
        database,
        "INSERT INTO category_items (tenant_id, category, item_id, user_id, data_json, create_time)"
        f" WITH RECURSIVE n (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n WHERE n < {users})"
        f" SELECT '{TENANT}', '{category}', 'post-' || n, 'user-' || n, {data}, 0 FROM n"
        f" UNION ALL SELECT '{TENANT}', '{category}', 'user-' || n, NULL, {data}, 0 FROM n"
        " WHERE n <= 100",
    )


@pytest.mark.parametrize("statistics", ["fresh", "stale", "none"])
@pytest.mark.parametrize("selection", [Selection(category="posts"), CHOOSY], ids=["all", "choosy"])
async def test_things_of_some_users_do_not_read_those_of_others(
    new_postgresql_url, selection, statistics
):
    # The story: each page of a run read the whole category for the few things of its users.
    database = await open_database(new_postgresql_url)
    await put_posts(database, ITEMS, category="posts" if statistics == "fresh" else "other")
    if statistics != "none":
        await run(database, "ANALYZE")
    if statistics != "fresh":
        await put_posts(database, 10 * ITEMS)
    await database.close()
    counted = "SELECT seq_tup_read + idx_tup_fetch FROM pg_stat_user_tables WHERE relname = '{}'"
    indexed = "SELECT sum(idx_tup_read) FROM pg_stat_user_indexes WHERE relname = '{}'"

    async def read() -> int:
        database = await open_database(new_postgresql_url)
        found = [
            await run(database, query.format("category_items")) for query in (counted, indexed)
        ]
        await database.close()
        return sum(int(count) for [(count,)] in found)

    before = await read()
    database = await open_database(new_postgresql_url)
    found = await SqlCategories(database).select_of_users(
        selection, ["user-7", "user-8", "user-500"], tenant_id=TENANT
    )
    await database.close()

    assert {user: len(things) for user, things in found.items()} == {
        "user-7": 2,
        "user-8": 2,
        "user-500": 1,
    }
    assert await read() - before < 50


@pytest.mark.parametrize("selection", [Selection(category="posts"), CHOOSY], ids=["all", "choosy"])
async def test_sqlite_takes_as_many_steps_for_the_things_of_a_user_however_many_there_are(
    sqlite_url, selection
):
    database = await open_database(sqlite_url)
    query = SqlCategories(database).own_of(selection, ["user-7"], tenant_id=TENANT)
    await put_posts(database, ITEMS, category="other")
    taken = []

    for users in (100, ITEMS):
        await run(database, "DELETE FROM category_items WHERE category = 'posts'")
        await put_posts(database, users)
        taken.append(steps_of(sqlite_url, query))
    await database.close()

    few, many = taken
    assert many == few


def steps_of(sqlite_url: str, query: sa.Select[Any]) -> int:
    """Returns how many steps SQLite takes for a query that finds two rows."""
    dialect = sqlite.dialect(paramstyle="named")
    text = query.compile(dialect=dialect, compile_kwargs={"render_postcompile": True})
    steps = 0

    def count() -> None:
        nonlocal steps
        steps += 1

    connection = sqlite3.connect(sa.make_url(sqlite_url).database or "")
    connection.set_progress_handler(count, 1)
    assert len(connection.execute(str(text), text.params).fetchall()) == 2
    connection.close()
    return steps
