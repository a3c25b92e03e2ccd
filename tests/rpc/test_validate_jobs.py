"""ValidateJobs tells all that is wrong with jobs, and all that may not be meant, at once."""

from __future__ import annotations

import json
from dataclasses import replace

import grpc
import pytest
from batchwork.v1.job_pb2 import JOB_SHAPE_INDIVIDUAL, Job
from batchwork.v1.job_service_pb2 import ListJobsRequest
from batchwork.v1.schedule_pb2 import DailyCadence, Schedule
from batchwork.v1.validation_service_pb2 import ValidateJobsRequest
from batchwork_server.bootstrap import serving
from batchwork_server.domain.selection import LoadedItem
from batchwork_server.errors import Unavailable

from tests.fakes import START
from tests.rpc.api import ADA, BOB, OLGA, Api, as_caller, make_job, refused

FIRST = "$.batch_processing_jobs[0]"


def job_file(*jobs) -> str:
    return json.dumps({"batch_processing_jobs": jobs})


async def validate_file(api, *jobs):
    return await api.validation.ValidateJobs(ValidateJobsRequest(jobs_json=job_file(*jobs)))


async def load_posts(server, *posts) -> None:
    store = server.application.store
    items = [
        LoadedItem(item_id=f"post-{index}", data_json=json.dumps(post))
        for index, post in enumerate(posts)
    ]
    async with store.transaction() as tx:
        await store.categories.load(
            tx, tenant_id="default", category="posts", items=items, now=START
        )


def reasons(found) -> dict[str, str]:
    return {each.path: each.reason for each in found}


async def test_every_violation_of_every_job_is_told_at_once(api):
    answer = await validate_file(
        api,
        make_job("job-1", template_id="no-such", schedule={"frequency": "daily", "at": "25:00"}),
        make_job("job-2"),
        make_job("job-2", operation="no-such", limit=0),
        "no job",
    )

    assert [list(reasons(result.violations).items()) for result in answer.results] == [
        [
            (f"{FIRST}.schedule.at", "FIELD_VIOLATION"),
            (f"{FIRST}.template_id", "UNKNOWN_TEMPLATE"),
        ],
        [],
        [
            ("$.batch_processing_jobs[2].limit", "FIELD_VIOLATION"),
            ("$.batch_processing_jobs[2].id", "FIELD_VIOLATION"),
            ("$.batch_processing_jobs[2].operation", "UNKNOWN_OPERATION"),
        ],
        [("$.batch_processing_jobs[3]", "FIELD_VIOLATION")],
    ]
    assert [result.valid for result in answer.results] == [False, True, False, False]
    totals = answer.totals
    assert (totals.total, totals.valid, totals.invalid, totals.violations) == (4, 1, 3, 6)


async def test_every_warning_is_told_with_violations_or_without(api, server):
    await load_posts(server, {"likes": 3})

    answer = await validate_file(
        api,
        make_job(
            filters={"min_likes": 4, "min_lkes": 4},
            distribution={"users": ["nobody"]},
            schedule={"frequency": "monthly", "day_of_month": 31, "at": "09:00"},
        ),
        make_job("job-2", category="none", limit=0),
    )

    assert reasons(answer.results[0].warnings) == {
        f"{FIRST}.filters.min_lkes": "FILTER_MATCHES_NO_FIELD",
        f"{FIRST}.distribution.users[0]": "UNKNOWN_USER",
        f"{FIRST}.filters": "FILTER_MATCHES_NOTHING",
        f"{FIRST}.schedule.time_zone": "NO_TIME_ZONE",
        f"{FIRST}.schedule": "SHORT_MONTHS",
    }
    assert reasons(answer.results[1].warnings) == {
        "$.batch_processing_jobs[1].category": "CATEGORY_WITHOUT_ITEMS"
    }
    assert [result.valid for result in answer.results] == [True, False]
    assert answer.totals.warnings == 6


async def test_filters_that_match_something_now_are_fine(api, server):
    await load_posts(server, {"likes": 3}, {"likes": 5})

    answer = await validate_file(
        api,
        make_job(filters={"min_likes": 4}),
        make_job(
            "job-2",
            type="combined",
            category=None,
            categories=["posts", "none"],
            filters={"posts": {"max_likes": 2}, "none": {"min_likes": 1}},
        ),
    )

    assert reasons(answer.results[0].warnings) == {}
    assert reasons(answer.results[1].warnings) == {
        "$.batch_processing_jobs[1].categories[1]": "CATEGORY_WITHOUT_ITEMS",
        "$.batch_processing_jobs[1].filters.posts": "FILTER_MATCHES_NOTHING",
    }


async def test_jobs_as_messages_are_told_in_the_words_of_the_contract(api):
    jobs = [
        Job(
            job_id="job-1",
            shape=JOB_SHAPE_INDIVIDUAL,
            categories=["posts"],
            distribution_user_ids=["nobody"],
            schedule=Schedule(daily=DailyCadence(at="09:00")),
        ),
        Job(job_id="job-1", shape=JOB_SHAPE_INDIVIDUAL, operation="echo"),
    ]

    answer = await api.validation.ValidateJobs(ValidateJobsRequest(jobs=jobs))

    assert [result.path for result in answer.results] == ["jobs[0]", "jobs[1]"]
    assert reasons(answer.results[0].violations) == {"jobs[0].template_id": "FIELD_VIOLATION"}
    assert reasons(answer.results[0].warnings) == {
        "jobs[0].categories": "CATEGORY_WITHOUT_ITEMS",
        "jobs[0].distribution_user_ids[0]": "UNKNOWN_USER",
        "jobs[0].schedule.time_zone": "NO_TIME_ZONE",
    }
    assert reasons(answer.results[1].violations) == {
        "jobs[1].categories": "FIELD_VIOLATION",
        "jobs[1].job_id": "FIELD_VIOLATION",
    }


async def test_stored_jobs_are_validated_by_name_or_all(api):
    await api.import_jobs(make_job("job-1"), make_job("job-2"), make_job("job-3"))

    named = await api.validation.ValidateJobs(ValidateJobsRequest(job_ids=["job-3", "job-1"]))
    every = await api.validation.ValidateJobs(ValidateJobsRequest(all_stored=True))

    assert [result.job_id for result in named.results] == ["job-3", "job-1"]
    assert [result.job_id for result in every.results] == ["job-1", "job-2", "job-3"]
    assert reasons(every.results[2].warnings) == {"jobs[2].categories": "CATEGORY_WITHOUT_ITEMS"}


async def test_a_job_that_is_not_stored_is_not_found(api):
    refusal = await refused(
        api.validation.ValidateJobs(ValidateJobsRequest(job_ids=["no-such-job"]))
    )

    assert refusal.code is grpc.StatusCode.NOT_FOUND


@pytest.mark.parametrize(
    "text", [pytest.param("{", id="no json"), pytest.param(" " * (4 << 20) + " ", id="too large")]
)
async def test_a_file_that_cannot_be_read_is_an_answer(api, text):
    answer = await api.validation.ValidateJobs(ValidateJobsRequest(jobs_json=text))

    assert [violation.path for violation in answer.violations] == ["$"]
    assert answer.totals.violations == 1
    assert not answer.results


@pytest.mark.parametrize(
    "request_",
    [
        pytest.param(ValidateJobsRequest(), id="none"),
        pytest.param(ValidateJobsRequest(job_ids=["job-1"], all_stored=True), id="two"),
        pytest.param(ValidateJobsRequest(job_ids=["job-1"] * 10_001), id="too many"),
        pytest.param(ValidateJobsRequest(jobs=[Job()] * 10_001), id="too many jobs"),
    ],
)
async def test_a_request_says_in_one_way_which_jobs_are_meant(api, request_):
    refusal = await refused(api.validation.ValidateJobs(request_))

    assert refusal.code is grpc.StatusCode.INVALID_ARGUMENT


async def test_the_first_thousand_of_each_are_listed_and_all_are_counted(api):
    jobs = [make_job(f"job-{index}", category=f"none-{index}", limit=0) for index in range(1001)]

    answer = await validate_file(api, *jobs)

    assert sum(len(result.violations) for result in answer.results) == 1000
    assert sum(len(result.warnings) for result in answer.results) == 1000
    assert (answer.totals.violations, answer.totals.warnings) == (1001, 1001)
    assert not answer.results[1000].valid


async def test_nothing_is_stored(api):
    await validate_file(api, make_job("job-1"))

    assert not (await api.jobs.ListJobs(ListJobsRequest())).jobs


async def test_a_tenant_sees_its_own_jobs_and_an_operator_those_of_others(guarded):
    await guarded.import_jobs(make_job("job-1"), metadata=as_caller(ADA))
    request = ValidateJobsRequest(all_stored=True)
    of_blue = ValidateJobsRequest(all_stored=True, tenant_id="blue")

    bobs = await guarded.validation.ValidateJobs(request, metadata=as_caller(BOB))
    olgas = await guarded.validation.ValidateJobs(of_blue, metadata=as_caller(OLGA))
    refusal = await refused(guarded.validation.ValidateJobs(of_blue, metadata=as_caller(BOB)))

    assert not bobs.results
    assert [result.job_id for result in olgas.results] == ["job-1"]
    assert refusal.code is grpc.StatusCode.PERMISSION_DENIED


async def test_without_a_source_there_is_no_verdict(api, server, monkeypatch):
    async def away(**_):
        raise Unavailable("The source of categories is away.")

    monkeypatch.setattr(server.application.store.categories, "categories", away)

    refusal = await refused(validate_file(api, make_job()))

    assert refusal.code is grpc.StatusCode.UNAVAILABLE


async def test_a_purpose_that_is_not_listed_is_told(settings, processors):
    listing = replace(settings, purpose_ids="growth, research")
    jobs = [
        make_job(purpose_id="growth"),
        make_job("job-2", purpose_id="gowth"),
        make_job("job-3"),
    ]

    async with (
        serving(listing, processors=processors) as server,
        grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as channel,
    ):
        answer = await validate_file(Api(channel), *jobs)

    told = [reasons(result.warnings) for result in answer.results]
    path = "$.batch_processing_jobs[1].purpose_id"
    assert [path in each for each in told] == [False, True, False]
    assert told[1][path] == "UNKNOWN_PURPOSE"
