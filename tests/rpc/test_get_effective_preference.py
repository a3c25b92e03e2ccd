"""GetEffectivePreference says what counts for a user, and who said it."""

from __future__ import annotations

import json

import grpc
from batchwork.v1.preference_pb2 import (
    PREFERENCE_ORIGIN_JOB_DEFAULT as JOB_DEFAULT,
)
from batchwork.v1.preference_pb2 import (
    PREFERENCE_ORIGIN_SERVER as SERVER,
)
from batchwork.v1.preference_pb2 import (
    PREFERENCE_ORIGIN_TENANT_DEFAULT as TENANT_DEFAULT,
)
from batchwork.v1.preference_pb2 import (
    PREFERENCE_ORIGIN_UNSPECIFIED as NOBODY,
)
from batchwork.v1.preference_pb2 import (
    PREFERENCE_ORIGIN_USER as USER,
)
from batchwork.v1.preference_service_pb2 import (
    GetEffectivePreferenceRequest,
    ImportPreferencesRequest,
)

from tests.rpc.api import make_job, refused
from tests.rpc.preferences import daily, make_driven_job, put, put_default

DEFAULTS = {
    "frequency": "weekly",
    "preferred_day": "monday",
    "preferred_time": "10:00",
    "template_overrides": {"tone": "casual", "length": "short", "voice": "low"},
}


def call(api, **fields):
    request = GetEffectivePreferenceRequest(**{"user_id": "ada", "feature_type": "posts"} | fields)
    return api.preferences.GetEffectivePreference(request)


async def test_each_part_comes_from_the_first_who_says_it(api):
    await api.import_jobs(make_driven_job(default_preferences=DEFAULTS))
    await put_default(
        api,
        schedule=daily("07:00", time_zone="Asia/Tokyo"),
        template_overrides={"tone": "warm", "length": "long"},
    )
    await put(api, schedule=daily(), template_overrides={"tone": "dry"})

    found = await call(api)

    assert (found.enabled, found.enabled_origin) == (True, USER)
    assert found.schedule == daily(time_zone="Asia/Tokyo")
    assert (found.schedule_origin, found.time_zone_origin) == (USER, TENANT_DEFAULT)
    assert dict(found.template_overrides) == {"tone": "dry", "length": "long", "voice": "low"}
    assert dict(found.override_origins) == {
        "tone": USER,
        "length": TENANT_DEFAULT,
        "voice": JOB_DEFAULT,
    }
    assert found.job_id == "driven-job"
    [run] = found.next_runs
    assert (run.job_id, run.local_time[10:]) == ("driven-job", "T09:00:00+09:00")


async def test_a_user_who_says_nothing_gets_the_defaults_of_a_job_that_includes_them(api):
    await api.import_jobs(make_driven_job(include_all_users=True, default_preferences=DEFAULTS))

    found = await call(api)

    assert (found.enabled, found.enabled_origin) == (True, JOB_DEFAULT)
    assert found.schedule.weekly.at == "10:00"
    assert (found.schedule_origin, found.time_zone_origin) == (JOB_DEFAULT, SERVER)


async def test_a_user_who_says_nothing_gets_nothing_of_a_job_that_is_not_for_them(api):
    await api.import_jobs(make_driven_job(default_preferences=DEFAULTS))

    found = await call(api)

    assert (found.enabled, found.enabled_origin) == (False, JOB_DEFAULT)
    assert (found.schedule_origin, list(found.next_runs)) == (JOB_DEFAULT, [])


async def test_when_nobody_says_anything_nothing_is_to_be_done(api):
    found = await call(api)

    assert (found.enabled, found.enabled_origin) == (False, SERVER)
    assert (found.schedule_origin, list(found.next_runs), found.job_id) == (NOBODY, [], "")


async def test_the_defaults_of_another_job_count_when_it_is_named(api):
    later = DEFAULTS | {"preferred_time": "18:00"}
    await api.import_jobs(
        make_driven_job(default_preferences=DEFAULTS),
        make_driven_job("evening-job", default_preferences=later),
    )

    found = await call(api, job_id="evening-job")

    assert (found.job_id, found.schedule.weekly.at) == ("evening-job", "18:00")


async def test_a_job_that_the_feature_does_not_drive_is_not_found(api):
    await api.import_jobs(make_job("other-job"))

    refusals = [await refused(call(api, job_id=job)) for job in ("other-job", "nowhere")]

    assert [refusal.code for refusal in refusals] == [grpc.StatusCode.NOT_FOUND] * 2


async def test_all_that_is_wrong_is_answered_at_once(api):
    refusal = await refused(call(api, user_id="", feature_type="", job_id="!"))

    assert sorted(refusal.violations) == ["feature_type", "job_id", "user_id"]


async def test_a_user_who_rests_does_so_also_where_they_have_set_nothing(api):
    await api.import_jobs(make_driven_job(default_preferences=DEFAULTS, include_all_users=True))
    document = {"tenant_id": "ada", "active": False, "features": {}}
    request = ImportPreferencesRequest(preferences_json=json.dumps([document]))
    await api.preferences.ImportPreferences(request)

    found = await call(api)

    assert found.inactive
    assert not found.next_runs
