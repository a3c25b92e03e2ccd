"""What runs in a child process: one processor call after the other, each answered in bytes.

Imported by every child, so it imports next to nothing: neither gRPC nor the store.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import pickle
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from batchwork_server.engine.cancellation import forget_cancellation
from batchwork_server.errors import ItemFailed
from batchwork_server.ports import ItemCall, ItemResult, Processor

EXITED_WITH_ZERO = 64
"""The exit code of a child whose processor left with 0, which would pass for a quiet end."""


class Processors(Protocol):
    """Finds a processor by its name; an unknown one is a ``LookupError``."""

    def get(self, name: str) -> Processor: ...


Load = Callable[[], Processors]
"""Builds the processors of a process. A child finds it by its module and name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Child:
    processors: Processors | BaseException
    loop: asyncio.Runner


_child: _Child | None = None


def begin(load: Load) -> None:
    """Prepares this process, which is a child and does nothing else.

    What goes wrong with the processors is kept for those who ask for one: a child that ended
    here would be replaced by one that ends here, over and over.
    """
    global _child
    _keep_off_stdout()
    _show_every_exit()
    threading.Thread(target=_end_with_the_parent, name="parent", daemon=True).start()
    _child = _Child(processors=_loaded(load), loop=asyncio.Runner())


def _loaded(load: Load) -> Processors | BaseException:
    try:
        return load()
    except BaseException as error:  # noqa: BLE001  told to whoever asks for a processor
        return error


def _keep_off_stdout() -> None:
    """Sends what a processor prints to stderr; stdout belongs to the server."""
    os.dup2(2, 1)


def _show_every_exit() -> None:
    """Gives ``os._exit(0)`` another code; to the pool, 0 is no death, and nobody would notice."""
    leave = os._exit
    os._exit = lambda status: leave(status or EXITED_WITH_ZERO)


def _end_with_the_parent() -> None:
    """Ends this process when the parent is gone, however busy it is.

    A child that waits for work sees its pipe break; one in the middle of an item does not.
    """
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def ready() -> None:
    """Answers nothing; that it answers says that a child has begun."""


def work(processor_name: str, call: ItemCall) -> bytes:
    """Makes one attempt; ``answer_of`` reads the bytes.

    They are written here and not by the pool, which would hold a lock that all children share
    while a stranger's ``__reduce__`` runs.
    """
    assert _child is not None  # noqa: S101  the pool calls begin first
    return _child.loop.run(_attempt(_child.processors, processor_name, call))


async def _attempt(
    processors: Processors | BaseException, processor_name: str, call: ItemCall
) -> bytes:
    """Catches everything inside of the task: SystemExit in one would end the event loop."""
    try:
        if isinstance(processors, BaseException):
            raise processors
        written = _written(await processors.get(processor_name).process(call))
    except BaseException as error:  # noqa: BLE001  it belongs to the processor
        written = _written_error(error)
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        await forget_cancellation(task)  # else it would end this attempt without an answer
    return written


def _written(result: ItemResult) -> bytes:
    try:
        return pickle.dumps(result)
    except Exception as error:
        raise ItemFailed(
            "RESULT_INVALID", f"The result cannot leave its process: {_described(error)}"
        ) from error


def _written_error(error: BaseException) -> bytes:
    """Writes an error that can be read again.

    One that cannot is described in a RuntimeError, and so is what would end the server there,
    such as SystemExit.
    """
    if not isinstance(error, Exception):
        return pickle.dumps(RuntimeError(_described(error)))
    error.__traceback__ = None  # frames cannot leave the process
    try:
        written = pickle.dumps(error)
        pickle.loads(written)  # noqa: S301  written one line above
    except BaseException:  # noqa: BLE001  whatever a stranger's error does when it is read
        return pickle.dumps(RuntimeError(_described(error)))
    return written


def _described(error: BaseException) -> str:
    try:
        return f"{type(error).__name__}: {error}"
    except BaseException:  # noqa: BLE001  an error that cannot even say what it is
        return type(error).__name__


def answer_of(written: bytes) -> ItemResult:
    """Returns what a processor returned, or raises what it raised.

    Raises:
        BaseException: the processor's own.
    """
    answer = pickle.loads(written)  # noqa: S301  it comes from our own child
    if isinstance(answer, BaseException):
        raise answer
    result: ItemResult = answer
    return result
