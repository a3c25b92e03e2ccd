"""The runs of groups."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Protocol

from batchwork_server.domain.batch import Batch
from batchwork_server.domain.filters import OccurrenceFilter
from batchwork_server.domain.firing import Decided, Occurrence
from batchwork_server.domain.group_schedules import GroupSchedule, UserRun
from batchwork_server.domain.reference import OwnItem
from batchwork_server.store.protocols.transaction import Transaction


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

    async def items_of(
        self,
        user_id: str,
        *,
        job_id: str,
        tenant_id: str,
        created_from: datetime,
        created_until: datetime,
        before: int | None,
        limit: int,
    ) -> Sequence[tuple[Batch, OwnItem]]:
        """Returns what runs of a job's groups had for a user, the newest batch first.

        Items that several users share are among them, and users for whom those had nothing.

        Args:
            created_from: Of the oldest batch that counts.
            created_until: Batches that were made then do not count any more.
            before: The key of a batch before which the page starts.
        """
        ...

    async def forget(self, *, before: datetime, limit: int) -> int:
        """Removes the oldest occurrences that were decided before; tells how many."""
        ...

    async def forget_runs(
        self, *, before: datetime, limit: int, after: tuple[str, str, str] | None
    ) -> tuple[int, tuple[str, str, str] | None]:
        """Looks at some last runs of users, and removes those that were looked at last before.

        Args:
            after: Where to go on; None means from the first one.

        Returns:
            How many were removed, and where to go on; None after the last one.
        """
        ...
