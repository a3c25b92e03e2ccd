"""The command about what became of batches: context."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated

import typer
from batchwork.v1.batch_pb2 import BatchState
from batchwork.v1.context_pb2 import (
    Context,
    ContextPreference,
    ContextUserItem,
    ContextValidation,
)
from batchwork.v1.item_pb2 import ItemState
from batchwork.v1.reference_pb2 import Reference, ReferenceState

from batchwork_client.cli.inputs import short_name
from batchwork_client.cli.output import time_in_words, write_facts, write_json
from batchwork_client.cli.parameters import AsJson
from batchwork_client.cli.session import command, session_of
from batchwork_client.contexts import context_document

_MOST_SHOWN = 10


def add_to(app: typer.Typer) -> None:
    """Adds the command to the application."""
    command(app, "context")(show_context)


async def show_context(
    context: typer.Context,
    batches: Annotated[
        list[str] | None, typer.Argument(metavar="BATCH…", help="The ids of the batches.")
    ] = None,
    user: Annotated[
        str, typer.Option(help="The context of this user, in one batch or in all.")
    ] = "",
    as_json: AsJson = False,
) -> None:
    """Shows the context of a batch, or of several merged: who was valid, and how far it is.

    With --user it shows what was done for a user, and what they were given.

    With --json it is the JSON of the requirement documents, with the whole lists.
    """
    session = session_of(context)
    async with session.connect() as batchwork:
        found = await batchwork.batches.get_context(
            *(batches or ()), user_id=user, tenant_id=session.tenant_id
        )
    if as_json:
        write_json(context_document(found))
        return
    write_facts(_facts_of(found))


def _facts_of(context: Context) -> list[tuple[str, str]]:
    progress, items = context.progress, context.items
    return [
        *(
            ("batch", f"{each.batch_id} {short_name(BatchState.DESCRIPTOR, each.state)}")
            for each in context.batches
        ),
        ("processed", f"{progress.processed} of {progress.total}, {progress.percent:.0f}%"),
        ("succeeded", str(progress.succeeded)),
        ("failed", str(progress.failed)),
        ("validated", _validation_in_words(context.validation)),
        ("valid users", _named(items.valid_users)),
        ("invalid users", _named(items.invalid_users)),
        ("valid categories", _named(items.valid_categories)),
        ("invalid categories", _named(items.invalid_categories)),
        *(("preference", _preference_in_words(each)) for each in context.preferences),
        *(("item", _item_in_words(each)) for each in context.user_items),
        *(("reference", _reference_in_words(each)) for each in context.references),
        ("created", time_in_words(context, "start_time")),
        ("ended", time_in_words(context, "end_time")),
    ]


def _validation_in_words(found: ContextValidation) -> str:
    unknown = f", {found.unknown} unknown" if found.unknown else ""
    return f"{found.valid} of {found.total} valid{unknown}"


def _preference_in_words(preference: ContextPreference) -> str:
    at = (preference.frequency, preference.time, preference.time_zone)
    return " ".join(part for part in (preference.feature_type, *at) if part)


def _item_in_words(item: ContextUserItem) -> str:
    state = short_name(ItemState.DESCRIPTOR, item.state)
    return " ".join(part for part in (item.batch_id, item.item_id, state, item.reason) if part)


def _reference_in_words(reference: Reference) -> str:
    state = short_name(ReferenceState.DESCRIPTOR, reference.state)
    what = reference.item_id if reference.is_own else "all results"
    return " ".join(part for part in (reference.batch_id, what, state, reference.reason) if part)


def _named(names: Iterable[str]) -> str:
    found = list(names)
    more = f" and {len(found) - _MOST_SHOWN} more" if len(found) > _MOST_SHOWN else ""
    return ", ".join(found[:_MOST_SHOWN]) + more
