"""References: pointers to results, for the users whom a job names and for those it runs for."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from batchwork_server.domain.batch import Batch, BatchState
from batchwork_server.domain.distribution import DeliveryCounts
from batchwork_server.domain.item import ItemState

NO_RESULTS = "NO_RESULTS"
"""Why nothing was delivered of a batch that ended without being completed."""

_COMPLETED = (BatchState.SUCCEEDED, BatchState.PARTIALLY_SUCCEEDED)


class ReferenceState(StrEnum):
    """Whether a user has the results."""

    PENDING = "PENDING"  # the batch, or the user's own item, is not over
    DELIVERED = "DELIVERED"
    FAILED = "FAILED"  # the user does not exist, or there are no results


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipient:
    """A user who is given a reference.

    Attributes:
        problem: Why nothing can be delivered to them; empty for most.
        is_unknown: Whether they could not be looked up when the batch was made; not stored.
    """

    user_id: str
    problem: str = ""
    is_unknown: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnItem:
    """What became of the item that a run has for a user, alone or together with others.

    Attributes:
        item_id: Empty when the run has nothing to do for the user.
        reason: Why it failed or was skipped; empty otherwise.
    """

    item_id: str
    state: ItemState
    reason: str = ""
    end_time: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Reference:
    """What a user was given: a whole batch, or their own item of it.

    Its state follows from that of the batch or the item: so nothing has to be delivered, and
    nothing can be delivered twice or be lost.

    Attributes:
        item: Of a user for whom a preference-based job ran; None means the whole batch.
    """

    recipient: Recipient
    batch: Batch
    item: OwnItem | None = None

    @property
    def state(self) -> ReferenceState:
        if self.reason:
            return ReferenceState.FAILED
        is_over = self.batch.state.is_final if self.item is None else self.item.state.is_final
        return ReferenceState.DELIVERED if is_over else ReferenceState.PENDING

    @property
    def reason(self) -> str:
        """Why it failed; empty otherwise."""
        if self.recipient.problem:
            return self.recipient.problem
        if self.item is not None:
            return _reason_of(self.item)
        over = self.batch.state.is_final
        return NO_RESULTS if over and self.batch.state not in _COMPLETED else ""

    @property
    def deliver_time(self) -> datetime | None:
        """When the user got it; none unless it is DELIVERED."""
        if self.state is not ReferenceState.DELIVERED:
            return None
        return self.batch.end_time if self.item is None else self.item.end_time


def _reason_of(item: OwnItem) -> str:
    if item.state is ItemState.SUCCEEDED or not item.state.is_final:
        return ""
    return item.reason or str(item.state)


def deliveries_of(batch: Batch, *, served: int) -> DeliveryCounts:
    """Counts what became of the references of a batch that is over.

    Args:
        served: For how many users of a preference-based run their own item succeeded.
    """
    to = batch.request.distribution
    named = to.named - to.invalid if batch.state in _COMPLETED else 0
    own = served if to.own else 0
    users = batch.request.user_validation.total if to.own else 0
    return DeliveryCounts(delivered=named + own, failed=to.named - named + users - own)


@dataclass(frozen=True, slots=True, kw_only=True)
class PlaceInBatch:
    """Where a reference stands among those of its batch: the users whom the job names go first.

    Attributes:
        user_id: Of a user whom the job names.
        place: Of an own item, or of a user of an item for several; None for named users.
    """

    user_id: str = ""
    place: int | None = None

    def __str__(self) -> str:
        return f"named:{self.user_id}" if self.place is None else f"own:{self.place}"

    @classmethod
    def read(cls, text: str) -> PlaceInBatch | None:
        """Reads what ``str`` wrote; returns none of anything else."""
        kind, _, value = text.partition(":")
        if kind == "named":
            return cls(user_id=value)
        if kind == "own" and value.isdecimal() and value.isascii() and len(value) <= _DIGITS:
            return cls(place=int(value))
        return None


_DIGITS = 18  # what fits into a column of the store

LONGEST_PLACE = len("named:") + 128
