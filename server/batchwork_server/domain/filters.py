"""Which stored things to list; everything that is set must hold."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from batchwork_server.domain.batch import BatchState
from batchwork_server.domain.item import ItemState
from batchwork_server.domain.job import JobShape
from batchwork_server.domain.notification import NotificationState


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchFilter:
    """Which batches to list; everything that is set must hold.

    Attributes:
        tenant_id: None means all tenants, for operators.
    """

    tenant_id: str | None
    states: tuple[BatchState, ...] = ()
    operation: str = ""
    job_id: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    user_id: str = ""
    feature_type: str = ""
    created_after: datetime | None = None
    created_before: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ItemFilter:
    """Which items of a batch to list; everything that is set must hold."""

    states: tuple[ItemState, ...] = ()
    user_id: str = ""
    error_reason: str = ""
    skip_reason: str = ""
    min_quality_score: float | None = None
    max_quality_score: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryFilter:
    """Which items of a batch to try again; everything that is set must hold.

    Attributes:
        states: Of items that are over and did not succeed.
    """

    states: tuple[ItemState, ...] = (ItemState.FAILED,)
    user_id: str = ""
    error_reason: str = ""
    item_ids: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class PurgeFilter:
    """Which batches that are over to delete; everything that is set must hold.

    Attributes:
        tenant_id: None means all tenants, for the server's own retention.
        ended_until: They were over at this instant.
        states: Final ones.
    """

    tenant_id: str | None
    ended_until: datetime
    states: tuple[BatchState, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ReferenceFilter:
    """Which references to list; everything that is set must hold.

    Attributes:
        tenant_id: None means all tenants, for operators.
    """

    tenant_id: str | None
    user_id: str = ""
    batch_id: str = ""
    job_id: str = ""
    feature_type: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class NotificationFilter:
    """Which notifications to list; everything that is set must hold.

    Attributes:
        tenant_id: None means all tenants, for operators.
        states: Empty means any.
    """

    tenant_id: str | None
    batch_id: str = ""
    states: frozenset[NotificationState] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class JobFilter:
    """Which jobs to list; everything that is set must hold.

    Attributes:
        tenant_id: None means all tenants, for operators.
    """

    tenant_id: str | None
    shape: JobShape | None = None
    feature_type: str = ""
    purpose_id: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class OccurrenceFilter:
    """Which occurrences of a job to list; everything that is set must hold.

    Attributes:
        start: The first due time that counts.
        end: The first due time that does not.
        backfill_id: Empty means whether a backfill queued it or not.
    """

    tenant_id: str
    job_id: str
    start: datetime | None = None
    end: datetime | None = None
    backfill_id: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class PreferenceFilter:
    """Which preferences to list; everything that is set must hold.

    Attributes:
        tenant_id: None means all tenants, for operators.
    """

    tenant_id: str | None
    user_id: str = ""
    feature_type: str = ""
    enabled: bool | None = None
