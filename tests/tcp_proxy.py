"""A line between a server and its database that can be stopped, cut and slowed down."""

from __future__ import annotations

import asyncio
from asyncio import StreamReader, StreamWriter
from collections.abc import Iterable
from datetime import timedelta
from pathlib import Path
from types import TracebackType
from typing import Self

_PIECE = 64 * 1024


class TcpProxy:
    """Listens on TCP and forwards every connection to a unix socket.

    Use it as an async context manager.

    Attributes:
        target: The socket to which new connections are forwarded.
        delay: How long each piece of data is under way.
        given_up_after: When the machine of the database ends connections that a pause has made
            silent, as its keepalive does; None means never.
        port: On which it listens, on loopback.
    """

    def __init__(self, target: Path) -> None:
        self.target = target
        self._flowing = asyncio.Event()
        self._flowing.set()
        self._is_cut = False
        self._writers: set[StreamWriter] = set()
        self._there: set[StreamWriter] = set()
        self._server: asyncio.Server | None = None
        self.delay = timedelta(0)
        self.given_up_after: timedelta | None = None
        self.port = 0

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._forward, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        assert self._server is not None
        self._server.close()
        self.cut()

    def pause(self) -> None:
        """Lets nothing through and tells nobody, as a network does that has gone."""
        self._flowing.clear()
        if self.given_up_after is not None:
            seconds = self.given_up_after.total_seconds()
            asyncio.get_running_loop().call_later(seconds, self._give_up, tuple(self._there))

    def _give_up(self, silent: Iterable[StreamWriter]) -> None:
        """Ends connections at the end of the database; the other end is not told."""
        for end in () if self._flowing.is_set() else silent:
            end.transport.abort()

    def resume(self) -> None:
        """Lets through what has waited, and everything after it."""
        self._flowing.set()

    def cut(self) -> None:
        """Resets every connection, and each new one, until ``mend``."""
        self._is_cut = True
        for writer in self._writers:
            writer.transport.abort()
        self._flowing.set()

    def mend(self) -> None:
        """Takes connections again."""
        self._is_cut = False

    async def _forward(self, reader: StreamReader, writer: StreamWriter) -> None:
        if self._is_cut:
            writer.transport.abort()
            return
        there, back = await asyncio.open_unix_connection(str(self.target))
        ends = {writer, back}
        self._writers |= ends
        self._there.add(back)
        try:
            async with asyncio.TaskGroup() as directions:
                directions.create_task(self._pump(reader, back))
                directions.create_task(self._pump(there, writer))
        except* OSError:
            pass  # it was cut, or one of the two has gone
        finally:
            self._writers -= ends
            self._there.discard(back)
            for end in ends:
                end.transport.abort()

    async def _pump(self, reader: StreamReader, writer: StreamWriter) -> None:
        while piece := await reader.read(_PIECE):
            await self._flowing.wait()
            if self.delay:
                await asyncio.sleep(self.delay.total_seconds())
            writer.write(piece)
            await writer.drain()
        await self._flowing.wait()
        raise ConnectionResetError  # the other direction is of no use any more
