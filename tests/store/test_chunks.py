"""The ledger of dispatch, on each database: claims, fences, retries, the end of batches."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from batchwork_server.application.batches import chunks_of
from batchwork_server.domain.batch import Batch, BatchState, Counts, Priority
from batchwork_server.domain.failure import FailureAction, FailurePolicy
from batchwork_server.domain.filters import ItemFilter
from batchwork_server.domain.item import ItemError, ItemState, Outcome
from batchwork_server.store.sql_store import SqlStore
from batchwork_server.store.statements import for_driver
from batchwork_server.store.store import ChunkRecord, ClaimedChunk

from tests.factories import TENANT, make_item, make_items, make_options, make_outcome, make_request
from tests.fakes import START

SECOND = timedelta(seconds=1)
LEASE = timedelta(seconds=30)
LEASE_IS_OVER = timedelta(seconds=-1)
"""A lease that was over when it was given: no test waits, whichever clock measures leases."""


async def insert(store: SqlStore, count: int, *, chunk_size: int = 10, batch_id="bat-1", **options):
    items = make_items(count)
    request = make_request(options=make_options(chunk_size=chunk_size, **options))
    async with store.transaction() as tx:
        return await store.batches.insert(
            tx,
            tenant_id=TENANT,
            batch_id=batch_id,
            request=request,
            items=items,
            chunks=chunks_of(items, request.options, now=START),
            now=START,
        )


async def claim(
    store: SqlStore, *, now=START, owner="worker", limit=100, lease=LEASE
) -> list[ClaimedChunk]:
    keys = [key for key, *_ in await store.chunks.next_chunks(now=now, limit=limit)]
    if not keys:
        return []
    claimed = await store.chunks.claim(keys, owner=owner, now=now, lease=lease)
    return list(claimed.chunks)


def succeeded(index: int, **changes: Any) -> Outcome:
    return make_outcome(index, **changes)


def failed(index: int, **changes: Any) -> Outcome:
    error = ItemError(reason="BUSY", message="Come back later.", retryable=True)
    defaults: dict[str, Any] = {"state": ItemState.FAILED, "result_json": None, "error": error}
    return succeeded(index, **defaults | changes)


def record_of(chunk: ClaimedChunk, outcomes: list[Outcome], **changes: Any) -> ChunkRecord:
    defaults: dict[str, Any] = {"done": True}
    return ChunkRecord(
        chunk_key=chunk.chunk_key,
        epoch=chunk.epoch,
        batch_key=chunk.batch_key,
        taken=changes.pop("taken", len(chunk.items)),
        outcomes=outcomes,
        **defaults | changes,
    )


async def current(store: SqlStore, batch: Batch) -> Batch:
    found = await store.batches.get_by_key(batch.key)
    assert found is not None
    kept, counted = await store.chunks.check_counts(batch.key)
    assert kept == counted, "the counts are what the rows say"
    return found


async def test_the_chunks_of_some_batches_can_be_left_out(store):
    first = await insert(store, 25)
    second = await insert(store, 25, batch_id="bat-2")
    third = await insert(store, 25, batch_id="bat-3", priority=Priority.CRITICAL)

    found = await store.chunks.next_chunks(now=START, limit=4, without=[first.key])
    none = await store.chunks.next_chunks(
        now=START, limit=4, without=[first.key, second.key, third.key]
    )

    batches = [chunk.batch_key for chunk in found]
    assert batches == [third.key, third.key, third.key, second.key]
    assert [chunk.item_count for chunk in found] == [10, 10, 5, 10]
    assert none == []


async def test_a_chunk_is_claimed_once(store):
    await insert(store, 25)
    keys = [key for key, *_ in await store.chunks.next_chunks(now=START, limit=100)]

    mine = await store.chunks.claim(keys[:2], owner="a", now=START, lease=LEASE)
    theirs = await store.chunks.claim(keys, owner="b", now=START, lease=LEASE)

    assert [chunk.chunk_key for chunk in mine.chunks] == keys[:2]
    assert [chunk.chunk_key for chunk in theirs.chunks] == keys[2:]
    assert [len(chunk.items) for chunk in (*mine.chunks, *theirs.chunks)] == [10, 10, 5]
    assert [item.index for item in theirs.chunks[0].items] == [20, 21, 22, 23, 24]


@pytest.mark.arrow("batch F")
async def test_the_first_claim_starts_the_batch(store):
    batch = await insert(store, 10)

    await claim(store, now=START + SECOND)

    batch = await current(store, batch)
    assert batch.state is BatchState.RUNNING
    assert batch.start_time == START + SECOND
    assert batch.counts == Counts(total=10, running=10)


@pytest.mark.arrow("batch H")
async def test_the_last_chunk_ends_the_batch_in_the_same_transaction(store):
    batch = await insert(store, 20)
    first, second = await claim(store)

    await store.chunks.record([record_of(first, [succeeded(n) for n in range(10)])], now=START)
    halfway = await current(store, batch)
    recorded = await store.chunks.record(
        [record_of(second, [failed(n) for n in range(10, 20)])], now=START + SECOND
    )

    assert halfway.state is BatchState.RUNNING
    assert recorded.batches[batch.key].state is BatchState.PARTIALLY_SUCCEEDED
    batch = await current(store, batch)
    assert batch.counts == Counts(total=20, succeeded=10, failed=10)
    assert batch.end_time == START + SECOND


async def test_a_success_that_fills_the_smallest_sample_has_the_failures_counted(store):
    """The policy was looked at with failures only: nineteen of twenty failed, and it went on."""
    policy = FailurePolicy(max_failed_ratio=0.5, min_sample=20)
    batch = await insert(store, 40, failure_policy=policy)
    first, second, *_ = await claim(store)
    nearly = [failed(n) for n in range(19)]
    records = [
        record_of(first, nearly[:10]),
        record_of(second, nearly[10:], done=False),
    ]
    await store.chunks.record(records, now=START)
    sample_is_too_small = await current(store, batch)

    await store.chunks.record([record_of(second, [succeeded(19)], taken=1)], now=START)

    stopped = await current(store, batch)
    assert sample_is_too_small.state is BatchState.RUNNING
    assert (stopped.state, stopped.state_reason) == (BatchState.PAUSED, "FAILURE_POLICY")
    assert stopped.state_message == "19 of 20 items failed."


async def test_a_batch_that_went_on_says_at_its_end_that_too_many_failed(store):
    policy = FailurePolicy(max_failed=1, action=FailureAction.CONTINUE)
    batch = await insert(store, 20, failure_policy=policy)
    first, second = await claim(store)
    outcomes = [failed(n) for n in range(2)] + [succeeded(n) for n in range(2, 10)]
    await store.chunks.record([record_of(first, outcomes)], now=START)
    noted = await current(store, batch)

    await store.chunks.record([record_of(second, [failed(n) for n in range(10, 20)])], now=START)

    ended = await current(store, batch)
    assert (noted.state, noted.state_message) == (BatchState.RUNNING, "2 of 10 items failed.")
    assert ended.state is BatchState.PARTIALLY_SUCCEEDED
    assert (ended.state_reason, ended.state_message) == ("FAILURE_POLICY", "12 of 20 items failed.")


async def test_a_batch_that_is_to_fail_fails_also_when_its_last_items_were_too_many(store):
    """What a batch came to depended on whether anything was left when too many had failed."""
    policy = FailurePolicy(max_failed=1, action=FailureAction.FAIL)
    batch = await insert(store, 10, failure_policy=policy)
    [only] = await claim(store)
    outcomes = [failed(n) for n in range(2)] + [succeeded(n) for n in range(2, 10)]

    await store.chunks.record([record_of(only, outcomes)], now=START)

    ended = await current(store, batch)
    assert (ended.state, ended.state_reason) == (BatchState.FAILED, "FAILURE_POLICY")
    assert ended.counts == Counts(total=10, succeeded=8, failed=2)


async def test_a_batch_that_was_to_pause_ends_as_it_is_when_nothing_is_left(store):
    policy = FailurePolicy(max_failed=1)
    batch = await insert(store, 10, failure_policy=policy)
    [only] = await claim(store)
    outcomes = [failed(n) for n in range(2)] + [succeeded(n) for n in range(2, 10)]

    await store.chunks.record([record_of(only, outcomes)], now=START)

    ended = await current(store, batch)
    assert (ended.state, ended.state_reason) == (BatchState.PARTIALLY_SUCCEEDED, "")


async def test_events_are_numbered_without_gaps_and_name_what_finished(store):
    batch = await insert(store, 20)
    first, second = await claim(store)

    await store.chunks.record([record_of(second, [succeeded(n) for n in range(10, 20)])], now=START)
    await store.chunks.record([record_of(first, [succeeded(n) for n in range(10)])], now=START)

    events = await store.batches.events(batch.key, after=0, limit=100)
    assert [event.sequence for event in events] == [1, 2, 3, 4, 5]
    assert [event.event_type for event in events] == [
        "batch:created",
        "batch:started",
        "batch:progress",
        "batch:progress",
        "batch:completed",
    ]
    assert [event.finished for event in events] == [(), (), ((10, 19),), ((0, 9),), ()]
    assert (await current(store, batch)).sequence == 5


async def test_a_worker_that_lost_its_chunk_writes_nothing(store):
    batch = await insert(store, 10)
    [zombie] = await claim(store, owner="zombie", lease=LEASE_IS_OVER)
    await store.chunks.reopen_expired(now=START)
    [heir] = await claim(store, owner="heir", now=START + 2 * LEASE)

    late = await store.chunks.record(
        [record_of(zombie, [failed(n) for n in range(10)])], now=START + 2 * LEASE
    )
    await store.chunks.record([record_of(heir, [succeeded(n) for n in range(10)])], now=START)

    assert late.lost == {zombie.chunk_key}
    assert (await current(store, batch)).counts == Counts(total=10, succeeded=10)


async def test_a_record_that_comes_twice_counts_once(store):
    batch = await insert(store, 10)
    [chunk] = await claim(store)
    record = record_of(chunk, [succeeded(n) for n in range(10)])

    await store.chunks.record([record], now=START)
    again = await store.chunks.record([record], now=START)

    assert again.lost == {chunk.chunk_key}
    assert (await current(store, batch)).counts == Counts(total=10, succeeded=10)


async def test_nobody_lets_go_of_a_chunk_without_an_account_of_its_items(store):
    batch = await insert(store, 10)
    [chunk] = await claim(store)

    short = await store.chunks.record([record_of(chunk, [succeeded(0)])], now=START)

    assert short.lost == {chunk.chunk_key}
    assert (await current(store, batch)).counts == Counts(total=10, running=10)


async def test_a_chunk_cannot_be_recorded_twice_in_one_transaction(store):
    batch = await insert(store, 20)
    first, _ = await claim(store)
    whole = record_of(first, [succeeded(n) for n in range(10)])

    with pytest.raises(ValueError, match="count twice"):
        await store.chunks.record([whole, record_of(first, [])], now=START)

    assert (await current(store, batch)).counts == Counts(total=20, running=20)


@pytest.mark.arrow("item G")
async def test_what_a_dead_worker_held_is_open_again_after_its_lease(store):
    batch = await insert(store, 10)
    [dead] = await claim(store, limit=1, lease=LEASE_IS_OVER)
    await insert(store, 10, batch_id="bat-2")
    await claim(store)

    reopened = await store.chunks.reopen_expired(now=START)

    assert reopened.chunk_count == 1
    assert reopened.batches.keys() == {dead.batch_key}
    assert (await current(store, batch)).counts == Counts(total=10, pending=10)


async def test_after_a_restart_alone_nobody_waits_for_a_lease(store):
    batch = await insert(store, 10)
    await claim(store)

    reopened = await store.chunks.reopen_all(now=START)

    assert reopened.chunk_count == 1
    assert (await current(store, batch)).counts.pending == 10


async def test_an_extended_lease_is_not_over(store):
    await insert(store, 10)
    [chunk] = await claim(store, lease=LEASE_IS_OVER)

    ours = await store.chunks.extend([chunk.chunk_key, 999], owner="worker", now=START, lease=LEASE)
    stolen = await store.chunks.extend([chunk.chunk_key], owner="other", now=START, lease=LEASE)

    assert (ours.held, stolen.held) == ({chunk.chunk_key}, frozenset())
    reopened = await store.chunks.reopen_expired(now=START)
    assert reopened.chunk_count == 0


@pytest.mark.arrow("item E")
async def test_a_retry_waits_in_the_ledger_and_only_it_comes_back(store):
    batch = await insert(store, 10)
    [chunk] = await claim(store)
    due = START + timedelta(minutes=1)
    retry = failed(3, state=ItemState.PENDING, next_attempt_time=due)
    others = [succeeded(n) for n in range(10) if n != 3]

    await store.chunks.record(
        [
            record_of(
                chunk, [*others, retry], done=False, release=True, due_time=due, dispatch_time=due
            )
        ],
        now=START,
    )

    waiting = await current(store, batch)
    assert waiting.counts == Counts(total=10, pending=1, succeeded=9, retries=1)
    assert await claim(store, now=due - SECOND) == []
    assert await store.chunks.next_due_time(after=START) == due
    [again] = await claim(store, now=due)
    assert [(item.index, item.attempts) for item in again.items] == [(3, 1)]

    await store.chunks.record([record_of(again, [succeeded(3, attempts=2, is_new=False)])], now=due)

    batch = await current(store, batch)
    assert batch.state is BatchState.SUCCEEDED
    item = await store.batches.get_item(batch, "item-3")
    assert [(a.number, a.error.reason if a.error else None) for a in item.attempts] == [
        (1, "BUSY"),
        (2, None),
    ]


@pytest.mark.parametrize("is_new", [True, False])
async def test_outcomes_whose_record_was_not_answered_are_not_written_twice(store, is_new):
    # A connection that dies after the commit leaves a worker that does not know of it. First
    # attempts stood in their own way for ever; later ones were counted twice.
    batch = await insert(store, 10)
    [chunk] = await claim(store)
    outcomes = [succeeded(0, is_new=is_new), succeeded(1, is_new=is_new)]
    await store.chunks.record([record_of(chunk, outcomes, done=False)], now=START)

    again = [*outcomes, succeeded(2)]
    recorded = await store.chunks.record([record_of(chunk, again, done=False)], now=START)

    assert recorded.lost == {chunk.chunk_key}
    assert (await current(store, batch)).counts == Counts(total=10, running=8, succeeded=2)


async def test_outcomes_can_be_recorded_before_the_chunk_is_done(store):
    batch = await insert(store, 10)
    [chunk] = await claim(store)

    await store.chunks.record(
        [record_of(chunk, [succeeded(0), succeeded(1)], done=False)], now=START
    )
    halfway = await current(store, batch)
    rest = [succeeded(n) for n in range(2, 10)]
    await store.chunks.record([record_of(chunk, rest, taken=8)], now=START)

    assert halfway.counts == Counts(total=10, running=8, succeeded=2)
    assert (await current(store, batch)).state is BatchState.SUCCEEDED


async def test_a_crash_after_a_part_was_recorded_repeats_only_the_rest(store):
    batch = await insert(store, 10)
    [chunk] = await claim(store)
    await store.chunks.record([record_of(chunk, [succeeded(0)], done=False)], now=START)

    await store.chunks.reopen_all(now=START)
    [again] = await claim(store)

    assert [item.index for item in again.items] == list(range(1, 10))
    assert (await current(store, batch)).counts == Counts(total=10, running=9, succeeded=1)


async def test_interrupted_items_are_given_back_with_their_attempts(store):
    batch = await insert(store, 10)
    [chunk] = await claim(store)

    await store.chunks.record(
        [
            record_of(
                chunk,
                [succeeded(0)],
                done=False,
                release=True,
                returned=9,
                due_time=START,
                dispatch_time=START,
            )
        ],
        now=START,
    )

    assert (await current(store, batch)).counts == Counts(total=10, pending=9, succeeded=1)
    [again] = await claim(store)
    assert {item.attempts for item in again.items} == {0}


async def test_urgent_chunks_go_first_and_a_large_batch_does_not_block_a_small_one(store):
    await insert(store, 40, batch_id="large", priority=Priority.MEDIUM)
    await insert(store, 10, batch_id="small", priority=Priority.MEDIUM)
    await insert(store, 10, batch_id="low", priority=Priority.LOW)
    await insert(store, 10, batch_id="critical", priority=Priority.CRITICAL)

    order = [chunk.batch_key for chunk in await claim(store)]

    names = {}
    for name in ("large", "small", "low", "critical"):
        names[(await store.batches.get(name, tenant_id=TENANT)).key] = name
    assert [names[key] for key in order] == [
        "critical",
        "large",
        "small",
        "large",
        "large",
        "large",
        "low",
    ]


async def test_items_that_failed_are_found_by_their_reason(store):
    batch = await insert(store, 10)
    [chunk] = await claim(store)
    await store.chunks.record(
        [record_of(chunk, [succeeded(n, quality_score=n / 10) for n in range(9)] + [failed(9)])],
        now=START,
    )
    batch = await current(store, batch)

    by_reason, _ = await store.batches.list_items(
        batch, ItemFilter(error_reason="BUSY"), page_size=10, after=None
    )
    by_state, _ = await store.batches.list_items(
        batch, ItemFilter(states=(ItemState.FAILED,)), page_size=10, after=None
    )
    by_quality, _ = await store.batches.list_items(
        batch, ItemFilter(min_quality_score=0.65), page_size=10, after=None
    )

    assert [item.index for item in by_reason] == [item.index for item in by_state] == [9]
    assert [item.index for item in by_quality] == [7, 8]
    assert by_reason[0].error.message == "Come back later."


@pytest.mark.parametrize("only_failed", [False, True], ids=["all", "failed"])
async def test_the_items_of_an_event_are_read_without_their_data(store, only_failed):
    batch = await insert(store, 3)
    [chunk] = await claim(store)
    await store.chunks.record(
        [record_of(chunk, [succeeded(0), failed(1), succeeded(2)])], now=START
    )

    items = await store.batches.finished_items(batch, [(0, 2)], only_failed=only_failed)

    assert [item.index for item in items] == ([1] if only_failed else [0, 1, 2])
    assert {item.data_json for item in items} == {""}


def test_chunks_are_cut_by_number_and_by_size_and_leave_out_what_is_skipped():
    large = make_item(data="x" * 3_000_000)
    items = [*make_items(3), large, large, make_item(skip_reason="USER_NOT_FOUND"), make_item()]

    chunks = chunks_of(items, make_options(chunk_size=3), now=START)

    assert [(chunk.first_index, chunk.item_count) for chunk in chunks] == [(0, 3), (3, 2), (5, 2)]
    skipped = [make_item(skip_reason="USER_NOT_FOUND")] * 5
    assert chunks_of(skipped, make_options(chunk_size=2), now=START) == []


async def test_time_that_goes_on_makes_no_new_statements(store):
    # Each text of a statement is kept, and a server claims many times a second for weeks.
    await insert(store, 10, chunk_size=10)
    kept = []

    for seconds in range(3):
        now = START + seconds * LEASE * 2
        [chunk] = await claim(store, now=now)
        await store.chunks.extend([chunk.chunk_key], owner="worker", now=now, lease=LEASE)
        await store.chunks.reopen_expired(now=now)
        await store.chunks.reopen_all(now=now)
        kept.append(for_driver.cache_info().currsize)

    assert kept[0] == kept[2]
