"""Users, as far as Batchwork knows them."""

from __future__ import annotations

from enum import StrEnum


class UserVerdict(StrEnum):
    """What is known of a user."""

    VALID = "VALID"
    NOT_FOUND = "NOT_FOUND"
    INACTIVE = "INACTIVE"
    WRONG_TENANT = "WRONG_TENANT"  # exists in another tenant only
    MALFORMED = "MALFORMED"
    UNKNOWN = "UNKNOWN"  # the source is away
