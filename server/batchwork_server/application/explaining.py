"""Why a user got something, or nothing: the decision for each of their periods."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum
from itertools import takewhile

from batchwork_server.application.group_filling import SOURCE
from batchwork_server.application.preference_views import EffectiveView, PreferenceViews
from batchwork_server.application.upcoming import UpcomingRun
from batchwork_server.clock import Clock
from batchwork_server.domain.batch import Batch
from batchwork_server.domain.due_times import due_times
from batchwork_server.domain.filters import BatchFilter, ItemFilter, PreferenceFilter
from batchwork_server.domain.firing import Decision, Occurrence
from batchwork_server.domain.group_schedules import UserRun
from batchwork_server.domain.item import Item
from batchwork_server.domain.job import StoredJob
from batchwork_server.domain.json_object import listed, quoted
from batchwork_server.domain.preference import Preference
from batchwork_server.domain.preference_groups import EffectiveSchedule, Period, period_of
from batchwork_server.errors import InvalidArgument, Violation
from batchwork_server.store.store import Store

LONGEST_SPAN = timedelta(days=31)
USUAL_SPAN = timedelta(days=7)

MOST_PERIODS = 200
"""How many periods of a job are told at most."""

_MOST_DUE_TIMES = 1000
_MOST_BATCHES = 200
_MOST_FEATURES = 20
_TICK = timedelta(microseconds=1)
_OPTED_OUT_REASONS = ("PREFERENCE_DISABLED",)


class UserDecision(StrEnum):
    """What became of a user in a period."""

    DONE = "DONE"  # there was work for them
    SKIPPED = "SKIPPED"  # there is a reason
    OPTED_OUT = "OPTED_OUT"  # they do not want the feature
    NOT_YET = "NOT_YET"  # they are due later in the period
    NO_PREFERENCE = "NO_PREFERENCE"  # they have set nothing, and the job is not for those
    NO_SCHEDULE = "NO_SCHEDULE"  # nobody names a schedule
    NO_JOB = "NO_JOB"  # preferences for the feature drive no job


class Untold(StrEnum):
    """Why nothing was done, where no run and no decision of the group tells."""

    JOB_PAUSED = "JOB_PAUSED"  # the job is paused
    CHANGED_LATER = "CHANGED_LATER"  # the preference or the job was set after the due time
    NOT_FIRED = "NOT_FIRED"  # nobody has decided about the due time


@dataclass(frozen=True, slots=True, kw_only=True)
class UserPeriod:
    """What became of a user in one period of a job.

    Attributes:
        period: None for what holds whatever the period.
        item_id: Empty where the user has no item of their own.
    """

    job_id: str
    decision: UserDecision
    message: str
    period: Period | None = None
    reason: str = ""
    due_time: datetime | None = None
    batch_id: str = ""
    item_id: str = ""
    group_key: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class _Case:
    """One user and one job."""

    user_id: str
    feature_type: str
    job: StoredJob
    view: EffectiveView
    preference: Preference | None
    run: UserRun | None
    start: datetime
    end: datetime

    @property
    def is_served(self) -> bool:
        """Tells whether the job is for such a user at all."""
        return self.preference is not None or self.job.definition.include_all_users


class Explaining:
    """The use case behind ``ExplainUser``; it changes nothing."""

    def __init__(self, *, store: Store, views: PreferenceViews, clock: Clock) -> None:
        self._store = store
        self._views = views
        self._clock = clock

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
            case = _Case(
                user_id=user_id,
                feature_type=feature_type,
                job=job,
                view=view,
                preference=preference,
                run=runs.get(name),
                start=start,
                end=end,
            )
            periods += await self._explained(case)
            if case.is_served and not job.is_paused and view.preference.enabled:
                next_runs += view.next_runs
        return periods, next_runs

    async def _explained(self, case: _Case) -> list[UserPeriod]:
        told = await self._told_by_items(case)
        schedule = case.view.preference.schedule
        if schedule is None:
            return [*told, await self._untold(case)]
        by_period = {each.due_time: each for each in told}
        told = [_in_period(each, schedule) for each in by_period.values()]
        told = _best_of_each(told)
        if not case.is_served or not case.view.preference.enabled:
            return [await self._untold(case), *told][:MOST_PERIODS]
        known = {each.period for each in told}
        due = await asyncio.to_thread(_due_periods, case, schedule)
        open_ones = {period: moments for period, moments in due.items() if period not in known}
        decided = await self._occurrences(case)
        told += [
            self._without_item(case, period, moments, decided)
            for period, moments in open_ones.items()
        ]
        told.sort(key=lambda each: each.due_time or case.start, reverse=True)
        return told[:MOST_PERIODS]

    async def _told_by_items(self, case: _Case) -> list[UserPeriod]:
        """Returns what the user's items tell; of shared items, what the ledger tells."""
        matching = BatchFilter(
            tenant_id=case.job.tenant_id,
            job_id=case.job.definition.job_id,
            user_id=case.user_id,
            created_after=case.start,
        )
        batches, _ = await self._store.batches.list(
            matching, page_size=_MOST_BATCHES, after=None, skip=0
        )
        told: list[UserPeriod] = []
        for batch in batches:
            if batch.request.source != SOURCE or batch.request.due_time is None:
                continue
            items, _ = await self._store.batches.list_items(
                batch, ItemFilter(user_id=case.user_id), page_size=1, after=None
            )
            told += [_told_by(batch, item) for item in items]
        known = {each.due_time for each in told}
        if case.run is not None:
            told += [
                each
                for each in _told_by_ledger(case.run, case.job.definition.job_id)
                if each.due_time not in known
            ]
        return [each for each in told if each.due_time and case.start <= each.due_time <= case.end]

    async def _occurrences(self, case: _Case) -> Mapping[datetime, Occurrence]:
        """Returns what was decided about the due times of the user's group."""
        group_key = await self._group_key(case)
        if group_key is None:
            return {}
        found = await self._store.group_runs.of_group(
            case.job.definition.job_id,
            group_key,
            tenant_id=case.job.tenant_id,
            start=case.start,
            end=case.end + _TICK,
            limit=_MOST_DUE_TIMES,
        )
        return {each.due_time: each for each in found}

    async def _group_key(self, case: _Case) -> int | None:
        wished = case.preference.schedule if case.preference is not None else None
        return await self._store.preference_groups.key_of(
            case.feature_type, wished, tenant_id=case.job.tenant_id
        )

    def _without_item(
        self,
        case: _Case,
        period: Period,
        moments: Sequence[datetime],
        decided: Mapping[datetime, Occurrence],
    ) -> UserPeriod:
        """Explains a period of which no item tells."""
        job_id, now = case.job.definition.job_id, self._clock.now()
        if moments[-1] > now:
            message = f"{case.user_id} is due at {moments[-1].isoformat()}."
            return UserPeriod(
                job_id=job_id,
                period=period,
                decision=UserDecision.NOT_YET,
                due_time=moments[-1],
                message=message,
            )
        occurrence = next((decided[at] for at in reversed(moments) if at in decided), None)
        if occurrence is not None and occurrence.decision is Decision.SKIPPED:
            return UserPeriod(
                job_id=job_id,
                period=period,
                decision=UserDecision.SKIPPED,
                reason=occurrence.reason or "",
                due_time=occurrence.due_time,
                group_key=occurrence.group_key,
                message=f"The group of {case.user_id} did not run. {occurrence.message}".strip(),
            )
        return self._untold_due(case, period, moments[-1])

    def _untold_due(self, case: _Case, period: Period, due: datetime) -> UserPeriod:
        preference, user = case.preference, case.user_id
        if case.job.is_paused:
            reason, message = Untold.JOB_PAUSED, "The job is paused; ResumeJob lets it go on."
        elif preference is not None and preference.update_time > due:
            reason = Untold.CHANGED_LATER
            when = preference.update_time.isoformat()
            message = f"The preference of {user} was set at {when}, after the due time."
        elif case.job.update_time > due:
            reason = Untold.CHANGED_LATER
            message = "The job was stored or changed after the due time."
        else:
            reason = Untold.NOT_FIRED
            message = (
                "Nobody has decided about this due time: no server with a scheduler ran, or "
                "the job had not been looked at yet."
            )
        return UserPeriod(
            job_id=case.job.definition.job_id,
            period=period,
            decision=UserDecision.SKIPPED,
            reason=reason,
            due_time=due,
            message=message,
        )

    async def _untold(self, case: _Case) -> UserPeriod:
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


def _told_by(batch: Batch, item: Item) -> UserPeriod:
    decision, message = UserDecision.DONE, f"The item of the run is {item.state}."
    if item.skip_reason in _OPTED_OUT_REASONS:
        decision, message = UserDecision.OPTED_OUT, "They opted out before their item began."
    elif item.skip_reason:
        decision, message = UserDecision.SKIPPED, f"They were skipped: {item.skip_reason}."
    return UserPeriod(
        job_id=batch.request.job_id,
        decision=decision,
        reason=item.skip_reason or "",
        due_time=batch.request.due_time,
        batch_id=batch.batch_id,
        item_id=item.item_id,
        group_key=int(batch.request.batch_metadata.get("group_key", 0)),
        message=message,
    )


def _told_by_ledger(run: UserRun, job_id: str) -> list[UserPeriod]:
    told: list[UserPeriod] = []
    if run.due_time is not None:
        told.append(
            UserPeriod(
                job_id=job_id,
                decision=UserDecision.DONE,
                due_time=run.due_time,
                batch_id=run.batch_id,
                item_id=run.item_id,
                group_key=run.group_key,
                message="There was a run for them.",
            )
        )
    if run.look_reason:
        told.append(
            UserPeriod(
                job_id=job_id,
                decision=UserDecision.SKIPPED,
                reason=run.look_reason,
                due_time=run.look_due_time,
                batch_id=run.look_batch_id,
                group_key=run.look_group_key,
                message=f"They were skipped: {run.look_reason}.",
            )
        )
    return told


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


def _due_periods(case: _Case, effective: EffectiveSchedule) -> dict[Period, list[datetime]]:
    """Returns the due times of the user's schedule by period, from the first to the last one."""
    zone = effective.time_zone
    last = period_of(effective.schedule, zone, case.end).end
    dues = due_times(
        effective.schedule, zone=zone, after=case.start - _TICK, created=case.job.create_time
    )
    found: dict[Period, list[datetime]] = {}
    for due in takewhile(lambda due: due.instant < last, dues):
        found.setdefault(period_of(effective.schedule, zone, due.instant), []).append(due.instant)
        if len(found) > _MOST_DUE_TIMES:
            break
    return found
