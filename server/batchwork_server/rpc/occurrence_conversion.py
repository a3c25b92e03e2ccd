"""Occurrences between the contract and the domain."""

from __future__ import annotations

from datetime import datetime

from batchwork.v1 import job_service_pb2 as messages

from batchwork_server.domain.caller import Caller
from batchwork_server.domain.filters import OccurrenceFilter
from batchwork_server.domain.firing import Decision, Occurrence
from batchwork_server.rpc.checks import Checks
from batchwork_server.rpc.schedule_conversion import schedule_to
from batchwork_server.rpc.values import timestamp_to

_DECISIONS = {
    decision: messages.OccurrenceDecision.Value(f"OCCURRENCE_DECISION_{decision}")
    for decision in Decision
}


def occurrence_filter_from(
    request: messages.ListOccurrencesRequest, *, caller: Caller, checks: Checks
) -> OccurrenceFilter:
    start, end = (
        checks.moment(name, getattr(request, name)) if request.HasField(name) else None
        for name in ("start_time", "end_time")
    )
    if start is not None and end is not None and end <= start:
        checks.refuse("end_time", "It is not after start_time; no instant lies between them.")
    return OccurrenceFilter(
        tenant_id=checks.tenant(caller, request.tenant_id),
        job_id=checks.required_id("job_id", request.job_id),
        start=start,
        end=end,
        backfill_id=checks.optional_id("backfill_id", request.backfill_id),
    )


def occurrence_place_from(after: tuple[datetime, str] | None) -> tuple[datetime, int] | None:
    """Reads the place of a page token; one of an older release names the job, and no group."""
    if after is None:
        return None
    due_time, name = after
    return due_time, int(name) if name.isascii() and name.isdigit() else 0


def occurrence_to(occurrence: Occurrence) -> messages.Occurrence:
    return messages.Occurrence(
        job_id=occurrence.job_id,
        due_time=timestamp_to(occurrence.due_time),
        decision=_DECISIONS[occurrence.decision],
        reason=occurrence.reason or "",
        message=occurrence.message,
        batch_id=occurrence.batch_id,
        decide_time=timestamp_to(occurrence.decide_time),
        backfill_id=occurrence.backfill_id,
        group_key=occurrence.group_key,
        schedule=None if occurrence.schedule is None else schedule_to(occurrence.schedule),
    )
