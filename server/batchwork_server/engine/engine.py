"""Starts and stops the loops of the working half, in order."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from datetime import timedelta
from typing import ClassVar

from batchwork_server.clock import Clock
from batchwork_server.engine.batch_processor import BatchProcessor
from batchwork_server.engine.batch_scheduler import BatchScheduler
from batchwork_server.engine.closing import Closing
from batchwork_server.engine.deadlines import Deadlines
from batchwork_server.engine.deferred_validation import DeferredValidation
from batchwork_server.engine.isolation import ChildProcesses
from batchwork_server.engine.item_durations import ItemDurations
from batchwork_server.engine.job_file import JobFile
from batchwork_server.engine.leases import Leases
from batchwork_server.engine.loop import supervise, tick
from batchwork_server.engine.loop_lag import LoopLag
from batchwork_server.engine.notifications import Notifications
from batchwork_server.engine.preference_poller import CONFIG_SOURCE, PreferencePoller
from batchwork_server.engine.recovery import Recovery
from batchwork_server.engine.retention import Retention
from batchwork_server.engine.template_source import TEMPLATE_SOURCE, TemplateSource
from batchwork_server.engine.user_source import USER_SOURCE, UserSource
from batchwork_server.errors import Unavailable
from batchwork_server.logs import get_logger
from batchwork_server.ports import Dispatcher

log = get_logger(__name__)

CLAIM_GRACE = timedelta(seconds=5)
"""How long a claim that is under way may take at a stop."""

CANCEL_GRACE = timedelta(seconds=5)
"""How long a worker that was cancelled at a stop may take to end."""

RELEASE_TRIES = 6
"""How often what is in hand is given back at a stop, while the database is away or full."""

RELEASE_PAUSE = timedelta(milliseconds=500)
"""Between two of those tries."""

RELEASE_GRACE = timedelta(seconds=5)
"""How long all of them may take, with a database that does not even refuse."""

SENDING_GRACE = timedelta(seconds=5)
"""How long notifications that are being sent may take at a stop; the rest is sent again."""


class Engine:
    """The durable half of a server: recovery, workers, committer, leases, dispatch.

    Args:
        slots: Items in flight at once.
        lease: How long a chunk stays taken without a word from its worker.
        children: Ended with the engine.
        job_file: Looked at before anything fires; None when there is no such file.
        processes: Whether chunks are taken. Without, what is there waits, and what ends otherwise,
            by a cancellation or its time, ends nevertheless.
        fires: Whether jobs fire when they are due.
        preference_poller: None when no Config Database is followed.
        user_source: None when the users are those of the embedded table.
        template_source: None when the templates are files.
        notifications: None when the operator names nobody who could be told.
        loop_lag: None when nobody watches the server.
    """

    WATCH_INTERVAL: ClassVar = timedelta(seconds=1)

    def __init__(
        self,
        *,
        processor: BatchProcessor,
        dispatcher: Dispatcher,
        recovery: Recovery,
        retention: Retention,
        closing: Closing,
        deadlines: Deadlines,
        deferred: DeferredValidation,
        scheduler: BatchScheduler,
        clock: Clock,
        slots: int,
        lease: timedelta,
        children: ChildProcesses | None = None,
        job_file: JobFile | None = None,
        processes: bool = True,
        fires: bool = True,
        preference_poller: PreferencePoller | None = None,
        user_source: UserSource | None = None,
        template_source: TemplateSource | None = None,
        notifications: Notifications | None = None,
        loop_lag: LoopLag | None = None,
    ) -> None:
        self._processor = processor
        self._dispatcher = dispatcher
        self._recovery = recovery
        self._retention = retention
        self._closing = closing
        self._deadlines = deadlines
        self._deferred = deferred
        self._scheduler = scheduler
        self._clock = clock
        self._slots = slots
        self._lease = lease
        self._children = children
        self._job_file = job_file
        self._processes = processes
        self._fires = fires
        self._preference_poller = preference_poller
        self._user_source = user_source
        self._template_source = template_source
        self._notifications = notifications
        self._loop_lag = loop_lag
        self._stop_claims = asyncio.Event()
        self._stop_all = asyncio.Event()
        self._claims: list[asyncio.Task[None]] = []
        self._workers: set[asyncio.Task[None]] = set()
        self._loops: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Takes back what a dead process left, then begins to work.

        Raises:
            StoreUnavailable: the database is away.
        """
        # First: a lock of a frozen server would hold up whatever comes next.
        self._loops.append(self._tick("stalled", self._recovery.end_stalled, self._lease))
        try:
            reopened = await self._recovery.take_back()
        except BaseException:
            await _cancel(self._loops)
            raise
        log.info("engine.started", slots=self._slots, reopened_chunks=reopened)
        await self._follow_job_file()
        for _ in range(self._slots):
            self._start_worker()
        self._loops += [
            self._supervise("committer", self._commit, stop=self._stop_all),
            self._tick("leases", self._processor.extend_leases, self._lease / 3),
            self._tick("lapsed-leases", self._processor.leases.let_go, self.WATCH_INTERVAL),
            self._tick("stopped-batches", self._processor.leases.look, Leases.LOOK_INTERVAL),
            self._tick("durations", self._processor.durations.run_once, ItemDurations.INTERVAL),
            self._tick("recovery", self._recovery.run_once, self._lease / 2),
            self._tick(
                "retention", self._retention.run_once, Retention.INTERVAL, wake=self._retention.wake
            ),
            self._tick(
                "closing", self._closing.run_once, Closing.INTERVAL, wake=self._closing.wake
            ),
            self._tick("deadlines", self._deadlines.run_once, Deadlines.INTERVAL),
            self._tick("deferred", self._deferred.run_once, DeferredValidation.INTERVAL),
            self._tick("workers", self._replace_workers, self.WATCH_INTERVAL),
        ]
        poller = self._preference_poller
        if poller is not None:
            self._loops.append(self._tick(CONFIG_SOURCE, poller.run_once, poller.interval))
        users = self._user_source
        if users is not None:
            self._loops.append(self._tick(USER_SOURCE, users.run_once, UserSource.INTERVAL))
        templates = self._template_source
        if templates is not None:
            self._loops.append(self._tick(TEMPLATE_SOURCE, templates.run_once, templates.interval))
        outbox = self._notifications
        if outbox is not None:
            self._loops.append(
                self._tick(
                    "notifications", outbox.run_once, Notifications.INTERVAL, wake=outbox.wake
                )
            )
        lag = self._loop_lag
        if lag is not None:
            self._loops.append(self._tick("loop-lag", lag.run_once, LoopLag.INTERVAL))
        if self._fires:
            self._scheduler.start()
            self._loops.append(
                self._tick(
                    "scheduler",
                    self._scheduler.run_once,
                    BatchScheduler.INTERVAL,
                    wake=self._scheduler.wake,
                )
            )
        if self._processes:
            self._claims = [self._supervise("dispatcher", self._dispatch, stop=self._stop_claims)]

    async def _follow_job_file(self) -> None:
        """Returns after the first look: what the file does not want any more must not fire."""
        if self._job_file is not None:
            self._loops.append(
                self._tick("job-file", self._job_file.run_once, self._job_file.interval)
            )
            await self._job_file.looked.wait()

    def _start_worker(self) -> None:
        worker = self._supervise("worker", self._processor.work, stop=self._stop_claims)
        self._workers.add(worker)
        worker.add_done_callback(self._workers.discard)

    async def _replace_workers(self) -> None:
        """Has as many workers as there are slots, whatever became of some of them.

        One whose attempt does not end is given up, and one may have been cancelled by a stranger.
        """
        self._workers.difference_update(self._processor.give_up_overdue())
        if self._stop_claims.is_set():
            return
        missing = self._slots - len(self._workers)
        for _ in range(missing):
            self._start_worker()
        if missing:
            log.warning("workers.replaced", count=missing)

    async def _commit(self) -> None:
        await self._processor.committer.commit(self._stop_all)

    async def _dispatch(self) -> None:
        await self._dispatcher.run(
            self._processor.take, room=self._processor.room, stop=self._stop_claims
        )

    def _supervise(
        self, name: str, run: Callable[[], Awaitable[None]], *, stop: asyncio.Event
    ) -> asyncio.Task[None]:
        return asyncio.create_task(supervise(name, run, clock=self._clock, stop=stop), name=name)

    def _tick(
        self,
        name: str,
        run_once: Callable[[], Awaitable[object]],
        interval: timedelta,
        *,
        wake: asyncio.Event | None = None,
    ) -> asyncio.Task[None]:
        loop = tick(
            name, run_once, interval=interval, clock=self._clock, stop=self._stop_all, wake=wake
        )
        return asyncio.create_task(loop, name=name)

    @property
    def is_running(self) -> bool:
        """Tells whether every loop is alive, and as many workers as there are slots."""
        tasks = [*self._claims, *self._loops]
        alive = bool(tasks) and not any(task.done() for task in tasks)
        return alive and len(self._workers) >= self._slots

    async def stop_claims(self) -> None:
        """Takes no further chunk and starts no further item; those in flight go on."""
        self._stop_claims.set()
        self._processor.stop_taking()
        if self._claims:
            # A claim that is cut off would be ours without our knowing it.
            await asyncio.wait(self._claims, timeout=CLAIM_GRACE.total_seconds())
        await _cancel(self._claims)

    async def drain(self, grace: timedelta) -> None:
        """Waits for the items in flight; those that take longer than ``grace`` are given back."""
        workers = set(self._workers)
        if workers:
            await asyncio.wait(workers, timeout=grace.total_seconds())
        late = {worker for worker in workers if not worker.done()}
        for worker in late:
            worker.cancel()
        if late:
            await asyncio.wait(late, timeout=CANCEL_GRACE.total_seconds())
        # What swallows its cancellation must hold up neither the stop nor its item.
        given_up = self._processor.give_up_all()
        log.info("engine.drained", interrupted_items=len(late), given_up=given_up)

    async def stop(self) -> None:
        """Records what is done, gives back what is not, and ends the loops.

        A database that is away or full does not keep a server from its end: the leases of what
        could not be given back end by themselves, and recovery takes it back.
        """
        self._stop_all.set()
        await _cancel(self._loops)
        try:
            if self._notifications is not None:
                await self._notifications.close(SENDING_GRACE)
            self._scheduler.close()
            await self._release()
        finally:
            if self._children is not None:
                await self._children.close()
        log.info("engine.stopped")

    async def _release(self) -> None:
        try:
            async with asyncio.timeout(RELEASE_GRACE.total_seconds()):
                await self._release_in_some_tries()
        except TimeoutError:
            log.warning("engine.not_released", reason="TIMEOUT")

    async def _release_in_some_tries(self) -> None:
        never = asyncio.Event()
        for tries_left in reversed(range(RELEASE_TRIES)):
            try:
                await self._processor.release()
                return
            except Unavailable as error:
                if not tries_left:
                    log.warning("engine.not_released", reason=error.reason, message=error.message)
                    return
            await self._clock.wait(never, RELEASE_PAUSE)


async def _cancel(tasks: Iterable[asyncio.Task[None]]) -> None:
    tasks = list(tasks)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
