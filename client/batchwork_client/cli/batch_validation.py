"""The command that tells what is wrong with a batch before it is submitted: validate batch."""

from __future__ import annotations

from typing import Annotated

import typer
from batchwork.v1.validation_service_pb2 import ValidateBatchResponse

from batchwork_client.batches import BatchFields
from batchwork_client.cli.batch_files import batch_from, over
from batchwork_client.cli.batches import plan_facts
from batchwork_client.cli.inputs import InputError, values_from
from batchwork_client.cli.output import note, write_facts, write_message, write_table
from batchwork_client.cli.parameters import AsJson
from batchwork_client.cli.session import ExitCode, command, session_of
from batchwork_client.cli.validation_reports import in_words


def add_to(group: typer.Typer) -> None:
    """Adds the command to the others that validate."""
    command(group, "batch")(validate_batch)


async def validate_batch(
    context: typer.Context,
    file: Annotated[
        str | None,
        typer.Argument(help="Items, or a whole batch as a JSON object, as submit takes them."),
    ] = None,
    category: Annotated[str, typer.Option(help="Selects items from a category instead.")] = "",
    filters: Annotated[
        list[str] | None,
        typer.Option("--filter", metavar="NAME=VALUE", help="Narrows the category; repeatable."),
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Selects at most so many.")] = None,
    operation: Annotated[str, typer.Option(help="The work to do, such as annotate.")] = "",
    template: Annotated[str, typer.Option(help="The template that the items go through.")] = "",
    metadata: Annotated[
        list[str] | None,
        typer.Option(
            "--metadata",
            metavar="NAME=VALUE",
            help="Kept with the batch, such as data_source_type=users; repeatable.",
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Tells all that is wrong with a batch, and what it would be; submits nothing."""
    session = session_of(context)
    session.require_own_tenant("validate batch")
    if (file is None) == (category == ""):
        raise InputError(["give either a file or --category"])
    items, stated = batch_from(file) if file is not None else ([], BatchFields())
    given = BatchFields(
        category=category, limit=limit or 0, operation=operation, template_id=template
    )
    if filters:
        given["filters"] = values_from("--filter", filters)
    if metadata:
        given["batch_metadata"] = values_from("--metadata", metadata)
    async with session.connect() as batchwork:
        answer = await batchwork.validation.validate_batch(items, **over(stated, given))
    if as_json:
        write_message(answer)
    else:
        _show(answer)
    if not answer.valid:
        raise typer.Exit(ExitCode.FAILURES)


def _show(answer: ValidateBatchResponse) -> None:
    rows = [("violation", v.reason, v.path, v.message) for v in answer.violations]
    rows += [("warning", w.reason, w.path, w.message) for w in answer.warnings]
    if rows:
        write_table(("", "REASON", "PATH", "MESSAGE"), rows)
    if answer.HasField("plan"):
        write_facts(_plan(answer))
    note(f"{answer.violation_count} violations, {len(answer.warnings)} warnings")


def _plan(answer: ValidateBatchResponse) -> list[tuple[str, str]]:
    users, references = answer.user_validation, answer.reference_validation
    facts = [*plan_facts(answer.plan), ("users", in_words(users) if users.total else "")]
    if answer.HasField("reference_validation"):
        facts.append(("references to users", in_words(references.user_references)))
    return [*facts, ("for example", ", ".join(answer.plan.sample_item_ids))]
