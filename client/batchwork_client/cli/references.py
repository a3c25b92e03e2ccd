"""The command about what users were given: references."""

from __future__ import annotations

from typing import Annotated

import typer
from batchwork.v1.reference_pb2 import Reference, ReferenceState

from batchwork_client.cli.inputs import short_name
from batchwork_client.cli.output import time_in_words, write_message, write_table
from batchwork_client.cli.parameters import AsJson, Limit
from batchwork_client.cli.session import command, session_of


def add_to(app: typer.Typer) -> None:
    """Adds the command to the application."""
    command(app, "references")(list_references)


async def list_references(
    context: typer.Context,
    user: Annotated[str, typer.Option(help="Only what this user was given.")] = "",
    batch: Annotated[str, typer.Option(help="Only to this batch.")] = "",
    job: Annotated[str, typer.Option(help="Only to batches of this job.")] = "",
    feature: Annotated[str, typer.Option(help="Only to batches that serve this feature.")] = "",
    limit: Limit = 100,
    as_json: AsJson = False,
) -> None:
    """Lists what users were given of the results of batches, newest batch first."""
    session = session_of(context)
    async with session.connect() as batchwork:
        found = batchwork.batches.list_references(
            user_id=user,
            batch_id=batch,
            job_id=job,
            feature_type=feature,
            tenant_id=session.tenant_id,
            limit=limit,
        )
        if as_json:
            async for reference in found:
                write_message(reference)
            return
        write_table(
            ("USER", "BATCH", "ITEM", "JOB", "STATE", "REASON", "DELIVERED"),
            [_row(reference) async for reference in found],
        )


def _row(reference: Reference) -> tuple[str, ...]:
    return (
        reference.user_id,
        reference.batch_id,
        reference.item_id,
        reference.job_id,
        short_name(ReferenceState.DESCRIPTOR, reference.state),
        reference.reason,
        time_in_words(reference, "deliver_time"),
    )
