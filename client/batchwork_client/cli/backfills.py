"""The commands about due times of the past: backfill, backfill-cancel."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

import typer
from batchwork.v1.job_service_pb2 import BackfillDueTime, BackfillFate, BackfillOverlap

from batchwork_client.cli.inputs import short_name
from batchwork_client.cli.output import note, time_in_words, write_json, write_message, write_table
from batchwork_client.cli.parameters import AsJson, RequestId
from batchwork_client.cli.session import command, session_of


def add_to(app: typer.Typer) -> None:
    """Adds the commands to the application."""
    command(app, "backfill")(backfill)
    command(app, "backfill-cancel")(cancel)


async def backfill(
    context: typer.Context,
    job: Annotated[str, typer.Argument(help="The id of the job.")],
    start: Annotated[
        datetime, typer.Option("--from", help="Due from when on; local time if it names no zone.")
    ],
    end: Annotated[datetime, typer.Option("--to", help="Due before when; not in the future.")],
    parallel: Annotated[
        bool, typer.Option("--parallel", help="All at once instead of one after the other.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Shows what it would do and stores nothing.")
    ] = False,
    request_id: RequestId = "",
    as_json: AsJson = False,
) -> None:
    """Makes up for due times of the past that have no run."""
    session = session_of(context)
    session.require_own_tenant("backfill")
    overlap = BackfillOverlap.BACKFILL_OVERLAP_ALLOW if parallel else None
    async with session.connect() as batchwork:
        answer = await batchwork.jobs.backfill_job(
            job,
            start_time=start.astimezone(),
            end_time=end.astimezone(),
            overlap=overlap or BackfillOverlap.BACKFILL_OVERLAP_QUEUE,
            validate_only=dry_run,
            request_id=request_id or None,
        )
    if as_json:
        write_message(answer)
        return
    write_table(("DUE", "BACKFILL", "BATCH"), [_row(each) for each in answer.due_times])
    if answer.backfill_id:
        note(f"{answer.backfill_id} is queued; backfill-cancel drops what waits of it")
    elif not dry_run:
        note("nothing is left to be made up for")


def _row(each: BackfillDueTime) -> tuple[str, ...]:
    return (
        time_in_words(each, "due_time"),
        short_name(BackfillFate.DESCRIPTOR, each.fate),
        each.batch_id,
    )


async def cancel(
    context: typer.Context,
    backfill_id: Annotated[str, typer.Argument(metavar="BACKFILL", help="The id of the backfill.")],
    request_id: RequestId = "",
    as_json: AsJson = False,
) -> None:
    """Drops what waits of a backfill; runs that go on are left."""
    session = session_of(context)
    session.require_own_tenant("backfill-cancel")
    async with session.connect() as batchwork:
        count = await batchwork.jobs.cancel_backfill(backfill_id, request_id=request_id or None)
    if as_json:
        write_json({"cancelled_count": count})
    else:
        typer.echo(f"{backfill_id} cancelled; due times that waited: {count}")
