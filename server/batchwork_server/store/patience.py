"""Statements that are not cut off when their caller leaves.

A statement that is cancelled costs its connection: SQLAlchemy closes it, and SQLite keeps the
descriptor of a closed file for as long as another connection of the process holds a lock on it,
which in WAL mode is always. So a call that is cancelled lets its statement end first.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar, cast

from sqlalchemy.ext.asyncio import AsyncConnection

_Result = TypeVar("_Result")


async def to_its_end(step: Coroutine[Any, Any, _Result]) -> _Result:
    """Awaits a step; a cancellation takes effect when the step has ended."""
    task = asyncio.ensure_future(step)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        if not task.done():
            await asyncio.wait([task])
        if not task.cancelled():
            task.exception()  # nobody else will look at it
        raise


class _PatientConnection:
    """An ``AsyncConnection`` whose statements run to their end."""

    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection

    async def execute(self, *arguments: Any, **options: Any) -> Any:
        return await to_its_end(self._connection.execute(*arguments, **options))

    async def exec_driver_sql(self, *arguments: Any, **options: Any) -> Any:
        return await to_its_end(self._connection.exec_driver_sql(*arguments, **options))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._connection, name)


def patient(connection: AsyncConnection) -> AsyncConnection:
    """Returns a connection whose statements run to their end, where that matters: on SQLite."""
    if connection.dialect.name != "sqlite":
        return connection
    return cast("AsyncConnection", _PatientConnection(connection))
