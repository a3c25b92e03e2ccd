"""The names of events, as the requirement documents have them.

What happens to a batch is told as ``batch:…``. The events of a batch for a feature have the names
that whoever follows the feature waits for, where the documents have one: its start, its end, each
result, and that what was kept of earlier results is out of date.
"""

from __future__ import annotations

from collections.abc import Mapping

from batchwork_server.domain.batch import BatchState
from batchwork_server.domain.item import ItemState

CREATED = "batch:created"
SEALED = "batch:sealed"
RESUMED = "batch:resumed"
RETRIED = "batch:retried"
FAILING = "batch:failing"
PROGRESS = "batch:progress"
VALIDATED = "batch:validated"

_OF_STATES: Mapping[BatchState, str] = {
    BatchState.DRAFT: CREATED,
    BatchState.PENDING: CREATED,
    BatchState.RUNNING: "batch:started",
    BatchState.PAUSED: "batch:paused",
    BatchState.SUCCEEDED: "batch:completed",
    BatchState.PARTIALLY_SUCCEEDED: "batch:completed",
    BatchState.FAILED: "batch:failed",
    BatchState.CANCELLING: "batch:cancelling",
    BatchState.CANCELLED: "batch:cancelled",
    BatchState.EXPIRED: "batch:expired",
}
_OF_A_FEATURE: Mapping[BatchState, str] = {
    BatchState.RUNNING: "batch_job.started",
    BatchState.SUCCEEDED: "batch_job.completed",
    BatchState.PARTIALLY_SUCCEEDED: "batch_job.completed",
    BatchState.FAILED: "batch_job.failed",
}


def of_state(state: BatchState, *, feature_type: str) -> str:
    """Returns the name of the event by which a batch gets into a state.

    Args:
        feature_type: The feature that the batch is for; empty when it is for none.
    """
    if feature_type and state in _OF_A_FEATURE:
        return f"{feature_type}.{_OF_A_FEATURE[state]}"
    return _OF_STATES[state]


def of_item(state: ItemState, *, feature_type: str) -> str:
    """Returns the name of the event by which an item gets into its final state."""
    if feature_type and state is ItemState.SUCCEEDED:
        return f"{feature_type}.generated"
    return "batch:item_finished"


def of_delivery(*, feature_type: str) -> str:
    """Returns the name of the event that users were given new results."""
    return f"{feature_type}.cache.invalidated" if feature_type else "batch:delivered"
