"""Durations as the requirement documents write them, which is Go's notation: ``5m30s``."""

from __future__ import annotations

import re
from datetime import timedelta

_SECONDS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "μs": 1e-6, "ms": 1e-3, "s": 1, "m": 60, "h": 3600}
"""Of each unit; Go knows the micro sign and the Greek letter."""

_PART = re.compile(r"(\d+(?:\.\d*)?|\.\d+)(ns|us|µs|μs|ms|s|m|h)", re.ASCII)
_LONGEST_TEXT = 64


def parse_duration(text: str) -> timedelta | None:
    """Reads a bare number of seconds, or numbers with units such as ``1h30m`` and ``250ms``.

    Returns:
        None when the text is neither. A duration is never negative.
    """
    if len(text) > _LONGEST_TEXT:
        return None
    text = text.strip()
    try:
        if re.fullmatch(r"\d+(\.\d*)?|\.\d+", text, re.ASCII):
            return timedelta(seconds=float(text))
        parts = _PART.findall(text)
        if not parts or "".join(number + unit for number, unit in parts) != text:
            return None
        return timedelta(seconds=sum(float(number) * _SECONDS[unit] for number, unit in parts))
    except OverflowError:
        return None


def render_duration(duration: timedelta) -> str:
    """Writes a duration, to the millisecond: ``250ms``, ``1.5s``, ``5m30s``, ``1h0m0s``."""
    milliseconds = max(0, round(duration / timedelta(milliseconds=1)))
    if milliseconds < 1000:
        return f"{milliseconds}ms" if milliseconds else "0s"
    minutes, milliseconds = divmod(milliseconds, 60_000)
    seconds = f"{milliseconds / 1000:g}s"
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours}h{minutes}m{seconds}"
    return f"{minutes}m{seconds}" if minutes else seconds
