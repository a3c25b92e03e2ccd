"""From a request to a webhook and a mail: a whole server, real HTTP and real SMTP."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import grpc
import pytest
from batchwork.v1.batch_pb2 import BatchOptions
from batchwork.v1.batch_service_pb2 import CreateBatchRequest, GetBatchRequest
from batchwork.v1.item_pb2 import ItemInput
from batchwork.v1.job_service_pb2 import (
    CreateJobRequest,
    ExportJobsRequest,
    GetJobRequest,
    RunJobRequest,
)
from batchwork.v1.validation_service_pb2 import ValidateJobsRequest
from batchwork_server.bootstrap import serving
from batchwork_server.config import Settings
from batchwork_server.domain.selection import LoadedItem
from batchwork_server.errors import ConfigurationError
from google.protobuf.json_format import ParseDict

from tests.fakes import START
from tests.mail_server import MailServer, mail_server
from tests.rpc.api import ADA, BOB, Api, as_caller, make_job, refused, settings_in
from tests.webhook_receiver import SECRET, WebhookReceiver, webhook_receiver


@pytest.fixture
async def receiver() -> AsyncIterator[WebhookReceiver]:
    async with webhook_receiver() as running:
        yield running


@pytest.fixture
async def mail() -> AsyncIterator[MailServer]:
    async with mail_server() as running:
        yield running


def write_targets(folder: Path, *targets: dict[str, Any]) -> Path:
    path = folder / "notifications.json"
    path.write_text(json.dumps({"allow_private_addresses": True, "targets": targets}))
    path.chmod(0o600)
    return path


@pytest.fixture
def settings(tmp_path: Path, receiver: WebhookReceiver, mail: MailServer) -> Settings:
    path = write_targets(
        tmp_path,
        {"name": "ops", "url": receiver.url, "secret": SECRET, "default": True},
        {"name": "mail", "url": mail.url},
        {"name": "blue-only", "url": receiver.url, "secret": SECRET, "tenants": ["blue"]},
    )
    return replace(settings_in(tmp_path), notifications_file=path)


@pytest.fixture
async def posts(server) -> None:
    store = server.application.store
    post = LoadedItem(item_id="post-1", data_json="{}")
    async with store.transaction() as tx:
        await store.categories.load(
            tx, tenant_id="default", category="posts", items=[post], now=START
        )


def request(**options: Any) -> CreateBatchRequest:
    return CreateBatchRequest(
        items=[ItemInput(item_id="a", data_json="{}")],
        operation="echo",
        options=BatchOptions(**options),
    )


async def create(api: Api, asked: CreateBatchRequest, *, metadata=()) -> str:
    """Creates a batch and returns its id when it is over."""
    response = await api.batches.CreateBatch(asked, metadata=metadata)
    await api.finished(response.batch.batch_id, metadata=metadata)
    return response.batch.batch_id


async def test_notify_on_complete_calls_the_default_target(api, receiver):
    before = datetime.now(UTC)
    batch_id = await create(api, request(notify_on_complete=True))

    [call] = await receiver.until(1)

    assert call.json["type"] == "batch.completed"
    assert before <= datetime.fromisoformat(call.json["timestamp"]) <= datetime.now(UTC)
    data = call.json["data"]
    assert (data["batch_id"], data["tenant_id"], data["state"]) == (
        batch_id,
        "default",
        "SUCCEEDED",
    )
    assert data["counts"]["total"] == data["counts"]["succeeded"] == 1
    shown = await api.batches.GetBatch(GetBatchRequest(batch_id=batch_id))
    assert shown.batch.options.notify_on_complete
    assert list(shown.batch.options.notification_targets) == ["ops"]


async def test_the_documents_spelling_means_the_same(api, receiver):
    document = {
        "items": [{"itemId": "a", "dataJson": "{}"}],
        "operation": "echo",
        "options": {"notifyOnComplete": True},
    }

    batch_id = await create(api, ParseDict(document, CreateBatchRequest()))

    [call] = await receiver.until(1)
    assert call.json["data"]["batch_id"] == batch_id


async def test_a_mail_tells_of_a_batch_in_words(api, mail):
    asked = request(notification_targets=["mail"])
    asked.display_name = "Nightly posts"

    batch_id = await create(api, asked)

    await mail.until(1)
    [sent] = mail.mails
    assert sent["subject"] == "Batch Nightly posts: succeeded"
    body = sent.get_body(("plain",)).get_content()
    assert f"Batch: {batch_id}" in body
    assert "Items: 1, 1 succeeded" in body


async def test_without_being_asked_nobody_is_told(api, receiver, server):
    await create(api, request())
    await create(api, request(notify_on_complete=False))
    told = await create(api, request(notify_on_complete=True))

    calls = await receiver.until(1)

    assert [call.json["data"]["batch_id"] for call in calls] == [told]
    assert not (await api.batches.CreateBatch(request())).batch.options.notify_on_complete


async def test_only_the_operator_s_names_may_be_named(api):
    refusal = await refused(
        api.batches.CreateBatch(
            request(notification_targets=["ops", "https://evil.example/x", "blue-only"])
        )
    )

    assert set(refusal.violations) == {
        "options.notification_targets[1]",
        "options.notification_targets[2]",
    }
    assert refusal.reason == "UNKNOWN_NOTIFICATION_TARGET"
    assert '"mail", "ops"' in refusal.violations["options.notification_targets[2]"]


async def test_more_than_ten_targets_are_refused(api):
    refusal = await refused(api.batches.CreateBatch(request(notification_targets=["ops"] * 11)))

    assert set(refusal.violations) == {"options.notification_targets"}


async def test_a_target_of_one_tenant_is_nobody_else_s(guarded, receiver):
    asked = request(notification_targets=["blue-only"])

    batch_id = await create(guarded, asked, metadata=as_caller(ADA))
    refusal = await refused(guarded.batches.CreateBatch(asked, metadata=as_caller(BOB)))

    [call] = await receiver.until(1)
    assert (call.json["data"]["batch_id"], call.json["data"]["tenant_id"]) == (batch_id, "blue")
    assert set(refusal.violations) == {"options.notification_targets[0]"}


@pytest.mark.usefixtures("posts")
@pytest.mark.parametrize(
    "fields",
    [
        {"notify_on_complete": True},
        {"notifyOnComplete": True},
        {"notification_targets": ["ops"]},
        {"notificationTargets": ["ops"]},
    ],
)
async def test_the_runs_of_a_job_are_told_of(api, receiver, fields):
    await api.import_jobs(make_job(purpose_id="growth", **fields))

    run = await api.jobs.RunJob(RunJobRequest(job_id="job-1"))

    [call] = await receiver.until(1)
    data = call.json["data"]
    assert (data["batch_id"], data["job_id"], data["purpose_id"]) == (
        run.batch.batch_id,
        "job-1",
        "growth",
    )


@pytest.mark.usefixtures("posts")
async def test_a_job_message_has_the_same_fields(api):
    await api.import_jobs(make_job(notify_on_complete=True, notification_targets=["ops", "mail"]))

    job = (await api.jobs.GetJob(GetJobRequest(job_id="job-1"))).job
    job.job_id = "job-2"
    for name in ("tenant_id", "revision", "etag", "source", "create_time", "update_time"):
        job.ClearField(name)
    created = (await api.jobs.CreateJob(CreateJobRequest(job=job))).job
    [_, exported] = json.loads((await api.jobs.ExportJobs(ExportJobsRequest())).jobs_json)[
        "batch_processing_jobs"
    ]

    assert created.notify_on_complete
    assert list(created.notification_targets) == ["ops", "mail"]
    assert exported["notify_on_complete"] is True
    assert exported["notification_targets"] == ["ops", "mail"]


@pytest.mark.usefixtures("posts")
async def test_a_job_that_names_somebody_unknown_is_refused(api):
    refusal = await refused(
        api.import_jobs(
            make_job("job-1", notification_targets=["ops", "nobody"]),
            make_job("job-2", notify_on_complete=False, notification_targets=["ops"]),
            make_job("job-3", notification_targets=["Not A Name"]),
        )
    )

    jobs = "$.batch_processing_jobs"
    assert set(refusal.violations) == {
        f"{jobs}[0].notification_targets[1]",
        f"{jobs}[1].notify_on_complete",
        f"{jobs}[2].notification_targets[0]",
    }


async def test_a_run_goes_on_when_its_target_is_no_more(settings, processors, receiver):
    """The operator took a target away; the job's work is not to suffer."""
    async with (
        serving(settings, processors=processors) as first,
        grpc.aio.insecure_channel(f"127.0.0.1:{first.port}") as channel,
    ):
        post = LoadedItem(item_id="post-1", data_json="{}")
        store = first.application.store
        async with store.transaction() as tx:
            await store.categories.load(
                tx, tenant_id="default", category="posts", items=[post], now=START
            )
        await Api(channel).import_jobs(make_job(notification_targets=["mail", "ops"]))
    write_targets(
        settings.notifications_file.parent, {"name": "ops", "url": receiver.url, "secret": SECRET}
    )

    async with (
        serving(settings, processors=processors) as second,
        grpc.aio.insecure_channel(f"127.0.0.1:{second.port}") as channel,
    ):
        run = await Api(channel).jobs.RunJob(RunJobRequest(job_id="job-1"))
        await receiver.until(1)

    assert [warning.reason for warning in run.batch.warnings] == ["UNKNOWN_NOTIFICATION_TARGET"]
    assert list(run.batch.options.notification_targets) == ["ops"]


async def test_a_server_whose_file_is_wrong_does_not_start(settings, processors):
    settings.notifications_file.write_text("{}")

    with pytest.raises(ConfigurationError) as raised:
        async with serving(settings, processors=processors):
            pass

    assert "List at least one target." in raised.value.message


class TestWithoutTargets:
    """A server whose operator names nobody."""

    @pytest.fixture
    def settings(self, tmp_path: Path) -> Settings:
        return settings_in(tmp_path)

    async def test_a_request_says_what_to_set(self, api):
        refusal = await refused(api.batches.CreateBatch(request(notify_on_complete=True)))

        assert set(refusal.violations) == {"options.notify_on_complete"}
        assert "BATCHWORK_NOTIFICATIONS_FILE" in refusal.violations["options.notify_on_complete"]

    async def test_a_job_is_told_so_before_it_is_stored(self, api):
        jobs = json.dumps({"batch_processing_jobs": [make_job(notification_targets=["ops"])]})

        answer = await api.validation.ValidateJobs(ValidateJobsRequest(jobs_json=jobs))

        [job] = answer.results
        [found] = [each for each in job.violations if "notification" in each.path]
        assert found.path == "$.batch_processing_jobs[0].notification_targets[0]"
        assert "BATCHWORK_NOTIFICATIONS_FILE" in found.message
