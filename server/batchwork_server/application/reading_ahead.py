"""Answering a stream in its order, while what comes next is worked on already."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterable, Callable, Coroutine
from typing import Any, TypeVar

_Question = TypeVar("_Question")
_Answer = TypeVar("_Answer")


async def answered_in_order(
    questions: AsyncIterable[_Question],
    answer: Callable[[_Question], Coroutine[Any, Any, _Answer]],
    *,
    at_once: int,
) -> AsyncGenerator[_Answer, None]:
    """Yields the answer to each question, as soon as it is its turn.

    Args:
        at_once: No more questions are held, those that are answered included.

    Raises:
        Exception: what ``questions`` or ``answer`` raised, after the answers before it.
    """
    room = asyncio.Semaphore(at_once)
    working: set[asyncio.Task[_Answer]] = set()
    turns: asyncio.Queue[asyncio.Task[_Answer] | None] = asyncio.Queue()

    async def read() -> None:
        try:
            await room.acquire()
            async for question in questions:
                task = asyncio.create_task(answer(question))
                working.add(task)
                turns.put_nowait(task)
                await room.acquire()
        finally:
            turns.put_nowait(None)

    reader = asyncio.create_task(read())
    try:
        while (task := await turns.get()) is not None:
            yield await task
            working.discard(task)
            room.release()
        await reader
    finally:
        for each in (reader, *working):
            each.cancel()
        await asyncio.gather(reader, *working, return_exceptions=True)
