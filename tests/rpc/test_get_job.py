"""GetJob returns a definition as it is stored."""

from __future__ import annotations

import grpc
from batchwork.v1.job_pb2 import JOB_SHAPE_INDIVIDUAL, PRIORITY_HIGH
from batchwork.v1.job_service_pb2 import GetJobRequest
from batchwork.v1.policy_pb2 import FAILURE_ACTION_FAIL, FailurePolicy, RetryPolicy
from batchwork.v1.schedule_pb2 import WEEKDAY_FRIDAY, WEEKDAY_MONDAY
from google.protobuf.duration_pb2 import Duration

from tests.rpc.api import make_job, refused


async def test_a_job_comes_back_in_the_words_of_the_contract(api):
    schedule = {
        "frequency": "weekly",
        "days": ["Friday", "Monday"],
        "at": "09:30",
        "time_zone": "Europe/Berlin",
    }
    job = make_job("job-1", priority="high", schedule=schedule, filters={"min_likes": 5})
    await api.import_jobs(job)

    found = (await api.jobs.GetJob(GetJobRequest(job_id="job-1"))).job

    assert found.shape == JOB_SHAPE_INDIVIDUAL
    assert found.priority == PRIORITY_HIGH
    assert found.categories == ["posts"]
    assert found.filters["min_likes"] == 5
    assert found.revision == 1
    assert not found.HasField("retry_limit")
    assert list(found.schedule.weekly.days) == [WEEKDAY_MONDAY, WEEKDAY_FRIDAY]
    assert found.schedule.weekly.at == "09:30"
    assert found.schedule.time_zone == "Europe/Berlin"


async def test_the_policies_of_a_job_are_those_of_its_file(api):
    job = make_job(
        "job-1",
        retry_policy={"initial_backoff": 0.5, "non_retryable_reasons": ["ACCOUNT_GONE"]},
        failure_policy={"max_failed": 0, "action": "fail"},
        batch_timeout=90,
    )
    await api.import_jobs(job, make_job("job-2"))

    found = (await api.jobs.GetJob(GetJobRequest(job_id="job-1"))).job
    plain = (await api.jobs.GetJob(GetJobRequest(job_id="job-2"))).job

    assert found.retry_policy == RetryPolicy(
        initial_backoff=Duration(nanos=500_000_000), non_retryable_reasons=["ACCOUNT_GONE"]
    )
    assert found.failure_policy == FailurePolicy(
        max_failed=0, min_sample=20, action=FAILURE_ACTION_FAIL
    )
    assert found.batch_timeout == Duration(seconds=90)
    for name in ("retry_policy", "failure_policy", "batch_timeout"):
        assert not plain.HasField(name)


async def test_a_job_that_is_not_there_is_not_found(api):
    refusal = await refused(api.jobs.GetJob(GetJobRequest(job_id="no-such-job")))

    assert refusal.code is grpc.StatusCode.NOT_FOUND


async def test_the_id_is_required(api):
    refusal = await refused(api.jobs.GetJob(GetJobRequest()))

    assert refusal.violations == {"job_id": "This field is required."}
