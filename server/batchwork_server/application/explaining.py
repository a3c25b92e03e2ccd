"""Why a user got something, or nothing: the decision for each of their periods."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from itertools import takewhile

from batchwork_server.application.open_periods import OpenPeriods
from batchwork_server.application.preference_views import PreferenceViews
from batchwork_server.application.upcoming import UpcomingRun
from batchwork_server.application.user_periods import (
    Case,
    UserDecision,
    UserPeriod,
    told_by_item,
    told_by_ledger,
)
from batchwork_server.clock import Clock
from batchwork_server.domain.due_times import due_times
from batchwork_server.domain.filters import PreferenceFilter
from batchwork_server.domain.job import StoredJob
from batchwork_server.domain.json_object import listed, quoted
from batchwork_server.domain.preference import Preference
from batchwork_server.domain.preference_groups import (
    EffectiveSchedule,
    Period,
    PreferenceChange,
    period_of,
)
from batchwork_server.domain.preference_history import PreferenceHistory, Standing
from batchwork_server.errors import InvalidArgument, Violation
from batchwork_server.store.store import Store

LONGEST_SPAN = timedelta(days=31)
USUAL_SPAN = timedelta(days=7)

MOST_PERIODS = 200
"""How many periods of a job are told at most."""

_LATENESS = timedelta(days=1)
"""How much later than its due time a batch may have been made, where only its items tell of it."""

_ITEMS_PAGE = 200
_MOST_CHANGES = 1000
_MOST_FEATURES = 20
_TICK = timedelta(microseconds=1)


class Explaining:
    """The use case behind ``ExplainUser``; it changes nothing."""

    def __init__(self, *, store: Store, views: PreferenceViews, clock: Clock) -> None:
        self._store = store
        self._views = views
        self._clock = clock
        self._open_periods = OpenPeriods(store=store, clock=clock)

    async def explain_user(
        self,
        *,
        user_id: str,
        feature_type: str,
        tenant_id: str,
        job_id: str = "",
        start: datetime | None = None,
        end: datetime | None = None,
    ) -> tuple[list[UserPeriod], list[UpcomingRun]]:
        """Returns what became of a user in each period, and when they are due next.

        Args:
            job_id: Empty means all jobs that preferences for the feature drive.
            start: None means ``USUAL_SPAN`` before the end.
            end: None means now.

        Raises:
            InvalidArgument: no instant lies in between, or too many.
            NotFound: the job does not exist, or preferences for the feature do not drive it.
        """
        end = end or self._clock.now()
        start = start or end - USUAL_SPAN
        _check_span(start, end)
        feature = await self._views.feature(feature_type, tenant_id=tenant_id)
        named = [job_id] if job_id else [job.definition.job_id for job in feature.jobs]
        if not named:
            return [_no_job(feature_type)], []
        preference = await self._store.preferences.get(
            user_id=user_id, feature_type=feature_type, tenant_id=tenant_id
        )
        history = await self._history(
            preference, user_id=user_id, feature_type=feature_type, tenant_id=tenant_id, since=start
        )
        runs = await self._store.group_runs.of_user(user_id, tenant_id=tenant_id)
        periods: list[UserPeriod] = []
        next_runs: list[UpcomingRun] = []
        for name in named:
            view = await self._views.get_effective_preference(
                user_id=user_id, feature_type=feature_type, tenant_id=tenant_id, job_id=name
            )
            job = await self._store.jobs.get(name, tenant_id=tenant_id)
            if job is None:
                continue
            case = Case(
                user_id=user_id,
                feature_type=feature_type,
                job=job,
                view=view,
                preference=preference,
                default=feature.default,
                history=history,
                run=runs.get(name),
                silent_key=await self._silent_key(job),
                start=start,
                end=end,
            )
            periods += await self._explained(case)
            next_runs += view.next_runs
        return periods, next_runs

    async def _history(
        self,
        preference: Preference | None,
        *,
        user_id: str,
        feature_type: str,
        tenant_id: str,
        since: datetime,
    ) -> PreferenceHistory:
        """Returns what the user had set since a time; most have changed nothing."""
        key = None
        if preference is not None and preference.enabled:
            key = await self._store.preference_groups.key_of(
                feature_type, preference.schedule, tenant_id=tenant_id
            )
        changes: Sequence[PreferenceChange] = ()
        if preference is None or preference.update_time >= since:
            changes = await self._store.preference_changes.of_user(
                user_id,
                feature_type=feature_type,
                tenant_id=tenant_id,
                since=since,
                limit=_MOST_CHANGES,
            )
        return PreferenceHistory(
            now=Standing(has_preference=preference is not None, group_key=key),
            update_time=None if preference is None else preference.update_time,
            changes=changes,
        )

    async def _silent_key(self, job: StoredJob) -> int | None:
        if not job.definition.include_all_users:
            return None
        return await self._store.preference_groups.key_of(
            job.definition.feature_type, None, tenant_id=job.tenant_id
        )

    async def _explained(self, case: Case) -> list[UserPeriod]:
        schedule = case.view.preference.schedule
        if schedule is None:
            told = await self._told_by_items(case, until=case.end)
            return [*told, await self._untold(case)][:MOST_PERIODS]
        last = period_of(schedule.schedule, schedule.time_zone, case.end - _TICK)
        told = await self._told_by_items(case, until=last.end)
        told = _best_of_each([_in_period(each, schedule) for each in told])
        if not case.is_served or not case.view.preference.enabled:
            return [await self._untold(case), *told][:MOST_PERIODS]
        known = {each.period for each in told}
        due = await asyncio.to_thread(_due_periods, case, schedule, until=last.end)
        told += await self._open_periods.explained(
            case,
            schedule,
            {period: moments for period, moments in due.items() if period not in known},
        )
        told.sort(key=lambda each: each.due_time or case.start, reverse=True)
        return told[:MOST_PERIODS]

    async def _told_by_items(self, case: Case, *, until: datetime) -> list[UserPeriod]:
        """Returns what the user's items tell, newest first; of deleted ones, what the ledger does.

        Args:
            until: The first due time that does not count.
        """
        told: dict[datetime, UserPeriod] = {}
        before: int | None = None
        while len(told) < MOST_PERIODS:
            found = await self._store.group_runs.items_of(
                case.user_id,
                job_id=case.job.definition.job_id,
                tenant_id=case.job.tenant_id,
                created_from=case.start,
                created_until=until + _LATENESS,
                before=before,
                limit=_ITEMS_PAGE,
            )
            for batch, item in found:
                due = batch.request.due_time
                if due is not None and case.start <= due < until:
                    each = told_by_item(case, batch, item)
                    if due not in told or each.decision is UserDecision.DONE:
                        told[due] = each
            if len(found) < _ITEMS_PAGE:
                break
            before = found[-1][0].key
        return [*told.values(), *_of_ledger(case, known=told.keys(), until=until)]

    async def _untold(self, case: Case) -> UserPeriod:
        """Explains what holds whatever the period."""
        job_id, user, feature = case.job.definition.job_id, case.user_id, case.feature_type
        if not case.is_served:
            others = await self._store.preferences.list(
                PreferenceFilter(tenant_id=case.job.tenant_id, user_id=user),
                page_size=_MOST_FEATURES,
                after=None,
            )
            names = [each.feature_type for each in others[0]]
            has = f"has preferences for {listed(names)}" if names else "has no preferences"
            return UserPeriod(
                job_id=job_id,
                decision=UserDecision.NO_PREFERENCE,
                message=f"{quoted(user)} has set nothing for {quoted(feature)}, and {has}; the "
                "job does not include users without a preference (include_all_users).",
            )
        if not case.view.preference.enabled:
            who = case.view.preference.enabled_origin
            return UserPeriod(
                job_id=job_id,
                decision=UserDecision.OPTED_OUT,
                message=f"{quoted(feature)} is switched off for {quoted(user)}, as {who} says.",
            )
        return UserPeriod(
            job_id=job_id,
            decision=UserDecision.NO_SCHEDULE,
            message=f"Neither {quoted(user)} nor the tenant's default for {quoted(feature)} nor "
            "the default_preferences of the job name a schedule; set one of them.",
        )


def _check_span(start: datetime, end: datetime) -> None:
    if end <= start:
        message = "It is not after start_time; no instant lies between them."
    elif end - start > LONGEST_SPAN:
        message = f"It is more than {LONGEST_SPAN.days} days after start_time."
    else:
        return
    raise InvalidArgument([Violation("end_time", message)])


def _no_job(feature_type: str) -> UserPeriod:
    return UserPeriod(
        job_id="",
        decision=UserDecision.NO_JOB,
        message=f"Preferences for {quoted(feature_type)} drive no job; a job needs "
        f"`preference_based` and the feature_type {quoted(feature_type)}.",
    )


def _of_ledger(case: Case, *, known: Collection[datetime], until: datetime) -> list[UserPeriod]:
    run = case.run
    if run is None:
        return []
    return [
        each
        for each in told_by_ledger(run, case.job.definition.job_id)
        if each.due_time is not None
        and each.due_time not in known
        and case.start <= each.due_time < until
    ]


def _in_period(each: UserPeriod, effective: EffectiveSchedule) -> UserPeriod:
    assert each.due_time is not None  # noqa: S101  what is told by a run has one
    period = period_of(effective.schedule, effective.time_zone, each.due_time)
    return replace(each, period=period)


def _best_of_each(told: Sequence[UserPeriod]) -> list[UserPeriod]:
    """Keeps of each period the run that had work; ALREADY_DONE tells nothing beside it."""
    best: dict[Period | None, UserPeriod] = {}
    for each in told:
        known = best.get(each.period)
        if known is None or each.decision is UserDecision.DONE:
            best[each.period] = each
    return list(best.values())


def _due_periods(
    case: Case, effective: EffectiveSchedule, *, until: datetime
) -> dict[Period, list[datetime]]:
    """Returns the due times of the user's schedule in the newest periods, by period."""
    zone = effective.time_zone
    dues = due_times(
        effective.schedule, zone=zone, after=case.start - _TICK, created=case.job.create_time
    )
    found: dict[Period, list[datetime]] = {}
    for due in takewhile(lambda due: due.instant < until, dues):
        found.setdefault(period_of(effective.schedule, zone, due.instant), []).append(due.instant)
        if len(found) > MOST_PERIODS:
            del found[next(iter(found))]
    return found
