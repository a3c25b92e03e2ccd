"""What is asked of the state of a batch, between the contract and the domain."""

from __future__ import annotations

from batchwork.v1.batch_service_pb2 import CancelBatchRequest, CancelMode, RetryBatchRequest
from batchwork.v1.item_pb2 import ItemState as ItemStateNumber

from batchwork_server.domain.filters import RetryFilter
from batchwork_server.domain.item import ItemState
from batchwork_server.rpc.checks import Checks

LONGEST_NOTE = 500
MAX_ITEM_IDS = 1000

_STOPS: dict[int, bool] = {
    CancelMode.CANCEL_MODE_FINISH_IN_FLIGHT: False,
    CancelMode.CANCEL_MODE_STOP_IN_FLIGHT: True,
}
_RETRYABLE: dict[int, ItemState] = {
    ItemStateNumber.Value(f"ITEM_STATE_{state.name}"): state
    for state in (ItemState.FAILED, ItemState.CANCELLED, ItemState.EXPIRED)
}


def stop_in_flight_from(request: CancelBatchRequest, *, checks: Checks) -> bool:
    """Tells whether items in flight are to be stopped."""
    return bool(checks.choice("mode", request.mode, _STOPS))


def retry_filter_from(request: RetryBatchRequest, *, checks: Checks) -> RetryFilter:
    return RetryFilter(
        states=checks.choices("states", request.states, _RETRYABLE) or (ItemState.FAILED,),
        user_id=checks.line("user_id", request.user_id),
        error_reason=checks.line("error_reason", request.error_reason),
        item_ids=checks.names("item_ids", request.item_ids, most=MAX_ITEM_IDS),
    )
