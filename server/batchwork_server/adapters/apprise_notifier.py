"""Mail, chats and the rest, through Apprise: one URL a service."""

from __future__ import annotations

import asyncio
import logging
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

from apprise import Apprise, NotifyBase, NotifyFormat, NotifyType

from batchwork_server.adapters.destinations import Destinations, is_loopback_host
from batchwork_server.domain.notification import Message
from batchwork_server.errors import NotSent

TIMEOUT = timedelta(seconds=60)
"""For one attempt; the library itself gives up earlier, at each step of a conversation."""

THREADS = 8
"""How many messages are under way at once; the library blocks."""


def new_threads() -> ThreadPoolExecutor:
    """Returns threads of their own: a slow service keeps nobody else from a thread."""
    return ThreadPoolExecutor(max_workers=THREADS, thread_name_prefix="apprise")


def silence_apprise() -> None:
    """Keeps the library from logging, since what it logs holds URLs, and those hold secrets."""
    logger = logging.getLogger("apprise")
    logger.disabled = True


def service_of(url: str) -> NotifyBase | None:
    """Returns the service that a URL names, or none when Apprise knows none."""
    service = Apprise.instantiate(url, suppress_exceptions=True)
    return service if isinstance(service, NotifyBase) else None


def host_of(service: NotifyBase) -> str:
    """Returns the host that a URL names; empty for services that have one of their own."""
    mail_host: Any = getattr(service, "smtp_host", None)
    if mail_host:
        return str(mail_host)
    templates: tuple[str, ...] = service.templates
    names_host = any("{host}" in template for template in templates)
    return str(service.host) if names_host and service.host else ""


def clear_text_problem(service: NotifyBase, *, allow_private: bool, allow_clear_text: bool) -> str:
    """Returns why a service may not be used that does not encrypt; empty when it may."""
    host = host_of(service)
    if not host or service.secure or allow_clear_text:
        return ""
    if allow_private and is_loopback_host(host):
        return ""
    return (
        "Without TLS everybody on the way can read along. Use the form that encrypts, such as "
        "mailtos, or jsons; the other one may stand for this machine with "
        "`allow_private_addresses: true`, or anywhere with BATCHWORK_ALLOW_CLEAR_TEXT=true when "
        "something else encrypts."
    )


class AppriseNotifier:
    """Sends to one service.

    The host that the URL names is checked before each message. The library then looks it up
    again, and uses the proxies of the environment: what it does with the URL is the word of the
    operator who wrote it.
    """

    def __init__(
        self,
        service: NotifyBase,
        *,
        destinations: Destinations,
        threads: ThreadPoolExecutor,
        timeout: timedelta = TIMEOUT,
    ) -> None:
        service.redirects = False
        self._service = service
        self._destinations = destinations
        self._threads = threads
        self._timeout = timeout

    async def send(self, message: Message) -> None:
        """Sends the words of a message.

        Raises:
            NotSent: the service did not say that it took it.
        """
        host = host_of(self._service)
        if host:
            await self._destinations.addresses(host, self._service.port or 0)
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(self._timeout.total_seconds()):
                sent = await loop.run_in_executor(self._threads, self._notify, message)
        except TimeoutError as error:
            seconds = self._timeout.total_seconds()
            raise NotSent(f"It was not sent within {seconds:g} s.", again=True) from error
        if not sent:
            # The library says no more, but for its log, which tells secrets.
            raise NotSent("The service did not take it, or could not be reached.", again=True)

    async def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _notify(self, message: Message) -> bool:
        return bool(
            self._service.notify(
                title=message.title,
                body=message.text,
                notify_type=NotifyType.INFO,
                body_format=NotifyFormat.TEXT,
            )
        )
