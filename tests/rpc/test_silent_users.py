"""Whoever stores a job for all users is warned when nobody names a schedule for them."""

from __future__ import annotations

import json
from typing import Any

import pytest
from batchwork.v1.job_pb2 import Job, JobShape, PreferenceSource
from batchwork.v1.job_service_pb2 import CreateJobRequest, UpdateJobRequest
from batchwork.v1.validation_service_pb2 import ValidateJobsRequest
from google.protobuf.field_mask_pb2 import FieldMask
from google.protobuf.json_format import ParseDict

from tests.rpc.api import Api
from tests.rpc.preferences import daily, make_driven_job, put_default

NINE = {"frequency": "daily", "preferred_time": "09:00"}
PLACE = "$.batch_processing_jobs[0].include_all_users"


def warned(answer: Any) -> dict[str, str]:
    """Returns where it is warned that nobody names a schedule."""
    return {each.path: each.message for each in answer.warnings if each.reason == "NO_SCHEDULE"}


async def test_an_import_tells_that_nobody_names_a_schedule(api: Api):
    job = make_driven_job(include_all_users=True)

    found = warned(await api.import_jobs(job))

    assert list(found) == [PLACE]
    assert 'default for "posts"' in found[PLACE]


async def test_a_job_that_is_created_or_updated_is_warned_of(api: Api):
    job = Job(
        job_id="driven-job",
        shape=JobShape.JOB_SHAPE_INDIVIDUAL,
        preference_source=PreferenceSource.PREFERENCE_SOURCE_DYNAMIC,
        feature_type="posts",
        operation="echo",
        include_all_users=True,
    )
    created = await api.jobs.CreateJob(CreateJobRequest(job=job))
    ParseDict(NINE, job.default_preferences)
    scheduled = await api.jobs.UpdateJob(
        UpdateJobRequest(job=job, update_mask=FieldMask(paths=["default_preferences"]))
    )
    job.ClearField("default_preferences")
    again = await api.jobs.UpdateJob(
        UpdateJobRequest(job=job, update_mask=FieldMask(paths=["default_preferences"]))
    )

    assert list(warned(created)) == list(warned(again)) == ["job.include_all_users"]
    assert warned(scheduled) == {}


async def test_validation_tells_it_before_the_job_is_stored(api: Api):
    job = make_driven_job(include_all_users=True)
    text = json.dumps({"batch_processing_jobs": [job]})

    answer = await api.validation.ValidateJobs(ValidateJobsRequest(jobs_json=text))

    assert list(warned(answer.results[0])) == [PLACE]


@pytest.mark.parametrize(
    "fields",
    [
        pytest.param({}, id="only users with preferences"),
        pytest.param(
            {"include_all_users": True, "default_preferences": NINE}, id="the job names one"
        ),
    ],
)
async def test_without_need_nobody_is_warned(api: Api, fields: dict[str, Any]):
    assert warned(await api.import_jobs(make_driven_job(**fields))) == {}


async def test_the_tenants_default_counts_when_it_names_a_schedule(api: Api):
    job = make_driven_job(include_all_users=True)
    await put_default(api)
    without = warned(await api.import_jobs(job))
    await put_default(api, schedule=daily())
    with_schedule = warned(await api.import_jobs({**job, "description": "changed"}))

    assert list(without) == [PLACE]
    assert with_schedule == {}
