"""What was decided about the due times of jobs."""

from __future__ import annotations

from datetime import datetime

from batchwork_server.domain.filters import OccurrenceFilter
from batchwork_server.domain.firing import Occurrence
from batchwork_server.errors import NotFound
from batchwork_server.store.store import Store


class Occurrences:
    """The use case behind ``ListOccurrences``."""

    def __init__(self, *, store: Store) -> None:
        self._store = store

    async def list_occurrences(
        self, wanted: OccurrenceFilter, *, page_size: int, before: datetime | None
    ) -> tuple[list[Occurrence], datetime | None]:
        """Returns a page, newest first, and before which due time the next page begins.

        Raises:
            NotFound: there is no such job, and nothing is kept about one.
        """
        found, last = await self._store.occurrences.list(wanted, page_size=page_size, before=before)
        if not found and before is None:
            job = await self._store.jobs.get(wanted.job_id, tenant_id=wanted.tenant_id)
            if job is None:
                raise NotFound("job", wanted.job_id)
        return found, last
