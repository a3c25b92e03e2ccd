"""The commands that validate: validate-users, validate jobs, validate items."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import typer
from batchwork.v1.validation_service_pb2 import (
    JobValidation,
    UserVerdict,
    ValidateItemsResponse,
    ValidateJobsResponse,
    ValidateUsersResponse,
)

from batchwork_client.cli.inputs import (
    InputError,
    items_from,
    read_text,
    short_name,
    values_from,
)
from batchwork_client.cli.output import note, write_message, write_table
from batchwork_client.cli.parameters import AsJson
from batchwork_client.cli.session import ExitCode, command, session_of
from batchwork_client.connection import Batchwork

group = typer.Typer(
    help="Tells what is wrong with something before it is used.",
    no_args_is_help=True,
    rich_markup_mode=None,
)


def add_to(app: typer.Typer) -> None:
    """Adds the commands to the application."""
    command(app, "validate-users")(validate_users)
    app.add_typer(group, name="validate")


async def validate_users(
    context: typer.Context,
    users: Annotated[
        list[str] | None, typer.Argument(metavar="[USER]...", help="The ids of users.")
    ] = None,
    file: Annotated[
        str, typer.Option(help="A file with an id a line; - reads stdin.", show_default=False)
    ] = "",
    only_invalid: Annotated[
        bool, typer.Option("--only-invalid", help="Leaves out who is valid; for very many users.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Tells whether users exist and are active."""
    session = session_of(context)
    session.require_own_tenant("validate-users")
    ids = list(users or ())
    if file:
        ids += [line.strip() for line in read_text(file).splitlines() if line.strip()]
    if not ids:
        raise InputError(["give ids of users, or --file"])
    async with session.connect() as batchwork:
        if only_invalid:
            answer = await _without_valid(batchwork, ids)
        else:
            answer = await batchwork.validation.validate_users(ids)
    if as_json:
        write_message(answer)
    else:
        write_table(
            ("USER", "VERDICT"),
            [
                (result.user_id, short_name(UserVerdict.DESCRIPTOR, result.verdict))
                for result in answer.results
            ],
        )
        note(f"{answer.totals.valid} of {answer.totals.total} are valid")
    if answer.totals.valid < answer.totals.total:
        raise typer.Exit(ExitCode.FAILURES)


async def _without_valid(batchwork: Batchwork, user_ids: Sequence[str]) -> ValidateUsersResponse:
    """Returns the verdicts on those who are not valid, and the totals of all."""
    answer = ValidateUsersResponse()
    async for part in batchwork.validation.stream_validate_users(user_ids):
        answer.results.extend(part.results)
        answer.totals.CopyFrom(part.running_totals)
    return answer


@command(group, "jobs")
async def validate_jobs(
    context: typer.Context,
    file: Annotated[
        str, typer.Argument(help="A job file; - reads stdin. Left out with the options below.")
    ] = "",
    job: Annotated[
        list[str] | None, typer.Option("--job", help="A stored job instead; repeatable.")
    ] = None,
    stored: Annotated[
        bool, typer.Option("--stored", help="All stored jobs instead of a file.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Tells all that is wrong with jobs, and all that may not be meant; changes nothing."""
    session = session_of(context)
    if sum(map(bool, (file, job, stored))) != 1:
        raise InputError(["give a job file, or --job, or --stored"])
    text = read_text(file) if file else ""
    async with session.connect() as batchwork:
        answer = await batchwork.validation.validate_jobs(
            text, job_ids=job or (), all_stored=stored, tenant_id=session.tenant_id
        )
    if as_json:
        write_message(answer)
    else:
        _show_findings(answer)
    if answer.totals.violations:
        raise typer.Exit(ExitCode.FAILURES)


def _show_findings(answer: ValidateJobsResponse) -> None:
    rows = _finding_rows("", answer)
    for result in answer.results:
        rows += _finding_rows(result.job_id, result)
    if rows:
        write_table(("JOB", "", "REASON", "PATH", "MESSAGE"), rows)
    totals = answer.totals
    note(
        f"{totals.valid} of {totals.total} jobs are valid; "
        f"{totals.violations} violations, {totals.warnings} warnings"
    )


def _finding_rows(
    job_id: str, found: ValidateJobsResponse | JobValidation
) -> list[tuple[str, ...]]:
    violations = [(job_id, "violation", v.reason, v.path, v.message) for v in found.violations]
    warnings = [(job_id, "warning", w.reason, w.path, w.message) for w in found.warnings]
    return [*violations, *warnings]


@command(group, "items")
async def validate_items(
    context: typer.Context,
    schema: Annotated[str, typer.Argument(help="A file with a JSON Schema; - reads stdin.")],
    file: Annotated[
        str, typer.Argument(help="Items as .json, .jsonl or .csv, as submit takes them.")
    ] = "",
    category: Annotated[str, typer.Option(help="Checks the items of a category instead.")] = "",
    filters: Annotated[
        list[str] | None,
        typer.Option("--filter", metavar="NAME=VALUE", help="Narrows the category; repeatable."),
    ] = None,
    limit: Annotated[int, typer.Option(min=0, help="Checks at most so many of it.")] = 0,
    show: Annotated[int, typer.Option(min=1, help="Shows at most so many invalid items.")] = 20,
    as_json: AsJson = False,
) -> None:
    """Tells which items do not meet a JSON Schema, with counts per rule; changes nothing."""
    session = session_of(context)
    if bool(file) == bool(category):
        raise InputError(["give either a file of items or --category"])
    text = read_text(schema)
    items = items_from(file) if file else []
    async with session.connect() as batchwork:
        answer = await batchwork.validation.validate_items(
            text,
            items,
            category=category,
            filters=values_from("--filter", filters or ()),
            limit=limit,
            max_results=show,
            tenant_id=session.tenant_id,
        )
    if as_json:
        write_message(answer)
    else:
        _show_items(answer)
    if answer.totals.invalid:
        raise typer.Exit(ExitCode.FAILURES)


def _show_items(answer: ValidateItemsResponse) -> None:
    if answer.rules:
        write_table(
            ("RULE", "IN THE SCHEMA", "ITEMS", "FINDINGS"),
            [
                (each.rule, each.schema_path, str(each.items), str(each.findings))
                for each in answer.rules
            ],
        )
        write_table(
            ("ITEM", "PATH", "MESSAGE"),
            [
                (item.item_id, finding.path, finding.message)
                for item in answer.results
                for finding in item.findings
            ],
        )
    totals = answer.totals
    note(f"{totals.valid} of {totals.total} items are valid, {totals.valid_ratio:.1%}")
