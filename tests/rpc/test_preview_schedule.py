"""PreviewSchedule tells when a schedule would be due that nobody has stored."""

from __future__ import annotations

from datetime import UTC, datetime

import grpc
from batchwork.v1.preference_pb2 import (
    PREFERENCE_ORIGIN_SERVER,
    PREFERENCE_ORIGIN_TENANT_DEFAULT,
    PREFERENCE_ORIGIN_USER,
)
from batchwork.v1.preference_service_pb2 import PreviewScheduleRequest
from batchwork.v1.schedule_pb2 import (
    DUE_RULE_GAP,
    WEEKDAY_MONDAY,
    WEEKDAY_TUESDAY,
    Schedule,
    WeeklyCadence,
)

from tests.rpc.api import refused
from tests.rpc.preferences import daily, put_default


def request_of(schedule: Schedule, **fields) -> PreviewScheduleRequest:
    request = PreviewScheduleRequest(schedule=schedule, **fields)
    request.start_time.FromDatetime(datetime(2026, 3, 28, tzinfo=UTC))
    return request


async def test_a_day_on_which_the_clock_jumps_is_noted(api):
    schedule = daily("02:30", time_zone="Europe/Berlin")

    answer = await api.preferences.PreviewSchedule(request_of(schedule, count=3))

    assert [run.local_time for run in answer.runs] == [
        "2026-03-28T02:30:00+01:00",
        "2026-03-29T03:00:00+02:00",
        "2026-03-30T02:30:00+02:00",
    ]
    assert [list(run.rules) for run in answer.runs] == [[], [DUE_RULE_GAP], []]
    assert answer.time_zone_origin == PREFERENCE_ORIGIN_USER


async def test_a_schedule_without_a_zone_borrows_that_of_the_feature(api):
    await put_default(api, schedule=daily(time_zone="Asia/Tokyo"))

    borrowed = await api.preferences.PreviewSchedule(request_of(daily(), feature_type="posts"))
    own = await api.preferences.PreviewSchedule(request_of(daily()))

    assert borrowed.time_zone_origin == PREFERENCE_ORIGIN_TENANT_DEFAULT
    assert {run.time_zone for run in borrowed.runs} == {"Asia/Tokyo"}
    assert own.time_zone_origin == PREFERENCE_ORIGIN_SERVER
    assert (len(own.runs), own.runs[0].time_zone) == (10, "UTC")


async def test_all_that_is_wrong_is_answered_at_once(api):
    two_days = WeeklyCadence(days=[WEEKDAY_MONDAY, WEEKDAY_TUESDAY], at="09:00")

    refusal = await refused(
        api.preferences.PreviewSchedule(request_of(Schedule(weekly=two_days), count=101))
    )
    empty = await refused(api.preferences.PreviewSchedule(PreviewScheduleRequest(count=-1)))

    assert refusal.code is grpc.StatusCode.INVALID_ARGUMENT
    assert sorted(refusal.violations) == ["count", "schedule"]
    assert sorted(empty.violations) == ["count", "schedule"]
