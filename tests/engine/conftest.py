"""The two halves together, without gRPC: real use cases, engine and store, a scripted processor."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import pytest
from batchwork_server.application.batches import Batches
from batchwork_server.application.planning import Planning
from batchwork_server.application.validation import Validation
from batchwork_server.application.watching import Watching, WatchMessage
from batchwork_server.clock import Clock, SystemClock
from batchwork_server.domain.batch import Batch, BatchOptions
from batchwork_server.domain.caller import Caller
from batchwork_server.domain.filters import ItemFilter
from batchwork_server.domain.item import Item
from batchwork_server.domain.retry import RetryPolicy
from batchwork_server.domain.selection import SelectedItem
from batchwork_server.domain.submission import Idempotency, RequestedOptions, Submission
from batchwork_server.engine.batch_processor import BatchProcessor
from batchwork_server.engine.dispatch.local import LocalDispatcher
from batchwork_server.engine.engine import Engine
from batchwork_server.engine.executor import Executor
from batchwork_server.engine.recovery import Recovery
from batchwork_server.engine.retention import Retention
from batchwork_server.processors.registry import ProcessorRegistry
from batchwork_server.store.database import open_database
from batchwork_server.store.sql_store import SqlStore
from batchwork_server.wakeups import Wakeups

from tests.factories import make_template
from tests.fakes import FakeCategories, FakeProcessor, FakeTemplates, FakeUsers

CALLER = Caller(tenant_id="default", name="test")


@dataclass
class Worker:
    """One server's halves over one store."""

    store: SqlStore
    batches: Batches
    watching: Watching
    engine: Engine
    processor: BatchProcessor
    work: FakeProcessor
    categories: FakeCategories
    users: FakeUsers

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
    store: SqlStore, work: FakeProcessor, *, slots: int, clock: Clock, retry_limit: int
) -> Worker:
    registry = ProcessorRegistry()
    registry.register("scripted", work)
    wakeups = Wakeups()
    users, categories = FakeUsers(), FakeCategories()
    dispatcher = LocalDispatcher(chunks=store.chunks, clock=clock, wakeups=wakeups)
    planning = Planning(
        store=store,
        categories=categories,
        validation=Validation(users),
        templates=FakeTemplates(
            make_template(template_id="scripted", processor="scripted", operations=("annotate",)),
            make_template(template_id="uninstalled", processor="uninstalled"),
        ),
        defaults=BatchOptions(
            chunk_size=10,
            item_timeout=timedelta(seconds=30),
            retry=RetryPolicy(retry_limit=retry_limit, initial_backoff=timedelta(0)),
        ),
        clock=clock,
    )
    lease = timedelta(seconds=30)
    processor = BatchProcessor(
        store=store,
        executor=Executor(processors=registry, clock=clock),
        clock=clock,
        wakeups=wakeups,
        owner="worker",
        slots=slots,
        lease=lease,
    )
    return Worker(
        store=store,
        batches=Batches(
            store=store,
            planning=planning,
            dispatcher=dispatcher,
            clock=clock,
            wakeups=wakeups,
            alone=True,
        ),
        watching=Watching(store=store, clock=clock, wakeups=wakeups, max_watchers=10),
        engine=Engine(
            processor=processor,
            dispatcher=dispatcher,
            recovery=Recovery(store=store, clock=clock, wakeups=wakeups, alone=True),
            retention=Retention(store=store, clock=clock),
            clock=clock,
            slots=slots,
            lease=lease,
        ),
        processor=processor,
        work=work,
        categories=categories,
        users=users,
    )


StartWorker = Callable[..., Awaitable[Worker]]


@pytest.fixture
async def start_worker(database_url: str) -> AsyncIterator[StartWorker]:
    """Starts workers over one database, one after the other; the last one is stopped at the end."""
    database = await open_database(database_url)
    workers: list[Worker] = []

    async def start(
        work: FakeProcessor | None = None,
        *,
        slots: int = 4,
        clock: Clock | None = None,
        retry_limit: int = 3,
    ) -> Worker:
        worker = put_together(
            SqlStore(database),
            work or FakeProcessor(),
            slots=slots,
            clock=clock or SystemClock(),
            retry_limit=retry_limit,
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


__all__ = ["CALLER", "RequestedOptions", "StartWorker", "Worker", "gated"]
