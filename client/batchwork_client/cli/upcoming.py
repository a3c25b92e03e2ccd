"""The command about what is due next: upcoming."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

import typer
from batchwork.v1.job_service_pb2 import UpcomingRun
from batchwork.v1.schedule_pb2 import DueRule

from batchwork_client.cli.output import time_in_words, write_message, write_table
from batchwork_client.cli.parameters import AsJson, Limit
from batchwork_client.cli.session import command, session_of

_RULES = {
    DueRule.DUE_RULE_GAP: "{} is left out by the clock; at the first instant after",
    DueRule.DUE_RULE_FOLD: "{} is shown twice by the clock",
    DueRule.DUE_RULE_MONTH_END: "the month is shorter; on its last day",
}


def add_to(app: typer.Typer) -> None:
    """Adds the command to the application."""
    command(app, "upcoming")(list_upcoming_runs)


async def list_upcoming_runs(
    context: typer.Context,
    job: Annotated[
        list[str] | None, typer.Argument(help="Only these jobs; every job with a schedule if none.")
    ] = None,
    since: Annotated[
        datetime | None, typer.Option(help="From when on; local time if it names no zone.")
    ] = None,
    until: Annotated[datetime | None, typer.Option(help="Before when.")] = None,
    limit: Limit = 20,
    as_json: AsJson = False,
) -> None:
    """Lists when jobs are due next, by the rules for days on which clocks change."""
    session = session_of(context)
    async with session.connect() as batchwork:
        found = batchwork.jobs.list_upcoming_runs(
            job or (),
            start_time=since.astimezone() if since else None,
            end_time=until.astimezone() if until else None,
            tenant_id=session.tenant_id,
            limit=limit,
        )
        if as_json:
            async for run in found:
                write_message(run)
            return
        write_table(
            ("JOB", "DUE", "LOCAL TIME", "ZONE", "RULE"), [_row(run) async for run in found]
        )


def _row(run: UpcomingRun) -> tuple[str, ...]:
    return (
        run.job_id,
        time_in_words(run, "due_time"),
        run.local_time.replace("T", " "),
        run.time_zone,
        rules_in_words(run),
    )


def rules_in_words(run: UpcomingRun) -> str:
    """Returns what was done about a local time that is not there once; empty for most."""
    slot = run.scheduled_local_time[11:16]
    return "; ".join(_RULES[rule].format(slot) for rule in run.rules if rule in _RULES)
