"""The users whom a run of a group is for, page by page: members, guests, and who says nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import IntEnum

from batchwork_server.domain.effective_preference import default_wish_of
from batchwork_server.domain.group_schedules import (
    GroupSchedule,
    MemberSkip,
    RunTerms,
    UserRun,
    is_guest,
    overrides_of,
    schedule_of_group,
)
from batchwork_server.domain.job import StoredJob
from batchwork_server.domain.preference import DefaultPreference, Preference
from batchwork_server.domain.preference_groups import Period, PreferenceGroup, period_of
from batchwork_server.store.store import Store

PAGE_USERS = 1000
"""A transaction of a run takes at most so many users."""

_EPOCH = datetime.fromisoformat("1970-01-01T00:00:00+00:00")
_MICROSECOND = timedelta(microseconds=1)


class Stage(IntEnum):
    """Whose turn it is."""

    MEMBERS = 0  # whose preference is in the group
    GUESTS = 1  # who left the group, and would have no run in this period
    SILENT = 2  # who has set nothing, where the job is for them as well


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where a page of users starts.

    Attributes:
        since: Guests are those who left the group since then.
        after: The user before the page; empty for the first page of a stage.
    """

    stage: Stage
    since: datetime
    after: str = ""

    def __str__(self) -> str:
        return f"{int(self.stage)}:{(self.since - _EPOCH) // _MICROSECOND}:{self.after}"

    @classmethod
    def read(cls, text: str) -> Place:
        """Reads what ``str`` wrote."""
        stage, since, after = text.split(":", 2)
        return cls(stage=Stage(int(stage)), since=_EPOCH + int(since) * _MICROSECOND, after=after)


@dataclass(frozen=True, slots=True, kw_only=True)
class UserPage:
    """Users of a run.

    Attributes:
        preferences: Their wishes, with what counts where they say nothing.
        skipped: Those for whom nothing is to be done, and why.
        periods: The period of each that this run is for.
        following: Where the next page starts; None after the last one.
    """

    preferences: Sequence[Preference]
    skipped: Mapping[str, str]
    periods: Mapping[str, Period]
    following: Place | None


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupRun:
    """A due time of a job's group.

    Attributes:
        row: With the schedule by which it is due.
    """

    row: GroupSchedule
    job: StoredJob
    group: PreferenceGroup
    default: DefaultPreference | None
    due_time: datetime

    @property
    def terms(self) -> RunTerms:
        """By what it goes until its last page."""
        assert self.row.schedule is not None  # noqa: S101  a run is due by one
        return RunTerms(job=self.job, schedule=self.row.schedule, default=self.default)


class GroupPages:
    """Reads the users of runs.

    Args:
        zone: Where nobody names one.
    """

    def __init__(self, *, store: Store, zone: str) -> None:
        self._store = store
        self._zone = zone

    async def run_going_on(
        self, row: GroupSchedule, terms: RunTerms, *, due_time: datetime
    ) -> GroupRun | None:
        """Returns a run as it began; none when the group is gone."""
        group = await self._store.preference_groups.get(row.group_key, tenant_id=row.tenant_id)
        if group is None:
            return None
        return GroupRun(
            row=replace(row, schedule=terms.schedule),
            job=terms.job,
            group=group,
            default=terms.default,
            due_time=due_time,
        )

    async def run_of(
        self, row: GroupSchedule, job: StoredJob, *, due_time: datetime
    ) -> GroupRun | None:
        """Returns a run that begins; none when the group is gone."""
        tenant_id = row.tenant_id
        group = await self._store.preference_groups.get(row.group_key, tenant_id=tenant_id)
        if group is None or row.schedule is None:
            return None
        default = await self._store.preferences.get_default(group.feature_type, tenant_id=tenant_id)
        return GroupRun(row=row, job=job, group=group, default=default, due_time=due_time)

    async def page(self, run: GroupRun, place: Place | None) -> UserPage:
        """Returns the next page, which has no users only when there are none left to look at."""
        by_user: dict[str, tuple[Preference, Period]] = {}
        while place is not None and len(by_user) < PAGE_USERS:
            read, place = await self._read(run, place)
            for each in read:
                by_user.setdefault(each[0].user_id, each)  # one who moved may be read twice
        found = list(by_user.values())
        users = [preference.user_id for preference, _ in found]
        runs = await self._store.group_runs.runs_of(
            users, job_id=run.job.definition.job_id, tenant_id=run.row.tenant_id
        )
        taken = [
            (self._merged(run, preference), period, reason)
            for preference, period in found
            if not _is_looked_at(runs.get(preference.user_id), run)
            for reason in [_skip_reason(preference, period, runs.get(preference.user_id))]
        ]
        return UserPage(
            preferences=[preference for preference, _, _ in taken],
            skipped={preference.user_id: reason for preference, _, reason in taken if reason},
            periods={preference.user_id: period for preference, period, _ in taken},
            following=place,
        )

    async def _read(
        self, run: GroupRun, place: Place
    ) -> tuple[Sequence[tuple[Preference, Period]], Place | None]:
        match place.stage:
            case Stage.MEMBERS:
                return await self._members(run, place)
            case Stage.GUESTS:
                return await self._guests(run, place)
            case Stage.SILENT:
                return await self._silent(run, place)

    async def _members(
        self, run: GroupRun, place: Place
    ) -> tuple[Sequence[tuple[Preference, Period]], Place | None]:
        members, last = await self._store.preferences.list_members(
            run.row.group_key,
            tenant_id=run.row.tenant_id,
            page_size=PAGE_USERS,
            after=place.after or None,
        )
        period = _period(run)
        return [(member, period) for member in members], _next(run, place, last)

    async def _guests(
        self, run: GroupRun, place: Place
    ) -> tuple[Sequence[tuple[Preference, Period]], Place | None]:
        moved, last = await self._store.group_members.moved_from(
            run.row.group_key,
            tenant_id=run.row.tenant_id,
            feature_type=run.group.feature_type,
            since=place.since,
            page_size=PAGE_USERS,
            after=place.after,
        )
        periods = [(each, self._period_of_guest(run, each)) for each in moved]
        guests = [(each, period) for each, period in periods if period is not None]
        runs = await self._store.group_runs.runs_of(
            [each.user_id for each, _ in guests],
            job_id=run.job.definition.job_id,
            tenant_id=run.row.tenant_id,
        )
        without = [
            (each, period)
            for each, period in guests
            if each.user_id not in runs or not runs[each.user_id].is_in(period)
        ]
        return without, _next(run, place, last)

    def _period_of_guest(self, run: GroupRun, preference: Preference) -> Period | None:
        """Returns the period that the group's run is for; none for one who is no guest."""
        effective = schedule_of_group(run.job, preference.schedule, run.default, zone=self._zone)
        if effective is None or not is_guest(
            effective.schedule,
            moved=preference.update_time,
            due=run.due_time,
            created=run.job.create_time,
        ):
            return None
        return period_of(effective.schedule, self._zone, run.due_time)

    async def _silent(
        self, run: GroupRun, place: Place
    ) -> tuple[Sequence[tuple[Preference, Period]], Place | None]:
        users, last = await self._store.group_members.without_preference(
            run.group.feature_type,
            tenant_id=run.row.tenant_id,
            page_size=PAGE_USERS,
            after=place.after,
        )
        period = _period(run)
        wishes = [
            silent_preference(
                user,
                feature_type=run.group.feature_type,
                tenant_id=run.row.tenant_id,
                now=run.due_time,
            )
            for user in users
        ]
        return [(wish, period) for wish in wishes], _next(run, place, last)

    def _merged(self, run: GroupRun, preference: Preference) -> Preference:
        overrides = overrides_of(run.job, run.default, preference)
        return replace(preference, template_overrides=overrides)


def serves_silent(
    job: StoredJob, group: PreferenceGroup, default: DefaultPreference | None
) -> bool:
    """Tells whether a group also has the users who have set nothing."""
    wish = default or default_wish_of(job)
    is_wanted = wish is None or wish.enabled
    return job.definition.include_all_users and group.schedule is None and is_wanted


def _next(run: GroupRun, place: Place, last: str | None) -> Place | None:
    if last is not None:
        return replace(place, after=last)
    if place.stage is Stage.MEMBERS:
        return Place(stage=Stage.GUESTS, since=place.since)
    if place.stage is Stage.GUESTS and serves_silent(run.job, run.group, run.default):
        return Place(stage=Stage.SILENT, since=place.since)
    return None


def _period(run: GroupRun) -> Period:
    assert run.row.schedule is not None  # noqa: S101  run_of has looked
    return period_of(run.row.schedule, "UTC", run.due_time)


def _is_looked_at(last: UserRun | None, run: GroupRun) -> bool:
    """Tells whether the user has had their turn in this run: they moved while it was filled."""
    return (
        last is not None
        and last.look_due_time == run.due_time
        and last.look_group_key == run.row.group_key
    )


def _skip_reason(preference: Preference, period: Period, last: UserRun | None) -> str | None:
    if not preference.active:
        return MemberSkip.TENANT_INACTIVE
    if last is not None and last.is_in(period):
        return MemberSkip.ALREADY_DONE
    return None


def silent_preference(
    user_id: str, *, feature_type: str, tenant_id: str, now: datetime
) -> Preference:
    """Returns what stands for the preference of a user who is served and has set nothing."""
    return Preference(
        tenant_id=tenant_id,
        user_id=user_id,
        feature_type=feature_type,
        enabled=True,
        schedule=None,
        template_overrides={},
        revision=0,
        create_time=now,
        update_time=now,
    )
