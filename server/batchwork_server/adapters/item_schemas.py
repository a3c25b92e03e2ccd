"""Checks items against JSON Schemas of callers, in a child process that can be killed.

A schema is a program of a stranger: a pattern can take for ever, and so can references in circles.
Nothing in a thread could stop it.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

from pebble import ProcessExpired, ProcessPool

from batchwork_server.adapters import schema_child
from batchwork_server.domain.item_schema import MAX_SCHEMA_BYTES, CheckedItem
from batchwork_server.domain.json_object import parse_json
from batchwork_server.errors import InvalidArgument, Violation
from batchwork_server.ports import OpenSchema
from batchwork_server.spawn import Spawn

SCHEMA_TOO_COSTLY = "SCHEMA_TOO_COSTLY"

PAGE_LIMIT = timedelta(seconds=10)
"""For the items of one page, from when the child has them."""

_AT_ONCE = 2
_PATH = "schema_json"


class JsonSchemas:
    """Implements ``ItemSchemas`` with two processes for the pages of all calls.

    Pages are checked in the order in which they come, so that a category of any size holds up
    nobody else's.

    Args:
        limit: The time for one page of items; then the process is killed.
    """

    def __init__(self, *, limit: timedelta = PAGE_LIMIT) -> None:
        self._limit = limit
        self._processes = _Processes()

    @asynccontextmanager
    async def open(self, schema_json: str) -> AsyncIterator[OpenSchema]:
        """Yields what checks items against a schema.

        Raises:
            InvalidArgument: with everything that is wrong with the schema.
        """
        _check_text(schema_json)
        async with self._processes.kept():
            opened = _Schema(self._processes, schema_json, limit=self._limit)
            await opened.check_itself()
            yield opened


class _Processes:
    """Processes that run while somebody needs them, and begin when they are needed."""

    def __init__(self) -> None:
        self._free = asyncio.Semaphore(_AT_ONCE)
        self._idle: list[ProcessPool] = []
        self._users = 0

    @asynccontextmanager
    async def kept(self) -> AsyncIterator[None]:
        """Keeps the processes for as long as the block runs."""
        self._users += 1
        try:
            yield
        finally:
            self._users -= 1
            if not self._users:
                idle, self._idle = self._idle, []
                for pool in idle:
                    await _stop(pool)

    async def run(self, work: Callable[..., Any], *arguments: Any, limit: timedelta) -> Any:
        """Runs something in one of them, in the order in which it was asked for.

        A process in which it came to a bad end runs nothing else.
        """
        async with self._free:
            pool = self._idle.pop() if self._idle else _start()
            is_well = False
            try:
                seconds = limit.total_seconds()
                future = pool.schedule(work, args=arguments, timeout=seconds)
                result = await asyncio.wrap_future(future)
                is_well = True
                return result
            except schema_child.UnusableSchema:
                is_well = True
                raise
            finally:
                if is_well:
                    self._idle.append(pool)
                else:
                    await _stop(pool)


def _start() -> ProcessPool:
    return ProcessPool(max_workers=1, context=Spawn(), initializer=schema_child.bound_memory)


async def _stop(pool: ProcessPool) -> None:
    pool.stop()  # type: ignore[no-untyped-call]  # pebble left it out
    # The process is dead already; who waits for that must not hold up the others.
    await asyncio.shield(asyncio.to_thread(pool.join))


class _Schema:
    def __init__(self, processes: _Processes, schema_json: str, *, limit: timedelta) -> None:
        self._processes = processes
        self._schema_json = schema_json
        self._limit = limit

    async def check_itself(self) -> None:
        problems = await self._ask(schema_child.problems_of)
        if problems:
            raise InvalidArgument(
                [Violation(_PATH + path.removeprefix("$"), message) for path, message in problems]
            )

    async def check(self, items: Sequence[tuple[str, str]]) -> Sequence[CheckedItem]:
        try:
            checked: list[CheckedItem] = await self._ask(schema_child.check, list(items))
        except schema_child.UnusableSchema as error:
            raise InvalidArgument([Violation(_PATH, str(error))]) from error
        return checked

    async def _ask(self, work: Callable[..., Any], *arguments: Any) -> Any:
        try:
            return await self._processes.run(work, self._schema_json, *arguments, limit=self._limit)
        except (TimeoutError, MemoryError, ProcessExpired) as error:
            message = (
                f"The schema takes more than {self._limit.total_seconds():g} s, or too much "
                "memory, for a page of items; write simpler patterns, or fewer of them."
            )
            raise InvalidArgument([Violation(_PATH, message, SCHEMA_TOO_COSTLY)]) from error


def _check_text(schema_json: str) -> None:
    size = len(schema_json.encode())
    if size > MAX_SCHEMA_BYTES:
        message = f"The schema has {size} bytes; the limit is {MAX_SCHEMA_BYTES}."
        raise InvalidArgument(
            [Violation(_PATH, message, "PAYLOAD_TOO_LARGE", limit=MAX_SCHEMA_BYTES)]
        )
    value, violations = parse_json(schema_json, path=_PATH)
    if not violations and not isinstance(value, bool | dict):
        violations = [Violation(_PATH, "A schema is a JSON object, or true or false.")]
    if violations:
        raise InvalidArgument(violations)
