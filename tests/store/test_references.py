"""References in the store, on each database."""

from __future__ import annotations

from typing import Any

import pytest
from batchwork_server.domain.batch import Batch
from batchwork_server.domain.distribution import Distribution
from batchwork_server.domain.filters import ReferenceFilter
from batchwork_server.domain.item import ItemUser, NewItem
from batchwork_server.domain.reference import Recipient, ReferenceState
from batchwork_server.store.sql_store import SqlStore

from tests.factories import TENANT, make_item, make_request
from tests.fakes import START


async def give(store: SqlStore, batch_id: str, *users: str, tenant_id: str = TENANT) -> Batch:
    """Stores a batch without work, and who is given its results."""
    async with store.transaction() as tx:
        batch = await store.batches.insert(
            tx,
            tenant_id=tenant_id,
            batch_id=batch_id,
            request=make_request(job_id="job-1", distribution=Distribution(named=len(users) + 1)),
            items=[make_item("a", skip_reason="USER_NOT_FOUND")],
            chunks=[],
            now=START,
            expire_time=None,
            is_draft=False,
        )
        recipients = [Recipient(user_id=user) for user in users]
        await store.references.add(tx, batch, [*recipients, Recipient(user_id="z", problem="GONE")])
    return batch


async def listed(store: SqlStore, *, after=None, page_size: int = 10, **wanted):
    matching = ReferenceFilter(**{"tenant_id": TENANT} | wanted)
    found, last = await store.references.list(matching, page_size=page_size, after=after)
    return [(each.batch.batch_id, each.recipient.user_id) for each in found], last


async def test_a_reference_comes_with_its_batch_and_its_problem(store: SqlStore):
    batch = await give(store, "first", "ann")

    found, _ = await store.references.list(
        ReferenceFilter(tenant_id=TENANT), page_size=10, after=None
    )

    assert [each.batch for each in found] == [batch, batch]
    assert [(each.recipient.user_id, each.reason) for each in found] == [("ann", ""), ("z", "GONE")]
    assert [each.state for each in found] == [ReferenceState.DELIVERED, ReferenceState.FAILED]


async def test_pages_go_by_newest_batch_and_user(store: SqlStore):
    await give(store, "first", "ann", "bob")
    await give(store, "second", "ann")

    one, after = await listed(store, page_size=3)
    two, end = await listed(store, page_size=3, after=after)

    assert one == [("second", "ann"), ("second", "z"), ("first", "ann")]
    assert (two, end) == ([("first", "bob"), ("first", "z")], None)


async def test_filters_keep_a_user_a_batch_and_a_tenant(store: SqlStore):
    await give(store, "first", "ann", "bob")
    await give(store, "second", "ann")
    await give(store, "theirs", "ann", tenant_id="other")

    assert (await listed(store, user_id="ann"))[0] == [("second", "ann"), ("first", "ann")]
    assert (await listed(store, batch_id="second"))[0] == [("second", "ann"), ("second", "z")]
    assert len((await listed(store, tenant_id=None, user_id="ann"))[0]) == 3


async def give_own(
    store: SqlStore,
    batch_id: str,
    *items: NewItem,
    named: list[str] | None = None,
    together: list[ItemUser] | None = None,
    own: bool = True,
    tenant_id: str = TENANT,
    source: str = "test",
    **found: Any,
) -> Batch:
    """Stores a run for preferences, each of whose users is given their own item."""
    shape = "INDIVIDUAL" if together is None else "BATCH"
    async with store.transaction() as tx:
        batch = await store.batches.insert(
            tx,
            tenant_id=tenant_id,
            batch_id=batch_id,
            request=make_request(
                job_id="job-2",
                source=source,
                feature_type="posts",
                batch_type=f"PREFERENCE_{shape}_USERS",
                distribution=Distribution(named=len(named or ()), own=own),
                **found,
            ),
            items=items,
            chunks=[],
            now=START,
        )
        recipients = [Recipient(user_id=user) for user in named or ()]
        await store.references.add(tx, batch, recipients)
        await store.contexts.add_users(tx, batch, together or [])
    return batch


def for_user(user_id: str, **changes) -> NewItem:
    return make_item(user_id, user_id=user_id, **changes)


async def three_batches(store: SqlStore) -> None:
    await give(store, "named", "ann", "bob")
    await give_own(
        store,
        "alone",
        for_user("cyd"),
        for_user("ann"),
        for_user("dan", skip_reason="USER_NOT_FOUND"),
        named=["eve", "ann"],
    )
    together = [
        ItemUser(user_id="dan", item_index=0),
        ItemUser(user_id="ann", item_index=0),
        ItemUser(user_id="eve", item_index=None, skip_reason="ALREADY_DONE"),
    ]
    await give_own(store, "together", make_item("all"), together=together)
    await give_own(store, "kept", for_user("ann"), own=False)


IN_ORDER = [
    *(("together", user) for user in ("dan", "ann", "eve")),
    *(("alone", user) for user in ("ann", "eve", "cyd", "ann", "dan")),
    *(("named", user) for user in ("ann", "bob", "z")),
]


@pytest.mark.parametrize("page_size", [1, 2, 3, 5, 11, 20])
@pytest.mark.parametrize("user_id", ["", "ann", "dan", "z", "nobody"])
async def test_own_and_named_references_have_one_order(
    store: SqlStore, page_size: int, user_id: str
):
    await three_batches(store)

    found, after = [], None
    while True:
        page, after = await listed(store, page_size=page_size, after=after, user_id=user_id)
        found += page
        if after is None:
            break
        assert len(page) == page_size

    assert found == [(batch, user) for batch, user in IN_ORDER if user_id in ("", user)]


async def test_an_own_reference_points_to_the_item_and_takes_its_state(store: SqlStore):
    await three_batches(store)

    found, _ = await store.references.list(
        ReferenceFilter(tenant_id=TENANT, feature_type="posts"), page_size=20, after=None
    )

    own = {
        (each.batch.batch_id, each.recipient.user_id): (each.item.item_id, each.state, each.reason)
        for each in found
        if each.item is not None
    }
    pending, failed = ReferenceState.PENDING, ReferenceState.FAILED
    assert own == {
        ("together", "dan"): ("all", pending, ""),
        ("together", "ann"): ("all", pending, ""),
        ("together", "eve"): ("", failed, "ALREADY_DONE"),
        ("alone", "cyd"): ("cyd", pending, ""),
        ("alone", "ann"): ("ann", pending, ""),
        ("alone", "dan"): ("dan", failed, "USER_NOT_FOUND"),
    }


async def test_filters_keep_a_job_and_a_feature(store: SqlStore):
    await three_batches(store)

    assert len((await listed(store, job_id="job-1"))[0]) == 3
    assert len((await listed(store, job_id="job-2", batch_id="alone"))[0]) == 5
    assert (await listed(store, feature_type="posts", user_id="cyd"))[0] == [("alone", "cyd")]
    assert (await listed(store, feature_type="other"))[0] == []
