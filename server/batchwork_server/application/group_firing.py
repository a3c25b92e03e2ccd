"""Groups of preferences fire: what is due becomes batches, each due time once, whoever decides."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from itertools import islice

from batchwork_server.application.batches import Batches, PreparedBatch
from batchwork_server.application.group_filling import FirstPage, GroupFilling, Overtaken
from batchwork_server.application.group_schedules import GroupSchedules
from batchwork_server.clock import Clock
from batchwork_server.domain.batch import Batch
from batchwork_server.domain.firing import (
    MAX_CAUGHT_UP,
    Decided,
    Decision,
    NextRun,
    SkipReason,
    decide,
)
from batchwork_server.domain.group_schedules import ASLEEP, GroupSchedule, group_runs
from batchwork_server.domain.job import PreferenceSource, StoredJob
from batchwork_server.domain.job_policies import Overlap
from batchwork_server.errors import InvalidArgument, StoreUnavailable, Unavailable
from batchwork_server.failpoints import reach
from batchwork_server.logs import get_logger
from batchwork_server.store.store import DueGroup, Store, Transaction

log = get_logger(__name__)

PAUSE = timedelta(seconds=1)
"""How long a group is left alone whose job has changed at the very moment."""

REST = timedelta(seconds=10)
"""How long a group is left alone whose run waits, or failed for a reason that may pass."""

_GROUPS_AT_ONCE = 100
_RUNS_AT_ONCE = 1000
_LONGEST_MESSAGE = 2000


class GroupFiring:
    """Makes batches of the groups that are due. Any number of these over one database do no harm.

    A due time that has to wait for the batch before it stays the group's next one until then.
    """

    def __init__(
        self,
        *,
        store: Store,
        batches: Batches,
        schedules: GroupSchedules,
        filling: GroupFilling,
        clock: Clock,
    ) -> None:
        self._store = store
        self._batches = batches
        self._schedules = schedules
        self._filling = filling
        self._clock = clock
        self._resting: dict[tuple[str, str, int], datetime] = {}
        self._listeners: list[Callable[[GroupSchedule, Decided], None]] = []

    def subscribe(self, listener: Callable[[GroupSchedule, Decided], None]) -> None:
        """Calls ``listener`` with each decision of this process, once it is durable."""
        self._listeners.append(listener)

    def _tell(self, row: GroupSchedule, decided: Decided, *, now: datetime) -> None:
        _log(row, decided, now=now)
        for listener in self._listeners:
            listener(row, decided)

    async def reconcile(self) -> None:
        """Gives every group of every preference-based job its schedule."""
        await self._schedules.reconcile()

    async def next_start_time(self, *, after: datetime) -> datetime | None:
        """Returns when a group is to be looked at first after a moment."""
        return await self._store.group_schedules.next_start_time(after=after)

    async def fire_due(self) -> int:
        """Decides about what is due, fills what is begun, and tells for how many groups.

        Raises:
            StoreUnavailable: what was decided by then stays decided; the rest is due as before.
        """
        now = self._clock.now()
        self._resting = {key: until for key, until in self._resting.items() if until > now}
        found = await self._store.group_schedules.due(
            now=now, limit=_GROUPS_AT_ONCE + len(self._resting)
        )
        due_groups = [due for due in found if due.row.key not in self._resting]
        for due in due_groups:
            await self._or_rest(due, now=now)
        return len(due_groups) + await self._filling.fill()

    async def _or_rest(self, due: DueGroup, *, now: datetime) -> None:
        """Decides about a group, which is left alone for a while when that fails."""
        # A group that fails for a reason that nobody foresaw must not keep the others waiting.
        self._resting[due.row.key] = now + REST
        try:
            is_settled = await self._look_at(due)
        except StoreUnavailable:
            del self._resting[due.row.key]
            raise
        except Unavailable as error:
            log.warning("group.waiting", **_named(due.row), reason=error.reason)
        else:
            if is_settled:
                del self._resting[due.row.key]
            else:
                self._resting[due.row.key] = now + PAUSE
        await asyncio.sleep(0)

    async def _look_at(self, due: DueGroup) -> bool:
        """Does what is to be done about a group; tells whether nothing is left to be done now."""
        if due.row.filling is not None:
            await self._filling.take_up(due)
        elif due.job is None or not _has_groups(due.job):
            async with self._store.transaction() as tx:
                await self._store.group_schedules.drop(tx, due.row)
        elif due.job.is_paused:
            await self._leave_to_resume(due.row)
        elif _is_current(due.row, due.job):
            await self._decide(due, due.job)
        else:
            # The job has changed since the last look; the due time may be another one.
            await self._schedules.reconcile()
            return False
        return True

    async def _leave_to_resume(self, row: GroupSchedule) -> None:
        """Lets a group of a paused job count anew when that is resumed."""
        async with self._store.transaction() as tx:
            await self._store.group_schedules.reset(
                tx, row.job_id, tenant_id=row.tenant_id, now=self._clock.now()
            )

    async def _decide(self, due: DueGroup, job: StoredJob) -> None:
        """Decides about the due times that are up, as far as the first that begins or waits."""
        now = self._clock.now()
        up, following = _up(due.row, now=now)
        if not up:
            await self._move(due.row, replace(due.row), (), look=following)
            return
        decided = _decided(due, job, up, following, now=now)
        skipped: list[Decided] = []
        then = following
        for each, then in zip(decided, [*up[1:], following], strict=False):
            if each.decision is Decision.QUEUED:
                await self._let_wait(due.row, skipped, each)
                return
            if each.starts:
                await self._begin(due, job, skipped, each, then=then)
                return
            skipped.append(each)
        after = _moved(due.row, then=then, last=skipped[-1].run)
        await self._move(due.row, after, skipped, look=then)

    async def _let_wait(
        self, row: GroupSchedule, skipped: Sequence[Decided], waiting: Decided
    ) -> None:
        after = replace(row, next_due_time=waiting.run.due_time, queued_as=waiting.queued_as)
        look = NextRun(due_time=waiting.run.due_time, start_time=self._clock.now() + REST)
        if await self._move(row, after, skipped, look=look) and row.queued_as is None:
            log.info("group.queued", **_named(row), due_time=waiting.run.due_time.isoformat())

    async def _move(
        self,
        row: GroupSchedule,
        after: GroupSchedule,
        decided: Sequence[Decided],
        *,
        look: NextRun | None,
        sleeps_for: StoredJob | None = None,
    ) -> bool:
        """Writes down decisions without a batch; tells whether they were ours to make.

        Args:
            sleeps_for: Given when the group falls asleep if it has nobody for that job.
        """
        now = self._clock.now()
        async with self._store.transaction() as tx:
            if sleeps_for is not None and await self._has_nobody(tx, row, sleeps_for):
                after, look = replace(after, job_revision=ASLEEP, next_due_time=None), None
            moved = await self._store.group_schedules.move(
                tx, row, after, look_time=look.start_time if look is not None else None
            )
            if moved:
                await self._store.group_runs.record(tx, row, decided, now=now)
        if moved:
            for each in decided:
                self._tell(row, each, now=now)
        return moved

    async def _has_nobody(self, tx: Transaction, row: GroupSchedule, job: StoredJob) -> bool:
        """Tells whether a group has no members, and none joins it in this transaction."""
        group = await self._store.preference_groups.lock(tx, row.group_key, tenant_id=row.tenant_id)
        if group is None:
            return True
        has_silent = job.definition.include_all_users and group.schedule is None
        return group.member_count == 0 and not has_silent

    async def _begin(
        self,
        due: DueGroup,
        job: StoredJob,
        skipped: Sequence[Decided],
        fired: Decided,
        *,
        then: NextRun | None,
    ) -> None:
        """Makes the batch of a due time, with its first page of members; none for no members."""
        after = _moved(due.row, then=then, last=fired.run)
        try:
            first = await self._filling.first_page(due.row, job, due_time=fired.run.due_time)
        except InvalidArgument as error:
            failed = _failed(fired, _in_words(error))
            await self._move(due.row, after, [*skipped, failed], look=then)
            return
        if first is None:
            await self._pass_over(due.row, job, after, skipped, then=then)
            return
        fired = replace(fired, batch_id=first.prepared.batch_id)
        await self._store_begun(due, after, [*skipped, fired], first, then=then)

    async def _pass_over(
        self,
        row: GroupSchedule,
        job: StoredJob,
        after: GroupSchedule,
        skipped: Sequence[Decided],
        *,
        then: NextRun | None,
    ) -> None:
        """Moves on from a due time that is for nobody; a group without members falls asleep.

        It does not while somebody may be its guest yet: who left it since the due time.
        """
        left, _ = await self._store.group_members.moved_from(
            row.group_key,
            tenant_id=row.tenant_id,
            feature_type=job.definition.feature_type,
            since=after.last_due_time,
            page_size=1,
            after="",
        )
        await self._move(row, after, skipped, look=then, sleeps_for=None if left else job)

    async def _store_begun(
        self,
        due: DueGroup,
        after: GroupSchedule,
        decided: Sequence[Decided],
        first: FirstPage,
        *,
        then: NextRun | None,
    ) -> None:
        row, now = due.row, self._clock.now()
        look = then.start_time if then is not None else None
        if first.filling is not None:
            look = self._filling.lease_from(now)
        after = replace(after, last_batch_id=first.prepared.batch_id, filling=first.filling)
        cancelled: Sequence[Batch] = ()
        try:
            async with self._store.transaction() as tx:
                if not await self._store.group_schedules.move(tx, row, after, look_time=look):
                    return
                *others, fired = decided
                await self._store.group_runs.record(tx, row, others, now=now)
                # A job that was deleted and is there again may have had its run.
                if not await self._store.group_runs.record(tx, row, [fired], now=now):
                    raise Overtaken
                cancelled = await self._make_room(tx, due, first.prepared, now=now)
                batch = await self._batches.insert(tx, first.prepared)
                await self._filling.claim(tx, row, first.page, batch_id=batch.batch_id)
                await self._filling.keep_terms(tx, row, first)
        except Overtaken:
            # Its members, or the due time itself, had their run meanwhile.
            await self._after_race(row, after, decided, then=then)
            return
        reach("fire.committed")
        self._batches.announce(batch, plan=first.prepared.plan, cancelled=cancelled)
        self._filling.begun(after, first)
        for each in decided:
            self._tell(row, each, now=now)

    async def _after_race(
        self,
        row: GroupSchedule,
        after: GroupSchedule,
        decided: Sequence[Decided],
        *,
        then: NextRun | None,
    ) -> None:
        """Moves on from a due time that was decided before; the others are due still."""
        *others, fired = decided
        known = await self._store.group_runs.of_group(
            row.job_id,
            row.group_key,
            tenant_id=row.tenant_id,
            start=fired.run.due_time,
            end=fired.run.due_time + timedelta(microseconds=1),
            limit=1,
        )
        if known:
            moved = replace(after, last_batch_id=row.last_batch_id, filling=None)
            await self._move(row, moved, others, look=then)

    async def _make_room(
        self, tx: Transaction, due: DueGroup, newer: PreparedBatch, *, now: datetime
    ) -> Sequence[Batch]:
        """Cancels the group's batch that goes on, if that is what the job says."""
        assert due.job is not None  # noqa: S101  it is what fires
        if due.job.definition.overlap is not Overlap.CANCEL_PREVIOUS or not due.is_running:
            return ()
        last = await self._store.changes.lock(
            tx, due.row.last_batch_id, tenant_id=due.row.tenant_id
        )
        if last is None or last.state.is_final:
            return ()
        return await self._batches.cancel_for(tx, [last], newer, now=now)


def _has_groups(job: StoredJob) -> bool:
    return job.definition.preference_source is PreferenceSource.DYNAMIC


def _is_current(row: GroupSchedule, job: StoredJob) -> bool:
    return row.job_revision == job.revision and row.job_create_time == job.create_time


def _up(row: GroupSchedule, *, now: datetime) -> tuple[list[NextRun], NextRun | None]:
    """Returns the runs that should have begun, as many as are looked at, and the next one."""
    up: list[NextRun] = []
    for run in islice(group_runs(row), _RUNS_AT_ONCE):
        if run.start_time > now:
            return up, run
        up.append(run)
    return up, None


def _decided(
    due: DueGroup,
    job: StoredJob,
    up: Sequence[NextRun],
    following: NextRun | None,
    *,
    now: datetime,
) -> list[Decided]:
    definition = job.definition
    if due.row.queued_as is not None:
        waiting = Decided(run=up[0], decision=due.row.queued_as)
        if due.is_running:
            return [replace(waiting, decision=Decision.QUEUED, queued_as=due.row.queued_as)]
        waited = (now - up[0].start_time) // timedelta(seconds=1)
        message = f"It waited {waited} s for the run of the group before it."
        # What became due meanwhile is decided when this one has begun.
        rest = [Decided(run=run, decision=Decision.FIRED) for run in up[1:]]
        return [replace(waiting, message=message), *rest]
    decided = decide(
        up,
        following,
        now=now,
        catch_up=definition.catch_up,
        window=definition.catch_up_window,
        overlap=definition.overlap,
        is_running=due.is_running,
    )
    if len(up) == _RUNS_AT_ONCE:
        # There may be more. What is left out whatever comes is recorded first.
        return decided[: -MAX_CAUGHT_UP + 1]
    return decided


def _moved(row: GroupSchedule, *, then: NextRun | None, last: NextRun) -> GroupSchedule:
    return replace(
        row,
        next_due_time=then.due_time if then is not None else None,
        last_due_time=last.due_time,
        queued_as=None,
    )


def _named(row: GroupSchedule) -> dict[str, object]:
    return {"tenant_id": row.tenant_id, "job_id": row.job_id, "group_key": row.group_key}


def _in_words(error: InvalidArgument) -> str:
    text = " ".join(f"{each.path}: {each.message}" for each in error.violations)
    return text if len(text) <= _LONGEST_MESSAGE else f"{text[: _LONGEST_MESSAGE - 1]}…"


def _failed(decided: Decided, problem: str) -> Decided:
    return replace(
        decided, decision=Decision.SKIPPED, reason=SkipReason.RUN_FAILED, message=problem
    )


def _log(row: GroupSchedule, decided: Decided, *, now: datetime) -> None:
    facts = {
        **_named(row),
        "due_time": decided.run.due_time.isoformat(),
        "lateness": (now - decided.run.start_time).total_seconds(),
    }
    if decided.starts:
        log.info("group.fired", **facts, decision=decided.decision, batch_id=decided.batch_id)
    elif decided.reason is SkipReason.RUN_FAILED:
        log.warning("group.skipped", **facts, reason=decided.reason, error=decided.message)
    else:
        log.info("group.skipped", **facts, reason=decided.reason)
