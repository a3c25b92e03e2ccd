"""Runs that somebody waits for: jobs by their names, or all that is due, until they are over."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import timedelta

from batchwork_server.application.batches import Batches
from batchwork_server.application.firing import Firing
from batchwork_server.application.group_firing import GroupFiring
from batchwork_server.clock import Clock
from batchwork_server.domain.batch import Batch, BatchState
from batchwork_server.domain.caller import Caller
from batchwork_server.domain.filters import BatchFilter
from batchwork_server.domain.firing import Decided, SkipReason
from batchwork_server.domain.group_schedules import GroupSchedule
from batchwork_server.domain.job import JobShape, StoredJob
from batchwork_server.domain.submission import Idempotency
from batchwork_server.errors import InvalidArgument, NotFound, Unavailable
from batchwork_server.logs import get_logger
from batchwork_server.store.store import Store
from batchwork_server.wakeups import Wakeups

log = get_logger(__name__)

LOOK_INTERVAL = timedelta(seconds=1)
"""How long an end can stay unseen that nobody announced, such as that on another server."""

_GOING_ON = (BatchState.PENDING, BatchState.RUNNING, BatchState.CANCELLING)
_PAGE = 1000
_MOST_DUE = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class OnceOutcome:
    """What became of the runs.

    Attributes:
        batches: As they were last seen.
        problems: Runs that could not be made, in words.
        is_interrupted: Whether the waiting was given up; what was not over then goes on later.
    """

    batches: Sequence[Batch]
    problems: Sequence[str]
    is_interrupted: bool = False

    def is_completed(self, *, strict: bool) -> bool:
        """Tells whether every run completed; strictly, whether no item of any of them failed."""
        good = {BatchState.SUCCEEDED}
        if not strict:
            good.add(BatchState.PARTIALLY_SUCCEEDED)
        return not self.problems and all(batch.state in good for batch in self.batches)


class Once:
    """Makes runs and waits for their ends; the engine of this process, or of others, does the work.

    A paused batch that does not resume by itself is waited for no longer.

    Args:
        groups: None leaves groups of preferences alone.
    """

    def __init__(
        self,
        *,
        store: Store,
        batches: Batches,
        firing: Firing,
        groups: GroupFiring | None = None,
        clock: Clock,
        wakeups: Wakeups,
    ) -> None:
        self._store = store
        self._batches = batches
        self._firing = firing
        self._groups = groups
        self._clock = clock
        self._waiting: dict[int, Batch] = {}
        self._seen: list[Batch] = []
        self._problems: list[str] = []
        self._fired: list[tuple[str, str]] = []
        self._is_stopped = False
        self._changed = asyncio.Event()
        wakeups.subscribe(self._hear)
        firing.subscribe(self._decided)
        if groups is not None:
            groups.subscribe(self._group_decided)

    def stop(self) -> None:
        """Gives the waiting up."""
        self._is_stopped = True
        self._changed.set()

    async def run_named(
        self, job_ids: Iterable[str], *, tenant_id: str, user_ids: frozenset[str] = frozenset()
    ) -> OnceOutcome:
        """Runs jobs of a tenant and waits until all the runs are over.

        Args:
            job_ids: A job that is named twice runs once.
            tenant_id: Whose jobs.
            user_ids: Whose items; all of them when there are none.

        Raises:
            Unavailable: the database is away.
        """
        for job_id in dict.fromkeys(job_ids):
            try:
                await self._run(job_id, tenant_id=tenant_id, user_ids=user_ids)
            except NotFound as error:
                self._problems.append(f"{error.message} Its tenant would be {tenant_id!r}.")
        return await self._outcome()

    async def run_due(self) -> OnceOutcome:
        """Finishes what is open, then fires what is due and waits until those runs are over.

        What an earlier process left goes first, so that a run of today is not skipped because that
        of yesterday was cut off.

        Raises:
            Unavailable: the database is away.
        """
        await self._wait_for_open()
        await self._until_over()
        if not self._is_stopped:
            await self._fire()
            await self._until_over()
        # What was due and had to wait for another run of its job.
        while not self._is_stopped and await self._firing.start_queued():
            await self._wait_for_fired()
            await self._until_over()
        return await self._outcome()

    async def run_due_for(self, user_ids: frozenset[str]) -> OnceOutcome:
        """Runs the jobs that are due for some users only, and waits until those runs are over.

        Their due times stay due, else all others would miss theirs. Jobs whose items are not one
        user's each are left out.

        Raises:
            Unavailable: the database is away.
        """
        await self._firing.schedule_all()
        for due in await self._store.occurrences.due(now=self._clock.now(), limit=_MOST_DUE):
            job_id, tenant_id = due.job.definition.job_id, due.job.tenant_id
            if due.job.definition.shape is JobShape.INDIVIDUAL:
                await self._run(job_id, tenant_id=tenant_id, user_ids=user_ids)
            else:
                log.warning("once.left_out", job_id=job_id, tenant_id=tenant_id)
        return await self._outcome()

    async def _run(self, job_id: str, *, tenant_id: str, user_ids: frozenset[str]) -> None:
        try:
            batch = await self._batches.run_job(
                job_id,
                caller=Caller(tenant_id=tenant_id, name="once"),
                idempotency=Idempotency(),
                user_ids=user_ids,
            )
        except (InvalidArgument, Unavailable) as error:
            self._problems.append(f"The job {job_id!r} cannot run: {error.message}")
        else:
            self._wait_for(batch)

    async def _wait_for_open(self) -> None:
        """Waits for the batches that are going on now, those of other processes included."""
        matching = BatchFilter(tenant_id=None, states=_GOING_ON)
        after: int | None = None
        while True:
            found, after = await self._store.batches.list(
                matching, page_size=_PAGE, after=after, skip=0
            )
            for batch in found:
                self._wait_for(batch)
            if after is None:
                return

    async def _fire(self) -> None:
        now = self._clock.now()
        await self._firing.schedule_all()
        while await self._firing.fire_due():
            pass
        if self._groups is not None:
            await self._groups.reconcile()
            while await self._groups.fire_due():
                pass
        for due in await self._store.occurrences.due(now=now, limit=_MOST_DUE):
            self._problems.append(
                f"The job {due.job.definition.job_id!r} of the tenant {due.job.tenant_id!r} is "
                "still due: what its run needs is away."
            )
        if self._groups is not None:
            for left in await self._store.group_schedules.due(now=now, limit=_MOST_DUE):
                self._problems.append(
                    f"The group {left.row.group_key} of the job {left.row.job_id!r} of the tenant "
                    f"{left.row.tenant_id!r} is still due: what its run needs is away."
                )
        await self._wait_for_fired()

    async def _wait_for_fired(self) -> None:
        fired, self._fired = self._fired, []
        for tenant_id, batch_id in fired:
            batch = await self._store.batches.get(batch_id, tenant_id=tenant_id)
            if batch is not None:
                self._wait_for(batch)

    def _decided(self, job: StoredJob, decided: Decided) -> None:
        if decided.batch_id:
            self._fired.append((job.tenant_id, decided.batch_id))
        elif decided.reason is SkipReason.RUN_FAILED:
            self._problems.append(
                f"The job {job.definition.job_id!r} of the tenant {job.tenant_id!r} cannot run: "
                f"{decided.message}"
            )

    def _group_decided(self, row: GroupSchedule, decided: Decided) -> None:
        if decided.batch_id:
            self._fired.append((row.tenant_id, decided.batch_id))
        elif decided.reason is SkipReason.RUN_FAILED:
            self._problems.append(
                f"The group {row.group_key} of the job {row.job_id!r} of the tenant "
                f"{row.tenant_id!r} cannot run: {decided.message}"
            )

    def _wait_for(self, batch: Batch) -> None:
        self._waiting[batch.key] = batch
        self._look_at(batch)

    def _hear(self, batch: Batch) -> None:
        if batch.key in self._waiting:
            self._look_at(batch)

    def _look_at(self, batch: Batch) -> None:
        """Stops waiting for a batch that is over, or that waits for somebody."""
        rests = batch.state is BatchState.PAUSED and batch.resume_time is None
        if batch.state.is_final or rests:
            self._waiting.pop(batch.key, None)
            self._seen.append(batch)
            self._changed.set()

    async def _until_over(self) -> None:
        while self._waiting and not self._is_stopped:
            self._changed.clear()
            if not await self._clock.wait(self._changed, LOOK_INTERVAL):
                await self._look()

    async def _look(self) -> None:
        """Looks at what is waited for: it may be over without a word."""
        for key, batch in list(self._waiting.items()):
            try:
                current = await self._store.batches.get_by_key(key)
            except Unavailable as error:
                log.warning("once.waiting", reason=error.reason, error=error.message)
                return
            if current is not None:
                self._hear(current)
            elif self._waiting.pop(key, None):
                self._problems.append(f"The batch {batch.batch_id!r} was deleted meanwhile.")

    async def _outcome(self) -> OnceOutcome:
        await self._until_over()
        batches = [*self._seen, *self._waiting.values()]
        outcome = OnceOutcome(
            batches=batches,
            problems=tuple(self._problems),
            is_interrupted=self._is_stopped and bool(self._waiting),
        )
        log.info(
            "once.finished",
            runs=len(batches),
            states=Counter(batch.state.value for batch in batches),
            problems=len(outcome.problems),
            is_interrupted=outcome.is_interrupted,
        )
        return outcome
