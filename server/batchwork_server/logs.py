"""Logs: one JSON line per fact, machine name first, with the correlation id of its call."""

from __future__ import annotations

import asyncio
import atexit
import logging
import sys
from contextvars import ContextVar
from typing import Any, TextIO, cast

import orjson
import structlog

correlation_id: ContextVar[str] = ContextVar("correlation_id", default="")
"""Names the call that the current task works for; empty outside of calls."""

_LEVELS = {"debug": 10, "info": 20, "warn": 30, "warning": 30, "error": 40}


def get_logger(name: str) -> structlog.stdlib.BoundLogger:
    return cast(
        "structlog.stdlib.BoundLogger",
        structlog.get_logger(module=name.removeprefix("batchwork_server.")),
    )


def configure_logs(*, level: str = "info", stream: TextIO | None = None) -> None:
    """Sends every log, those of libraries too, as JSON lines to ``stream`` (default: stderr)."""
    number = _LEVELS[level.lower()]
    out = stream or sys.stderr
    lines = _Lines(out)
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            _add_correlation_id,
            structlog.processors.TimeStamper(fmt="iso", utc=True, key="timestamp"),
            structlog.processors.format_exc_info,
            _in_reading_order,
            structlog.processors.JSONRenderer(serializer=_dumps),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=lambda *_names: lines,
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(out)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[
                structlog.stdlib.add_log_level,
                structlog.stdlib.add_logger_name,
                structlog.processors.TimeStamper(fmt="iso", utc=True, key="timestamp"),
            ],
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                structlog.processors.format_exc_info,
                _in_reading_order,
                structlog.processors.JSONRenderer(serializer=_dumps),
            ],
        )
    )
    logging.basicConfig(level=max(number, logging.WARNING), handlers=[handler], force=True)


class _Lines:
    """Writes lines; those that only tell what happened may wait a moment for each other.

    A line a call is the most of what a busy server writes, and a system call for each of them
    costs as much as the call itself.
    """

    _DELAY = 0.1  # seconds

    def __init__(self, out: TextIO) -> None:
        self._out = out
        self._waiting: list[str] = []
        self._flusher: asyncio.AbstractEventLoop | None = None
        atexit.register(self.flush)

    def debug(self, line: str) -> None:
        self._waiting.append(line + "\n")
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            self.flush()
            return
        if loop is not self._flusher:  # a loop that was closed before its time flushes nothing
            self._flusher = loop
            loop.call_later(self._DELAY, self.flush)

    info = debug

    def warning(self, line: str) -> None:
        self._waiting.append(line + "\n")
        self.flush()

    error = critical = exception = warning

    def flush(self) -> None:
        self._flusher = None
        waiting, self._waiting = self._waiting, []
        if waiting and not self._out.closed:
            self._out.write("".join(waiting))
            self._out.flush()


def _add_correlation_id(_logger: Any, _method: str, event: Any) -> Any:
    current = correlation_id.get()
    if current:
        event.setdefault("correlation_id", current)
    return event


def _in_reading_order(_logger: Any, _method: str, event: Any) -> Any:
    first = {name: event.pop(name) for name in ("timestamp", "level", "event") if name in event}
    return first | event


def _dumps(value: Any, **_options: Any) -> str:
    return orjson.dumps(value, default=str).decode()
