"""Keeps the schedules of groups in step with jobs, defaults and groups that come and go."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace

from batchwork_server.clock import Clock
from batchwork_server.domain.group_schedules import (
    ASLEEP,
    GroupSchedule,
    next_due,
    next_due_after_change,
    schedule_of_group,
)
from batchwork_server.domain.job import PreferenceSource, StoredJob
from batchwork_server.domain.preference import DefaultPreference
from batchwork_server.domain.preference_groups import PreferenceGroup
from batchwork_server.store.store import GroupedJob, Store

_GROUPS_AT_ONCE = 1000


class GroupSchedules:
    """Works out when groups run next, wherever something has changed since the last look.

    Nobody who sets a preference, a default or a job needs to know of it. Any number of these over
    one database do no harm.

    Args:
        zone: Where nobody names one.
    """

    def __init__(self, *, store: Store, clock: Clock, zone: str) -> None:
        self._store = store
        self._clock = clock
        self._zone = zone
        self._seen: dict[tuple[str, str], GroupedJob] = {}

    async def reconcile(self) -> None:
        """Gives every group of every preference-based job its schedule.

        Raises:
            StoreUnavailable: what was done by then stays done.
        """
        marks = {
            (mark.tenant_id, mark.job_id): mark
            for mark in await self._store.group_schedules.grouped_jobs()
        }
        self._seen = {key: mark for key, mark in self._seen.items() if key in marks}
        for key, mark in marks.items():
            if self._seen.get(key) != mark and await self._reconcile_job(mark):
                self._seen[key] = mark

    async def _reconcile_job(self, mark: GroupedJob) -> bool:
        """Works out what is out of date of a job; tells whether nothing of it is left."""
        job = await self._store.jobs.get(mark.job_id, tenant_id=mark.tenant_id)
        if job is None or job.definition.preference_source is not PreferenceSource.DYNAMIC:
            return True
        feature_type = job.definition.feature_type
        if job.definition.include_all_users:
            await self._ensure_group(feature_type, tenant_id=job.tenant_id)
        default = await self._store.preferences.get_default(feature_type, tenant_id=job.tenant_id)
        while True:
            found = await self._store.group_schedules.outdated(
                job,
                default_revision=default.revision if default is not None else 0,
                limit=_GROUPS_AT_ONCE,
            )
            if not found:
                return True
            if not await self._store_anew(job, default, found):
                return False  # somebody else moves them; they are looked at again

    async def _ensure_group(self, feature_type: str, *, tenant_id: str) -> None:
        """Makes the group of those who name no schedule, which may have no member yet."""
        groups = self._store.preference_groups
        if await groups.key_of(feature_type, None, tenant_id=tenant_id) is None:
            async with self._store.transaction() as tx:
                await self._store.group_schedules.ensure_group(
                    tx, feature_type, tenant_id=tenant_id, now=self._clock.now()
                )

    async def _store_anew(
        self,
        job: StoredJob,
        default: DefaultPreference | None,
        found: Sequence[tuple[PreferenceGroup, GroupSchedule | None]],
    ) -> int:
        """Stores schedules that are worked out anew; tells how many."""
        # For thousands of groups that takes a while; calls that wait for the loop must not.
        rows = await asyncio.to_thread(self._worked_out, job, default, found)
        new = [after for before, after in rows if before is None]
        changed = [(before, after) for before, after in rows if before is not None]
        async with self._store.transaction() as tx:
            stored = await self._store.group_schedules.insert(tx, new)
            return stored + await self._store.group_schedules.renew(tx, changed)

    def _worked_out(
        self,
        job: StoredJob,
        default: DefaultPreference | None,
        found: Sequence[tuple[PreferenceGroup, GroupSchedule | None]],
    ) -> list[tuple[GroupSchedule | None, GroupSchedule]]:
        return [(before, self._row(job, default, group, before)) for group, before in found]

    def _row(
        self,
        job: StoredJob,
        default: DefaultPreference | None,
        group: PreferenceGroup,
        before: GroupSchedule | None,
    ) -> GroupSchedule:
        """Works out a schedule; what became due since the change is for the firing to judge."""
        effective = schedule_of_group(job, group.schedule, default, zone=self._zone)
        schedule = effective.schedule if effective is not None else None
        changes = [job.update_time, *([default.update_time] if default is not None else [])]
        default_revision = default.revision if default is not None else 0
        if before is None or before.job_create_time != job.create_time:
            since = max(*changes, group.populate_time)
            return GroupSchedule(
                tenant_id=job.tenant_id,
                job_id=job.definition.job_id,
                group_key=group.group_key,
                job_revision=job.revision,
                job_create_time=job.create_time,
                default_revision=default_revision,
                schedule=schedule,
                next_due_time=next_due(schedule, since, created=job.create_time),
                last_due_time=since,
                filling=before.filling if before is not None else None,
            )
        current = replace(before, job_revision=job.revision, default_revision=default_revision)
        is_asleep = before.job_revision == ASLEEP
        if is_asleep:
            last_due_time = max(before.last_due_time, group.populate_time)
            current = replace(current, last_due_time=last_due_time)
        counts_from = max(current.last_due_time, before.reset_time or current.last_due_time)
        if is_asleep or before.schedule != schedule:
            following = next_due_after_change(
                schedule,
                changed=max(*changes, counts_from),
                before=before.next_due_time,
                created=job.create_time,
            )
        elif before.job_revision == 0 and before.next_due_time is None:
            following = next_due(schedule, counts_from, created=job.create_time)
        else:
            return current
        waits = before.queued_as is not None and following == before.next_due_time
        return replace(
            current,
            schedule=schedule,
            next_due_time=following,
            queued_as=before.queued_as if waits else None,
        )
