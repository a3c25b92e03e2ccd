"""Jobs and when they run next."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Protocol

from batchwork_server.domain.filters import JobFilter
from batchwork_server.domain.firing import NextRun
from batchwork_server.domain.job import StoredJob
from batchwork_server.store.protocols.transaction import Transaction


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

    async def driven_features(self, *, tenant_id: str, limit: int) -> Sequence[str]:
        """Returns the features whose preferences drive jobs, sorted, of many the first ones."""
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
