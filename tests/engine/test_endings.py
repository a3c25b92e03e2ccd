"""The summary of a batch: one line of log for each end, whatever the end is."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any

import pytest
from batchwork_server.domain.batch import Batch, BatchState, StateReason
from batchwork_server.domain.selection import SelectedItem
from batchwork_server.engine import endings
from batchwork_server.engine.closing import Closing
from batchwork_server.engine.endings import Endings
from batchwork_server.errors import ItemFailed
from batchwork_server.logs import get_logger
from batchwork_server.store.database import open_database
from batchwork_server.store.sql_store import SqlStore
from batchwork_server.wakeups import Wakeups

from tests.engine.conftest import StartWorker, Worker, gated, put_together
from tests.fakes import FakeClock, FakeProcessor

Logged = Callable[[], list[dict[str, Any]]]

KEYS = [
    *("timestamp", "level", "event", "message", "job_id", "batch_id", "tenant_id", "state"),
    *("duration", "processed", "successful", "errors", "skipped", "module"),
]


@pytest.fixture(autouse=True)
def _fresh_log(logged: Logged, monkeypatch: pytest.MonkeyPatch) -> None:
    # A logger keeps the stream that it wrote to first, which was another test's.
    monkeypatch.setattr(endings, "log", get_logger(endings.__name__))


def endings_in(logged: Logged) -> list[dict[str, Any]]:
    return [line for line in logged() if line["event"] == "batch.finished"]


def failing(*item_ids: str) -> FakeProcessor:
    return FakeProcessor({each: [ItemFailed("NO")] for each in item_ids})


@pytest.mark.parametrize(
    ("failing_ids", "told"),
    [
        pytest.param([], ("info", "Batch job completed", "SUCCEEDED", 2, 2, 0), id="all well"),
        pytest.param(
            ["b"],
            ("info", "Batch job completed", "PARTIALLY_SUCCEEDED", 2, 1, 1),
            id="one failed",
        ),
        pytest.param(["a", "b"], ("error", "Batch job failed", "FAILED", 2, 0, 2), id="all failed"),
    ],
)
async def test_the_end_of_the_work_is_told_with_its_counts(
    start_worker: StartWorker, logged: Logged, failing_ids: list[str], told: tuple[Any, ...]
):
    worker = await start_worker(failing(*failing_ids), retry_limit=0)

    batch = await worker.finish(await worker.submit(["a", "b"]))

    [line] = endings_in(logged)
    assert sorted(line) == sorted(KEYS)
    assert line["batch_id"] == batch.batch_id
    assert told == tuple(
        line[key] for key in ("level", "message", "state", "processed", "successful", "errors")
    )


async def test_the_duration_is_that_of_the_work(start_worker: StartWorker, logged: Logged):
    clock, work = FakeClock(), FakeProcessor()
    worker = await start_worker(work, clock=clock)
    async with gated(work):
        batch = await worker.submit(["a"])
        await work.started.wait()
        clock.advance(timedelta(minutes=5, seconds=30))
    await worker.end_of(batch)
    await until_told(logged)

    assert endings_in(logged)[0]["duration"] == "5m30s"


async def until_told(logged: Logged) -> None:
    """The database knows of an end a moment before it is told."""
    async with asyncio.timeout(30):
        while not endings_in(logged):
            await asyncio.sleep(0)


async def cancel(worker: Worker, batch: Batch) -> None:
    await worker.cancel(batch)


async def expire(worker: Worker, batch: Batch) -> None:
    async with worker.store.transaction() as tx:
        await worker.store.changes.close(
            tx,
            batch.key,
            closing=BatchState.EXPIRED,
            reason=StateReason.BATCH_TIMEOUT,
            message="",
            stop_in_flight=True,
            now=batch.create_time,
        )


@pytest.mark.parametrize(
    ("end", "told"),
    [
        pytest.param(cancel, ("info", "Batch job cancelled", "CANCELLED"), id="cancelled"),
        pytest.param(expire, ("warning", "Batch job expired", "EXPIRED"), id="expired"),
    ],
)
async def test_an_end_before_the_work_began_is_told_as_well(
    start_worker: StartWorker,
    logged: Logged,
    end: Callable[[Worker, Batch], Awaitable[None]],
    told: tuple[str, str, str],
):
    worker = await start_worker()
    await worker.engine.stop_claims()
    batch = await worker.submit(["a", "b"])

    await end(worker, batch)
    await until_told(logged)

    [line] = endings_in(logged)
    assert (line["level"], line["message"], line["state"]) == told
    assert (line["processed"], line["duration"]) == (0, "0s")


async def test_a_batch_that_has_nothing_to_do_is_told(worker: Worker, logged: Logged):
    items = (SelectedItem(item_id="a", user_id="nobody", data_json="{}"),)
    await worker.submit([], items=items)

    [line] = endings_in(logged)
    assert (line["message"], line["state"]) == ("Batch job completed", "SUCCEEDED")
    assert (line["processed"], line["skipped"]) == (0, 1)


async def test_a_batch_that_is_tried_again_ends_again(start_worker: StartWorker, logged: Logged):
    worker = await start_worker(failing("a"), retry_limit=0)
    batch = await worker.finish(await worker.submit(["a"]))

    await worker.retry(batch)
    await worker.finish(batch)

    assert [line["state"] for line in endings_in(logged)] == ["FAILED", "SUCCEEDED"]


async def test_of_several_servers_one_tells(logged: Logged, postgresql_url: str):
    databases = [await open_database(postgresql_url) for _ in range(2)]
    stores = [SqlStore(database) for database in databases]
    clock = FakeClock()
    worker = put_together(stores[0], FakeProcessor(), slots=1, clock=clock, retry_limit=0)
    batches = [await worker.submit([f"item-{n}" for n in range(100)]) for _ in range(5)]
    for batch in batches:
        await worker.cancel(batch)
    closings = []
    for store in stores:
        wakeups = Wakeups()
        Endings(wakeups)
        closings.append(Closing(store=store, clock=clock, wakeups=wakeups))

    await asyncio.gather(*(closing.run_once() for closing in closings * 2))
    await closings[0].run_once()

    told = [line["batch_id"] for line in endings_in(logged)]
    assert sorted(told) == sorted(batch.batch_id for batch in batches)
    for database in databases:
        await database.close()
