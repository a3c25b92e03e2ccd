"""Jobs fire: what is due becomes batches, each due time once, whoever decides."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from itertools import islice

from batchwork_server.application.batches import Batches, PreparedBatch, submission_of
from batchwork_server.clock import Clock
from batchwork_server.domain.batch import Batch
from batchwork_server.domain.firing import (
    MAX_CAUGHT_UP,
    Decided,
    Decision,
    NextRun,
    SkipReason,
    decide,
    next_run_after,
    runs_from,
    started,
)
from batchwork_server.domain.job import StoredJob
from batchwork_server.domain.job_policies import Overlap
from batchwork_server.errors import InvalidArgument, StoreUnavailable, Unavailable
from batchwork_server.failpoints import reach
from batchwork_server.logs import get_logger
from batchwork_server.store.store import DueJob, QueuedJob, Store, Transaction

log = get_logger(__name__)

SOURCE = "schedule"
"""The source of batches that a schedule has made."""

BACKFILL_SOURCE = "backfill"
"""The source of batches that a backfill has made."""

REST = timedelta(seconds=10)
"""How long a job is left alone whose run failed for a reason that may pass."""

_JOBS_AT_ONCE = 100
_RUNS_AT_ONCE = 1000
_LONGEST_MESSAGE = 2000


class Firing:
    """Makes batches of what is due. Any number of these over one database do no harm.

    Args:
        zone: Of jobs whose schedule names none.
    """

    def __init__(self, *, store: Store, batches: Batches, clock: Clock, zone: str) -> None:
        self._store = store
        self._batches = batches
        self._clock = clock
        self._zone = zone
        self._resting: dict[tuple[str, str], datetime] = {}
        self._listeners: list[Callable[[StoredJob, Decided], None]] = []

    def subscribe(self, listener: Callable[[StoredJob, Decided], None]) -> None:
        """Calls ``listener`` with each decision of this process, once it is durable."""
        self._listeners.append(listener)

    async def schedule_all(self) -> None:
        """Gives a next run to every job that has none: those that an older release stored.

        Raises:
            StoreUnavailable: what was done by then stays done.
        """
        after: tuple[str, str] | None = None
        while True:
            jobs, after = await self._store.occurrences.unscheduled(
                limit=_RUNS_AT_ONCE, after=after
            )
            found = await asyncio.to_thread(self._next_runs_of, jobs)
            async with self._store.transaction() as tx:
                for job, next_run in found:
                    if next_run is not None:
                        await self._store.occurrences.schedule_first(tx, job, next_run)
            if after is None:
                return

    def _next_runs_of(self, jobs: Sequence[StoredJob]) -> list[tuple[StoredJob, NextRun | None]]:
        now = self._clock.now()
        return [(job, next_run_after(job, now, zone=self._zone)) for job in jobs]

    async def fire_due(self) -> int:
        """Starts what was queued, decides about what is due, and tells for how many jobs.

        Raises:
            StoreUnavailable: what was decided by then stays decided; the rest is due as before.
        """
        return await self.start_queued() + await self._decide_due()

    async def start_queued(self) -> int:
        """Starts what was queued and waits for no other run any more; tells for how many jobs.

        Raises:
            StoreUnavailable: what is started by then stays so; the rest waits as before.
        """
        now = self._rested()
        limit = _JOBS_AT_ONCE + 2 * len(self._resting)
        found = await self._store.occurrences.queued(limit=limit)
        waiting = [each for each in found if _key(each.job) not in self._resting]
        for each in waiting:
            await self._or_rest(each.job, self._start(each), now=now)
        return len(waiting)

    def _rested(self) -> datetime:
        """Forgets who has rested for long enough, and returns the time."""
        now = self._clock.now()
        self._resting = {key: until for key, until in self._resting.items() if until > now}
        return now

    async def _decide_due(self) -> int:
        now = self._rested()
        limit = _JOBS_AT_ONCE + len(self._resting)
        found = await self._store.occurrences.due(now=now, limit=limit)
        due_jobs = [due for due in found if _key(due.job) not in self._resting]
        for due in due_jobs:
            await self._or_rest(due.job, self._fire(due), now=now)
        return len(due_jobs)

    async def next_start_time(self, *, after: datetime) -> datetime | None:
        """Returns when the first run begins that begins after a moment, of whatever job."""
        return await self._store.occurrences.next_start_time(after=after)

    async def _or_rest(self, job: StoredJob, decision: Awaitable[None], *, now: datetime) -> None:
        """Awaits a decision about a job, which is left alone for a while when that fails."""
        # A job that fails for a reason that nobody foresaw must not keep the others waiting.
        self._resting[_key(job)] = now + REST
        try:
            await decision
        except StoreUnavailable:
            del self._resting[_key(job)]
            raise
        except Unavailable as error:
            log.warning("job.waiting", **_named(job), reason=error.reason, error=error.message)
        else:
            del self._resting[_key(job)]
        await asyncio.sleep(0)

    async def _start(self, waiting: QueuedJob) -> None:
        """Makes the batch of a due time that was queued, unless somebody else does."""
        job, occurrence = waiting.job, waiting.occurrence
        source = BACKFILL_SOURCE if occurrence.backfill_id else SOURCE
        prepared, problem = await self._planned(job, occurrence.due_time, source=source)
        batch: Batch | None = None
        async with self._store.transaction() as tx:
            if await self._held(tx, job) != job:
                return
            now = self._clock.now()
            decided = started(occurrence, batch_id=prepared.batch_id if prepared else "", now=now)
            if prepared is None:
                decided = _failed(decided, problem)
            elif not waiting.is_parallel and await self._goes_on(tx, job):
                return
            if not await self._store.occurrences.settle(tx, occurrence, decided, now=now):
                return
            if prepared is not None:
                batch = await self._batches.insert(tx, prepared)
        reach("fire.committed")
        if batch is not None and prepared is not None:
            self._batches.announce(batch, plan=prepared.plan)
        self._tell(job, decided, now=now)

    def _tell(self, job: StoredJob, decided: Decided, *, now: datetime) -> None:
        _log(job, decided, now=now)
        for listener in self._listeners:
            listener(job, decided)

    async def _held(self, tx: Transaction, job: StoredJob) -> StoredJob | None:
        return await self._store.occurrences.hold(
            tx, job.definition.job_id, tenant_id=job.tenant_id
        )

    async def _goes_on(self, tx: Transaction, job: StoredJob) -> bool:
        runs = await self._store.changes.open_runs(
            tx, job.definition.job_id, tenant_id=job.tenant_id
        )
        return bool(runs)

    async def _fire(self, due: DueJob) -> None:
        """Decides about the runs of one job that should have begun."""
        for step in self._steps(due):
            if not await self._take(step):
                return

    def _steps(self, due: DueJob) -> Iterator[_Step]:
        """Yields what is to be decided about the runs that are up, a batch at most at a time."""
        now = self._clock.now()
        up, following = self._up(due, now=now)
        definition = due.job.definition
        decided = decide(
            up,
            following,
            now=now,
            catch_up=definition.catch_up,
            window=definition.catch_up_window,
            overlap=definition.overlap,
            is_running=due.is_running,
            is_waiting=due.is_waiting,
        )
        if len(up) == _RUNS_AT_ONCE:
            # There may be more. What is left out whatever comes is recorded first.
            decided, following = decided[:-MAX_CAUGHT_UP], up[-MAX_CAUGHT_UP]
        yield from _cut(due, decided, following)

    def _up(self, due: DueJob, *, now: datetime) -> tuple[list[NextRun], NextRun | None]:
        """Returns the runs that should have begun, as many as are looked at, and the next one."""
        up: list[NextRun] = []
        runs = runs_from(due.job, due.next_run.due_time, zone=self._zone)
        for run in islice(runs, _RUNS_AT_ONCE):
            if run.start_time > now:
                return up, run
            up.append(run)
        return up, None

    async def _take(self, step: _Step) -> bool:
        """Makes a decision durable, with its batch; tells whether it was ours to make."""
        step, prepared = await self._prepared(step)
        batch: Batch | None = None
        cancelled: Sequence[Batch] = ()
        try:
            async with self._store.transaction() as tx:
                if not await self._store.occurrences.move(tx, step.due, step.following):
                    return False
                now = self._clock.now()
                others = [each for each in step.decided if not each.starts]
                await self._store.occurrences.record(tx, step.due, others, now=now)
                fired = [each for each in step.decided if each.starts]
                # A job that was deleted and is there again may have had its run.
                if await self._store.occurrences.record(tx, step.due, fired, now=now):
                    assert prepared is not None  # noqa: S101  it has given the batch its id
                    cancelled = await self._make_room(tx, step.due.job, prepared, now=now)
                    batch = await self._batches.insert(tx, prepared)
        except _OvertakenError:
            return False
        reach("fire.committed")
        if batch is not None and prepared is not None:
            self._batches.announce(batch, plan=prepared.plan, cancelled=cancelled)
        for each in step.decided:
            if not each.starts or batch is not None:
                self._tell(step.due.job, each, now=now)
        return True

    async def _make_room(
        self, tx: Transaction, job: StoredJob, prepared: PreparedBatch, *, now: datetime
    ) -> Sequence[Batch]:
        """Looks once more, now that nobody else decides, at what goes on of a job.

        Returns:
            What was cancelled.

        Raises:
            _OvertakenError: a run began since the job was read.
        """
        match job.definition.overlap:
            case Overlap.ALLOW:
                return ()
            case Overlap.CANCEL_PREVIOUS:
                return await self._batches.cancel_runs(tx, prepared, now=now)
            case _:
                if await self._goes_on(tx, job):
                    raise _OvertakenError
                return ()

    async def _prepared(self, step: _Step) -> tuple[_Step, PreparedBatch | None]:
        """Plans the batch of a decision; one that cannot be planned is a run that failed."""
        if not step.decided or not step.decided[-1].starts:
            return step, None
        *others, last = step.decided
        prepared, problem = await self._planned(step.due.job, last.run.due_time)
        if prepared is None:
            return replace(step, decided=[*others, _failed(last, problem)]), None
        fired = replace(last, batch_id=prepared.batch_id)
        return replace(step, decided=[*others, fired]), prepared

    async def _planned(
        self, job: StoredJob, due_time: datetime, *, source: str = SOURCE
    ) -> tuple[PreparedBatch | None, str]:
        """Returns the batch of a run; none, and why not, when it cannot be made."""
        submission = submission_of(job, source=source, due_time=due_time)
        try:
            return await self._batches.prepare(submission, tenant_id=job.tenant_id), ""
        except InvalidArgument as error:
            return None, _in_words(error)


class _OvertakenError(Exception):
    """A run of the job began in between; what was decided does not hold any more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Step:
    """What one transaction decides.

    Attributes:
        decided: In the order of the due times; only the last one may have a batch.
        following: The run that is the next one after that.
    """

    due: DueJob
    decided: Sequence[Decided]
    following: NextRun | None


def _cut(due: DueJob, decided: Sequence[Decided], following: NextRun | None) -> Iterator[_Step]:
    """Cuts decisions into steps, each of which ends with a batch, but for the last one."""
    first = 0
    for place, each in enumerate(decided[:-1], 1):
        if each.starts:
            then = decided[place].run
            yield _Step(due=due, decided=decided[first:place], following=then)
            due, first = replace(due, next_run=then), place
    yield _Step(due=due, decided=decided[first:], following=following)


def _key(job: StoredJob) -> tuple[str, str]:
    return job.tenant_id, job.definition.job_id


def _named(job: StoredJob) -> dict[str, str]:
    return {"tenant_id": job.tenant_id, "job_id": job.definition.job_id}


def _in_words(error: InvalidArgument) -> str:
    text = " ".join(f"{each.path}: {each.message}" for each in error.violations)
    return text if len(text) <= _LONGEST_MESSAGE else f"{text[: _LONGEST_MESSAGE - 1]}…"


def _failed(decided: Decided, problem: str) -> Decided:
    return replace(
        decided,
        decision=Decision.SKIPPED,
        reason=SkipReason.RUN_FAILED,
        message=problem,
        batch_id="",
    )


def _log(job: StoredJob, decided: Decided, *, now: datetime) -> None:
    facts = {
        **_named(job),
        "due_time": decided.run.due_time.isoformat(),
        "lateness": (now - decided.run.start_time).total_seconds(),
    }
    if decided.starts:
        log.info("job.fired", **facts, decision=decided.decision, batch_id=decided.batch_id)
    elif decided.decision is Decision.QUEUED:
        log.info("job.queued", **facts)
    elif decided.reason is SkipReason.RUN_FAILED:
        log.warning("job.skipped", **facts, reason=decided.reason, error=decided.message)
    else:
        log.info("job.skipped", **facts, reason=decided.reason)
