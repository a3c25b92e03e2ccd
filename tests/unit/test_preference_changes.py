"""A watch of changes says that it is alive, and looks for what was changed elsewhere."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from datetime import datetime, timedelta
from typing import Any

import pytest
from batchwork_server.application import preference_changes
from batchwork_server.application.preference_changes import PreferenceChanges
from batchwork_server.application.watchers import Watchers
from batchwork_server.domain.preference import Preference
from batchwork_server.errors import QuotaExceeded
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


async def put(store: SqlStore, *preferences: Preference) -> None:
    stored = preferences or (make_preference(),)
    async with store.transaction() as tx:
        await store.preferences.lock(tx, [], tenant_id=TENANT)
        await store.preferences.put(tx, stored, tenant_id=TENANT, now=START)


async def test_after_fifteen_seconds_of_silence_comes_a_heartbeat(
    store: SqlStore, clock: FakeClock
) -> None:
    changes = PreferenceChanges(store=store, clock=clock, watchers=Watchers(1))
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
    changes = PreferenceChanges(store=store, clock=clock, watchers=Watchers(1))
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


class _Counting:
    """Counts the looks at the changes of a store."""

    def __init__(self, store: SqlStore) -> None:
        self._changes = store.preference_changes
        self.looks = 0

    async def newest(self, *, tenant_id: str) -> int:
        self.looks += 1
        return await self._changes.newest(tenant_id=tenant_id)

    async def after(self, sequence: int, *, tenant_id: str, limit: int) -> Any:
        self.looks += 1
        return await self._changes.after(sequence, tenant_id=tenant_id, limit=limit)

    async def forget(self, *, before: datetime, limit: int) -> int:
        return await self._changes.forget(before=before, limit=limit)


async def test_watchers_of_a_tenant_share_a_look_a_second(
    store: SqlStore, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each of them looked by itself: a thousand watchers cost a thousand queries a second."""
    counting = _Counting(store)
    monkeypatch.setattr(store, "preference_changes", counting)
    changes = PreferenceChanges(store=store, clock=clock, watchers=Watchers(100))
    watches = [changes.watch_preference_changes(tenant_id=TENANT, after=0) for _ in range(50)]
    for watch in watches:
        await anext(watch)
    told = [asyncio.ensure_future(anext(watch)) for watch in watches]
    await clock.waited_on()
    for _ in range(10):
        await asyncio.sleep(0)
    counting.looks = 0

    for _ in range(10):
        clock.advance(timedelta(seconds=1))
        await clock.waited_on()
    quiet = counting.looks
    await put(store)
    clock.advance(timedelta(seconds=1))
    messages = await asyncio.gather(*told)
    for watch in watches:
        await watch.aclose()

    assert quiet <= 11
    assert counting.looks <= quiet + 2
    assert [each.after for each in messages] == [1] * 50


async def test_a_watcher_that_is_far_behind_leaves_nothing_out(
    store: SqlStore, clock: FakeClock
) -> None:
    changes = PreferenceChanges(store=store, clock=clock, watchers=Watchers(2))
    slow = changes.watch_preference_changes(tenant_id=TENANT, after=0)
    quick = changes.watch_preference_changes(tenant_id=TENANT, after=0)

    async with aclosing(slow), aclosing(quick):
        await anext(slow)
        await anext(quick)
        for number in range(3):
            await put(store, *(make_preference(f"user_{number}_{n}") for n in range(1000)))
        changes.announce(TENANT)
        by_quick = [(await anext(quick)).after for _ in range(3000)]
        by_slow = [(await anext(slow)).after for _ in range(3000)]

    assert by_quick == by_slow == list(range(1, 3001))


async def test_watches_of_changes_leave_room_for_others(
    store: SqlStore, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(preference_changes, "MOST_WATCHERS", 1)
    watchers = Watchers(2)
    changes = PreferenceChanges(store=store, clock=clock, watchers=watchers)
    first = changes.watch_preference_changes(tenant_id=TENANT, after=None)
    second = changes.watch_preference_changes(tenant_id="another", after=None)

    async with aclosing(first):
        await anext(first)
        with pytest.raises(QuotaExceeded, match="1 watchers of changes"):
            await anext(second)
        left = watchers.count

    assert (left, watchers.count) == (1, 0)
