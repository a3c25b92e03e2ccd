"""The items for one user and their references, on each database."""

from __future__ import annotations

from datetime import timedelta

import pytest
from batchwork_server.domain.batch import Batch, Counts, UserValidation
from batchwork_server.domain.filters import BatchFilter, ItemFilter
from batchwork_server.domain.item import ItemUser
from batchwork_server.domain.statistics import BatchesAlike, StatisticsGroup
from batchwork_server.domain.user_context import UserEntry
from batchwork_server.store.sql_store import SqlStore

from tests.factories import TENANT, make_item
from tests.fakes import START
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


async def found_by(store: SqlStore, user_id: str, **wanted) -> list[str]:
    matching = BatchFilter(**{"tenant_id": TENANT, "user_id": user_id} | wanted)
    batches, _ = await store.batches.list(matching, page_size=10, after=None)
    return [batch.batch_id for batch in batches]


async def test_batches_are_found_by_whoever_has_a_part_in_them(store: SqlStore):
    await history(store)
    shared = [ItemUser(user_id="ann", item_index=0)]
    await give_own(store, "elsewhere", make_item("all"), together=shared, tenant_id="other")

    assert await found_by(store, "ann") == ["kept", "together", "alone"]
    assert await found_by(store, "ann", job_id="job-2", feature_type="posts") == [
        "kept",
        "together",
        "alone",
    ]
    assert await found_by(store, "ann", feature_type="songs") == []
    assert await found_by(store, "bob") == ["together", "alone"]
    assert await found_by(store, "ann", tenant_id="other") == ["elsewhere"]
    assert await found_by(store, "ann", tenant_id=None) == [
        "elsewhere",
        "kept",
        "together",
        "alone",
    ]


async def test_items_are_found_by_each_user_whom_they_are_for(store: SqlStore):
    together = [
        *(ItemUser(user_id=user, item_index=0) for user in ("ann", "bob")),
        ItemUser(user_id="cyd", item_index=1),
        ItemUser(user_id="dan", item_index=None, skip_reason="ALREADY_DONE"),
    ]
    batch = await give_own(
        store, "shared", *(make_item(each, skip_reason="X") for each in "ab"), together=together
    )

    found = {}
    for user_id in ("ann", "bob", "cyd", "dan", "eve"):
        items, _ = await store.batches.list_items(
            batch, ItemFilter(user_id=user_id), page_size=10, after=None
        )
        found[user_id] = [item.item_id for item in items]

    assert found == {"ann": ["a"], "bob": ["a"], "cyd": ["b"], "dan": [], "eve": []}


def in_short(groups: list[BatchesAlike]) -> dict[str, tuple[int, Counts]]:
    return {each.group: (each.batch_count, each.item_counts) for each in groups}


async def test_statistics_count_the_items_for_a_user(store: SqlStore):
    await history(store)
    shared = [ItemUser(user_id="ann", item_index=0), ItemUser(user_id="bob", item_index=0)]
    await give_own(store, "elsewhere", make_item("all"), together=shared, tenant_id="other")

    found = {
        user_id: in_short(
            await store.statistics.count(
                BatchFilter(tenant_id=None, user_id=user_id), group_by=StatisticsGroup.TENANT
            )
        )
        for user_id in ("ann", "bob", "nobody")
    }
    of_tenant = await store.statistics.count(
        BatchFilter(tenant_id=TENANT, user_id="bob", feature_type="posts"), group_by=None
    )

    one = (1, Counts(total=1, pending=1))
    assert found["bob"]["other"] == found["ann"]["other"] == one
    assert sum(each.item_counts.total for each in of_tenant) == 2
    assert sum(each.item_counts.skipped for each in of_tenant) == 1
    assert found["nobody"] == {}


async def test_the_runs_of_a_job_come_with_what_they_had_for_a_user(store: SqlStore):
    skipped = for_user("ann", skip_reason="ALREADY_DONE")
    shared = [ItemUser(user_id="ann", item_index=None, skip_reason="USER_INACTIVE")]
    source = "preference"
    await give_own(store, "first", for_user("ann"), source=source)
    await give_own(store, "second", skipped, source=source)
    await give_own(store, "third", make_item("all"), together=shared, source=source)
    await give_own(store, "fourth", for_user("bob"), source=source)
    await give_own(store, "by-hand", for_user("ann"))

    async def items_of(before: int | None = None, limit: int = 10, **times):
        found = await store.group_runs.items_of(
            "ann",
            job_id="job-2",
            tenant_id=TENANT,
            **{"created_from": START, "created_until": START + timedelta(days=1)} | times,
            before=before,
            limit=limit,
        )
        return [(batch.batch_id, item.item_id, item.reason) for batch, item in found], found

    names, found = await items_of()
    assert names == [
        ("third", "", "USER_INACTIVE"),
        ("second", "ann", "ALREADY_DONE"),
        ("first", "ann", ""),
    ]
    assert (await items_of(before=found[0][0].key, limit=1))[0] == names[1:2]
    assert (await items_of(created_until=START))[0] == []
    assert (await items_of(created_from=START + timedelta(seconds=1)))[0] == []


async def test_users_who_could_not_be_looked_up_count_as_unknown(store: SqlStore):
    found = UserValidation(total=2, invalid=1, unknown=1)
    await give_own(
        store,
        "alone",
        for_user("ann"),
        for_user("x" * 200, skip_reason="USER_MALFORMED"),
        user_validation=found,
    )
    together = [ItemUser(user_id="ann", item_index=0)]
    await give_own(store, "all", make_item("a"), together=together, user_validation=found)

    _, of_ann = await store.user_items.counts("ann", tenant_id=TENANT, batch=None)
    _, of_nobody = await store.user_items.counts("x" * 200, tenant_id=TENANT, batch=None)

    assert of_ann == UserValidation(total=2, unknown=2)
    assert of_nobody == UserValidation(total=1, invalid=1)
