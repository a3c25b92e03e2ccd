"""A Config Database over real HTTP, which can be slow, wrong, huge, empty, down or flapping."""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

KEY = "feature_preferences"
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


class ConfigService:
    """What the service knows, and how it behaves.

    Attributes:
        documents: By user.
        changes: Oldest first, each with its id.
        forgotten: Ids up to this one are not known any more.
        page_size: Of all users; 0 answers a bare list.
        changes_size: So many changes are told at once.
        behaviours: Used up one by one, by the next requests; then it is well.
        always: When set, what every request gets.
        tls: When set before it starts, it speaks TLS.
        requests: The path and query of each request, in order.
        keys: The authorization of each request.
    """

    def __init__(self) -> None:
        self.documents: dict[str, dict[str, Any]] = {}
        self.changes: list[dict[str, Any]] = []
        self.forgotten = 0
        self.page_size = 0
        self.changes_size = 1000
        self.behaviours: list[Told] = []
        self.always: Told | None = None
        self.requests: list[str] = []
        self.keys: list[str] = []
        self.asked = asyncio.Event()
        self.port = 0
        self.tls: ssl.SSLContext | None = None
        self._server: asyncio.Server | None = None
        self._connections: set[asyncio.Task[Any]] = set()

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

    def set(self, user_id: str, *, tells: bool = True, **features: Any) -> None:
        """Sets what a user wishes; with ``tells=False`` the change says only who changed."""
        document = {"tenant_id": user_id, "active": True, "features": features}
        self.documents[user_id] = document
        self._changed(document if tells else {"tenant_id": user_id})

    def set_active(self, user_id: str, *, active: bool) -> None:
        self.documents[user_id]["active"] = active
        self._changed(self.documents[user_id])

    def delete(self, user_id: str) -> None:
        del self.documents[user_id]
        self._changed({"tenant_id": user_id, "deleted": True})

    def forget(self) -> None:
        """Forgets every change so far."""
        self.forgotten = len(self.changes)

    def _changed(self, change: Mapping[str, Any]) -> None:
        self.changes.append({"id": len(self.changes) + 1, **change})

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            await self._answer(head, writer)
            await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            self._connections.discard(task)
            writer.close()

    async def _answer(self, head: str, writer: asyncio.StreamWriter) -> None:
        lines = head.split("\r\n")
        target = lines[0].split(" ")[1]
        headers = dict(line.lower().split(": ", 1) for line in lines[1:] if line)
        self.requests.append(target.removeprefix("/api/v1"))
        self.keys.append(headers.get("authorization", ""))
        self.asked.set()
        told = self.always or (self.behaviours.pop(0) if self.behaviours else self._right(target))
        if told.hold is not None:
            await told.hold.wait()
        body = told.body.encode() if isinstance(told.body, str) else told.body
        length = len(body) + (1 if told.cut else 0)
        sent = {"content-length": str(length), "connection": "close", **told.headers}
        status = f"HTTP/1.1 {told.status} X\r\n"
        fields = "".join(f"{name}: {value}\r\n" for name, value in sent.items() if value)
        writer.write((status + fields + "\r\n").encode() + body)

    def _right(self, target: str) -> Told:
        parts = urlsplit(target)
        query = {name: values[0] for name, values in parse_qs(parts.query).items()}
        match [unquote(segment) for segment in parts.path.split("/")[3:]]:
            case ["config", "configs", key, "all-tenants"] if key == KEY:
                return Told(body=json.dumps(self._page(query.get("page_token", "0"))))
            case ["tenants", user_id, "configs", key] if key == KEY and user_id in self.documents:
                return Told(body=json.dumps(self.documents[user_id]))
            case ["preferences", "groups"]:
                return Told(body=json.dumps({"groups": self._groups(query["feature_type"])}))
            case ["preferences", "changes"]:
                return self._changes(query.get("since_id"))
        return Told(status=404, body="{}")

    def _page(self, token: str) -> Any:
        documents = list(self.documents.values())
        if not self.page_size:
            return documents
        first = int(token)
        following = first + self.page_size
        more = following < len(documents)
        return {
            "configs": documents[first:following],
            "next_page_token": str(following) if more else "",
        }

    def _groups(self, feature_type: str) -> list[dict[str, Any]]:
        names = ("frequency", "preferred_time", "preferred_day", "time_zone", "minute")
        counts: dict[str, int] = {}
        for document in self.documents.values():
            wish = document["features"].get(feature_type)
            if wish is not None and wish.get("enabled", True):
                group = json.dumps({name: wish[name] for name in names if name in wish})
                counts[group] = counts.get(group, 0) + 1
        return [{**json.loads(group), "tenant_count": count} for group, count in counts.items()]

    def _changes(self, since_id: str | None) -> Told:
        newest = len(self.changes)
        if since_id is None:
            return Told(body=json.dumps({"changes": [], "last_id": newest}))
        since = int(since_id)
        if since < self.forgotten:
            return Told(status=410, body="{}")
        page = self.changes[since : since + self.changes_size]
        more = since + len(page) < newest
        return Told(
            body=json.dumps({"changes": page, "last_id": since + len(page), "has_more": more})
        )


@asynccontextmanager
async def config_service() -> AsyncIterator[ConfigService]:
    """Runs a service for as long as the block does."""
    service = ConfigService()
    await service.start()
    try:
        yield service
    finally:
        await service.stop()
