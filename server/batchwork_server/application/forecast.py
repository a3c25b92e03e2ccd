"""Foretells how many users are due when."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from batchwork_server.application.group_pages import serves_silent
from batchwork_server.application.preference_views import Feature, PreferenceViews
from batchwork_server.clock import Clock
from batchwork_server.domain.effective_preference import job_times_of
from batchwork_server.domain.filters import JobFilter
from batchwork_server.domain.forecast import GroupLoad, LoadBucket, forecast
from batchwork_server.domain.preference_groups import PreferenceGroup, effective_schedule
from batchwork_server.store.store import GroupPlace, Store

DEFAULT_LENGTH = timedelta(days=1)

_GROUPS_PAGE = 1000
_JOBS_PAGE = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class _Counts:
    """How many users there are besides the members of groups, and how many fewer.

    Attributes:
        resting: Members for whom nothing is done, by group.
        silent: Users who have set nothing, by feature.
    """

    resting: Mapping[int, int]
    silent: Mapping[str, int]

    def of(self, group: PreferenceGroup, *, with_silent: bool) -> int:
        """Returns for how many users a run of a group has work."""
        count = group.member_count - self.resting.get(group.group_key, 0)
        return count + self.silent.get(group.feature_type, 0) if with_silent else count


class Forecast:
    """Works out the load to come; it changes nothing.

    Args:
        zone: Where nobody names one.
    """

    def __init__(self, *, store: Store, views: PreferenceViews, clock: Clock, zone: str) -> None:
        self._store = store
        self._views = views
        self._clock = clock
        self._zone = zone

    def now(self) -> datetime:
        """Returns when a forecast begins that names no start."""
        return self._clock.now()

    async def forecast_load(
        self,
        *,
        tenant_id: str,
        feature_type: str,
        start: datetime,
        end: datetime,
        bucket: timedelta,
    ) -> list[LoadBucket]:
        """Returns the stretches in which anybody is due, in their order.

        Members of groups count, but for those who rest, and who has set nothing where jobs include
        them; guests and runs that users have had already do not.

        Args:
            tenant_id: Whose users.
            feature_type: Of the users of this feature; empty means all features.
            start: The first instant that counts.
            end: The first instant that does not count any more.
            bucket: How long a stretch is.
        """
        features = await self._features(feature_type, tenant_id=tenant_id)
        counts = _Counts(
            resting=await self._store.preference_groups.resting_counts(
                tenant_id=tenant_id, feature_type=feature_type
            ),
            silent=await self._silent(features.values(), tenant_id=tenant_id),
        )
        loads: list[GroupLoad] = []
        after: GroupPlace | None = None
        # Those who say nothing may have no group yet.
        alone = dict.fromkeys(counts.silent)
        while True:
            groups, after = await self._store.preference_groups.list(
                tenant_id=tenant_id,
                feature_type=feature_type,
                with_empty=False,
                page_size=_GROUPS_PAGE,
                after=after,
            )
            for group in groups:
                if group.feature_type not in features:
                    features[group.feature_type] = await self._views.feature(
                        group.feature_type, tenant_id=tenant_id
                    )
                if group.schedule is None:
                    alone.pop(group.feature_type, None)
            loads += self._loads(groups, features, counts)
            if after is None:
                break
        loads += self._loads(
            [self._empty_group(features[name]) for name in alone], features, counts
        )
        # Thousands of groups take a while; calls that wait for the loop must not.
        return await asyncio.to_thread(forecast, loads, start=start, end=end, bucket=bucket)

    async def _features(self, feature_type: str, *, tenant_id: str) -> dict[str, Feature]:
        """Returns the feature, or of all features those with users who say nothing."""
        names = {feature_type: None} if feature_type else {}
        after: tuple[str, str] | None = None
        while not feature_type:
            jobs, after = await self._store.jobs.list(
                JobFilter(tenant_id=tenant_id), page_size=_JOBS_PAGE, after=after
            )
            for job in jobs:
                if job.definition.include_all_users:
                    names[job.definition.feature_type] = None
            if after is None:
                break
        return {name: await self._views.feature(name, tenant_id=tenant_id) for name in names}

    async def _silent(self, features: Iterable[Feature], *, tenant_id: str) -> dict[str, int]:
        """Counts the users who say nothing, of the features that have jobs for them."""
        found: dict[str, int] = {}
        for feature in features:
            group = self._empty_group(feature)
            going_on = [job for job in feature.jobs if not job.is_paused]
            if any(serves_silent(job, group, feature.default) for job in going_on):
                found[feature.feature_type] = await self._store.preference_groups.silent_count(
                    feature.feature_type, tenant_id=tenant_id
                )
        return found

    def _empty_group(self, feature: Feature) -> PreferenceGroup:
        """Returns the group of those who name no schedule, as it is without a member."""
        now = self._clock.now()
        return PreferenceGroup(
            group_key=0,
            tenant_id=feature.tenant_id,
            feature_type=feature.feature_type,
            schedule=None,
            member_count=0,
            create_time=now,
            populate_time=now,
        )

    def _loads(
        self,
        groups: Iterable[PreferenceGroup],
        features: Mapping[str, Feature],
        counts: _Counts,
    ) -> Iterator[GroupLoad]:
        for group in groups:
            feature = features[group.feature_type]
            for job in feature.jobs:
                schedule = effective_schedule(
                    group.schedule,
                    default=feature.default.schedule if feature.default is not None else None,
                    job=job_times_of(job),
                    server_zone=self._zone,
                )
                count = counts.of(group, with_silent=serves_silent(job, group, feature.default))
                if schedule is not None and count and not job.is_paused:
                    yield GroupLoad(
                        schedule=schedule,
                        member_count=count,
                        key=f"{job.tenant_id}/{job.definition.job_id}",
                        created=job.create_time,
                    )
