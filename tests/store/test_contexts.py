"""What contexts list, on each database."""

from __future__ import annotations

from batchwork_server.domain.batch import Batch
from batchwork_server.domain.context import ContextEntry, ContextItems
from batchwork_server.domain.item import ItemUser, NewItem
from batchwork_server.store.sql_store import SqlStore

from tests.factories import TENANT, make_item, make_request
from tests.fakes import START


async def insert(
    store: SqlStore,
    batch_id: str,
    *items: NewItem,
    users: list[ItemUser] | None = None,
    batch_type: str = "INDIVIDUAL_USERS",
) -> Batch:
    async with store.transaction() as tx:
        batch = await store.batches.insert(
            tx,
            tenant_id=TENANT,
            batch_id=batch_id,
            request=make_request(batch_type=batch_type),
            items=items,
            chunks=[],
            now=START,
        )
        await store.contexts.add_users(tx, batch, users or [])
    return batch


def of(user_id: str, **changes) -> NewItem:
    return make_item(user_id=user_id, **changes)


async def all_entries(store: SqlStore, batch: Batch, *, limit: int) -> list[ContextEntry]:
    found: list[ContextEntry] = []
    after = -1
    while True:
        page, last = await store.contexts.entries(batch, after=after, limit=limit)
        found += page
        if last is None:
            return found
        after = last


async def test_entries_follow_the_items_and_know_repeated_users(store: SqlStore):
    batch = await insert(
        store,
        "one",
        of("ada"),
        of("bob", skip_reason="USER_NOT_FOUND"),
        make_item("thing"),
        of("ada"),
    )
    await insert(store, "two", of("bob"))

    for limit in (1, 2, 10):
        found = await all_entries(store, batch, limit=limit)

        assert [each.user_id for each in found] == ["ada", "bob", None, "ada"]
        assert [each.is_repeated for each in found] == [False, False, False, True]
        assert [each.skip_reason for each in found] == ["", "USER_NOT_FOUND", "", ""]
        assert [each.place for each in found] == [0, 1, 2, 3]


async def test_users_of_an_item_for_several_are_listed_apart(store: SqlStore):
    users = [
        ItemUser(user_id="ada", item_index=0),
        ItemUser(user_id="bob", item_index=None, skip_reason="USER_INACTIVE"),
    ]
    batch = await insert(
        store, "one", make_item("all"), users=users, batch_type="PREFERENCE_BATCH_USERS"
    )

    found = await all_entries(store, batch, limit=1)

    assert [(each.user_id, each.skip_reason) for each in found] == [
        ("ada", ""),
        ("bob", "USER_INACTIVE"),
    ]


async def test_what_earlier_batches_list_is_known(store: SqlStore):
    one = await insert(store, "one", of("ada"), of("bob", skip_reason="USER_NOT_FOUND"))
    two = await insert(
        store,
        "two",
        make_item("all"),
        users=[ItemUser(user_id="cyd", item_index=0)],
        batch_type="BATCH_USERS",
    )
    three = await insert(store, "three", make_item("shoes"), batch_type="INDIVIDUAL_CATEGORIES")
    lists = ContextItems(
        valid_users=("ada", "bob", "cyd", "dan"), valid_categories=("shoes", "hats")
    )

    listed = await store.contexts.listed_in([one, two, three], lists)

    assert sorted(listed.valid_users) == ["ada", "cyd"]
    assert listed.invalid_users == ("bob",)
    assert listed.valid_categories == ("shoes",)
    assert await store.contexts.listed_in([], lists) == ContextItems()
