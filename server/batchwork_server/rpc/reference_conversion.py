"""Between the messages of references and those of the use cases."""

from __future__ import annotations

from batchwork.v1 import batch_service_pb2 as messages
from batchwork.v1 import reference_pb2

from batchwork_server.domain.caller import Caller
from batchwork_server.domain.filters import ReferenceFilter
from batchwork_server.domain.reference import Reference
from batchwork_server.rpc.checks import Checks
from batchwork_server.rpc.values import set_timestamp


def reference_filter_from(
    request: messages.ListReferencesRequest, *, caller: Caller, checks: Checks
) -> ReferenceFilter:
    return ReferenceFilter(
        tenant_id=checks.scope(caller, request.tenant_id),
        user_id=checks.line("user_id", request.user_id),
        batch_id=checks.optional_id("batch_id", request.batch_id),
        job_id=checks.optional_id("job_id", request.job_id),
        feature_type=checks.line("feature_type", request.feature_type),
    )


def reference_to(reference: Reference) -> reference_pb2.Reference:
    batch = reference.batch
    message = reference_pb2.Reference(
        user_id=reference.recipient.user_id,
        batch_id=batch.batch_id,
        job_id=batch.request.job_id,
        display_name=batch.request.display_name,
        purpose_id=batch.request.purpose_id,
        state=reference_pb2.ReferenceState.Value(f"REFERENCE_STATE_{reference.state}"),
        reason=reference.reason,
        tenant_id=batch.tenant_id,
        item_id="" if reference.item is None else reference.item.item_id,
        is_own=reference.item is not None,
        feature_type=batch.request.feature_type,
    )
    set_timestamp(message.create_time, batch.create_time)
    if reference.deliver_time is not None:
        set_timestamp(message.deliver_time, reference.deliver_time)
    return message
