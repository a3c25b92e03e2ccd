"""BatchService: checks, delegates, translates."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

from batchwork.v1 import batch_service_pb2 as messages
from batchwork.v1.batch_service_pb2_grpc import BatchServiceServicer

from batchwork_server.application.batches import Batches
from batchwork_server.application.watching import Watching
from batchwork_server.rpc.batch_conversion import (
    batch_to,
    event_to,
    interval_from,
    plan_to,
    submission_from,
)
from batchwork_server.rpc.checks import Checks
from batchwork_server.rpc.filters import batch_filter_from, item_filter_from, skip_from
from batchwork_server.rpc.idempotency import idempotency_from
from batchwork_server.rpc.interceptors import caller_of
from batchwork_server.rpc.item_conversion import item_to
from batchwork_server.rpc.page_tokens import place_from, token_after_place
from batchwork_server.rpc.resume_tokens import ResumeTokens


class BatchServicer(BatchServiceServicer):
    """Answers for batches and their items; the contract says what each call means."""

    def __init__(self, batches: Batches, watching: Watching) -> None:
        self._batches = batches
        self._watching = watching

    async def CreateBatch(
        self, request: messages.CreateBatchRequest, context: Any
    ) -> messages.CreateBatchResponse:
        checks = Checks()
        submission = submission_from(request, checks=checks)
        idempotency = idempotency_from(request, checks=checks)
        checks.done()
        if request.validate_only:
            batch, plan = await self._batches.plan_batch(submission, caller=caller_of())
            return messages.CreateBatchResponse(batch=batch_to(batch), plan=plan_to(plan))
        batch = await self._batches.create_batch(
            submission, caller=caller_of(), idempotency=idempotency
        )
        return messages.CreateBatchResponse(batch=batch_to(batch))

    async def GetBatch(
        self, request: messages.GetBatchRequest, context: Any
    ) -> messages.GetBatchResponse:
        checks = Checks()
        batch_id = checks.required_id("batch_id", request.batch_id)
        tenant_id = checks.scope(caller_of(), request.tenant_id)
        checks.done()
        batch = await self._batches.get_batch(batch_id, tenant_id=tenant_id)
        return messages.GetBatchResponse(batch=batch_to(batch))

    async def ListBatches(
        self, request: messages.ListBatchesRequest, context: Any
    ) -> messages.ListBatchesResponse:
        checks = Checks()
        matching = batch_filter_from(request, caller=caller_of(), checks=checks)
        page_size = checks.page_size(request.page_size)
        after = place_from(request, checks=checks)
        skip = skip_from(request, checks=checks)
        checks.done()
        batches, last = await self._batches.list_batches(
            matching, page_size=page_size, after=after, skip=skip
        )
        return messages.ListBatchesResponse(
            batches=[batch_to(batch) for batch in batches],
            next_page_token=token_after_place(request, last),
        )

    async def WatchBatch(
        self, request: messages.WatchBatchRequest, context: Any
    ) -> AsyncGenerator[messages.WatchBatchResponse, None]:
        checks = Checks()
        batch_id = checks.required_id("batch_id", request.batch_id)
        tenant_id = checks.scope(caller_of(), request.tenant_id)
        min_interval = interval_from(request, checks=checks)
        checks.done()
        batch = await self._batches.get_batch(batch_id, tenant_id=tenant_id)
        tokens = ResumeTokens(batch)
        told = self._watching.watch(
            batch,
            resume=tokens.read(request.resume_token),
            include_items=request.include_items,
            only_failed=request.only_failed_items,
            min_interval=min_interval,
        )
        async with aclosing(told):
            async for message in told:
                yield messages.WatchBatchResponse(event=event_to(message, tokens))

    async def GetItem(
        self, request: messages.GetItemRequest, context: Any
    ) -> messages.GetItemResponse:
        checks = Checks()
        batch_id = checks.required_id("batch_id", request.batch_id)
        item_id = checks.name("item_id", request.item_id)
        tenant_id = checks.scope(caller_of(), request.tenant_id)
        checks.done()
        item = await self._batches.get_item(batch_id, item_id, tenant_id=tenant_id)
        return messages.GetItemResponse(item=item_to(item))

    async def ListItems(
        self, request: messages.ListItemsRequest, context: Any
    ) -> messages.ListItemsResponse:
        checks = Checks()
        batch_id = checks.required_id("batch_id", request.batch_id)
        matching = item_filter_from(request, checks=checks)
        tenant_id = checks.scope(caller_of(), request.tenant_id)
        page_size = checks.page_size(request.page_size)
        after = place_from(request, checks=checks)
        checks.done()
        items, last = await self._batches.list_items(
            batch_id, matching, tenant_id=tenant_id, page_size=page_size, after=after
        )
        return messages.ListItemsResponse(
            items=[item_to(item) for item in items],
            next_page_token=token_after_place(request, last),
        )

    async def CancelBatch(
        self, request: messages.CancelBatchRequest, context: Any
    ) -> messages.CancelBatchResponse:
        checks = Checks()
        batch_id = checks.required_id("batch_id", request.batch_id)
        idempotency = idempotency_from(request, checks=checks)
        checks.done()
        batch = await self._batches.cancel_batch(
            batch_id, caller=caller_of(), idempotency=idempotency
        )
        return messages.CancelBatchResponse(batch=batch_to(batch))
