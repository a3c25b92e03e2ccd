"""References in the store, on each database."""

from __future__ import annotations

from batchwork_server.domain.batch import Batch
from batchwork_server.domain.filters import ReferenceFilter
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
            request=make_request(job_id="job-1"),
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
