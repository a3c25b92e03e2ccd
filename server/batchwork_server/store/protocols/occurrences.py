"""The due times of jobs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from batchwork_server.domain.filters import OccurrenceFilter
from batchwork_server.domain.firing import Decided, NextRun, Occurrence
from batchwork_server.domain.job import StoredJob
from batchwork_server.store.protocols.transaction import Transaction


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
