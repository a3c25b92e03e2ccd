"""Mail, chats and the rest, through Apprise: one URL a service."""

from __future__ import annotations

import asyncio
import logging
import threading
from concurrent.futures import Future
from datetime import timedelta
from typing import Any

from apprise import Apprise, NotifyBase, NotifyFormat, NotifyType

from batchwork_server.adapters.connection_guard import AddressRefused, only_public_addresses
from batchwork_server.adapters.destinations import NOT_PUBLIC, is_loopback_host
from batchwork_server.domain.notification import Message
from batchwork_server.errors import NotSent

TIMEOUT = timedelta(seconds=60)
"""For one attempt; the library itself gives up earlier, at each step of a conversation."""

MOST_AT_ONCE = 4
"""How many messages to one service may be under way, those that hang included."""

CLEAR_TEXT = frozenset({"aprs", "dapnet", "kavenegar", "psafer", "pushdeer"})
"""The schemas of services that the library reaches without TLS at a host of their own."""


def silence_apprise() -> None:
    """Keeps the library from logging, since what it logs holds URLs, and those hold secrets."""
    logger = logging.getLogger("apprise")
    logger.disabled = True


def service_of(url: str) -> NotifyBase | None:
    """Returns the service that a URL names, or none when Apprise knows none."""
    service = Apprise.instantiate(url, suppress_exceptions=True)
    return service if isinstance(service, NotifyBase) else None


def _host_of(service: NotifyBase) -> str:
    """Returns the host that a URL names; empty for services that have one of their own."""
    mail_host: Any = getattr(service, "smtp_host", None)
    if mail_host:
        return str(mail_host)
    templates: tuple[str, ...] = service.templates
    names_host = any("{host}" in template for template in templates)
    return str(service.host) if names_host and service.host else ""


def _encrypts(service: NotifyBase) -> bool:
    """Tells whether nobody on the way can read along, or nothing goes beyond this machine.

    What the library says of itself goes by the last letter of the schema, which says nothing of
    services that have one schema only, such as ``mailgun``.
    """
    mode: Any = getattr(service, "secure_mode", None)
    if mode is not None:  # of mail and XMPP, whose URLs can say `?mode=insecure` as well
        return mode not in ("insecure", "none")
    if service.schema in CLEAR_TEXT:
        return False
    has_plain_form = service.protocol is not None and bool(_host_of(service))
    return bool(service.secure) or not has_plain_form


def clear_text_problem(service: NotifyBase, *, allow_private: bool, allow_clear_text: bool) -> str:
    """Returns why a service may not be used that does not encrypt; empty when it may."""
    if allow_clear_text or _encrypts(service):
        return ""
    if allow_private and is_loopback_host(_host_of(service)):
        return ""
    return (
        "Without TLS everybody on the way can read along. Use the form that encrypts, such as "
        "mailtos, or jsons; the other one may stand for this machine with "
        "`allow_private_addresses: true`, or anywhere with BATCHWORK_ALLOW_CLEAR_TEXT=true when "
        "something else encrypts."
    )


class AppriseNotifier:
    """Sends to one service.

    The library makes its own connections, some of them to a proxy that the environment names. The
    address of each is checked at that moment, unless private ones are allowed.

    The library blocks, and nothing ends a thread of it that hangs. So each message has a thread of
    its own, which holds up neither another service nor the end of the process; there are not more
    than ``MOST_AT_ONCE``.
    """

    def __init__(
        self,
        service: NotifyBase,
        *,
        allow_private: bool,
        timeout: timedelta = TIMEOUT,
    ) -> None:
        service.redirects = False
        self._service = service
        self._allow_private = allow_private
        self._timeout = timeout
        self._room = threading.BoundedSemaphore(MOST_AT_ONCE)

    async def send(self, message: Message) -> None:
        """Sends the words of a message.

        Raises:
            NotSent: the service did not say that it took it.
        """
        if not self._room.acquire(blocking=False):
            raise NotSent("The messages before this one still hang.", again=True)
        try:
            async with asyncio.timeout(self._timeout.total_seconds()):
                sent = await asyncio.wrap_future(self._begin(message))
        except TimeoutError as error:
            seconds = self._timeout.total_seconds()
            raise NotSent(f"It was not sent within {seconds:g} s.", again=True) from error
        if not sent:
            # The library says no more, but for its log, which tells secrets.
            raise NotSent("The service did not take it, or could not be reached.", again=True)

    async def close(self) -> None:
        """Leaves what hangs to the end of the process."""

    def _begin(self, message: Message) -> Future[bool]:
        """Sends in a thread that has its room already, and gives that back at its end."""
        sent: Future[bool] = Future()
        sent.set_running_or_notify_cancel()

        def work() -> None:
            try:
                taken = self._notify(message)
            except BaseException as error:  # noqa: BLE001  told to who waits, in words of ours
                self._room.release()
                sent.set_exception(_refusal_of(error))
            else:
                self._room.release()
                sent.set_result(taken)

        try:
            threading.Thread(target=work, name="apprise", daemon=True).start()
        except RuntimeError:
            self._room.release()
            raise
        return sent

    def _notify(self, message: Message) -> bool:
        if self._allow_private:
            return self._deliver(message)
        with only_public_addresses() as refused:
            try:
                taken = self._deliver(message)
            except AddressRefused:
                taken = False
        if refused and not taken:
            raise NotSent(NOT_PUBLIC, again=False, detail=f"address {refused[0]}")
        return taken

    def _deliver(self, message: Message) -> bool:
        return bool(
            self._service.notify(
                title=message.title,
                body=message.text,
                notify_type=NotifyType.INFO,
                body_format=NotifyFormat.TEXT,
            )
        )


def _refusal_of(error: BaseException) -> NotSent:
    if isinstance(error, NotSent):
        return error
    # Its words may hold the URL, and with that a secret.
    return NotSent(f"Apprise failed: {type(error).__name__}.", again=True)
