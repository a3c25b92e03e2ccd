"""What a batch that does not go on waits for."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from batchwork_server.domain.batch import Batch, BatchState, StateReason


@dataclass(frozen=True, slots=True, kw_only=True)
class WaitReason:
    """One thing that a batch waits for.

    Attributes:
        reason: A stable UPPER_SNAKE code.
        until: When the wait is over by itself, when that is known.
    """

    reason: str
    message: str
    until: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenWork:
    """The chunks of a batch that no worker has.

    Attributes:
        due: How many could be taken now.
        next_due_time: When the first of the others is due.
    """

    due: int
    next_due_time: datetime | None


_PAUSES = {
    StateReason.PAUSED_BY_CALLER: "A caller paused the batch; ResumeBatch goes on with it.",
    StateReason.FAILURE_POLICY: "Too many items failed; ResumeBatch goes on, CancelBatch ends it.",
    StateReason.PROVIDER_RATE_LIMITED: "What the processor calls asked for fewer calls.",
    StateReason.PROVIDER_DOWN: "What the processor calls does not answer.",
    StateReason.USERS_UNAVAILABLE: "The source of users is away; the batch begins when its users "
    "are validated. ResumeBatch begins without.",
}


PROCESSING_IS_OFF = WaitReason(
    reason="PROCESSING_DISABLED",
    message="The server that answers takes no work (ENABLE_BATCH_PROCESSING=false).",
)

_GOING_ON = (BatchState.PENDING, BatchState.RUNNING)


def is_idle(batch: Batch) -> bool:
    """Tells whether work is left that could go on and that no worker has in hand."""
    counts = batch.counts
    return counts.running == 0 and counts.pending > 0 and batch.state in _GOING_ON


def wait_reasons(batch: Batch, work: OpenWork | None = None) -> list[WaitReason]:
    """Returns what a batch waits for; nothing while it goes on or when it is over.

    Args:
        work: Of a batch that is idle.
    """
    if batch.state is BatchState.DRAFT:
        message = "The draft takes items until SealBatch starts it."
        return [WaitReason(reason="NOT_SEALED", message=message)]
    if batch.state is BatchState.PAUSED:
        message = batch.state_message or _PAUSES[StateReason(batch.state_reason)]
        return [WaitReason(reason=batch.state_reason, message=message, until=batch.resume_time)]
    if is_idle(batch):
        return _idle_reasons(work)
    bound = batch.request.options.max_concurrent_items
    if batch.state is BatchState.RUNNING and bound and batch.counts.running > bound:
        message = f"At most {bound} items of this batch are in flight at once."
        return [WaitReason(reason="CONCURRENCY_LIMIT", message=message)]
    return []


def _idle_reasons(work: OpenWork | None) -> list[WaitReason]:
    if work is None:
        return []
    if work.due:
        message = "The workers are busy with work that comes first."
        return [WaitReason(reason="BEHIND_OTHER_WORK", message=message)]
    if work.next_due_time is not None:
        message = "All that is left waits for its next attempt."
        return [WaitReason(reason="RETRY_BACKOFF", message=message, until=work.next_due_time)]
    return []
