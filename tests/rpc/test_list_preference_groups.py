"""ListPreferenceGroups shows who is served together, and when."""

from __future__ import annotations

import pytest
from batchwork.v1.preference_pb2 import (
    PREFERENCE_ORIGIN_JOB_DEFAULT,
    PREFERENCE_ORIGIN_USER,
)
from batchwork.v1.preference_service_pb2 import ListPreferenceGroupsRequest
from batchwork.v1.schedule_pb2 import (
    WEEKDAY_FRIDAY,
    WEEKDAY_MONDAY,
    BiweeklyCadence,
    HourlyCadence,
    MonthlyCadence,
    Schedule,
    WeeklyCadence,
)

from tests.rpc.api import refused
from tests.rpc.preferences import daily, groups_of, make_driven_job, put


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (daily("09:00"), daily("09:30")),
        (daily(time_zone="Asia/Tokyo"), daily(time_zone="Europe/Berlin")),
        (
            Schedule(weekly=WeeklyCadence(days=[WEEKDAY_MONDAY], at="09:00")),
            Schedule(weekly=WeeklyCadence(days=[WEEKDAY_FRIDAY], at="09:00")),
        ),
        (
            Schedule(biweekly=BiweeklyCadence(days=[WEEKDAY_MONDAY], at="09:00")),
            Schedule(biweekly=BiweeklyCadence(days=[WEEKDAY_MONDAY], at="10:00")),
        ),
        (
            Schedule(monthly=MonthlyCadence(day_of_month=1, at="09:00")),
            Schedule(monthly=MonthlyCadence(day_of_month=2, at="09:00")),
        ),
        (Schedule(hourly=HourlyCadence()), Schedule(hourly=HourlyCadence(minute=30))),
    ],
    ids=["time", "zone", "day of the week", "second week", "day of the month", "minute"],
)
async def test_users_are_together_when_their_schedules_are_the_same(api, one, other):
    await put(api, "ada", schedule=one)
    await put(api, "bob", schedule=other)
    await put(api, "cyd", schedule=one)

    found = await groups_of(api)

    assert [(group.schedule, group.member_count) for group in found] == [(one, 2), (other, 1)]


async def test_a_group_is_due_for_each_job_that_its_feature_drives(api):
    await api.import_jobs(
        make_driven_job("job-a", schedule={"frequency": "hourly", "timezone": "Asia/Tokyo"}),
        make_driven_job("job-b"),
    )
    await put(api, schedule=daily())

    [group] = await groups_of(api)

    assert group.effective_schedule == daily(time_zone="Asia/Tokyo")
    assert group.schedule_origin == PREFERENCE_ORIGIN_USER
    assert group.time_zone_origin == PREFERENCE_ORIGIN_JOB_DEFAULT
    assert [(run.job_id, run.time_zone) for run in group.next_runs] == [
        ("job-a", "Asia/Tokyo"),
        ("job-b", "UTC"),
    ]


async def test_filters_and_pages_add_up(api):
    for feature in ("posts", "reports"):
        for at in ("08:00", "09:00"):
            await put(api, feature_type=feature, user_id=f"user-{at[:2]}", schedule=daily(at))
    request = ListPreferenceGroupsRequest(page_size=3)
    first = await api.preferences.ListPreferenceGroups(request)

    rest = await groups_of(api, page_size=3, page_token=first.next_page_token)
    reports = await groups_of(api, feature_type="reports")

    assert [group.feature_type for group in (*first.groups, *rest)] == [
        *("posts", "posts"),
        *("reports", "reports"),
    ]
    assert reports == [first.groups[2], *rest]


async def test_groups_without_members_are_shown_on_request(api):
    await put(api, schedule=daily())
    await put(api, enabled=False, schedule=daily())

    assert await groups_of(api) == []
    assert [group.member_count for group in await groups_of(api, with_empty=True)] == [0]


@pytest.mark.parametrize(
    ("fields", "path"),
    [
        ({"page_size": -1}, "page_size"),
        ({"page_token": "garbage"}, "page_token"),
        ({"feature_type": "a\n"}, "feature_type"),
    ],
)
async def test_bad_filters_are_violations(api, fields, path):
    refusal = await refused(groups_of(api, **fields))

    assert list(refusal.violations) == [path]
