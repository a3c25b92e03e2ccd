"""The command for batches that are too large for one message: upload."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from typing import Annotated

import typer
from batchwork.v1.batch_pb2 import Batch

from batchwork_client.batches import BatchFields
from batchwork_client.cli.batches import show_started
from batchwork_client.cli.inputs import (
    STANDARD_INPUT,
    check_items,
    each_item_from,
    options_from,
    pairs_from,
    values_from,
)
from batchwork_client.cli.output import note
from batchwork_client.cli.parameters import AsJson, Watch
from batchwork_client.cli.session import command, session_of
from batchwork_client.connection import Batchwork


def add_to(app: typer.Typer) -> None:
    """Adds the command to the application."""
    command(app, "upload")(upload)


async def upload(
    context: typer.Context,
    file: Annotated[
        str, typer.Argument(help="Items as .jsonl or .csv; - reads JSON lines from stdin.")
    ],
    operation: Annotated[str, typer.Option(help="The work to do, such as annotate.")] = "",
    template: Annotated[str, typer.Option(help="The template that the items go through.")] = "",
    options: Annotated[
        list[str] | None,
        typer.Option("--option", metavar="NAME=VALUE", help="As for submit; repeatable."),
    ] = None,
    labels: Annotated[
        list[str] | None, typer.Option("--label", metavar="NAME=VALUE", help="Repeatable.")
    ] = None,
    metadata: Annotated[
        list[str] | None,
        typer.Option("--metadata", metavar="NAME=VALUE", help="As for submit; repeatable."),
    ] = None,
    batch_id: Annotated[str, typer.Option(help="The id; unset means a generated one.")] = "",
    name: Annotated[str, typer.Option(help="Names the batch for people.")] = "",
    id_field: Annotated[
        str, typer.Option(help="The field that names an item, instead of item_id.")
    ] = "",
    user_field: Annotated[
        str, typer.Option(help="The field that names its user, instead of user_id.")
    ] = "",
    draft: Annotated[
        str,
        typer.Option(
            metavar="BATCH", help="Goes on with an upload of the same file that was interrupted."
        ),
    ] = "",
    watch: Watch = False,
    as_json: AsJson = False,
) -> None:
    """Submits a file of any size and prints the id of its batch.

    Nothing runs before all of it is there.
    """
    session = session_of(context)
    session.require_own_tenant("upload")
    if file != STANDARD_INPUT:
        check_items(file, id_field=id_field, user_field=user_field)
    fields = BatchFields(
        draft=True,
        operation=operation,
        template_id=template,
        options=options_from(options or ()),
        labels=pairs_from("--label", labels or ()),
        batch_id=batch_id,
        display_name=name,
    )
    if metadata:
        fields["batch_metadata"] = values_from("--metadata", metadata)
    async with session.connect() as batchwork:
        batch = await _open_draft(batchwork, draft, fields)
        with _told_how_to_go_on(file, batch.batch_id):
            items = each_item_from(file, id_field=id_field, user_field=user_field)
            rest = islice(items, batch.upload_offset, None)
            await batchwork.batches.upload_items(batch.batch_id, rest, offset=batch.upload_offset)
            sealed = await batchwork.batches.seal_batch(batch.batch_id)
        await show_started(batchwork, sealed, watch=watch, as_json=as_json)


async def _open_draft(batchwork: Batchwork, draft: str, fields: BatchFields) -> Batch:
    if draft:
        return await batchwork.batches.get_batch(draft)
    return await batchwork.batches.create_batch(**fields)


@contextmanager
def _told_how_to_go_on(file: str, batch_id: str) -> Iterator[None]:
    try:
        yield
    except BaseException:
        note(
            f"The draft {batch_id} keeps what was uploaded; go on with: "
            f"batchwork upload {file} --draft {batch_id}"
        )
        raise
