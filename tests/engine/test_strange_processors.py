"""Processors that say or do what nobody foresaw: their items fail, and nothing else notices."""

from __future__ import annotations

from decimal import Decimal

import pytest
from batchwork_server.domain.batch import Counts
from batchwork_server.domain.submission import RequestedOptions
from batchwork_server.errors import ItemFailed
from batchwork_server.ports import ItemResult

from tests.engine.conftest import StartWorker, Worker
from tests.fakes import FakeProcessor
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
