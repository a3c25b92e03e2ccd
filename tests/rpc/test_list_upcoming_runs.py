"""ListUpcomingRuns shows when jobs are due, with the rule that was applied."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any

import grpc
import pytest
from batchwork.v1.job_service_pb2 import ListUpcomingRunsRequest, UpcomingRun
from batchwork.v1.schedule_pb2 import DUE_RULE_FOLD, DUE_RULE_GAP
from batchwork_server.rpc.values import timestamp_to

from tests.rpc.api import make_job, refused

DAILY = {"frequency": "daily", "at": "02:30", "time_zone": "Europe/Berlin"}


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


async def upcoming(api, start: str = "2026-03-28", **fields) -> list[UpcomingRun]:
    request = ListUpcomingRunsRequest(**{"start_time": timestamp_to(at(start))} | fields)
    return list((await api.jobs.ListUpcomingRuns(request)).runs)


@pytest.fixture
async def jobs(api) -> None:
    await api.import_jobs(
        make_job("job-daily", schedule=DAILY),
        make_job("job-hourly", schedule={"frequency": "hourly", "minute": 30}),
        make_job("job-on-request"),
    )


@pytest.mark.usefixtures("jobs")
async def test_a_run_tells_its_instant_its_local_time_and_its_rule(api):
    before, spring = await upcoming(api, job_ids=["job-daily"], page_size=2)
    (autumn,) = await upcoming(api, "2026-10-25", job_ids=["job-daily"], page_size=1)

    assert before.due_time.ToDatetime(UTC) == at("2026-03-28T01:30")
    assert not before.rules
    assert spring.due_time.ToDatetime(UTC) == at("2026-03-29T01:00")
    assert spring.local_time == "2026-03-29T03:00:00+02:00"
    assert spring.scheduled_local_time == "2026-03-29T02:30:00"
    assert (spring.time_zone, list(spring.rules)) == ("Europe/Berlin", [DUE_RULE_GAP])
    assert autumn.due_time.ToDatetime(UTC) == at("2026-10-25T00:30")
    assert list(autumn.rules) == [DUE_RULE_FOLD]


@pytest.mark.usefixtures("jobs")
async def test_runs_of_all_scheduled_jobs_come_in_the_order_of_their_due_times(api):
    runs = await upcoming(api, end_time=timestamp_to(at("2026-03-29")))

    assert len(runs) == 25
    assert {run.job_id for run in runs} == {"job-daily", "job-hourly"}
    places = [(run.due_time.ToDatetime(UTC), run.job_id) for run in runs]
    assert places == sorted(places)
    assert places[1:3] == [
        (at("2026-03-28T01:30"), "job-daily"),
        (at("2026-03-28T01:30"), "job-hourly"),
    ], "at one instant by id"


@pytest.mark.usefixtures("jobs")
@pytest.mark.parametrize("page_size", [1, 2, 7])
async def test_pages_add_up_to_the_whole(api, page_size):
    fields: dict[str, Any] = {
        "start_time": timestamp_to(at("2026-03-28")),
        "end_time": timestamp_to(at("2026-03-28T06:00")),
    }
    token, paged = "", []
    while True:
        request = ListUpcomingRunsRequest(page_size=page_size, page_token=token, **fields)
        page = await api.jobs.ListUpcomingRuns(request)
        paged += page.runs
        token = page.next_page_token
        if not token:
            break

    assert paged == await upcoming(api, **fields)
    assert len(paged) == 7


@pytest.mark.usefixtures("jobs")
async def test_without_a_start_it_begins_now(api):
    now = datetime.now(UTC)

    runs = list((await api.jobs.ListUpcomingRuns(ListUpcomingRunsRequest(page_size=5))).runs)

    times = [run.due_time.ToDatetime(UTC) for run in runs]
    assert now - timedelta(seconds=1) <= times[0] <= now + timedelta(hours=1)
    assert all(earlier <= later for earlier, later in pairwise(times))


async def test_a_spread_run_begins_later_by_less_than_its_jitter(api):
    schedule = {"frequency": "hourly", "jitter": 600}
    await api.import_jobs(make_job("job-1", schedule=schedule))

    runs = await upcoming(api, page_size=50)

    delays = [run.start_time.ToDatetime() - run.due_time.ToDatetime() for run in runs]
    assert all(timedelta(0) <= delay < timedelta(minutes=10) for delay in delays)
    assert len(set(delays)) > 10
    assert runs == await upcoming(api, page_size=50), "the same each time"


async def test_a_schedule_without_a_zone_is_meant_in_that_of_the_server(api):
    await api.import_jobs(make_job("job-1", schedule={"frequency": "daily", "at": "09:00"}))

    (run,) = await upcoming(api, page_size=1)

    assert (run.time_zone, run.local_time) == ("UTC", "2026-03-28T09:00:00+00:00")


@pytest.mark.usefixtures("jobs")
async def test_a_job_that_does_not_exist_is_named(api):
    request = ListUpcomingRunsRequest(job_ids=["job-daily", "job-none"])
    refusal = await refused(api.jobs.ListUpcomingRuns(request))

    assert refusal.code is grpc.StatusCode.NOT_FOUND
    assert "job-none" in refusal.message


@pytest.mark.usefixtures("jobs")
async def test_a_job_without_a_schedule_has_no_runs(api):
    assert await upcoming(api, job_ids=["job-on-request"]) == []


@pytest.mark.parametrize(
    "fields, paths",
    [
        ({"job_ids": ["?"], "page_size": -1}, {"job_ids[0]", "page_size"}),
        ({"page_token": "abc"}, {"page_token"}),
        (
            {
                "start_time": timestamp_to(at("2026-03-28")),
                "end_time": timestamp_to(at("2026-03-28")),
            },
            {"end_time"},
        ),
    ],
)
async def test_everything_that_is_wrong_is_named(api, fields, paths):
    refusal = await refused(api.jobs.ListUpcomingRuns(ListUpcomingRunsRequest(**fields)))

    assert set(refusal.violations) == paths


@pytest.mark.usefixtures("jobs")
async def test_a_token_holds_only_for_the_list_of_its_first_page(api):
    page = await api.jobs.ListUpcomingRuns(ListUpcomingRunsRequest(page_size=1))

    other = ListUpcomingRunsRequest(page_token=page.next_page_token, job_ids=["job-daily"])
    refusal = await refused(api.jobs.ListUpcomingRuns(other))

    assert set(refusal.violations) == {"page_token"}
