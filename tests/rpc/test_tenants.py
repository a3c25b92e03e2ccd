"""Tenants never see each other's things; operators see everybody's, when they say so."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

import grpc
import pytest
from batchwork.v1 import (
    batch_service_pb2,
    job_service_pb2,
    preference_service_pb2,
    validation_service_pb2,
)
from batchwork.v1.item_pb2 import ItemInput
from batchwork.v1.job_pb2 import JOB_SHAPE_INDIVIDUAL, Job
from batchwork.v1.preference_pb2 import DefaultPreference, Preference
from batchwork_server.rpc.values import timestamp_to
from google.protobuf.message import Message

from tests.fakes import START
from tests.rpc.api import ADA, BOB, OLGA, Api, as_caller, make_job, refused
from tests.rpc.test_list_occurrences import decide

BATCH, JOB, ITEM, USER, FEATURE = "ada-batch", "ada-job", "ada-item", "ada-user", "ada-feature"

READS: dict[str, Message] = {
    "GetBatch": batch_service_pb2.GetBatchRequest(batch_id=BATCH),
    "WatchBatch": batch_service_pb2.WatchBatchRequest(batch_id=BATCH),
    "GetItem": batch_service_pb2.GetItemRequest(batch_id=BATCH, item_id=ITEM),
    "ListItems": batch_service_pb2.ListItemsRequest(batch_id=BATCH),
    "StreamResults": batch_service_pb2.StreamResultsRequest(batch_id=BATCH),
    "GetValidationReport": validation_service_pb2.GetValidationReportRequest(batch_id=BATCH),
    "GetJob": job_service_pb2.GetJobRequest(job_id=JOB),
    "ExportJobs": job_service_pb2.ExportJobsRequest(job_ids=[JOB]),
    "ListOccurrences": job_service_pb2.ListOccurrencesRequest(job_id=JOB),
    "GetPreference": preference_service_pb2.GetPreferenceRequest(
        user_id=USER, feature_type=FEATURE
    ),
    "GetDefaultPreference": preference_service_pb2.GetDefaultPreferenceRequest(
        feature_type=FEATURE
    ),
    "ListGroupMembers": preference_service_pb2.ListGroupMembersRequest(group_key=1),
}

LISTS: dict[str, Message] = {
    "ListBatches": batch_service_pb2.ListBatchesRequest(),
    "ListJobs": job_service_pb2.ListJobsRequest(),
    "ListUpcomingRuns": job_service_pb2.ListUpcomingRunsRequest(),
    "ListPreferences": preference_service_pb2.ListPreferencesRequest(),
    "ListPreferenceGroups": preference_service_pb2.ListPreferenceGroupsRequest(),
    "ListPreferenceChanges": preference_service_pb2.ListPreferenceChangesRequest(),
}

CHANGES: dict[str, Message] = {
    "CancelBatch": batch_service_pb2.CancelBatchRequest(batch_id=BATCH),
    "DeleteBatch": batch_service_pb2.DeleteBatchRequest(batch_id=BATCH),
    "PauseBatch": batch_service_pb2.PauseBatchRequest(batch_id=BATCH),
    "ResumeBatch": batch_service_pb2.ResumeBatchRequest(batch_id=BATCH),
    "RetryBatch": batch_service_pb2.RetryBatchRequest(batch_id=BATCH),
    "SealBatch": batch_service_pb2.SealBatchRequest(batch_id=BATCH),
    "PauseJob": job_service_pb2.PauseJobRequest(job_id=JOB),
    "ResumeJob": job_service_pb2.ResumeJobRequest(job_id=JOB),
    "PlanJob": job_service_pb2.PlanJobRequest(job_id=JOB),  # as the one who would run it
    "BackfillJob": job_service_pb2.BackfillJobRequest(
        job_id=JOB,
        start_time=timestamp_to(START),
        end_time=timestamp_to(START + timedelta(hours=1)),
    ),
    "RunJob": job_service_pb2.RunJobRequest(job_id=JOB),
    "UpdateJob": job_service_pb2.UpdateJobRequest(job=Job(job_id=JOB, limit=5)),
    "DeleteJob": job_service_pb2.DeleteJobRequest(job_id=JOB),
    "DeletePreference": preference_service_pb2.DeletePreferenceRequest(
        user_id=USER, feature_type=FEATURE
    ),
}

OF_THE_CALLER_ONLY = {
    *("CreateBatch", "CreateJob", "ImportJobs", "ValidateUsers", "ValidateBatch"),
    *("SetPreference", "BatchSetPreferences", "SetDefaultPreference", "ImportPreferences"),
    *("GetEffectivePreference", "PreviewSchedule", "ListCompatibleCategories", "ExplainUser"),
}
"""What names nobody's things; each has a test of its own below."""

TRIED_ELSEWHERE = {
    *("CancelBackfill", "GetBatchStatistics", "PurgeBatches", "UploadItems", "WatchBatches"),
    *("ForecastLoad", "ListReferences", "WatchPreferenceChanges", "GetContext"),
    *("StreamValidateUsers", "ValidateItems", "ValidateJobs", "ValidateReferences"),
    "ListNotifications",
}
"""What takes a stream, never ends by itself, has nothing to name, or a name that the server makes;
their own tests try them."""


def method_of(api: Api, name: str) -> Any:
    stubs = (api.batches, api.jobs, api.preferences, api.validation)
    return next(getattr(stub, name) for stub in stubs if hasattr(stub, name))


async def answer_of(api: Api, name: str, request: Message, key: str) -> Any:
    """Returns the answer to a call; of a stream the first one."""
    call = method_of(api, name)(request, metadata=as_caller(key))
    return await anext(aiter(call)) if hasattr(call, "__aiter__") else await call


def as_operator_of(request: Message, tenant_id: str) -> Message:
    named = type(request)()
    named.CopyFrom(request)
    named.tenant_id = tenant_id  # type: ignore[attr-defined]
    return named


@pytest.fixture
async def things_of_ada(guarded: Api, guarded_server) -> None:
    ada = as_caller(ADA)
    batch = await guarded.create_batch(ITEM, batch_id=BATCH, metadata=ada)
    job = make_job(JOB, schedule={"frequency": "hourly"})
    await guarded.import_jobs(job, metadata=ada)
    preference = Preference(user_id=USER, feature_type=FEATURE, enabled=True)
    await guarded.preferences.SetPreference(
        preference_service_pb2.SetPreferenceRequest(preference=preference), metadata=ada
    )
    default = DefaultPreference(feature_type=FEATURE, enabled=True)
    await guarded.preferences.SetDefaultPreference(
        preference_service_pb2.SetDefaultPreferenceRequest(default_preference=default),
        metadata=ada,
    )
    await guarded.finished(batch.batch_id, metadata=ada)
    await decide(guarded_server.application.store, JOB, tenant_id="blue")


def test_every_rpc_is_tried() -> None:
    services = (
        batch_service_pb2.DESCRIPTOR.services_by_name["BatchService"],
        job_service_pb2.DESCRIPTOR.services_by_name["JobService"],
        preference_service_pb2.DESCRIPTOR.services_by_name["PreferenceService"],
        validation_service_pb2.DESCRIPTOR.services_by_name["ValidationService"],
    )

    names = {method.name for service in services for method in service.methods}

    assert (
        names == READS.keys() | LISTS.keys() | CHANGES.keys() | OF_THE_CALLER_ONLY | TRIED_ELSEWHERE
    )


@pytest.mark.usefixtures("things_of_ada")
@pytest.mark.parametrize("name", sorted(READS | CHANGES))
async def test_another_tenant_s_thing_is_not_there(guarded, name):
    request = (READS | CHANGES)[name]

    refusal = await refused(method_of(guarded, name)(request, metadata=as_caller(BOB)))

    assert refusal.code is grpc.StatusCode.NOT_FOUND


@pytest.mark.usefixtures("things_of_ada")
@pytest.mark.parametrize("name", sorted(LISTS))
async def test_another_tenant_s_things_are_not_listed(guarded, name):
    ours = await answer_of(guarded, name, LISTS[name], ADA)
    theirs = await answer_of(guarded, name, LISTS[name], BOB)

    assert ours.ListFields()
    assert not theirs.ListFields()


@pytest.mark.parametrize("name", sorted(READS | LISTS))
async def test_only_an_operator_may_name_a_tenant(guarded, name):
    request = as_operator_of((READS | LISTS)[name], "blue")

    refusal = await refused(method_of(guarded, name)(request, metadata=as_caller(BOB)))

    assert refusal.code is grpc.StatusCode.PERMISSION_DENIED


@pytest.mark.usefixtures("things_of_ada")
@pytest.mark.parametrize("name", sorted(READS | LISTS))
async def test_an_operator_sees_the_things_of_the_tenant_that_is_named(guarded, name):
    request = as_operator_of((READS | LISTS)[name], "blue")

    answer = await answer_of(guarded, name, request, OLGA)

    assert answer.ListFields()


@pytest.mark.usefixtures("things_of_ada")
@pytest.mark.parametrize(
    "name",
    [
        *("GetBatch", "ListBatches", "ListItems", "GetJob", "ListJobs"),
        *("ListPreferences", "ListPreferenceGroups", "ListPreferenceChanges"),
    ],
)
async def test_an_operator_may_name_all_tenants(guarded, name):
    request = as_operator_of((READS | LISTS)[name], "-")

    answer = await answer_of(guarded, name, request, OLGA)

    assert answer.ListFields()


@pytest.mark.usefixtures("things_of_ada")
async def test_an_id_is_taken_only_within_its_tenant(guarded):
    batch = await guarded.create_batch(batch_id=BATCH, metadata=as_caller(BOB))

    assert batch.tenant_id == "green"


async def test_a_request_id_belongs_to_its_tenant(guarded):
    ada = await guarded.create_batch(request_id="request-1", metadata=as_caller(ADA))
    bob = await guarded.create_batch(request_id="request-1", metadata=as_caller(BOB))

    assert ada.batch_id != bob.batch_id


@pytest.mark.usefixtures("things_of_ada")
async def test_an_import_leaves_the_jobs_of_others_alone(guarded):
    await guarded.import_jobs(make_job(JOB, name="Bob's"), metadata=as_caller(BOB))

    request = job_service_pb2.ExportJobsRequest()
    ada = await guarded.jobs.ExportJobs(request, metadata=as_caller(ADA))
    assert [job["name"] for job in json.loads(ada.jobs_json)["batch_processing_jobs"]] == [
        "Welcome"
    ]


@pytest.mark.usefixtures("things_of_ada")
async def test_a_job_is_created_for_the_own_tenant(guarded):
    job = Job(
        job_id=JOB,
        tenant_id="blue",
        shape=JOB_SHAPE_INDIVIDUAL,
        categories=["posts"],
        operation="echo",
    )

    request = job_service_pb2.CreateJobRequest(job=job)
    created = await guarded.jobs.CreateJob(request, metadata=as_caller(BOB))

    assert created.job.tenant_id == "green"
    ada = await answer_of(guarded, "GetJob", READS["GetJob"], ADA)
    assert ada.job.display_name == "Welcome"


@pytest.mark.usefixtures("things_of_ada")
async def test_a_sync_prunes_only_jobs_of_the_own_tenant(guarded):
    request = job_service_pb2.ImportJobsRequest(
        jobs_json='{"batch_processing_jobs": []}', prune=True
    )

    await guarded.jobs.ImportJobs(request, metadata=as_caller(BOB))

    ada = await answer_of(guarded, "GetJob", READS["GetJob"], ADA)
    assert ada.job.job_id == JOB


@pytest.mark.usefixtures("things_of_ada")
async def test_a_preference_is_set_for_the_own_tenant(guarded):
    preference = Preference(user_id=USER, feature_type=FEATURE, enabled=False)
    request = preference_service_pb2.SetPreferenceRequest(preference=preference)

    await guarded.preferences.SetPreference(request, metadata=as_caller(BOB))

    ada = await answer_of(guarded, "GetPreference", READS["GetPreference"], ADA)
    assert ada.preference.enabled


@pytest.mark.usefixtures("things_of_ada")
async def test_many_preferences_are_set_for_the_own_tenant(guarded):
    preference = Preference(user_id=USER, feature_type=FEATURE, enabled=False)
    request = preference_service_pb2.BatchSetPreferencesRequest(preferences=[preference])

    answer = await guarded.preferences.BatchSetPreferences(request, metadata=as_caller(BOB))

    assert answer.results[0].etag == "c1"
    ada = await answer_of(guarded, "GetPreference", READS["GetPreference"], ADA)
    assert ada.preference.enabled


@pytest.mark.usefixtures("things_of_ada")
async def test_preferences_are_imported_for_the_own_tenant(guarded):
    document = {"tenant_id": USER, "features": {FEATURE: {"enabled": False}}, "active": False}
    request = preference_service_pb2.ImportPreferencesRequest(preferences_json=json.dumps(document))

    await guarded.preferences.ImportPreferences(request, metadata=as_caller(BOB))

    ada = await answer_of(guarded, "GetPreference", READS["GetPreference"], ADA)
    assert (ada.preference.enabled, ada.preference.inactive) == (True, False)


@pytest.mark.usefixtures("things_of_ada")
async def test_a_default_is_set_for_the_own_tenant(guarded):
    default = DefaultPreference(feature_type=FEATURE, enabled=False)
    request = preference_service_pb2.SetDefaultPreferenceRequest(default_preference=default)

    await guarded.preferences.SetDefaultPreference(request, metadata=as_caller(BOB))

    ada = await answer_of(guarded, "GetDefaultPreference", READS["GetDefaultPreference"], ADA)
    assert ada.default_preference.enabled


@pytest.mark.usefixtures("things_of_ada")
async def test_what_counts_for_a_user_is_what_the_own_tenant_says(guarded):
    request = preference_service_pb2.GetEffectivePreferenceRequest(
        user_id=USER, feature_type=FEATURE
    )

    ada = await answer_of(guarded, "GetEffectivePreference", request, ADA)
    bob = await answer_of(guarded, "GetEffectivePreference", request, BOB)
    olga = await answer_of(guarded, "GetEffectivePreference", as_operator_of(request, "blue"), OLGA)

    assert (ada.enabled, bob.enabled, olga.enabled) == (True, False, True)


@pytest.mark.usefixtures("things_of_ada")
async def test_a_user_is_explained_within_the_own_tenant(guarded):
    driven = make_job("job-driven", preference_based=True, feature_type=FEATURE)
    await guarded.import_jobs(driven, metadata=as_caller(ADA))
    request = preference_service_pb2.ExplainUserRequest(user_id=USER, feature_type=FEATURE)

    ada = await answer_of(guarded, "ExplainUser", request, ADA)
    bob = await answer_of(guarded, "ExplainUser", request, BOB)
    olga = await answer_of(guarded, "ExplainUser", as_operator_of(request, "blue"), OLGA)

    assert [told.job_id for told in ada.periods] == ["job-driven"]
    assert olga == ada
    assert [told.decision for told in bob.periods] == [preference_service_pb2.USER_DECISION_NO_JOB]


async def test_users_are_validated_within_the_own_tenant(guarded, guarded_server):
    store = guarded_server.application.store
    async with store.transaction() as tx:
        await store.users.load(tx, tenant_id="blue", users=[(USER, True)], now=START)
    request = validation_service_pb2.ValidateUsersRequest(user_ids=[USER])

    ada = await guarded.validation.ValidateUsers(request, metadata=as_caller(ADA))
    bob = await guarded.validation.ValidateUsers(request, metadata=as_caller(BOB))

    assert (ada.totals.valid, bob.totals.valid) == (1, 0)


async def test_a_batch_of_another_tenant_makes_no_request_invalid(guarded):
    await guarded.create_batch(batch_id="bat-1", metadata=as_caller(ADA))
    batch = batch_service_pb2.CreateBatchRequest(
        batch_id="bat-1", operation="echo", items=[ItemInput()]
    )
    request = validation_service_pb2.ValidateBatchRequest(batch=batch)

    own = await guarded.validation.ValidateBatch(request, metadata=as_caller(ADA))
    other = await guarded.validation.ValidateBatch(request, metadata=as_caller(BOB))

    assert (own.valid, other.valid) == (False, True)
