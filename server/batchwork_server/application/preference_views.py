"""What comes of preferences: groups, effective values, and when anybody is due next."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from itertools import islice

from batchwork_server.application.job_checks import KnownTemplates
from batchwork_server.application.next_runs import NextRuns, UserNextRun, UserOfJob
from batchwork_server.application.upcoming import UpcomingRun
from batchwork_server.clock import Clock
from batchwork_server.domain.declared_overrides import DeclaredOverrides
from batchwork_server.domain.due_times import DueTime, due_times, start_time
from batchwork_server.domain.effective_preference import (
    EffectivePreference,
    effective_preference,
    job_times_of,
)
from batchwork_server.domain.filters import JobFilter
from batchwork_server.domain.group_schedules import UserRun
from batchwork_server.domain.job import PreferenceSource, StoredJob
from batchwork_server.domain.preference import DefaultPreference, Preference
from batchwork_server.domain.preference_groups import (
    EffectiveSchedule,
    Origin,
    PreferenceGroup,
    effective_schedule,
    period_of,
)
from batchwork_server.domain.schedule import Schedule
from batchwork_server.errors import NotFound, SourceUnavailable
from batchwork_server.ports import TemplateService
from batchwork_server.store.store import GroupPlace, Store

MOST_JOBS = 10
"""For how many jobs of a feature the next runs are told."""

_JOBS_PAGE = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Feature:
    """What lends the wishes for a feature what they leave open.

    Attributes:
        jobs: Those that preferences for the feature drive, by id; at most ``MOST_JOBS``.
    """

    tenant_id: str
    feature_type: str
    default: DefaultPreference | None
    jobs: Sequence[StoredJob]

    @property
    def first_job(self) -> StoredJob | None:
        return self.jobs[0] if self.jobs else None


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupView:
    """A group, what comes of its schedule, and when it is due next."""

    group: PreferenceGroup
    schedule: EffectiveSchedule | None
    next_runs: Sequence[UpcomingRun]


@dataclass(frozen=True, slots=True, kw_only=True)
class EffectiveView:
    """What counts for a user with one job, and when they are due next.

    Attributes:
        job_id: Empty when no job is known.
        next_run: None when nothing is to be done for them.
        period_done: Whether they had their run of the job in the period that it is now.
    """

    preference: EffectivePreference
    job_id: str
    next_run: UserNextRun | None
    period_done: bool

    @property
    def next_runs(self) -> list[UpcomingRun]:
        return [] if self.next_run is None else [self.next_run.run]


class PreferenceViews:
    """Works out what comes of stored preferences; it changes nothing.

    Args:
        zone: Where nobody names one.
    """

    def __init__(
        self, *, store: Store, templates: TemplateService, clock: Clock, zone: str
    ) -> None:
        self._store = store
        self._templates = templates
        self._clock = clock
        self._zone = zone
        self._next_runs = NextRuns(store=store, clock=clock)

    async def next_runs(self, preference: Preference, *, tenant_id: str) -> list[UpcomingRun]:
        """Returns the next run of each job for one user; none when they do not want any."""
        if not preference.enabled:
            return []
        feature = await self.feature(preference.feature_type, tenant_id=tenant_id)
        last = await self._store.group_runs.of_user(preference.user_id, tenant_id=tenant_id)
        jobs: Sequence[StoredJob | None] = feature.jobs or [None]
        found = [
            await self._next_runs.of(
                UserOfJob(
                    tenant_id=tenant_id,
                    preference=preference,
                    effective=effective_preference(
                        preference, default=feature.default, job=job, server_zone=self._zone
                    ),
                    job=job,
                    last=None if job is None else last.get(job.definition.job_id),
                )
            )
            for job in jobs
        ]
        return [each.run for each in found if each is not None]

    async def get_effective_preference(
        self, *, user_id: str, feature_type: str, tenant_id: str, job_id: str = ""
    ) -> EffectiveView:
        """Returns what counts for a user, also for one who has set nothing.

        Args:
            job_id: Whose defaults count; empty means the first job of the feature.

        Raises:
            NotFound: the job does not exist, or preferences for the feature do not drive it.
        """
        feature = await self.feature(feature_type, tenant_id=tenant_id)
        job = feature.first_job
        if job_id:
            job = await self._store.jobs.get(job_id, tenant_id=tenant_id)
            if job is None or not _is_driven_by(job, feature_type):
                raise NotFound("job", job_id)
        preference = await self._store.preferences.get(
            user_id=user_id, feature_type=feature_type, tenant_id=tenant_id
        )
        effective = effective_preference(
            preference,
            default=feature.default,
            job=job,
            server_zone=self._zone,
            declared=await self._declared_by(job),
        )
        if preference is None:
            inactive = await self._store.inactive_users.among([user_id], tenant_id=tenant_id)
            effective = replace(effective, active=not inactive)
        last = await self._last_run(job, user_id=user_id)
        following = await self._next_runs.of(
            UserOfJob(
                tenant_id=tenant_id, preference=preference, effective=effective, job=job, last=last
            )
        )
        return EffectiveView(
            preference=effective,
            job_id="" if job is None else job.definition.job_id,
            next_run=following,
            period_done=self._is_done(effective.schedule, last),
        )

    async def _declared_by(self, job: StoredJob | None) -> DeclaredOverrides | None:
        """Returns the overrides that a job's template knows, as far as that is known now."""
        if job is None:
            return None
        try:
            known = KnownTemplates.of(await self._templates.all())
        except SourceUnavailable:
            return None
        template = known.template_of(job.definition)
        return None if template is None else template.overrides

    async def _last_run(self, job: StoredJob | None, *, user_id: str) -> UserRun | None:
        if job is None:
            return None
        runs = await self._store.group_runs.runs_of(
            [user_id], job_id=job.definition.job_id, tenant_id=job.tenant_id
        )
        return runs.get(user_id)

    def _is_done(self, effective: EffectiveSchedule | None, last: UserRun | None) -> bool:
        if effective is None or last is None:
            return False
        now = self._clock.now()
        return last.is_in(period_of(effective.schedule, effective.time_zone, now))

    async def list_preference_groups(
        self,
        *,
        tenant_id: str | None,
        feature_type: str,
        with_empty: bool,
        page_size: int,
        after: GroupPlace | None,
    ) -> tuple[list[GroupView], GroupPlace | None]:
        """Returns a page of groups by tenant, feature and key, and where the next one starts.

        Args:
            tenant_id: None means all tenants, for operators.
        """
        groups, last = await self._store.preference_groups.list(
            tenant_id=tenant_id,
            feature_type=feature_type,
            with_empty=with_empty,
            page_size=page_size,
            after=after,
        )
        features = {
            (owner, name): await self.feature(name, tenant_id=owner)
            for owner, name in dict.fromkeys(_feature_of(group) for group in groups)
        }
        found = []
        for group in groups:
            feature = features[_feature_of(group)]
            found.append(
                GroupView(
                    group=group,
                    schedule=self._effective(group.schedule, feature, feature.first_job),
                    next_runs=self._runs(group.schedule, feature),
                )
            )
            await asyncio.sleep(0)  # others get their turn
        return found, last

    async def list_group_members(
        self, group_key: int, *, tenant_id: str, page_size: int, after: str | None
    ) -> tuple[list[Preference], str | None]:
        """Returns a page of the members of a group by user, and where the next one starts.

        Raises:
            NotFound: the tenant has no such group.
        """
        if await self._store.preference_groups.get(group_key, tenant_id=tenant_id) is None:
            raise NotFound("preference group", str(group_key))
        return await self._store.preferences.list_members(
            group_key, tenant_id=tenant_id, page_size=page_size, after=after
        )

    async def preview_schedule(
        self,
        schedule: Schedule,
        *,
        feature_type: str,
        tenant_id: str,
        after: datetime | None,
        count: int,
    ) -> tuple[list[UpcomingRun], Origin]:
        """Returns the first due times of a schedule that is not stored, and who said its zone.

        Args:
            feature_type: Whose defaults lend the zone; empty means none.
            after: None means now.
        """
        feature = Feature(tenant_id=tenant_id, feature_type="", default=None, jobs=())
        if feature_type:
            feature = await self.feature(feature_type, tenant_id=tenant_id)
        found = self._effective(schedule, feature, feature.first_job)
        assert found is not None  # noqa: S101  a schedule was named
        dues = due_times(
            found.schedule,
            zone=found.time_zone,
            after=after or self._clock.now(),
            created=self._clock.now(),
        )
        runs = [
            UpcomingRun(job_id="", due=due, start_time=due.instant, zone=found.time_zone)
            for due in islice(dues, count)
        ]
        return runs, found.zone_origin

    async def feature(self, feature_type: str, *, tenant_id: str) -> Feature:
        """Returns what lends the wishes for a feature what they leave open."""
        default = await self._store.preferences.get_default(feature_type, tenant_id=tenant_id)
        jobs: list[StoredJob] = []
        wanted = JobFilter(tenant_id=tenant_id, feature_type=feature_type)
        after = None
        while True:
            page, after = await self._store.jobs.list(wanted, page_size=_JOBS_PAGE, after=after)
            jobs += [job for job in page if _is_driven_by(job, feature_type)]
            if after is None or len(jobs) >= MOST_JOBS:
                break
        return Feature(
            tenant_id=tenant_id,
            feature_type=feature_type,
            default=default,
            jobs=jobs[:MOST_JOBS],
        )

    def _effective(
        self, wished: Schedule | None, feature: Feature, job: StoredJob | None
    ) -> EffectiveSchedule | None:
        return effective_schedule(
            wished,
            default=feature.default.schedule if feature.default is not None else None,
            job=job_times_of(job) if job is not None else None,
            server_zone=self._zone,
        )

    def _runs(self, wished: Schedule | None, feature: Feature) -> list[UpcomingRun]:
        jobs: Sequence[StoredJob | None] = feature.jobs or [None]
        found = []
        for job in jobs:
            schedule = self._effective(wished, feature, job)
            if schedule is None or (job is not None and job.is_paused):
                continue
            run = self._run(schedule, job, tenant_id=feature.tenant_id)
            if run is not None:
                found.append(run)
        return found

    def _run(
        self, effective: EffectiveSchedule, job: StoredJob | None, *, tenant_id: str
    ) -> UpcomingRun | None:
        now = self._clock.now()
        due = _first_due(effective, after=now, created=now if job is None else job.create_time)
        if due is None:
            return None
        job_id = "" if job is None else job.definition.job_id
        jitter = effective.schedule.jitter
        return UpcomingRun(
            job_id=job_id,
            due=due,
            start_time=start_time(due.instant, key=f"{tenant_id}/{job_id}", jitter=jitter),
            zone=effective.time_zone,
        )


def _feature_of(group: PreferenceGroup) -> tuple[str, str]:
    return group.tenant_id, group.feature_type


def _is_driven_by(job: StoredJob, feature_type: str) -> bool:
    """Tells whether the preferences for a feature drive a job."""
    definition = job.definition
    return (
        definition.preference_source is PreferenceSource.DYNAMIC
        and definition.feature_type == feature_type
    )


def _first_due(
    effective: EffectiveSchedule, *, after: datetime, created: datetime
) -> DueTime | None:
    found = due_times(effective.schedule, zone=effective.time_zone, after=after, created=created)
    return next(found, None)
