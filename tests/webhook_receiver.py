"""Somebody who is called: a real HTTP server that checks signatures and can answer anything."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import orjson
from standardwebhooks.webhooks import Webhook

SECRET = "whsec_" + "dGVzdHMga2VlcCB0aGVpciBvd24gc2VjcmV0cyBoZXJl"


@dataclass(frozen=True)
class Answered:
    """An answer instead of 204.

    Attributes:
        hold: The answer begins only when it is set.
        cut: The connection ends without an answer.
    """

    status: int = 204
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    hold: asyncio.Event | None = None
    cut: bool = False


@dataclass(frozen=True)
class Received:
    """One request."""

    path: str
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> dict[str, Any]:
        value: dict[str, Any] = orjson.loads(self.body)
        return value

    @property
    def id(self) -> str:
        return self.headers["webhook-id"]

    def signature_of(self, secret: str, *, timestamp: Any) -> str:
        """Returns what the signature is when this secret signs at this time."""
        return Webhook(secret).sign(self.id, timestamp, self.body.decode())


class WebhookReceiver:
    """Takes what is sent to it.

    Attributes:
        received: In order, also what was not answered well.
        answers: Used up one by one; then it is well.
        always: When set, what every request gets.
        tls: When set before it starts, it speaks TLS.
        server_names: Which name each TLS connection asked for.
    """

    def __init__(self) -> None:
        self.received: list[Received] = []
        self.answers: list[Answered] = []
        self.always: Answered | None = None
        self.tls: ssl.SSLContext | None = None
        self.server_names: list[str | None] = []
        self.called = asyncio.Event()
        self.port = 0
        self._server: asyncio.Server | None = None
        self._connections: set[asyncio.Task[Any]] = set()

    @property
    def url(self) -> str:
        return f"http{'s' if self.tls else ''}://127.0.0.1:{self.port}/hooks/token-of-the-path"

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

    async def until(self, count: int) -> list[Received]:
        """Returns what was received as soon as it is so many."""
        async with asyncio.timeout(30):
            while len(self.received) < count:
                self.called.clear()
                await self.called.wait()
        return self.received

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            lines = head.split("\r\n")
            named = (line.split(": ", 1) for line in lines[1:] if line)
            headers = {name.lower(): value for name, value in named}
            body = await reader.readexactly(int(headers.get("content-length", "0")))
            self.received.append(Received(lines[0].split(" ")[1], headers, body))
            self.called.set()
            await self._answer(writer)
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            self._connections.discard(task)
            writer.close()

    async def _answer(self, writer: asyncio.StreamWriter) -> None:
        answer = self.always or (self.answers.pop(0) if self.answers else Answered())
        if answer.hold is not None:
            await answer.hold.wait()
        if answer.cut:
            return
        sent = {"content-length": str(len(answer.body)), "connection": "close", **answer.headers}
        fields = "".join(f"{name}: {value}\r\n" for name, value in sent.items())
        writer.write(f"HTTP/1.1 {answer.status} X\r\n{fields}\r\n".encode() + answer.body)
        await writer.drain()


@asynccontextmanager
async def webhook_receiver() -> AsyncIterator[WebhookReceiver]:
    """Runs a receiver for as long as the block does."""
    receiver = WebhookReceiver()
    await receiver.start()
    try:
        yield receiver
    finally:
        await receiver.stop()
