"""The header with which a server says when to ask again."""

from __future__ import annotations

from datetime import UTC, timedelta
from email.utils import parsedate_to_datetime

from batchwork_server.clock import Clock


def retry_after(value: str, clock: Clock) -> timedelta | None:
    """Reads a number of seconds, or a date; anything else says nothing."""
    if value.isascii() and value.isdigit() and len(value) < 10:
        return timedelta(seconds=int(value))
    try:
        moment = parsedate_to_datetime(value)
    except ValueError:
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return max(timedelta(0), moment - clock.now())
