"""References: pointers to the results of a batch, for the users whom its job names."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from batchwork_server.domain.batch import Batch, BatchState

NO_RESULTS = "NO_RESULTS"
"""Why nothing was delivered of a batch that ended without being completed."""

_COMPLETED = (BatchState.SUCCEEDED, BatchState.PARTIALLY_SUCCEEDED)


class ReferenceState(StrEnum):
    """Whether a user has the results."""

    PENDING = "PENDING"  # the batch is not over
    DELIVERED = "DELIVERED"
    FAILED = "FAILED"  # the user does not exist, or there are no results


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipient:
    """A user whom a job names for its results.

    Attributes:
        problem: Why nothing can be delivered to them; empty for most.
    """

    user_id: str
    problem: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reference:
    """What a user was given.

    It is stored with the batch, and its state follows from that of the batch: so nothing has to be
    delivered, and nothing can be delivered twice or be lost.
    """

    recipient: Recipient
    batch: Batch

    @property
    def state(self) -> ReferenceState:
        if self.reason:
            return ReferenceState.FAILED
        return ReferenceState.DELIVERED if self.batch.state.is_final else ReferenceState.PENDING

    @property
    def reason(self) -> str:
        """Why it failed; empty otherwise."""
        if self.recipient.problem:
            return self.recipient.problem
        over = self.batch.state.is_final
        return NO_RESULTS if over and self.batch.state not in _COMPLETED else ""

    @property
    def deliver_time(self) -> datetime | None:
        """When the user got it; none unless it is DELIVERED."""
        return self.batch.end_time if self.state is ReferenceState.DELIVERED else None
