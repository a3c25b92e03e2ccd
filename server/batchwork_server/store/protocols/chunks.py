"""Chunks, and what workers say of them."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import NamedTuple, Protocol

from batchwork_server.domain.batch import Batch, Counts
from batchwork_server.domain.item import Outcome, PendingItem


@dataclass(frozen=True, slots=True, kw_only=True)
class NewChunk:
    """A range of items that is dispatched and committed together."""

    first_index: int
    item_count: int
    due_time: datetime
    dispatch_time: datetime


class OpenChunk(NamedTuple):
    """A chunk that could be claimed."""

    chunk_key: int
    item_count: int
    batch_key: int


@dataclass(slots=True, kw_only=True)
class ClaimedChunk:
    """A chunk that this worker has taken, until its lease is over.

    Attributes:
        epoch: Proves the claim; a write with an older one is refused.
        dispatch_time: Its place in the order of dispatch.
        items: Those that are due.
        waiting_time: When the first of those that are not due is due.
        crashes: How many claims before this one ended by neither record nor release.
        suspect_index: The item that was in hand, alone, at the last of them.
    """

    chunk_key: int
    epoch: int
    batch_key: int
    dispatch_time: datetime
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
        taken: How many items this claim took and no record has accounted for yet. Where the store
            has another number, a record was written whose answer was lost: the chunk is lost.
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
    taken: int
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
        lost: Chunks that somebody else has by now, or of which a record was written before;
            nothing of theirs was written.
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


class ChunkStore(Protocol):
    """The ledger of dispatch, from the workers' side. It is the only way to an outcome."""

    async def next_chunks(
        self, *, now: datetime, limit: int, without: Collection[int] = ()
    ) -> list[OpenChunk]:
        """Returns open chunks that are due, in the order of dispatch.

        Args:
            without: Batches of which none are wanted, by their keys.
        """
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

    async def stopped(self, batch_keys: Collection[int]) -> Mapping[int, Batch]:
        """Returns those of the batches of which no further item is to start, by their keys."""
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
