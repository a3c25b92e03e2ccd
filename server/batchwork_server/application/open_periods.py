"""Why a user got nothing in a period, or what they will get: where no item of theirs tells."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from batchwork_server.application.next_runs import UserNextRun
from batchwork_server.application.user_periods import (
    Case,
    Untold,
    UserDecision,
    UserPeriod,
    told_by_item,
)
from batchwork_server.clock import Clock
from batchwork_server.domain.batch import BatchState
from batchwork_server.domain.firing import Decision, Occurrence
from batchwork_server.domain.group_schedules import (
    GroupSchedule,
    MemberSkip,
    is_guest,
)
from batchwork_server.domain.preference_groups import EffectiveSchedule, Period
from batchwork_server.store.store import Store

_MOST_GROUPS = 20
_MOST_DUE_TIMES = 1000
_MOST_ENTRIES = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class _Known:
    """What is known of the groups of a user.

    Attributes:
        decided: What was decided about due times that were for the user, newest first.
        row: When the group runs next whose runs are for the user now; None when nobody has looked
            at it yet.
    """

    schedule: EffectiveSchedule
    decided: Sequence[Occurrence]
    row: GroupSchedule | None


class OpenPeriods:
    """Explains periods that no item tells of; it changes nothing."""

    def __init__(self, *, store: Store, clock: Clock) -> None:
        self._store = store
        self._clock = clock

    async def explained(
        self,
        case: Case,
        schedule: EffectiveSchedule,
        periods: Mapping[Period, Sequence[datetime]],
    ) -> list[UserPeriod]:
        """Explains periods, given the due times of the user's schedule in each of them."""
        if not periods:
            return []
        start = min(period.start for period in periods)
        end = max(period.end for period in periods)
        known = await self._known(case, schedule, start=start, end=end)
        return [
            replace(await self._explained(case, known, period, moments), period=period)
            for period, moments in periods.items()
        ]

    async def _known(
        self, case: Case, schedule: EffectiveSchedule, *, start: datetime, end: datetime
    ) -> _Known:
        job_id, tenant_id = case.job.definition.job_id, case.job.tenant_id
        own = case.group_at(self._clock.now())
        groups = dict.fromkeys([own, *case.history.groups, case.silent_key])
        found: list[Occurrence] = []
        for group_key in [key for key in groups if key is not None][:_MOST_GROUPS]:
            found += await self._store.group_runs.of_group(
                job_id, group_key, tenant_id=tenant_id, start=start, end=end, limit=_MOST_DUE_TIMES
            )
        decided = [each for each in found if _was_for(case, schedule, each)]
        decided.sort(key=lambda each: each.due_time, reverse=True)
        row = None
        if own is not None:
            row = await self._store.group_schedules.get(job_id, own, tenant_id=tenant_id)
        return _Known(schedule=schedule, decided=decided, row=row)

    async def _explained(
        self, case: Case, known: _Known, period: Period, moments: Sequence[datetime]
    ) -> UserPeriod:
        told = self._to_come(case, period, moments)
        if told is not None:
            return told
        decided = [each for each in known.decided if period.start <= each.due_time < period.end]
        ran = next((each for each in decided if each.decision is not Decision.SKIPPED), None)
        if ran is not None:
            return await self._of_run(case, ran)
        if decided:
            return _of_skip(case, decided[0])
        return await self._undecided(case, known, moments[-1])

    def _to_come(
        self, case: Case, period: Period, moments: Sequence[datetime]
    ) -> UserPeriod | None:
        """Tells of a run that is still to come in a period; none when it is over for the user."""
        now, following = self._clock.now(), case.view.next_run
        if following is not None and period.start <= following.run.due.instant < period.end:
            due = following.run.due.instant
            told = _told(case, UserDecision.NOT_YET, due, _next_in_words(case, following, now=now))
            return replace(told, group_key=following.guest_of)
        if moments[-1] > now:
            reason, message = _why_not_due(case)
            return _told(case, UserDecision.NOT_YET, moments[-1], message, reason=reason)
        return None

    async def _of_run(self, case: Case, ran: Occurrence) -> UserPeriod:
        """Tells of a run of the user's group in which no item of theirs was found so far."""
        tenant_id, user = case.job.tenant_id, case.user_id
        batch = await self._store.batches.get(ran.batch_id, tenant_id=tenant_id)
        if batch is None:
            message = (
                f"The group of {user} ran. What became of their item is not known any more: the "
                "batch is deleted."
            )
            return _of_group(case, UserDecision.DONE, ran, message, reason=Untold.RUN_DELETED)
        entries, _ = await self._store.user_items.entries(
            user, tenant_id=tenant_id, batch=batch, after=None, limit=_MOST_ENTRIES
        )
        for entry in entries:
            if entry.item is not None:
                return told_by_item(case, batch, entry.item)
        if batch.state is BatchState.DRAFT:
            message = f"The batch is being filled, and {user} is not in it yet."
            return _of_group(case, UserDecision.NOT_YET, ran, message)
        why = "they were no user of it then, or the batch ended before it was their turn."
        if case.group_at(ran.decide_time) != ran.group_key:
            why = f"they had left the group by {ran.decide_time.isoformat()}, when it began."
        message = f"The group ran without {user}: {why}"
        return _of_group(case, UserDecision.SKIPPED, ran, message, reason=Untold.NOT_IN_BATCH)

    async def _undecided(self, case: Case, known: _Known, due: datetime) -> UserPeriod:
        """Tells why nobody has decided about a due time that is over."""
        reason, message = (
            _paused_since(case, due)
            or _changed_after(case, due)
            or await self._passed_over(case, known, due)
            or (
                Untold.NOT_FIRED,
                "Nobody has decided about this due time: no server with a scheduler ran, or the "
                "job was paused, or had not been looked at yet.",
            )
        )
        return _told(case, UserDecision.SKIPPED, due, message, reason=reason)

    async def _passed_over(
        self, case: Case, known: _Known, due: datetime
    ) -> tuple[Untold, str] | None:
        """Tells why the group counts on from a later time; none when it does not."""
        row, schedule = known.row, known.schedule.schedule
        if row is None or not _is_beyond(row, due, is_same=row.schedule == schedule):
            return None
        earlier = await self._store.group_runs.of_group(
            row.job_id,
            row.group_key,
            tenant_id=row.tenant_id,
            start=case.job.create_time,
            end=due,
            limit=1,
        )
        if earlier and earlier[0].schedule == schedule:
            if case.job.is_paused:
                return None  # it was not at that time
            # What a scheduler that was away has missed is decided about when it is back.
            return Untold.JOB_PAUSED, (
                "The job was paused at that time, or before anybody had decided; what is due "
                "meanwhile is not made up for."
            )
        changes = [case.job.update_time]
        if case.default is not None:
            changes.append(case.default.update_time)
        if max(changes) > due:
            return Untold.CHANGED_LATER, (
                "The job, or the tenant's default, was set after the due time: at "
                f"{max(changes).isoformat()}."
            )
        return None


def _was_for(case: Case, schedule: EffectiveSchedule, decided: Occurrence) -> bool:
    """Tells whether a due time of a group was for the user: as a member, or as a guest."""
    key, due = decided.group_key, decided.due_time
    if key in (case.group_at(due), case.group_at(decided.decide_time)):
        return True
    moved = case.history.left(key, by=due)
    return moved is not None and is_guest(
        schedule.schedule, moved=moved, due=due, created=case.job.create_time
    )


def _next_in_words(case: Case, following: UserNextRun, *, now: datetime) -> str:
    due, begin = following.run.due.instant, following.run.start_time
    message = f"{case.user_id} is due at {due.isoformat()}."
    if following.guest_of:
        return f"{message} The group that they left serves them once more."
    if due > now:
        return message
    if begin > now:
        return f"{message} The run begins at {begin.isoformat()}."
    return f"{message} The run waits for the run of the group before it."


def _why_not_due(case: Case) -> tuple[str, str]:
    if case.job.is_paused:
        return Untold.JOB_PAUSED, f"{_paused(case)} Until then nobody is due."
    if not case.view.preference.active:
        message = "Whoever keeps them says that they rest (inactive); until then nothing is done."
        return MemberSkip.TENANT_INACTIVE, message
    return MemberSkip.ALREADY_DONE, "They had their run in this period."


def _paused(case: Case) -> str:
    note = f" ({case.job.pause_note})" if case.job.pause_note else ""
    return f"The job is paused{note}; ResumeJob lets it go on."


def _paused_since(case: Case, due: datetime) -> tuple[Untold, str] | None:
    pause_time = case.job.pause_time
    if pause_time is None or pause_time > due:
        return None
    return Untold.JOB_PAUSED, _paused(case)


def _changed_after(case: Case, due: datetime) -> tuple[Untold, str] | None:
    """Tells that the user was not in the group then, or that the job was not there."""
    if case.job.create_time > due:
        when = case.job.create_time.isoformat()
        return Untold.CHANGED_LATER, f"The job was stored at {when}, after the due time."
    changed = case.history.changed_after(due)
    if changed is None:
        return None
    return Untold.CHANGED_LATER, (
        f"The preference of {case.user_id} was set at {changed.isoformat()}, after the due time."
    )


def _is_beyond(row: GroupSchedule, due: datetime, *, is_same: bool) -> bool:
    """Tells whether a group runs next after a due time on which nobody has decided.

    Args:
        is_same: Whether the group still has the schedule that it was worked out from.
    """
    if row.next_due_time is not None:
        return row.next_due_time > due
    return not is_same or row.last_due_time >= due


def _of_skip(case: Case, decided: Occurrence) -> UserPeriod:
    message = f"The group of {case.user_id} did not run. {decided.message}".strip()
    return _of_group(case, UserDecision.SKIPPED, decided, message, reason=decided.reason or "")


def _of_group(
    case: Case, decision: UserDecision, decided: Occurrence, message: str, *, reason: str = ""
) -> UserPeriod:
    told = _told(case, decision, decided.due_time, message, reason=reason)
    return replace(told, batch_id=decided.batch_id, group_key=decided.group_key)


def _told(
    case: Case, decision: UserDecision, due: datetime, message: str, *, reason: str = ""
) -> UserPeriod:
    return UserPeriod(
        job_id=case.job.definition.job_id,
        decision=decision,
        reason=reason,
        due_time=due,
        message=message,
    )
