"""SetPreference keeps what a user wishes."""

from __future__ import annotations

from typing import Any, cast

import grpc
import pytest
from batchwork.v1.preference_pb2 import Preference
from batchwork.v1.preference_service_pb2 import GetPreferenceRequest, SetPreferenceRequest
from batchwork.v1.schedule_pb2 import (
    WEEKDAY_MONDAY,
    WEEKDAY_TUESDAY,
    BiweeklyCadence,
    DailyCadence,
    HourlyCadence,
    MonthlyCadence,
    Schedule,
    Weekday,
    WeeklyCadence,
)
from google.protobuf.field_mask_pb2 import FieldMask
from google.protobuf.json_format import MessageToDict

from tests.rpc.api import refused
from tests.rpc.preferences import daily, make_driven_job, put, put_default

DAY_9 = cast("Weekday.ValueType", 9)


def make_preference(**changes: Any) -> Preference:
    defaults: dict[str, Any] = {"user_id": "ada", "feature_type": "posts", "enabled": True}
    return Preference(**defaults | changes)


async def set_preference(api, preference, **fields):
    request = SetPreferenceRequest(preference=preference, **fields)
    return (await api.preferences.SetPreference(request)).preference


@pytest.mark.parametrize(
    "schedule",
    [
        pytest.param(Schedule(hourly=HourlyCadence()), id="hourly, on the hour"),
        pytest.param(Schedule(hourly=HourlyCadence(minute=30)), id="hourly"),
        pytest.param(
            Schedule(daily=DailyCadence(at="09:00"), time_zone="Europe/Berlin"), id="daily"
        ),
        pytest.param(
            Schedule(weekly=WeeklyCadence(days=[WEEKDAY_MONDAY], at="09:00")), id="weekly"
        ),
        pytest.param(
            Schedule(
                biweekly=BiweeklyCadence(
                    days=[WEEKDAY_MONDAY], at="09:00", anchor_date="2026-03-02"
                )
            ),
            id="biweekly",
        ),
        pytest.param(
            Schedule(monthly=MonthlyCadence(day_of_month=-1, at="09:00")), id="last of the month"
        ),
    ],
)
async def test_a_preference_is_kept_as_it_was_set(api, schedule):
    overrides = {"tone": "warm", "item_limit": 5}

    stored = await set_preference(
        api, make_preference(schedule=schedule, template_overrides=overrides)
    )

    assert stored.schedule == schedule
    assert dict(stored.template_overrides) == overrides
    assert stored.etag
    found = await api.preferences.GetPreference(
        GetPreferenceRequest(user_id="ada", feature_type="posts")
    )
    assert found.preference == stored


async def test_a_mask_sets_only_what_it_names(api):
    await set_preference(api, make_preference(template_overrides={"tone": "warm"}))

    stored = await set_preference(
        api, make_preference(enabled=False), update_mask=FieldMask(paths=["enabled"])
    )

    assert not stored.enabled
    assert dict(stored.template_overrides) == {"tone": "warm"}


async def test_the_etag_changes_with_the_preference(api):
    first = await set_preference(api, make_preference())
    same = await set_preference(api, make_preference())
    other = await set_preference(api, make_preference(enabled=False))

    assert same.etag == first.etag
    assert other.etag != first.etag


async def test_an_etag_that_is_out_of_date_is_refused(api):
    first = await set_preference(api, make_preference())
    await set_preference(api, make_preference(enabled=False))

    stale = SetPreferenceRequest(preference=make_preference(etag=first.etag))
    refusal = await refused(api.preferences.SetPreference(stale))

    assert refusal.code is grpc.StatusCode.ABORTED
    assert refusal.reason == "ETAG_MISMATCH"


async def test_the_same_request_id_gets_the_first_answer(api):
    first = await set_preference(api, make_preference(), request_id="request-1")
    await set_preference(api, make_preference(enabled=False))

    again = await set_preference(api, make_preference(), request_id="request-1")

    assert again == first


async def test_a_request_id_with_other_content_is_refused(api):
    await set_preference(api, make_preference(), request_id="request-1")

    other = SetPreferenceRequest(preference=make_preference(enabled=False), request_id="request-1")
    refusal = await refused(api.preferences.SetPreference(other))

    assert refusal.reason == "REQUEST_ID_REUSED"


async def test_an_unknown_zone_is_refused_by_its_name(api):
    schedule = Schedule(daily=DailyCadence(at="09:00"), time_zone="Europe/Berlyn")

    refusal = await refused(set_preference(api, make_preference(schedule=schedule)))

    assert refusal.code is grpc.StatusCode.INVALID_ARGUMENT
    assert refusal.reason == "UNKNOWN_TIME_ZONE"
    assert list(refusal.violations) == ["preference.schedule.time_zone"]


@pytest.mark.parametrize(
    ("schedule", "path"),
    [
        pytest.param(Schedule(), "preference.schedule", id="no cadence"),
        pytest.param(
            Schedule(hourly=HourlyCadence(minute=60)),
            "preference.schedule.hourly.minute",
            id="minute 60",
        ),
        pytest.param(Schedule(daily=DailyCadence()), "preference.schedule.daily.at", id="no time"),
        pytest.param(
            Schedule(daily=DailyCadence(at="24:00")), "preference.schedule.daily.at", id="24:00"
        ),
        pytest.param(
            Schedule(weekly=WeeklyCadence(days=[DAY_9], at="09:00")),
            "preference.schedule.weekly.days",
            id="day 9",
        ),
        pytest.param(
            Schedule(monthly=MonthlyCadence(day_of_month=32, at="09:00")),
            "preference.schedule.monthly.day_of_month",
            id="day 32",
        ),
        pytest.param(
            Schedule(weekly=WeeklyCadence(days=[WEEKDAY_MONDAY, WEEKDAY_TUESDAY], at="09:00")),
            "preference.schedule",
            id="two days of the week",
        ),
    ],
)
async def test_a_schedule_that_cannot_be_is_refused_where_it_is_wrong(api, schedule, path):
    refusal = await refused(set_preference(api, make_preference(schedule=schedule)))

    assert refusal.code is grpc.StatusCode.INVALID_ARGUMENT
    assert list(refusal.violations) == [path]


async def test_all_that_is_wrong_is_answered_at_once(api):
    large = {"large": "x" * 70_000}
    preference = make_preference(
        user_id="a\0", feature_type="", schedule=Schedule(), template_overrides=large
    )

    refusal = await refused(
        set_preference(api, preference, update_mask=FieldMask(paths=["etag"]), request_id="\n")
    )

    assert sorted(refusal.violations) == [
        "preference.feature_type",
        "preference.schedule",
        "preference.template_overrides",
        "preference.user_id",
        "request_id",
        "update_mask",
    ]


async def test_the_answer_tells_the_groups_and_the_next_run_of_each_job(api):
    defaults = {"frequency": "daily", "preferred_time": "07:00", "time_zone": "Asia/Tokyo"}
    await api.import_jobs(
        make_driven_job("job-a"),
        make_driven_job("job-b", default_preferences=defaults),
        make_driven_job("job-c", feature_type="other"),
    )

    first = await put(api, schedule=daily())
    moved = await put(api, schedule=daily("18:00"))
    out = await put(api, enabled=False)

    assert [(run.job_id, run.local_time[10:]) for run in first.next_runs] == [
        ("job-a", "T09:00:00+00:00"),
        ("job-b", "T09:00:00+09:00"),
    ]
    assert not first.HasField("group_left")
    assert moved.group_left == first.group_joined
    assert out.group_left == moved.group_joined
    assert not out.HasField("group_joined")
    assert list(out.next_runs) == []


async def test_without_a_job_the_next_run_is_by_the_default_or_there_is_none(api):
    nothing = await put(api, "ada")
    await put_default(api, schedule=daily(time_zone="Asia/Tokyo"))
    by_default = await put(api, "bob")

    assert list(nothing.next_runs) == []
    assert [(run.job_id, run.time_zone) for run in by_default.next_runs] == [("", "Asia/Tokyo")]


@pytest.mark.parametrize(
    ("overrides", "paths"),
    [
        pytest.param({"tone": 5, "length": "", "sort_by": ["a"]}, ["tone", "length", "sort_by"]),
        pytest.param({"sort_order": "up"}, ["sort_order"]),
        pytest.param({"item_limit": 0}, ["item_limit"]),
        pytest.param({"item_limit": 1_000_001}, ["item_limit"]),
        pytest.param({"item_limit": 2.5}, ["item_limit"]),
        pytest.param({"tags": "one", "categories": ["a", 5]}, ["tags", "categories[1]"]),
        pytest.param({"focus_areas": ["a"] * 101}, ["focus_areas"]),
        pytest.param({"custom_filters": ["a"]}, ["custom_filters"]),
        pytest.param({"custom_filters": {"min_age": "old"}}, ["custom_filters.min_age"]),
    ],
)
async def test_an_override_that_the_service_knows_is_checked(api, overrides, paths):
    refusal = await refused(set_preference(api, make_preference(template_overrides=overrides)))

    assert sorted(refusal.violations) == sorted(
        f"preference.template_overrides.{path}" for path in paths
    )


async def test_overrides_that_are_right_or_unknown_are_kept(api):
    overrides = {
        "tone": "professional",
        "length": "medium",
        "categories": ["fashion", "beauty"],
        "tags": ["trendy"],
        "focus_areas": ["engagement"],
        "sort_by": "popularity",
        "sort_order": "desc",
        "item_limit": 10,
        "custom_filters": {"min_engagement": 3.5, "has_image": True},
        "brand_voice": {"anything": [1, None]},
        "max_words": None,
    }

    stored = await set_preference(api, make_preference(template_overrides=overrides))

    assert MessageToDict(stored.template_overrides) == overrides
