"""A place in the one order of the events of all batches."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, order=True)
class FeedPlace:
    """Where an event stands among those of all batches.

    Attributes:
        transaction_number: Of the transaction that wrote; 0 on SQLite, where one at a time does.
    """

    transaction_number: int
    position: int
