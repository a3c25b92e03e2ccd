"""What is kept long enough goes: old batches, the rows of deleted ones, old events."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing, asynccontextmanager
from datetime import datetime, timedelta
from typing import Any

import pytest
import sqlalchemy as sa
from batchwork_server import failpoints
from batchwork_server.application.retention import Deletion
from batchwork_server.application.told import ResumePoint
from batchwork_server.application.watchers import Watchers
from batchwork_server.application.watching import Watching
from batchwork_server.domain.batch import Batch
from batchwork_server.domain.caller import Caller
from batchwork_server.domain.filters import OccurrenceFilter
from batchwork_server.domain.firing import Decided, Decision, NextRun
from batchwork_server.domain.group_schedules import MOVES_COUNT_FOR
from batchwork_server.domain.submission import Idempotency
from batchwork_server.engine import retention as module
from batchwork_server.engine.retention import Retention
from batchwork_server.errors import ResumeTokenExpired, StorageFull, StoreUnavailable
from batchwork_server.logs import get_logger
from batchwork_server.store import tables
from batchwork_server.store.database import Database
from batchwork_server.store.sql_store import SqlStore
from batchwork_server.store.store import DueJob, RemovedRows, Transaction
from batchwork_server.wakeups import Wakeups

from tests.factories import TENANT, make_item, make_request
from tests.fakes import START, FakeClock
from tests.store.test_jobs import make_stored, put
from tests.store.test_preferences import make_preference

DAY = timedelta(days=1)
CALLER = Caller(tenant_id=TENANT, name="test")


@pytest.fixture
def store(database: Database) -> SqlStore:
    """Runs the test once on each database."""
    return SqlStore(database)


@pytest.fixture(autouse=True)
def harmless_again() -> Iterator[None]:
    yield
    failpoints.disarm()


async def over(store: SqlStore, batch_id: str, *, items: int = 1, now: datetime = START) -> Batch:
    """Makes a batch that is over when it is created."""
    async with store.transaction() as tx:
        return await store.batches.insert(
            tx,
            tenant_id=TENANT,
            batch_id=batch_id,
            request=make_request(labels={"team": "blue"}),
            items=[make_item(f"item-{n}", skip_reason="USER_NOT_FOUND") for n in range(items)],
            chunks=[],
            now=now,
        )


async def deleted(store: SqlStore, batch_id: str, *, items: int = 1) -> Batch:
    batch = await over(store, batch_id, items=items)
    async with store.transaction() as tx:
        assert await store.retention.delete(tx, batch.key)
    return batch


async def rows_in(database: Database, *, of: Batch | None = None) -> int:
    """Counts the rows of all batches, or of one."""
    names = ("outcomes", "items", "events", "batch_labels", "batches")
    count = 0
    async with database.reading() as connection:
        for name in names:
            table = tables.metadata.tables[name]
            query = sa.select(sa.func.count()).select_from(table)
            if of is not None:
                query = query.where(table.c.batch_key == of.key)
            count += await connection.scalar(query) or 0
    return count


async def sequences(store: SqlStore, batch: Batch) -> list[int]:
    return [event.sequence for event in await store.batches.events(batch.key, after=0, limit=10)]


# Batches


async def test_batches_that_were_over_long_ago_go_with_all_their_rows(store, database, clock):
    old = await over(store, "bat-old", items=3)
    clock.advance(30 * DAY)
    young = await over(store, "bat-young", now=clock.now() - 29 * DAY)
    retention = Retention(store=store, clock=clock, batches_are_kept=30 * DAY)

    await retention.run_once()

    assert await rows_in(database, of=old) == 0
    assert await rows_in(database) == await rows_in(database, of=young) > 0


async def test_without_a_limit_batches_are_kept(store, clock):
    await over(store, "bat-1")
    clock.advance(10_000 * DAY)

    await Retention(store=store, clock=clock).run_once()

    assert await store.batches.get("bat-1", tenant_id=TENANT) is not None


async def test_a_run_that_did_something_says_so_and_others_do_not(
    store, database, clock, logged, monkeypatch
):
    # A logger keeps the stream that it wrote to first, which was another test's.
    monkeypatch.setattr(module, "log", get_logger(module.__name__))
    await over(store, "bat-1", items=2)
    rows = await rows_in(database)
    clock.advance(30 * DAY)
    retention = Retention(store=store, clock=clock, batches_are_kept=30 * DAY)

    await retention.run_once()
    await retention.run_once()

    [line] = [line for line in logged() if line["event"] == "retention.deleted"]
    assert (line["batches"], line["rows"]) == (1, rows)


# Rows


async def test_a_run_does_so_much_and_asks_for_another(store, database, clock, monkeypatch):
    monkeypatch.setattr(module, "_FIRST_ROWS", 5)
    monkeypatch.setattr(module, "MOST_ROWS", 5)
    monkeypatch.setattr(module, "_SLICES_A_RUN", 3)
    await deleted(store, "bat-1", items=20)
    rows = await rows_in(database)
    retention = Retention(store=store, clock=clock)

    await retention.run_once()

    assert retention.wake.is_set()
    assert await rows_in(database) == rows - 15
    while retention.wake.is_set():
        retention.wake.clear()
        await retention.run_once()
    assert await rows_in(database) == 0


async def test_after_a_crash_between_two_slices_the_next_one_goes_on(
    store, database, clock, monkeypatch
):
    monkeypatch.setattr(module, "_FIRST_ROWS", 5)
    monkeypatch.setattr(module, "MOST_ROWS", 5)
    batch = await deleted(store, "bat-1", items=20)
    failpoints.arm("retention.committed", "raise", after=1)

    with pytest.raises(failpoints.Failpoint):
        await Retention(store=store, clock=clock).run_once()
    failpoints.disarm()

    assert await rows_in(database, of=batch) > 0
    assert await store.batches.get("bat-1", tenant_id=TENANT) is None
    await Retention(store=store, clock=clock).run_once()
    assert await rows_in(database) == 0


async def test_others_write_between_two_slices(store, clock, monkeypatch):
    monkeypatch.setattr(module, "_FIRST_ROWS", 5)
    monkeypatch.setattr(module, "MOST_ROWS", 5)
    await deleted(store, "bat-1", items=200)
    running = asyncio.create_task(Retention(store=store, clock=clock).run_once())

    for number in range(3):
        await over(store, f"bat-new-{number}")

    assert not running.done()
    await running


async def test_two_at_once_do_no_harm(store, database, clock):
    for number in range(5):
        await over(store, f"bat-{number}", items=20)
    clock.advance(30 * DAY)
    loops = [
        Retention(store=store, clock=clock, batches_are_kept=DAY, events_are_kept=DAY)
        for _ in range(3)
    ]

    await asyncio.gather(*(loop.run_once() for loop in loops))
    await loops[0].run_once()

    assert await rows_in(database) == 0


class _Removing:
    """A store with rows to be removed, and its own idea of what that takes.

    Attributes:
        limits: How many rows each call asked for.
        is_full: Whether there is no space to delete in.
        duration: Of each call.
    """

    def __init__(self, clock: FakeClock, *, calls: int) -> None:
        self.limits: list[int] = []
        self.is_full = False
        self.duration = timedelta(0)
        self.dropped = 0
        self.retention = self.requests = self.preference_groups = self
        self._clock = clock
        self._calls = calls

    async def forget(self, *, before: datetime, limit: int) -> int:
        return 0

    async def forget_empty(self, *, before: datetime, limit: int) -> int:
        return 0

    async def remove_some(self, *, limit: int) -> RemovedRows:
        if self.is_full:
            raise StorageFull("The database has no space to write.")
        self.limits.append(limit)
        self._clock.advance(self.duration)
        is_left = len(self.limits) <= self._calls
        return RemovedRows(row_count=limit if is_left else 0, batch_count=0)

    @asynccontextmanager
    async def ballast_dropped(self) -> AsyncIterator[None]:
        self.dropped += 1
        self.is_full = False
        yield


async def test_on_a_full_disk_the_reserve_is_dropped_and_slices_are_small(clock):
    store: Any = _Removing(clock, calls=4)
    store.is_full = True

    await Retention(store=store, clock=clock).run_once()

    assert store.dropped == 1
    assert len(store.limits) == 5
    assert max(store.limits) <= module.ROWS_ON_A_FULL_DISK


async def test_while_there_is_space_the_reserve_stays(clock):
    store: Any = _Removing(clock, calls=1)

    await Retention(store=store, clock=clock).run_once()

    assert store.dropped == 0


async def test_slices_that_take_long_become_smaller_and_quick_ones_larger(clock):
    slow: Any = _Removing(clock, calls=8)
    slow.duration = timedelta(milliseconds=500)
    quick: Any = _Removing(clock, calls=8)

    await Retention(store=slow, clock=clock).run_once()
    await Retention(store=quick, clock=clock).run_once()

    assert slow.limits[-1] < slow.limits[0] == quick.limits[0] < quick.limits[-1]
    assert quick.limits[-1] == module.MOST_ROWS


# Events


async def test_events_of_batches_that_were_over_long_ago_go_but_the_newest(store, clock):
    old = await over(store, "bat-old")
    young = await over(store, "bat-young", now=START + DAY)
    clock.advance(7 * DAY)
    retention = Retention(store=store, clock=clock, events_are_kept=7 * DAY)

    await retention.run_once()

    assert await sequences(store, old) == [2]
    assert await sequences(store, young) == [1, 2]


async def test_each_run_forgets_what_has_become_old_since_the_last(store, clock):
    batches = [await over(store, f"bat-{n}", now=START + n * DAY) for n in range(3)]
    retention = Retention(store=store, clock=clock, events_are_kept=7 * DAY)
    clock.advance(7 * DAY)

    kept = []
    for _ in batches:
        await retention.run_once()
        kept.append([len(await sequences(store, batch)) for batch in batches])
        clock.advance(DAY)

    assert kept == [[1, 2, 2], [1, 1, 2], [1, 1, 1]]


async def test_without_a_limit_events_are_kept(store, clock):
    batch = await over(store, "bat-1")
    clock.advance(10_000 * DAY)

    await Retention(store=store, clock=clock).run_once()

    assert await sequences(store, batch) == [1, 2]


async def test_a_watch_over_forgotten_events_says_so_or_starts_with_a_snapshot(store, clock):
    batch = await over(store, "bat-1")
    async with store.transaction() as tx:
        # A third event, so that one is missing between the token and what is left.
        await tx.connection.execute(sa.update(tables.batches).values(event_sequence=3))
        await tx.connection.execute(
            sa.update(tables.events).where(tables.events.c.sequence == 2).values(sequence=3)
        )
    clock.advance(7 * DAY)
    await Retention(store=store, clock=clock, events_are_kept=DAY).run_once()
    watching = Watching(store=store, clock=clock, wakeups=Wakeups(), watchers=Watchers(10))

    async def told(resume: ResumePoint | None) -> list[str]:
        messages = watching.watch(
            batch, resume=resume, include_items=False, only_failed=False, min_interval=DAY
        )
        async with aclosing(messages):
            return [message.kind async for message in messages]

    assert await told(None) == ["SNAPSHOT", "END"]
    assert await told(ResumePoint(sequence=2)) == ["END"]
    with pytest.raises(ResumeTokenExpired):
        await told(ResumePoint(sequence=1))


# Request ids


async def test_request_ids_are_forgotten_after_a_day(store, clock):
    key = {"tenant_id": TENANT, "method": "M", "request_id": "r", "request_hash": "h"}
    async with store.transaction() as tx:
        await store.requests.replay(tx, **key, now=START)
    retention = Retention(store=store, clock=clock)

    clock.advance(DAY)
    await retention.run_once()
    assert await store.requests.find(**key) is not None
    clock.advance(timedelta(hours=2))
    await retention.run_once()

    assert await store.requests.find(**key) is None


# A purge that somebody asks for


class _BreakingOff:
    """A store that goes away after so many transactions."""

    def __init__(self, store: SqlStore, *, after: int) -> None:
        self._store = store
        self._left = after

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Transaction]:
        if not self._left:
            raise StoreUnavailable("The database does not answer.")
        self._left -= 1
        async with self._store.transaction() as tx:
            yield tx


async def purge(store: Any, clock: FakeClock, *, woken: asyncio.Event | None = None):
    deletion = Deletion(store=store, clock=clock, rows_left=(woken or asyncio.Event()).set)
    return await deletion.purge_batches(
        older_than=timedelta(0),
        states=(),
        force=True,
        caller=CALLER,
        idempotency=Idempotency(request_id="request-1", request_hash="h"),
    )


async def test_a_purge_that_broke_off_goes_on_and_counts_everything(store, clock):
    for number in range(250):
        await over(store, f"bat-{number:03}", items=2)
    with pytest.raises(StoreUnavailable):
        await purge(_BreakingOff(store, after=2), clock)
    assert await store.batches.get("bat-199", tenant_id=TENANT) is None
    assert await store.batches.get("bat-200", tenant_id=TENANT) is not None
    clock.advance(DAY)
    await over(store, "bat-new", now=clock.now())

    purged = await purge(store, clock)

    assert (purged.batch_count, purged.item_count) == (250, 500)
    assert purged.batch_ids == tuple(f"bat-{number:03}" for number in range(10))
    assert await store.batches.get("bat-new", tenant_id=TENANT) is not None
    assert await purge(store, clock) == purged


async def test_the_same_purge_twice_at_once_counts_each_batch_once(store, clock):
    for number in range(250):
        await over(store, f"bat-{number:03}")

    answers = await asyncio.gather(*(purge(store, clock) for _ in range(3)))

    assert {answer.batch_count for answer in answers} == {250}


async def test_whoever_deletes_wakes_the_loop(store, clock):
    await over(store, "bat-1")
    woken = asyncio.Event()

    await purge(store, clock, woken=woken)

    assert woken.is_set()


async def test_a_batch_can_be_deleted_on_a_full_disk(store, clock):
    await over(store, "bat-1")
    full: Any = _Full(store)
    deletion = Deletion(store=full, clock=clock, rows_left=asyncio.Event().set)

    await deletion.delete_batch("bat-1", caller=CALLER, idempotency=Idempotency())

    assert await store.batches.get("bat-1", tenant_id=TENANT) is None


class _Full(_BreakingOff):
    """A store without space, but for what is in reserve."""

    def __init__(self, store: SqlStore) -> None:
        super().__init__(store, after=0)

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Transaction]:
        if not self._left:
            raise StorageFull("The database has no space to write.")
        async with super().transaction() as tx:
            yield tx

    @asynccontextmanager
    async def ballast_dropped(self) -> AsyncIterator[None]:
        self._left = 1
        yield


# Occurrences.


async def test_decisions_about_due_times_are_forgotten_with_the_batches_of_their_time(store, clock):
    await put(store, make_stored())
    job = await store.jobs.get("job_posts", tenant_id=TENANT)
    run = NextRun(due_time=clock.now(), start_time=clock.now())
    due = DueJob(job=job, next_run=run, is_running=False)
    decided = [Decided(run=run, decision=Decision.FIRED, batch_id="bat-1")]
    async with store.transaction() as tx:
        await store.occurrences.record(tx, due, decided, now=clock.now())
    retention = Retention(store=store, clock=clock, batches_are_kept=30 * DAY)
    wanted = OccurrenceFilter(tenant_id=TENANT, job_id="job_posts")

    clock.advance(30 * DAY)
    await retention.run_once()
    kept, _ = await store.occurrences.list(wanted, page_size=10, before=None)
    clock.advance(DAY)
    await retention.run_once()
    left, _ = await store.occurrences.list(wanted, page_size=10, before=None)

    assert (len(kept), len(left)) == (1, 0)


@pytest.mark.parametrize("days", [7, 90])
async def test_changes_of_preferences_are_kept_as_long_as_events_and_for_two_months(
    store, clock, days
):
    async with store.transaction() as tx:
        await store.preferences.lock(tx, [], tenant_id=TENANT)
        await store.preferences.put(tx, [make_preference()], tenant_id=TENANT, now=clock.now())
    retention = Retention(store=store, clock=clock, events_are_kept=days * DAY)

    clock.advance(max(days * DAY, MOVES_COUNT_FOR))
    await retention.run_once()
    kept = await store.preference_changes.after(0, tenant_id=TENANT, limit=10)
    clock.advance(DAY)
    await retention.run_once()
    left = await store.preference_changes.after(0, tenant_id=TENANT, limit=10)

    assert (len(kept), len(left)) == (1, 0)
