"""Logs of tests that look at none: on the console, for whoever reads why a test failed."""

from __future__ import annotations

import structlog


def log_to_console() -> None:
    """Logs as structlog does by itself, but below an exception only its traceback.

    By itself it shows every local variable of every frame as well, where `rich` is installed. That
    takes seconds of the processor for each exception.
    """
    structlog.reset_defaults()
    *others, _console = structlog.get_config()["processors"]
    plain = structlog.dev.ConsoleRenderer(
        colors=False, exception_formatter=structlog.dev.plain_traceback
    )
    structlog.configure(processors=[*others, plain])
