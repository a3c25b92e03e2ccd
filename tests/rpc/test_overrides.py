"""Overrides: unknown ones are warned of and kept, and what counts is what processors see."""

from __future__ import annotations

import json

import pytest
from batchwork.v1.job_service_pb2 import ImportJobsRequest, RunJobRequest
from batchwork.v1.preference_pb2 import (
    PREFERENCE_ORIGIN_JOB_DEFAULT,
    PREFERENCE_ORIGIN_TEMPLATE,
    PREFERENCE_ORIGIN_TENANT_DEFAULT,
    PREFERENCE_ORIGIN_USER,
)
from batchwork.v1.preference_service_pb2 import (
    BatchSetPreferencesRequest,
    GetEffectivePreferenceRequest,
    GetPreferenceRequest,
    ImportPreferencesRequest,
    SetDefaultPreferenceRequest,
)
from batchwork.v1.validation_service_pb2 import ValidateJobsRequest
from google.protobuf.json_format import MessageToDict

from tests.fakes import START
from tests.rpc.api import make_job
from tests.rpc.preferences import make_default, make_driven_job, make_preference, put, put_default

TEMPLATE = {
    "template_id": "posts",
    "processor": "fake",
    "feature_types": ["posts"],
    "overrides": {
        "tone": {"enum": ["casual", "formal"], "default": "casual"},
        "emoji": {"type": "boolean", "default": False},
        "colour": {},
    },
}


@pytest.fixture
def settings(settings):
    (settings.templates_dir / "posts.json").write_text(json.dumps(TEMPLATE))
    return settings


def told(response) -> dict[str, str]:
    return {warning.path: warning.reason for warning in response.warnings}


async def test_an_unknown_override_is_told_and_kept(api):
    response = await put(api, template_overrides={"colur": "red", "tone": "formal"})

    [warning] = response.warnings
    assert (warning.reason, warning.path) == (
        "UNKNOWN_OVERRIDE",
        "preference.template_overrides.colur",
    )
    assert all(f'"{name}"' in warning.message for name in ("colour", "emoji", "item_limit"))
    request = GetPreferenceRequest(user_id="ada", feature_type="posts")
    kept = (await api.preferences.GetPreference(request)).preference
    assert kept.template_overrides["colur"] == "red"


async def test_a_value_that_the_template_does_not_allow_is_told(api):
    response = await put(api, template_overrides={"tone": "rude", "emoji": True})

    assert told(response) == {"preference.template_overrides.tone": "OVERRIDE_NOT_ALLOWED"}


async def test_the_template_of_the_job_counts_before_that_of_the_feature(api):
    await api.import_jobs(make_driven_job(operation="echo"))

    assert told(await put(api, template_overrides={"colur": "red"})) == {}


async def test_many_preferences_are_told_with_their_places(api):
    request = BatchSetPreferencesRequest(
        preferences=[
            make_preference("ada"),
            make_preference("bob", template_overrides={"colur": "red"}),
        ]
    )

    response = await api.preferences.BatchSetPreferences(request)

    assert told(response) == {"preferences[1].template_overrides.colur": "UNKNOWN_OVERRIDE"}


async def test_imported_preferences_are_told_with_their_json_paths(api):
    overrides = {"template_overrides": {"colur": "red"}}
    documents = [
        {"tenant_id": "ada", "active": True, "features": {"posts": overrides}},
        {"tenant_id": "bob", "config_key": "p", "config_value": {"posts": overrides}},
    ]
    request = ImportPreferencesRequest(preferences_json=json.dumps(documents), validate_only=True)

    response = await api.preferences.ImportPreferences(request)

    assert told(response) == {
        "$[0].features.posts.template_overrides.colur": "UNKNOWN_OVERRIDE",
        "$[1].config_value.posts.template_overrides.colur": "UNKNOWN_OVERRIDE",
    }


async def test_the_default_of_a_tenant_is_told(api):
    default = make_default(template_overrides={"colur": "red"})

    response = await api.preferences.SetDefaultPreference(
        SetDefaultPreferenceRequest(default_preference=default)
    )

    path = "default_preference.template_overrides.colur"
    assert told(response) == {path: "UNKNOWN_OVERRIDE"}


async def test_the_defaults_of_a_job_are_told(api):
    defaults = {"template_overrides": {"colur": "red", "tone": "rude"}}
    job = make_driven_job(operation=None, default_preferences=defaults)
    file = json.dumps({"batch_processing_jobs": [job]})
    path = "$.batch_processing_jobs[0].default_preferences.template_overrides"
    expected = {f"{path}.colur": "UNKNOWN_OVERRIDE", f"{path}.tone": "OVERRIDE_NOT_ALLOWED"}

    imported = await api.jobs.ImportJobs(ImportJobsRequest(jobs_json=file))
    validated = await api.validation.ValidateJobs(ValidateJobsRequest(jobs_json=file))

    assert told(imported).items() >= expected.items()
    assert told(validated.results[0]).items() >= expected.items()


async def test_what_counts_says_who_said_it(api):
    defaults = {"template_overrides": {"colour": "red", "length": "short", "tags": ["job"]}}
    await api.import_jobs(make_driven_job(operation=None, default_preferences=defaults))
    await put_default(api, template_overrides={"colour": "blue", "tags": None})
    await put(api, template_overrides={"item_limit": 2, "tone": "rude"})

    request = GetEffectivePreferenceRequest(user_id="ada", feature_type="posts")
    found = await api.preferences.GetEffectivePreference(request)

    assert MessageToDict(found.template_overrides) == {
        "tone": "casual",
        "emoji": False,
        "colour": "blue",
        "length": "short",
        "item_limit": 2,
    }
    assert dict(found.override_origins) == {
        "tone": PREFERENCE_ORIGIN_TEMPLATE,
        "emoji": PREFERENCE_ORIGIN_TEMPLATE,
        "colour": PREFERENCE_ORIGIN_TENANT_DEFAULT,
        "length": PREFERENCE_ORIGIN_JOB_DEFAULT,
        "item_limit": PREFERENCE_ORIGIN_USER,
    }


async def test_a_processor_sees_what_counts_for_each_user(api, server, processor):
    store = server.application.store
    async with store.transaction() as tx:
        users = [("ada", True), ("bob", True)]
        await store.users.load(tx, tenant_id="default", users=users, now=START)
    defaults = {"template_overrides": {"colour": "red", "length": "short"}}
    job = make_driven_job(operation=None, category=None, default_preferences=defaults)
    await api.import_jobs(job)
    await put_default(api, template_overrides={"colour": "blue"})
    await put(api, "ada", template_overrides={"tone": "formal", "length": None})
    await put(api, "bob")

    response = await api.jobs.RunJob(RunJobRequest(job_id=job["id"]))
    await api.finished(response.batch.batch_id)

    seen = {call.user_id: call.overrides for call in processor.calls}
    assert seen == {
        "ada": {"tone": "formal", "emoji": False, "colour": "blue"},
        "bob": {"tone": "casual", "emoji": False, "colour": "blue", "length": "short"},
    }
    assert all(call.data["template_overrides"] == call.overrides for call in processor.calls)


async def test_work_for_no_user_is_done_as_the_template_says(api, processor):
    batch = await api.create_batch(operation="", template_id="posts")
    await api.finished(batch.batch_id)

    [call] = processor.calls
    assert call.overrides == {"tone": "casual", "emoji": False}


async def test_a_job_without_defaults_is_not_told(api):
    response = await api.import_jobs(make_job())

    assert "UNKNOWN_OVERRIDE" not in told(response).values()
