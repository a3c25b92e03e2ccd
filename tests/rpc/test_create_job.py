"""CreateJob keeps a job that comes as a message, by the rules of job files."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import grpc
import pytest
from batchwork.v1.job_pb2 import (
    DATA_SOURCE_CATEGORIES,
    JOB_SHAPE_COMBINED,
    JOB_SHAPE_INDIVIDUAL,
    JOB_SHAPE_OBJECT,
    PREFERENCE_SOURCE_DYNAMIC,
    PREFERENCE_SOURCE_STATIC,
    PRIORITY_HIGH,
    Job,
    JobShape,
)
from batchwork.v1.job_service_pb2 import (
    CreateJobRequest,
    DeleteJobRequest,
    ExportJobsRequest,
    GetJobRequest,
    ListJobsRequest,
)
from batchwork.v1.policy_pb2 import (
    CATCH_UP_ALL,
    FAILURE_ACTION_FAIL,
    OVERLAP_ALLOW,
    USERS_AWAY_DEFER,
    FailurePolicy,
    RetryPolicy,
)
from batchwork.v1.schedule_pb2 import (
    WEEKDAY_MONDAY,
    DailyCadence,
    MonthlyCadence,
    Schedule,
    WeeklyCadence,
)
from batchwork_server.config import Settings
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from tests.rpc.api import ADA, BOB, as_caller, make_job, refused, settings_in

SET_BY_SERVER = {
    "pause_time",
    "pause_note",
    "tenant_id",
    "revision",
    "batch_type",
    "source",
    "create_time",
    "update_time",
    "etag",
}


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """A server that knows whom a full job wants to be told."""
    target = {"name": "ops", "url": "https://ops.example.com/", "secret": f"whsec_{'A' * 32}"}
    file = tmp_path / "notifications.json"
    file.write_text(json.dumps({"targets": [target]}))
    file.chmod(0o600)
    return replace(settings_in(tmp_path), notifications_file=file)


def make_message(job_id: str = "job-1", **changes: Any) -> Job:
    defaults: dict[str, Any] = {
        "job_id": job_id,
        "display_name": "Welcome",
        "shape": JOB_SHAPE_INDIVIDUAL,
        "categories": ["posts"],
        "operation": "echo",
    }
    return Job(**defaults | changes)


def make_full_message() -> Job:
    """Makes a job in which everything is set that a caller sets."""
    job = make_message(
        description="Zwei\nZeilen",
        data_source=DATA_SOURCE_CATEGORIES,
        preference_source=PREFERENCE_SOURCE_DYNAMIC,
        priority=PRIORITY_HIGH,
        template_id="echo",
        schedule=Schedule(
            weekly=WeeklyCadence(days=[WEEKDAY_MONDAY], at="09:30"), time_zone="Europe/Berlin"
        ),
        limit=50,
        retry_limit=0,
        distribute_results=True,
        distribution_user_ids=["ada", "bob"],
        purpose_id="growth",
        feature_type="digest",
        include_all_users=True,
        retry_policy=RetryPolicy(
            initial_backoff=Duration(nanos=500_000_000),
            max_backoff=Duration(seconds=7),
            multiplier=1.5,
            non_retryable_reasons=["ACCOUNT_GONE"],
        ),
        failure_policy=FailurePolicy(
            max_failed=0, max_failed_ratio=0.5, min_sample=3, action=FAILURE_ACTION_FAIL
        ),
        batch_timeout=Duration(seconds=90),
        catch_up=CATCH_UP_ALL,
        catch_up_window=Duration(seconds=7200),
        overlap=OVERLAP_ALLOW,
        users_away=USERS_AWAY_DEFER,
        notify_on_complete=True,
        notification_targets=["ops"],
    )
    job.filters.update({"min_likes": 5, "country": ["BR", "DE"]})
    job.default_preferences.update({"enabled": True, "template_overrides": {"tone": "warm"}})
    return job


def as_set(job: Job) -> Job:
    """Returns a job without what the server sets."""
    rest = Job()
    rest.CopyFrom(job)
    for name in SET_BY_SERVER:
        rest.ClearField(cast("Any", name))
    return rest


async def create(api, job, **fields):
    return (await api.jobs.CreateJob(CreateJobRequest(job=job, **fields))).job


async def test_every_field_is_kept_as_it_came(api):
    job = make_full_message()
    assert {field.name for field, _ in job.ListFields()} | SET_BY_SERVER == set(
        Job.DESCRIPTOR.fields_by_name
    )

    created = await create(api, job)

    assert as_set(created) == job
    found = await api.jobs.GetJob(GetJobRequest(job_id="job-1"))
    assert found.job == created


async def test_a_job_of_several_categories_has_filters_for_each(api):
    job = make_message(shape=JOB_SHAPE_COMBINED, categories=["posts", "users"])
    job.filters.update({"posts": {"min_likes": 5}})

    created = await create(api, job)

    assert list(created.categories) == ["posts", "users"]
    assert created.filters == job.filters


async def test_what_the_server_sets_is_ignored(api):
    job = make_message(
        tenant_id="green",
        revision=7,
        batch_type="OTHER",
        source="nightly",
        etag="mine",
        create_time=Timestamp(seconds=1),
    )

    created = await create(api, job)

    assert (created.tenant_id, created.revision, created.source) == ("default", 1, "")
    assert created.batch_type == "INDIVIDUAL_CATEGORIES"
    assert created.etag
    assert created.etag != "mine"
    assert created.create_time.seconds > 1


async def test_an_export_has_what_was_created(api):
    await create(api, make_message())

    exported = await api.jobs.ExportJobs(ExportJobsRequest())
    again = await api.import_jobs(make_job("job-1"))

    assert '"id": "job-1"' in exported.jobs_json
    assert not again.changes[0].changed_fields


async def test_an_id_that_is_taken_is_refused(api):
    await create(api, make_message())

    for validate_only in (True, False):
        refusal = await refused(create(api, make_message(), validate_only=validate_only))

        assert refusal.code is grpc.StatusCode.ALREADY_EXISTS
        assert refusal.reason == "RESOURCE_EXISTS"
        assert "job-1" in refusal.message


async def test_an_id_is_taken_only_within_its_tenant(guarded):
    request = CreateJobRequest(job=make_message())

    ada = await guarded.jobs.CreateJob(request, metadata=as_caller(ADA))
    bob = await guarded.jobs.CreateJob(request, metadata=as_caller(BOB))

    assert (ada.job.tenant_id, bob.job.tenant_id) == ("blue", "green")


async def test_validate_only_answers_the_job_and_stores_nothing(api):
    request = CreateJobRequest(job=make_message(), validate_only=True, request_id="request-1")

    answer = await api.jobs.CreateJob(request)

    assert as_set(answer.job).display_name == "Welcome"
    assert [warning.path for warning in answer.warnings] == ["job.categories"]
    assert not (await api.jobs.ListJobs(ListJobsRequest())).jobs


async def test_the_same_request_id_gets_the_first_answer(api):
    request = CreateJobRequest(job=make_full_message(), request_id="request-1")
    first = await api.jobs.CreateJob(request)
    await api.jobs.DeleteJob(DeleteJobRequest(job_id="job-1"))

    again = await api.jobs.CreateJob(request)

    assert again == first
    assert not (await api.jobs.ListJobs(ListJobsRequest())).jobs


async def test_a_request_id_with_other_content_is_refused(api):
    await create(api, make_message(), request_id="request-1")

    refusal = await refused(create(api, make_message("job-2"), request_id="request-1"))

    assert refusal.code is grpc.StatusCode.ALREADY_EXISTS
    assert refusal.reason == "REQUEST_ID_REUSED"


async def test_what_may_not_be_meant_is_told_where_the_message_has_it(api):
    answer = await api.jobs.CreateJob(
        CreateJobRequest(job=make_message(distribution_user_ids=["nobody"]))
    )

    assert {warning.path: warning.reason for warning in answer.warnings} == {
        "job.categories": "CATEGORY_WITHOUT_ITEMS",
        "job.distribution_user_ids[0]": "UNKNOWN_USER",
    }


@pytest.mark.parametrize(
    ("changes", "path"),
    [
        pytest.param({"job_id": ""}, "job.job_id", id="no id"),
        pytest.param({"job_id": "a b"}, "job.job_id", id="an id with a space"),
        pytest.param({"display_name": "a\nb"}, "job.display_name", id="a name of two lines"),
        pytest.param({"description": "\0"}, "job.description", id="a null character"),
        pytest.param({"shape": 0}, "job.shape", id="no shape"),
        pytest.param({"shape": 9}, "job.shape", id="shape 9"),
        pytest.param({"data_source": 9}, "job.data_source", id="data source 9"),
        pytest.param({"preference_source": 9}, "job.preference_source", id="preference source 9"),
        pytest.param({"priority": 9}, "job.priority", id="priority 9"),
        pytest.param({"categories": []}, "job.categories", id="no category"),
        pytest.param({"categories": ["a", "b"]}, "job.categories", id="two categories"),
        pytest.param({"categories": ["a", ""]}, "job.categories[1]", id="a category without name"),
        pytest.param({"operation": ""}, "job.template_id", id="nothing to do"),
        pytest.param({"schedule": Schedule()}, "job.schedule", id="a schedule without cadence"),
        pytest.param(
            {"schedule": Schedule(daily=DailyCadence(at="25:00"))},
            "job.schedule.daily.at",
            id="25:00",
        ),
        pytest.param({"filters": {"min_likes": "many"}}, "job.filters.min_likes", id="a filter"),
        pytest.param({"limit": -1}, "job.limit", id="a negative limit"),
        pytest.param({"retry_limit": 101}, "job.retry_limit", id="too many retries"),
        pytest.param(
            {"distribution_user_ids": ["ada", "ada"]},
            "job.distribution_user_ids[1]",
            id="a user twice",
        ),
        pytest.param(
            {"preference_source": PREFERENCE_SOURCE_DYNAMIC},
            "job.feature_type",
            id="preferences of no feature",
        ),
        pytest.param(
            {"default_preferences": {"enabled": "yes"}},
            "job.default_preferences.enabled",
            id="a default preference",
        ),
        pytest.param(
            {"retry_policy": RetryPolicy(multiplier=11)},
            "job.retry_policy.multiplier",
            id="a multiplier",
        ),
        pytest.param(
            {"retry_policy": RetryPolicy(max_backoff=Duration(seconds=1, nanos=-1))},
            "job.retry_policy.max_backoff",
            id="a duration of two signs",
        ),
        pytest.param(
            {"failure_policy": FailurePolicy(max_failed_ratio=float("nan"))},
            "job.failure_policy.max_failed_ratio",
            id="a ratio that is no number",
        ),
        pytest.param(
            {"failure_policy": FailurePolicy(action=cast("Any", 9))},
            "job.failure_policy.action",
            id="action 9",
        ),
        pytest.param(
            {"batch_timeout": Duration(nanos=999_999_999)}, "job.batch_timeout", id="too short"
        ),
        pytest.param({"catch_up": cast("Any", 9)}, "job.catch_up", id="catch-up 9"),
        pytest.param({"overlap": cast("Any", 9)}, "job.overlap", id="overlap 9"),
        pytest.param(
            {"catch_up_window": Duration(seconds=366 * 86400 + 1)},
            "job.catch_up_window",
            id="a window of more than a year",
        ),
    ],
)
async def test_what_is_wrong_is_refused_where_it_stands(api, changes, path):
    refusal = await refused(create(api, make_message(**changes)))

    assert refusal.code is grpc.StatusCode.INVALID_ARGUMENT
    assert list(refusal.violations) == [path]
    assert not (await api.jobs.ListJobs(ListJobsRequest())).jobs


@pytest.mark.parametrize(
    ("changes", "reason", "path"),
    [
        pytest.param(
            {"template_id": "nothing"}, "UNKNOWN_TEMPLATE", "job.template_id", id="template"
        ),
        pytest.param(
            {"operation": "nothing"}, "UNKNOWN_OPERATION", "job.operation", id="operation"
        ),
        pytest.param(
            {"schedule": Schedule(daily=DailyCadence(at="09:00"), time_zone="Europe/Berlyn")},
            "UNKNOWN_TIME_ZONE",
            "job.schedule.time_zone",
            id="zone",
        ),
    ],
)
async def test_what_does_not_exist_is_unknown(api, changes, reason, path):
    refusal = await refused(create(api, make_message(**changes)))

    assert refusal.reason == reason
    assert list(refusal.violations) == [path]


async def test_all_that_is_wrong_is_answered_at_once(api):
    job = make_message(
        "a b",
        shape=JOB_SHAPE_OBJECT,
        preference_source=PREFERENCE_SOURCE_STATIC,
        categories=["posts", "users"],
        limit=-1,
        schedule=Schedule(monthly=MonthlyCadence(day_of_month=32, at="09:00")),
    )

    refusal = await refused(create(api, job, request_id="\n"))

    assert sorted(refusal.violations) == [
        "job.categories",
        "job.job_id",
        "job.limit",
        "job.schedule.monthly.day_of_month",
        "request_id",
    ]


async def test_an_unknown_operation_is_told_with_what_is_wrong_beside_the_job(api):
    refusal = await refused(create(api, make_message(operation="nothing"), request_id="\n"))

    assert sorted(refusal.violations) == ["job.operation", "request_id"]


async def test_every_shape_can_be_created(api):
    shapes = [number for number in JobShape.values() if number]

    for number in shapes:
        categories = ["posts", "users"] if number == JOB_SHAPE_COMBINED else ["posts"]
        created = await create(
            api, make_message(f"job-{number}", shape=number, categories=categories)
        )
        assert created.shape == number
