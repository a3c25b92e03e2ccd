"""BatchService: checks, delegates, translates."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterable
from contextlib import aclosing
from typing import Any

from batchwork.v1 import batch_service_pb2 as messages
from batchwork.v1.batch_service_pb2_grpc import BatchServiceServicer

from batchwork_server.application.use_cases import BatchUseCases
from batchwork_server.rpc.batch_conversion import (
    answer_to,
    batch_to,
    event_to,
    interval_from,
    many_interval_from,
    plan_to,
    submission_from,
)
from batchwork_server.rpc.change_conversion import (
    LONGEST_NOTE,
    retry_filter_from,
    stop_in_flight_from,
)
from batchwork_server.rpc.checks import Checks
from batchwork_server.rpc.context_conversion import (
    batch_ids_from,
    context_page_size_from,
    context_to,
    user_context_to,
)
from batchwork_server.rpc.filters import (
    batch_filter_from,
    final_states_from,
    item_filter_from,
    older_than_from,
    skip_from,
    watch_filter_from,
)
from batchwork_server.rpc.idempotency import idempotency_from
from batchwork_server.rpc.interceptors import caller_of
from batchwork_server.rpc.item_conversion import item_to
from batchwork_server.rpc.notification_conversion import notification_filter_from, notification_to
from batchwork_server.rpc.page_tokens import (
    place_from,
    places_from,
    reference_place_from,
    token_after_numbered,
    token_after_place,
    token_after_places,
)
from batchwork_server.rpc.reference_conversion import reference_filter_from, reference_to
from batchwork_server.rpc.result_conversion import page_to, wanted_from
from batchwork_server.rpc.result_tokens import ResultTokens
from batchwork_server.rpc.resume_tokens import FeedTokens, ResumeTokens
from batchwork_server.rpc.statistics_conversion import GROUP_FROM, counted_to
from batchwork_server.rpc.upload_conversion import expected_count_from, parts_from, uploaded_to


class BatchServicer(BatchServiceServicer):
    """Answers for batches and their items; the contract says what each call means."""

    def __init__(self, use_cases: BatchUseCases) -> None:
        self._batches = use_cases.batches
        self._changes = use_cases.changes
        self._deletion = use_cases.deletion
        self._uploads = use_cases.uploads
        self._results = use_cases.results
        self._watching = use_cases.watching
        self._statistics = use_cases.statistics
        self._references = use_cases.references
        self._contexts = use_cases.contexts
        self._user_contexts = use_cases.user_contexts
        self._outbox = use_cases.outbox

    async def CreateBatch(
        self, request: messages.CreateBatchRequest, context: Any
    ) -> messages.CreateBatchResponse:
        checks = Checks()
        # The hash first: for it the request is in memory once more, and then it is not the third.
        idempotency = idempotency_from(request, checks=checks)
        submission = submission_from(request, checks=checks)
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
        waits = await self._batches.wait_reasons(batch)
        return answer_to(batch, waits)

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

    async def ListReferences(
        self, request: messages.ListReferencesRequest, context: Any
    ) -> messages.ListReferencesResponse:
        checks = Checks()
        matching = reference_filter_from(request, caller=caller_of(), checks=checks)
        page_size = checks.page_size(request.page_size)
        after = reference_place_from(request, checks=checks)
        checks.done()
        found, last = await self._references.list_references(
            matching, page_size=page_size, after=after
        )
        return messages.ListReferencesResponse(
            references=[reference_to(reference) for reference in found],
            next_page_token=token_after_numbered(request, last),
        )

    async def ListNotifications(
        self, request: messages.ListNotificationsRequest, context: Any
    ) -> messages.ListNotificationsResponse:
        checks = Checks()
        matching = notification_filter_from(request, caller=caller_of(), checks=checks)
        page_size = checks.page_size(request.page_size)
        after = place_from(request, checks=checks)
        checks.done()
        found, last = await self._outbox.list_notifications(
            matching, page_size=page_size, after=after
        )
        return messages.ListNotificationsResponse(
            notifications=[notification_to(notification) for notification in found],
            next_page_token=token_after_place(request, last),
        )

    async def GetContext(
        self, request: messages.GetContextRequest, context: Any
    ) -> messages.GetContextResponse:
        if request.user_id:
            return await self._context_of_user(request)
        checks = Checks()
        batch_ids = batch_ids_from(request, checks=checks)
        tenant_id = checks.scope(caller_of(), request.tenant_id)
        page_size = context_page_size_from(request, checks=checks)
        after = places_from(request, most=len(batch_ids), checks=checks)
        checks.done()
        found = await self._contexts.get_context(
            batch_ids, tenant_id=tenant_id, page_size=page_size, after=after
        )
        return messages.GetContextResponse(
            context=context_to(found),
            next_page_token=token_after_places(request, found.following),
        )

    async def _context_of_user(
        self, request: messages.GetContextRequest
    ) -> messages.GetContextResponse:
        checks = Checks()
        batch_ids = batch_ids_from(request, checks=checks)
        user_id = checks.line("user_id", request.user_id)
        of_whom = checks.scope if request.batch_ids else checks.tenant
        tenant_id = of_whom(caller_of(), request.tenant_id)
        page_size = context_page_size_from(request, checks=checks)
        after = places_from(request, checks=checks)
        checks.done()
        found = await self._user_contexts.get_user_context(
            user_id,
            batch_id=batch_ids[0] if batch_ids else "",
            tenant_id=tenant_id,
            page_size=page_size,
            after=after,
        )
        return messages.GetContextResponse(
            context=user_context_to(found),
            next_page_token=token_after_places(request, found.following),
        )

    async def GetBatchStatistics(
        self, request: messages.GetBatchStatisticsRequest, context: Any
    ) -> messages.GetBatchStatisticsResponse:
        checks = Checks()
        matching = batch_filter_from(request, caller=caller_of(), checks=checks)
        group_by = checks.choice("group_by", request.group_by, GROUP_FROM)
        checks.done()
        counted = await self._statistics.get_batch_statistics(matching, group_by=group_by)
        return counted_to(counted)

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
                token = tokens.write(message.resume)
                yield messages.WatchBatchResponse(event=event_to(message, resume_token=token))

    async def WatchBatches(
        self, request: messages.WatchBatchesRequest, context: Any
    ) -> AsyncGenerator[messages.WatchBatchesResponse, None]:
        checks = Checks()
        matching = watch_filter_from(request, caller=caller_of(), checks=checks)
        min_interval = many_interval_from(request, checks=checks)
        checks.done()
        tokens = FeedTokens(request, tenant_id=matching.tenant_id)
        told = self._watching.watch_many(
            matching,
            resume=tokens.read(request.resume_token),
            min_interval=min_interval,
            with_progress=not request.without_progress,
        )
        async with aclosing(told):
            async for message in told:
                token = tokens.write(message.resume)
                yield messages.WatchBatchesResponse(event=event_to(message, resume_token=token))

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

    async def StreamResults(
        self, request: messages.StreamResultsRequest, context: Any
    ) -> AsyncGenerator[messages.StreamResultsResponse, None]:
        checks = Checks()
        batch_id = checks.required_id("batch_id", request.batch_id)
        tenant_id = checks.scope(caller_of(), request.tenant_id)
        wanted = wanted_from(request, checks=checks)
        checks.done()
        batch = await self._batches.get_batch(batch_id, tenant_id=tenant_id)
        tokens = ResultTokens(batch, wanted)
        pages = self._results.stream_results(
            batch, resume=tokens.read(request.resume_token), wanted=wanted, follow=request.follow
        )
        async with aclosing(pages):
            async for page in pages:
                yield page_to(page, tokens)

    async def UploadItems(
        self, requests: AsyncIterable[messages.UploadItemsRequest], context: Any
    ) -> messages.UploadItemsResponse:
        async with aclosing(parts_from(requests)) as parts:
            uploaded = await self._uploads.upload_items(parts, caller=caller_of())
        return uploaded_to(uploaded)

    async def SealBatch(
        self, request: messages.SealBatchRequest, context: Any
    ) -> messages.SealBatchResponse:
        checks = Checks()
        batch_id = checks.required_id("batch_id", request.batch_id)
        expected_count = expected_count_from(request, checks=checks)
        idempotency = idempotency_from(request, checks=checks)
        checks.done()
        batch = await self._uploads.seal_batch(
            batch_id, expected_count=expected_count, caller=caller_of(), idempotency=idempotency
        )
        return messages.SealBatchResponse(batch=batch_to(batch))

    async def PauseBatch(
        self, request: messages.PauseBatchRequest, context: Any
    ) -> messages.PauseBatchResponse:
        checks = Checks()
        batch_id = checks.required_id("batch_id", request.batch_id)
        message = checks.prose("note", request.note, longest=LONGEST_NOTE)
        idempotency = idempotency_from(request, checks=checks)
        checks.done()
        batch = await self._changes.pause_batch(
            batch_id, caller=caller_of(), idempotency=idempotency, message=message
        )
        return messages.PauseBatchResponse(batch=batch_to(batch))

    async def ResumeBatch(
        self, request: messages.ResumeBatchRequest, context: Any
    ) -> messages.ResumeBatchResponse:
        checks = Checks()
        batch_id = checks.required_id("batch_id", request.batch_id)
        idempotency = idempotency_from(request, checks=checks)
        checks.done()
        batch = await self._changes.resume_batch(
            batch_id, caller=caller_of(), idempotency=idempotency
        )
        return messages.ResumeBatchResponse(batch=batch_to(batch))

    async def RetryBatch(
        self, request: messages.RetryBatchRequest, context: Any
    ) -> messages.RetryBatchResponse:
        checks = Checks()
        batch_id = checks.required_id("batch_id", request.batch_id)
        matching = retry_filter_from(request, checks=checks)
        idempotency = idempotency_from(request, checks=checks)
        checks.done()
        batch, count = await self._changes.retry_batch(
            batch_id, matching, caller=caller_of(), idempotency=idempotency
        )
        return messages.RetryBatchResponse(batch=batch_to(batch), retried_count=count)

    async def DeleteBatch(
        self, request: messages.DeleteBatchRequest, context: Any
    ) -> messages.DeleteBatchResponse:
        checks = Checks()
        batch_id = checks.required_id("batch_id", request.batch_id)
        idempotency = idempotency_from(request, checks=checks)
        checks.done()
        await self._deletion.delete_batch(batch_id, caller=caller_of(), idempotency=idempotency)
        return messages.DeleteBatchResponse()

    async def PurgeBatches(
        self, request: messages.PurgeBatchesRequest, context: Any
    ) -> messages.PurgeBatchesResponse:
        checks = Checks()
        older_than = older_than_from(request, checks=checks)
        states = final_states_from(request, checks=checks)
        idempotency = idempotency_from(request, checks=checks)
        checks.done()
        purged = await self._deletion.purge_batches(
            older_than=older_than,
            states=states,
            force=request.force,
            caller=caller_of(),
            idempotency=idempotency,
        )
        return messages.PurgeBatchesResponse(
            batch_count=purged.batch_count,
            item_count=purged.item_count,
            sample_batch_ids=purged.batch_ids,
        )

    async def CancelBatch(
        self, request: messages.CancelBatchRequest, context: Any
    ) -> messages.CancelBatchResponse:
        checks = Checks()
        batch_id = checks.required_id("batch_id", request.batch_id)
        message = checks.prose("note", request.note, longest=LONGEST_NOTE)
        stop_in_flight = stop_in_flight_from(request, checks=checks)
        idempotency = idempotency_from(request, checks=checks)
        checks.done()
        batch = await self._changes.cancel_batch(
            batch_id,
            caller=caller_of(),
            idempotency=idempotency,
            stop_in_flight=stop_in_flight,
            message=message,
        )
        return messages.CancelBatchResponse(batch=batch_to(batch))
