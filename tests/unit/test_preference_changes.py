"""A watch of changes says that it is alive, and looks for what was changed elsewhere."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from datetime import timedelta

import pytest
from batchwork_server.application.preference_changes import PreferenceChanges
from batchwork_server.store.database import open_database
from batchwork_server.store.sql_store import SqlStore

from tests.factories import TENANT
from tests.fakes import START, FakeClock
from tests.store.test_preferences import make_preference


@pytest.fixture
async def store(sqlite_url: str) -> AsyncIterator[SqlStore]:
    database = await open_database(sqlite_url)
    yield SqlStore(database)
    await database.close()


async def put(store: SqlStore) -> None:
    async with store.transaction() as tx:
        await store.preferences.lock(tx, [], tenant_id=TENANT)
        await store.preferences.put(tx, [make_preference()], tenant_id=TENANT, now=START)


async def test_after_fifteen_seconds_of_silence_comes_a_heartbeat(
    store: SqlStore, clock: FakeClock
) -> None:
    changes = PreferenceChanges(store=store, clock=clock, max_watchers=1)
    watch = changes.watch_preference_changes(tenant_id=TENANT, after=None)

    async with aclosing(watch):
        first = await anext(watch)
        second = asyncio.ensure_future(anext(watch))
        for _ in range(15):
            await clock.waited_on()
            assert not second.done()
            clock.advance(timedelta(seconds=1))
        told = await second

    assert (first.kind, told.kind, told.after) == ("HEARTBEAT", "HEARTBEAT", 0)


async def test_a_change_that_nobody_announced_is_found_within_a_second(
    store: SqlStore, clock: FakeClock
) -> None:
    changes = PreferenceChanges(store=store, clock=clock, max_watchers=1)
    watch = changes.watch_preference_changes(tenant_id=TENANT, after=0)

    async with aclosing(watch):
        await anext(watch)
        told = asyncio.ensure_future(anext(watch))
        await clock.waited_on()
        await put(store)
        clock.advance(timedelta(seconds=1))
        message = await told

    assert message.change is not None
    assert (message.kind, message.change.user_id) == ("CHANGE", "user_1")
