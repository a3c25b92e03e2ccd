"""What is made to happen to an item."""

from __future__ import annotations

from enum import StrEnum


class Fate(StrEnum):
    """Travels in the data of an item; the processor ``fated`` obeys it."""

    SUCCEED = "succeed"  # at once
    WAIT = "wait"  # succeeds after 20 ms
    RETRY = "retry"  # fails once, then succeeds
    FAIL = "fail"  # for good
    SKIP = "skip"  # there is nothing to do
