"""Items of categories list users: the processor sees the valid ones, and the batch tells of all."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from batchwork.v1.batch_pb2 import (
    BATCH_STATE_SUCCEEDED,
    Batch,
    CategoryCounts,
    ReferenceCounts,
    ReferenceValidation,
)
from batchwork.v1.batch_service_pb2 import (
    BATCH_EVENT_KIND_VALIDATION,
    CreateBatchRequest,
    ListItemsRequest,
    RetryBatchRequest,
    WatchBatchesRequest,
)
from batchwork.v1.item_pb2 import ItemInput
from batchwork.v1.job_service_pb2 import RunJobRequest
from batchwork_server.application import batches, validation_reports
from batchwork_server.logs import get_logger
from structlog.testing import capture_logs

from tests.rpc.api import Api, make_job, refused
from tests.rpc.sources import load_category, load_users


@pytest.fixture(autouse=True)
async def world(server) -> None:
    await load_users(server, "ann", "bob", inactive=("eve",))
    await load_category(
        server,
        "shops",
        {
            "mugs": {"user_ids": ["ann", "nobody", "bob"]},
            "lamps": {"member_ids": ["eve"]},
            "pens": {"price": 3},
        },
    )


@pytest.fixture(autouse=True)
def loggers_of_this_test(monkeypatch: pytest.MonkeyPatch) -> None:
    # A logger keeps the processors that it wrote through first, which were another test's.
    for module in (batches, validation_reports):
        monkeypatch.setattr(module, "log", get_logger(module.__name__))


def inputs(**data: Any) -> list[ItemInput]:
    return [ItemInput(item_id=name, data_json=json.dumps(value)) for name, value in data.items()]


FOUND = ReferenceValidation(
    categories=CategoryCounts(total=3, valid=2, invalid=1),
    user_references=ReferenceCounts(total=4, valid=2, invalid=2),
)


async def skips(api: Api, batch: Batch) -> dict[str, str]:
    items = (await api.batches.ListItems(ListItemsRequest(batch_id=batch.batch_id))).items
    return {item.item_id: item.skip_reason for item in items}


async def test_the_processor_sees_the_valid_references(api, processor):
    items = inputs(mugs={"user_ids": ["ann", "nobody", "bob"]}, lamps={"member_ids": ["eve"]}, n=1)

    created = await api.create_batch(items=items)
    batch = await api.finished(created.batch_id)

    assert created.reference_validation == batch.reference_validation == FOUND
    assert {call.item_id: call.data for call in processor.calls} == {
        "mugs": {"user_ids": ["ann", "bob"]},
        "n": 1,
    }
    assert await skips(api, batch) == {"mugs": "", "lamps": "NO_VALID_USERS", "n": ""}


async def test_numbers_and_depth_of_data_do_not_matter(api, processor):
    deep = "[" * 300 + "]" * 300
    data = f'{{"n": 123456789012345678901, "deep": {deep}, "user_ids": ["nobody", "ann"]}}'

    created = await api.create_batch(items=[ItemInput(item_id="a", data_json=data)])
    await api.finished(created.batch_id)

    [item] = (await api.batches.ListItems(ListItemsRequest(batch_id=created.batch_id))).items
    assert item.data_json == data.replace('["nobody", "ann"]', '["ann"]')


async def test_what_was_found_is_told_to_watchers(api, processor):
    processor.gate = asyncio.Event()
    await api.create_batch()
    stream = api.batches.WatchBatches(WatchBatchesRequest())
    await stream.read()  # of the batch before, so that the watch has begun

    created = await api.create_batch(items=inputs(a={"user_ids": ["ann", "nobody"]}))
    while (event := (await stream.read()).event).kind != BATCH_EVENT_KIND_VALIDATION:
        pass
    processor.gate.set()

    assert (event.batch_id, event.event_type) == (created.batch_id, "batch:validated")
    assert event.reference_validation == created.reference_validation
    assert event.reference_validation.user_references.invalid == 1


async def test_a_category_without_a_valid_user_is_no_failure(api):
    created = await api.create_batch(items=inputs(a={"user_ids": ["nobody"]}))

    batch = await api.finished(created.batch_id)

    assert (batch.state, batch.counts.skipped) == (BATCH_STATE_SUCCEEDED, 1)
    assert batch.reference_validation.categories == CategoryCounts(total=1, invalid=1)


async def test_things_that_a_job_selects_are_looked_at_like_inline_items(api, processor):
    await api.import_jobs(make_job("each", category="shops"))
    await api.import_jobs(make_job("together", category="shops", type="object"))

    each = (await api.jobs.RunJob(RunJobRequest(job_id="each"))).batch
    together = (await api.jobs.RunJob(RunJobRequest(job_id="together"))).batch
    await api.finished(each.batch_id)
    await api.finished(together.batch_id)

    assert each.reference_validation == together.reference_validation == FOUND
    assert await skips(api, each) == {"mugs": "", "lamps": "NO_VALID_USERS", "pens": ""}
    [call] = [call for call in processor.calls if call.item_id == "shops"]
    assert call.data["items"] == [{"user_ids": ["ann", "bob"]}, {"price": 3}]


async def test_a_plan_says_what_would_be_taken_out(api):
    request = CreateBatchRequest(
        operation="echo", items=inputs(a={"user_ids": ["nobody"]}), validate_only=True
    )

    response = await api.batches.CreateBatch(request)

    assert response.batch.reference_validation.user_references.invalid == 1
    assert response.plan.skips == {"NO_VALID_USERS": 1}


async def test_a_batch_without_references_says_nothing_of_them(api):
    batch = await api.create_batch(items=inputs(a={"price": 3}))

    assert not batch.HasField("reference_validation")


async def test_a_category_that_was_skipped_is_not_tried_again(api):
    created = await api.create_batch(items=inputs(a={"user_ids": ["nobody"]}, b={}))
    await api.finished(created.batch_id)

    refusal = await refused(api.batches.RetryBatch(RetryBatchRequest(batch_id=created.batch_id)))

    assert refusal.reason == "WRONG_STATE"


async def test_invalid_users_and_references_are_warned_of_in_the_log(api):
    items = inputs(a={"user_ids": ["nobody", "ann"]})
    items.append(ItemInput(item_id="b", user_id="eve"))

    with capture_logs() as logs:
        batch = await api.create_batch(items=items)

    [line] = [line for line in logs if line["event"] == "batch.validated"]
    assert line["log_level"] == "warning"
    assert (line["batch_id"], line["tenant_id"]) == (batch.batch_id, "default")
    assert (line["invalid_users"], line["invalid_references"]) == (1, 1)
    assert (line["invalid_categories"], line["sample"]) == (0, ["eve", "nobody"])


async def test_the_log_is_silent_when_everybody_is_valid(api):
    with capture_logs() as logs:
        await api.create_batch(items=inputs(a={"user_ids": ["ann"]}))

    assert "batch.created" in [line["event"] for line in logs]
    assert "batch.validated" not in [line["event"] for line in logs]
