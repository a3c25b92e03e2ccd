"""Foretells how many users are due when."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta

from batchwork_server.application.preference_views import Feature, PreferenceViews
from batchwork_server.clock import Clock
from batchwork_server.domain.effective_preference import job_times_of
from batchwork_server.domain.forecast import GroupLoad, LoadBucket, forecast
from batchwork_server.domain.preference_groups import PreferenceGroup, effective_schedule
from batchwork_server.store.store import Store

DEFAULT_LENGTH = timedelta(days=1)

_GROUPS_PAGE = 1000


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

        Args:
            tenant_id: Whose users.
            feature_type: Of the users of this feature; empty means all features.
            start: The first instant that counts.
            end: The first instant that does not count any more.
            bucket: How long a stretch is.
        """
        loads: list[GroupLoad] = []
        after: tuple[str, int] | None = None
        features: dict[str, Feature] = {}
        while True:
            groups, after = await self._store.preference_groups.list(
                tenant_id=tenant_id,
                feature_type=feature_type,
                with_empty=False,
                page_size=_GROUPS_PAGE,
                after=after,
            )
            for name in dict.fromkeys(group.feature_type for group in groups):
                if name not in features:
                    features[name] = await self._views.feature(name, tenant_id=tenant_id)
            loads += self._loads(groups, features)
            if after is None:
                break
        # Thousands of groups take a while; calls that wait for the loop must not.
        return await asyncio.to_thread(forecast, loads, start=start, end=end, bucket=bucket)

    def _loads(
        self, groups: Sequence[PreferenceGroup], features: dict[str, Feature]
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
                if schedule is not None and not job.is_paused:
                    yield GroupLoad(
                        schedule=schedule,
                        member_count=group.member_count,
                        key=f"{job.tenant_id}/{job.definition.job_id}",
                        created=job.create_time,
                    )
