"""What the tests of child processes have done there. Each child builds it anew with ``load``."""

from __future__ import annotations

import asyncio
import ctypes
import os
import signal
import sys
import threading
from collections.abc import Awaitable, Callable, Sequence
from datetime import timedelta
from typing import Any

from batchwork_server.domain.batch import Template
from batchwork_server.errors import ItemFailed, ItemSkipped, ProviderUnavailable
from batchwork_server.ports import ItemCall, ItemResult
from batchwork_server.processors.registry import ProcessorRegistry


class ActingProcessor:
    """Does what the item says; without that it answers with its process."""

    cpu_bound = True

    def check(self, template: Template) -> Sequence[str]:
        return ()

    async def process(self, call: ItemCall) -> ItemResult:
        return await ACTS[call.data.get("act", "tell")](call)


class Unreadable(Exception):
    """Cannot be read again: it wants a keyword."""

    def __init__(self, message: str, *, detail: str) -> None:
        super().__init__(message)
        self.detail = detail


class Unspeakable(BaseException):
    def __str__(self) -> str:
        raise SystemExit("not even this")


async def tell(call: ItemCall) -> ItemResult:
    await asyncio.sleep(0)
    return ItemResult(value={"pid": os.getpid(), "loop": id(asyncio.get_running_loop())})


async def fail(call: ItemCall) -> ItemResult:
    raise ItemFailed("LIMITED", "Later.", retryable=True, retry_after=timedelta(seconds=7))


async def skip(call: ItemCall) -> ItemResult:
    raise ItemSkipped("NOTHING_TO_DO", "It is empty.")


async def away(call: ItemCall) -> ItemResult:
    raise ProviderUnavailable("PROVIDER_DOWN", "Away.", retry_after=timedelta(minutes=2))


async def stumble(call: ItemCall) -> ItemResult:
    raise ZeroDivisionError("nothing to divide by")


async def raise_unreadable(call: ItemCall) -> ItemResult:
    raise Unreadable("odd", detail="more")


async def exit_loudly(call: ItemCall) -> ItemResult:
    sys.exit("enough")


async def cancel_itself(call: ItemCall) -> ItemResult:
    task = asyncio.current_task()
    assert task is not None
    task.cancel()
    if call.data.get("waits"):
        await asyncio.Event().wait()
    return ItemResult(value="done")


async def raise_unspeakable(call: ItemCall) -> ItemResult:
    raise Unspeakable


async def leave(call: ItemCall) -> ItemResult:
    os._exit(call.data["code"])


async def crash(call: ItemCall) -> ItemResult:
    signal.signal(signal.SIGSEGV, signal.SIG_DFL)  # pytest has faulthandler write a trace
    return ItemResult(value=ctypes.string_at(0))


async def spin(call: ItemCall) -> ItemResult:
    while True:
        pass


async def hold_a_lock(call: ItemCall) -> ItemResult:
    return ItemResult(value=threading.Lock())


async def chat(call: ItemCall) -> ItemResult:
    print("chatter", flush=True)
    return ItemResult(value=None)


async def list_modules(call: ItemCall) -> ItemResult:
    return ItemResult(value=sorted(sys.modules))


ACTS: dict[str, Callable[[ItemCall], Awaitable[ItemResult]]] = {
    act.__name__: act
    for act in (
        *(tell, fail, skip, away, stumble, raise_unreadable, exit_loudly, leave, crash, spin),
        *(hold_a_lock, chat, list_modules, cancel_itself, raise_unspeakable),
    )
}


def load() -> ProcessorRegistry:
    registry = ProcessorRegistry()
    registry.register("scripted", ActingProcessor())
    return registry


def load_nothing() -> ProcessorRegistry:
    raise OSError("The disk with the processors is away.")


def call_for(act: str, **data: Any) -> ItemCall:
    return ItemCall(
        batch_id="batch",
        tenant_id="default",
        item_id="item",
        user_id=None,
        data={"act": act, **data},
        attempt=1,
        idempotency_key="key",
        parameters={},
    )
