"""When what the processor calls is away, the batch waits for it and no item pays."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import datetime, timedelta

import pytest
from batchwork_server.domain.batch import Batch, BatchState, Counts
from batchwork_server.errors import ProviderUnavailable, RateLimited
from batchwork_server.ports import ItemCall, ItemResult
from batchwork_server.store.store import ChunkRecord, Recorded

from tests.engine.conftest import RequestedOptions, StartWorker, Worker, calls_of
from tests.fakes import FakeClock, FakeProcessor

SECOND = timedelta(seconds=1)
ONE_BY_ONE = RequestedOptions(chunk_size=1, max_concurrent_items=1, retry_limit=0)


class Provider(FakeProcessor):
    """Answers or not, whatever is asked; after an answer it is asked again when the gate is open.

    Args:
        answers: Whether it answers at its first call, its second, and so on.
    """

    def __init__(self, answers: Sequence[bool]) -> None:
        super().__init__()
        self._answers = list(answers)

    async def process(self, call: ItemCall) -> ItemResult:
        result = await super().process(call)
        if not self._answers.pop(0):
            raise ProviderUnavailable("NO_ANSWER")
        self.gate = asyncio.Event()
        return result


async def paused(worker: Worker, batch: Batch) -> Batch:
    """Returns the batch when it waits, and all of its items are given back."""
    return await worker.until(
        batch, lambda batch: batch.state is BatchState.PAUSED and not batch.counts.running
    )


async def settled() -> None:
    """Lets everybody go on who can."""
    for _ in range(200):
        await asyncio.sleep(0)


@pytest.mark.arrow("batch L", "batch N", "item H")
async def test_a_named_delay_is_kept_and_costs_no_attempt(
    start_worker: StartWorker, clock: FakeClock
):
    work = FakeProcessor({"i0": [RateLimited("RATE_LIMIT", "Slow down.", retry_after=60 * SECOND)]})
    worker = await start_worker(work, slots=1, clock=clock)
    batch = await worker.submit(["i0", "i1"], options=ONE_BY_ONE)

    waiting = await paused(worker, batch)
    untouched = await worker.store.batches.get_item(batch, "i0")
    clock.advance(59 * SECOND)
    await worker.deadlines.run_once()
    still = await paused(worker, batch)
    clock.advance(SECOND)
    await worker.deadlines.run_once()
    done = await worker.end_of(batch)

    assert (waiting.state_reason, waiting.state_message) == (
        "PROVIDER_RATE_LIMITED",
        "RATE_LIMIT: Slow down.",
    )
    assert waiting.resume_time == batch.create_time + 60 * SECOND
    assert waiting.counts == Counts(total=2, pending=2)
    assert (untouched.attempt_count, untouched.attempts) == (0, ())
    assert still.resume_time == waiting.resume_time
    assert done.state is BatchState.SUCCEEDED
    assert done.counts == Counts(total=2, succeeded=2)
    assert (await worker.store.batches.get_item(batch, "i0")).attempt_count == 1
    assert (done.resume_time, done.state_reason, done.state_message) == (None, "", "")


async def test_after_the_pause_one_item_is_tried_before_all_others(
    start_worker: StartWorker, clock: FakeClock
):
    work = FakeProcessor({"i0": [ProviderUnavailable("NO_ANSWER", retry_after=SECOND)]})
    worker = await start_worker(work, slots=4, clock=clock)
    batch = await worker.submit([f"i{n}" for n in range(12)])
    open_items = (await paused(worker, batch)).counts.pending
    work.calls.clear()
    work.gate = probe_gate = asyncio.Event()

    clock.advance(SECOND)
    await worker.deadlines.run_once()
    await calls_of(work, 1)
    await settled()
    probes = len(work.calls)
    work.gate = rest_gate = asyncio.Event()
    probe_gate.set()
    await calls_of(work, 1 + min(4, open_items - 1))
    rest_gate.set()
    done = await worker.end_of(batch)

    assert probes == 1
    assert done.counts == Counts(total=12, succeeded=12)


async def test_a_provider_that_names_no_delay_is_asked_again_after_twice_the_time(
    start_worker: StartWorker, clock: FakeClock
):
    away = ProviderUnavailable("NO_ANSWER", "Connection refused.")
    work = FakeProcessor({"i0": [away] * 7})
    worker = await start_worker(work, slots=1, clock=clock)
    batch = await worker.submit(["i0"], options=ONE_BY_ONE)

    pauses = [await next_pause(worker, batch, clock) for _ in range(7)]
    done = await worker.end_of(batch)

    assert pauses == [30, 60, 120, 240, 480, 900, 900]
    assert done.counts == Counts(total=1, succeeded=1)


async def test_pauses_double_only_while_nothing_is_done_in_between(
    start_worker: StartWorker, clock: FakeClock
):
    work = Provider(answers=[False, False, True, False, True])
    worker = await start_worker(work, slots=1, clock=clock)
    batch = await worker.submit(["i0", "i1"], options=ONE_BY_ONE)

    before = [await next_pause(worker, batch, clock) for _ in range(2)]
    await worker.until(batch, lambda batch: batch.counts.succeeded == 1)
    work.gate.set()
    after = await next_pause(worker, batch, clock)
    done = await worker.end_of(batch)

    assert (before, after) == ([30, 60], 30)
    assert done.counts == Counts(total=2, succeeded=2)


async def test_an_item_that_was_in_flight_beside_it_finishes_and_counts(
    start_worker: StartWorker, clock: FakeClock
):
    work = FakeProcessor({"i1": [RateLimited("RATE_LIMIT", retry_after=SECOND)]})
    worker = await start_worker(work, slots=2, clock=clock)
    work.gate = asyncio.Event()
    batch = await worker.submit(["i0", "i1"])
    await calls_of(work, 2)
    work.gate.set()

    waiting = await paused(worker, batch)
    clock.advance(SECOND)
    await worker.deadlines.run_once()
    done = await worker.end_of(batch)

    assert waiting.counts == Counts(total=2, succeeded=1, pending=1)
    assert done.counts == Counts(total=2, succeeded=2)


async def test_a_caller_can_resume_before_the_time(start_worker: StartWorker, clock: FakeClock):
    work = FakeProcessor({"i0": [RateLimited("RATE_LIMIT", retry_after=timedelta(hours=1))]})
    worker = await start_worker(work, slots=1, clock=clock)
    batch = await worker.submit(["i0"], options=ONE_BY_ONE)
    await paused(worker, batch)

    await worker.resume(batch)
    done = await worker.end_of(batch)

    assert done.counts == Counts(total=1, succeeded=1)


@pytest.mark.parametrize(
    ("delay", "seconds"),
    [
        pytest.param(30, 30, id="a number of seconds"),
        pytest.param(timedelta.max, 7 * 86400, id="for ever"),
        pytest.param(timedelta(0), 0, id="at once"),
        pytest.param(-SECOND, 30, id="in the past"),
    ],
)
async def test_whatever_delay_is_named_the_batch_waits_and_others_go_on(
    start_worker: StartWorker, clock: FakeClock, delay: object, seconds: float
):
    # The story: a pause that could not be computed was tried again before each commit, and nothing
    # of the whole server was recorded any more.
    away = RateLimited("RATE_LIMIT", retry_after=delay)  # type: ignore[arg-type]
    worker = await start_worker(FakeProcessor({"i0": [away]}), slots=1, clock=clock)
    batch = await worker.submit(["i0"], options=ONE_BY_ONE)

    waiting = await paused(worker, batch)
    other = await worker.end_of(await worker.submit(["j0"], template_id="elsewhere"))

    assert waiting.resume_time == clock.now() + timedelta(seconds=seconds)
    assert other.counts == Counts(total=1, succeeded=1)


@pytest.mark.parametrize(
    ("away", "message"),
    [
        pytest.param(
            ProviderUnavailable("gone\x00away", "a \ud800 and a \x00"),
            "GONE_AWAY: a ? and a ",
            id="what no database can hold",
        ),
        pytest.param(
            ProviderUnavailable(7, OSError("refused")),  # type: ignore[arg-type]
            "7: refused",
            id="no text",
        ),
    ],
)
async def test_whatever_a_provider_says_is_told_of_the_batch(
    start_worker: StartWorker, clock: FakeClock, away: ProviderUnavailable, message: str
):
    worker = await start_worker(FakeProcessor({"i0": [away]}), slots=1, clock=clock)
    batch = await worker.submit(["i0"], options=ONE_BY_ONE)

    waiting = await paused(worker, batch)

    assert waiting.state_message == message


async def test_a_pause_that_cannot_be_recorded_holds_up_only_its_batch(
    start_worker: StartWorker, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
):
    work = FakeProcessor({"i0": [ProviderUnavailable("NO_ANSWER", retry_after=SECOND)]})
    worker = await start_worker(work, slots=2, clock=clock)
    pause, broken = worker.store.changes.pause, True

    async def failing(tx, key, **facts):
        if broken and key == batch.key:
            raise ZeroDivisionError("what nobody foresaw")
        return await pause(tx, key, **facts)

    monkeypatch.setattr(worker.store.changes, "pause", failing)
    monkeypatch.setattr("batchwork_server.engine.committer.RESTART_PAUSE", timedelta(0))
    batch = await worker.submit(["i0"], options=ONE_BY_ONE)
    await calls_of(work, 1)
    other = await worker.end_of(await worker.submit(["j0"], template_id="elsewhere"))
    still = await worker.until(batch, lambda _: True)
    broken = False
    clock.advance(SECOND)
    waiting = await paused(worker, batch)

    assert other.counts == Counts(total=1, succeeded=1)
    assert still.state is BatchState.RUNNING
    assert still.counts.running == 1, "it is not given back before it is known to wait"
    assert waiting.state_reason == "PROVIDER_DOWN"


async def next_pause(worker: Worker, batch: Batch, clock: FakeClock) -> float:
    """Returns how many seconds the batch is to wait this time, and lets them pass."""
    waiting = await paused(worker, batch)
    assert waiting.resume_time is not None
    pause = waiting.resume_time - clock.now()
    clock.advance(pause)
    await worker.deadlines.run_once()
    return pause.total_seconds()


async def test_batches_of_one_template_share_what_one_of_them_learns(
    start_worker: StartWorker, clock: FakeClock
):
    """Each batch found out by itself, with all slots, and each of them probed."""
    limited = RateLimited("RATE_LIMIT", "Slow down.", retry_after=60 * SECOND)
    work = FakeProcessor({f"{name}0": [limited] * 3 for name in "abc"})
    worker = await start_worker(work, slots=1, clock=clock)
    batches = [await worker.submit([f"{name}0", f"{name}1"]) for name in "abc"]

    refused = []
    for _ in range(3):
        waiting = [await paused(worker, batch) for batch in batches]
        refused.append(len(work.calls))
        assert {batch.resume_time for batch in waiting} == {clock.now() + 60 * SECOND}
        assert {batch.state_reason for batch in waiting} == {"PROVIDER_RATE_LIMITED"}
        clock.advance(60 * SECOND)
        await worker.deadlines.run_once()

    assert refused == [1, 2, 3], "one call a window, and not one for each batch"


async def test_while_one_batch_probes_the_others_of_its_template_wait(
    start_worker: StartWorker, clock: FakeClock
):
    work = FakeProcessor({"a0": [ProviderUnavailable("NO_ANSWER", retry_after=SECOND)]})
    worker = await start_worker(work, slots=6, clock=clock)
    batches = [await worker.submit([f"{name}0", f"{name}1"], options=ONE_BY_ONE) for name in "abc"]
    for batch in batches:
        await paused(worker, batch)
    work.calls.clear()
    work.gate = gate = asyncio.Event()

    clock.advance(SECOND)
    await worker.deadlines.run_once()
    for batch in batches:
        await worker.until(batch, lambda batch: batch.counts.running > 0)
    await calls_of(work, 1)
    await settled()
    probes = len(work.calls)
    gate.set()
    done = [await worker.end_of(batch) for batch in batches]

    assert probes == 1
    assert {batch.state for batch in done} == {BatchState.SUCCEEDED}


async def test_a_batch_that_comes_during_the_delay_waits_for_its_end_too(
    start_worker: StartWorker, clock: FakeClock
):
    limited = RateLimited("RATE_LIMIT", retry_after=60 * SECOND)
    work = FakeProcessor({"a0": [limited]})
    worker = await start_worker(work, slots=4, clock=clock)
    first = await paused(worker, await worker.submit(["a0"]))
    clock.advance(20 * SECOND)

    late = await paused(worker, await worker.submit(["b0"]))
    calls_meanwhile = len(work.calls)
    clock.advance(40 * SECOND)
    await worker.deadlines.run_once()
    done = [await worker.end_of(batch) for batch in (first, late)]

    assert (late.state_reason, late.resume_time) == ("PROVIDER_RATE_LIMITED", first.resume_time)
    assert calls_meanwhile == 1
    assert {batch.state for batch in done} == {BatchState.SUCCEEDED}


async def test_a_batch_that_is_resumed_before_the_time_finds_the_provider_back_for_all(
    start_worker: StartWorker, clock: FakeClock
):
    work = FakeProcessor({"a0": [RateLimited("RATE_LIMIT", retry_after=timedelta(hours=1))]})
    worker = await start_worker(work, slots=1, clock=clock)
    first = await paused(worker, await worker.submit(["a0"]))

    await worker.resume(first)
    done = await worker.end_of(first)
    later = await worker.end_of(await worker.submit(["b0"]))

    assert (done.state, later.state) == (BatchState.SUCCEEDED, BatchState.SUCCEEDED)


async def test_other_tenants_and_templates_do_not_wait(start_worker: StartWorker, clock: FakeClock):
    work = FakeProcessor({"a0": [RateLimited("RATE_LIMIT", retry_after=timedelta(hours=1))]})
    worker = await start_worker(work, slots=1, clock=clock, retry_limit=0)
    await paused(worker, await worker.submit(["a0"]))

    done = await worker.end_of(await worker.submit(["b0"], template_id="uninstalled"))

    assert done.state is BatchState.FAILED, "it was tried"


async def test_nothing_is_given_back_before_the_pause_is_recorded(
    start_worker: StartWorker, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
):
    """A pause that came during a commit waited for its end, and what the batch had given back was
    recorded meanwhile: it could be claimed by somebody who knew nothing of the pause."""
    work = FakeProcessor({"b0": [RateLimited("RATE_LIMIT", retry_after=60 * SECOND)]})
    worker = await start_worker(work, slots=1, clock=clock)
    record, recording, go_on = worker.store.chunks.record, asyncio.Event(), asyncio.Event()
    states_at_release: list[BatchState] = []

    async def record_slowly(records: Sequence[ChunkRecord], *, now: datetime) -> Recorded:
        for each in records:
            if each.release:
                found = await worker.store.batches.get_by_key(each.batch_key)
                assert found is not None
                states_at_release.append(found.state)
        recorded = await record(records, now=now)
        recording.set()
        await go_on.wait()
        return recorded

    monkeypatch.setattr(worker.store.chunks, "record", record_slowly)
    await worker.submit(["a0"])
    await recording.wait()
    limited = await worker.submit(["b0", "b1"])
    await calls_of(work, 2)
    go_on.set()
    await paused(worker, limited)

    assert states_at_release == [BatchState.PAUSED]
    assert len(work.calls) == 2
