"""Uploads between the contract and the use cases."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterable

from batchwork.v1.batch_service_pb2 import (
    SealBatchRequest,
    UploadItemsRequest,
    UploadItemsResponse,
)

from batchwork_server.application.uploads import Uploaded, UploadPart
from batchwork_server.domain.json_object import MAX_INTEGER, quoted
from batchwork_server.rpc.checks import Checks
from batchwork_server.rpc.item_conversion import uploaded_items_from

LARGEST_UPLOAD = 10_000_000
"""The most items that can be uploaded to a draft."""


async def parts_from(
    requests: AsyncIterable[UploadItemsRequest],
) -> AsyncGenerator[UploadPart, None]:
    """Yields what the messages of an upload bring, each checked as a whole.

    Raises:
        InvalidArgument: with everything that is wrong with one message.
    """
    batch_id = ""
    async for request in requests:
        part = _part_from(request, batch_id=batch_id)
        batch_id = part.batch_id
        yield part


def _part_from(request: UploadItemsRequest, *, batch_id: str) -> UploadPart:
    """Returns what a message brings.

    Args:
        batch_id: Of the messages before; empty for the first one.
    """
    checks = Checks()
    if not batch_id:
        batch_id = checks.required_id("batch_id", request.batch_id)
    elif request.batch_id and request.batch_id != batch_id:
        message = f"{quoted(request.batch_id)} is not {quoted(batch_id)}; an upload has one draft."
        checks.refuse("batch_id", message)
    offset = checks.whole("offset", request.offset, least=0, most=LARGEST_UPLOAD)
    if offset + len(request.items) > LARGEST_UPLOAD:
        checks.refuse(
            "items",
            f"{offset + len(request.items)} items are too many; the limit is {LARGEST_UPLOAD}.",
        )
    items = uploaded_items_from(request.items, first=offset, checks=checks)
    checks.done()
    return UploadPart(batch_id=batch_id, offset=offset, items=items)


def uploaded_to(uploaded: Uploaded) -> UploadItemsResponse:
    return UploadItemsResponse(
        accepted_count=uploaded.accepted,
        deduplicated_count=uploaded.deduplicated,
        next_offset=uploaded.next_offset,
    )


def expected_count_from(request: SealBatchRequest, *, checks: Checks) -> int | None:
    """Returns how many items the draft must hold; none when the caller does not say."""
    if not request.HasField("expected_count"):
        return None
    return checks.whole("expected_count", request.expected_count, least=0, most=MAX_INTEGER)
