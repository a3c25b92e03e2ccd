"""Ids: generated as ``bat_{source}_{yyyymmddHHMMSS}_{random}``, or brought by the caller."""

from __future__ import annotations

import re
import secrets
import string
from datetime import datetime

ID_PATTERN = re.compile(r"[A-Za-z0-9_-]{4,63}")
"""What a batch id or a job id looks like, whoever made it."""

_RANDOM_ALPHABET = string.ascii_lowercase + string.digits
_LONGEST_SOURCE = 32


def is_id(value: str) -> bool:
    return ID_PATTERN.fullmatch(value) is not None


def new_batch_id(*, source: str, now: datetime) -> str:
    """Returns a new id; the source, shortened to 32 characters, tells people where it is from."""
    return f"bat_{source[:_LONGEST_SOURCE] or 'api'}_{now:%Y%m%d%H%M%S}_{_random()}"


def new_backfill_id(*, now: datetime) -> str:
    """Returns a new id; one that was made in a later second comes after it in order."""
    return f"bfl_{now:%Y%m%d%H%M%S}_{_random()}"


def new_message_id() -> str:
    """Returns a new id of a message to a target."""
    return f"msg_{_random(24)}"


def _random(length: int = 8) -> str:
    return "".join(secrets.choice(_RANDOM_ALPHABET) for _ in range(length))


def idempotency_key(batch_id: str, item_id: str) -> str:
    """Returns the key that a processor gets with every attempt at the item."""
    return f"{batch_id}/{item_id}"
