"""A service over real HTTP, which can be slow, wrong, huge, empty, down or flapping."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

API_KEY = "key-of-the-tests"


@dataclass
class Told:
    """An answer instead of the right one.

    Attributes:
        hold: The answer begins only when it is set.
    """

    status: int = 200
    body: str | bytes = ""
    headers: Mapping[str, str] = field(default_factory=dict)
    hold: asyncio.Event | None = None
    cut: bool = False


class HttpService:
    """A service that answers below ``/api/v1``; subclasses know what is right.

    Attributes:
        behaviours: Used up one by one, by the next requests; then it is well.
        always: When set, what every request gets.
        tls: When set before it starts, it speaks TLS.
        requests: The path and query of each request, in order.
        keys: The authorization of each request.
    """

    def __init__(self) -> None:
        self.behaviours: list[Told] = []
        self.always: Told | None = None
        self.requests: list[str] = []
        self.keys: list[str] = []
        self.asked = asyncio.Event()
        self.port = 0
        self.tls: ssl.SSLContext | None = None
        self._server: asyncio.Server | None = None
        self._connections: set[asyncio.Task[Any]] = set()

    def right(self, target: str, body: bytes) -> Told:
        """Returns the right answer to a request."""
        raise NotImplementedError

    @property
    def url(self) -> str:
        return f"http{'s' if self.tls else ''}://127.0.0.1:{self.port}/api/v1"

    async def start(self) -> None:
        """Listens, on the same port as before if it did so already."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port, ssl=self.tls)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """Refuses every connection from now on."""
        if self._server is not None:
            self._server.close()
            for connection in self._connections:
                connection.cancel()
            await asyncio.gather(*self._connections, return_exceptions=True)
            await self._server.wait_closed()
            self._server = None

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        try:
            lines = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
            headers = dict(line.lower().split(": ", 1) for line in lines[1:] if line)
            body = await reader.readexactly(int(headers.get("content-length", 0)))
            await self._answer(lines[0].split(" ")[1], headers, body, writer)
            await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            self._connections.discard(task)
            writer.close()

    async def _answer(
        self,
        target: str,
        headers: Mapping[str, str],
        sent: bytes,
        writer: asyncio.StreamWriter,
    ) -> None:
        self.requests.append(target.removeprefix("/api/v1"))
        self.keys.append(headers.get("authorization", ""))
        self.asked.set()
        told = self.always or (
            self.behaviours.pop(0) if self.behaviours else self.right(target, sent)
        )
        if told.hold is not None:
            await told.hold.wait()
        body = told.body.encode() if isinstance(told.body, str) else told.body
        length = len(body) + (1 if told.cut else 0)
        told_headers = {"content-length": str(length), "connection": "close", **told.headers}
        status = f"HTTP/1.1 {told.status} X\r\n"
        fields = "".join(f"{name}: {value}\r\n" for name, value in told_headers.items() if value)
        writer.write((status + fields + "\r\n").encode() + body)
