"""What became of a user between the contract and the domain."""

from __future__ import annotations

from datetime import datetime

from batchwork.v1 import preference_service_pb2 as messages

from batchwork_server.application.source_notes import SourceNote, SourceState
from batchwork_server.application.user_periods import UserDecision, UserPeriod
from batchwork_server.rpc.checks import Checks
from batchwork_server.rpc.values import duration_to, timestamp_to

_STATES = {state: messages.SourceState.Value(f"SOURCE_STATE_{state}") for state in SourceState}
_DECISIONS = {
    decision: messages.UserDecision.Value(f"USER_DECISION_{decision}") for decision in UserDecision
}


def explained_span(
    request: messages.ExplainUserRequest, *, checks: Checks
) -> tuple[datetime | None, datetime | None]:
    """Returns from when to when is asked for; none where that is unset."""
    start, end = (
        checks.moment(name, getattr(request, name)) if request.HasField(name) else None
        for name in ("start_time", "end_time")
    )
    return start, end


def user_period_to(told: UserPeriod) -> messages.UserPeriod:
    period = told.period
    return messages.UserPeriod(
        job_id=told.job_id,
        period="" if period is None else period.label,
        start_time=None if period is None else timestamp_to(period.start),
        end_time=None if period is None else timestamp_to(period.end),
        decision=_DECISIONS[told.decision],
        reason=told.reason,
        due_time=timestamp_to(told.due_time),
        batch_id=told.batch_id,
        item_id=told.item_id,
        group_key=told.group_key,
        message=told.message,
    )


def source_note_to(note: SourceNote | None) -> messages.SourceNote | None:
    if note is None:
        return None
    return messages.SourceNote(
        state=_STATES[note.state],
        differences=[
            messages.SourceDifference(field=each.field, stored=each.stored, source=each.source)
            for each in note.differences
        ],
        age=duration_to(note.age),
        stale=note.is_stale,
        message=note.message,
    )
