"""UpdateJob changes what a mask names, and gives the job a new revision and a new etag."""

from __future__ import annotations

import asyncio
from typing import Any

import grpc
import pytest
from batchwork.v1.batch_service_pb2 import GetBatchRequest
from batchwork.v1.job_pb2 import (
    DATA_SOURCE_CATEGORIES,
    DATA_SOURCE_USERS,
    JOB_SHAPE_COMBINED,
    PREFERENCE_SOURCE_DYNAMIC,
    PRIORITY_HIGH,
    PRIORITY_MEDIUM,
    Job,
)
from batchwork.v1.job_service_pb2 import (
    DeleteJobRequest,
    GetJobRequest,
    ListJobsRequest,
    RunJobRequest,
    UpdateJobRequest,
)
from batchwork.v1.schedule_pb2 import DailyCadence, HourlyCadence, Schedule
from batchwork_server.domain.selection import LoadedItem
from google.protobuf.duration_pb2 import Duration
from google.protobuf.field_mask_pb2 import FieldMask

from tests.fakes import START
from tests.rpc.api import make_job, refused


async def update(api, job: Job, *mask: str, **fields: Any):
    request = UpdateJobRequest(job=job, **fields)
    if mask:
        request.update_mask.CopyFrom(FieldMask(paths=mask))
    return await api.jobs.UpdateJob(request)


async def stored(api, job_id: str = "job-1"):
    return (await api.jobs.GetJob(GetJobRequest(job_id=job_id))).job


@pytest.fixture
async def job(api):
    await api.import_jobs(make_job("job-1", description="Old", priority="high", limit=5))
    return await stored(api)


async def test_a_mask_sets_only_what_it_names(api, job):
    changed = Job(job_id="job-1", display_name="New", description="Not named")

    answer = await update(api, changed, "display_name")

    assert answer.job.display_name == "New"
    assert (answer.job.description, answer.job.limit) == ("Old", 5)
    assert answer.job.revision == 2
    assert await stored(api) == answer.job


async def test_what_is_named_and_unset_gets_its_default(api, job):
    answer = await update(api, Job(job_id="job-1"), "display_name", "description", "priority")

    assert answer.job.display_name == "job-1"
    assert answer.job.description == ""
    assert answer.job.priority == PRIORITY_MEDIUM
    assert answer.job.limit == 5


async def test_an_empty_mask_means_what_is_set(api, job):
    answer = await update(api, Job(job_id="job-1", limit=7))

    assert (answer.job.limit, answer.job.description) == (7, "Old")
    assert answer.job.priority == PRIORITY_HIGH


async def test_a_job_that_was_read_and_changed_can_be_sent_as_it_is(api, job):
    job.display_name = "New"

    answer = await update(api, job, etag=job.etag)

    assert (answer.job.display_name, answer.job.revision) == ("New", 2)
    assert (answer.job.source, answer.job.create_time) == (job.source, job.create_time)


async def test_a_star_replaces_the_whole_job(api, job):
    changed = Job(job_id="job-1", shape=job.shape, categories=["users"], template_id="echo")

    answer = await update(api, changed, "*")

    assert list(answer.job.categories) == ["users"]
    assert (answer.job.operation, answer.job.template_id) == ("", "echo")
    assert answer.job.limit == 1000
    assert answer.job.description == ""


async def test_everything_that_can_be_set_can_be_changed_alone(api, job):
    changed = Job(
        job_id="job-1",
        schedule=Schedule(hourly=HourlyCadence(minute=5)),
        batch_timeout=Duration(seconds=90),
        distribution_user_ids=["ada"],
    )
    changed.filters.update({"min_likes": 5})

    for name in ("schedule", "batch_timeout", "distribution_user_ids", "filters"):
        await update(api, changed, name)

    now = await stored(api)
    assert now.revision == 5
    assert now.schedule.hourly.minute == 5
    assert now.batch_timeout.seconds == 90
    assert list(now.distribution_user_ids) == ["ada"]
    assert now.filters["min_likes"] == 5


async def test_what_the_data_is_about_follows_the_categories_unless_it_was_set(api, job):
    default = await update(api, Job(job_id="job-1", categories=["users"]))
    told = await update(api, Job(job_id="job-1", data_source=DATA_SOURCE_CATEGORIES))
    kept = await update(api, Job(job_id="job-1", limit=9))

    assert default.job.data_source == DATA_SOURCE_USERS
    assert told.job.data_source == DATA_SOURCE_CATEGORIES
    assert kept.job.data_source == DATA_SOURCE_CATEGORIES


async def test_an_update_that_changes_nothing_leaves_the_revision(api, job):
    answer = await update(api, Job(job_id="job-1", limit=5))

    assert answer.job == job


async def test_the_etag_changes_with_every_revision(api, job):
    second = (await update(api, Job(job_id="job-1", limit=6))).job
    third = (await update(api, Job(job_id="job-1", limit=5))).job

    assert len({job.etag, second.etag, third.etag}) == 3


async def test_an_import_that_changes_the_job_changes_its_etag(api, job):
    await api.import_jobs(make_job("job-1"))

    assert (await stored(api)).etag != job.etag


async def test_an_etag_that_is_out_of_date_is_refused_and_both_are_named(api, job):
    now = (await update(api, Job(job_id="job-1", limit=6))).job

    refusal = await refused(update(api, Job(job_id="job-1", limit=7), etag=job.etag))

    assert refusal.code is grpc.StatusCode.ABORTED
    assert refusal.reason == "ETAG_MISMATCH"
    assert job.etag in refusal.message
    assert now.etag in refusal.message
    assert refusal.metadata["etag"] == now.etag
    assert (await stored(api)).limit == 6


async def test_an_etag_of_a_job_that_was_deleted_does_not_match_the_next_of_its_name(api, job):
    await api.jobs.DeleteJob(DeleteJobRequest(job_id="job-1"))
    await api.import_jobs(make_job("job-1"))

    refusal = await refused(update(api, Job(job_id="job-1", limit=7), etag=job.etag))

    assert refusal.reason == "ETAG_MISMATCH"


async def test_of_two_updates_with_one_etag_one_wins(api, job):
    changes = [Job(job_id="job-1", limit=limit) for limit in (6, 7)]

    answers = await asyncio.gather(
        *(update(api, changed, etag=job.etag) for changed in changes), return_exceptions=True
    )

    assert sum(isinstance(answer, grpc.aio.AioRpcError) for answer in answers) == 1
    assert (await stored(api)).revision == 2


async def test_updates_of_different_fields_at_once_are_both_kept(api, job):
    await asyncio.gather(
        update(api, Job(job_id="job-1", limit=6)),
        update(api, Job(job_id="job-1", description="New")),
    )

    now = await stored(api)
    assert (now.limit, now.description, now.revision) == (6, "New", 3)


async def test_a_job_that_is_not_there_is_not_found(api):
    refusal = await refused(update(api, Job(job_id="no-such-job", limit=5)))

    assert refusal.code is grpc.StatusCode.NOT_FOUND


@pytest.mark.parametrize(
    "name", ["limits", "etag", "revision", "source", "job_id", "schedule.daily", "update_time"]
)
async def test_a_mask_names_fields_that_can_be_changed(api, job, name):
    refusal = await refused(update(api, Job(job_id="job-1", limit=6), "limit", name))

    assert list(refusal.violations) == ["update_mask"]
    assert f'"{name}"' in refusal.violations["update_mask"]
    assert "display_name" in refusal.violations["update_mask"]
    assert "batch_timeout" in refusal.violations["update_mask"]
    assert await stored(api) == job


@pytest.mark.parametrize(
    ("changed", "mask", "path"),
    [
        pytest.param(Job(limit=-1), "limit", "job.limit", id="a limit"),
        pytest.param(Job(), "shape", "job.shape", id="no shape"),
        pytest.param(Job(), "categories", "job.categories", id="no category"),
        pytest.param(Job(), "operation", "job.template_id", id="nothing to do"),
        pytest.param(
            Job(shape=JOB_SHAPE_COMBINED), "shape", "job.categories", id="too few categories"
        ),
        pytest.param(
            Job(preference_source=PREFERENCE_SOURCE_DYNAMIC),
            "preference_source",
            "job.feature_type",
            id="preferences of no feature",
        ),
        pytest.param(
            Job(schedule=Schedule(daily=DailyCadence(at="9"))),
            "schedule",
            "job.schedule.daily.at",
            id="a time",
        ),
        pytest.param(Job(template_id="nothing"), "*", "job.shape", id="a star"),
    ],
)
async def test_the_changed_job_has_to_meet_the_rules(api, job, changed, mask, path):
    changed.job_id = "job-1"

    refusal = await refused(update(api, changed, mask))

    assert refusal.code is grpc.StatusCode.INVALID_ARGUMENT
    assert path in refusal.violations
    assert await stored(api) == job


async def test_what_is_not_named_is_not_looked_at(api, job):
    changed = Job(job_id="job-1", limit=6, retry_limit=1000, schedule=Schedule())

    answer = await update(api, changed, "limit")

    assert answer.job.limit == 6
    assert not answer.job.HasField("schedule")


async def test_an_unknown_template_is_refused(api, job):
    refusal = await refused(update(api, Job(job_id="job-1", template_id="nothing")))

    assert refusal.reason == "UNKNOWN_TEMPLATE"
    assert list(refusal.violations) == ["job.template_id"]


async def test_all_that_is_wrong_is_answered_at_once(api, job):
    changed = Job(
        job_id="job-1", limit=-1, operation="nothing", batch_timeout=Duration(seconds=1, nanos=-1)
    )

    refusal = await refused(
        update(
            api,
            changed,
            *("limit", "batch_timeout", "etag"),
            etag="\n",
            request_id="\n",
        )
    )

    assert sorted(refusal.violations) == [
        "etag",
        "job.batch_timeout",
        "job.limit",
        "request_id",
        "update_mask",
    ]


async def test_the_id_is_required(api):
    refusal = await refused(update(api, Job(limit=5)))

    assert refusal.violations == {"job.job_id": "This field is required."}


async def test_validate_only_answers_the_job_and_stores_nothing(api, job):
    answer = await update(api, Job(job_id="job-1", limit=6), validate_only=True)

    assert (answer.job.limit, answer.job.revision) == (6, 2)
    assert [warning.path for warning in answer.warnings] == ["job.categories"]
    assert await stored(api) == job


async def test_the_same_request_id_gets_the_first_answer(api, job):
    changed = Job(job_id="job-1", limit=6)
    first = await update(api, changed, request_id="request-1", etag=job.etag)
    await update(api, Job(job_id="job-1", limit=7))

    again = await update(api, changed, request_id="request-1", etag=job.etag)

    assert again == first
    assert (await stored(api)).limit == 7


async def test_the_first_answer_outlives_the_job(api, job):
    changed = Job(job_id="job-1", limit=6)
    first = await update(api, changed, request_id="request-1")
    await api.jobs.DeleteJob(DeleteJobRequest(job_id="job-1"))

    again = await update(api, changed, request_id="request-1")

    assert again == first
    assert not (await api.jobs.ListJobs(ListJobsRequest())).jobs


async def test_a_request_id_with_other_content_is_refused(api, job):
    await update(api, Job(job_id="job-1", limit=6), request_id="request-1")

    refusal = await refused(update(api, Job(job_id="job-1", limit=7), request_id="request-1"))

    assert refusal.code is grpc.StatusCode.ALREADY_EXISTS
    assert refusal.reason == "REQUEST_ID_REUSED"


async def test_a_running_batch_keeps_the_revision_with_which_it_started(server, api, processor):
    processor.gate = asyncio.Event()
    async with server.application.store.transaction() as tx:
        items = [LoadedItem(item_id=f"post-{n}", data_json="{}") for n in range(3)]
        await server.application.store.categories.load(
            tx, tenant_id="default", category="posts", items=items, now=START
        )
    await api.import_jobs(make_job("job-1", batch_timeout=3600))
    batch = (await api.jobs.RunJob(RunJobRequest(job_id="job-1"))).batch
    await processor.started.wait()

    await update(api, Job(job_id="job-1", limit=1, batch_timeout=Duration(seconds=7200)))
    processor.gate.set()
    done = await api.finished(batch.batch_id)
    later = (await api.jobs.RunJob(RunJobRequest(job_id="job-1"))).batch

    assert (done.job_revision, done.counts.succeeded) == (1, 3)
    assert done.options.batch_timeout.seconds == 3600
    found = (await api.batches.GetBatch(GetBatchRequest(batch_id=later.batch_id))).batch
    assert (found.job_revision, found.counts.total) == (2, 1)
    assert found.options.batch_timeout.seconds == 7200
