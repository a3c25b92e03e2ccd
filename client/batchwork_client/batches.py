"""The client of BatchService: one method per RPC, and what is made of them."""

from __future__ import annotations

import json
from collections.abc import (
    AsyncGenerator,
    AsyncIterable,
    AsyncIterator,
    Iterable,
    Iterator,
    Mapping,
    Sequence,
)
from datetime import datetime, timedelta
from typing import Any, TypeAlias, TypedDict, Unpack

import grpc
from batchwork.v1 import batch_service_pb2 as messages
from batchwork.v1.batch_pb2 import Batch, BatchOptions, BatchState
from batchwork.v1.batch_service_pb2 import (
    BatchEvent,
    CreateBatchRequest,
    CreateBatchResponse,
    PurgeBatchesResponse,
    RetryBatchResponse,
    StatisticsGroup,
    UploadItemsResponse,
)
from batchwork.v1.batch_service_pb2_grpc import BatchServiceStub
from batchwork.v1.context_pb2 import Context
from batchwork.v1.item_pb2 import Item, ItemInput, ItemState
from batchwork.v1.reference_pb2 import Reference
from google.protobuf.struct_pb2 import Struct

from batchwork_client.calls import Calls, new_request_id
from batchwork_client.contexts import LARGEST_PAGE, whole_context
from batchwork_client.errors import DeadlineExceededError
from batchwork_client.instants import timestamp_of
from batchwork_client.results import stream_results
from batchwork_client.uploading import Upload
from batchwork_client.watch import DEFAULT_PATIENCE, Patience, watch, watch_many

Items: TypeAlias = Iterable[ItemInput | tuple[str, Any]] | Mapping[str, Any]


class BatchFields(TypedDict, total=False):
    """What a new batch can say besides its items; the proto describes every field.

    Attributes:
        operation: Names the work.
        template_id: The template that the items go through.
        category: The category to select items from, in place of ``items``.
        filters: Narrows the selection.
        limit: Bounds the selection.
        options: Says how to process.
        labels: The caller's labels.
        batch_metadata: Returned as it came.
        batch_id: Unset means a generated one.
        display_name: For people.
        description: For people.
        source: Who or what asks.
        purpose_id: The business purpose.
        draft: Opens the batch for ``upload_items``; it runs after ``seal_batch``.
    """

    operation: str
    template_id: str
    category: str
    filters: Mapping[str, Any]
    limit: int
    options: BatchOptions
    labels: Mapping[str, str]
    batch_metadata: Mapping[str, Any]
    batch_id: str
    display_name: str
    description: str
    source: str
    purpose_id: str
    draft: bool


class Batches:
    """Creates batches, shows them while they run, and reads their results.

    Every method raises a subclass of ``BatchworkError``; the proto lists which.
    """

    def __init__(self, channel: grpc.aio.Channel, calls: Calls) -> None:
        self._stub = BatchServiceStub(channel)
        self._calls = calls

    async def create_batch(
        self,
        items: Items = (),
        *,
        request_id: str | None = None,
        **fields: Unpack[BatchFields],
    ) -> Batch:
        """Creates a batch and returns it once it is durable.

        Args:
            items: ``ItemInput`` messages, or item ids with data that JSON can express, as pairs
                or as a mapping. Empty with a ``category``, or with a ``draft`` that is filled
                later.
            request_id: Makes a repeat return the first batch; a new one is made when unset.
            **fields: See ``BatchFields``.

        Raises:
            InvalidArgumentError: Carries every violation.
            AlreadyExistsError: The batch id is taken.
            RequestIdReusedError: The request id was used with other content.
            TypeError: JSON cannot express the data of an item.
            ValueError: The data of an item holds a NaN or an infinity.
        """
        request = create_request(items, fields)
        request.request_id = request_id or new_request_id()
        response = await self._calls.unary(self._stub.CreateBatch, request)
        return response.batch

    async def plan_batch(
        self, items: Items = (), **fields: Unpack[BatchFields]
    ) -> CreateBatchResponse:
        """Returns what ``create_batch`` would do with the same arguments, and stores nothing."""
        request = create_request(items, fields)
        request.validate_only = True
        return await self._calls.unary(self._stub.CreateBatch, request)

    async def get_batch(self, batch_id: str, *, tenant_id: str = "") -> Batch:
        """Returns one batch."""
        response = await self._calls.unary(
            self._stub.GetBatch, messages.GetBatchRequest(batch_id=batch_id, tenant_id=tenant_id)
        )
        return response.batch

    def list_batches(
        self,
        *,
        states: Sequence[BatchState.ValueType] = (),
        operation: str = "",
        job_id: str = "",
        labels: Mapping[str, str] | None = None,
        user_id: str = "",
        feature_type: str = "",
        created_after: datetime | None = None,
        created_before: datetime | None = None,
        tenant_id: str = "",
        skip: int = 0,
        limit: int | None = None,
    ) -> AsyncIterator[Batch]:
        """Yields the batches for which all given filters hold, newest first.

        Args:
            states: Keeps batches in one of these; empty means any.
            operation: Keeps batches of this operation.
            job_id: Keeps batches of this job.
            labels: Keeps batches that have all these labels.
            user_id: Keeps batches in which this user has an item.
            feature_type: Keeps batches that serve this feature.
            created_after: Keeps batches of this instant or later; needs a time zone.
            created_before: Keeps batches before this instant; needs a time zone.
            tenant_id: Another tenant, or ``-`` for all; operators only.
            skip: Leaves out so many first.
            limit: Yields at most so many; None means all.

        Raises:
            ValueError: An instant has no time zone.
        """
        after = timestamp_of("created_after", created_after)
        before = timestamp_of("created_before", created_before)

        def request_for(size: int, token: str) -> messages.ListBatchesRequest:
            return messages.ListBatchesRequest(
                page_size=size,
                page_token=token,
                skip=0 if token else skip,
                states=states,
                operation=operation,
                job_id=job_id,
                labels=labels,
                user_id=user_id,
                feature_type=feature_type,
                created_after=after,
                created_before=before,
                tenant_id=tenant_id,
            )

        return self._calls.paged(
            self._stub.ListBatches, request_for, lambda page: page.batches, limit=limit
        )

    def list_references(
        self,
        *,
        user_id: str = "",
        batch_id: str = "",
        job_id: str = "",
        feature_type: str = "",
        tenant_id: str = "",
        limit: int | None = None,
    ) -> AsyncIterator[Reference]:
        """Yields what users were given of the results of batches, newest batch first.

        Args:
            user_id: Only what this user was given.
            batch_id: Only to this batch.
            job_id: Only to batches of this job.
            feature_type: Only to batches that serve this feature.
            tenant_id: Another tenant, or ``-`` for all; operators only.
            limit: Yields at most so many; None means all.
        """

        def request_for(size: int, token: str) -> messages.ListReferencesRequest:
            return messages.ListReferencesRequest(
                page_size=size,
                page_token=token,
                user_id=user_id,
                batch_id=batch_id,
                job_id=job_id,
                feature_type=feature_type,
                tenant_id=tenant_id,
            )

        return self._calls.paged(
            self._stub.ListReferences, request_for, lambda page: page.references, limit=limit
        )

    def list_notifications(
        self,
        *,
        batch_id: str = "",
        states: Iterable[messages.NotificationState.ValueType] = (),
        tenant_id: str = "",
        limit: int | None = None,
    ) -> AsyncIterator[messages.Notification]:
        """Yields who is to be told of batches, and who was, newest first.

        Args:
            batch_id: Only of this batch.
            states: Only in one of these states.
            tenant_id: Another tenant, or ``-`` for all; operators only.
            limit: Yields at most so many; None means all.
        """
        wanted = list(states)

        def request_for(size: int, token: str) -> messages.ListNotificationsRequest:
            return messages.ListNotificationsRequest(
                page_size=size,
                page_token=token,
                batch_id=batch_id,
                states=wanted,
                tenant_id=tenant_id,
            )

        return self._calls.paged(
            self._stub.ListNotifications,
            request_for,
            lambda page: page.notifications,
            limit=limit,
        )

    async def get_context(self, *batch_ids: str, user_id: str = "", tenant_id: str = "") -> Context:
        """Returns the context of a batch, or of several merged, with the whole of its lists.

        With a ``user_id`` it is the context of that user, in one batch or in all.

        ``context_document`` makes the JSON of the requirement documents of it.

        Args:
            *batch_ids: At most 100; at most one with a ``user_id``.
            user_id: Whose context it is to be.
            tenant_id: Another tenant, or ``-`` for any; operators only.
        """
        request = messages.GetContextRequest(
            batch_ids=batch_ids, user_id=user_id, page_size=LARGEST_PAGE, tenant_id=tenant_id
        )
        return await whole_context(self._calls, self._stub.GetContext, request)

    async def get_batch_statistics(
        self,
        *,
        group_by: StatisticsGroup.ValueType = StatisticsGroup.STATISTICS_GROUP_UNSPECIFIED,
        states: Sequence[BatchState.ValueType] = (),
        operation: str = "",
        job_id: str = "",
        labels: Mapping[str, str] | None = None,
        user_id: str = "",
        feature_type: str = "",
        created_after: datetime | None = None,
        created_before: datetime | None = None,
        tenant_id: str = "",
    ) -> messages.GetBatchStatisticsResponse:
        """Counts the batches for which all given filters hold, as ``list_batches`` has them.

        Args:
            group_by: What they are counted by, besides all together.
            states: Counts batches in one of these; empty means any.
            operation: Counts batches of this operation.
            job_id: Counts batches of this job.
            labels: Counts batches that have all these labels.
            user_id: Counts batches in which this user has an item, and this user's items.
            feature_type: Counts batches that serve this feature.
            created_after: Counts batches of this instant or later; needs a time zone.
            created_before: Counts batches before this instant; needs a time zone.
            tenant_id: Another tenant, or ``-`` for all; operators only.

        Raises:
            ValueError: An instant has no time zone.
        """
        request = messages.GetBatchStatisticsRequest(
            group_by=group_by,
            states=states,
            operation=operation,
            job_id=job_id,
            labels=labels,
            user_id=user_id,
            feature_type=feature_type,
            created_after=timestamp_of("created_after", created_after),
            created_before=timestamp_of("created_before", created_before),
            tenant_id=tenant_id,
        )
        return await self._calls.unary(self._stub.GetBatchStatistics, request)

    def watch_batch(
        self,
        batch_id: str,
        *,
        resume_token: str = "",
        include_items: bool = False,
        only_failed_items: bool = False,
        min_interval: timedelta | None = None,
        tenant_id: str = "",
        patience: Patience = DEFAULT_PATIENCE,
    ) -> AsyncGenerator[BatchEvent, None]:
        """Yields what happens to a batch, and ends after END.

        Starts with a SNAPSHOT, or after ``resume_token``. A broken connection, a server that
        goes away or falls silent, and a token that expired are overcome without losing or
        repeating an event; a second SNAPSHOT says that events were no longer kept and that what
        was counted so far is to be replaced. HEARTBEAT and GOING_AWAY are not yielded.

        Whoever leaves the loop early closes the iterator (``contextlib.aclosing``), so that the
        server does not go on sending.

        Args:
            batch_id: The batch.
            resume_token: The newest one of an earlier watch with the same choice of items.
            include_items: Asks for ITEM_FINISHED.
            only_failed_items: Restricts ITEM_FINISHED to items that failed.
            min_interval: The shortest time between two PROGRESS; unset means 250 ms.
            tenant_id: Another tenant, or ``-`` for any; operators only.
            patience: How long to wait for what.

        Raises:
            UnavailableError: Nothing was heard for longer than ``patience.give_up_after``.
            BatchworkError: The server refused; its class tells why.
        """
        request = messages.WatchBatchRequest(
            batch_id=batch_id,
            resume_token=resume_token,
            include_items=include_items,
            only_failed_items=only_failed_items,
            tenant_id=tenant_id,
        )
        if min_interval is not None:
            request.min_interval.FromTimedelta(min_interval)
        return watch(self._stub, request, calls=self._calls, patience=patience)

    def watch_batches(
        self,
        *,
        operation: str = "",
        job_id: str = "",
        labels: Mapping[str, str] | None = None,
        feature_type: str = "",
        resume_token: str = "",
        min_interval: timedelta | None = None,
        without_progress: bool = False,
        tenant_id: str = "",
        patience: Patience = DEFAULT_PATIENCE,
    ) -> AsyncGenerator[BatchEvent, None]:
        """Yields what happens to all batches for which the filters hold; it never ends by itself.

        Starts with a SNAPSHOT of each batch that is not over, or after ``resume_token``; END says
        that one batch is done. Broken connections are overcome as by ``watch_batch``. When a token
        expired, there are snapshots again: what was known of other batches is out of date.

        Whoever leaves the loop closes the iterator (``contextlib.aclosing``).

        Args:
            operation: Keeps batches of this operation.
            job_id: Keeps batches of this job.
            labels: Keeps batches that have all these labels.
            feature_type: Keeps batches that serve this feature.
            resume_token: The newest one of an earlier watch with the same filters.
            min_interval: The shortest time between two PROGRESS of one batch; unset means 1 s.
            without_progress: Leaves PROGRESS out.
            tenant_id: Another tenant, or ``-`` for all; operators only.
            patience: How long to wait for what.

        Raises:
            UnavailableError: Nothing was heard for longer than ``patience.give_up_after``.
            BatchworkError: The server refused; its class tells why.
        """
        request = messages.WatchBatchesRequest(
            resume_token=resume_token,
            operation=operation,
            job_id=job_id,
            labels=labels,
            feature_type=feature_type,
            without_progress=without_progress,
            tenant_id=tenant_id,
        )
        if min_interval is not None:
            request.min_interval.FromTimedelta(min_interval)
        return watch_many(self._stub, request, calls=self._calls, patience=patience)

    async def wait_for_batch(
        self,
        batch_id: str,
        *,
        timeout: timedelta | None = None,  # noqa: ASYNC109 (its error says that the batch goes on)
        tenant_id: str = "",
        patience: Patience = DEFAULT_PATIENCE,
    ) -> Batch:
        """Returns the batch once it is done, however it ended.

        Raises:
            DeadlineExceededError: It was not done within ``timeout``; it goes on.
            UnavailableError: As ``watch_batch``.
        """
        events = watch(
            self._stub,
            messages.WatchBatchRequest(batch_id=batch_id, tenant_id=tenant_id),
            calls=self._calls,
            patience=patience,
        )
        try:
            async with patience.timer.timeout(timeout):
                return await _final_batch(events)
        except TimeoutError as error:
            raise DeadlineExceededError(
                f"The batch {batch_id!r} was not done within {timeout}; it goes on.",
                code=grpc.StatusCode.DEADLINE_EXCEEDED,
            ) from error
        finally:
            await events.aclose()

    async def get_item(self, batch_id: str, *, item_id: str, tenant_id: str = "") -> Item:
        """Returns one item with its attempts."""
        response = await self._calls.unary(
            self._stub.GetItem,
            messages.GetItemRequest(batch_id=batch_id, item_id=item_id, tenant_id=tenant_id),
        )
        return response.item

    def list_items(
        self,
        batch_id: str,
        *,
        states: Sequence[ItemState.ValueType] = (),
        user_id: str = "",
        error_reason: str = "",
        skip_reason: str = "",
        min_quality_score: float | None = None,
        max_quality_score: float | None = None,
        tenant_id: str = "",
        limit: int | None = None,
    ) -> AsyncIterator[Item]:
        """Yields the items for which all given filters hold, in their order.

        Args:
            batch_id: The batch; it may still run.
            states: Keeps items in one of these; empty means any.
            user_id: Keeps items of this user.
            error_reason: Keeps items that failed for this reason.
            skip_reason: Keeps items that were skipped for this reason.
            min_quality_score: Keeps items of at least this quality, 0 to 1.
            max_quality_score: Keeps items of at most this quality, 0 to 1.
            tenant_id: Another tenant, or ``-`` for any; operators only.
            limit: Yields at most so many; None means all.
        """

        def request_for(size: int, token: str) -> messages.ListItemsRequest:
            return messages.ListItemsRequest(
                batch_id=batch_id,
                page_size=size,
                page_token=token,
                states=states,
                user_id=user_id,
                error_reason=error_reason,
                skip_reason=skip_reason,
                min_quality_score=min_quality_score,
                max_quality_score=max_quality_score,
                tenant_id=tenant_id,
            )

        return self._calls.paged(
            self._stub.ListItems, request_for, lambda page: page.items, limit=limit
        )

    def stream_results(
        self,
        batch_id: str,
        *,
        follow: bool = False,
        states: Sequence[ItemState.ValueType] = (),
        user_id: str = "",
        without_data: bool = False,
        resume_token: str = "",
        tenant_id: str = "",
        patience: Patience = DEFAULT_PATIENCE,
    ) -> AsyncGenerator[Item, None]:
        """Yields the finished items of a batch, in the order in which they finished.

        A connection that breaks and a server that goes away are overcome without losing or
        repeating an item. However large the batch is, a few hundred items are in memory.

        Whoever leaves the loop early closes the iterator (``contextlib.aclosing``).

        Args:
            batch_id: The batch.
            follow: Goes on until the batch is done; else ends with what is finished now.
            states: Keeps items in one of these final states; empty means any.
            user_id: Keeps items of this user; empty means anybody's.
            without_data: Leaves the input of the items out.
            resume_token: Starts after the message that carried it, with the same ``states`` and
                ``user_id``.
            tenant_id: Another tenant, or ``-`` for any; operators only.
            patience: How long to wait for what.

        Raises:
            ResumeTokenExpiredError: The batch was over so long ago that its events were forgotten
                in the middle of the stream, or since ``resume_token``.
            UnavailableError: Nothing was heard for longer than ``patience.give_up_after``.
        """
        request = messages.StreamResultsRequest(
            batch_id=batch_id,
            resume_token=resume_token,
            follow=follow,
            states=states,
            user_id=user_id,
            without_data=without_data,
            tenant_id=tenant_id,
        )
        return stream_results(self._stub, request, calls=self._calls, patience=patience)

    async def upload_items(
        self,
        batch_id: str,
        items: Items | AsyncIterable[ItemInput | tuple[str, Any]],
        *,
        offset: int | None = None,
        patience: Patience = DEFAULT_PATIENCE,
    ) -> UploadItemsResponse:
        """Adds items to a draft; they are durable when it returns.

        ``items`` can be any iterable and is read once, some thousands at a time. A connection that
        breaks and a server that goes away are overcome: the upload goes on from where the draft
        says that it is. Items that are there already with the same content are ignored.

        Args:
            batch_id: The draft.
            items: As for ``create_batch``.
            offset: The place of the first of them in the whole upload; unset means the draft's
                ``upload_offset``. An item without an id gets its place.
            patience: How long to wait for what.

        Returns:
            How many items were added and how many were there, and the offset after them.

        Raises:
            InvalidArgumentError: An item is wrong; those of the messages before it are stored.
            OffsetGapError: Items before ``offset`` are missing.
            AlreadyExistsError: An item is there with other content.
            WrongStateError: The batch is no draft.
            UnavailableError: Nothing was heard for longer than ``patience.give_up_after``.
        """
        upload = Upload(self._stub, batch_id, calls=self._calls, patience=patience)
        return await upload.send(_any_inputs(items), offset=offset)

    async def seal_batch(
        self, batch_id: str, *, expected_count: int | None = None, request_id: str | None = None
    ) -> Batch:
        """Ends the upload to a draft, which then runs, and returns it.

        Args:
            batch_id: The draft.
            expected_count: How many items it must hold; unset means any number.
            request_id: Makes a repeat return the batch; a new one is made when unset.

        Raises:
            WrongStateError: The batch is no draft.
            CountMismatchError: It holds another number of items.
        """
        request = messages.SealBatchRequest(
            request_id=request_id or new_request_id(),
            batch_id=batch_id,
            expected_count=expected_count,
        )
        response = await self._calls.unary(self._stub.SealBatch, request)
        return response.batch

    async def pause_batch(
        self, batch_id: str, *, note: str = "", request_id: str | None = None
    ) -> Batch:
        """Pauses a batch and returns it; items in flight finish, no other starts.

        Pausing it again changes nothing, but one that would have resumed by itself stays paused.

        Args:
            batch_id: The batch.
            note: Says why, for people; at most 500 characters.
            request_id: Makes a repeat change nothing; a new one is made when unset.

        Raises:
            WrongStateError: The batch is done, is being cancelled or is a draft.
        """
        request = messages.PauseBatchRequest(
            request_id=request_id or new_request_id(), batch_id=batch_id, note=note
        )
        response = await self._calls.unary(self._stub.PauseBatch, request)
        return response.batch

    async def resume_batch(self, batch_id: str, *, request_id: str | None = None) -> Batch:
        """Goes on with a paused batch and returns it; one that is not paused is left alone.

        Raises:
            WrongStateError: The batch is done, is being cancelled or is a draft.
        """
        request = messages.ResumeBatchRequest(
            request_id=request_id or new_request_id(), batch_id=batch_id
        )
        response = await self._calls.unary(self._stub.ResumeBatch, request)
        return response.batch

    async def retry_batch(
        self,
        batch_id: str,
        *,
        states: Sequence[ItemState.ValueType] = (),
        user_id: str = "",
        error_reason: str = "",
        item_ids: Sequence[str] = (),
        request_id: str | None = None,
    ) -> RetryBatchResponse:
        """Runs items of a batch that is over once more, as a new attempt at the same batch.

        What succeeded is untouched. All filters that are given must hold.

        Args:
            batch_id: The batch.
            states: Keeps items in one of these: FAILED, CANCELLED, EXPIRED; empty means FAILED.
            user_id: Keeps items of this user.
            error_reason: Keeps items that failed for this reason.
            item_ids: Keeps these items, at most 1,000.
            request_id: Makes a repeat return the first count; a new one is made when unset.

        Returns:
            The batch, and how many items are tried again.

        Raises:
            WrongStateError: The batch is not over, or all of it succeeded.
            FailedPreconditionError: NOTHING_MATCHES, no item matches.
        """
        request = messages.RetryBatchRequest(
            request_id=request_id or new_request_id(),
            batch_id=batch_id,
            states=states,
            user_id=user_id,
            error_reason=error_reason,
            item_ids=item_ids,
        )
        return await self._calls.unary(self._stub.RetryBatch, request)

    async def cancel_batch(
        self,
        batch_id: str,
        *,
        stop_in_flight: bool = False,
        note: str = "",
        request_id: str | None = None,
    ) -> Batch:
        """Cancels a batch and returns it; what is done stays done.

        Cancelling it again changes nothing, but ``stop_in_flight`` stops what was left to finish.

        Args:
            batch_id: The batch.
            stop_in_flight: Stops the items in flight; else they finish and count.
            note: Says why, for people; at most 500 characters.
            request_id: Makes a repeat change nothing; a new one is made when unset.

        Raises:
            WrongStateError: The batch is done.
        """
        request = messages.CancelBatchRequest(
            request_id=request_id or new_request_id(),
            batch_id=batch_id,
            mode=_cancel_mode(stop_in_flight=stop_in_flight),
            note=note,
        )
        response = await self._calls.unary(self._stub.CancelBatch, request)
        return response.batch

    async def delete_batch(self, batch_id: str, *, request_id: str | None = None) -> None:
        """Deletes a batch that is over, with its items and results.

        Raises:
            NotFoundError: There is no such batch, or it was deleted before.
            WrongStateError: The batch is not over.
        """
        await self._calls.unary(
            self._stub.DeleteBatch,
            messages.DeleteBatchRequest(
                request_id=request_id or new_request_id(), batch_id=batch_id
            ),
        )

    async def purge_batches(
        self,
        *,
        older_than_days: int,
        states: Sequence[BatchState.ValueType] = (),
        force: bool = False,
        request_id: str | None = None,
    ) -> PurgeBatchesResponse:
        """Counts the batches that were over so long ago, or deletes them with ``force``.

        A purge of very many can take longer than the deadline of a call. What was deleted by then
        stays deleted; the same ``request_id`` again goes on, and counts all of it.

        Args:
            older_than_days: 0 means all that are over.
            states: Final states; empty means any of them.
            force: Deletes.
            request_id: Makes a repeat return the first answer; a new one is made when unset.
        """
        return await self._calls.unary(
            self._stub.PurgeBatches,
            messages.PurgeBatchesRequest(
                request_id=request_id or new_request_id(),
                older_than_days=older_than_days,
                states=states,
                force=force,
            ),
        )


def item_input(item_id: str, data: Any, *, user_id: str = "") -> ItemInput:
    """Returns an item with ``data`` as JSON text.

    Raises:
        TypeError: JSON cannot express ``data``.
        ValueError: ``data`` holds a NaN or an infinity.
    """
    text = json.dumps(data, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return ItemInput(item_id=item_id, user_id=user_id, data_json=text)


def _cancel_mode(*, stop_in_flight: bool) -> messages.CancelMode.ValueType:
    if stop_in_flight:
        return messages.CANCEL_MODE_STOP_IN_FLIGHT
    return messages.CANCEL_MODE_FINISH_IN_FLIGHT


async def _final_batch(events: AsyncIterator[BatchEvent]) -> Batch:
    final = Batch()
    async for event in events:
        if event.kind == messages.BATCH_EVENT_KIND_END:
            final = event.batch
    return final


def create_request(items: Items, fields: BatchFields) -> CreateBatchRequest:
    """Returns what ``create_batch`` sends, without a request id."""
    request = CreateBatchRequest(
        items=item_inputs(items),
        operation=fields.get("operation", ""),
        template_id=fields.get("template_id", ""),
        category=fields.get("category", ""),
        limit=fields.get("limit", 0),
        options=fields.get("options"),
        labels=fields.get("labels"),
        batch_id=fields.get("batch_id", ""),
        display_name=fields.get("display_name", ""),
        description=fields.get("description", ""),
        source=fields.get("source", ""),
        purpose_id=fields.get("purpose_id", ""),
        draft=fields.get("draft", False),
    )
    if "filters" in fields:
        request.filters.CopyFrom(struct_of(fields["filters"]))
    if "batch_metadata" in fields:
        request.batch_metadata.CopyFrom(struct_of(fields["batch_metadata"]))
    return request


def item_inputs(items: Items) -> Iterator[ItemInput]:
    """Yields items as the contract has them."""
    for item in items.items() if isinstance(items, Mapping) else items:
        yield item if isinstance(item, ItemInput) else item_input(*item)


async def _any_inputs(
    items: Items | AsyncIterable[ItemInput | tuple[str, Any]],
) -> AsyncIterator[ItemInput]:
    if isinstance(items, AsyncIterable):
        async for item in items:
            yield item if isinstance(item, ItemInput) else item_input(*item)
    else:
        for item in item_inputs(items):
            yield item


def struct_of(values: Mapping[str, Any]) -> Struct:
    struct = Struct()
    struct.update(values)
    return struct
