"""The command about what a run of a job would be: plan."""

from __future__ import annotations

from typing import Annotated

import typer
from batchwork.v1.batch_pb2 import PlannedItem
from batchwork.v1.job_service_pb2 import PlanJobResponse

from batchwork_client.cli.batches import plan_facts, show_warnings
from batchwork_client.cli.output import write_facts, write_message, write_table
from batchwork_client.cli.parameters import AsJson, Users
from batchwork_client.cli.session import command, session_of

_LONGEST_DATA = 60


def add_to(app: typer.Typer) -> None:
    """Adds the command to the application."""
    command(app, "plan")(plan)


async def plan(
    context: typer.Context,
    job: Annotated[str, typer.Argument(metavar="JOB", help="The id of the job.")],
    users: Users = None,
    as_json: AsJson = False,
) -> None:
    """Shows what a run of a job would process now, with a token for run --plan."""
    session = session_of(context)
    session.require_own_tenant("plan")
    async with session.connect() as batchwork:
        response = await batchwork.jobs.plan_job(job, user_ids=users or ())
    if as_json:
        write_message(response)
    else:
        _show(response)


def _show(response: PlanJobResponse) -> None:
    batch, planned = response.batch, response.plan
    show_warnings(batch)
    write_facts(
        [
            ("job", f"{batch.job_id} (revision {batch.job_revision})"),
            ("template", batch.template_id),
            *plan_facts(planned),
        ]
    )
    if planned.sample:
        write_table(("ITEM", "USER", "SKIPPED", "DATA"), [_row(item) for item in planned.sample])
    typer.echo(f"plan {response.plan_token}")


def _row(item: PlannedItem) -> tuple[str, ...]:
    data = item.data_beginning[:_LONGEST_DATA]
    is_cut = len(data.encode()) < item.data_bytes
    return item.item_id, item.user_id, item.skip_reason, f"{data}…" if is_cut else data
