"""The commands that delete: delete, purge."""

from __future__ import annotations

from typing import Annotated

import typer
from batchwork.v1.batch_pb2 import BatchState

from batchwork_client.cli.inputs import enum_values_from
from batchwork_client.cli.output import note, write_facts, write_message
from batchwork_client.cli.parameters import AsJson, BatchId, RequestId
from batchwork_client.cli.session import command, session_of


def add_to(app: typer.Typer) -> None:
    """Adds the commands to the application."""
    command(app, "delete")(delete)
    command(app, "purge")(purge)


async def delete(context: typer.Context, batch: BatchId, request_id: RequestId = "") -> None:
    """Deletes a batch that is over, with its items and results."""
    session = session_of(context)
    session.require_own_tenant("delete")
    async with session.connect() as batchwork:
        await batchwork.batches.delete_batch(batch, request_id=request_id or None)
    typer.echo(f"{batch} deleted")


async def purge(
    context: typer.Context,
    older_than_days: Annotated[
        int,
        typer.Option(min=0, help="Batches that were over so many days ago; 0 means all."),
    ],
    states: Annotated[
        list[str] | None, typer.Option("--state", help="Only in it, such as failed; repeatable.")
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Deletes; without it they are only counted.")
    ] = False,
    request_id: RequestId = "",
    as_json: AsJson = False,
) -> None:
    """Counts batches that are over, and deletes them with --force.

    Batches that are not over are never touched.
    """
    session = session_of(context)
    session.require_own_tenant("purge")
    async with session.connect() as batchwork:
        purged = await batchwork.batches.purge_batches(
            older_than_days=older_than_days,
            states=enum_values_from("--state", BatchState.DESCRIPTOR, states or ()),
            force=force,
            request_id=request_id or None,
        )
    if as_json:
        write_message(purged)
        return
    counted = f"{purged.batch_count} batches with {purged.item_count} items"
    write_facts(
        [
            ("deleted" if force else "would delete", counted),
            ("the oldest", ", ".join(purged.sample_batch_ids)),
        ]
    )
    if not force:
        note("nothing was deleted; --force deletes them")
