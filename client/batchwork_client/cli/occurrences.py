"""The command about what became of due times: occurrences."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

import typer
from batchwork.v1.job_service_pb2 import Occurrence, OccurrenceDecision

from batchwork_client.cli.output import time_in_words, write_message, write_table
from batchwork_client.cli.parameters import AsJson, Limit
from batchwork_client.cli.session import command, session_of

_COLUMNS = ("DUE", "DECIDED", "DECISION", "BATCH OR REASON", "MESSAGE")


def add_to(app: typer.Typer) -> None:
    """Adds the command to the application."""
    command(app, "occurrences")(list_occurrences)


async def list_occurrences(
    context: typer.Context,
    job: Annotated[str, typer.Argument(metavar="JOB", help="The id of the job.")],
    since: Annotated[
        datetime | None, typer.Option(help="Due from when on; local time if it names no zone.")
    ] = None,
    until: Annotated[datetime | None, typer.Option(help="Due before when.")] = None,
    backfill: Annotated[str, typer.Option(help="Only what this backfill queued last.")] = "",
    limit: Limit = 20,
    as_json: AsJson = False,
) -> None:
    """Lists what became of the due times of a job, newest first."""
    session = session_of(context)
    async with session.connect() as batchwork:
        found = batchwork.jobs.list_occurrences(
            job,
            start_time=since.astimezone() if since else None,
            end_time=until.astimezone() if until else None,
            backfill_id=backfill,
            tenant_id=session.tenant_id,
            limit=limit,
        )
        if as_json:
            async for occurrence in found:
                write_message(occurrence)
            return
        occurrences = [occurrence async for occurrence in found]
    with_groups = any(occurrence.group_key for occurrence in occurrences)
    write_table(
        (*(("GROUP",) if with_groups else ()), *_COLUMNS),
        [
            (*((str(each.group_key or ""),) if with_groups else ()), *_row(each))
            for each in occurrences
        ],
    )


def _row(occurrence: Occurrence) -> tuple[str, ...]:
    decision = OccurrenceDecision.Name(occurrence.decision)
    return (
        time_in_words(occurrence, "due_time"),
        time_in_words(occurrence, "decide_time"),
        decision.removeprefix("OCCURRENCE_DECISION_"),
        occurrence.batch_id or occurrence.reason,
        occurrence.message,
    )
