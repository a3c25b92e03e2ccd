"""Batches: their states, their counts, and which changes are legal."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any

from batchwork_server.domain.declared_overrides import DeclaredOverrides
from batchwork_server.domain.distribution import NOBODY, Distribution
from batchwork_server.domain.failure import FailurePolicy
from batchwork_server.domain.reference_validation import NOTHING_FOUND, ReferenceValidation
from batchwork_server.domain.retry import RetryPolicy
from batchwork_server.domain.user import UsersAway, UserVerdict


class BatchState(StrEnum):
    """Where a batch stands."""

    DRAFT = "DRAFT"  # open for upload; nothing runs
    PENDING = "PENDING"  # stored; no item was taken yet
    RUNNING = "RUNNING"  # at least one item was taken
    PAUSED = "PAUSED"  # items in flight finish, no new one starts
    SUCCEEDED = "SUCCEEDED"  # final: no item failed
    PARTIALLY_SUCCEEDED = "PARTIALLY_SUCCEEDED"  # final: some failed, some succeeded
    FAILED = "FAILED"  # final: items failed, none succeeded
    CANCELLING = "CANCELLING"  # it ends early: no new item starts
    CANCELLED = "CANCELLED"  # final
    EXPIRED = "EXPIRED"  # final: its time was over

    @property
    def is_final(self) -> bool:
        return self in FINAL_STATES


FINAL_STATES = frozenset(
    {
        BatchState.SUCCEEDED,
        BatchState.PARTIALLY_SUCCEEDED,
        BatchState.FAILED,
        BatchState.CANCELLED,
        BatchState.EXPIRED,
    }
)


class StateReason(StrEnum):
    """Why a batch is PAUSED or CANCELLING, why it ended early, or that too many items failed."""

    PAUSED_BY_CALLER = "PAUSED_BY_CALLER"
    CANCELLED_BY_CALLER = "CANCELLED_BY_CALLER"
    FAILURE_POLICY = "FAILURE_POLICY"  # too many items failed
    PROVIDER_RATE_LIMITED = "PROVIDER_RATE_LIMITED"  # what the processor calls asks for a delay
    PROVIDER_DOWN = "PROVIDER_DOWN"  # what the processor calls does not answer
    BATCH_TIMEOUT = "BATCH_TIMEOUT"
    DRAFT_TIMEOUT = "DRAFT_TIMEOUT"  # never sealed
    NEWER_RUN = "NEWER_RUN"  # a newer run of its job took its place
    USERS_UNAVAILABLE = "USERS_UNAVAILABLE"  # its users are not validated yet


class Priority(StrEnum):
    """Who goes first when work waits."""

    LOW = "LOW"
    MEDIUM = "MEDIUM"
    HIGH = "HIGH"
    CRITICAL = "CRITICAL"


HANDICAPS: Mapping[Priority, timedelta] = {
    Priority.CRITICAL: timedelta(0),
    Priority.HIGH: timedelta(seconds=60),
    Priority.MEDIUM: timedelta(seconds=300),
    Priority.LOW: timedelta(seconds=900),
}
"""How much later than a critical chunk a chunk counts as due, unless the settings say otherwise;
the longest wait behind work that came later."""

EXPECTED_ITEM_DURATION = timedelta(milliseconds=500)
"""How long an item takes whose template nobody has measured yet."""

EXPECTED_CHUNK_DURATION = timedelta(seconds=1)
"""How long a chunk takes of a batch from before that was worked out for each."""

SHORTEST_CHUNK_DURATION = timedelta(milliseconds=100)
"""The closest that the chunks of one batch stand in the order of dispatch, however fast they are:
what a slow disk or a busy machine adds to them is not measured."""

LONGEST_CHUNK_DURATION = timedelta(hours=1)
"""The farthest that they stand, so that a wrong measurement does not put them off for days."""


def expected_chunk_duration(
    *, chunk_size: int, max_concurrent_items: int, item_duration: timedelta | None, slots: int
) -> timedelta:
    """Returns how long a batch that has the workers to itself takes for one of its chunks.

    Args:
        max_concurrent_items: Of the batch; 0 means no bound of its own.
        item_duration: Of one item; None where nothing is known.
        slots: Items in flight at once on a server.
    """
    usable = min(slots, max_concurrent_items or slots)
    expected = (item_duration or EXPECTED_ITEM_DURATION) * chunk_size / usable
    return min(max(expected, SHORTEST_CHUNK_DURATION), LONGEST_CHUNK_DURATION)


def dispatch_time(
    *,
    due: datetime,
    handicap: timedelta,
    place: int,
    chunk_duration: timedelta = EXPECTED_CHUNK_DURATION,
) -> datetime:
    """Returns the number by which chunks are dispatched, smallest first.

    Computed once and never updated: the due time, plus the handicap of the batch's priority, plus
    a spread by the chunk's place in its batch: as long as those before it are expected to take. It
    ages by itself, and a large batch does not block a small one.
    """
    return due + handicap + chunk_duration * place


@dataclass(frozen=True, slots=True, kw_only=True)
class Counts:
    """The items of a batch by state; all but ``retries`` add up to ``total``."""

    total: int = 0
    pending: int = 0
    running: int = 0
    succeeded: int = 0
    failed: int = 0
    skipped: int = 0
    cancelled: int = 0
    expired: int = 0
    retries: int = 0

    @property
    def done(self) -> int:
        return self.total - self.pending - self.running

    @property
    def progress_ratio(self) -> float:
        return self.done / self.total if self.total else 1.0


def final_state(counts: Counts, *, closing: BatchState | None = None) -> BatchState:
    """Returns the state in which a batch without open items ends.

    Args:
        closing: The state in which a batch that is CANCELLING was to end. A batch whose time was
            over, but whose items in flight turned out to be the last ones, did not expire.
    """
    if closing is not None and (closing is not BatchState.EXPIRED or counts.expired):
        return closing
    if not counts.failed:
        return BatchState.SUCCEEDED
    return BatchState.PARTIALLY_SUCCEEDED if counts.succeeded else BatchState.FAILED


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchOptions:
    """How a batch is processed, with every default filled in.

    Attributes:
        max_concurrent_items: Items of this batch in flight at once; 0 means no bound of its own.
        handicap: Of the priority, as the settings had it when the batch was created.
        chunk_duration: How long a chunk was expected to take when the batch was created.
        batch_timeout: From the creation or sealing to the end; None means no limit.
        failure_policy: None means that every item may fail.
        notification_targets: Who is told when it ends, by the operator's names.
        users_away: What becomes of it when its users cannot be validated.
    """

    chunk_size: int
    item_timeout: timedelta
    retry: RetryPolicy = field(default_factory=RetryPolicy)
    priority: Priority = Priority.MEDIUM
    max_concurrent_items: int = 0
    model: str = ""
    handicap: timedelta = HANDICAPS[Priority.MEDIUM]
    chunk_duration: timedelta = EXPECTED_CHUNK_DURATION
    batch_timeout: timedelta | None = None
    failure_policy: FailurePolicy | None = None
    notification_targets: tuple[str, ...] = ()
    users_away: UsersAway = UsersAway.FAIL


@dataclass(frozen=True, slots=True, kw_only=True)
class Template:
    """How a request is to be processed: a processor and its parameters.

    Attributes:
        operations: The operations that use this template when a request names none.
        feature_types: The features that use this template when a job names none.
        overrides: Those that it knows besides the ones that every template knows; None when it
            does not say, and then none is unknown.
    """

    template_id: str
    processor: str
    parameters: Mapping[str, Any] = field(default_factory=dict)
    description: str = ""
    operations: tuple[str, ...] = ()
    feature_types: tuple[str, ...] = ()
    overrides: DeclaredOverrides | None = None

    def is_default_of(self, *, operation: str, feature_type: str) -> bool:
        """Tells whether this is what processes an operation or a feature that names no template."""
        return (operation != "" and operation in self.operations) or (
            feature_type != "" and feature_type in self.feature_types
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Notice:
    """Something that was accepted but may not be meant. ``Warning`` in the contract."""

    reason: str
    path: str
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class UserValidation:
    """What the validation of users found: items that name a user, valid and not.

    Attributes:
        unknown: Those whose user nobody could be asked about; with the other two the total.
    """

    total: int = 0
    valid: int = 0
    invalid: int = 0
    unknown: int = 0

    @classmethod
    def of(cls, verdicts: Iterable[UserVerdict]) -> UserValidation:
        """Counts the verdict on each item's user."""
        counts = Counter(verdicts)
        valid, unknown = counts[UserVerdict.VALID], counts[UserVerdict.UNKNOWN]
        total = counts.total()
        return cls(total=total, valid=valid, invalid=total - valid - unknown, unknown=unknown)

    def __add__(self, other: UserValidation) -> UserValidation:
        return UserValidation(
            total=self.total + other.total,
            valid=self.valid + other.valid,
            invalid=self.invalid + other.invalid,
            unknown=self.unknown + other.unknown,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchRequest:
    """What a batch is to do; fixed when it is created.

    Attributes:
        template: A copy, so that a batch keeps the template with which it started.
        batch_type: The name in the matrix, such as ``INDIVIDUAL_USERS``.
        filters: JSON values.
        due_time: When it was due, of a run that a schedule or a backfill made.
    """

    template: Template
    options: BatchOptions
    source: str = ""
    operation: str = ""
    display_name: str = ""
    description: str = ""
    job_id: str = ""
    job_revision: int = 0
    purpose_id: str = ""
    feature_type: str = ""
    batch_type: str = "INDIVIDUAL_CATEGORIES"
    categories: tuple[str, ...] = ()
    filters: Mapping[str, Any] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)
    batch_metadata: Mapping[str, Any] = field(default_factory=dict)
    user_validation: UserValidation = UserValidation()
    reference_validation: ReferenceValidation = NOTHING_FOUND
    distribution: Distribution = NOBODY
    notices: tuple[Notice, ...] = ()
    due_time: datetime | None = None

    @property
    def has_validated(self) -> bool:
        """Tells whether there were users to validate."""
        return self.user_validation.total > 0 or self.reference_validation.names_users

    @property
    def is_preference_based(self) -> bool:
        """Tells whether the users wish for its feature."""
        return self.batch_type.startswith("PREFERENCE_")


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """One execution of a job or of a request.

    Attributes:
        key: The store's number for it; never leaves the server.
        sequence: The number of its newest event.
        state_reason: Why it is PAUSED or CANCELLING or ended early, or that too many items failed;
            empty otherwise.
        state_message: More about that, for people.
        closing: Of a batch that is CANCELLING: the state in which it is to end.
        stop_in_flight: Of a batch that is CANCELLING: items in flight are stopped.
        resume_time: When a paused batch resumes by itself.
        expire_time: When its time is over.
        attempt_number: Counts the attempts at the batch from 1.
        upload_offset: How many items were uploaded to the draft, repeated ones included.
        provider_pauses: How often in a row the provider was away, without an item done since.
        failed_before: Failed items that the failure policy does not count any more.
        tried_before: The same of items that failed or succeeded.
    """

    key: int
    batch_id: str
    tenant_id: str
    state: BatchState
    counts: Counts
    request: BatchRequest
    create_time: datetime
    update_time: datetime
    start_time: datetime | None = None
    end_time: datetime | None = None
    sequence: int = 0
    state_reason: str = ""
    state_message: str = ""
    closing: BatchState | None = None
    stop_in_flight: bool = False
    resume_time: datetime | None = None
    expire_time: datetime | None = None
    attempt_number: int = 1
    upload_offset: int = 0
    provider_pauses: int = 0
    failed_before: int = 0
    tried_before: int = 0

    def breaks_failure_policy(self, *, more_failed: int = 0, more_tried: int = 0) -> bool:
        """Tells whether more items failed than may, since the batch began or was resumed.

        Args:
            more_failed: Items that failed for good and are not among the counts yet.
            more_tried: The same of items that failed or succeeded.
        """
        policy = self.request.options.failure_policy
        if policy is None:
            return False
        failed, tried = self._failed_and_tried
        return policy.is_broken(failed=failed + more_failed, tried=tried + more_tried)

    @property
    def failure_message(self) -> str:
        """Says, for people, how many items failed of those that the failure policy counts."""
        failed, tried = self._failed_and_tried
        return f"{failed} of {tried} items failed."

    @property
    def _failed_and_tried(self) -> tuple[int, int]:
        counts = self.counts
        failed = counts.failed - self.failed_before
        return failed, counts.failed + counts.succeeded - self.tried_before
