"""``batchwork-server``: serve, migrate, load."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

from batchwork_server.application.loading import Loading, LoadReport, OnError
from batchwork_server.bootstrap import serving
from batchwork_server.clock import SystemClock
from batchwork_server.config import Settings, load_settings
from batchwork_server.errors import BatchworkError, ConfigurationError
from batchwork_server.logs import configure_logs
from batchwork_server.process import run_to_its_end
from batchwork_server.store.database import open_database
from batchwork_server.store.sql_store import SqlStore

DEFAULT_TENANT = "default"

app = typer.Typer(
    help="The Batchwork server. It is configured by environment variables; docs/configuration.md "
    "lists them.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
load = typer.Typer(help="Load users and categories from CSV or JSONL files.", no_args_is_help=True)
app.add_typer(load, name="load")

Tenant = Annotated[str, typer.Option("--tenant", help="Whose they are.")]
IdColumn = Annotated[
    str | None,
    typer.Option(help="Which column is the id. [default: the first of id, item_id, user_id]"),
]
SkipBroken = Annotated[
    bool,
    typer.Option(
        "--skip-broken", help="Load what is right and list the rest; else all or nothing."
    ),
]


@app.command()
def serve() -> None:
    """Run the server until SIGTERM or SIGINT; then finish what is in flight, and stop."""
    settings = _settings()
    configure_logs(level=settings.least_level)
    _run(lambda: _serve(settings))


@app.command()
def migrate() -> None:
    """Bring the database up to date, and stop. `serve` does the same at its start."""
    settings = _settings()
    configure_logs(level=settings.least_level)
    _run(lambda: _migrate(settings))


@load.command("users")
def load_users(
    file: Path,
    tenant: Tenant = DEFAULT_TENANT,
    id_column: IdColumn = None,
    skip_broken: SkipBroken = False,
) -> None:
    """Load users: an id each and, if there is such a column, whether they are active."""
    _load(
        file,
        lambda loading: loading.load_users(
            file, tenant_id=tenant, id_column=id_column, on_error=_on_error(skip_broken)
        ),
        what="users",
    )


@load.command("category")
def load_category(
    category: str,
    file: Path,
    tenant: Tenant = DEFAULT_TENANT,
    id_column: IdColumn = None,
    user_column: Annotated[
        str | None,
        typer.Option(help="Which column names the user of an item. [default: user_id, if there]"),
    ] = None,
    skip_broken: SkipBroken = False,
) -> None:
    """Load the items of a category. An item that is there already is replaced."""
    _load(
        file,
        lambda loading: loading.load_category(
            file,
            tenant_id=tenant,
            category=category,
            id_column=id_column,
            user_column=user_column,
            on_error=_on_error(skip_broken),
        ),
        what=f"items of {category!r}",
    )


def main() -> None:
    app()


def _settings() -> Settings:
    try:
        return load_settings()
    except ConfigurationError as error:
        _refuse(error)


def _run(work: Callable[[], Coroutine[Any, Any, None]]) -> None:
    try:
        run_to_its_end(work())
    except BatchworkError as error:
        _refuse(error)


def _refuse(error: BatchworkError) -> NoReturn:
    typer.echo(f"batchwork-server: {error.message}", err=True)
    raise typer.Exit(2) from error


async def _serve(settings: Settings) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    async with serving(settings) as server:
        # The one line for people, and for programs that let the system choose the port.
        print(f"Batchwork listens on port {server.port}.", flush=True)  # noqa: T201
        await stop.wait()


async def _migrate(settings: Settings) -> None:
    database = await open_database(settings.database.get_secret_value())
    await database.close()


def _on_error(skip_broken: bool) -> OnError:
    return OnError.SKIP if skip_broken else OnError.ABORT


def _load(
    file: Path, work: Callable[[Loading], Coroutine[Any, Any, LoadReport]], *, what: str
) -> None:
    settings = _settings()
    configure_logs(level="warn")

    async def run() -> None:
        database = await open_database(settings.database.get_secret_value())
        try:
            report = await work(Loading(SqlStore(database), SystemClock()))
        finally:
            await database.close()
        _print(report, file=file, what=what)

    _run(run)


def _print(report: LoadReport, *, file: Path, what: str) -> None:
    for problem in report.problems:
        print(f"{file}:{problem.line}: {problem.message}", file=sys.stderr)  # noqa: T201
    more = report.skipped - len(report.problems)
    if more > 0:
        print(f"… and {more} more", file=sys.stderr)  # noqa: T201
    typer.echo(f"Loaded {report.loaded} {what} from {file}; {report.skipped} rows were refused.")
    if report.skipped and not report.loaded:
        raise typer.Exit(1)
