"""What watches tell, and after what they go on."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Self

from batchwork_server.domain.batch import Batch, BatchRequest, Counts, UserValidation
from batchwork_server.domain.distribution import DeliveryCounts
from batchwork_server.domain.feed_place import FeedPlace
from batchwork_server.domain.item import Item
from batchwork_server.domain.reference_validation import ReferenceValidation

HEARTBEAT = timedelta(seconds=15)
"""How long a stream is silent before it says that it is alive."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ResumePoint:
    """After which message the watch of a batch goes on.

    Attributes:
        sequence: Of the last event that was shown.
        item_index: When the event's items were not all shown, the last one that was; else -1.
    """

    sequence: int
    item_index: int = -1


@dataclass(frozen=True, slots=True, kw_only=True)
class FeedPoint:
    """After which message a watch of many batches goes on.

    Attributes:
        place: Of the events that were told.
        snapshot_key: While there are snapshots to come: the key of the last batch that had its
            own; else None.
    """

    place: FeedPlace
    snapshot_key: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """One message of a watch; ``kind`` is a name of the contract's ``BatchEventKind``."""

    kind: str
    event_time: datetime
    event_type: str
    sequence: int = 0
    batch_id: str = ""
    tenant_id: str = ""
    batch: Batch | None = None
    counts: Counts | None = None
    item: Item | None = None
    user_validation: UserValidation | None = None
    reference_validation: ReferenceValidation | None = None
    delivery: DeliveryCounts | None = None

    def with_validation(self, request: BatchRequest) -> Self:
        """Returns the message with what the validation of users found."""
        return replace(
            self,
            user_validation=request.user_validation,
            reference_validation=request.reference_validation,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class WatchMessage(Told):
    """One message of the watch of a batch."""

    resume: ResumePoint


@dataclass(frozen=True, slots=True, kw_only=True)
class FeedMessage(Told):
    """One message of a watch of many batches."""

    resume: FeedPoint


SNAPSHOT_TYPE = "batch:snapshot"
HEARTBEAT_TYPE = "watch:heartbeat"
GOING_AWAY_TYPE = "server:going_away"
