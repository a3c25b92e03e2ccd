"""The whole conversation with the database, as Protocols.

Methods that write take the transaction in which they write; the caller decides what belongs
together. Methods that read open a connection of their own. Every method that a caller can reach
takes the tenant.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Protocol

from batchwork_server.domain.batch import (
    Batch,
    BatchRequest,
    BatchState,
    Counts,
    StateReason,
    UserValidation,
)
from batchwork_server.domain.config_source import SourcePlace
from batchwork_server.domain.feed_place import FeedPlace
from batchwork_server.domain.filters import (
    BatchFilter,
    ItemFilter,
    JobFilter,
    OccurrenceFilter,
    PreferenceFilter,
    PurgeFilter,
    ReferenceFilter,
    RetryFilter,
)
from batchwork_server.domain.firing import Decided, NextRun, Occurrence
from batchwork_server.domain.group_schedules import (
    Filling,
    GroupSchedule,
    UserRun,
)
from batchwork_server.domain.item import Item, ItemState, NewItem, Outcome, PendingItem
from batchwork_server.domain.job import StoredJob
from batchwork_server.domain.preference import DefaultPreference, Preference
from batchwork_server.domain.preference_groups import PreferenceChange, PreferenceGroup
from batchwork_server.domain.reference import Recipient, Reference
from batchwork_server.domain.schedule import Schedule
from batchwork_server.domain.selection import SelectedItem
from batchwork_server.domain.statistics import BatchesAlike, StatisticsGroup
from batchwork_server.domain.waiting import OpenWork


@dataclass(frozen=True, slots=True, kw_only=True)
class Transaction:
    """A write transaction that is open.

    Attributes:
        connection: The store's business; everybody else only hands it on.
    """

    connection: Any


@dataclass(frozen=True, slots=True, kw_only=True)
class NewChunk:
    """A range of items that is dispatched and committed together."""

    first_index: int
    item_count: int
    due_time: datetime
    dispatch_time: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class UploadPage:
    """Items that one transaction adds to a draft.

    Attributes:
        items: Those that are new.
        next_offset: From where the upload goes on, items that were there already included.
        user_validation: What was found of the users of ``items``.
    """

    items: Sequence[NewItem]
    chunks: Sequence[NewChunk]
    next_offset: int
    user_validation: UserValidation


@dataclass(slots=True, kw_only=True)
class ClaimedChunk:
    """A chunk that this worker has taken, until its lease is over.

    Attributes:
        epoch: Proves the claim; a write with an older one is refused.
        items: Those that are due.
        waiting_time: When the first of those that are not due is due.
        crashes: How many claims before this one ended by neither record nor release.
        suspect_index: The item that was in hand, alone, at the last of them.
    """

    chunk_key: int
    epoch: int
    batch_key: int
    items: list[PendingItem]
    waiting_time: datetime | None = None
    crashes: int = 0
    suspect_index: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Claimed:
    """What became of a call of ``claim``.

    Attributes:
        batches: The batch of each chunk, by its key, as it is now.
    """

    chunks: Sequence[ClaimedChunk]
    batches: Mapping[int, Batch]


@dataclass(slots=True, kw_only=True)
class ChunkRecord:
    """What a worker has to say of a chunk that it holds.

    Attributes:
        outcomes: Of items that this claim took and that were not recorded before. One that is
            PENDING waits for a retry, and its failed attempt is kept.
        done: Nothing is left of the chunk.
        release: Items are left: the chunk is open again, due at ``due_time``. With neither, the
            worker goes on with the chunk.
        returned: Items that were taken and are given back without an attempt.
    """

    chunk_key: int
    epoch: int
    batch_key: int
    outcomes: list[Outcome] = field(default_factory=list)
    done: bool = False
    release: bool = False
    returned: int = 0
    due_time: datetime | None = None
    dispatch_time: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Recorded:
    """What became of a call of ``record``.

    Attributes:
        lost: Chunks that somebody else has by now; nothing of theirs was written.
        batches: Each batch that was written, by its key, as it is now.
    """

    lost: frozenset[int]
    batches: Mapping[int, Batch]


@dataclass(frozen=True, slots=True, kw_only=True)
class Extended:
    """What became of a call of ``extend``.

    Attributes:
        held: The chunks that the worker still has.
        batches: Those of their batches that were stopped meanwhile, by their keys.
    """

    held: frozenset[int]
    batches: Mapping[int, Batch]


@dataclass(frozen=True, slots=True, kw_only=True)
class Reopened:
    """What was taken back: how many chunks, and of which batches."""

    chunk_count: int
    batches: Mapping[int, Batch]


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """A fact about a batch.

    Attributes:
        kind: ``STATE_CHANGED``, ``PROGRESS`` or ``VALIDATION``.
        counts: After the fact.
        state: After the fact.
        finished: Ranges of items that reached their final state with it, first and last.
        reopened: Ranges of items that are open again with it.
        state_reason: Of the batch, after the fact.
    """

    sequence: int
    kind: str
    event_type: str
    event_time: datetime
    state: BatchState
    counts: Counts
    finished: tuple[tuple[int, int], ...] = ()
    reopened: tuple[tuple[int, int], ...] = ()
    state_reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class UnreadEvent:
    """An event of any batch, whose content nobody has looked at yet.

    Attributes:
        is_settled: No event can come before it any more.
        is_early: The one before it in its batch has a later place, because their transactions
            overlapped.
        is_cut_off: The one before it in its batch is not kept any more.
        content: The store's business; ``EventStore.read`` makes an event of it.
    """

    place: FeedPlace
    batch_key: int
    sequence: int
    is_settled: bool
    is_early: bool
    is_cut_off: bool
    content: tuple[Any, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class OverBatches:
    """Batches that are over and that a purge would delete, counted.

    Attributes:
        batch_ids: Of the oldest of them.
    """

    batch_count: int
    item_count: int
    batch_ids: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class DeletedBatch:
    """A batch that was deleted just now.

    Attributes:
        place: Where it stood among the batches that are over, oldest first.
    """

    batch_id: str
    item_count: int
    place: tuple[datetime, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class RemovedRows:
    """What one call of ``remove_some`` removed.

    Attributes:
        batch_count: Batches of which nothing is left.
    """

    row_count: int
    batch_count: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ForgottenEvents:
    """What one call of ``forget_events`` removed.

    Attributes:
        reached: Nothing is left to be forgotten of batches that ended before it.
    """

    row_count: int
    reached: datetime


class BatchStore(Protocol):
    """Batches and their items, from the callers' side."""

    async def insert(
        self,
        tx: Transaction,
        *,
        tenant_id: str,
        batch_id: str,
        request: BatchRequest,
        items: Sequence[NewItem],
        chunks: Sequence[NewChunk],
        now: datetime,
        expire_time: datetime | None = None,
        is_draft: bool = False,
    ) -> Batch:
        """Stores a batch with its items, its chunks and its first event.

        Nothing of a draft is handed out.

        Raises:
            AlreadyExists: the tenant has a batch with this id.
        """
        ...

    async def get(self, batch_id: str, *, tenant_id: str | None) -> Batch | None:
        """Returns a batch; without a tenant, of any tenant."""
        ...

    async def get_by_key(self, batch_key: int) -> Batch | None: ...

    async def list(
        self, matching: BatchFilter, *, page_size: int, after: int | None, skip: int = 0
    ) -> tuple[Sequence[Batch], int | None]:
        """Returns a page, newest first, and where the next one starts."""
        ...

    async def open_work(self, batch_key: int, *, now: datetime) -> OpenWork:
        """Returns what of a batch no worker has."""
        ...

    async def get_item(self, batch: Batch, item_id: str) -> Item | None:
        """Returns an item with its attempts."""
        ...

    async def list_items(
        self, batch: Batch, matching: ItemFilter, *, page_size: int, after: int | None
    ) -> tuple[Sequence[Item], int | None]:
        """Returns a page in the order of the batch, and where the next one starts.

        A page ends early when it holds about 3 MiB.
        """
        ...

    async def events(self, batch_key: int, *, after: int, limit: int) -> Sequence[Event]:
        """Returns the events after a sequence, in order."""
        ...

    async def finished_items(
        self, batch: Batch, ranges: Sequence[tuple[int, int]], *, only_failed: bool
    ) -> Sequence[Item]:
        """Returns the items of an event's ranges that are final, without their data."""
        ...


class EventStore(Protocol):
    """The events of all batches, in one order."""

    async def newest(self) -> FeedPlace:
        """Returns a place after every event that could be read before now.

        What is written from now on comes after it.
        """
        ...

    async def after(self, place: FeedPlace, *, limit: int) -> Sequence[UnreadEvent]:
        """Returns the events after a place, in order; those that are settled come first.

        No event comes before a settled one any more, so it is safe to go on after it. Before one
        that is not settled, another one can still be committed.
        """
        ...

    async def of_batch(self, batch_key: int, *, after: int, limit: int) -> Sequence[UnreadEvent]:
        """Returns the events of one batch after a sequence, in order."""
        ...

    def read(self, unread: UnreadEvent) -> Event:
        """Returns the event with what it tells."""
        ...


class ChunkStore(Protocol):
    """The ledger of dispatch, from the workers' side. It is the only way to an outcome."""

    async def next_chunks(self, *, now: datetime, limit: int) -> list[tuple[int, int]]:
        """Returns open chunks that are due, in the order of dispatch: key and number of items."""
        ...

    async def next_due_time(self, *, after: datetime) -> datetime | None:
        """Returns when the next open chunk that waits is due."""
        ...

    async def claim(
        self, chunk_keys: Sequence[int], *, owner: str, now: datetime, lease: timedelta
    ) -> Claimed:
        """Takes the chunks that are still open, for ``owner``, until ``lease`` is over.

        One transaction: epochs, counts, and the batch's step to RUNNING. A chunk that somebody
        else has is left out.
        """
        ...

    async def record(self, records: Sequence[ChunkRecord], *, now: datetime) -> Recorded:
        """Writes outcomes, counts, events and the end of batches in one transaction.

        Each record is guarded by its epoch: when somebody else has the chunk, nothing of it is
        written.
        """
        ...

    async def extend(
        self, chunk_keys: Sequence[int], *, owner: str, now: datetime, lease: timedelta
    ) -> Extended:
        """Extends the leases that ``owner`` still has, and tells which batches were stopped."""
        ...

    async def mark_suspect(self, chunk_key: int, *, epoch: int, item_index: int | None) -> bool:
        """Says which item of a chunk is in hand, alone; false when the chunk is lost."""
        ...

    async def reopen_expired(self, *, now: datetime) -> Reopened:
        """Opens the chunks whose lease is over, by the clock of the database if it has one."""
        ...

    async def reopen_all(self, *, now: datetime) -> Reopened:
        """Opens every chunk that is taken: right after the start of the only process here."""
        ...

    async def reopen_unknown(self, known: Iterable[int], *, owner: str, now: datetime) -> Reopened:
        """Opens the chunks that are taken for ``owner`` without its knowing it.

        That is so after a claim whose commit was done and whose answer was lost.
        """
        ...

    async def check_counts(self, batch_key: int) -> tuple[Counts, Counts]:
        """Returns the counts of a batch as they are kept and as its rows say; always equal."""
        ...


class ChangeStore(Protocol):
    """Changes of the state of batches. Each is one conditional statement.

    Those that return a batch return none when its state did not allow the change.
    """

    async def lock(self, tx: Transaction, batch_id: str, *, tenant_id: str) -> Batch | None:
        """Returns a batch, whose state nobody else changes until the transaction ends."""
        ...

    async def open_runs(self, tx: Transaction, job_id: str, *, tenant_id: str) -> Sequence[Batch]:
        """Returns the runs of a job that go on, the oldest first."""
        ...

    async def pause(
        self,
        tx: Transaction,
        batch_key: int,
        *,
        reason: StateReason,
        message: str,
        resume_time: datetime | None,
        now: datetime,
    ) -> Batch | None:
        """Keeps the batch's chunks from being claimed, until ``resume_time`` or a resume."""
        ...

    async def stay_paused(
        self,
        tx: Transaction,
        batch_key: int,
        *,
        reason: StateReason,
        message: str,
        now: datetime,
    ) -> Batch | None:
        """Keeps a batch paused that would have resumed by itself."""
        ...

    async def resume(
        self, tx: Transaction, batch_key: int, *, now: datetime, only_if_due: bool = False
    ) -> Batch | None:
        """Goes on with a paused batch.

        Args:
            only_if_due: Only when its ``resume_time`` has come.
        """
        ...

    async def close(
        self,
        tx: Transaction,
        batch_key: int,
        *,
        closing: BatchState,
        reason: StateReason,
        message: str,
        stop_in_flight: bool,
        now: datetime,
    ) -> Batch | None:
        """Puts a batch into CANCELLING, on its way to ``closing``.

        One that has nothing open is over at once.
        """
        ...

    async def stop_in_flight(
        self, tx: Transaction, batch_key: int, *, now: datetime
    ) -> Batch | None:
        """Has the items in flight stopped of a batch that is being cancelled already."""
        ...

    async def seal(self, tx: Transaction, batch: Batch, *, now: datetime) -> Batch | None:
        """Starts a draft; one that has nothing to do is over at once."""
        ...

    async def reopen(
        self, tx: Transaction, batch: Batch, matching: RetryFilter, *, now: datetime
    ) -> tuple[Batch | None, int]:
        """Opens items of a batch that is over as a new attempt at it, and counts them."""
        ...

    async def close_some(self, *, now: datetime) -> Batch | None:
        """Closes some thousands of the items of one batch that is being cancelled.

        Returns:
            The batch after it; none when nothing is left that nobody else is closing.
        """
        ...

    async def due(self, *, now: datetime, limit: int) -> Sequence[Batch]:
        """Returns batches whose ``resume_time`` or ``expire_time`` has come."""
        ...

    async def next_due_time(self) -> datetime | None:
        """Returns the next ``resume_time`` or ``expire_time``."""
        ...


class RetentionStore(Protocol):
    """The end of what is kept.

    A batch that is deleted is marked so in one statement; from then on no other method of the
    store returns it, and its id is free. Its rows are removed little by little after that, so a
    crash in between costs nothing: whoever comes next goes on.

    Events are forgotten batch by batch, never by their positions, and only of batches that are
    over: of one batch the oldest first, and the newest one stays as long as the batch. So each
    batch has its last ``STATE_CHANGED``, and whoever asks for what is missing before it sees that
    from the gap in the sequence. Of a batch that was deleted nothing is left, not even that.
    """

    async def delete(self, tx: Transaction, batch_key: int) -> bool:
        """Deletes a batch that is over; false when it is not, or is deleted already."""
        ...

    async def lock_purges(self, tx: Transaction, *, tenant_id: str) -> None:
        """Keeps everybody else from purging for the tenant until the transaction ends."""
        ...

    async def delete_some(
        self,
        tx: Transaction,
        matching: PurgeFilter,
        *,
        limit: int,
        after: tuple[datetime, int] | None = None,
    ) -> Sequence[DeletedBatch]:
        """Deletes the oldest of the batches that match, behind a place; none when none is left."""
        ...

    async def count_over(self, matching: PurgeFilter, *, sample_size: int) -> OverBatches:
        """Counts the batches that match, and deletes nothing."""
        ...

    async def remove_some(self, *, limit: int) -> RemovedRows:
        """Removes about ``limit`` rows of deleted batches in one transaction.

        Two at a time take different batches.

        Returns:
            Zeros when nothing is left.
        """
        ...

    async def forget_events(
        self, *, ended_from: datetime | None, ended_until: datetime, limit: int
    ) -> ForgottenEvents:
        """Removes about ``limit`` events of batches that ended in between, in one transaction.

        The newest event of each batch stays.

        Args:
            ended_from: What a call before has ``reached``.

        Returns:
            With ``ended_until`` reached when nothing is left.
        """
        ...


class UploadStore(Protocol):
    """Drafts, which take items page by page. The caller holds the batch's ``lock``."""

    async def present(
        self, tx: Transaction, batch_key: int, item_ids: Sequence[str]
    ) -> Mapping[str, SelectedItem]:
        """Returns those of the items that are there, by id."""
        ...

    async def append(
        self, tx: Transaction, batch: Batch, page: UploadPage, *, now: datetime
    ) -> Batch | None:
        """Stores a page with its chunks, counts and event; nothing of it is handed out.

        Returns:
            The batch after it; none when it is no draft any more, or its upload went on.
        """
        ...


class ResultStore(Protocol):
    """Finished items by their places. Nothing here returns more than it was asked for."""

    async def first_sequence(self, batch_key: int) -> int | None:
        """Returns the number of the oldest event that is kept."""
        ...

    async def retries(self, batch_key: int) -> Sequence[Event]:
        """Returns the events that are kept and opened items again, in order."""
        ...

    async def weights(
        self,
        batch_key: int,
        indexes: Sequence[int],
        *,
        states: Collection[ItemState],
        with_data: bool,
    ) -> dict[int, int]:
        """Returns how many bytes of text each of the items has, by its place.

        Left out are items that are not final, or in none of the ``states`` when there are any.
        """
        ...

    async def items(
        self, batch: Batch, indexes: Sequence[int], *, with_data: bool
    ) -> Sequence[Item]:
        """Returns those of the items that are final, in the order of the batch."""
        ...

    async def final_indexes(
        self, batch_key: int, *, after: int, states: Collection[ItemState], limit: int
    ) -> Sequence[int]:
        """Returns the places of final items after a place, in the order of the batch."""
        ...


class StatisticsStore(Protocol):
    """Batches in numbers."""

    async def count(
        self, matching: BatchFilter, *, group_by: StatisticsGroup | None
    ) -> list[BatchesAlike]:
        """Counts the batches that match and their items, by group, state and operation.

        With a user in the filter only that user's items are counted, those that are not done as
        pending.

        Args:
            group_by: None puts them all into one group without a name.
        """
        ...


class ReferenceStore(Protocol):
    """Who is given a reference to the results of a batch."""

    async def add(self, tx: Transaction, batch: Batch, recipients: Sequence[Recipient]) -> None:
        """Stores who is to have the results of a batch that the transaction has made."""
        ...

    async def list(
        self, matching: ReferenceFilter, *, page_size: int, after: tuple[str, int] | None
    ) -> tuple[list[Reference], tuple[str, int] | None]:
        """Returns a page by newest batch and user, and where the next one starts."""
        ...


class RequestStore(Protocol):
    """The first answer to each request id."""

    async def find(
        self, *, tenant_id: str, method: str, request_id: str, request_hash: str
    ) -> dict[str, Any] | None:
        """Returns the first answer, or none; for a look before costly work.

        Raises:
            RequestIdReused: the id was used with other content.
        """
        ...

    async def replay(
        self,
        tx: Transaction,
        *,
        tenant_id: str,
        method: str,
        request_id: str,
        request_hash: str,
        now: datetime,
    ) -> dict[str, Any] | None:
        """Returns the first answer, or none when this is the first request with this id.

        Of requests at the same time, one gets none; the others wait for its transaction.

        Raises:
            RequestIdReused: the id was used with other content.
        """
        ...

    async def remember(
        self,
        tx: Transaction,
        *,
        tenant_id: str,
        method: str,
        request_id: str,
        answer: Mapping[str, Any],
    ) -> None:
        """Keeps the answer to the request that ``replay`` let through."""
        ...

    async def forget(self, *, before: datetime) -> int:
        """Removes answers that are older, and returns how many there were."""
        ...


class Store(Protocol):
    """Everything that is kept."""

    @property
    def batches(self) -> BatchStore: ...
    @property
    def events(self) -> EventStore: ...
    @property
    def chunks(self) -> ChunkStore: ...
    @property
    def changes(self) -> ChangeStore: ...
    @property
    def retention(self) -> RetentionStore: ...
    @property
    def uploads(self) -> UploadStore: ...
    @property
    def results(self) -> ResultStore: ...
    @property
    def statistics(self) -> StatisticsStore: ...
    @property
    def references(self) -> ReferenceStore: ...
    @property
    def requests(self) -> RequestStore: ...
    @property
    def jobs(self) -> JobStore: ...
    @property
    def occurrences(self) -> OccurrenceStore: ...
    @property
    def preferences(self) -> PreferenceStore: ...
    @property
    def preference_groups(self) -> PreferenceGroupStore: ...
    @property
    def preference_changes(self) -> PreferenceChangeStore: ...
    @property
    def config_sources(self) -> ConfigSourceStore: ...
    @property
    def group_schedules(self) -> GroupScheduleStore: ...
    @property
    def group_runs(self) -> GroupRunStore: ...
    @property
    def group_members(self) -> GroupMemberStore: ...

    def transaction(self) -> AbstractAsyncContextManager[Transaction]:
        """Opens a write transaction; it commits when the block ends well.

        Raises:
            StoreUnavailable: the database is away, locked or full; nothing was changed.
        """
        ...

    def refuse_when_full(self) -> None:
        """Refuses when what is left of the disk is for the work that was accepted before.

        Raises:
            StorageFull: so it is.
        """
        ...

    def ballast_dropped(self) -> AbstractAsyncContextManager[None]:
        """Gives the block the space that was kept in reserve, and takes it back afterwards."""
        ...


class JobStore(Protocol):
    """The jobs of tenants."""

    async def lock(
        self, tx: Transaction, job_ids: Sequence[str], *, tenant_id: str
    ) -> dict[str, StoredJob]:
        """Returns those of the jobs that exist, by id.

        Nobody else stores a job of the tenant until the transaction ends.
        """
        ...

    async def put(self, tx: Transaction, stored_jobs: Sequence[StoredJob]) -> None:
        """Stores jobs, in place of those with the same ids. The caller holds the ``lock``."""
        ...

    async def schedule(
        self, tx: Transaction, next_runs: Mapping[str, NextRun | None], *, tenant_id: str
    ) -> None:
        """Says when jobs run next, by their ids; none means never."""
        ...

    async def set_pause(self, tx: Transaction, job: StoredJob) -> None:
        """Stores since when a job is paused and why, and nothing else of it."""
        ...

    async def delete(self, tx: Transaction, job_ids: Sequence[str], *, tenant_id: str) -> None:
        """Removes jobs; their batches stay. The caller holds the ``lock``."""
        ...

    async def owned_by(
        self, source: str, *, tenant_id: str, tx: Transaction | None = None
    ) -> dict[str, int]:
        """Returns the revisions of the jobs that belong to a source, by id, in their order.

        With a transaction that holds the ``lock`` it is so until the transaction ends.
        """
        ...

    async def get(self, job_id: str, *, tenant_id: str | None) -> StoredJob | None:
        """Returns a job; without a tenant, of any tenant."""
        ...

    async def get_many(self, job_ids: Sequence[str], *, tenant_id: str) -> dict[str, StoredJob]:
        """Returns those of the jobs that exist, by id."""
        ...

    async def next_to_run(
        self, *, tenant_id: str, limit: int, after: tuple[datetime, str] | None
    ) -> tuple[list[StoredJob], tuple[datetime, str] | None]:
        """Returns jobs that have a next run by its due time and their id.

        None of the jobs that follow is due before the time in the place where they start.
        """
        ...

    async def list(
        self, wanted: JobFilter, *, page_size: int, after: tuple[str, str] | None
    ) -> tuple[list[StoredJob], tuple[str, str] | None]:
        """Returns a page by tenant and id, and where the next one starts.

        A page ends early when it holds about 3 MiB.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class DueJob:
    """A job whose next run is to begin.

    Attributes:
        is_running: Whether another run of it still goes on.
        is_waiting: Whether a due time of its schedule is queued.
    """

    job: StoredJob
    next_run: NextRun
    is_running: bool
    is_waiting: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class QueuedJob:
    """A due time that was queued and whose batch can begin.

    Attributes:
        is_parallel: It begins beside other runs of the job.
    """

    job: StoredJob
    occurrence: Occurrence
    is_parallel: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class QueuedDueTimes:
    """Due times of a job that a backfill wants.

    Attributes:
        is_parallel: They begin beside other runs of the job.
    """

    due_times: Sequence[datetime]
    backfill_id: str
    is_parallel: bool


class OccurrenceStore(Protocol):
    """Jobs that are due, and what was decided about their due times."""

    async def due(self, *, now: datetime, limit: int) -> list[DueJob]:
        """Returns jobs of every tenant whose next run is to begin, the longest due first."""
        ...

    async def next_start_time(self, *, after: datetime) -> datetime | None:
        """Returns when the first run of any tenant begins that begins after a moment."""
        ...

    async def unscheduled(
        self, *, limit: int, after: tuple[str, str] | None
    ) -> tuple[list[StoredJob], tuple[str, str] | None]:
        """Returns a page of the jobs without a next run, and where the next page starts."""
        ...

    async def schedule_first(self, tx: Transaction, job: StoredJob, next_run: NextRun) -> None:
        """Says when a job runs next that has no next run, unless it has changed meanwhile."""
        ...

    async def move(self, tx: Transaction, due: DueJob, next_run: NextRun | None) -> bool:
        """Says when a job runs next after the run that was due.

        Returns:
            False, and nothing was written, when the job is not as it was read: somebody else
            decided, or it was changed or deleted.
        """
        ...

    async def record(
        self, tx: Transaction, due: DueJob, decided: Sequence[Decided], *, now: datetime
    ) -> int:
        """Writes down what was decided; due times that somebody decided on before stay as they are.

        Returns:
            How many due times are written down by this call.
        """
        ...

    async def queued(self, *, limit: int) -> list[QueuedJob]:
        """Returns what can begin of what was queued, of every tenant, the longest due first.

        Of each job that is the first that waits, when no run of the job goes on, and the first
        that begins beside others. Of a paused job only what belongs to a backfill begins.
        """
        ...

    async def hold(self, tx: Transaction, job_id: str, *, tenant_id: str) -> StoredJob | None:
        """Keeps everybody else from deciding about a job until the transaction ends.

        Returns:
            The job as it is then; none when there is none any more.
        """
        ...

    async def settle(
        self, tx: Transaction, waiting: Occurrence, decided: Decided, *, now: datetime
    ) -> bool:
        """Writes down what became of a due time that was queued.

        Returns:
            False, and nothing was written, when it does not wait any more.
        """
        ...

    async def queue(
        self, tx: Transaction, job: StoredJob, wanted: QueuedDueTimes, *, now: datetime
    ) -> frozenset[datetime]:
        """Queues due times for a backfill. The caller holds the job.

        Returns:
            Those that wait for it now: not those that have a batch, or waited before.
        """
        ...

    async def of_due_times(
        self, job: StoredJob, due_times: Sequence[datetime], *, tx: Transaction | None = None
    ) -> Mapping[datetime, Occurrence]:
        """Returns what is kept about due times of a job."""
        ...

    async def cancel_backfill(
        self, tx: Transaction, backfill_id: str, *, tenant_id: str, now: datetime
    ) -> int | None:
        """Skips what waits of a backfill, and counts it; none when there is no such backfill."""
        ...

    async def drop_queued(
        self, tx: Transaction, job_ids: Sequence[str], *, tenant_id: str, now: datetime
    ) -> None:
        """Skips what waits of jobs that are deleted."""
        ...

    async def list(
        self, wanted: OccurrenceFilter, *, page_size: int, before: datetime | None
    ) -> tuple[list[Occurrence], datetime | None]:
        """Returns a page of occurrences of a job, newest first, and before what the next one is."""
        ...

    async def forget(self, *, before: datetime, limit: int) -> int:
        """Removes the oldest occurrences that were decided before; tells how many.

        What waits is kept.
        """
        ...


PreferenceKey = tuple[str, str]
"""The feature and the user of a preference."""


class PreferenceStore(Protocol):
    """What the users of tenants wish for features, and the tenants for those who say nothing.

    A write costs the same however many preferences there are, and moves users between groups.
    """

    async def lock(
        self, tx: Transaction, keys: Collection[PreferenceKey], *, tenant_id: str
    ) -> dict[PreferenceKey, Preference]:
        """Returns those of the preferences that exist.

        Nobody else changes a preference or default of the tenant until the transaction ends.
        """
        ...

    async def of_users(
        self, user_ids: Collection[str], *, tenant_id: str
    ) -> dict[PreferenceKey, Preference]:
        """Returns all preferences of the users."""
        ...

    async def lock_users(
        self, tx: Transaction, user_ids: Collection[str], *, tenant_id: str
    ) -> dict[PreferenceKey, Preference]:
        """Returns all preferences of the users like ``of_users``, and locks like ``lock``."""
        ...

    async def put(
        self, tx: Transaction, stored: Sequence[Preference], *, tenant_id: str, now: datetime
    ) -> list[PreferenceChange]:
        """Stores preferences, in place of those before; no two of them have the same key.

        The caller holds the ``lock``. Thousands of them take few statements.

        Returns:
            What became of each, in the same order.
        """
        ...

    async def delete(
        self, tx: Transaction, stored: Sequence[Preference], *, tenant_id: str, now: datetime
    ) -> list[PreferenceChange]:
        """Removes preferences that ``lock`` returned; their users leave their groups."""
        ...

    async def get(
        self, *, user_id: str, feature_type: str, tenant_id: str
    ) -> Preference | None: ...

    async def is_disabled(self, *, user_id: str, feature_type: str, tenant_id: str) -> bool:
        """Tells whether the user does not want the feature; one who has set nothing may."""
        ...

    async def list_members(
        self, group_key: int, *, tenant_id: str, page_size: int, after: str | None
    ) -> tuple[list[Preference], str | None]:
        """Returns a page of the members of a group by user, and after whom the next one starts.

        A page ends early when it holds about 3 MiB.
        """
        ...

    async def get_default(self, feature_type: str, *, tenant_id: str) -> DefaultPreference | None:
        """Returns the tenant's default for a feature."""
        ...

    async def lock_default(
        self, tx: Transaction, feature_type: str, *, tenant_id: str
    ) -> DefaultPreference | None:
        """Returns the tenant's default for a feature, and locks like ``lock``."""
        ...

    async def put_default(
        self, tx: Transaction, default: DefaultPreference, *, tenant_id: str, now: datetime
    ) -> PreferenceChange:
        """Stores a default, in place of the one before. The caller holds its lock."""
        ...

    async def list(
        self, wanted: PreferenceFilter, *, page_size: int, after: tuple[str, str] | None
    ) -> tuple[list[Preference], tuple[str, str] | None]:
        """Returns a page by feature and user, and where the next one starts.

        A page ends early when it holds about 3 MiB.
        """
        ...


class PreferenceGroupStore(Protocol):
    """The users of a feature who wish the same schedule."""

    async def get(self, group_key: int, *, tenant_id: str) -> PreferenceGroup | None: ...

    async def key_of(
        self, feature_type: str, schedule: Schedule | None, *, tenant_id: str
    ) -> int | None:
        """Returns the key of the group of those who wish a schedule; none for no such group."""
        ...

    async def list(
        self,
        *,
        tenant_id: str,
        feature_type: str,
        with_empty: bool,
        page_size: int,
        after: tuple[str, int] | None,
    ) -> tuple[list[PreferenceGroup], tuple[str, int] | None]:
        """Returns a page by feature and key, and where the next one starts.

        Args:
            feature_type: Empty means every feature.
            with_empty: Also those that have no members any more.
        """
        ...


class PreferenceChangeStore(Protocol):
    """The changes of the preferences of a tenant, without a gap that a reader could pass over."""

    async def newest(self, *, tenant_id: str) -> int:
        """Returns the number of the newest change; 0 when there was none."""
        ...

    async def after(
        self, sequence: int, *, tenant_id: str, limit: int
    ) -> Sequence[PreferenceChange]:
        """Returns the changes after a number, in order.

        When the first of them does not have the next number, the ones between are forgotten.
        """
        ...

    async def forget(self, *, before: datetime, limit: int) -> int:
        """Removes the oldest changes that were made before; tells how many."""
        ...


class ConfigSourceStore(Protocol):
    """Up to where Config Databases have been read. A source is named by where and what it is."""

    async def get(self, source: str, *, tenant_id: str) -> SourcePlace | None:
        """Returns the place, or none when the source has never been read to the end."""
        ...

    async def lock(self, tx: Transaction, source: str, *, tenant_id: str) -> SourcePlace | None:
        """Returns the place like ``get``; nobody else locks it until the transaction ends."""
        ...

    async def put(
        self, tx: Transaction, place: SourcePlace, source: str, *, tenant_id: str
    ) -> None:
        """Stores a place, in place of the one before. The caller holds its ``lock``."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupedJob:
    """What tells whether the schedules of a job's groups may have to be worked out anew.

    Attributes:
        sequence: Of the newest change of a preference or default of the tenant.
    """

    tenant_id: str
    job_id: str
    revision: int
    create_time: datetime
    sequence: int


@dataclass(frozen=True, slots=True, kw_only=True)
class DueGroup:
    """A group that somebody is to look at: it is due, or nobody fills its batch any more.

    Attributes:
        job: None when it is gone.
        is_running: Whether the group's newest batch still goes on.
        look_time: Since when it is to be looked at.
    """

    row: GroupSchedule
    job: StoredJob | None
    is_running: bool
    look_time: datetime


class GroupScheduleStore(Protocol):
    """When the groups of preference-based jobs run. What loses a race changes nothing."""

    async def grouped_jobs(self) -> list[GroupedJob]:
        """Returns the preference-based jobs of every tenant that are not paused."""
        ...

    async def ensure_group(
        self, tx: Transaction, feature_type: str, *, tenant_id: str, now: datetime
    ) -> None:
        """Makes the group of the users who name no schedule, unless it is there."""
        ...

    async def outdated(
        self, job: StoredJob, *, default_revision: int, limit: int
    ) -> list[tuple[PreferenceGroup, GroupSchedule | None]]:
        """Returns groups of the job's feature whose schedule is missing or out of date."""
        ...

    async def insert(self, tx: Transaction, new: Sequence[GroupSchedule]) -> int:
        """Stores schedules that are missing; tells how many were."""
        ...

    async def renew(
        self, tx: Transaction, changed: Sequence[tuple[GroupSchedule, GroupSchedule]]
    ) -> int:
        """Puts schedules in place of those that were read; tells of how many that was so."""
        ...

    async def reset(self, tx: Transaction, job_id: str, *, tenant_id: str, now: datetime) -> None:
        """Lets the groups of a job count anew from now on; what is being filled goes on."""
        ...

    async def due(self, *, now: datetime, limit: int) -> list[DueGroup]:
        """Returns what is to be looked at, of every tenant, the longest due first."""
        ...

    async def next_start_time(self, *, after: datetime) -> datetime | None:
        """Returns when something is to be looked at first after a moment."""
        ...

    async def get(self, job_id: str, group_key: int, *, tenant_id: str) -> GroupSchedule | None: ...

    async def move(
        self,
        tx: Transaction,
        before: GroupSchedule,
        after: GroupSchedule,
        *,
        look_time: datetime | None,
    ) -> bool:
        """Says when a group runs next, and what it is being filled into.

        Returns:
            False, and nothing was written, when the row or its job is not as it was read.
        """
        ...

    async def take_filling(self, tx: Transaction, due: DueGroup, *, until: datetime) -> bool:
        """Takes over a batch that nobody fills any more; tells whether nobody else did."""
        ...

    async def go_on_filling(
        self,
        tx: Transaction,
        row: GroupSchedule,
        filling: Filling,
        *,
        after: str | None,
        until: datetime,
    ) -> bool:
        """Moves the place up to which a batch is filled.

        Args:
            after: None ends the filling.
            until: Until when nobody else looks at it.

        Returns:
            False, and nothing was written, when somebody else has moved it.
        """
        ...

    async def drop(self, tx: Transaction, row: GroupSchedule) -> None:
        """Removes a row that is not being filled."""
        ...


class GroupRunStore(Protocol):
    """What was decided about the due times of groups, and the last run of each user."""

    async def record(
        self, tx: Transaction, row: GroupSchedule, decided: Sequence[Decided], *, now: datetime
    ) -> int:
        """Writes down what was decided; due times that are there stay as they are.

        Returns:
            How many due times are written down by this call.
        """
        ...

    async def runs_of(
        self, user_ids: Sequence[str], *, job_id: str, tenant_id: str
    ) -> dict[str, UserRun]:
        """Returns what a job did last for those of the users for whom it ever looked."""
        ...

    async def of_user(self, user_id: str, *, tenant_id: str) -> dict[str, UserRun]:
        """Returns what each job did last for a user, by job."""
        ...

    async def claim(
        self, tx: Transaction, runs: Sequence[UserRun], *, job_id: str, tenant_id: str
    ) -> int:
        """Writes down runs of users who had none in the period; tells how many had none.

        Nobody else claims or notes for the job until the transaction ends.
        """
        ...

    async def note(
        self, tx: Transaction, runs: Sequence[UserRun], *, job_id: str, tenant_id: str
    ) -> None:
        """Writes down why nothing was done for users; their last run stays as it is.

        The caller has claimed for the job.
        """
        ...

    async def list(
        self, wanted: OccurrenceFilter, *, page_size: int, before: tuple[datetime, int] | None
    ) -> tuple[list[Occurrence], tuple[datetime, int] | None]:
        """Returns a page of the occurrences of a job's groups, newest first."""
        ...

    async def of_group(
        self,
        job_id: str,
        group_key: int,
        *,
        tenant_id: str,
        start: datetime,
        end: datetime,
        limit: int,
    ) -> Sequence[Occurrence]:
        """Returns the newest occurrences of a group in a time, newest first."""
        ...

    async def forget(self, *, before: datetime, limit: int) -> int:
        """Removes the oldest occurrences that were decided before; tells how many."""
        ...


class GroupMemberStore(Protocol):
    """Whom a run of a group is for, besides its members."""

    async def moved_from(
        self,
        group_key: int,
        *,
        tenant_id: str,
        feature_type: str,
        since: datetime,
        page_size: int,
        after: str,
    ) -> tuple[list[Preference], str | None]:
        """Returns a page, by user, of those who left a group for another one since a time."""
        ...

    async def without_preference(
        self, feature_type: str, *, tenant_id: str, page_size: int, after: str
    ) -> tuple[list[str], str | None]:
        """Returns a page of the active users of the embedded table who have set nothing."""
        ...
