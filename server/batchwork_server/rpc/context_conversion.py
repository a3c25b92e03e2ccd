"""Contexts between the contract and the domain."""

from __future__ import annotations

from batchwork.v1 import context_pb2 as messages
from batchwork.v1.batch_service_pb2 import GetContextRequest

from batchwork_server.domain.batch import Batch
from batchwork_server.domain.context import MOST_BATCHES, Context, ContextItems, ContextProgress
from batchwork_server.domain.json_object import quoted
from batchwork_server.rpc.batch_conversion import BATCH_STATE_TO, counts_to, reference_counts_to
from batchwork_server.rpc.checks import Checks
from batchwork_server.rpc.values import set_timestamp, struct_to

DEFAULT_PAGE_SIZE = 1000
MAX_PAGE_SIZE = 5000


def batch_ids_from(request: GetContextRequest, *, checks: Checks) -> tuple[str, ...]:
    """Returns the batches of a context, each once."""
    checks.count("batch_ids", request.batch_ids, least=1, most=MOST_BATCHES)
    batch_ids = checks.ids("batch_ids", request.batch_ids[:MOST_BATCHES], most=MOST_BATCHES)
    for index, batch_id in enumerate(batch_ids):
        if batch_id and batch_id in batch_ids[:index]:
            checks.refuse(f"batch_ids[{index}]", f"{quoted(batch_id)} is named before already.")
    return batch_ids


def context_page_size_from(request: GetContextRequest, *, checks: Checks) -> int:
    return checks.page_size(request.page_size, unset=DEFAULT_PAGE_SIZE, most=MAX_PAGE_SIZE)


def context_to(context: Context) -> messages.Context:
    validation, tenants = context.validation, context.tenant_ids
    message = messages.Context(
        tenant_id=tenants[0] if len(tenants) == 1 else "",
        batches=[_batch_to(batch) for batch in context.batches],
        metadata=struct_to(context.metadata),
        items=_items_to(context.items),
        progress=_progress_to(context.progress),
        validation=messages.ContextValidation(
            total=validation.total, valid=validation.valid, invalid=validation.invalid
        ),
    )
    references = context.user_references
    if references.total:
        message.user_references.MergeFrom(reference_counts_to(references))
    set_timestamp(message.start_time, context.start_time)
    if context.end_time is not None:
        set_timestamp(message.end_time, context.end_time)
    return message


def _batch_to(batch: Batch) -> messages.ContextBatch:
    return messages.ContextBatch(
        batch_id=batch.batch_id,
        tenant_id=batch.tenant_id,
        state=BATCH_STATE_TO[batch.state],
        result_count=batch.counts.succeeded,
    )


def _items_to(items: ContextItems) -> messages.ContextItems:
    return messages.ContextItems(
        valid_users=items.valid_users,
        invalid_users=items.invalid_users,
        valid_categories=items.valid_categories,
        invalid_categories=items.invalid_categories,
    )


def _progress_to(progress: ContextProgress) -> messages.ContextProgress:
    return messages.ContextProgress(
        processed=progress.processed,
        succeeded=progress.counts.succeeded,
        failed=progress.counts.failed,
        total=progress.total,
        percent=progress.percent,
        counts=counts_to(progress.counts),
    )
