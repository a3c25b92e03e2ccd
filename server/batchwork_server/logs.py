"""Logs: one JSON line per fact, machine name first, with the correlation id of its call."""

from __future__ import annotations

import asyncio
import atexit
import logging
import sys
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from types import ModuleType
from typing import Any, ClassVar, TextIO, cast

import orjson

# Where rich is installed, structlog imports it, to print for a terminal what we write as JSON.
# That takes 3 MiB; None makes the import fail for as long as structlog tries.
_rich = sys.modules.setdefault("rich", cast("ModuleType", None))
import structlog  # noqa: E402

if _rich is None:
    del sys.modules["rich"]

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
    global _sink
    number = _LEVELS[level.lower()]
    out = stream or sys.stderr
    lines = _sink = _Lines(out, level=number)
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

    def __init__(self, out: TextIO, *, level: int) -> None:
        self._out = out
        self._level = level
        self._waiting: list[str | Mapping[str, Any]] = []
        self._flusher: asyncio.AbstractEventLoop | None = None
        atexit.register(self.flush)

    def fact(self, level: str, fields: Mapping[str, Any]) -> None:
        """Takes a line as its fields, which are written out when it is its turn."""
        if _LEVELS[level] >= self._level:
            self.debug(fields)

    def debug(self, line: str | Mapping[str, Any]) -> None:
        self._waiting.append(line)
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
        self._waiting.append(line)
        self.flush()

    error = critical = exception = warning

    def flush(self) -> None:
        self._flusher = None
        waiting, self._waiting = self._waiting, []
        if waiting and not self._out.closed:
            self._out.write("".join(f"{_text_of(line)}\n" for line in waiting))
            self._out.flush()


_sink: _Lines | None = None


class WaitingLog:
    """Tells that something waits for what is away, without a line for every look.

    There is a warning at the first of several vain looks, when the reason becomes another one, and
    once a minute; and a line when it goes on.

    Args:
        log: Where it is told.
        what: Waits; its events are named after it, such as ``loop.waiting`` and ``loop.resumed``.
        monotonic: Seconds that never run backwards.
        facts: Stand in every line.
    """

    PATIENCE: ClassVar = 60.0  # seconds

    def __init__(
        self,
        log: structlog.stdlib.BoundLogger,
        what: str,
        *,
        monotonic: Callable[[], float],
        **facts: str,
    ) -> None:
        self._log = log
        self._what = what
        self._facts = facts
        self._monotonic = monotonic
        self._reason: str | None = None
        self._since = 0.0
        self._told = 0.0

    def waits(self, reason: str, message: str) -> None:
        """Takes a look that was in vain."""
        now = self._monotonic()
        if self._reason is None:
            self._since = now
        elif reason == self._reason and now - self._told < self.PATIENCE:
            return
        self._reason, self._told = reason, now
        self._log.warning(
            f"{self._what}.waiting",
            **self._facts,
            reason=reason,
            error=message,
            seconds=round(now - self._since, 3),
        )

    def goes_on(self) -> None:
        """Takes a look that was not in vain."""
        if self._reason is not None:
            self._log.info(
                f"{self._what}.resumed",
                **self._facts,
                reason=self._reason,
                seconds=round(self._monotonic() - self._since, 3),
            )
            self._reason = None


def write_fact(level: str, fields: Mapping[str, Any]) -> None:
    """Writes a line that is made of its fields as they are, beginning with its time.

    For the one line that every call writes: it goes around structlog, which takes longer over it
    than the rest of the call's surroundings. Before ``configure_logs`` it goes nowhere.
    """
    if _sink is not None:
        _sink.fact(level, fields)


def flush_logs() -> None:
    """Writes what waits for company."""
    if _sink is not None:
        _sink.flush()


def _text_of(line: str | Mapping[str, Any]) -> str:
    return line if isinstance(line, str) else orjson.dumps(line, option=orjson.OPT_UTC_Z).decode()


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
