"""Processors in child processes: what they say comes back, and their death is theirs alone."""

from __future__ import annotations

import asyncio
import json
import os
import pickle
import sys
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator, Callable
from datetime import timedelta
from pathlib import Path

import psutil
import pytest
from batchwork_server.domain.selection import SelectedItem
from batchwork_server.domain.submission import RequestedOptions
from batchwork_server.engine.isolation import ChildDied, ChildProcesses
from batchwork_server.errors import (
    ItemFailed,
    ItemSkipped,
    ProcessorError,
    ProviderUnavailable,
    RateLimited,
)
from batchwork_server.ports import ItemCall, ItemResult

from tests.engine.child_processors import call_for, load, load_nothing
from tests.fakes import FakeClock, FakeProcessor

ROOT = Path(__file__).parents[2]
LONG = timedelta(minutes=2)
SHORT = timedelta(milliseconds=300)


@pytest.fixture
async def children() -> AsyncIterator[ChildProcesses]:
    children = ChildProcesses(load=load, workers=1)
    yield children
    await children.close()


async def act(
    children: ChildProcesses, what: str, *, limit: timedelta = LONG, **data: object
) -> ItemResult:
    async with asyncio.timeout(120):
        return await children.process("scripted", call_for(what, **data), limit=limit)


async def until_busy(*pids: int) -> None:
    """Waits until one of the processes has used more of a processor than it takes to start."""
    async with asyncio.timeout(120):
        while not any(psutil.Process(pid).cpu_times().user > 2 for pid in pids):
            await asyncio.sleep(0.02)


async def gone(*pids: int) -> None:
    async with asyncio.timeout(60):
        while any(is_alive(pid) for pid in pids):
            await asyncio.sleep(0.02)


def is_alive(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


async def test_items_are_done_in_one_child_and_one_loop(children):
    first = await act(children, "tell")
    second = await act(children, "tell")

    assert first.value["pid"] != os.getpid()
    assert first == second


async def test_what_a_processor_says_of_an_item_comes_back(children):
    with pytest.raises(ItemFailed) as failed:
        await act(children, "fail")
    with pytest.raises(ItemSkipped) as skipped:
        await act(children, "skip")
    with pytest.raises(ProviderUnavailable) as away:
        await act(children, "away")

    assert (failed.value.reason, failed.value.message) == ("LIMITED", "Later.")
    assert (failed.value.retryable, failed.value.retry_after) == (True, timedelta(seconds=7))
    assert (skipped.value.reason, skipped.value.message) == ("NOTHING_TO_DO", "It is empty.")
    assert (away.value.reason, away.value.retry_after) == ("PROVIDER_DOWN", timedelta(minutes=2))


@pytest.mark.parametrize(
    "what, kind, message",
    [
        ("stumble", ZeroDivisionError, "nothing to divide by"),
        ("raise_unreadable", RuntimeError, "Unreadable: odd"),
        ("exit_loudly", RuntimeError, "SystemExit: enough"),
        ("hold_a_lock", ItemFailed, "cannot leave its process"),
        ("raise_unspeakable", RuntimeError, "Unspeakable"),
    ],
    ids=["unknown", "unreadable", "SystemExit", "result that cannot be told", "no text"],
)
async def test_whatever_a_processor_raises_its_child_lives(children, what, kind, message):
    before = await act(children, "tell")

    with pytest.raises(kind, match=message):
        await act(children, what)

    assert await act(children, "tell") == before


async def test_a_processor_that_cancels_its_own_task_ends_no_child(children):
    before = await act(children, "tell")

    with pytest.raises(RuntimeError, match="CancelledError"):
        await act(children, "cancel_itself", waits=True)
    result = await act(children, "cancel_itself", waits=False)

    assert result == ItemResult(value="done")
    assert await act(children, "tell") == before


@pytest.mark.parametrize(
    "what, data, cause",
    [
        ("leave", {"code": 3}, "exit code 3"),
        ("leave", {"code": 0}, "exit code 0"),
        ("crash", {}, "SIGSEGV"),
    ],
    ids=["os._exit(3)", "os._exit(0)", "segfault"],
)
async def test_a_child_that_dies_says_how_and_the_next_item_is_done(children, what, data, cause):
    with pytest.raises(ChildDied) as died:
        await act(children, what, **data)

    assert cause in died.value.message
    assert (await act(children, "tell")).value["pid"]


async def test_a_child_that_blocks_is_killed_when_its_time_is_over(children):
    before = (await act(children, "tell")).value["pid"]

    with pytest.raises(ItemFailed, match=r"longer than 0\.3 s") as failed:
        await act(children, "spin", limit=SHORT)

    assert (failed.value.reason, failed.value.retryable) == ("ITEM_TIMEOUT", True)
    assert (await act(children, "tell")).value["pid"] != before
    await gone(before)


async def test_a_caller_that_is_cancelled_has_the_child_killed(children):
    before = (await act(children, "tell")).value["pid"]
    spinning = asyncio.create_task(act(children, "spin"))
    await until_busy(before)

    spinning.cancel()

    with pytest.raises(asyncio.CancelledError):
        await spinning
    await gone(before)
    assert (await act(children, "tell")).value["pid"] != before


async def test_a_child_that_is_killed_while_it_waits_is_replaced(children):
    """The pool breaks for good when a child dies that has nothing in hand, such as one that the
    system chose when memory was short."""
    before = (await act(children, "tell")).value["pid"]

    psutil.Process(before).kill()
    await gone(before)

    assert (await act(children, "tell")).value["pid"] != before


async def test_processors_that_cannot_be_loaded_fail_the_item(children):
    broken = ChildProcesses(load=load_nothing, workers=1)
    try:
        with pytest.raises(OSError, match="The disk with the processors is away"):
            await act(broken, "tell")
    finally:
        await broken.close()


async def test_a_child_imports_neither_grpc_nor_the_store(children):
    modules = set((await act(children, "list_modules")).value)

    assert modules & {"grpc", "sqlalchemy", "structlog", "pytest"} == set()


async def test_no_process_starts_before_it_is_wanted_and_none_is_left_after_the_end():
    children = ChildProcesses(load=load, workers=2)
    others = {child.pid for child in psutil.Process().children()}
    assert others == {child.pid for child in psutil.Process().children()}
    await act(children, "tell")
    started = {
        child.pid
        for child in psutil.Process().children()
        if child.pid not in others and "resource_tracker" not in " ".join(child.cmdline())
    }
    assert len(started) == 2

    await children.close()

    assert not any(is_alive(pid) for pid in started)
    with pytest.raises(RuntimeError, match="have ended"):
        await act(children, "tell")


async def test_children_end_with_a_parent_that_is_killed_and_keep_off_its_stdout():
    parent = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.engine.parent_process"), stdout=PIPE, cwd=ROOT
    )
    assert parent.stdout is not None
    pids = [int(pid) for pid in (await parent.stdout.readline()).split()]
    assert pids  # and not the chatter of an item
    await until_busy(*pids)

    parent.kill()

    await parent.wait()
    await gone(*pids)


class BusyProcessor(FakeProcessor):
    """Says that it is CPU-bound; what it does here it does in vain."""

    cpu_bound = True


async def test_items_of_a_cpu_bound_processor_are_done_apart_while_the_loop_goes_on(start_worker):
    work, children = BusyProcessor(), ChildProcesses(load=load, workers=2)
    worker = await start_worker(work, slots=8, retry_limit=0, children=children)
    lap = 0

    async def run() -> None:
        nonlocal lap
        while True:
            await asyncio.sleep(0)
            lap += 1

    running = asyncio.create_task(run())
    spinning = await worker.submit([], items=busy_items("spin", 2), options=within(SHORT))
    batch = await worker.submit([], items=busy_items("tell", 10))
    failed, done = await worker.finish(spinning), await worker.finish(batch)
    running.cancel()

    assert (failed.counts.failed, done.counts.succeeded) == (2, 10)
    pids = {json.loads(item.result_json)["pid"] for item in await worker.items(done)}
    assert os.getpid() not in pids
    assert work.calls == []
    assert lap > 100


class LateChildren(ChildProcesses):
    """Has no child free at first, and does no work."""

    def __init__(self) -> None:
        super().__init__(load=load_nothing, workers=1)
        self.asked, self.free = asyncio.Event(), asyncio.Event()

    async def process(
        self,
        processor_name: str,
        call: ItemCall,
        *,
        limit: timedelta,
        begun: Callable[[], None] = lambda: None,
    ) -> ItemResult:
        self.asked.set()
        await self.free.wait()
        begun()
        return ItemResult(value={})


async def test_the_time_of_an_attempt_begins_when_there_is_a_child_for_it(start_worker):
    clock, children = FakeClock(), LateChildren()
    worker = await start_worker(BusyProcessor(), clock=clock, children=children)
    batch = await worker.submit([], items=busy_items("tell", 1), options=within(SHORT))
    await children.asked.wait()

    clock.advance(timedelta(seconds=20))
    assert worker.processor.give_up_overdue() == []
    children.free.set()
    batch = await worker.end_of(batch)

    (item,) = await worker.items(batch)
    assert batch.counts.succeeded == 1
    assert item.start_time == item.end_time == clock.now()


def busy_items(what: str, count: int) -> tuple[SelectedItem, ...]:
    return tuple(
        SelectedItem(item_id=str(number), user_id=None, data_json=json.dumps({"act": what}))
        for number in range(count)
    )


def within(limit: timedelta) -> RequestedOptions:
    return RequestedOptions(item_timeout=limit)


@pytest.mark.parametrize(
    "error",
    [
        ProcessorError("ODD", "It is odd."),
        ItemFailed("LIMITED"),
        ItemFailed("LIMITED", "Later.", retryable=True, retry_after=timedelta(seconds=7)),
        ItemSkipped("EMPTY", "Nothing there."),
        ProviderUnavailable("DOWN", "Away.", retry_after=timedelta(seconds=9)),
        RateLimited("LIMITED", "Slower.", retry_after=timedelta(seconds=9)),
    ],
    ids=lambda error: type(error).__name__,
)
def test_what_processors_raise_keeps_its_facts_when_it_is_pickled(error):
    again = pickle.loads(pickle.dumps(error))

    assert type(again) is type(error)
    assert vars(again) == vars(error)
    assert str(again) == str(error)
