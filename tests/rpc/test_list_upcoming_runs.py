"""ListUpcomingRuns shows when jobs are due, with the rule that was applied."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import islice, pairwise
from typing import Any

import grpc
import pytest
from batchwork.v1.job_service_pb2 import (
    ListUpcomingRunsRequest,
    PauseJobRequest,
    UpcomingRun,
)
from batchwork.v1.schedule_pb2 import DUE_RULE_FOLD, DUE_RULE_GAP
from batchwork_server.domain.due_times import due_times
from batchwork_server.domain.schedule import parse_schedule
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


def schedule_number(number: int) -> dict[str, Any]:
    time_of_day = f"{number % 24:02}:{number * 7 % 60:02}"
    zone = ("UTC", "Europe/Berlin", "Asia/Kolkata")[number % 3]
    cadences = (
        {"frequency": "hourly", "minute": number % 60},
        {"frequency": "daily", "at": time_of_day},
        {"frequency": "weekly", "days": ["monday"], "at": time_of_day},
        {"frequency": "monthly", "day_of_month": 1 + number % 31, "at": time_of_day},
    )
    return cadences[number // 3 % 4] | {"time_zone": zone}


@pytest.mark.parametrize(
    "ahead", [pytest.param(0, id="from now on"), pytest.param(40, id="in forty days")]
)
async def test_of_very_many_jobs_the_first_pages_are_those_of_all_of_them(api, ahead):
    """Only the jobs that run next are read for a page of what is to come."""
    numbers = range(500)
    await api.import_jobs(
        *(make_job(f"job-{n:03}", schedule=schedule_number(n)) for n in numbers),
        make_job("job-paused", schedule={"frequency": "hourly"}),
        make_job("job-on-request"),
    )
    await api.jobs.PauseJob(PauseJobRequest(job_id="job-paused"))
    begin = datetime.now(UTC) + timedelta(days=ahead, minutes=1)

    pages, token = [], ""
    for _ in range(5):
        request = ListUpcomingRunsRequest(
            start_time=timestamp_to(begin), page_size=100, page_token=token
        )
        page = await api.jobs.ListUpcomingRuns(request)
        pages += [(run.due_time.ToDatetime(UTC), run.job_id) for run in page.runs]
        token = page.next_page_token

    assert pages == sorted(first_runs(numbers, begin=begin))[:500]
    assert len({job_id for _, job_id in pages}) > 125, "not the hourly ones alone"


def first_runs(numbers: range, *, begin: datetime) -> Iterator[tuple[datetime, str]]:
    """Yields the first runs of each job on its own."""
    for number in numbers:
        schedule, _ = parse_schedule(schedule_number(number), path="$")
        assert schedule is not None
        instant = begin - timedelta(microseconds=1)
        found = due_times(schedule, zone="UTC", after=instant, created=begin)
        yield from ((due.instant, f"job-{number:03}") for due in islice(found, 30))


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
