"""The summary of each batch that is over: one line of log, however and wherever it ended."""

from __future__ import annotations

from batchwork_server.domain.batch import Batch, BatchState
from batchwork_server.domain.durations import render_duration
from batchwork_server.logs import get_logger
from batchwork_server.ports import Meter
from batchwork_server.wakeups import Wakeups

log = get_logger(__name__)

_MESSAGES = {
    BatchState.SUCCEEDED: "Batch job completed",
    BatchState.PARTIALLY_SUCCEEDED: "Batch job completed",
    BatchState.FAILED: "Batch job failed",
    BatchState.CANCELLED: "Batch job cancelled",
    BatchState.EXPIRED: "Batch job expired",
}


class Endings:
    """Hears of every batch that this process wrote, and tells of those that are over then.

    The end of a batch is one statement that one process wins, and who wins it announces the batch,
    so that each end is told once on any number of servers. A batch that is tried again ends again.
    """

    def __init__(self, wakeups: Wakeups, *, meter: Meter | None = None) -> None:
        self._meter = meter
        wakeups.subscribe(self._on_batch)

    def _on_batch(self, batch: Batch) -> None:
        if not batch.state.is_final:
            return
        if self._meter is not None:
            self._meter.batch_finished(batch)
        tell = {BatchState.FAILED: log.error, BatchState.EXPIRED: log.warning}
        counts, end = batch.counts, batch.end_time or batch.update_time
        tell.get(batch.state, log.info)(
            "batch.finished",
            message=_MESSAGES[batch.state],
            job_id=batch.request.job_id,
            batch_id=batch.batch_id,
            tenant_id=batch.tenant_id,
            state=batch.state,
            duration=render_duration(end - (batch.start_time or end)),
            processed=counts.succeeded + counts.failed,
            successful=counts.succeeded,
            errors=counts.failed,
            skipped=counts.skipped,
        )
