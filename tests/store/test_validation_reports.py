"""What the validation of users found in a batch, on each database."""

from __future__ import annotations

from collections.abc import Sequence

from batchwork_server.domain.batch import Batch
from batchwork_server.domain.item import NewItem
from batchwork_server.domain.reference_validation import InvalidReference
from batchwork_server.domain.user import UserVerdict
from batchwork_server.store.sql_store import SqlStore

from tests.factories import TENANT, make_invalid_reference, make_item, make_request
from tests.fakes import START


async def insert(
    store: SqlStore, *invalid: InvalidReference, items: Sequence[NewItem] = (), name: str = "bat-1"
) -> Batch:
    async with store.transaction() as tx:
        batch = await store.batches.insert(
            tx,
            tenant_id=TENANT,
            batch_id=name,
            request=make_request(),
            items=items,
            chunks=[],
            now=START,
        )
        await store.validation_reports.add(tx, batch, invalid)
    return batch


async def test_references_come_back_as_they_were_taken_out(store: SqlStore):
    given = [
        make_invalid_reference("nobody", category="shops", item_id="mugs", field="member_ids"),
        make_invalid_reference("7", verdict=UserVerdict.MALFORMED),
    ]
    batch = await insert(store, *given)
    await insert(store, make_invalid_reference("other"), name="bat-2")

    found, after = await store.validation_reports.invalid_references(batch, page_size=5, after=None)

    assert (found, after) == (given, None)


async def test_references_come_page_by_page_in_their_order(store: SqlStore):
    batch = await insert(store, *(make_invalid_reference(f"u{n}") for n in range(5000)))
    async with store.transaction() as tx:
        await store.changes.lock(tx, batch.batch_id, tenant_id=TENANT)
        await store.validation_reports.add(tx, batch, [make_invalid_reference("last")], first=5000)

    found: list[str] = []
    after: int | None = None
    while True:
        page, after = await store.validation_reports.invalid_references(
            batch, page_size=1000, after=after
        )
        found += [each.user_id for each in page]
        if after is None:
            break

    assert found == [*(f"u{n}" for n in range(5000)), "last"]


async def test_invalid_users_are_the_items_that_were_skipped_for_them(store: SqlStore):
    skipped = [("a", "eve", "USER_INACTIVE"), ("b", None, "NO_VALID_USERS"), ("c", "ann", None)]
    skipped += [("d", "bob", "NOTHING_SELECTED"), ("e", "nobody", "USER_NOT_FOUND")]
    items = [make_item(i, user_id=user, skip_reason=reason) for i, user, reason in skipped]
    batch = await insert(store, items=items)

    first, after = await store.validation_reports.invalid_users(batch, page_size=1, after=None)
    second, end = await store.validation_reports.invalid_users(batch, page_size=1, after=after)

    assert [(each.item_id, each.user_id, each.verdict) for each in [*first, *second]] == [
        ("a", "eve", "INACTIVE"),
        ("e", "nobody", "NOT_FOUND"),
    ]
    assert end is None
