"""Upcoming runs from the domain to the contract."""

from __future__ import annotations

from batchwork.v1 import job_service_pb2 as messages
from batchwork.v1 import schedule_pb2

from batchwork_server.application.upcoming import UpcomingRun
from batchwork_server.domain.due_times import DueRule
from batchwork_server.rpc.values import timestamp_to

_RULES = {rule: schedule_pb2.DueRule.Value(f"DUE_RULE_{rule}") for rule in DueRule}


def upcoming_run_to(run: UpcomingRun) -> messages.UpcomingRun:
    return messages.UpcomingRun(
        job_id=run.job_id,
        due_time=timestamp_to(run.due.instant),
        start_time=timestamp_to(run.start_time),
        time_zone=run.zone,
        local_time=run.local_time.isoformat(timespec="seconds"),
        scheduled_local_time=run.due.slot.isoformat(timespec="seconds"),
        rules=[_RULES[rule] for rule in run.due.rules],
    )
