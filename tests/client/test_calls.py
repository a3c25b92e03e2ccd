"""One method per RPC: what it sends, what it returns."""

from __future__ import annotations

from contextlib import aclosing
from datetime import UTC, datetime, timedelta, timezone

import pytest
from batchwork.v1 import (
    batch_service_pb2,
    job_service_pb2,
    preference_service_pb2,
    validation_service_pb2,
)
from batchwork.v1.batch_pb2 import Batch, BatchOptions, BatchPlan, BatchState
from batchwork.v1.batch_service_pb2_grpc import BatchServiceServicer
from batchwork.v1.item_pb2 import Item, ItemInput, ItemState
from batchwork.v1.job_pb2 import Job
from batchwork.v1.job_service_pb2_grpc import JobServiceServicer
from batchwork.v1.policy_pb2 import Overlap
from batchwork.v1.preference_pb2 import DefaultPreference, Preference, PreferenceChange
from batchwork.v1.preference_service_pb2_grpc import PreferenceServiceServicer
from batchwork.v1.schedule_pb2 import Schedule
from batchwork.v1.validation_service_pb2_grpc import ValidationServiceServicer
from batchwork_client import Batches, Jobs, Preferences, Validation, item_input
from batchwork_client.watch import Patience

from tests.client.servers import HandTimer, Unary, servicer


@pytest.mark.parametrize(
    ("service", "client_class"),
    [
        (batch_service_pb2.DESCRIPTOR.services_by_name["BatchService"], Batches),
        (job_service_pb2.DESCRIPTOR.services_by_name["JobService"], Jobs),
        (preference_service_pb2.DESCRIPTOR.services_by_name["PreferenceService"], Preferences),
        (validation_service_pb2.DESCRIPTOR.services_by_name["ValidationService"], Validation),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_every_rpc_has_a_method_of_its_name(service, client_class):
    for method in service.methods:
        snake = "".join(
            f"_{letter.lower()}" if letter.isupper() else letter for letter in method.name
        )
        assert hasattr(client_class, snake[1:]), method.name


@pytest.fixture
def create_batch():
    return Unary(batch_service_pb2.CreateBatchResponse(batch=Batch(batch_id="bat-1")))


@pytest.fixture
async def batches(client_of, create_batch):
    client = await client_of(servicer(BatchServiceServicer, CreateBatch=create_batch))
    return client.batches


async def test_creating_a_batch_returns_it(batches, create_batch):
    batch = await batches.create_batch(
        [ItemInput(item_id="a", data_json="{}"), ("b", {"text": "é", "n": 1})],
        operation="annotate",
        options=BatchOptions(chunk_size=10),
        labels={"team": "red"},
        batch_metadata={"data_source_type": "users"},
        display_name="Posts",
    )

    assert batch.batch_id == "bat-1"
    request = create_batch.requests[0]
    assert [item.data_json for item in request.items] == ["{}", '{"text":"é","n":1}']
    assert (request.operation, request.display_name) == ("annotate", "Posts")
    assert request.options.chunk_size == 10
    assert dict(request.labels) == {"team": "red"}
    assert request.batch_metadata["data_source_type"] == "users"
    assert not request.HasField("filters")
    assert not request.validate_only


async def test_items_may_come_as_a_mapping(batches, create_batch):
    await batches.create_batch({"a": [1, 2], "b": None})

    items = [(item.item_id, item.data_json) for item in create_batch.requests[0].items]
    assert items == [("a", "[1,2]"), ("b", "null")]


async def test_batch_may_select_from_a_category(batches, create_batch):
    await batches.create_batch(category="users", filters={"min_age": 18, "tags": ["a"]}, limit=5)

    request = create_batch.requests[0]
    assert (request.category, request.limit) == ("users", 5)
    assert request.filters["min_age"] == 18
    assert list(request.filters["tags"]) == ["a"]


async def test_changing_calls_have_a_request_id(batches, create_batch):
    await batches.create_batch({"a": 1})
    await batches.create_batch({"a": 1})
    await batches.create_batch({"a": 1}, request_id="mine")

    first, second, given = (request.request_id for request in create_batch.requests)
    assert len(first) == len(second) == 32
    assert first != second
    assert given == "mine"


async def test_plan_stores_nothing(client_of):
    create_batch = Unary(
        batch_service_pb2.CreateBatchResponse(plan=BatchPlan(item_count=3)),
    )
    client = await client_of(servicer(BatchServiceServicer, CreateBatch=create_batch))

    response = await client.batches.plan_batch(category="users")

    assert response.plan.item_count == 3
    assert create_batch.requests[0].validate_only


def test_data_that_json_cannot_express_is_refused():
    with pytest.raises(ValueError, match="JSON"):
        item_input("a", float("nan"))


def page_of_batches(request):
    """Serves the numbers 0 to 249 in pages; the token is the first number of the page."""
    start = int(request.page_token or request.skip)
    stop = min(start + request.page_size, 250)
    return batch_service_pb2.ListBatchesResponse(
        batches=[Batch(batch_id=str(number)) for number in range(start, stop)],
        next_page_token=str(stop) if stop < 250 else "",
    )


@pytest.mark.parametrize(
    ("limit", "count", "sizes"),
    [
        pytest.param(None, 250, [100, 100, 100], id="all"),
        pytest.param(130, 130, [100, 30], id="less than there is"),
        pytest.param(100, 100, [100], id="exactly a page"),
        pytest.param(500, 250, [100, 100, 100], id="more than there is"),
        pytest.param(0, 0, [], id="none"),
    ],
)
async def test_pages_follow_each_other_up_to_the_limit(client_of, limit, count, sizes):
    list_batches = Unary(page_of_batches)
    client = await client_of(servicer(BatchServiceServicer, ListBatches=list_batches))

    found = [batch.batch_id async for batch in client.batches.list_batches(limit=limit)]

    assert found == [str(number) for number in range(count)]
    assert [request.page_size for request in list_batches.requests] == sizes


async def test_filters_are_those_of_the_first_page_and_skip_is_not_repeated(client_of):
    list_batches = Unary(page_of_batches)
    client = await client_of(servicer(BatchServiceServicer, ListBatches=list_batches))
    berlin = timezone(timedelta(hours=2))

    found = client.batches.list_batches(
        skip=40,
        limit=150,
        states=[BatchState.BATCH_STATE_FAILED],
        labels={"team": "red"},
        created_after=datetime(2026, 7, 1, 2, tzinfo=berlin),
    )

    numbers = [batch.batch_id async for batch in found]
    assert numbers == [str(number) for number in range(40, 190)]
    first, second = list_batches.requests
    assert (first.skip, second.skip) == (40, 0)
    assert first.states == second.states
    assert first.labels == second.labels
    assert second.created_after.ToDatetime(UTC) == datetime(2026, 7, 1, tzinfo=UTC)


async def test_empty_page_with_a_token_is_not_the_end(client_of):
    # A page ends early when its items are large, even before its first one.
    list_items = Unary(
        batch_service_pb2.ListItemsResponse(next_page_token="1"),
        batch_service_pb2.ListItemsResponse(items=[Item(item_id="a")]),
    )
    client = await client_of(servicer(BatchServiceServicer, ListItems=list_items))

    found = [item.item_id async for item in client.batches.list_items("bat-1", limit=5)]

    assert found == ["a"]


async def test_time_without_a_zone_is_refused(batches):
    with pytest.raises(ValueError, match="created_after"):
        batches.list_batches(created_after=datetime(2026, 7, 1))  # noqa: DTZ001 (the case)


async def test_negative_limit_is_refused(batches):
    with pytest.raises(ValueError, match="limit"):
        await anext(batches.list_batches(limit=-1))


async def test_batches_and_items_are_read_and_cancelled(client_of):
    cancel_batch = Unary(batch_service_pb2.CancelBatchResponse(batch=Batch(batch_id="bat-1")))
    get_item = Unary(batch_service_pb2.GetItemResponse(item=Item(item_id="a")))
    get_batch = Unary(batch_service_pb2.GetBatchResponse(batch=Batch(batch_id="bat-1")))
    client = await client_of(
        servicer(
            BatchServiceServicer, CancelBatch=cancel_batch, GetItem=get_item, GetBatch=get_batch
        )
    )

    batch = await client.batches.get_batch("bat-1", tenant_id="acme")
    item = await client.batches.get_item("bat-1", item_id="a")
    cancelled = await client.batches.cancel_batch("bat-1")

    assert (batch.batch_id, item.item_id, cancelled.batch_id) == ("bat-1", "a", "bat-1")
    assert get_batch.requests[0].tenant_id == "acme"
    assert cancel_batch.requests[0].request_id


async def test_a_batch_is_paused_resumed_and_stopped_with_a_note(client_of):
    batch = Batch(batch_id="bat-1")
    pause = Unary(batch_service_pb2.PauseBatchResponse(batch=batch))
    resume = Unary(batch_service_pb2.ResumeBatchResponse(batch=batch))
    cancel = Unary(batch_service_pb2.CancelBatchResponse(batch=batch))
    client = await client_of(
        servicer(BatchServiceServicer, PauseBatch=pause, ResumeBatch=resume, CancelBatch=cancel)
    )

    await client.batches.pause_batch("bat-1", note="Lunch.")
    await client.batches.resume_batch("bat-1", request_id="mine")
    await client.batches.cancel_batch("bat-1", stop_in_flight=True, note="Wrong list.")

    assert (pause.requests[0].batch_id, pause.requests[0].note) == ("bat-1", "Lunch.")
    assert pause.requests[0].request_id
    assert resume.requests[0].request_id == "mine"
    assert cancel.requests[0].mode == batch_service_pb2.CANCEL_MODE_STOP_IN_FLIGHT
    assert cancel.requests[0].note == "Wrong list."


async def test_a_retry_sends_its_filter_and_tells_how_many_items_it_reopened(client_of):
    retry = Unary(
        batch_service_pb2.RetryBatchResponse(batch=Batch(batch_id="bat-1"), retried_count=2)
    )
    client = await client_of(servicer(BatchServiceServicer, RetryBatch=retry))

    response = await client.batches.retry_batch(
        "bat-1",
        states=[ItemState.ITEM_STATE_FAILED, ItemState.ITEM_STATE_EXPIRED],
        user_id="u1",
        error_reason="BUSY",
        item_ids=["a", "b"],
    )

    assert (response.batch.batch_id, response.retried_count) == ("bat-1", 2)
    [sent] = retry.requests
    assert list(sent.states) == [ItemState.ITEM_STATE_FAILED, ItemState.ITEM_STATE_EXPIRED]
    assert (sent.user_id, sent.error_reason, list(sent.item_ids)) == ("u1", "BUSY", ["a", "b"])
    assert sent.request_id


async def test_jobs_are_imported_from_text_or_a_file(client_of, tmp_path):
    import_jobs = Unary(job_service_pb2.ImportJobsResponse())
    client = await client_of(servicer(JobServiceServicer, ImportJobs=import_jobs))
    file = tmp_path / "jobs.json"
    file.write_text('{"batch_processing_jobs": ["ü"]}', encoding="utf-8")

    await client.jobs.import_jobs('{"batch_processing_jobs": []}', source="deploy")
    await client.jobs.import_jobs(file, validate_only=True, prune=True)

    from_text, from_file = import_jobs.requests
    assert from_text.jobs_json == '{"batch_processing_jobs": []}'
    assert (from_text.source, from_text.validate_only) == ("deploy", False)
    assert (from_text.prune, from_file.prune) == (False, True)
    assert from_file.jobs_json == '{"batch_processing_jobs": ["ü"]}'
    assert from_file.validate_only
    assert from_file.request_id


async def test_jobs_are_read_and_run(client_of):
    run_job = Unary(job_service_pb2.RunJobResponse(batch=Batch(batch_id="bat-1")))
    client = await client_of(
        servicer(
            JobServiceServicer,
            GetJob=Unary(job_service_pb2.GetJobResponse(job=Job(job_id="daily"))),
            ListJobs=Unary(job_service_pb2.ListJobsResponse(jobs=[Job(job_id="daily")])),
            ExportJobs=Unary(job_service_pb2.ExportJobsResponse(jobs_json="{}")),
            RunJob=run_job,
        )
    )

    job = await client.jobs.get_job("daily")
    listed = [job.job_id async for job in client.jobs.list_jobs()]
    exported = await client.jobs.export_jobs(["daily"])
    batch = await client.jobs.run_job(
        "daily", user_ids=["u1"], plan_token="t1", overlap=Overlap.OVERLAP_SKIP
    )

    assert (job.job_id, listed, exported, batch.batch_id) == ("daily", ["daily"], "{}", "bat-1")
    assert list(run_job.requests[0].user_ids) == ["u1"]
    assert run_job.requests[0].plan_token == "t1"
    assert run_job.requests[0].overlap == Overlap.OVERLAP_SKIP
    assert run_job.requests[0].request_id


async def test_a_run_is_planned_first(client_of):
    plan_job = Unary(job_service_pb2.PlanJobResponse(plan=BatchPlan(item_count=3), plan_token="t1"))
    client = await client_of(servicer(JobServiceServicer, PlanJob=plan_job))

    planned = await client.jobs.plan_job("daily", user_ids=["u1"])

    assert (planned.plan.item_count, planned.plan_token) == (3, "t1")
    [sent] = plan_job.requests
    assert (sent.job_id, list(sent.user_ids)) == ("daily", ["u1"])


async def test_due_times_are_backfilled_and_backfills_cancelled(client_of):
    backfill_job = Unary(job_service_pb2.BackfillJobResponse(backfill_id="bfl_1"))
    cancel_backfill = Unary(job_service_pb2.CancelBackfillResponse(cancelled_count=4))
    client = await client_of(
        servicer(JobServiceServicer, BackfillJob=backfill_job, CancelBackfill=cancel_backfill)
    )
    start = datetime(2026, 3, 1, tzinfo=UTC)

    answer = await client.jobs.backfill_job(
        "daily", start_time=start, end_time=start + timedelta(days=1), validate_only=True
    )
    count = await client.jobs.cancel_backfill("bfl_1")

    assert (answer.backfill_id, count) == ("bfl_1", 4)
    [asked] = backfill_job.requests
    assert (asked.job_id, asked.validate_only) == ("daily", True)
    assert asked.start_time.ToDatetime(UTC) == start
    assert asked.end_time.ToDatetime(UTC) == start + timedelta(days=1)
    assert asked.request_id
    assert cancel_backfill.requests[0].backfill_id == "bfl_1"
    assert cancel_backfill.requests[0].request_id


async def test_jobs_are_created_changed_and_deleted(client_of):
    job = Job(job_id="daily", limit=5, etag="e2")
    create_job = Unary(job_service_pb2.CreateJobResponse(job=job))
    update_job = Unary(job_service_pb2.UpdateJobResponse(job=job))
    delete_job = Unary(job_service_pb2.DeleteJobResponse())
    client = await client_of(
        servicer(
            JobServiceServicer, CreateJob=create_job, UpdateJob=update_job, DeleteJob=delete_job
        )
    )

    created = await client.jobs.create_job(job, validate_only=True)
    updated = await client.jobs.update_job(job, update_mask=["limit"], etag="e1")
    await client.jobs.update_job(job, request_id="request-1", validate_only=True)
    await client.jobs.delete_job("daily", etag="e2", allow_missing=True)

    assert (created.job, updated.job) == (job, job)
    [creation] = create_job.requests
    assert (creation.job, creation.validate_only) == (job, True)
    masked, unmasked = update_job.requests
    assert (masked.job, list(masked.update_mask.paths), masked.etag) == (job, ["limit"], "e1")
    assert not unmasked.HasField("update_mask")
    assert (unmasked.request_id, unmasked.validate_only) == ("request-1", True)
    [deletion] = delete_job.requests
    assert (deletion.job_id, deletion.etag, deletion.allow_missing) == ("daily", "e2", True)
    assert all(sent.request_id for sent in (creation, masked, deletion))


async def test_preferences_are_read_and_set(client_of):
    stored = Preference(user_id="u1", feature_type="posts", etag="e2")
    set_preference = Unary(preference_service_pb2.SetPreferenceResponse(preference=stored))
    list_preferences = Unary(preference_service_pb2.ListPreferencesResponse(preferences=[stored]))
    client = await client_of(
        servicer(
            PreferenceServiceServicer,
            GetPreference=Unary(preference_service_pb2.GetPreferenceResponse(preference=stored)),
            SetPreference=set_preference,
            ListPreferences=list_preferences,
        )
    )

    read = await client.preferences.get_preference("u1", feature_type="posts")
    written = await client.preferences.set_preference(
        Preference(user_id="u1", feature_type="posts", enabled=True), update_mask=["enabled"]
    )
    await client.preferences.set_preference(Preference(user_id="u1", feature_type="posts"))
    listed = [each async for each in client.preferences.list_preferences(enabled=False)]

    assert read == written.preference == listed[0] == stored
    masked, whole = set_preference.requests
    assert list(masked.update_mask.paths) == ["enabled"]
    assert not whole.HasField("update_mask")
    assert masked.request_id
    assert list_preferences.requests[0].HasField("enabled")


async def test_preferences_are_set_together_deleted_and_explained(client_of):
    batch_set = Unary(preference_service_pb2.BatchSetPreferencesResponse())
    delete = Unary(preference_service_pb2.DeletePreferenceResponse(group_left=3))
    effective = Unary(preference_service_pb2.GetEffectivePreferenceResponse(enabled=True))
    preview = Unary(preference_service_pb2.PreviewScheduleResponse())
    explained = Unary(preference_service_pb2.ExplainUserResponse())
    default = DefaultPreference(feature_type="posts", enabled=True)
    set_default = Unary(
        preference_service_pb2.SetDefaultPreferenceResponse(default_preference=default)
    )
    get_default = Unary(
        preference_service_pb2.GetDefaultPreferenceResponse(default_preference=default)
    )
    client = await client_of(
        servicer(
            PreferenceServiceServicer,
            BatchSetPreferences=batch_set,
            DeletePreference=delete,
            GetEffectivePreference=effective,
            PreviewSchedule=preview,
            ExplainUser=explained,
            SetDefaultPreference=set_default,
            GetDefaultPreference=get_default,
        )
    )
    preferences = client.preferences
    start = datetime(2026, 3, 28, tzinfo=UTC)

    await preferences.batch_set_preferences([Preference(user_id="u1")], update_mask=["enabled"])
    deleted = await preferences.delete_preference("u1", feature_type="posts", etag="r1")
    found = await preferences.get_effective_preference("u1", feature_type="posts", job_id="daily")
    await preferences.preview_schedule(Schedule(), start_time=start, count=3)
    await preferences.explain_user("u1", feature_type="posts", job_id="daily", end_time=start)
    written = await preferences.set_default_preference(default, update_mask=["enabled"])
    read = await preferences.get_default_preference("posts")

    assert (deleted.group_left, found.enabled) == (3, True)
    assert read == written.default_preference == default
    assert all(call.requests[0].request_id for call in (batch_set, delete, set_default))
    assert list(batch_set.requests[0].update_mask.paths) == ["enabled"]
    assert delete.requests[0].etag == "r1"
    assert effective.requests[0].job_id == explained.requests[0].job_id == "daily"
    assert explained.requests[0].end_time.ToDatetime(tzinfo=UTC) == start
    assert preview.requests[0].start_time.ToDatetime(tzinfo=UTC) == start


async def test_groups_members_and_changes_come_page_by_page(client_of):
    groups = Unary(
        preference_service_pb2.ListPreferenceGroupsResponse(
            groups=[preference_service_pb2.PreferenceGroup(group_key=1)], next_page_token="more"
        ),
        preference_service_pb2.ListPreferenceGroupsResponse(
            groups=[preference_service_pb2.PreferenceGroup(group_key=2)]
        ),
    )
    members = Unary(
        preference_service_pb2.ListGroupMembersResponse(preferences=[Preference(user_id="u1")])
    )
    changes = Unary(
        preference_service_pb2.ListPreferenceChangesResponse(
            changes=[PreferenceChange(sequence=5)], newest=6
        ),
        preference_service_pb2.ListPreferenceChangesResponse(
            changes=[PreferenceChange(sequence=6)], newest=6
        ),
    )
    client = await client_of(
        servicer(
            PreferenceServiceServicer,
            ListPreferenceGroups=groups,
            ListGroupMembers=members,
            ListPreferenceChanges=changes,
        )
    )

    listed = [group async for group in client.preferences.list_preference_groups()]
    inside = [member async for member in client.preferences.list_group_members(2)]
    told = [change async for change in client.preferences.list_preference_changes()]

    assert [group.group_key for group in listed] == [1, 2]
    assert [member.user_id for member in inside] == ["u1"]
    assert [change.sequence for change in told] == [5, 6]
    first, second = changes.requests
    assert (first.HasField("after"), second.after) == (False, 5)


async def test_the_changes_of_all_tenants_go_on_by_their_page_tokens(client_of):
    response = preference_service_pb2.ListPreferenceChangesResponse
    changes = Unary(
        response(changes=[PreferenceChange(tenant_id="a", sequence=7)], next_page_token="more"),
        response(changes=[PreferenceChange(tenant_id="b", sequence=1)]),
    )
    client = await client_of(servicer(PreferenceServiceServicer, ListPreferenceChanges=changes))

    told = [each async for each in client.preferences.list_preference_changes(tenant_id="-")]

    assert [(change.tenant_id, change.sequence) for change in told] == [("a", 7), ("b", 1)]
    assert [(each.tenant_id, each.page_token) for each in changes.requests] == [
        ("-", ""),
        ("-", "more"),
    ]
    assert not any(request.HasField("after") for request in changes.requests)


async def test_a_watch_of_changes_goes_on_where_a_stream_ended(client_of):
    kinds = preference_service_pb2.PreferenceWatchKind
    asked: list[int | None] = []

    async def answer(request, context):
        asked.append(request.after if request.HasField("after") else None)
        after = request.after or 4
        message = preference_service_pb2.WatchPreferenceChangesResponse
        yield message(kind=kinds.PREFERENCE_WATCH_KIND_HEARTBEAT, after=after)
        change = PreferenceChange(sequence=after + 1)
        yield message(kind=kinds.PREFERENCE_WATCH_KIND_CHANGE, after=after + 1, change=change)
        yield message(kind=kinds.PREFERENCE_WATCH_KIND_GOING_AWAY, after=after + 1)

    client = await client_of(servicer(PreferenceServiceServicer, WatchPreferenceChanges=answer))
    watch = client.preferences.watch_preference_changes(patience=Patience(timer=HandTimer()))

    async with aclosing(watch):
        told = [await anext(watch) for _ in range(3)]

    assert [change.sequence for change in told] == [5, 6, 7]
    assert asked == [None, 5, 6]


async def test_long_list_of_users_goes_in_several_calls(client_of):
    def verdicts(request):
        response = validation_service_pb2.ValidateUsersResponse()
        for user_id in request.user_ids:
            response.results.add(user_id=user_id)
        response.totals.total = len(request.user_ids)
        response.totals.valid = len(request.user_ids) - 1
        response.totals.invalid = 1
        return response

    validate_users = Unary(verdicts)
    client = await client_of(servicer(ValidationServiceServicer, ValidateUsers=validate_users))
    ids = [f"u{number}" for number in range(20_001)]

    answer = await client.validation.validate_users(iter(ids))

    assert [len(request.user_ids) for request in validate_users.requests] == [10_000, 10_000, 1]
    assert [result.user_id for result in answer.results] == ids
    assert (answer.totals.total, answer.totals.valid, answer.totals.invalid) == (20_001, 19_998, 3)


async def test_no_users_at_all_is_for_the_server_to_refuse(client_of):
    validate_users = Unary(validation_service_pb2.ValidateUsersResponse())
    client = await client_of(servicer(ValidationServiceServicer, ValidateUsers=validate_users))

    await client.validation.validate_users([])

    assert len(validate_users.requests) == 1


async def test_jobs_are_validated_as_text_or_as_messages(client_of):
    validate_jobs = Unary(validation_service_pb2.ValidateJobsResponse())
    client = await client_of(servicer(ValidationServiceServicer, ValidateJobs=validate_jobs))

    await client.validation.validate_jobs("{}")
    await client.validation.validate_jobs(iter([Job(job_id="job-1")]))

    text, messages = validate_jobs.requests
    assert (text.jobs_json, len(text.jobs)) == ("{}", 0)
    assert (messages.jobs_json, messages.jobs[0].job_id) == ("", "job-1")
