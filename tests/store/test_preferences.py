"""Preferences in the store, on each database."""

from __future__ import annotations

from dataclasses import replace
from datetime import time, timedelta
from typing import Any

import pytest
from batchwork_server.domain.filters import PreferenceFilter
from batchwork_server.domain.preference import Preference
from batchwork_server.domain.schedule import Daily, Schedule
from batchwork_server.store.store import Store

from tests.factories import TENANT
from tests.fakes import START


def make_preference(
    user_id: str = "user_1", feature_type: str = "posts", **changes: Any
) -> Preference:
    values: dict[str, Any] = {
        "tenant_id": TENANT,
        "enabled": True,
        "schedule": None,
        "template_overrides": {},
        "revision": 1,
        "create_time": START,
        "update_time": START,
    }
    return Preference(user_id=user_id, feature_type=feature_type, **values | changes)


async def put(store: Store, *wished: Preference, tenant_id: str = TENANT) -> None:
    preferences = [replace(each, tenant_id=tenant_id) for each in wished]
    async with store.transaction() as tx:
        await store.preferences.lock(tx, [], tenant_id=tenant_id)
        await store.preferences.put(tx, preferences, tenant_id=tenant_id, now=START)
        active = {each.user_id: each.active for each in preferences}
        await store.inactive_users.put(tx, active, tenant_id=tenant_id)


async def get(store: Store, *, tenant_id: str = TENANT) -> Preference | None:
    return await store.preferences.get(user_id="user_1", feature_type="posts", tenant_id=tenant_id)


async def test_a_preference_comes_back_as_it_was_stored(store: Store) -> None:
    preference = make_preference(
        enabled=False,
        schedule=Schedule(cadence=Daily(at=time(9)), time_zone="Asia/Tokyo"),
        template_overrides={"tone": "casual", "tags": ["a", "b"], "nested": {"n": 3.5}},
    )

    await put(store, preference)

    assert await get(store) == preference


async def test_all_preferences_of_some_users_are_found_at_once(store: Store) -> None:
    await put(store, make_preference(), make_preference(feature_type="tips"))
    await put(store, make_preference("user_2"), make_preference("user_3"))
    await put(store, make_preference("user_2"), tenant_id="other")

    async with store.transaction() as tx:
        found = await store.preferences.lock_users(
            tx, ["user_1", "user_2", "stranger"], tenant_id=TENANT
        )

    read = await store.preferences.of_users(["user_1", "user_2", "stranger"], tenant_id=TENANT)
    assert sorted(found) == [("posts", "user_1"), ("posts", "user_2"), ("tips", "user_1")]
    assert read == found


async def test_a_preference_that_is_stored_again_takes_the_place_of_the_first(
    store: Store,
) -> None:
    later = START + timedelta(hours=1)
    await put(store, make_preference(schedule=Schedule(cadence=Daily(at=time(9)))))
    second = make_preference(revision=2, update_time=later)

    await put(store, second)

    assert await get(store) == second


async def test_a_tenant_sees_its_own_preferences_only(store: Store) -> None:
    await put(store, make_preference(), tenant_id="other")

    assert await get(store) is None
    assert await store.preferences.list(
        PreferenceFilter(tenant_id=TENANT), page_size=10, after=None
    ) == ([], None)


async def test_whoever_locks_a_preference_sees_it(store: Store) -> None:
    await put(store, make_preference())

    async with store.transaction() as tx:
        seen = await store.preferences.lock(
            tx, [("posts", "user_1"), ("posts", "user_2")], tenant_id=TENANT
        )

    assert seen == {("posts", "user_1"): make_preference()}


async def test_pages_go_by_feature_and_then_by_user(store: Store) -> None:
    await put(
        store,
        make_preference("user_2", "posts"),
        make_preference("user_1", "reports"),
        make_preference("user_1", "posts"),
    )
    wanted = PreferenceFilter(tenant_id=TENANT)

    first, after_first = await store.preferences.list(wanted, page_size=2, after=None)
    second, after_second = await store.preferences.list(wanted, page_size=2, after=after_first)

    assert [(p.feature_type, p.user_id) for p in (*first, *second)] == [
        ("posts", "user_1"),
        ("posts", "user_2"),
        ("reports", "user_1"),
    ]
    assert (after_first, after_second) == ((TENANT, "posts", "user_2"), None)


@pytest.mark.parametrize(
    "filters, found",
    [
        ({"user_id": "user_1"}, [("posts", "user_1"), ("reports", "user_1")]),
        ({"feature_type": "posts"}, [("posts", "user_1"), ("posts", "user_2")]),
        ({"enabled": False}, [("posts", "user_2")]),
        ({"enabled": True, "feature_type": "posts"}, [("posts", "user_1")]),
    ],
    ids=["user", "feature", "not enabled", "enabled for a feature"],
)
async def test_a_filter_keeps_what_meets_it(
    store: Store, filters: dict[str, Any], found: list[tuple[str, str]]
) -> None:
    await put(
        store,
        make_preference("user_1", "posts"),
        make_preference("user_2", "posts", enabled=False),
        make_preference("user_1", "reports"),
    )
    wanted = PreferenceFilter(tenant_id=TENANT, **filters)

    page, _ = await store.preferences.list(wanted, page_size=10, after=None)

    assert [(p.feature_type, p.user_id) for p in page] == found


async def pages_of(store: Store, wanted: PreferenceFilter) -> list[tuple[str, str, str]]:
    """Returns whose preferences for what are listed, two a page."""
    found: list[tuple[str, str, str]] = []
    page, after = await store.preferences.list(wanted, page_size=2, after=None)
    while True:
        found += [(each.tenant_id, each.feature_type, each.user_id) for each in page]
        if after is None:
            return found
        assert (len(page), after) == (2, found[-1])
        page, after = await store.preferences.list(wanted, page_size=2, after=after)


@pytest.mark.parametrize(
    ("filters", "found"),
    [
        ({}, ["aposts1", "aposts2", "areports1", "bposts1", "breports2", "creports1"]),
        ({"user_id": "user_1"}, ["aposts1", "areports1", "bposts1", "creports1"]),
        ({"feature_type": "reports"}, ["areports1", "breports2", "creports1"]),
        ({"enabled": False}, ["aposts2", "bposts1"]),
        ({"enabled": True, "user_id": "user_1"}, ["aposts1", "areports1", "creports1"]),
        ({"user_id": "stranger"}, []),
    ],
    ids=["all", "user", "feature", "not enabled", "enabled for a user", "nobody"],
)
async def test_the_preferences_of_all_tenants_come_by_tenant_each_once(
    store: Store, filters: dict[str, Any], found: list[str]
) -> None:
    await put(store, make_preference("user_1", "reports"), tenant_id="c")
    await put(store, make_preference("user_2", "reports"), tenant_id="b")
    await put(store, make_preference("user_1", "posts", enabled=False), tenant_id="b")
    await put(store, make_preference("user_2", "posts", enabled=False), tenant_id="a")
    await put(
        store,
        make_preference("user_1", "reports"),
        make_preference("user_1", "posts"),
        tenant_id="a",
    )

    listed = await pages_of(store, PreferenceFilter(tenant_id=None, **filters))

    assert [tenant + feature + user[-1] for tenant, feature, user in listed] == found
