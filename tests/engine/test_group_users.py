"""Runs of groups whose items are for several users: who is in them, page by page."""

from __future__ import annotations

import pytest
from batchwork_server.application import group_pages
from batchwork_server.domain.context import ContextItems
from batchwork_server.store.database import Database

from tests.engine.groups import GroupServer
from tests.engine.test_groups import AT_TEN, TEN
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
