"""The whole conversation with the database, as Protocols.

Methods that write take the transaction in which they write; the caller decides what belongs
together. Methods that read open a connection of their own. Every method that a caller can reach
takes the tenant.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Protocol

from batchwork_server.domain.batch import Batch, BatchRequest, BatchState, Counts
from batchwork_server.domain.filters import BatchFilter, ItemFilter, JobFilter, PreferenceFilter
from batchwork_server.domain.item import Item, NewItem, Outcome, PendingItem
from batchwork_server.domain.job import StoredJob
from batchwork_server.domain.preference import Preference


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


@dataclass(slots=True, kw_only=True)
class ClaimedChunk:
    """A chunk that this worker has taken, until its lease is over.

    Attributes:
        epoch: Proves the claim; a write with an older one is refused.
        items: Those that are due.
        waiting_time: When the first of those that are not due is due.
    """

    chunk_key: int
    epoch: int
    batch_key: int
    items: list[PendingItem]
    waiting_time: datetime | None = None


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
class Reopened:
    """What became of a call of ``reopen_expired``: how many chunks, and of which batches."""

    chunk_count: int
    batches: Mapping[int, Batch]


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """A fact about a batch.

    Attributes:
        kind: ``STATE_CHANGED`` or ``PROGRESS``.
        counts: After the fact.
        state: After the fact.
        finished: Ranges of items that reached their final state with it, first and last.
    """

    sequence: int
    kind: str
    event_type: str
    event_time: datetime
    state: BatchState
    counts: Counts
    finished: tuple[tuple[int, int], ...] = ()


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
    ) -> Batch:
        """Stores a batch with its items, its chunks and its first event.

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

    async def cancel(self, tx: Transaction, batch_key: int, *, now: datetime) -> Batch | None:
        """Puts a batch that is not over into CANCELLING, and makes its waiting chunks due.

        Returns:
            The batch after it; none when the state did not allow it.
        """
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


class ChunkStore(Protocol):
    """The ledger of dispatch, from the workers' side. It is the only way to an outcome."""

    async def next_chunks(self, *, now: datetime, limit: int) -> list[tuple[int, int]]:
        """Returns open chunks that are due, in the order of dispatch: key and number of items."""
        ...

    async def next_due_time(self, *, after: datetime) -> datetime | None:
        """Returns when the next open chunk that waits is due."""
        ...

    async def claim(
        self, chunk_keys: Sequence[int], *, owner: str, now: datetime, lease_time: datetime
    ) -> Claimed:
        """Takes the chunks that are still open, for ``owner``, until ``lease_time``.

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
        self, chunk_keys: Sequence[int], *, owner: str, lease_time: datetime
    ) -> frozenset[int]:
        """Extends the leases that ``owner`` still has, and returns the keys of those."""
        ...

    async def reopen_expired(self, *, now: datetime, owner_is_dead: bool = False) -> Reopened:
        """Opens the chunks whose lease is over.

        Args:
            owner_is_dead: Opens every chunk that is taken, whatever its lease: right after the
                start of the only process on this database.
        """
        ...

    async def check_counts(self, batch_key: int) -> tuple[Counts, Counts]:
        """Returns the counts of a batch as they are kept and as its rows say; always equal."""
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
    def chunks(self) -> ChunkStore: ...
    @property
    def requests(self) -> RequestStore: ...
    @property
    def jobs(self) -> JobStore: ...
    @property
    def preferences(self) -> PreferenceStore: ...

    def transaction(self) -> AbstractAsyncContextManager[Transaction]:
        """Opens a write transaction; it commits when the block ends well.

        Raises:
            StoreUnavailable: the database is away, locked or full; nothing was changed.
        """
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

    async def get(self, job_id: str, *, tenant_id: str | None) -> StoredJob | None:
        """Returns a job; without a tenant, of any tenant."""
        ...

    async def get_many(self, job_ids: Sequence[str], *, tenant_id: str) -> dict[str, StoredJob]:
        """Returns those of the jobs that exist, by id."""
        ...

    async def list(
        self, wanted: JobFilter, *, page_size: int, after: tuple[str, str] | None
    ) -> tuple[list[StoredJob], tuple[str, str] | None]:
        """Returns a page by tenant and id, and where the next one starts.

        A page ends early when it holds about 3 MiB.
        """
        ...


class PreferenceStore(Protocol):
    """What the users of tenants wish for features."""

    async def lock(
        self, tx: Transaction, *, user_id: str, feature_type: str, tenant_id: str
    ) -> Preference | None:
        """Returns the preference, if there is one.

        Nobody else sets it until the transaction ends.
        """
        ...

    async def put(self, tx: Transaction, preference: Preference, *, tenant_id: str) -> None:
        """Stores a preference, in place of the one before. The caller holds its ``lock``."""
        ...

    async def get(
        self, *, user_id: str, feature_type: str, tenant_id: str
    ) -> Preference | None: ...

    async def list(
        self, wanted: PreferenceFilter, *, page_size: int, after: tuple[str, str] | None
    ) -> tuple[list[Preference], tuple[str, str] | None]:
        """Returns a page by feature and user, and where the next one starts.

        A page ends early when it holds about 3 MiB.
        """
        ...
