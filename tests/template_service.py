"""A template service over real HTTP, as docs/template-service.md has it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import parse_qs, urlsplit

from tests.http_service import HttpService, Told


class TemplateServer(HttpService):
    """What the service knows, and how it behaves.

    Attributes:
        templates: As they are told, in their order.
        page_size: 0 answers a bare list.
        tags: Whether it names what it says, and says that nothing has changed.
    """

    def __init__(self) -> None:
        super().__init__()
        self.templates: list[Any] = []
        self.page_size = 0
        self.tags = False
        self._known_etag = ""

    def right(self, target: str, body: bytes) -> Told:
        parts = urlsplit(target)
        if parts.path != "/api/v1/templates":
            return Told(status=404, body="{}")
        text = json.dumps(self._page(parse_qs(parts.query).get("page_token", ["0"])[0]))
        etag = f'"{sum(text.encode()):x}-{len(text)}"' if self.tags else ""
        if etag and etag == self._known_etag:
            return Told(status=304, headers={"etag": etag})
        return Told(body=text, headers={"etag": etag})

    def _page(self, token: str) -> Any:
        if not self.page_size:
            return self.templates
        first = int(token)
        following = first + self.page_size
        more = following < len(self.templates)
        return {
            "templates": self.templates[first:following],
            "next_page_token": str(following) if more else "",
        }

    async def _answer(
        self,
        target: str,
        headers: Mapping[str, str],
        sent: bytes,
        writer: asyncio.StreamWriter,
    ) -> None:
        self._known_etag = headers.get("if-none-match", "")
        await super()._answer(target, headers, sent, writer)


@asynccontextmanager
async def template_service() -> AsyncIterator[TemplateServer]:
    """Runs a service for as long as the block does."""
    service = TemplateServer()
    await service.start()
    try:
        yield service
    finally:
        await service.stop()
