"""The application: the options that stand before a command, and the commands."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from batchwork_client.cli import (
    backfills,
    batch_validation,
    batches,
    contexts,
    deletion,
    forecast,
    jobs,
    notifications,
    occurrences,
    plans,
    preference_groups,
    preferences,
    reference_validation,
    references,
    statistics,
    upcoming,
    uploads,
    validation,
    validation_reports,
)
from batchwork_client.cli.session import EXIT_CODES_IN_WORDS, Session

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    # A traceback with local variables could show the API key.
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    epilog=EXIT_CODES_IN_WORDS,
)


@app.callback(epilog=EXIT_CODES_IN_WORDS)
def options(
    context: typer.Context,
    target: Annotated[
        str, typer.Option(envvar="BATCHWORK_TARGET", help="The server, as host:port or unix:path.")
    ] = "localhost:50051",
    api_key: Annotated[
        str,
        typer.Option(
            envvar="BATCHWORK_API_KEY",
            show_default=False,
            help="Better given in the environment: other users can see arguments.",
        ),
    ] = "",
    tls_ca: Annotated[
        Path | None,
        typer.Option(envvar="BATCHWORK_TLS_CA", help="PEM file of the authorities to trust."),
    ] = None,
    tenant: Annotated[
        str,
        typer.Option(
            envvar="BATCHWORK_TENANT",
            help="Reads another tenant, or - for any; operators only.",
            show_default=False,
        ),
    ] = "",
    allow_clear_text: Annotated[
        bool,
        typer.Option(
            "--allow-clear-text", help="Talks to another machine without TLS; never with a key."
        ),
    ] = False,
) -> None:
    """Runs work for many users or many things at once.

    Results go to stdout, everything else to stderr. With --json stdout has one JSON document, or
    one a line.
    """
    context.obj = Session(
        target=target,
        api_key=api_key or None,
        tls_ca=tls_ca,
        tenant_id=tenant,
        allow_clear_text=allow_clear_text,
    )


batches.add_to(app)
uploads.add_to(app)
deletion.add_to(app)
jobs.add_to(app)
plans.add_to(app)
upcoming.add_to(app)
occurrences.add_to(app)
contexts.add_to(app)
references.add_to(app)
notifications.add_to(app)
statistics.add_to(app)
backfills.add_to(app)
validation.add_to(app)
validation_reports.add_to(validation.group)
batch_validation.add_to(validation.group)
reference_validation.add_to(validation.group)
preference_groups.add_to(preferences.group)
forecast.add_to(preferences.group)
app.add_typer(preferences.group, name="preferences")
