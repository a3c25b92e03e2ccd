"""Contexts of batches: their pages put together, and the JSON of the requirement documents."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import grpc
from batchwork.v1 import batch_service_pb2 as messages
from batchwork.v1.batch_pb2 import ReferenceCounts
from batchwork.v1.context_pb2 import Context, ContextValidation
from google.protobuf.json_format import MessageToDict
from google.protobuf.message import Message

from batchwork_client.calls import Calls

LARGEST_PAGE = 5000
"""How many items a page of a context looks at, at most."""


async def whole_context(
    calls: Calls,
    method: grpc.aio.UnaryUnaryMultiCallable[
        messages.GetContextRequest, messages.GetContextResponse
    ],
    request: messages.GetContextRequest,
) -> Context:
    """Returns a context with the whole of its lists, as they are when the last page is read."""
    whole: Context | None = None
    async for page in _pages(calls, method, request):
        whole = page if whole is None else _with_lists_of(whole, page)
    assert whole is not None  # noqa: S101  there is always a first page
    return whole


def _with_lists_of(before: Context, page: Context) -> Context:
    """Puts the lists of the pages before in front of those of a page."""
    if not page.user_id:
        before.items.MergeFrom(page.items)
        page.items.CopyFrom(before.items)
        return page
    lists = Context(user_items=before.user_items, references=before.references)
    known = {batch.batch_id for batch in page.batches}
    lists.batches.extend(batch for batch in before.batches if batch.batch_id not in known)
    features = {preference.feature_type for preference in page.preferences}
    lists.preferences.extend(
        preference for preference in before.preferences if preference.feature_type not in features
    )
    for name in ("user_items", "references", "batches", "preferences"):
        getattr(lists, name).extend(getattr(page, name))
        page.ClearField(name)
    page.MergeFrom(lists)
    return page


async def _pages(
    calls: Calls,
    method: grpc.aio.UnaryUnaryMultiCallable[
        messages.GetContextRequest, messages.GetContextResponse
    ],
    request: messages.GetContextRequest,
) -> AsyncIterator[Context]:
    while True:
        response = await calls.unary(method, request)
        yield response.context
        request.page_token = response.next_page_token
        if not request.page_token:
            return


def context_document(context: Context) -> dict[str, Any]:
    """Returns a context as the JSON object of the requirement documents.

    It is ``{"results": {"metadata", "items", "progress", "validation"}}``. The validation has
    ``unknown`` where somebody could not be looked up. The metadata have
    ``user_references`` where things of categories list users. The items are
    ``valid_users`` and ``invalid_users``; of batches by categories they are ``valid_categories``
    and ``invalid_categories``, and users only where there are any. The context of a user has
    ``user_items`` and ``references`` besides; and ``preferences`` stand in the metadata, where
    preferences drive a run.
    """
    metadata: dict[str, Any] = _plain(MessageToDict(context.metadata))
    progress, validation = context.progress, context.validation
    if context.HasField("user_references"):
        metadata["user_references"] = _counts_of(context.user_references)
    if context.preferences:
        metadata["preferences"] = [_object_of(each) for each in context.preferences]
    by_categories = not context.user_id and _is_by_categories(metadata)
    of_user = {
        "user_items": [_object_of(each) for each in context.user_items],
        "references": [_object_of(each) for each in context.references],
    }
    return {
        "results": {
            "metadata": metadata,
            "items": _lists_of(context, by_categories=by_categories),
            "progress": {
                "processed": progress.processed,
                "succeeded": progress.succeeded,
                "failed": progress.failed,
                "total": progress.total,
                "percentage": _plain(round(progress.percent, 2)),
            },
            "validation": _counts_of(validation),
            **(of_user if context.user_id else {}),
        }
    }


def _object_of(message: Message) -> dict[str, Any]:
    """Returns what a message says; its states without the prefix that they have there."""
    found: dict[str, Any] = _plain(MessageToDict(message, preserving_proto_field_name=True))
    if "state" in found:
        found["state"] = found["state"].partition("_STATE_")[2]
    return found


def _counts_of(found: ContextValidation | ReferenceCounts) -> dict[str, int]:
    counts = {"total": found.total, "valid": found.valid, "invalid": found.invalid}
    if found.unknown:
        counts["unknown"] = found.unknown
    return counts


def _lists_of(context: Context, *, by_categories: bool) -> dict[str, list[str]]:
    items = context.items
    users = {"valid_users": [*items.valid_users], "invalid_users": [*items.invalid_users]}
    if not by_categories:
        return users
    categories = {
        "valid_categories": [*items.valid_categories],
        "invalid_categories": [*items.invalid_categories],
    }
    return categories | {name: found for name, found in users.items() if found}


def _is_by_categories(metadata: dict[str, Any]) -> bool:
    said = [metadata, *metadata.get("batches", {}).values()]
    return any(
        each.get("data_source_type") == "categories"
        and not str(each.get("batch_type", "")).startswith("PREFERENCE_")
        for each in said
    )


def _plain(value: Any) -> Any:
    """Returns a JSON value whose whole numbers are whole, though doubles carried them."""
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, dict):
        return {name: _plain(each) for name, each in value.items()}
    if isinstance(value, list):
        return [_plain(each) for each in value]
    return value
