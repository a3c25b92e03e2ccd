"""What every command does: read the settings, run to the end, and say what is wrong."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any, NoReturn

import typer

from batchwork_server.config import Settings, load_settings
from batchwork_server.errors import BatchworkError, ConfigurationError
from batchwork_server.logs import configure_logs, get_logger
from batchwork_server.process import run_to_its_end

WRONG_SETTINGS = 2
"""The exit code of what cannot start like this."""

log = get_logger(__name__)


def read_settings(*, exit_code: int = WRONG_SETTINGS) -> Settings:
    """Returns the settings, or ends the process with everything that is wrong with them."""
    try:
        return load_settings()
    except ConfigurationError as error:
        refuse(error, exit_code=exit_code)


def begin(settings: Settings, *, mode: str) -> None:
    """Opens the log with a line that says what runs."""
    configure_logs(level=settings.least_level)
    log.info("process.started", mode=mode, environment=settings.environment)
    if not settings.processing:
        log.warning("processing.disabled", setting="ENABLE_BATCH_PROCESSING")


def run(
    work: Callable[[], Coroutine[Any, Any, int | None]],
    *,
    unavailable: int = WRONG_SETTINGS,
) -> None:
    """Runs a command to its end, and ends the process when it has something to say by that.

    Args:
        work: Returns the exit code; none means 0.
        unavailable: The exit code of an error that is not one of the settings.
    """
    try:
        code = run_to_its_end(work())
    except ConfigurationError as error:
        refuse(error, exit_code=WRONG_SETTINGS)
    except BatchworkError as error:
        refuse(error, exit_code=unavailable)
    if code:
        raise typer.Exit(code)


def refuse(error: BatchworkError, *, exit_code: int) -> NoReturn:
    say(error.message)
    raise typer.Exit(exit_code) from error


def say(problem: str) -> None:
    """Says on stderr what is wrong."""
    typer.echo(f"batchwork-server: {problem}", err=True)
