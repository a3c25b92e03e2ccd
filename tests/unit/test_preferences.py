"""Setting and reading what users wish for."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import time, timedelta
from typing import Any

import pytest
from batchwork_server.application.preferences import Preferences
from batchwork_server.domain.filters import PreferenceFilter
from batchwork_server.domain.preference import Preference, Wish
from batchwork_server.domain.schedule import Daily, Schedule, Weekday, Weekly
from batchwork_server.domain.submission import Idempotency
from batchwork_server.errors import EtagMismatch, InvalidArgument, NotFound, RequestIdReused
from batchwork_server.store.database import open_database
from batchwork_server.store.sql_store import SqlStore

from tests.factories import TENANT
from tests.fakes import START, FakeClock

DAILY = Schedule(cadence=Daily(at=time(9)), time_zone="Europe/Berlin")
WISH = Wish(schedule=DAILY, template_overrides={"tone": "casual"})
REQUEST = Idempotency(request_id="request-1", request_hash="a")


@pytest.fixture
async def preferences(sqlite_url: str, clock: FakeClock) -> AsyncIterator[Preferences]:
    database = await open_database(sqlite_url)
    yield Preferences(store=SqlStore(database), clock=clock, changed=lambda _tenant_id: None)
    await database.close()


async def set_one(preferences: Preferences, wish: Wish = WISH, **options: Any) -> Preference:
    done = await preferences.set_preference(
        wish, **{"user_id": "user_1", "feature_type": "posts", "tenant_id": TENANT} | options
    )
    return done.preference


async def get_one(preferences: Preferences) -> Preference:
    return await preferences.get_preference(
        user_id="user_1", feature_type="posts", tenant_id=TENANT
    )


async def test_setting_what_is_not_set_creates_it(preferences: Preferences) -> None:
    preference = await set_one(preferences)

    assert preference.wish == WISH
    assert (preference.revision, preference.create_time) == (1, START)
    assert await get_one(preferences) == preference


async def test_setting_it_again_replaces_all_of_it(
    preferences: Preferences, clock: FakeClock
) -> None:
    first = await set_one(preferences)
    clock.advance(timedelta(hours=1))

    second = await set_one(preferences, Wish(enabled=False))

    assert second.wish == Wish(enabled=False)
    assert second.etag != first.etag
    assert second.create_time == START
    assert second.update_time == START + timedelta(hours=1)


async def test_setting_what_is_set_already_changes_nothing(
    preferences: Preferences, clock: FakeClock
) -> None:
    first = await set_one(preferences)
    clock.advance(timedelta(hours=1))

    assert await set_one(preferences) == first


async def test_a_preference_of_nothing_but_the_defaults_is_created(
    preferences: Preferences,
) -> None:
    preference = await set_one(preferences, Wish())

    assert await get_one(preferences) == preference


async def test_a_mask_leaves_the_other_fields_as_they_are(preferences: Preferences) -> None:
    await set_one(preferences)

    preference = await set_one(preferences, Wish(enabled=False), update_mask=["enabled"])

    assert preference.wish == Wish(
        enabled=False, schedule=DAILY, template_overrides={"tone": "casual"}
    )


async def test_fields_that_the_mask_of_a_new_preference_leaves_out_have_defaults(
    preferences: Preferences,
) -> None:
    wish = Wish(enabled=False, schedule=DAILY)

    preference = await set_one(preferences, wish, update_mask=["schedule"])

    assert preference.wish == Wish(enabled=True, schedule=DAILY)


async def test_a_star_means_every_field(preferences: Preferences) -> None:
    await set_one(preferences)

    preference = await set_one(preferences, Wish(), update_mask=["*"])

    assert preference.wish == Wish()


async def test_the_etag_that_was_read_lets_the_change_through(preferences: Preferences) -> None:
    first = await set_one(preferences)

    second = await set_one(preferences, Wish(), etag=first.etag)

    assert second.revision == 2


async def test_an_etag_from_before_another_change_is_refused(preferences: Preferences) -> None:
    first = await set_one(preferences)
    second = await set_one(preferences, Wish())

    with pytest.raises(EtagMismatch) as refused:
        await set_one(preferences, Wish(enabled=False), etag=first.etag)

    assert refused.value.metadata == {"etag": second.etag}
    assert await get_one(preferences) == second


async def test_an_etag_of_what_is_not_set_is_refused(preferences: Preferences) -> None:
    with pytest.raises(EtagMismatch):
        await set_one(preferences, etag="r1")

    with pytest.raises(NotFound):
        await get_one(preferences)


async def test_everything_that_is_wrong_is_told_at_once(preferences: Preferences) -> None:
    two_days = Schedule(cadence=Weekly(days=(Weekday.MONDAY, Weekday.FRIDAY), at=time(9)))

    with pytest.raises(InvalidArgument) as refused:
        await set_one(
            preferences,
            Wish(schedule=two_days, template_overrides={"text": "\x00"}),
            user_id="",
            update_mask=["schedule.time_zone"],
        )

    assert [violation.path for violation in refused.value.violations] == [
        "preference.user_id",
        "preference.schedule",
        "preference.template_overrides.text",
        "update_mask",
    ]


async def test_the_same_request_gets_the_first_answer(preferences: Preferences) -> None:
    first = await set_one(preferences, idempotency=REQUEST)
    later = await set_one(preferences, Wish(enabled=False))

    again = await set_one(preferences, idempotency=REQUEST)

    assert again == first
    assert await get_one(preferences) == later


async def test_a_request_id_with_other_content_is_refused(preferences: Preferences) -> None:
    await set_one(preferences, idempotency=REQUEST)

    with pytest.raises(RequestIdReused):
        await set_one(
            preferences, idempotency=Idempotency(request_id="request-1", request_hash="b")
        )


async def test_the_preferences_of_another_tenant_are_not_there(preferences: Preferences) -> None:
    await set_one(preferences, tenant_id="other")

    with pytest.raises(NotFound):
        await get_one(preferences)


async def test_preferences_are_listed_page_by_page(preferences: Preferences) -> None:
    for user_id in ("user_1", "user_2", "user_3"):
        await set_one(preferences, user_id=user_id)
    wanted = PreferenceFilter(tenant_id=TENANT)

    first, after = await preferences.list_preferences(wanted, page_size=2)
    second, end = await preferences.list_preferences(wanted, page_size=2, after=after)

    assert [preference.user_id for preference in (*first, *second)] == [
        "user_1",
        "user_2",
        "user_3",
    ]
    assert end is None
