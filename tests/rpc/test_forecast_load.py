"""ForecastLoad tells how many users are due when."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import grpc
import pytest
from batchwork.v1.job_service_pb2 import PauseJobRequest
from batchwork.v1.preference_service_pb2 import ForecastLoadRequest, ForecastLoadResponse
from batchwork.v1.schedule_pb2 import HourlyCadence, Schedule
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from tests.rpc.api import ADA, BOB, Api, as_caller, refused
from tests.rpc.preferences import daily, make_driven_job, put, put_default

NIGHT = datetime(2026, 3, 29, tzinfo=UTC)  # clocks go forward in Berlin


def stamp(moment: datetime) -> Timestamp:
    found = Timestamp()
    found.FromDatetime(moment)
    return found


async def forecast(api: Api, *, start: datetime = NIGHT, **fields: Any) -> ForecastLoadResponse:
    defaults: dict[str, Any] = {"end_time": stamp(start + timedelta(days=1))}
    request = ForecastLoadRequest(start_time=stamp(start), **defaults | fields)
    answer: ForecastLoadResponse = await api.preferences.ForecastLoad(request)
    return answer


def load(answer: ForecastLoadResponse) -> dict[str, int]:
    return {f"{each.start_time.ToDatetime():%d %H:%M}": each.user_count for each in answer.buckets}


@pytest.fixture
async def users(api: Api) -> None:
    """Four users of one job: two at nine in Berlin, one in Tokyo, one each hour."""
    await api.import_jobs(make_driven_job())
    await put(api, "ada", schedule=daily("09:00", time_zone="Europe/Berlin"))
    await put(api, "bob", schedule=daily("09:00", time_zone="Europe/Berlin"))
    await put(api, "cyd", schedule=daily("09:00", time_zone="Asia/Tokyo"))
    await put(api, "eve", schedule=Schedule(hourly=HourlyCadence(minute=30)))


@pytest.mark.usefixtures("users")
async def test_users_are_counted_in_the_minute_in_which_they_are_due(api):
    answer = await forecast(api)

    counted = load(answer)
    assert (counted["29 07:00"], counted["29 00:00"]) == (2, 1)
    assert sum(hour.endswith(":30") for hour in counted) == 24
    assert (answer.user_count, answer.run_count) == (27, 26)


@pytest.mark.usefixtures("users")
async def test_a_longer_stretch_counts_all_that_is_due_in_it(api):
    day = await forecast(api, bucket=Duration(seconds=86_400))
    hours = await forecast(api, bucket=Duration(seconds=3600))

    assert load(day) == {"29 00:00": 27}
    assert load(hours)["29 07:00"] == 3
    assert hours.buckets[7].run_count == 2


@pytest.mark.usefixtures("users")
async def test_users_who_name_no_schedule_are_due_by_the_default(api):
    await put(api, "eve")
    before = await forecast(api)
    await put_default(api, schedule=daily("22:15", time_zone="UTC"))
    after = await forecast(api)

    assert (before.user_count, after.user_count) == (3, 4)
    assert load(after)["29 22:15"] == 1


@pytest.mark.usefixtures("users")
async def test_each_job_of_the_feature_counts_and_a_paused_one_does_not(api):
    await api.import_jobs(make_driven_job("second"))
    both = await forecast(api)
    await api.jobs.PauseJob(PauseJobRequest(job_id="second"))
    one = await forecast(api)

    assert (both.user_count, one.user_count) == (54, 27)


@pytest.mark.usefixtures("users")
async def test_without_a_job_or_users_of_the_feature_nothing_is_due(api):
    await put(api, "dan", feature_type="letters", schedule=daily())

    letters = await forecast(api, feature_type="letters")
    posts = await forecast(api, feature_type="posts")

    assert (len(letters.buckets), posts.user_count) == (0, 27)


@pytest.mark.usefixtures("users")
async def test_without_a_stretch_it_is_the_day_that_begins_now(api):
    answer = await api.preferences.ForecastLoad(ForecastLoadRequest())

    assert answer.user_count == 27


async def test_only_the_tenant_s_own_users_are_counted(guarded):
    for key in (ADA, BOB):
        await guarded.import_jobs(make_driven_job(), metadata=as_caller(key))
    await put(guarded, "ada", schedule=daily(), metadata=as_caller(ADA))

    counts = {}
    for key in (ADA, BOB):
        answer = await guarded.preferences.ForecastLoad(
            ForecastLoadRequest(), metadata=as_caller(key)
        )
        counts[key] = answer.user_count
    refusal = await refused(
        guarded.preferences.ForecastLoad(
            ForecastLoadRequest(tenant_id="blue"), metadata=as_caller(BOB)
        )
    )

    assert counts == {ADA: 1, BOB: 0}
    assert refusal.code is grpc.StatusCode.PERMISSION_DENIED


async def test_everything_that_is_wrong_is_told_at_once(api):
    refusal = await refused(
        api.preferences.ForecastLoad(
            ForecastLoadRequest(
                feature_type="a\nb",
                start_time=stamp(NIGHT),
                end_time=stamp(NIGHT + timedelta(days=9)),
                bucket=Duration(seconds=59),
            )
        )
    )
    backwards = await refused(
        api.preferences.ForecastLoad(
            ForecastLoadRequest(start_time=stamp(NIGHT), end_time=stamp(NIGHT))
        )
    )

    assert refusal.code is grpc.StatusCode.INVALID_ARGUMENT
    assert set(refusal.violations) == {"feature_type", "end_time", "bucket"}
    assert set(backwards.violations) == {"end_time"}
