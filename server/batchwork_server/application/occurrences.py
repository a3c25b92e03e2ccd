"""What was decided about the due times of jobs."""

from __future__ import annotations

from datetime import datetime, timedelta

from batchwork_server.domain.filters import OccurrenceFilter
from batchwork_server.domain.firing import Occurrence
from batchwork_server.errors import NotFound
from batchwork_server.store.store import Store

_TICK = timedelta(microseconds=1)

OccurrencePlace = tuple[datetime, int]
"""A due time, and the preference group whose it is; 0 for the job's own."""


class Occurrences:
    """The use case behind ``ListOccurrences``."""

    def __init__(self, *, store: Store) -> None:
        self._store = store

    async def list_occurrences(
        self, wanted: OccurrenceFilter, *, page_size: int, before: OccurrencePlace | None
    ) -> tuple[list[Occurrence], OccurrencePlace | None]:
        """Returns a page, newest first, and before what the next page begins.

        Due times of the job's own schedule and of its preference groups stand together.

        Raises:
            NotFound: there is no such job, and nothing is kept about one.
        """
        own, own_last = await self._store.occurrences.list(
            wanted, page_size=page_size, before=_before_of_own(before)
        )
        of_groups: list[Occurrence] = []
        groups_last: OccurrencePlace | None = None
        if not wanted.backfill_id:
            of_groups, groups_last = await self._store.group_runs.list(
                wanted, page_size=page_size, before=before
            )
        ends = [groups_last] if groups_last is not None else []
        if own_last is not None:
            ends.append((own_last, 0))
        together = sorted([*own, *of_groups], key=_place, reverse=True)
        found = [each for each in together if not ends or _place(each) >= max(ends)][:page_size]
        if not found and before is None:
            job = await self._store.jobs.get(wanted.job_id, tenant_id=wanted.tenant_id)
            if job is None:
                raise NotFound("job", wanted.job_id)
        more_follow = bool(ends) or len(found) < len(together)
        return found, _place(found[-1]) if more_follow else None


def _place(occurrence: Occurrence) -> OccurrencePlace:
    return occurrence.due_time, occurrence.group_key


def _before_of_own(before: OccurrencePlace | None) -> datetime | None:
    """Returns before when the job's own due times go on; each comes after those of groups."""
    if before is None:
        return None
    due_time, group_key = before
    return due_time + _TICK if group_key else due_time
