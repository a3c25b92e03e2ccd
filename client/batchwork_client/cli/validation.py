"""The commands that validate: validate-users, and validate jobs."""

from __future__ import annotations

from typing import Annotated

import typer
from batchwork.v1.validation_service_pb2 import (
    JobValidation,
    UserVerdict,
    ValidateJobsResponse,
)

from batchwork_client.cli.inputs import InputError, read_text, short_name
from batchwork_client.cli.output import note, write_message, write_table
from batchwork_client.cli.parameters import AsJson
from batchwork_client.cli.session import ExitCode, command, session_of

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
