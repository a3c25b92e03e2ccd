"""Processors that say or do what nobody foresaw: their items fail, and nothing else notices."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from datetime import timedelta
from decimal import Decimal

import pytest
from batchwork_server.domain.batch import Counts
from batchwork_server.domain.submission import RequestedOptions
from batchwork_server.errors import ItemFailed
from batchwork_server.ports import ItemCall, ItemResult

from tests.engine.conftest import StartWorker, Worker
from tests.fakes import FakeClock, FakeProcessor
from tests.unit.test_classification import Mute, Unspeakable

# What they return


@pytest.mark.parametrize(
    ("score", "kept"),
    [pytest.param(Decimal("0.5"), 0.5, id="Decimal"), pytest.param(True, 1.0, id="bool")],
)
async def test_a_score_that_is_a_number_is_kept_as_one(worker: Worker, score: object, kept: float):
    # The story: only its range was looked at, and what the driver could not bind kept the
    # outcomes of every batch from being recorded.
    worker.work.on("i0", ItemResult(value=1, quality_score=score))  # type: ignore[arg-type]

    batch = await worker.finish(await worker.submit(["i0", "i1"]))

    assert batch.counts == Counts(total=2, succeeded=2)
    found = (await worker.items(batch))[0].quality_score
    assert (found, type(found)) == (kept, float)


@pytest.mark.parametrize("score", [float("nan"), Decimal("NaN"), "0.5"], ids=repr)
async def test_a_score_that_is_none_fails_its_item(worker: Worker, score: object):
    worker.work.on("i0", ItemResult(value=1, quality_score=score))  # type: ignore[arg-type]

    batch = await worker.finish(await worker.submit(["i0", "i1"]))

    assert batch.counts == Counts(total=2, succeeded=1, failed=1)
    assert (await worker.items(batch))[0].error.reason == "RESULT_INVALID"


# What they raise


@pytest.mark.parametrize(
    ("error", "reason", "attempts"),
    [
        pytest.param(ItemFailed("X", OSError()), "X", 1, id="a message that is no text"),  # type: ignore[arg-type]
        pytest.param(ItemFailed(503, Unspeakable()), "503", 1, id="no text at all"),  # type: ignore[arg-type]
        pytest.param(ItemFailed("X", retryable=1), "X", 3, id="a number for yes"),  # type: ignore[arg-type]
        pytest.param(
            ItemFailed("X", retryable=True, retry_after=0),  # type: ignore[arg-type]
            *("X", 3),
            id="a number for a delay",
        ),
        pytest.param(Mute(), "PROCESSOR_ERROR", 3, id="no facts"),
    ],
)
async def test_whatever_an_error_says_its_attempt_counts(
    start_worker: StartWorker, error: BaseException, reason: str, attempts: int
):
    # The story: what went wrong while an error was classified ended the worker. The item went
    # back without an attempt counted, again and again, and its batch never ended.
    work = FakeProcessor({"i0": [error] * 5})
    worker = await start_worker(work, slots=1)
    options = RequestedOptions(retry_limit=2)

    batch = await worker.finish(await worker.submit(["i0", "i1"], options=options))

    assert (batch.counts.succeeded, batch.counts.failed) == (1, 1)
    item = (await worker.items(batch))[0]
    assert (item.error.reason, item.attempt_count) == (reason, attempts)
    assert item.error.retryable is (attempts > 1)
    assert worker.engine.is_running


# What they do to their task


def cancel_own_task() -> None:
    task = asyncio.current_task()
    assert task is not None
    task.cancel()


async def wait_for_it() -> None:
    cancel_own_task()
    await asyncio.Event().wait()


async def return_first() -> None:
    cancel_own_task()


async def swallow_it() -> None:
    cancel_own_task()
    with suppress(asyncio.CancelledError):
        await asyncio.Event().wait()
    await asyncio.sleep(0)


class Cancelling(FakeProcessor):
    """Cancels the task that it runs in, at every other item."""

    def __init__(self, act: Callable[[], Awaitable[None]]) -> None:
        super().__init__()
        self._act = act

    async def process(self, call: ItemCall) -> ItemResult:
        result = await super().process(call)
        if int(call.item_id[1:]) % 2:
            await self._act()
        return result


@pytest.mark.parametrize(
    ("act", "failed"),
    [(wait_for_it, 5), (return_first, 0), (swallow_it, 0)],
    ids=["waits", "returns", "swallows"],
)
async def test_who_cancels_their_own_task_costs_no_worker_and_no_other_item(
    start_worker: StartWorker, act: Callable[[], Awaitable[None]], failed: int
):
    # The story: it was taken for the end of the server. The worker ended in silence, and when all
    # had, nothing was processed any more.
    worker = await start_worker(Cancelling(act), slots=2)
    options = RequestedOptions(retry_limit=1)

    batch = await worker.submit([f"i{n}" for n in range(10)], options=options)
    batch = await worker.finish(batch)

    assert batch.counts == Counts(total=10, succeeded=10 - failed, failed=failed, retries=failed)
    reasons = {item.error.reason for item in await worker.items(batch) if item.error}
    assert reasons == ({"PROCESSOR_ERROR"} if failed else set())
    assert worker.engine.is_running


async def test_an_attempt_that_swallowed_its_own_cancellation_has_a_limit_too(
    start_worker: StartWorker,
):
    async def hang() -> None:
        await asyncio.sleep(0)
        await swallow_it()
        await asyncio.Event().wait()

    worker = await start_worker(Cancelling(hang), slots=1)
    options = RequestedOptions(retry_limit=0, item_timeout=timedelta(milliseconds=1))

    batch = await worker.finish(await worker.submit(["i0", "i1", "i2"], options=options))

    assert batch.counts == Counts(total=3, succeeded=2, failed=1)
    assert (await worker.items(batch))[1].error.reason == "ITEM_TIMEOUT"


async def test_workers_that_a_stranger_has_ended_are_replaced(
    start_worker: StartWorker, clock: FakeClock
):
    worker = await start_worker(slots=3, clock=clock)
    await worker.end_of(await worker.submit(["i0"]))
    idle = [task for task in asyncio.all_tasks() if task.get_name() == "worker"]

    for task in idle:
        task.cancel()
    await asyncio.wait(idle)
    were_enough = worker.engine.is_running
    clock.advance(timedelta(seconds=1))
    batch = await worker.end_of(await worker.submit(["j0", "j1"]))

    assert not were_enough
    assert batch.counts == Counts(total=2, succeeded=2)
    assert worker.engine.is_running
