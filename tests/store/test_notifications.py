"""The outbox in the store, on each database."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

from batchwork_server.application.batches import chunks_of
from batchwork_server.domain.batch import Batch, BatchState
from batchwork_server.domain.filters import NotificationFilter, RetryFilter
from batchwork_server.domain.notification import (
    Notification,
    NotificationKind,
    NotificationState,
    NotificationTarget,
)
from batchwork_server.store.sql_store import SqlStore

from tests.factories import TENANT, make_items, make_options, make_request
from tests.fakes import START
from tests.store.test_chunks import claim, failed, record_of, succeeded

LEASE = timedelta(minutes=3)
SECOND = timedelta(seconds=1)
OPS = NotificationTarget(name="ops")
LEDGER = NotificationTarget(name="ledger", deliveries=True)


async def create(
    store: SqlStore, batch_id: str, *targets: NotificationTarget, tenant_id: str = TENANT
) -> Batch:
    """Stores a batch of one item of which somebody is to be told."""
    names = tuple(target.name for target in targets)
    request = make_request(options=make_options(notification_targets=names))
    items = make_items(1)
    async with store.transaction() as tx:
        batch = await store.batches.insert(
            tx,
            tenant_id=tenant_id,
            batch_id=batch_id,
            request=request,
            items=items,
            chunks=chunks_of(items, request.options, now=START),
            now=START,
        )
        await store.notifications.add(tx, batch, targets, now=START)
    return batch


async def finish(store: SqlStore, *, well: bool = True, attempts: int = 1) -> None:
    """Does everything that waits."""
    for chunk in await claim(store):
        outcome = (succeeded if well else failed)(0, attempts=attempts, is_new=attempts == 1)
        await store.chunks.record([record_of(chunk, [outcome])], now=START)


async def ended(store: SqlStore, batch_id: str, *targets: NotificationTarget, **fields) -> Batch:
    """Stores a batch that is over, and has its notifications ready to be sent."""
    batch = await create(store, batch_id, *targets, **fields)
    await finish(store)
    await store.notifications.arm(batch.key, now=START)
    return batch


async def take(store: SqlStore, target: str = "ops", **changes: Any) -> list[Notification]:
    wanted: dict[str, Any] = {"now": START, "lease": LEASE, "limit": 10}
    return await store.notifications.take(target, **wanted | changes)


async def listed(store: SqlStore, **wanted: Any) -> list[Notification]:
    matching = NotificationFilter(**{"tenant_id": TENANT} | wanted)
    found, _ = await store.notifications.list(matching, page_size=100, after=None)
    return list(found)


def states(found: list[Notification]) -> list[NotificationState]:
    return [each.state for each in found]


async def test_a_notification_waits_for_the_end_of_its_batch(store):
    batch = await create(store, "first", OPS, LEDGER)

    await store.notifications.arm(batch.key, now=START)
    before = await listed(store)
    taken_before = await take(store)
    await finish(store)
    await store.notifications.arm(batch.key, now=START)

    assert states(before) == [NotificationState.WAITING] * 3
    assert {(each.target, each.kind) for each in before} == {
        ("ops", NotificationKind.END),
        ("ledger", NotificationKind.END),
        ("ledger", NotificationKind.DELIVERIES),
    }
    assert taken_before == []
    assert await store.notifications.due_targets(now=START) == ["ledger", "ops"]
    [taken] = await take(store)
    assert (taken.batch_id, taken.attempts, taken.payload["state"]) == ("first", 1, "SUCCEEDED")


async def test_batches_that_are_over_are_found_by_looking(store):
    for number in range(5):
        await create(store, f"over-{number}", OPS)
    await finish(store)
    await create(store, "open", OPS)

    counts = [await store.notifications.arm_some(now=START, limit=3) for _ in range(3)]

    assert counts == [3, 2, 0]
    assert len(await take(store)) == 5


async def test_what_is_taken_is_nobody_else_s_until_its_lease_is_over(store):
    await ended(store, "first", OPS)

    [mine] = await take(store)
    theirs = await take(store)
    [later] = await take(store, now=START + LEASE)

    assert theirs == []
    assert later.message_id == mine.message_id
    assert (mine.attempts, later.attempts) == (1, 2)


async def test_who_lost_its_lease_writes_nothing_down(store):
    await ended(store, "first", OPS)
    [lost] = await take(store)
    [held] = await take(store, now=START + LEASE)

    late = await store.notifications.record(lost, state=NotificationState.FAILED, now=START)
    kept = await store.notifications.record(held, state=NotificationState.SENT, now=START)

    assert (late, kept) == (False, True)
    assert states(await listed(store)) == [NotificationState.SENT]


async def test_many_servers_take_each_notification_once(store):
    for number in range(30):
        await create(store, f"batch-{number}", OPS)
    await finish(store)
    await store.notifications.arm_some(now=START, limit=100)

    taken = await asyncio.gather(*(take(store, limit=4) for _ in range(8)))

    ids = [each.key for some in taken for each in some]
    assert len(ids) == len(set(ids))
    rest = await take(store, limit=100)
    assert len(ids) + len(rest) == 30


async def test_an_attempt_that_failed_comes_back_at_its_time(store):
    await ended(store, "first", OPS)
    [taken] = await take(store)
    again = START + timedelta(minutes=10)

    await store.notifications.record(
        taken,
        state=NotificationState.PENDING,
        now=START,
        error="The target answered with 503.",
        next_attempt_time=again,
    )

    assert await take(store, now=again - SECOND) == []
    [shown] = await listed(store)
    assert (shown.error, shown.next_attempt_time) == ("The target answered with 503.", again)
    [second] = await take(store, now=again)
    assert second.attempts == 2


async def test_the_next_page_of_deliveries_begins_anew(store):
    await ended(store, "first", LEDGER)
    [page] = [
        each for each in await take(store, "ledger") if each.kind is NotificationKind.DELIVERIES
    ]

    await store.notifications.record_page(page, sent_after="user-1000", now=START + SECOND)

    [following] = await take(store, "ledger", now=START + SECOND)
    assert (following.page, following.sent_after, following.attempts) == (1, "user-1000", 1)
    assert not await store.notifications.record_page(page, sent_after="x", now=START)


async def test_a_batch_that_is_tried_again_is_told_of_again(store):
    batch = await create(store, "first", OPS)
    await finish(store, well=False)
    async with store.transaction() as tx:
        over = await store.changes.lock(tx, "first", tenant_id=TENANT)
        assert over is not None
        reopened, _ = await store.changes.reopen(tx, over, RetryFilter(), now=START)
        assert reopened is not None
        await store.notifications.reopen(tx, over, reopened, now=START)
    await finish(store, attempts=2)
    await store.notifications.arm(batch.key, now=START)

    first, second = await take(store)

    assert (first.attempt_number, first.payload["state"]) == (1, "FAILED")
    assert (second.attempt_number, second.payload["state"]) == (2, "SUCCEEDED")
    assert first.message_id != second.message_id


async def test_what_belongs_to_a_deleted_batch_is_not_sent_and_goes_with_it(store, database):
    batch = await ended(store, "first", OPS)
    async with store.transaction() as tx:
        await store.retention.delete(tx, batch.key)

    assert await take(store) == []
    assert await listed(store) == []
    while (await store.retention.remove_some(limit=100)).row_count:
        pass
    async with database.reading() as connection:
        rows = await connection.exec_driver_sql("SELECT COUNT(*) FROM notifications")
    assert rows.scalar() == 0


async def test_a_list_goes_from_the_newest_to_the_oldest_page_by_page(store):
    for number in range(3):
        await ended(store, f"batch-{number}", OPS)
    await ended(store, "theirs", OPS, tenant_id="other")
    mine = NotificationFilter(tenant_id=TENANT)

    first, after = await store.notifications.list(mine, page_size=2, after=None)
    second, end = await store.notifications.list(mine, page_size=2, after=after)
    of_one = await listed(store, batch_id="batch-1")
    of_all = await listed(store, tenant_id=None)
    sent = await listed(store, states=frozenset({NotificationState.SENT}))

    assert [each.batch_id for each in (*first, *second)] == ["batch-2", "batch-1", "batch-0"]
    assert (end, sent) == (None, [])
    assert [each.batch_id for each in of_one] == ["batch-1"]
    assert len(of_all) == 4


async def test_a_batch_without_targets_writes_nothing(store):
    batch = await create(store, "first")
    await finish(store)
    await store.notifications.arm(batch.key, now=START)

    assert await listed(store) == []
    assert batch.state is BatchState.PENDING
