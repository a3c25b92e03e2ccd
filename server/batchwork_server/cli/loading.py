"""Loading users and categories from files."""

from __future__ import annotations

import sys
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Annotated, Any

import typer

from batchwork_server.application.loading import Loading, LoadReport, OnError
from batchwork_server.bootstrap.opening import open_database_of
from batchwork_server.cli.modes import DEFAULT_TENANT
from batchwork_server.cli.running import read_settings, run
from batchwork_server.clock import SystemClock
from batchwork_server.logs import configure_logs
from batchwork_server.store.sql_store import SqlStore

load = typer.Typer(help="Load users and categories from CSV or JSONL files.", no_args_is_help=True)

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


def _on_error(skip_broken: bool) -> OnError:
    return OnError.SKIP if skip_broken else OnError.ABORT


def _load(
    file: Path, work: Callable[[Loading], Coroutine[Any, Any, LoadReport]], *, what: str
) -> None:
    settings = read_settings()
    configure_logs(level="warn")

    async def load_file() -> None:
        database = await open_database_of(settings)
        try:
            report = await work(Loading(SqlStore(database), SystemClock()))
        finally:
            await database.close()
        _print(report, file=file, what=what)

    run(load_file)


def _print(report: LoadReport, *, file: Path, what: str) -> None:
    for problem in report.problems:
        print(f"{file}:{problem.line}: {problem.message}", file=sys.stderr)  # noqa: T201
    more = report.skipped - len(report.problems)
    if more > 0:
        print(f"… and {more} more", file=sys.stderr)  # noqa: T201
    typer.echo(f"Loaded {report.loaded} {what} from {file}; {report.skipped} rows were refused.")
    if report.skipped and not report.loaded:
        raise typer.Exit(1)
