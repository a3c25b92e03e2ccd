"""The items for one user and their references, on each database."""

from __future__ import annotations

import pytest
from batchwork_server.domain.batch import Batch, Counts, UserValidation
from batchwork_server.domain.item import ItemUser
from batchwork_server.domain.user_context import UserEntry
from batchwork_server.store.sql_store import SqlStore

from tests.factories import TENANT, make_item
from tests.store.test_references import for_user, give, give_own


async def history(store: SqlStore) -> list[Batch]:
    """Stores what happened to ann, and to others."""
    await give(store, "theirs", "ann", tenant_id="other")
    together = [
        ItemUser(user_id="ann", item_index=0),
        ItemUser(user_id="bob", item_index=None, skip_reason="ALREADY_DONE"),
    ]
    return [
        await give(store, "named", "ann"),
        await give_own(
            store,
            "alone",
            for_user("bob"),
            for_user("ann", skip_reason="USER_INACTIVE"),
            named=["ann"],
        ),
        await give_own(store, "together", make_item("all"), together=together),
        await give_own(
            store,
            "kept",
            make_item("a", user_id="ann"),
            make_item("b", user_id="ann"),
            own=False,
        ),
    ]


@pytest.mark.parametrize("limit", [1, 2, 3, 10])
async def test_pages_go_from_the_newest_batch_to_the_oldest(store: SqlStore, limit: int):
    await history(store)

    found: list[UserEntry] = []
    after = None
    while True:
        page, after = await store.user_items.entries(
            "ann", tenant_id=TENANT, batch=None, after=after, limit=limit
        )
        found += page
        if after is None:
            break

    assert [
        (
            entry.batch.batch_id,
            entry.item.item_id if entry.item is not None else None,
            entry.is_shared,
            entry.reference is not None,
        )
        for entry in found
    ] == [
        ("kept", "a", False, False),
        ("kept", "b", False, False),
        ("together", "all", True, True),
        ("alone", None, False, True),
        ("alone", "ann", False, True),
        ("named", None, False, True),
    ]


async def test_a_batch_keeps_its_own(store: SqlStore):
    *_, together, kept = await history(store)

    for batch, user_id, count in ((kept, "ann", 2), (together, "bob", 1), (kept, "bob", 0)):
        found, _ = await store.user_items.entries(
            user_id, tenant_id=TENANT, batch=batch, after=None, limit=10
        )
        assert [entry.batch.key for entry in found] == [batch.key] * count


async def test_counts_are_of_the_items_for_the_user(store: SqlStore):
    _, alone, together, _ = await history(store)

    everything = await store.user_items.counts("ann", tenant_id=TENANT, batch=None)
    skipped = await store.user_items.counts("ann", tenant_id=TENANT, batch=alone)
    done = await store.user_items.counts("bob", tenant_id=TENANT, batch=together)
    nobody = await store.user_items.counts("nobody", tenant_id=TENANT, batch=None)

    assert everything == (
        Counts(total=4, pending=3, skipped=1),
        UserValidation(total=4, valid=3, invalid=1),
    )
    assert skipped == (Counts(total=1, skipped=1), UserValidation(total=1, invalid=1))
    assert done == (Counts(total=1, skipped=1), UserValidation(total=1, valid=1))
    assert nobody == (Counts(), UserValidation())
