"""Contexts between the contract and the domain."""

from __future__ import annotations

from batchwork.v1 import context_pb2 as messages
from batchwork.v1.batch_service_pb2 import GetContextRequest

from batchwork_server.domain.batch import Batch, UserValidation
from batchwork_server.domain.context import MOST_BATCHES, Context, ContextItems, ContextProgress
from batchwork_server.domain.item import ItemState
from batchwork_server.domain.json_object import quoted
from batchwork_server.domain.reference import OwnItem
from batchwork_server.domain.user_context import (
    ContextPreference,
    UserContext,
    UserEntry,
    preference_of,
)
from batchwork_server.rpc.batch_conversion import BATCH_STATE_TO, counts_to, reference_counts_to
from batchwork_server.rpc.checks import Checks
from batchwork_server.rpc.item_conversion import ITEM_STATE_TO
from batchwork_server.rpc.reference_conversion import reference_to
from batchwork_server.rpc.values import set_timestamp, struct_to, timestamp_to

DEFAULT_PAGE_SIZE = 1000
MAX_PAGE_SIZE = 5000


def batch_ids_from(request: GetContextRequest, *, checks: Checks) -> tuple[str, ...]:
    """Returns the batches of a context, each once; at most one of a user's."""
    least, most = (0, 1) if request.user_id else (1, MOST_BATCHES)
    checks.count("batch_ids", request.batch_ids, least=least, most=most)
    batch_ids = checks.ids("batch_ids", request.batch_ids[:most], most=most)
    for index, batch_id in enumerate(batch_ids):
        if batch_id and batch_id in batch_ids[:index]:
            checks.refuse(f"batch_ids[{index}]", f"{quoted(batch_id)} is named before already.")
    return batch_ids


def context_page_size_from(request: GetContextRequest, *, checks: Checks) -> int:
    return checks.page_size(request.page_size, unset=DEFAULT_PAGE_SIZE, most=MAX_PAGE_SIZE)


def context_to(context: Context) -> messages.Context:
    tenants = context.tenant_ids
    message = messages.Context(
        tenant_id=tenants[0] if len(tenants) == 1 else "",
        batches=[_batch_to(batch) for batch in context.batches],
        metadata=struct_to(context.metadata),
        items=_items_to(context.items),
        progress=_progress_to(context.progress),
        validation=_validation_to(context.validation),
    )
    made_by = preference_of(context.batches[0]) if len(context.batches) == 1 else None
    if made_by is not None:
        message.preferences.append(_preference_to(made_by))
    references = context.user_references
    if references.total:
        message.user_references.MergeFrom(reference_counts_to(references))
    set_timestamp(message.start_time, context.start_time)
    if context.end_time is not None:
        set_timestamp(message.end_time, context.end_time)
    return message


def user_context_to(context: UserContext) -> messages.Context:
    return messages.Context(
        tenant_id=context.tenant_id,
        user_id=context.user_id,
        batches=[_batch_to(batch) for batch in context.batches],
        metadata=struct_to(context.metadata),
        items=_items_to(context.items),
        progress=_progress_to(context.progress),
        validation=_validation_to(context.validation),
        user_items=[
            _user_item_to(entry, entry.item) for entry in context.entries if entry.item is not None
        ],
        references=[
            reference_to(entry.reference)
            for entry in context.entries
            if entry.reference is not None
        ],
        preferences=map(_preference_to, context.preferences),
    )


def _user_item_to(entry: UserEntry, item: OwnItem) -> messages.ContextUserItem:
    return messages.ContextUserItem(
        batch_id=entry.batch.batch_id,
        item_id=item.item_id,
        is_shared=entry.is_shared,
        state=ITEM_STATE_TO[item.state],
        reason=item.reason if item.state in (ItemState.FAILED, ItemState.SKIPPED) else "",
        end_time=timestamp_to(item.end_time),
    )


def _preference_to(preference: ContextPreference) -> messages.ContextPreference:
    return messages.ContextPreference(
        feature_type=preference.feature_type,
        job_id=preference.job_id,
        frequency=preference.frequency,
        time=preference.time,
        time_zone=preference.time_zone,
        template_overrides=struct_to(preference.template_overrides),
        group_key=preference.group_key,
    )


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


def _validation_to(found: UserValidation) -> messages.ContextValidation:
    return messages.ContextValidation(
        total=found.total, valid=found.valid, invalid=found.invalid, unknown=found.unknown
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
