"""Backfills between the contract and the domain."""

from __future__ import annotations

from datetime import datetime

from batchwork.v1 import job_service_pb2 as messages

from batchwork_server.domain.backfill import Backfill, BackfillRange, Fate
from batchwork_server.rpc.checks import Checks
from batchwork_server.rpc.values import timestamp_to

_FATES = {fate: messages.BackfillFate.Value(f"BACKFILL_FATE_{fate}") for fate in Fate}
_IS_PARALLEL: dict[int, bool] = {
    messages.BackfillOverlap.BACKFILL_OVERLAP_QUEUE: False,
    messages.BackfillOverlap.BACKFILL_OVERLAP_ALLOW: True,
}


def backfill_range_from(request: messages.BackfillJobRequest, *, checks: Checks) -> BackfillRange:
    """Returns what is to be made up for; what is wrong stands in the checks, which end here.

    Raises:
        InvalidArgument: something is wrong with the request.
    """
    job_id = checks.required_id("job_id", request.job_id)
    start, end = (_moment(request, name, checks=checks) for name in ("start_time", "end_time"))
    if start is not None and end is not None and end <= start:
        checks.refuse("end_time", "It is not after start_time; no instant lies between them.")
    is_parallel = checks.choice("overlap", request.overlap, _IS_PARALLEL)
    checks.done()
    assert start is not None and end is not None  # noqa: PT018, S101  both are required
    return BackfillRange(job_id=job_id, start=start, end=end, is_parallel=bool(is_parallel))


def _moment(request: messages.BackfillJobRequest, name: str, *, checks: Checks) -> datetime | None:
    if not request.HasField(name):  # type: ignore[arg-type]
        checks.refuse(name, "This field is required.")
        return None
    return checks.moment(name, getattr(request, name))


def backfill_to(backfill: Backfill) -> messages.BackfillJobResponse:
    return messages.BackfillJobResponse(
        backfill_id=backfill.backfill_id,
        due_times=[
            messages.BackfillDueTime(
                due_time=timestamp_to(each.due_time),
                fate=_FATES[each.fate],
                batch_id=each.batch_id,
            )
            for each in backfill.due_times
        ],
    )
