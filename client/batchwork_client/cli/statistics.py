"""The command about batches in numbers: stats."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

import typer
from batchwork.v1.batch_service_pb2 import BatchStatistics, StatisticsGroup

from batchwork_client.cli.inputs import enum_values_from
from batchwork_client.cli.output import write_message, write_table
from batchwork_client.cli.parameters import AsJson
from batchwork_client.cli.session import command, session_of

_STATES = ("PENDING", "RUNNING", "SUCCEEDED", "PARTIALLY_SUCCEEDED", "FAILED", "CANCELLED")


def add_to(app: typer.Typer) -> None:
    """Adds the command to the application."""
    command(app, "stats")(statistics)


async def statistics(
    context: typer.Context,
    by: Annotated[str, typer.Option(help="Also by operation, job, tenant or feature.")] = "",
    operation: Annotated[str, typer.Option(help="Only of this operation.")] = "",
    job: Annotated[str, typer.Option(help="Only of this job.")] = "",
    feature: Annotated[str, typer.Option(help="Only that serve this feature.")] = "",
    user: Annotated[
        str, typer.Option(help="Only with items of this user, whose items alone are counted.")
    ] = "",
    since: Annotated[
        datetime | None, typer.Option(help="Created from when on; local time without a zone.")
    ] = None,
    until: Annotated[datetime | None, typer.Option(help="Created before when.")] = None,
    as_json: AsJson = False,
) -> None:
    """Counts batches and their items."""
    session = session_of(context)
    groups = enum_values_from("--by", StatisticsGroup.DESCRIPTOR, [by] if by else [])
    async with session.connect() as batchwork:
        counted = await batchwork.batches.get_batch_statistics(
            group_by=groups[0] if groups else StatisticsGroup.STATISTICS_GROUP_UNSPECIFIED,
            operation=operation,
            job_id=job,
            feature_type=feature,
            user_id=user,
            created_after=since.astimezone() if since else None,
            created_before=until.astimezone() if until else None,
            tenant_id=session.tenant_id,
        )
    if as_json:
        write_message(counted)
        return
    write_table(
        (by.upper(), "BATCHES", "COMPLETED", *_STATES, "ITEMS DONE WELL"),
        [
            *(_row(group, name=group.name or "-") for group in counted.groups),
            _row(counted.total, name="all"),
        ],
    )


def _row(some: BatchStatistics, *, name: str) -> tuple[str, ...]:
    by_state = dict(some.batch_count_by_state)
    return (
        name,
        str(some.batch_count),
        f"{some.completion_ratio:.0%}",
        *(str(by_state.get(state, 0)) for state in _STATES),
        f"{some.item_counts.succeeded} of {some.item_counts.total}",
    )
