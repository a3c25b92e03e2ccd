"""A real SMTP server in the process of the test."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from email import message_from_bytes, policy
from email.message import EmailMessage
from typing import Any

from aiosmtpd.smtp import SMTP, Envelope, Session


class MailServer:
    """Takes mail.

    Attributes:
        mails: What was taken, in order.
        refusal: When set, what every mail is answered with instead.
    """

    def __init__(self) -> None:
        self.mails: list[EmailMessage] = []
        self.recipients: list[list[str]] = []
        self.refusal = ""
        self.came = asyncio.Event()
        self.port = 0
        self._server: asyncio.Server | None = None

    @property
    def url(self) -> str:
        """How Apprise names it."""
        return f"mailto://127.0.0.1:{self.port}?from=batchwork@example.com&to=ops@example.com"

    async def start(self) -> None:
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(
            lambda: SMTP(self, loop=loop, hostname="localhost"), "127.0.0.1", self.port
        )
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        if self._server is not None:
            self._server.close()
            await self._server.wait_closed()
            self._server = None

    async def until(self, count: int) -> None:
        """Returns as soon as so many mails were taken."""
        async with asyncio.timeout(30):
            while len(self.mails) < count:
                self.came.clear()
                await self.came.wait()

    async def handle_DATA(self, _server: Any, _session: Session, envelope: Envelope) -> str:
        """Is called by the library with each mail."""
        if self.refusal:
            return self.refusal
        content = envelope.content
        assert isinstance(content, bytes)
        mail = message_from_bytes(content, policy=policy.default)
        assert isinstance(mail, EmailMessage)
        self.mails.append(mail)
        self.recipients.append(list(envelope.rcpt_tos))
        self.came.set()
        return "250 OK"


@asynccontextmanager
async def mail_server() -> AsyncIterator[MailServer]:
    """Runs a server for as long as the block does."""
    server = MailServer()
    await server.start()
    try:
        yield server
    finally:
        await server.stop()
