"""ListOccurrences tells what became of the due times of a job."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, time, timedelta

import grpc
import pytest
from batchwork.v1.job_service_pb2 import (
    OCCURRENCE_DECISION_FIRED,
    OCCURRENCE_DECISION_SKIPPED,
    DeleteJobRequest,
    ListOccurrencesRequest,
    Occurrence,
)
from batchwork_server.domain.firing import Decided, Decision, NextRun, SkipReason
from batchwork_server.domain.group_schedules import GroupSchedule
from batchwork_server.domain.schedule import Daily, Schedule
from batchwork_server.rpc.values import timestamp_to
from batchwork_server.store.sql_store import SqlStore
from batchwork_server.store.store import DueJob

from tests.fakes import START
from tests.rpc.api import make_job, refused

HOUR = timedelta(hours=1)
NOW = datetime.now(UTC).replace(microsecond=0)  # the server forgets what was decided long ago


async def decide(
    store: SqlStore, job_id: str, *, tenant_id: str = "default", count: int = 1
) -> None:
    """Writes down that a job was due at so many hours, and skipped at every second of them."""
    job = await store.jobs.get(job_id, tenant_id=tenant_id)
    assert job is not None
    runs = [NextRun(due_time=START + n * HOUR, start_time=START + n * HOUR) for n in range(count)]
    decided = [
        Decided(run=run, decision=Decision.FIRED, batch_id=f"batch-{number}")
        if number % 2 == 0
        else Decided(
            run=run,
            decision=Decision.SKIPPED,
            reason=SkipReason.OVERLAP,
            message="Another run of the job went on.",
        )
        for number, run in enumerate(runs)
    ]
    due = DueJob(job=job, next_run=runs[0], is_running=False)
    async with store.transaction() as tx:
        await store.occurrences.record(tx, due, decided, now=NOW)


@pytest.fixture
async def decisions(api, server) -> None:
    await api.import_jobs(make_job("job-hourly"), make_job("job-quiet"))
    await decide(server.application.store, "job-hourly", count=5)


async def occurrences(api, **fields) -> list[Occurrence]:
    request = ListOccurrencesRequest(**{"job_id": "job-hourly"} | fields)
    return list((await api.jobs.ListOccurrences(request)).occurrences)


def hours_of(found: list[Occurrence]) -> list[int]:
    return [(each.due_time.ToDatetime(UTC) - START) // HOUR for each in found]


@pytest.mark.usefixtures("decisions")
async def test_an_occurrence_tells_its_batch_or_why_there_is_none(api):
    *_, skipped, fired = await occurrences(api)

    assert fired == Occurrence(
        job_id="job-hourly",
        due_time=timestamp_to(START),
        decision=OCCURRENCE_DECISION_FIRED,
        batch_id="batch-0",
        decide_time=timestamp_to(NOW),
    )
    assert skipped == Occurrence(
        job_id="job-hourly",
        due_time=timestamp_to(START + HOUR),
        decision=OCCURRENCE_DECISION_SKIPPED,
        reason="OVERLAP",
        message="Another run of the job went on.",
        decide_time=timestamp_to(NOW),
    )


@pytest.mark.usefixtures("decisions")
async def test_the_newest_come_first_and_a_range_is_closed_and_open(api):
    everything = await occurrences(api)
    some = await occurrences(
        api, start_time=timestamp_to(START + HOUR), end_time=timestamp_to(START + 3 * HOUR)
    )

    assert hours_of(everything) == [4, 3, 2, 1, 0]
    assert hours_of(some) == [2, 1]


@pytest.mark.usefixtures("decisions")
@pytest.mark.parametrize("page_size", [1, 2, 5])
async def test_pages_add_up_to_the_whole(api, page_size):
    token, paged = "", []
    while True:
        request = ListOccurrencesRequest(job_id="job-hourly", page_size=page_size, page_token=token)
        page = await api.jobs.ListOccurrences(request)
        paged += page.occurrences
        token = page.next_page_token
        if not token:
            break

    assert paged == await occurrences(api)


@pytest.mark.usefixtures("decisions")
async def test_a_job_about_which_nothing_was_decided_has_none(api):
    assert await occurrences(api, job_id="job-quiet") == []


@pytest.mark.usefixtures("decisions")
async def test_what_was_decided_outlives_the_job(api):
    await api.jobs.DeleteJob(DeleteJobRequest(job_id="job-hourly"))

    assert len(await occurrences(api)) == 5


async def test_a_job_that_nobody_knows_is_not_found(api):
    refusal = await refused(occurrences(api, job_id="no-such-job"))

    assert refusal.code is grpc.StatusCode.NOT_FOUND


@pytest.mark.parametrize(
    ("fields", "path"),
    [
        pytest.param({"job_id": ""}, "job_id", id="no job"),
        pytest.param({"page_size": -1}, "page_size", id="negative page size"),
        pytest.param({"page_token": "mine"}, "page_token", id="no token"),
        pytest.param(
            {"start_time": timestamp_to(START), "end_time": timestamp_to(START)},
            "end_time",
            id="no time between",
        ),
    ],
)
async def test_what_is_wrong_is_refused_where_it_stands(api, fields, path):
    refusal = await refused(occurrences(api, **fields))

    assert refusal.code is grpc.StatusCode.INVALID_ARGUMENT
    assert list(refusal.violations) == [path]


async def test_due_times_of_groups_stand_with_those_of_the_job(api, server):
    """A job that was made preference-based keeps what it did before."""
    store = server.application.store
    await api.import_jobs(make_job("job-1", preference_based=True, feature_type="posts"))
    row = GroupSchedule(
        tenant_id="default",
        job_id="job-1",
        group_key=7,
        job_revision=1,
        job_create_time=START,
        default_revision=0,
        schedule=Schedule(cadence=Daily(at=time(9)), time_zone="UTC"),
        next_due_time=None,
        last_due_time=START,
    )
    moments = [START + n * HOUR for n in range(3)]
    await decide(store, "job-1", count=3)
    for group_key in (7, 8):
        decided = [
            Decided(
                run=NextRun(due_time=moment, start_time=moment),
                decision=Decision.FIRED,
                batch_id=f"bat-{group_key}",
            )
            for moment in moments
        ]
        async with store.transaction() as tx:
            await store.group_runs.record(tx, replace(row, group_key=group_key), decided, now=NOW)

    found, token = [], ""
    while True:
        request = ListOccurrencesRequest(job_id="job-1", page_size=2, page_token=token)
        answer = await api.jobs.ListOccurrences(request)
        found += answer.occurrences
        token = answer.next_page_token
        if not token:
            break

    days = [(each.due_time.ToDatetime(tzinfo=UTC), each.group_key) for each in found]
    assert days == [(moment, key) for moment in reversed(moments) for key in (8, 7, 0)]
    assert {each.schedule.daily.at for each in found if each.group_key} == {"09:00"}
    assert not any(each.HasField("schedule") for each in found if not each.group_key)
