"""ExplainUser says why somebody got something, or nothing."""

from __future__ import annotations

from datetime import timedelta

import grpc
import pytest
from batchwork.v1.job_service_pb2 import PauseJobRequest
from batchwork.v1.preference_service_pb2 import ExplainUserRequest, UserDecision
from batchwork_server.rpc.values import timestamp_to

from tests.fakes import START
from tests.rpc.api import make_job, refused
from tests.rpc.preferences import daily, make_driven_job, put, put_default


async def explain(api, **fields):
    request = ExplainUserRequest(**{"user_id": "ada", "feature_type": "posts"} | fields)
    return await api.preferences.ExplainUser(request)


def named(answer):
    return [UserDecision.Name(told.decision)[14:] for told in answer.periods]


async def test_a_feature_that_drives_no_job_is_told(api):
    """The documents' "preference-based job not running"."""
    await api.import_jobs(make_job("job-static", feature_type="posts"))
    await put(api, schedule=daily())

    found = await explain(api)

    [told] = found.periods
    assert named(found) == ["NO_JOB"]
    assert "preference_based" in told.message
    assert not found.next_runs


async def test_a_user_who_has_set_nothing_is_told_what_they_have_set(api):
    """The documents' "No users found for feature_type": often another spelling of the feature."""
    await api.import_jobs(make_driven_job())
    await put(api, feature_type="post", schedule=daily())

    found = await explain(api)

    [told] = found.periods
    assert named(found) == ["NO_PREFERENCE"]
    assert told.message.startswith('"ada" has set nothing for "posts", and has preferences for')
    assert 'for "post";' in told.message
    assert not found.next_runs


async def test_a_user_who_does_not_want_it_is_told_who_said_so(api):
    await api.import_jobs(make_driven_job())
    await put(api, enabled=False, schedule=daily())

    found = await explain(api)

    assert named(found) == ["OPTED_OUT"]
    assert not found.next_runs


async def test_a_preference_without_a_schedule_anywhere_is_told(api):
    await api.import_jobs(make_driven_job())
    await put(api)

    alone = await explain(api)
    await put_default(api, schedule=daily())
    with_default = await explain(api)

    assert named(alone) == ["NO_SCHEDULE"]
    assert "NO_SCHEDULE" not in named(with_default)


async def test_a_new_preference_was_not_there_before_and_is_due_next(api):
    await api.import_jobs(make_driven_job())
    await put(api, schedule=daily("00:00"))

    found = await explain(api)

    assert {told.reason for told in found.periods} <= {"CHANGED_LATER", ""}
    assert named(found)[-1] == "SKIPPED"
    [run] = found.next_runs
    assert run.job_id == "driven-job"


async def test_a_paused_job_has_no_next_run(api):
    await api.import_jobs(make_driven_job())
    await put(api, schedule=daily())
    await api.jobs.PauseJob(PauseJobRequest(job_id="driven-job"))

    found = await explain(api)

    assert {told.reason for told in found.periods} <= {"JOB_PAUSED", "CHANGED_LATER"}
    assert not found.next_runs


async def test_only_a_job_that_the_feature_drives_can_be_named(api):
    await api.import_jobs(make_driven_job(), make_job("job-static"))

    for job_id in ("job-static", "job-missing"):
        refusal = await refused(explain(api, job_id=job_id))
        assert refusal.code is grpc.StatusCode.NOT_FOUND


@pytest.mark.parametrize(
    ("fields", "path"),
    [
        pytest.param({"user_id": ""}, "user_id", id="no user"),
        pytest.param({"feature_type": ""}, "feature_type", id="no feature"),
        pytest.param({"job_id": "?"}, "job_id", id="no id"),
        pytest.param({"start_time": START, "end_time": START}, "end_time", id="no time"),
        pytest.param(
            {"start_time": START, "end_time": START + timedelta(days=32)},
            "end_time",
            id="too long a time",
        ),
    ],
)
async def test_what_is_wrong_is_refused_with_its_path(api, fields, path):
    given = {
        name: value if isinstance(value, str) else timestamp_to(value)
        for name, value in fields.items()
    }

    refusal = await refused(explain(api, **given))

    assert refusal.code is grpc.StatusCode.INVALID_ARGUMENT
    assert list(refusal.violations) == [path]
