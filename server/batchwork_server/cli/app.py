"""The commands."""

from __future__ import annotations

import os
from typing import Annotated

import typer

from batchwork_server.bootstrap.opening import open_database_of
from batchwork_server.cli import modes
from batchwork_server.cli.loading import load
from batchwork_server.cli.running import begin, read_settings, run, say
from batchwork_server.config import Settings
from batchwork_server.logs import configure_logs

app = typer.Typer(
    help="The Batchwork server. It is configured by environment variables; docs/configuration.md "
    "lists them. Without a command BATCH_MODE says what it does: serve, scheduler, once or health.",
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.add_typer(load, name="load")

_USAGE = 2
_UNHEALTHY = 1
_NOT_COMPLETED = 1


@app.callback(invoke_without_command=True)
def start(context: typer.Context) -> None:
    """Does what BATCH_MODE says, when there is no command."""
    if context.invoked_subcommand is not None:
        return
    if not os.environ.get("BATCH_MODE"):  # whoever wants to know what there is has no settings yet
        typer.echo(context.get_help())
        raise typer.Exit(_USAGE)
    match read_settings().mode:
        case "scheduler":
            scheduler()
        case "once":
            once()
        case "health":
            health()
        case _:
            serve()


@app.command()
def serve() -> None:
    """Run the server until SIGTERM or SIGINT; then finish what is in flight, and stop."""
    settings = read_settings()
    begin(settings, mode="serve")
    run(lambda: modes.serve(settings))


@app.command()
def scheduler() -> None:
    """Fire what is due and process it, without an API, until SIGTERM or SIGINT."""
    settings = read_settings()
    begin(settings, mode="scheduler")
    run(lambda: modes.schedule(settings))


@app.command()
def once(
    jobs: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="JOB",
            help="The jobs to run. Without one: finish what is open, run all that is due now.",
        ),
    ] = None,
    tenant: Annotated[
        str | None, typer.Option(help=f"Whose jobs. Default: {modes.DEFAULT_TENANT}.")
    ] = None,
    user: Annotated[
        list[str] | None,
        typer.Option(help="Run for this user only; may be repeated. Default: USER_ID_FILTER."),
    ] = None,
    strict: Annotated[
        bool, typer.Option("--strict", help="A run of which an item failed is not completed.")
    ] = False,
) -> None:
    """Run jobs, work until their runs are over, and stop.

    Exit code 0: every run completed. 1: one did not, or could not be made. 2: the settings or the
    arguments are wrong. 130, 143: a signal came first; what was not over goes on later.
    """
    if tenant is not None and not jobs:
        raise typer.BadParameter(
            "Name jobs as well: what is due runs for every tenant.", param_hint="--tenant"
        )
    settings = read_settings()
    begin(settings, mode="once")
    wanted = modes.OnceWanted(
        job_ids=tuple(jobs or ()),
        tenant_id=tenant or modes.DEFAULT_TENANT,
        user_ids=frozenset(user or ()) or settings.user_ids,
        strict=strict,
    )
    run(lambda: modes.run_once(settings, wanted, say=say), unavailable=_NOT_COMPLETED)


@app.command()
def health() -> None:
    """Tell whether a server could work with these settings and this database; change nothing."""
    settings = read_settings(exit_code=_UNHEALTHY)
    configure_logs(level=settings.least_level)

    async def check() -> int | None:
        problems = await modes.problems_of(settings)
        for problem in problems:
            say(problem)
        return _UNHEALTHY if problems else None

    run(check, unavailable=_UNHEALTHY)
    typer.echo("Health check passed")


@app.command()
def migrate() -> None:
    """Bring the database up to date, and stop. `serve` does the same at its start."""
    settings = read_settings()
    configure_logs(level=settings.least_level)
    run(lambda: _migrate(settings))


async def _migrate(settings: Settings) -> None:
    database = await open_database_of(settings)
    await database.close()


def main() -> None:
    app()
