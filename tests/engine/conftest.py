"""The two halves together, without gRPC: real use cases, engine and store, a scripted processor."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import pytest
from batchwork_server.application.batch_changes import BatchChanges
from batchwork_server.application.batches import Batches
from batchwork_server.application.firing import Firing
from batchwork_server.application.pacing import Pacing
from batchwork_server.application.planning import Planning
from batchwork_server.application.told import WatchMessage
from batchwork_server.application.validation import Validation
from batchwork_server.application.watchers import Watchers
from batchwork_server.application.watching import Watching
from batchwork_server.clock import Clock, SystemClock
from batchwork_server.domain.batch import Batch, BatchOptions, BatchState
from batchwork_server.domain.caller import Caller
from batchwork_server.domain.filters import ItemFilter, RetryFilter
from batchwork_server.domain.item import Item
from batchwork_server.domain.notification import NO_TARGETS, NotificationTargets
from batchwork_server.domain.retry import RetryPolicy
from batchwork_server.domain.selection import SelectedItem
from batchwork_server.domain.submission import Idempotency, RequestedOptions, Submission
from batchwork_server.engine.batch_processor import BatchProcessor
from batchwork_server.engine.batch_scheduler import BatchScheduler
from batchwork_server.engine.closing import Closing
from batchwork_server.engine.deadlines import Deadlines
from batchwork_server.engine.deferred_validation import DeferredValidation
from batchwork_server.engine.dispatch.local import LocalDispatcher
from batchwork_server.engine.endings import Endings
from batchwork_server.engine.engine import Engine
from batchwork_server.engine.executor import Executor
from batchwork_server.engine.isolation import ChildProcesses
from batchwork_server.engine.recovery import Recovery
from batchwork_server.engine.retention import Retention
from batchwork_server.processors.registry import ProcessorRegistry
from batchwork_server.store.database import Database, open_database
from batchwork_server.store.sql_store import SqlStore
from batchwork_server.wakeups import Wakeups

from tests.engine.groups import GroupServer
from tests.factories import make_template
from tests.fakes import FakeCategories, FakeClock, FakeProcessor, FakeTemplates, FakeUsers

CALLER = Caller(tenant_id="default", name="test")


@dataclass
class Worker:
    """One server's halves over one store."""

    store: SqlStore
    batches: Batches
    changes: BatchChanges
    watching: Watching
    watchers: Watchers
    engine: Engine
    deadlines: Deadlines
    deferred: DeferredValidation
    scheduler: BatchScheduler
    processor: BatchProcessor
    work: FakeProcessor
    categories: FakeCategories
    users: FakeUsers
    wakeups: Wakeups

    def told(self, state: BatchState) -> asyncio.Event:
        """Returns what is set when the engine has learnt that a batch got into a state.

        The database knows a moment earlier, in which the engine can begin another item.
        """
        heard = asyncio.Event()
        self.wakeups.subscribe(lambda batch: heard.set() if batch.state is state else None)
        return heard

    async def submit(self, item_ids: Sequence[str], **changes: Any) -> Batch:
        """Creates a batch of inline items."""
        idempotency = changes.pop("idempotency", Idempotency())
        items = tuple(
            SelectedItem(item_id=item_id, user_id=None, data_json=f'{{"id":"{item_id}"}}')
            for item_id in item_ids
        )
        submission = Submission(
            **{"items": items, "template_id": "scripted", "source": "test"} | changes
        )
        return await self.batches.create_batch(submission, caller=CALLER, idempotency=idempotency)

    def watch(self, batch: Batch, **changes: Any) -> AsyncGenerator[WatchMessage]:
        defaults: dict[str, Any] = {
            "resume": None,
            "include_items": False,
            "only_failed": False,
            "min_interval": timedelta(milliseconds=100),
        }
        return self.watching.watch(batch, **defaults | changes)

    async def finish(self, batch: Batch) -> Batch:
        """Returns the batch when it is over; its counts were right all the way."""
        async for message in self.watch(batch):
            counts = message.counts or (message.batch and message.batch.counts)
            if counts:
                assert counts.done + counts.pending + counts.running == counts.total
        assert message.kind == "END"
        kept, counted = await self.store.chunks.check_counts(batch.key)
        assert kept == counted
        assert message.batch is not None
        return message.batch

    async def until(self, batch: Batch, holds: Callable[[Batch], bool]) -> Batch:
        """Returns the batch as soon as something holds of it, whatever time it is."""
        async with asyncio.timeout(30):
            while True:
                current = await self.store.batches.get_by_key(batch.key)
                assert current is not None
                if holds(current):
                    return current
                await asyncio.sleep(0)

    async def end_of(self, batch: Batch) -> Batch:
        """Returns the batch when it is over, also where the clock stands still."""
        ended = await self.until(batch, lambda batch: batch.state.is_final)
        kept, counted = await self.store.chunks.check_counts(batch.key)
        assert kept == counted
        return ended

    async def pause(self, batch: Batch) -> Batch:
        return await self.changes.pause_batch(
            batch.batch_id, caller=CALLER, idempotency=Idempotency()
        )

    async def resume(self, batch: Batch) -> Batch:
        return await self.changes.resume_batch(
            batch.batch_id, caller=CALLER, idempotency=Idempotency()
        )

    async def cancel(self, batch: Batch, **changes: Any) -> Batch:
        return await self.changes.cancel_batch(
            batch.batch_id, caller=CALLER, idempotency=Idempotency(), **changes
        )

    async def retry(self, batch: Batch, **matching: Any) -> tuple[Batch, int]:
        return await self.changes.retry_batch(
            batch.batch_id, RetryFilter(**matching), caller=CALLER, idempotency=Idempotency()
        )

    async def items(self, batch: Batch) -> list[Item]:
        found, after = await self.store.batches.list_items(
            batch, ItemFilter(), page_size=100, after=None
        )
        items = list(found)
        while after is not None:
            found, after = await self.store.batches.list_items(
                batch, ItemFilter(), page_size=100, after=after
            )
            items += found
        return items

    async def stop(self, *, grace: timedelta = timedelta(seconds=5)) -> None:
        """Goes through the shutdown of a server."""
        await self.engine.stop_claims()
        self.watching.close()
        await self.engine.drain(grace)
        await self.engine.stop()


def put_together(
    store: SqlStore,
    work: FakeProcessor,
    *,
    slots: int,
    clock: Clock,
    retry_limit: int,
    max_watchers: int = 10,
    children: ChildProcesses | None = None,
    targets: NotificationTargets = NO_TARGETS,
    owner: str = "worker",
    alone: bool = True,
) -> Worker:
    registry = ProcessorRegistry()
    registry.register("scripted", work)
    wakeups = Wakeups()
    watchers = Watchers(max_watchers)
    Endings(wakeups)
    users, categories = FakeUsers(), FakeCategories()
    dispatcher = LocalDispatcher(chunks=store.chunks, clock=clock, wakeups=wakeups)
    planning = Planning(
        store=store,
        categories=categories,
        validation=Validation(users),
        templates=FakeTemplates(
            make_template(template_id="scripted", processor="scripted", operations=("annotate",)),
            make_template(template_id="elsewhere", processor="scripted"),
            make_template(template_id="uninstalled", processor="uninstalled"),
        ),
        defaults=BatchOptions(
            chunk_size=10,
            item_timeout=timedelta(seconds=30),
            retry=RetryPolicy(retry_limit=retry_limit, initial_backoff=timedelta(0)),
        ),
        clock=clock,
        targets=targets,
        pacing=Pacing(store.item_durations, slots=slots),
    )
    lease = timedelta(seconds=30)
    deadlines = Deadlines(store=store, clock=clock, wakeups=wakeups)
    deferred = DeferredValidation(store=store, users=users, clock=clock, wakeups=wakeups)
    processor = BatchProcessor(
        store=store,
        executor=Executor(
            processors=registry, opt_outs=store.opt_outs, clock=clock, children=children
        ),
        clock=clock,
        wakeups=wakeups,
        owner=owner,
        slots=slots,
        lease=lease,
        alone=alone,
    )
    batches = Batches(
        store=store,
        planning=planning,
        dispatcher=dispatcher,
        clock=clock,
        wakeups=wakeups,
        alone=alone,
        draft_timeout=timedelta(hours=24),
        targets=targets,
    )
    firing = Firing(store=store, batches=batches, clock=clock, zone="UTC")
    scheduler = BatchScheduler(firing, clock=clock, wakeups=wakeups)
    return Worker(
        store=store,
        batches=batches,
        changes=BatchChanges(store=store, dispatcher=dispatcher, clock=clock, wakeups=wakeups),
        watching=Watching(store=store, clock=clock, wakeups=wakeups, watchers=watchers),
        watchers=watchers,
        engine=Engine(
            processor=processor,
            dispatcher=dispatcher,
            recovery=Recovery(store=store, clock=clock, wakeups=wakeups, alone=alone),
            retention=Retention(store=store, clock=clock),
            closing=Closing(store=store, clock=clock, wakeups=wakeups),
            deadlines=deadlines,
            deferred=deferred,
            scheduler=scheduler,
            clock=clock,
            slots=slots,
            lease=lease,
            children=children,
        ),
        deadlines=deadlines,
        deferred=deferred,
        scheduler=scheduler,
        processor=processor,
        work=work,
        categories=categories,
        users=users,
        wakeups=wakeups,
    )


StartWorker = Callable[..., Awaitable[Worker]]


@pytest.fixture
async def start_worker(database_url: str) -> AsyncIterator[StartWorker]:
    """Starts workers over one database, one after the other; the last one is stopped at the end."""
    database = await open_database(database_url, synchronous="NORMAL")
    workers: list[Worker] = []

    async def start(
        work: FakeProcessor | None = None,
        *,
        slots: int = 4,
        clock: Clock | None = None,
        retry_limit: int = 3,
        max_watchers: int = 10,
        children: ChildProcesses | None = None,
        targets: NotificationTargets = NO_TARGETS,
    ) -> Worker:
        worker = put_together(
            SqlStore(database),
            work or FakeProcessor(),
            slots=slots,
            clock=clock or SystemClock(),
            retry_limit=retry_limit,
            max_watchers=max_watchers,
            children=children,
            targets=targets,
        )
        await worker.engine.start()
        workers.append(worker)
        return worker

    yield start
    if workers:
        if workers[-1].work.gate is not None:
            workers[-1].work.gate.set()
        await workers[-1].stop(grace=timedelta(0))
    await database.close()


@pytest.fixture
async def worker(start_worker: StartWorker) -> Worker:
    return await start_worker()


@asynccontextmanager
async def gated(work: FakeProcessor) -> AsyncIterator[asyncio.Event]:
    """Holds every attempt until the event is set, at the latest at the end of the block."""
    work.gate = asyncio.Event()
    try:
        yield work.gate
    finally:
        work.gate.set()


async def calls_of(work: FakeProcessor, count: int) -> None:
    """Returns when so many attempts have begun."""
    async with asyncio.timeout(30):
        while len(work.calls) < count:
            await asyncio.sleep(0)


__all__ = ["CALLER", "RequestedOptions", "StartWorker", "Worker", "calls_of", "gated"]


@pytest.fixture
def server(database: Database, clock: FakeClock) -> GroupServer:
    """What makes the groups of preferences fire, on each database."""
    return GroupServer(database, clock=clock)
