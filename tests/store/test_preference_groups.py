"""Users move between groups, and each move is told once and in order, on each database."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import time, timedelta

import pytest
from batchwork_server.domain.filters import PreferenceFilter
from batchwork_server.domain.preference import DefaultPreference, Preference
from batchwork_server.domain.preference_groups import (
    ChangeKind,
    PreferenceChange,
    PreferenceGroup,
)
from batchwork_server.domain.schedule import Daily, Schedule
from batchwork_server.store.sql_store import SqlStore
from batchwork_server.store.store import GroupPlace, Store

from tests.factories import TENANT
from tests.fakes import START
from tests.store.test_preferences import make_preference

MORNING = Schedule(cadence=Daily(at=time(9)), time_zone="Europe/Berlin")
EVENING = Schedule(cadence=Daily(at=time(18)))


async def put(
    store: Store, *wished: Preference, tenant_id: str = TENANT, now=START
) -> list[PreferenceChange]:
    preferences = [replace(each, tenant_id=tenant_id) for each in wished]
    async with store.transaction() as tx:
        keys = [(each.feature_type, each.user_id) for each in preferences]
        await store.preferences.lock(tx, keys, tenant_id=tenant_id)
        active = {each.user_id: each.active for each in preferences}
        await store.inactive_users.put(tx, active, tenant_id=tenant_id)
        return await store.preferences.put(tx, preferences, tenant_id=tenant_id, now=now)


async def delete(store: Store, *keys: tuple[str, str]) -> list[PreferenceChange]:
    async with store.transaction() as tx:
        stored = await store.preferences.lock(tx, keys, tenant_id=TENANT)
        return await store.preferences.delete(
            tx, list(stored.values()), tenant_id=TENANT, now=START
        )


async def put_default(store: Store, feature_type: str, *, revision: int) -> PreferenceChange:
    default = DefaultPreference(
        tenant_id=TENANT,
        feature_type=feature_type,
        enabled=True,
        schedule=MORNING,
        template_overrides={"tone": "calm"},
        revision=revision,
        create_time=START,
        update_time=START,
    )
    async with store.transaction() as tx:
        await store.preferences.lock_default(tx, feature_type, tenant_id=TENANT)
        return await store.preferences.put_default(tx, default, tenant_id=TENANT, now=START)


async def groups_of(store: Store, *, with_empty: bool = False) -> list[PreferenceGroup]:
    found, _ = await store.preference_groups.list(
        tenant_id=TENANT, feature_type="", with_empty=with_empty, page_size=1000, after=None
    )
    return found


async def changes_of(store: Store, *, after: int = 0) -> Sequence[PreferenceChange]:
    return await store.preference_changes.after(after, tenant_id=TENANT, limit=10_000)


async def all_preferences(store: Store) -> list[Preference]:
    found, _ = await store.preferences.list(
        PreferenceFilter(tenant_id=TENANT), page_size=1000, after=None
    )
    return found


def replayed(changes: Iterable[PreferenceChange]) -> dict[tuple[str, str], int | None]:
    """Returns the group of each preference, as the changes tell it."""
    state: dict[tuple[str, str], int | None] = {}
    for change in changes:
        key = (change.feature_type, change.user_id)
        if change.kind is ChangeKind.DELETED:
            assert state.pop(key) == change.group_left
        elif change.kind is ChangeKind.SET:
            moved = change.group_left is not None or change.group_joined is not None
            if moved:
                assert state.get(key) == change.group_left
            state[key] = change.group_joined if moved else state.get(key)
    return state


async def test_users_who_wish_the_same_are_one_group(store: Store) -> None:
    await put(
        store,
        make_preference("user_1", schedule=MORNING),
        make_preference("user_2", schedule=MORNING),
        make_preference("user_3", schedule=EVENING),
        make_preference("user_4"),
        make_preference("user_5", schedule=MORNING, enabled=False),
        make_preference("user_1", "reports", schedule=MORNING),
    )

    found = await groups_of(store)

    assert {(each.feature_type, each.schedule): each.member_count for each in found} == {
        ("posts", MORNING): 2,
        ("posts", EVENING): 1,
        ("posts", None): 1,
        ("reports", MORNING): 1,
    }


async def test_a_change_moves_one_user_between_two_groups(store: Store) -> None:
    [first, _] = await put(
        store,
        make_preference("user_1", schedule=MORNING),
        make_preference("user_2", schedule=MORNING),
    )

    [moved] = await put(store, make_preference("user_1", schedule=EVENING, revision=2))

    assert moved.group_left == first.group_joined
    morning, evening = await groups_of(store)
    assert (morning.schedule, morning.member_count) == (MORNING, 1)
    assert (evening.group_key, evening.member_count) == (moved.group_joined, 1)
    members, _ = await store.preferences.list_members(
        evening.group_key, tenant_id=TENANT, page_size=10, after=None
    )
    assert [member.user_id for member in members] == ["user_1"]


async def test_a_user_who_stays_leaves_and_joins_nothing(store: Store) -> None:
    await put(store, make_preference(schedule=MORNING))

    [change] = await put(
        store, make_preference(schedule=MORNING, revision=2, template_overrides={"tone": "warm"})
    )

    assert (change.group_left, change.group_joined, change.revision) == (None, None, 2)


async def test_a_user_who_opts_out_leaves_and_the_empty_group_is_kept_apart(store: Store) -> None:
    [first] = await put(store, make_preference(schedule=MORNING))

    [change] = await put(store, make_preference(schedule=MORNING, enabled=False, revision=2))

    assert (change.group_left, change.group_joined) == (first.group_joined, None)
    assert await groups_of(store) == []
    assert [each.member_count for each in await groups_of(store, with_empty=True)] == [0]


async def test_what_is_deleted_is_gone_from_its_group(store: Store) -> None:
    [first] = await put(store, make_preference(schedule=MORNING))

    [change] = await delete(store, ("posts", "user_1"), ("posts", "nobody"))

    assert (change.kind, change.group_left) == (ChangeKind.DELETED, first.group_joined)
    assert not change.enabled
    assert await all_preferences(store) == []
    assert await groups_of(store) == []


async def test_members_come_page_by_page(store: Store) -> None:
    changes = await put(store, *(make_preference(f"user_{n}") for n in range(5)))
    key = changes[0].group_joined
    assert key is not None

    seen, after = [], None
    for _ in range(3):
        page, after = await store.preferences.list_members(
            key, tenant_id=TENANT, page_size=2, after=after
        )
        seen.append([member.user_id for member in page])

    assert seen == [["user_0", "user_1"], ["user_2", "user_3"], ["user_4"]]
    assert after is None


async def test_another_tenant_sees_neither_group_nor_members_nor_changes(store: Store) -> None:
    [change] = await put(store, make_preference())
    key = change.group_joined
    assert key is not None

    assert await store.preference_groups.get(key, tenant_id="other") is None
    assert await store.preferences.list_members(
        key, tenant_id="other", page_size=10, after=None
    ) == ([], None)
    assert await store.preference_changes.after(0, tenant_id="other", limit=10) == []
    assert await store.preference_changes.newest(tenant_id="other") == 0


@pytest.mark.parametrize(
    ("feature_type", "with_empty", "found"),
    [
        ("", False, ["a posts MORNING", "a reports EVENING", "b posts EVENING", "b posts MORNING"]),
        ("posts", False, ["a posts MORNING", "b posts EVENING", "b posts MORNING"]),
        ("reports", True, ["a reports EVENING", "c reports MORNING"]),
    ],
    ids=["all", "of a feature", "with those without members"],
)
async def test_the_groups_of_all_tenants_come_by_tenant_each_once(
    store: Store, feature_type: str, with_empty: bool, found: list[str]
) -> None:
    await put(store, make_preference(feature_type="reports", schedule=MORNING), tenant_id="c")
    await put(store, make_preference(feature_type="reports", enabled=False), tenant_id="c")
    await put(store, make_preference("user_1", schedule=EVENING), tenant_id="b")
    await put(store, make_preference("user_2", schedule=MORNING), tenant_id="b")
    await put(store, make_preference(feature_type="reports", schedule=EVENING), tenant_id="a")
    await put(store, make_preference(schedule=MORNING), tenant_id="a")

    groups: list[PreferenceGroup] = []
    after: GroupPlace | None = None
    for _ in range(3):
        page, after = await store.preference_groups.list(
            tenant_id=None,
            feature_type=feature_type,
            with_empty=with_empty,
            page_size=2,
            after=after,
        )
        groups += page
        if after is None:
            break

    names = {MORNING: "MORNING", EVENING: "EVENING"}
    assert [
        f"{each.tenant_id} {each.feature_type} {names[each.schedule]}"
        for each in groups
        if each.schedule is not None
    ] == found
    assert after is None


async def test_the_changes_of_the_tenants_after_one_come_by_tenant_and_in_order(
    store: Store,
) -> None:
    of_b = await put(store, make_preference("user_1"), make_preference("user_2"), tenant_id="b")
    of_a = await put(store, make_preference("user_1"), tenant_id="a")
    of_b += await put(store, make_preference("user_1", revision=2), tenant_id="b")
    changes = store.preference_changes

    assert await changes.after_tenant("", limit=10) == [*of_a, *of_b]
    assert await changes.after_tenant("a", limit=2) == of_b[:2]
    assert await changes.after_tenant("b", limit=10) == []
    assert [change.tenant_id for change in (*of_a, *of_b)] == ["a", "b", "b", "b"]


async def test_a_thousand_at_once_are_numbered_in_their_order(store: Store) -> None:
    wishes = [
        make_preference(f"user_{n:04}", schedule=Schedule(cadence=Daily(at=time(n % 24))))
        for n in range(1000)
    ]

    changes = await put(store, *wishes)

    assert [change.sequence for change in changes] == list(range(1, 1001))
    assert await changes_of(store) == changes
    counts = {each.group_key: each.member_count for each in await groups_of(store)}
    assert counts == Counter(change.group_joined for change in changes)


async def test_changes_at_the_same_time_lose_no_number_and_no_member(store: Store) -> None:
    async def change(number: int) -> None:
        wish = MORNING if number % 2 else EVENING
        other = EVENING if number % 2 else MORNING
        first = make_preference(f"user_{number}", schedule=wish)
        second = make_preference(f"user_{number + 1}", schedule=other)
        await put(store, *(first, second) if number % 3 else (second, first))

    await asyncio.gather(*(change(number) for number in range(20)))

    changes = await changes_of(store)
    assert [each.sequence for each in changes] == list(range(1, 41))
    counts = {each.group_key: each.member_count for each in await groups_of(store)}
    assert counts == Counter(replayed(changes).values())


async def test_time_does_not_go_back_from_one_change_to_the_next(store: Store) -> None:
    await put(store, make_preference("user_1"), now=START + timedelta(hours=1))

    [change] = await put(store, make_preference("user_2"), now=START)

    assert change.change_time == START + timedelta(hours=1)


async def test_the_changes_of_one_preference_since_a_time_come_in_order(store: Store) -> None:
    hour = timedelta(hours=1)
    first = make_preference(schedule=MORNING)
    other = make_preference("user_2", schedule=MORNING)
    moved = make_preference(schedule=EVENING, revision=2)
    toned = make_preference(schedule=EVENING, revision=3, template_overrides={"tone": "dry"})
    await put(store, first, other)
    [second] = await put(store, moved, now=START + hour)
    await put(store, make_preference(feature_type="news"), now=START + hour)
    [third] = await put(store, toned, now=START + 2 * hour)

    async def of_user(since, limit: int = 10):
        return await store.preference_changes.of_user(
            "user_1", feature_type="posts", tenant_id=TENANT, since=since, limit=limit
        )

    assert [change.revision for change in await of_user(START)] == [1, 2, 3]
    assert await of_user(START + hour) == [second, third]
    assert await of_user(START, limit=1) == [third]
    assert await of_user(START + 3 * hour) == []


async def test_users_are_counted_who_rest_and_who_say_nothing(store: SqlStore) -> None:
    await put(
        store,
        make_preference("user_1", schedule=MORNING),
        make_preference("user_2", schedule=MORNING, active=False),
        make_preference("user_3", "news", active=False),
        make_preference("user_4", enabled=False, active=False),
    )
    users = [(f"user_{number}", number < 8) for number in range(10)]
    async with store.transaction() as tx:
        await store.users.load(tx, tenant_id=TENANT, users=users, now=START)
        await store.users.load(tx, tenant_id="other", users=[("user_99", True)], now=START)
    groups = store.preference_groups
    news, posts = [group.group_key for group in await groups_of(store)]

    resting = await groups.resting_counts(tenant_id=TENANT, feature_type="")
    of_posts = await groups.resting_counts(tenant_id=TENANT, feature_type="posts")

    assert (resting, of_posts) == ({news: 1, posts: 1}, {posts: 1})
    assert await groups.silent_count("posts", tenant_id=TENANT) == 4
    assert await groups.silent_count("mails", tenant_id=TENANT) == 5
    assert await groups.feature_types(tenant_id=TENANT) == ["news", "posts"]


async def test_the_oldest_changes_are_forgotten_and_numbers_go_on(store: Store) -> None:
    for hours in range(4):
        await put(store, make_preference(f"user_{hours}"), now=START + timedelta(hours=hours))

    forgotten = await store.preference_changes.forget(before=START + timedelta(hours=3), limit=2)

    assert forgotten == 2
    assert [change.sequence for change in await changes_of(store)] == [3, 4]
    await store.preference_changes.forget(before=START + timedelta(days=1), limit=10)
    assert await changes_of(store) == []
    assert await store.preference_changes.newest(tenant_id=TENANT) == 4
    [change] = await put(store, make_preference("user_9"))
    assert change.sequence == 5


async def test_a_default_is_kept_and_told(store: Store) -> None:
    change = await put_default(store, "posts", revision=1)

    default = await store.preferences.get_default("posts", tenant_id=TENANT)
    assert default is not None
    assert (default.schedule, default.etag) == (MORNING, "r1")
    assert await store.preferences.get_default("posts", tenant_id="other") is None
    assert (change.kind, change.user_id) == (ChangeKind.DEFAULT_SET, "")
    assert await changes_of(store) == [change]


@pytest.mark.parametrize("seed", [1, 2, 3])
async def test_after_any_changes_the_groups_and_the_log_tell_what_is_stored(
    store: Store, seed: int
) -> None:
    choose = random.Random(seed)
    schedules = (None, MORNING, EVENING, Schedule(cadence=Daily(at=time(7))))

    for step in range(40):
        users = choose.sample([f"user_{n}" for n in range(8)], choose.randint(1, 4))
        feature = choose.choice(("posts", "reports"))
        match choose.choice(("set", "set", "delete", "default")):
            case "set":
                await put(
                    store,
                    *(
                        make_preference(
                            user,
                            feature,
                            schedule=choose.choice(schedules),
                            enabled=choose.random() < 0.8,
                            revision=step + 1,
                        )
                        for user in users
                    ),
                )
            case "delete":
                await delete(store, *((feature, user) for user in users))
            case "default":
                await put_default(store, feature, revision=step + 1)

    stored = await all_preferences(store)
    groups = await groups_of(store, with_empty=True)
    counted = Counter((each.feature_type, each.schedule) for each in stored if each.enabled)
    kept = {(each.feature_type, each.schedule): each.member_count for each in groups}
    assert {key: count for key, count in kept.items() if count} == dict(counted)
    by_wish = {(each.feature_type, each.schedule): each.group_key for each in groups}
    changes = await changes_of(store)
    assert [change.sequence for change in changes] == list(range(1, len(changes) + 1))
    assert replayed(changes) == {
        (each.feature_type, each.user_id): (
            by_wish[each.feature_type, each.schedule] if each.enabled else None
        )
        for each in stored
    }


async def test_a_reader_beside_writers_sees_every_change_in_its_order(store: Store) -> None:
    writers, each = 6, 15

    async def write(number: int) -> None:
        random_order = random.Random(number)
        for revision in range(1, each + 1):
            chosen = random_order.choice([MORNING, EVENING, None])
            await put(store, make_preference(f"user_{number}", revision=revision, schedule=chosen))

    async def read() -> list[int]:
        seen: list[int] = []
        while len(seen) < writers * each:
            last = seen[-1] if seen else 0
            found = await store.preference_changes.after(last, tenant_id=TENANT, limit=10)
            assert [change.sequence for change in found] == list(
                range(last + 1, last + 1 + len(found))
            ), "a reader that goes on from the last one would miss what comes late"
            seen += [change.sequence for change in found]
            await asyncio.sleep(0)
        return seen

    async with asyncio.TaskGroup() as group:
        readers = [group.create_task(read()) for _ in range(2)]
        for number in range(writers):
            group.create_task(write(number))

    assert [reader.result() for reader in readers] == [list(range(1, writers * each + 1))] * 2
