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
    """Implements ``ItemSchemas`` with a process for each schema, two at once.

    Args:
        limit: The time for one page of items; then the process is killed.
    """

    def __init__(self, *, limit: timedelta = PAGE_LIMIT) -> None:
        self._limit = limit
        self._free = asyncio.Semaphore(_AT_ONCE)

    @asynccontextmanager
    async def open(self, schema_json: str) -> AsyncIterator[OpenSchema]:
        """Yields what checks items against a schema.

        Raises:
            InvalidArgument: with everything that is wrong with the schema.
        """
        _check_text(schema_json)
        async with self._free:
            pool = ProcessPool(
                max_workers=1, context=Spawn(), initializer=schema_child.bound_memory
            )
            try:
                child = _Child(pool, schema_json, limit=self._limit)
                await child.check_schema()
                yield child
            finally:
                pool.stop()  # type: ignore[no-untyped-call]  # pebble left it out
                # The process is dead already; who waits for that must not hold up the others.
                await asyncio.shield(asyncio.to_thread(pool.join))


class _Child:
    def __init__(self, pool: ProcessPool, schema_json: str, *, limit: timedelta) -> None:
        self._pool = pool
        self._schema_json = schema_json
        self._limit = limit

    async def check_schema(self) -> None:
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
        seconds = self._limit.total_seconds()
        future = self._pool.schedule(work, args=(self._schema_json, *arguments), timeout=seconds)
        try:
            return await asyncio.wrap_future(future)
        except (TimeoutError, MemoryError, ProcessExpired) as error:
            message = (
                f"The schema takes more than {seconds:g} s, or too much memory, for a page of "
                "items; write simpler patterns, or fewer of them."
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
