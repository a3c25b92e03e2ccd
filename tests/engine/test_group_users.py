"""Runs of groups whose items are for several users: who is in them, page by page."""

from __future__ import annotations

import pytest
from batchwork_server.application import group_pages
from batchwork_server.domain.context import ContextItems
from batchwork_server.domain.filters import ReferenceFilter
from batchwork_server.domain.reference import ReferenceState
from batchwork_server.store.database import Database

from tests.engine.groups import GroupServer
from tests.engine.test_groups import AT_TEN, TEN
from tests.factories import TENANT
from tests.fakes import FakeClock


@pytest.mark.parametrize("category", [None, "news"], ids=["users", "categories"])
async def test_each_user_stands_in_the_batch_once_however_it_was_filled(
    database: Database, clock: FakeClock, monkeypatch, category: str | None
):
    monkeypatch.setattr(group_pages, "PAGE_USERS", 3)
    server = GroupServer(database, clock=clock)
    users = [f"user{number}" for number in range(7)]
    await server.add_users(*users)
    await server.put_job(type="object", preference_based=True, category=category)
    for user_id in (*users, "nobody"):
        await server.wish(user_id, **AT_TEN)

    await server.run_at(TEN)

    [batch] = await server.batches_of()
    entries, _ = await server.store.contexts.entries(batch, after=-1, limit=100)
    items = ContextItems.of(entries, by_categories=False)
    assert sorted(items.valid_users) == users
    assert items.invalid_users == ("nobody",)
    assert [entry.place for entry in entries] == list(range(8))


@pytest.mark.parametrize("fields", [{}, {"type": "object", "preference_based": True}])
async def test_each_user_of_a_group_is_given_their_own(
    database: Database, clock: FakeClock, monkeypatch, fields
):
    monkeypatch.setattr(group_pages, "PAGE_USERS", 2)
    server = GroupServer(database, clock=clock)
    users = [f"user{number}" for number in range(5)]
    await server.add_users(*users, "boss")
    await server.put_job(distribute_results=True, distribution={"users": ["boss"]}, **fields)
    for user_id in users:
        await server.wish(user_id, **AT_TEN)

    await server.run_at(TEN)

    wanted = ReferenceFilter(tenant_id=TENANT)
    found, _ = await server.store.references.list(wanted, page_size=20, after=None)
    assert found[0].recipient.user_id == "boss"
    assert found[0].item is None
    assert sorted(each.recipient.user_id for each in found[1:]) == users
    assert all(each.item is not None and each.item.item_id for each in found[1:])
    assert {each.state for each in found} == {ReferenceState.PENDING}
