"""ListNotifications shows who is to be told of batches, and who was."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import grpc
import pytest
from batchwork.v1.batch_pb2 import BatchOptions
from batchwork.v1.batch_service_pb2 import (
    CreateBatchRequest,
    DeleteBatchRequest,
    ListNotificationsRequest,
    Notification,
    NotificationState,
)
from batchwork.v1.item_pb2 import ItemInput
from batchwork_server.config import Settings

from tests.rpc.api import ADA, BOB, OLGA, Api, as_caller, refused, settings_in
from tests.webhook_receiver import SECRET, Answered, WebhookReceiver, webhook_receiver


@pytest.fixture
async def receiver() -> AsyncIterator[WebhookReceiver]:
    async with webhook_receiver() as running:
        yield running


@pytest.fixture
def settings(tmp_path: Path, receiver: WebhookReceiver) -> Settings:
    path = tmp_path / "notifications.json"
    targets = [
        {"name": "ops", "url": receiver.url, "secret": SECRET},
        {"name": "pager", "url": receiver.url, "secret": SECRET, "kinds": ["failed"]},
    ]
    path.write_text(json.dumps({"allow_private_addresses": True, "targets": targets}))
    return replace(settings_in(tmp_path), notifications_file=path)


async def create(api: Api, *targets: str, metadata=(), **fields) -> str:
    """Creates a batch of which these are to be told, and returns its id when it is over."""
    request = CreateBatchRequest(
        items=[ItemInput(item_id="a", data_json="{}")],
        operation="echo",
        options=BatchOptions(notification_targets=targets),
        **fields,
    )
    response = await api.batches.CreateBatch(request, metadata=metadata)
    await api.finished(response.batch.batch_id, metadata=metadata)
    return response.batch.batch_id


async def notifications(api: Api, *, metadata=(), **fields) -> list[Notification]:
    request = ListNotificationsRequest(**fields)
    response = await api.batches.ListNotifications(request, metadata=metadata)
    return list(response.notifications)


def state_of(notification: Notification) -> str:
    return NotificationState.Name(notification.state).removeprefix("NOTIFICATION_STATE_")


async def until(api: Api, batch_id: str, *states: str, metadata=()) -> list[Notification]:
    """Returns the notifications of a batch, by their targets, when they stand so."""
    async with asyncio.timeout(30):
        while True:
            found = await notifications(api, batch_id=batch_id, metadata=metadata)
            found.sort(key=lambda each: each.target)
            if tuple(state_of(each) for each in found) == states:
                return found
            await asyncio.sleep(0.01)


async def test_what_was_sent_and_what_concerns_nobody_is_shown(api, receiver):
    batch_id = await create(api, "ops", "pager")

    ops, pager = await until(api, batch_id, "SENT", "SKIPPED")

    assert (ops.batch_id, ops.tenant_id, ops.target) == (batch_id, "default", "ops")
    assert (ops.attempt_number, ops.attempts, ops.error) == (1, 1, "")
    assert ops.message_id == receiver.received[0].id
    assert ops.end_time.ToNanoseconds() >= ops.create_time.ToNanoseconds()
    assert not ops.HasField("next_attempt_time")
    assert "SUCCEEDED" in pager.error


async def test_until_the_batch_is_over_it_waits(api, processor):
    processor.gate = asyncio.Event()
    request = CreateBatchRequest(
        items=[ItemInput(item_id="a", data_json="{}")],
        operation="echo",
        options=BatchOptions(notification_targets=["ops"]),
    )
    created = await api.batches.CreateBatch(request)

    [waiting] = await until(api, created.batch.batch_id, "WAITING")
    processor.gate.set()

    assert waiting.attempts == 0
    assert not waiting.HasField("end_time")
    await until(api, created.batch.batch_id, "SENT")


async def test_why_it_was_not_taken_is_shown_without_secrets(api, receiver):
    receiver.answers = [Answered(status=503), Answered(status=410)]

    first = await create(api, "ops")
    async with asyncio.timeout(30):
        while not (await notifications(api, batch_id=first))[0].error:
            await asyncio.sleep(0.01)
    [waiting] = await until(api, first, "PENDING")
    second = await create(api, "ops")
    [failed] = await until(api, second, "FAILED")

    assert waiting.error == "The target answered with 503."
    assert waiting.HasField("next_attempt_time")
    assert failed.error == "The target answered with 410."


async def test_filters_keep_a_batch_and_states(api):
    first, second = await create(api, "ops"), await create(api, "ops", "pager")
    await until(api, first, "SENT")
    await until(api, second, "SENT", "SKIPPED")

    sent = await notifications(api, states=[NotificationState.NOTIFICATION_STATE_SENT])
    of_second = await notifications(api, batch_id=second)
    await api.batches.DeleteBatch(DeleteBatchRequest(batch_id=second))
    left = await notifications(api)

    assert [each.batch_id for each in sent] == [second, first]
    assert {each.target for each in of_second} == {"ops", "pager"}
    assert [each.batch_id for each in left] == [first], "it goes with its batch"


async def test_pages_go_from_the_newest_to_the_oldest(api):
    batches = [await create(api, "ops") for _ in range(5)]

    found, token = [], ""
    while True:
        page = await api.batches.ListNotifications(
            ListNotificationsRequest(page_size=2, page_token=token)
        )
        found += [each.batch_id for each in page.notifications]
        token = page.next_page_token
        if not token:
            break

    assert found == batches[::-1]


async def test_tenants_do_not_see_each_other_s(guarded):
    ada = await create(guarded, "ops", metadata=as_caller(ADA))
    bob = await create(guarded, "ops", metadata=as_caller(BOB))

    of_ada = await notifications(guarded, metadata=as_caller(ADA))
    not_hers = await notifications(guarded, batch_id=bob, metadata=as_caller(ADA))
    of_all = await notifications(guarded, tenant_id="-", metadata=as_caller(OLGA))
    refusal = await refused(
        guarded.batches.ListNotifications(
            ListNotificationsRequest(tenant_id="blue"), metadata=as_caller(BOB)
        )
    )

    assert [each.batch_id for each in of_ada] == [ada]
    assert not_hers == []
    assert [each.batch_id for each in of_all] == [bob, ada]
    assert refusal.code is grpc.StatusCode.PERMISSION_DENIED


async def test_everything_that_is_wrong_is_told_at_once(api):
    request = ListNotificationsRequest(
        batch_id="a b",
        states=[NotificationState.NOTIFICATION_STATE_UNSPECIFIED],
        page_size=-1,
        page_token="x",
    )

    refusal = await refused(api.batches.ListNotifications(request))

    assert refusal.code is grpc.StatusCode.INVALID_ARGUMENT
    assert set(refusal.violations) == {"batch_id", "states[0]", "page_size", "page_token"}
