"""What a run of a group has for each user, by what they wish, on each database."""

from __future__ import annotations

import json
from typing import Any

import pytest
from batchwork_server.domain.batch import Batch
from batchwork_server.store.categories import SqlCategories
from batchwork_server.store.database import Database

from tests.engine.groups import GroupServer
from tests.engine.test_groups import AT_TEN, TEN
from tests.factories import TENANT, make_loaded_item
from tests.fakes import FakeClock

USERS = ("ann", "bob", "eve")
RANKS = (3, 1, 2, 5, 4)


@pytest.fixture
async def server(database: Database, clock: FakeClock) -> GroupServer:
    """Two categories of five things; with users as the source each user has such five."""
    server = GroupServer(database, clock=clock, source=SqlCategories(database))
    await server.add_users(*USERS)
    async with server.store.transaction() as tx:
        for category in ("news", "songs"):
            things = [
                make_loaded_item(
                    f"{owner}{rank}",
                    user_id=owner or None,
                    data={
                        "id": f"{category}{rank}",
                        "rank": rank,
                        "tags": ["odd" if rank % 2 else "even"],
                        "of": owner or "all",
                    },
                )
                for owner in ("", *USERS)
                for rank in RANKS
            ]
            await server.store.categories.load(
                tx, tenant_id=TENANT, category=category, items=things, now=clock.now()
            )
    return server


async def things_of(server: GroupServer, batch: Batch) -> dict[str, list[str]]:
    """Returns what each user of a batch gets, of whatever type it is."""
    found: dict[str, list[str]] = {}
    for item in await server.items_of(batch):
        data: dict[str, Any] = json.loads(item.data_json)
        for member in data.get("users", [data] if item.user_id else []):
            assert {thing["of"] for thing in member["items"]} <= {member["user_id"], "all"}
            found[member["user_id"]] = [thing["id"] for thing in member["items"]]
        for user_id in data.get("user_ids", ()):
            found[user_id] = [
                thing["id"] for group in data["categories"].values() for thing in group["items"]
            ]
    return found


TYPES = [
    pytest.param({"type": "individual", "category": "news"}, id="individual"),
    pytest.param({"type": "object", "category": "news"}, id="object"),
    pytest.param(
        {"type": "combined", "categories": ["news", "songs"], "category": None}, id="combined"
    ),
]


@pytest.mark.parametrize("data_source", ["users", "categories"])
@pytest.mark.parametrize("job", TYPES)
async def test_the_wishes_of_each_user_count(server: GroupServer, job, data_source):
    only = {"of": "all"} if data_source == "categories" else {}
    await server.put_job(**job, preference_based=True, data_source=data_source)
    await server.wish(
        "ann",
        **AT_TEN,
        template_overrides={
            "custom_filters": {"max_rank": 4, **only},
            "sort_by": "rank",
            "sort_order": "desc",
            "item_limit": 2,
            "categories": ["news"],
        },
    )
    await server.wish(
        "bob",
        **AT_TEN,
        template_overrides={
            "tags": ["odd"],
            "sort_by": "rank",
            "categories": ["news"],
            "custom_filters": only,
        },
    )
    await server.wish("eve", **AT_TEN, template_overrides={"item_limit": 7, "custom_filters": only})

    await server.run_at(TEN)

    [batch] = await server.batches_of()
    in_order = [f"{name}{rank}" for name in ("news", "songs") for rank in RANKS]
    of_eve = in_order[:7] if job["type"] == "combined" else in_order[:5]
    assert await things_of(server, batch) == {
        "ann": ["news4", "news3"],
        "bob": ["news1", "news3", "news5"],
        "eve": of_eve,
    }


async def test_nobody_takes_the_things_of_another(server: GroupServer):
    await server.put_job(type="individual", preference_based=True, data_source="users", limit=1)
    for user_id in USERS:
        await server.wish(user_id, **AT_TEN)

    await server.run_at(TEN)

    [batch] = await server.batches_of()
    assert await things_of(server, batch) == {user_id: ["news3"] for user_id in USERS}
