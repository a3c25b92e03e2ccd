"""An older database becomes one of this code, with all that is in it and all that is under way."""

from __future__ import annotations

import orjson
import sqlalchemy as sa
from alembic import command
from alembic.config import Config
from batchwork_server.domain.batch import BatchState, Counts
from batchwork_server.domain.filters import ReferenceFilter
from batchwork_server.domain.preference_groups import schedule_text
from batchwork_server.domain.selection import Selection
from batchwork_server.store import schema, tables
from batchwork_server.store.categories import SqlCategories
from batchwork_server.store.database import open_database
from batchwork_server.store.rows import request_to
from batchwork_server.store.sql_store import SqlStore
from sqlalchemy.ext.asyncio import create_async_engine

from tests.factories import TENANT, make_request
from tests.fakes import START
from tests.store.test_chunks import claim, current, record_of, succeeded
from tests.store.test_preferences import make_preference

MOMENT = round(START.timestamp() * 1_000_000)
ASYNC_DRIVERS = {"sqlite": "sqlite+aiosqlite", "postgresql": "postgresql+asyncpg"}


def old_request() -> str:
    """Returns a request as the first release wrote it."""
    document = orjson.loads(request_to(make_request()))
    for name in ("handicap", "batch_timeout", "failure_policy"):
        del document["options"][name]
    del document["options"]["retry"]["non_retryable_reasons"]
    return orjson.dumps(document).decode()


def config_of(connection: sa.Connection) -> Config:
    """Returns what the migrations of a database go by."""
    config = Config()
    config.set_main_option("script_location", str(schema._MIGRATIONS))
    config.attributes["connection"] = connection
    config.attributes["version_table"] = schema.VERSION_TABLE
    return config


def fill(connection: sa.Connection) -> None:
    """Makes the first schema, with a batch that waits and one that is being cancelled."""
    # The databases of the tests have a schema already.
    tables.metadata.drop_all(connection)
    connection.execute(sa.text(f"DROP TABLE IF EXISTS {schema.VERSION_TABLE}"))
    command.upgrade(config_of(connection), "0001")
    for key, batch_id, state in ((1, "waiting", "PENDING"), (2, "leaving", "CANCELLING")):
        values = {"key": key, "id": batch_id, "state": state, "now": MOMENT}
        connection.execute(
            sa.text(
                "INSERT INTO batches (batch_key, tenant_id, batch_id, state, total, pending,"
                " open_chunks, event_sequence, source, operation, template_id, job_id,"
                " feature_type, request_json, create_time, update_time) VALUES (:key, 'default',"
                " :id, :state, 2, 2, 1, 1, 'test', '', 'welcome', '', '', :request, :now, :now)"
            ),
            {**values, "request": old_request()},
        )
        for index in (0, 1):
            connection.execute(
                sa.text(
                    "INSERT INTO items (batch_key, item_index, item_id, data_json)"
                    " VALUES (:key, :index, :item, '{}')"
                ),
                {"key": key, "index": index, "item": f"item-{index}"},
            )
        connection.execute(
            sa.text(
                "INSERT INTO chunks (batch_key, first_index, item_count, state, due_time,"
                " dispatch_time) VALUES (:key, 0, 2, 'OPEN', :now, :now)"
            ),
            values,
        )
        connection.execute(
            sa.text(
                "INSERT INTO events (batch_key, sequence, kind, event_type, event_time,"
                " payload_json) VALUES (:key, 1, 'STATE_CHANGED', 'batch:created', :now, :text)"
            ),
            {
                **values,
                "text": '{"state":"PENDING","counts":[2,2,0,0,0,0,0,0,0],"finished":[]}',
            },
        )


async def test_open_work_of_the_first_release_goes_on(database_url):
    url = sa.make_url(database_url)
    engine = create_async_engine(url.set(drivername=ASYNC_DRIVERS[url.get_backend_name()]))
    async with engine.begin() as connection:
        await connection.run_sync(fill)
    await engine.dispose()

    database = await open_database(database_url)
    store = SqlStore(database)
    [chunk] = await claim(store)
    await store.chunks.record([record_of(chunk, [succeeded(0), succeeded(1)])], now=START)
    while await store.changes.close_some(now=START):
        pass

    found = [
        await store.batches.get(batch_id, tenant_id=TENANT) for batch_id in ("waiting", "leaving")
    ]
    waiting, leaving = [await current(store, batch) for batch in found if batch is not None]
    assert (waiting.state, waiting.counts) == (
        BatchState.SUCCEEDED,
        Counts(total=2, succeeded=2),
    )
    assert (leaving.state, leaving.counts) == (
        BatchState.CANCELLED,
        Counts(total=2, cancelled=2),
    )
    await database.close()


async def test_preferences_that_are_stored_already_are_grouped(database_url):
    url = sa.make_url(database_url)
    engine = create_async_engine(url.set(drivername=ASYNC_DRIVERS[url.get_backend_name()]))
    daily = '{"frequency": "daily", "at": "09:00"}'
    rows = [("ada", True, daily), ("bob", True, daily), ("cyd", True, None), ("dan", False, daily)]
    async with engine.begin() as connection:
        await connection.run_sync(fill)
        for user_id, enabled, schedule in rows:
            await connection.execute(
                sa.text(
                    "INSERT INTO preferences (tenant_id, feature_type, user_id, enabled,"
                    " schedule_json, overrides_json, revision, create_time, update_time)"
                    " VALUES ('default', 'posts', :user, :enabled, :schedule, '{}', 1, :now, :now)"
                ),
                {"user": user_id, "enabled": enabled, "schedule": schedule, "now": MOMENT},
            )
    await engine.dispose()

    database = await open_database(database_url)
    store = SqlStore(database)
    groups, _ = await store.preference_groups.list(
        tenant_id=TENANT, feature_type="posts", with_empty=True, page_size=10, after=None
    )
    counts = {schedule_text(group.schedule): group.member_count for group in groups}
    [morning] = [group for group in groups if group.schedule is not None]
    members, _ = await store.preferences.list_members(
        morning.group_key, tenant_id=TENANT, page_size=10, after=None
    )
    joining = make_preference("eve", schedule=morning.schedule)
    async with store.transaction() as tx:
        await store.preferences.lock(tx, [("posts", "eve")], tenant_id=TENANT)
        [change] = await store.preferences.put(tx, [joining], tenant_id=TENANT, now=START)

    assert counts == {"": 1, '{"at":"09:00","frequency":"daily"}': 2}
    assert [(member.user_id, member.active) for member in members] == [("ada", True), ("bob", True)]
    assert change.group_joined == morning.group_key
    await database.close()


async def test_grouping_leaves_the_rest_of_a_preference_and_its_indexes_alone(database_url):
    url = sa.make_url(database_url)
    engine = create_async_engine(url.set(drivername=ASYNC_DRIVERS[url.get_backend_name()]))
    daily = '{"frequency": "daily", "at": "09:00"}'
    before = [
        ("acme", "posts", "ada", True, daily, '{"tone": "dry"}', 7, MOMENT, MOMENT + 1),
        ("acme", "posts", "bob", False, None, "{}", 2, MOMENT, MOMENT),
        ("default", "posts", "ada", True, daily, "{}", 1, MOMENT, MOMENT),
        ("default", "trends", "ada", True, daily, "{}", 1, MOMENT, MOMENT),
    ]
    names = (
        "tenant_id, feature_type, user_id, enabled, schedule_json, overrides_json, revision,"
        " create_time, update_time"
    )
    async with engine.begin() as connection:
        await connection.run_sync(fill)
        for row in before:
            values = {f"value_{n}": value for n, value in enumerate(row)}
            places = ", ".join(f":{name}" for name in values)
            await connection.execute(
                sa.text(f"INSERT INTO preferences ({names}) VALUES ({places})"), values
            )

    database = await open_database(database_url)
    await database.close()
    async with engine.begin() as connection:
        rows = await connection.execute(
            sa.text(f"SELECT {names} FROM preferences ORDER BY tenant_id, feature_type, user_id")
        )
        groups = await connection.execute(
            sa.text(
                "SELECT tenant_id, feature_type, user_id, member_count FROM preferences"
                " JOIN preference_groups USING (tenant_id, feature_type, group_key)"
                " ORDER BY tenant_id, feature_type"
            )
        )
        key, indexes = await connection.run_sync(indexes_of_preferences)
    await engine.dispose()

    assert [(*row[:3], bool(row.enabled), *row[4:]) for row in rows] == before
    assert groups.all() == [
        ("acme", "posts", "ada", 1),
        ("default", "posts", "ada", 1),
        ("default", "trends", "ada", 1),
    ]
    assert key == ["tenant_id", "feature_type", "user_id"]
    assert indexes == {
        ("ix_preferences_tenant_id_user_id_feature_type", "tenant_id", "user_id", "feature_type"),
        ("ix_preferences_group_key_user_id", "group_key", "user_id"),
    }


def indexes_of_preferences(
    connection: sa.Connection,
) -> tuple[list[str], set[tuple[str | None, ...]]]:
    inspector = sa.inspect(connection)
    return (
        inspector.get_pk_constraint("preferences")["constrained_columns"],
        {(index["name"], *index["column_names"]) for index in inspector.get_indexes("preferences")},
    )


async def test_references_that_are_stored_already_are_listed(database_url):
    url = sa.make_url(database_url)
    engine = create_async_engine(url.set(drivername=ASYNC_DRIVERS[url.get_backend_name()]))
    async with engine.begin() as connection:
        await connection.run_sync(fill)
        await connection.run_sync(lambda opened: command.upgrade(config_of(opened), "0008"))
        await connection.execute(
            sa.text(
                "INSERT INTO batch_references (batch_key, user_id, tenant_id)"
                " VALUES (1, 'ada', 'default')"
            )
        )
    await engine.dispose()

    database = await open_database(database_url)
    found, _ = await SqlStore(database).references.list(
        ReferenceFilter(tenant_id=TENANT), page_size=10, after=None
    )
    await database.close()

    assert [(each.batch.batch_id, each.recipient.user_id) for each in found] == [("waiting", "ada")]


async def test_who_was_inactive_in_one_preference_is_inactive_from_then_on(database_url):
    url = sa.make_url(database_url)
    engine = create_async_engine(url.set(drivername=ASYNC_DRIVERS[url.get_backend_name()]))
    rows = [("ada", "posts", False), ("ada", "tips", True), ("bob", "posts", True)]
    async with engine.begin() as connection:
        await connection.run_sync(fill)
        await connection.run_sync(lambda sync: command.upgrade(config_of(sync), "0014"))
        for user_id, feature_type, active in rows:
            await connection.execute(
                sa.text(
                    "INSERT INTO preferences (tenant_id, feature_type, user_id, enabled, active,"
                    " overrides_json, revision, create_time, update_time)"
                    " VALUES ('default', :feature, :user, :enabled, :active, '{}', 1, :now, :now)"
                ),
                {
                    "feature": feature_type,
                    "user": user_id,
                    "enabled": True,
                    "active": active,
                    "now": MOMENT,
                },
            )
    await engine.dispose()

    database = await open_database(database_url)
    found = await SqlStore(database).preferences.of_users(["ada", "bob"], tenant_id=TENANT)

    assert {key: each.active for key, each in found.items()} == {
        ("posts", "ada"): False,
        ("tips", "ada"): False,
        ("posts", "bob"): True,
    }
    await database.close()


async def test_things_that_are_stored_already_are_found_for_their_users(database_url):
    url = sa.make_url(database_url)
    engine = create_async_engine(url.set(drivername=ASYNC_DRIVERS[url.get_backend_name()]))
    rows = [("post-1", "ada"), ("post-2", "bob"), ("ada", None), ("bob", "")]
    async with engine.begin() as connection:
        await connection.run_sync(fill)
        await connection.run_sync(lambda sync: command.upgrade(config_of(sync), "0016"))
        for item_id, user_id in rows:
            await connection.execute(
                sa.text(
                    "INSERT INTO category_items (tenant_id, category, item_id, user_id, data_json,"
                    " create_time) VALUES ('default', 'posts', :item, :user, '{}', :now)"
                ),
                {"item": item_id, "user": user_id, "now": MOMENT},
            )
    await engine.dispose()

    database = await open_database(database_url)
    found = await SqlCategories(database).select_of_users(
        Selection(category="posts"), ["ada", "bob"], tenant_id=TENANT
    )
    await database.close()

    assert {user: [each.item_id for each in things] for user, things in found.items()} == {
        "ada": ["post-1", "ada"],
        "bob": ["post-2", "bob"],
    }
