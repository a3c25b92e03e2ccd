"""Items, and what can become of them."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum


class ItemState(StrEnum):
    """Where an item stands."""

    PENDING = "PENDING"  # waits for an attempt
    RUNNING = "RUNNING"  # taken by a worker
    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"
    SKIPPED = "SKIPPED"  # not attempted, for a reason of its own
    CANCELLED = "CANCELLED"  # not done when its batch was cancelled
    EXPIRED = "EXPIRED"  # not done when the time of its batch was over

    @property
    def is_final(self) -> bool:
        return self not in (ItemState.PENDING, ItemState.RUNNING)


@dataclass(slots=True, kw_only=True)  # not frozen, for the sake of large batches
class NewItem:
    """An item that is about to be stored.

    Attributes:
        item_id: Unique in the batch.
        data_json: JSON text, stored as it came.
        skip_reason: Set when the item is not to be attempted.
    """

    item_id: str
    data_json: str
    user_id: str | None = None
    skip_reason: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ItemUser:
    """A user for whom an item is that is for several users together.

    Attributes:
        item_index: Of the item; None when nothing is to be done for them.
        skip_reason: Why nothing is; empty otherwise.
    """

    user_id: str
    item_index: int | None
    skip_reason: str = ""


@dataclass(slots=True)  # one of these is made for every attempt
class PendingItem:
    """An item that a worker has taken.

    Attributes:
        index: The place in the batch, from 0.
        attempts: How many attempts ended before this one.
        attempts_before: How many of them the retry policy does not count: they belong to an
            earlier attempt at the batch.
        is_new: Nothing is stored of it yet but its input.
    """

    index: int
    item_id: str
    user_id: str | None
    data_json: str
    attempts: int
    attempts_before: int = 0
    is_new: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class ItemError:
    """Why an attempt failed."""

    reason: str
    message: str
    retryable: bool


@dataclass(slots=True)  # one of these is made for every attempt
class Outcome:
    """What one attempt, or the decision not to make one, came to.

    Attributes:
        index: The item's place in its batch.
        state: Final, or PENDING when a retry waits.
        attempts: How many attempts ended, this one included.
        next_attempt_time: When a retry may start; only with PENDING.
        start_micros: When the attempt began, in microseconds since the epoch, as the store keeps
            times: one of these is made for every attempt, and a ``datetime`` costs more than the
            rest of it.
        end_micros: When it ended, or the decision was taken.
        retry_number: Which retry it asks for, from 1; only with PENDING.
        is_new: It is the first of its item; else it takes the place of the one before.
    """

    index: int
    state: ItemState
    attempts: int
    result_json: str | None = None
    error: ItemError | None = None
    skip_reason: str | None = None
    next_attempt_time: datetime | None = None
    start_micros: int | None = None
    end_micros: int | None = None
    quality_score: float | None = None
    retry_number: int = 0
    is_new: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """One attempt that ended; ``error`` is unset when it succeeded."""

    number: int
    start_time: datetime
    duration: timedelta
    error: ItemError | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """A stored item and what became of it."""

    batch_id: str
    index: int
    item_id: str
    user_id: str | None
    data_json: str
    state: ItemState
    attempt_count: int = 0
    result_json: str | None = None
    error: ItemError | None = None
    skip_reason: str | None = None
    next_attempt_time: datetime | None = None
    start_time: datetime | None = None
    end_time: datetime | None = None
    duration: timedelta | None = None
    quality_score: float | None = None
    attempts: tuple[Attempt, ...] = field(default=())
