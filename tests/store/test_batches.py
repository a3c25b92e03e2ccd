"""Batches and their items, from the callers' side, on each database."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from batchwork_server.application.batches import chunks_of
from batchwork_server.domain.batch import Batch, BatchState, Counts
from batchwork_server.domain.failure import FailureAction, FailurePolicy
from batchwork_server.domain.filters import BatchFilter, ItemFilter
from batchwork_server.domain.item import ItemState, NewItem
from batchwork_server.domain.retry import RetryPolicy
from batchwork_server.errors import AlreadyExists
from batchwork_server.store.sql_store import SqlStore

from tests.factories import TENANT, make_item, make_items, make_options, make_request
from tests.fakes import START


async def insert(
    store: SqlStore, items: list[NewItem], *, batch_id: str = "", tenant_id: str = TENANT, **changes
) -> Batch:
    request = make_request(**changes)
    async with store.transaction() as tx:
        return await store.batches.insert(
            tx,
            tenant_id=tenant_id,
            batch_id=batch_id or f"batch-{id(items)}",
            request=request,
            items=items,
            chunks=chunks_of(items, request.options, now=START),
            now=START,
        )


@pytest.mark.arrow("batch B", "item A")
async def test_a_stored_batch_comes_back_as_it_was_asked_for(store):
    request: dict[str, Any] = {
        "labels": {"team": "blue"},
        "filters": {"min_followers": 10},
        "job_id": "job-1",
        "options": make_options(
            retry=RetryPolicy(multiplier=1.5, non_retryable_reasons=frozenset({"ACCOUNT_GONE"})),
            handicap=timedelta(milliseconds=1500),
            batch_timeout=timedelta(days=30),
            failure_policy=FailurePolicy(max_failed_ratio=0.1, action=FailureAction.FAIL),
        ),
    }
    created = await insert(store, make_items(3), batch_id="bat-1", **request)

    found = await store.batches.get("bat-1", tenant_id=TENANT)

    assert found == created
    assert found.request.options == request["options"]
    assert found.counts == Counts(total=3, pending=3)
    assert found.request.filters == {"min_followers": 10}
    assert found.state is BatchState.PENDING


async def test_a_batch_id_is_taken_only_within_its_tenant(store):
    await insert(store, make_items(1), batch_id="bat-1")

    with pytest.raises(AlreadyExists, match="bat-1"):
        await insert(store, make_items(1), batch_id="bat-1")

    other = await insert(store, make_items(1), batch_id="bat-1", tenant_id="other")
    assert other.tenant_id == "other"


async def test_a_tenant_sees_nothing_of_another_one(store):
    await insert(store, make_items(1), batch_id="bat-1", tenant_id="other")

    assert await store.batches.get("bat-1", tenant_id=TENANT) is None
    page, after = await store.batches.list(BatchFilter(tenant_id=TENANT), page_size=10, after=None)
    assert (page, after) == ([], None)
    assert await store.batches.get("bat-1", tenant_id=None) is not None


@pytest.mark.arrow("batch C")
async def test_a_batch_without_work_is_over_when_it_is_created(store):
    items = [make_item("a", skip_reason="USER_NOT_FOUND")]

    batch = await insert(store, items, batch_id="bat-1")

    assert batch.state is BatchState.SUCCEEDED
    assert batch.counts == Counts(total=1, skipped=1)
    events = await store.batches.events(batch.key, after=0, limit=10)
    assert [(e.sequence, e.event_type) for e in events] == [
        (1, "batch:created"),
        (2, "batch:completed"),
    ]
    kept, counted = await store.chunks.check_counts(batch.key)
    assert kept == counted


async def test_batches_are_listed_newest_first_and_page_by_page(store):
    for number in range(5):
        await insert(store, make_items(1), batch_id=f"bat-{number}")
    everything = BatchFilter(tenant_id=TENANT)

    first, after = await store.batches.list(everything, page_size=2, after=None)
    second, later = await store.batches.list(everything, page_size=2, after=after)
    last, end = await store.batches.list(everything, page_size=2, after=later)

    assert [b.batch_id for b in (*first, *second, *last)] == [f"bat-{n}" for n in (4, 3, 2, 1, 0)]
    assert end is None
    skipped, _ = await store.batches.list(everything, page_size=2, after=None, skip=3)
    assert [b.batch_id for b in skipped] == ["bat-1", "bat-0"]


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"operation": "annotate"}, id="operation"),
        pytest.param({"job_id": "job-1"}, id="job"),
        pytest.param({"labels": {"team": "blue"}}, id="label"),
        pytest.param({"feature_type": "posts"}, id="feature"),
        pytest.param({"user_id": "ann"}, id="user"),
        pytest.param({"states": (BatchState.SUCCEEDED,)}, id="state"),
        pytest.param({"created_after": START + timedelta(seconds=1)}, id="created after"),
    ],
)
async def test_a_filter_finds_the_batch_that_it_describes(store, changes):
    await insert(store, [make_item("a")], batch_id="plain", labels={"team": "red"})
    fields = {k: v for k, v in changes.items() if k in ("operation", "job_id", "labels")}
    if "feature_type" in changes:
        fields["feature_type"] = changes["feature_type"]
    user = changes.get("user_id")
    skip = "USER_NOT_FOUND" if "states" in changes else None
    item = make_item("a", user_id=user, skip_reason=skip)
    request = make_request(**fields)
    async with store.transaction() as tx:
        await store.batches.insert(
            tx,
            tenant_id=TENANT,
            batch_id="wanted",
            request=request,
            items=[item],
            chunks=chunks_of([item], request.options, now=START),
            now=START + timedelta(minutes=1),
        )

    page, _ = await store.batches.list(
        BatchFilter(tenant_id=TENANT, **changes), page_size=10, after=None
    )

    assert [batch.batch_id for batch in page] == ["wanted"]


async def test_items_are_listed_in_order_and_by_state(store):
    items = [make_item("a"), make_item("b", skip_reason="USER_INACTIVE"), make_item("c")]
    batch = await insert(store, items, batch_id="bat-1")

    everything, _ = await store.batches.list_items(batch, ItemFilter(), page_size=10, after=None)
    skipped, _ = await store.batches.list_items(
        batch, ItemFilter(states=(ItemState.SKIPPED,)), page_size=10, after=None
    )
    by_reason, _ = await store.batches.list_items(
        batch, ItemFilter(skip_reason="USER_INACTIVE"), page_size=10, after=None
    )

    assert [(i.item_id, i.state) for i in everything] == [
        ("a", ItemState.PENDING),
        ("b", ItemState.SKIPPED),
        ("c", ItemState.PENDING),
    ]
    assert [i.item_id for i in skipped] == [i.item_id for i in by_reason] == ["b"]


@pytest.mark.arrow("item C")
async def test_an_item_is_running_while_a_worker_holds_it(store):
    batch = await insert(store, make_items(4), batch_id="bat-1", options=make_options(chunk_size=2))
    [(first, *_), _] = await store.chunks.next_chunks(now=START, limit=10)
    await store.chunks.claim([first], owner="w", now=START, lease=timedelta(seconds=30))

    running = await store.batches.get("bat-1", tenant_id=TENANT)
    page, _ = await store.batches.list_items(
        running, ItemFilter(states=(ItemState.RUNNING,)), page_size=10, after=None
    )

    assert [item.index for item in page] == [0, 1]
    assert running.counts == Counts(total=4, pending=2, running=2)
    assert running.state is BatchState.RUNNING
    assert batch.key == running.key


async def test_a_page_of_large_items_ends_early_and_goes_on(store):
    large = "x" * 1_000_000
    items = [NewItem(item_id=str(n), data_json=f'"{large}"') for n in range(5)]
    batch = await insert(store, items, batch_id="bat-1")

    first, after = await store.batches.list_items(batch, ItemFilter(), page_size=5, after=None)
    second, end = await store.batches.list_items(batch, ItemFilter(), page_size=5, after=after)

    assert [item.index for item in (*first, *second)] == [0, 1, 2, 3, 4]
    assert len(first) == 3
    assert end is None


async def test_data_comes_back_to_the_letter(store):
    text = '{ "b": 1.0,\n  "a": "ünïcödé \\u0041 \U0001f600" }'
    batch = await insert(store, [NewItem(item_id="a", data_json=text)], batch_id="bat-1")

    item = await store.batches.get_item(batch, "a")

    assert item.data_json == text
    assert await store.batches.get_item(batch, "b") is None
