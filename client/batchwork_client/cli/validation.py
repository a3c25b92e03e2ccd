"""The command that validates users."""

from __future__ import annotations

from typing import Annotated

import typer
from batchwork.v1.validation_service_pb2 import UserVerdict

from batchwork_client.cli.inputs import InputError, read_text, short_name
from batchwork_client.cli.output import note, write_message, write_table
from batchwork_client.cli.parameters import AsJson
from batchwork_client.cli.session import ExitCode, command, session_of


def add_to(app: typer.Typer) -> None:
    """Adds the command to the application."""
    command(app, "validate-users")(validate_users)


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
