"""BackfillJob queues due times of the past, and tells what becomes of each."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

import grpc
import pytest
from batchwork.v1.batch_pb2 import BATCH_STATE_SUCCEEDED, Batch
from batchwork.v1.batch_service_pb2 import ListBatchesRequest
from batchwork.v1.job_service_pb2 import (
    BACKFILL_FATE_ALREADY_QUEUED,
    BACKFILL_FATE_ALREADY_RUN,
    BACKFILL_FATE_QUEUED,
    BACKFILL_OVERLAP_ALLOW,
    OCCURRENCE_DECISION_BACKFILLED,
    BackfillJobRequest,
    BackfillJobResponse,
    ListOccurrencesRequest,
    Occurrence,
    PauseJobRequest,
)
from batchwork_server.domain.selection import LoadedItem
from batchwork_server.rpc.values import timestamp_to
from google.protobuf.timestamp_pb2 import Timestamp

from tests.fakes import START
from tests.rpc.api import make_job, refused, until
from tests.rpc.test_list_occurrences import decide

JOB = "job-hourly"
HOUR = timedelta(hours=1)
QUEUED, ALREADY_RUN = BACKFILL_FATE_QUEUED, BACKFILL_FATE_ALREADY_RUN


@pytest.fixture
async def store(server):
    store = server.application.store
    async with store.transaction() as tx:
        item = LoadedItem(item_id="post-1", data_json="{}")
        await store.categories.load(
            tx, tenant_id="default", category="posts", items=[item], now=START
        )
    return store


@pytest.fixture
async def paused(api, store):
    """A job that is due at every full hour, and whose schedule rests."""
    await api.import_jobs(make_job(JOB, schedule={"frequency": "hourly"}))
    await api.jobs.PauseJob(PauseJobRequest(job_id=JOB))
    return store


def request_for(hours: int = 3, **fields) -> BackfillJobRequest:
    defaults = {
        "job_id": JOB,
        "start_time": timestamp_to(START),
        "end_time": timestamp_to(START + hours * HOUR),
    }
    return BackfillJobRequest(**defaults | fields)


def hours_of(answer: BackfillJobResponse) -> list[int]:
    return [(each.due_time.ToDatetime(UTC) - START) // HOUR for each in answer.due_times]


def fates_of(answer: BackfillJobResponse) -> list[int]:
    return [each.fate for each in answer.due_times]


async def occurrences(api, **fields) -> list[Occurrence]:
    request = ListOccurrencesRequest(**{"job_id": JOB} | fields)
    return list((await api.jobs.ListOccurrences(request)).occurrences)[::-1]


async def all_backfilled(api, count: int) -> list[Batch]:
    """Returns the batches of all due times, in their order, as soon as they are done."""
    while True:
        found = await occurrences(api)
        if all(each.decision == OCCURRENCE_DECISION_BACKFILLED for each in found):
            break
    assert len(found) == count
    return [
        await until(api, each.batch_id, lambda batch: batch.state == BATCH_STATE_SUCCEEDED)
        for each in found
    ]


@pytest.mark.usefixtures("paused")
async def test_each_due_time_becomes_a_run_though_the_job_is_paused(api):
    answer = await api.jobs.BackfillJob(request_for(3))

    assert (hours_of(answer), fates_of(answer)) == ([0, 1, 2], [QUEUED] * 3)
    batches = await all_backfilled(api, 3)
    assert {batch.source for batch in batches} == {"backfill"}
    assert [batch.due_time.ToDatetime(UTC) for batch in batches] == [
        START + hour * HOUR for hour in range(3)
    ]
    for each, batch in zip(await occurrences(api), batches, strict=True):
        assert (each.batch_id, each.backfill_id) == (batch.batch_id, answer.backfill_id)


@pytest.mark.usefixtures("paused")
async def test_the_runs_go_one_after_the_other(api):
    await api.jobs.BackfillJob(request_for(3))

    first, second, third = await all_backfilled(api, 3)
    ends = [each.end_time.ToDatetime() for each in (first, second)]
    starts = [each.create_time.ToDatetime() for each in (second, third)]
    assert all(end <= start for end, start in zip(ends, starts, strict=True))


@pytest.mark.usefixtures("paused")
async def test_the_runs_can_go_all_at_once(api, processor):
    processor.gate = asyncio.Event()
    await api.jobs.BackfillJob(request_for(3, overlap=BACKFILL_OVERLAP_ALLOW))

    async with asyncio.timeout(30):
        while len(processor.calls) < 3:
            await asyncio.sleep(0)
    processor.gate.set()
    await all_backfilled(api, 3)


async def test_what_has_run_is_left_alone_and_what_was_skipped_is_queued(api, paused):
    await decide(paused, JOB, count=3)

    answer = await api.jobs.BackfillJob(request_for(3))

    assert fates_of(answer) == [ALREADY_RUN, QUEUED, ALREADY_RUN]
    assert [each.batch_id for each in answer.due_times] == ["batch-0", "", "batch-2"]
    [found] = await occurrences(api, backfill_id=answer.backfill_id)
    assert found.due_time.ToDatetime(UTC) == START + HOUR


@pytest.mark.usefixtures("paused")
async def test_a_dry_run_tells_the_same_and_stores_nothing(api):
    answer = await api.jobs.BackfillJob(request_for(3, validate_only=True))

    assert (answer.backfill_id, fates_of(answer)) == ("", [QUEUED] * 3)
    assert await occurrences(api) == []


@pytest.mark.usefixtures("paused")
async def test_what_waits_already_is_left_alone(api, processor):
    processor.gate = asyncio.Event()
    await api.jobs.BackfillJob(request_for(3))
    again = await api.jobs.BackfillJob(request_for(4))
    processor.gate.set()

    assert fates_of(again)[1:] == [BACKFILL_FATE_ALREADY_QUEUED] * 2 + [QUEUED]


@pytest.mark.usefixtures("paused")
async def test_the_same_request_id_returns_the_first_answer(api):
    request = request_for(2, request_id="request-1")

    first = await api.jobs.BackfillJob(request)
    await all_backfilled(api, 2)
    second = await api.jobs.BackfillJob(request)

    assert second == first
    assert len((await api.batches.ListBatches(ListBatchesRequest(job_id=JOB))).batches) == 2


@pytest.mark.usefixtures("paused")
async def test_a_range_in_which_nothing_is_due_has_no_backfill(api):
    end = timestamp_to(START + HOUR / 2)

    answer = await api.jobs.BackfillJob(
        request_for(start_time=timestamp_to(START + HOUR / 4), end_time=end)
    )

    assert (answer.backfill_id, list(answer.due_times)) == ("", [])


@pytest.mark.usefixtures("paused")
async def test_the_range_is_closed_and_open(api):
    answer = await api.jobs.BackfillJob(request_for(2, validate_only=True))

    assert hours_of(answer) == [0, 1]


@pytest.mark.usefixtures("paused")
@pytest.mark.parametrize(
    ("hours", "count"), [(1001, "1,001 due times"), (20_000, "more than 10,000 due times")]
)
async def test_too_many_due_times_are_refused_and_it_says_where_to_end(api, hours, count):
    start = timestamp_to(START - 20_000 * HOUR)
    end = timestamp_to(START - (20_000 - hours) * HOUR)

    refusal = await refused(api.jobs.BackfillJob(request_for(start_time=start, end_time=end)))

    assert refusal.code is grpc.StatusCode.INVALID_ARGUMENT
    assert f"There are {count} in this range" in refusal.violations["end_time"]
    first_left = START - 19_000 * HOUR
    assert f"End at {first_left.isoformat()}" in refusal.violations["end_time"]
    assert refusal.metadata["limit"] == "1000"


@pytest.mark.usefixtures("paused")
async def test_a_range_of_exactly_a_thousand_is_not_too_much(api):
    answer = await api.jobs.BackfillJob(
        request_for(
            start_time=timestamp_to(START - 1000 * HOUR),
            end_time=timestamp_to(START),
            validate_only=True,
        )
    )

    assert len(answer.due_times) == 1000


@pytest.mark.parametrize(
    ("job", "why"),
    [
        pytest.param({}, "has no schedule", id="on request"),
        pytest.param(
            {
                "preference_based": True,
                "feature_type": "digest",
                "schedule": {"frequency": "hourly"},
            },
            "is driven by preferences",
            id="driven by preferences",
        ),
    ],
)
async def test_a_job_without_a_schedule_of_its_own_has_nothing_to_make_up_for(api, job, why):
    await api.import_jobs(make_job(JOB, **job))

    refusal = await refused(api.jobs.BackfillJob(request_for()))

    assert refusal.code is grpc.StatusCode.FAILED_PRECONDITION
    assert (refusal.reason, why in refusal.message) == ("WRONG_STATE", True)


async def test_a_job_that_is_not_there_has_none(api):
    refusal = await refused(api.jobs.BackfillJob(request_for()))

    assert refusal.code is grpc.StatusCode.NOT_FOUND


@pytest.mark.usefixtures("paused")
@pytest.mark.parametrize(
    ("fields", "paths"),
    [
        pytest.param({"job_id": "", "overlap": 9}, ["job_id", "overlap"], id="no job, overlap 9"),
        pytest.param({"start_time": None, "end_time": None}, ["end_time", "start_time"], id="none"),
        pytest.param({"end_time": timestamp_to(START)}, ["end_time"], id="no time between"),
        pytest.param(
            {"end_time": timestamp_to(datetime(2999, 1, 1, tzinfo=UTC))}, ["end_time"], id="future"
        ),
        pytest.param({"start_time": Timestamp(seconds=-1)}, ["start_time"], id="before 1970"),
        pytest.param({"request_id": "a\n"}, ["request_id"], id="request id"),
    ],
)
async def test_what_is_wrong_is_refused_where_it_stands(api, fields, paths):
    refusal = await refused(api.jobs.BackfillJob(request_for(**fields)))

    assert refusal.code is grpc.StatusCode.INVALID_ARGUMENT
    assert sorted(refusal.violations) == paths
