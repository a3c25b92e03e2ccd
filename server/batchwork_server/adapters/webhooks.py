"""Webhooks: messages as JSON over HTTPS, signed as Standard Webhooks says.

The specification: https://www.standardwebhooks.com. Whoever is called finds three headers,
``webhook-id``, ``webhook-timestamp`` and ``webhook-signature``.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Mapping, Sequence
from datetime import timedelta
from itertools import zip_longest
from typing import Any

import httpx2
import orjson
from standardwebhooks.webhooks import Webhook

from batchwork_server.adapters.destinations import Address, Destinations
from batchwork_server.adapters.retry_after import retry_after
from batchwork_server.clock import Clock
from batchwork_server.domain.notification import Message
from batchwork_server.errors import NotSent

TIMEOUT = timedelta(seconds=15)
"""For one attempt, from the look for the address to the headers of the answer."""

CONNECT_TIMEOUT = timedelta(seconds=3)
"""For each address, and then for its TLS; short enough to come to the last one that is tried."""

_TRIED_ADDRESSES = 4
_GONE = 410
"""The one answer that says for good that nothing more is wanted here."""

_DEFAULT_PORTS = {"https": 443, "http": 80}


class WebhookNotifier:
    """Sends to one URL.

    The connection goes to an address that was checked, and not to what the name means a moment
    later; the name is what the certificate is checked for. Redirects are not followed, proxies of
    the environment are not used, and nothing is read of the body of an answer.

    Args:
        url: Of HTTPS, or of HTTP; secret, for many carry a token.
        secret: As Standard Webhooks writes it, ``whsec_`` and base64.
    """

    def __init__(
        self,
        *,
        url: str,
        secret: str,
        destinations: Destinations,
        clock: Clock,
        timeout: timedelta = TIMEOUT,
        connect_timeout: timedelta = CONNECT_TIMEOUT,
    ) -> None:
        self._url = httpx2.URL(url)
        self._port = self._url.port or _DEFAULT_PORTS[self._url.scheme]
        self._webhook = Webhook(secret)
        self._destinations = destinations
        self._clock = clock
        self._timeout = timeout
        self._connect_timeout = connect_timeout
        # One client for one host: a connection that is kept is never taken for another name.
        self._client: httpx2.AsyncClient | None = None

    async def send(self, message: Message) -> None:
        """Sends a message; returns when the target has taken it.

        Raises:
            NotSent: it has not, as far as is known.
        """
        body = orjson.dumps(
            {"type": message.type, "timestamp": message.time, "data": dict(message.data)},
            option=orjson.OPT_UTC_Z,
        )
        try:
            async with asyncio.timeout(self._timeout.total_seconds()):
                addresses = await self._destinations.addresses(self._url.host, self._port)
                await self._post(addresses, body, self._headers(message, body))
        except TimeoutError as error:
            seconds = self._timeout.total_seconds()
            raise NotSent(f"There was no answer within {seconds:g} s.", again=True) from error

    async def close(self) -> None:
        if self._client is not None:
            await self._client.aclose()

    def _headers(self, message: Message, body: bytes) -> dict[str, str]:
        now = self._clock.now()
        signature = self._webhook.sign(message.message_id, now, body.decode())
        return {
            "host": self._url.netloc.decode("ascii"),
            "content-type": "application/json",
            "user-agent": "batchwork",
            "webhook-id": message.message_id,
            "webhook-timestamp": str(int(now.timestamp())),
            "webhook-signature": signature,
        }

    async def _post(
        self, addresses: Sequence[Address], body: bytes, headers: Mapping[str, str]
    ) -> None:
        """Sends to the first address that accepts a connection."""
        problem: Exception | None = None
        for address in _in_turn(addresses)[:_TRIED_ADDRESSES]:
            try:
                await self._post_to(address, body, headers)
            except (httpx2.ConnectError, httpx2.ConnectTimeout) as error:
                problem = error
            except httpx2.HTTPError as error:
                kind = type(error).__name__
                raise NotSent(f"The connection broke: {kind}.", again=True) from error
            else:
                return
        raise NotSent(_no_connection(problem), again=True) from problem

    async def _post_to(self, address: Address, body: bytes, headers: Mapping[str, str]) -> None:
        client = self._client = self._client or httpx2.AsyncClient(
            verify=ssl.create_default_context(),
            timeout=httpx2.Timeout(None, connect=self._connect_timeout.total_seconds()),
            trust_env=False,
        )
        extensions: dict[str, Any] = {"sni_hostname": self._url.host}
        async with client.stream(
            "POST",
            self._url.copy_with(host=str(address)),
            content=body,
            headers=headers,
            extensions=extensions,
        ) as response:
            self._check(response)

    def _check(self, response: httpx2.Response) -> None:
        status = response.status_code
        if 200 <= status < 300:
            return
        again = status != _GONE
        delay = retry_after(response.headers.get("retry-after", ""), self._clock)
        raise NotSent(
            f"The target answered with {status}.", again=again, retry_after=delay if again else None
        )


def _in_turn(addresses: Sequence[Address]) -> list[Address]:
    """Returns the addresses with both versions of IP in turn, for one of them may lead nowhere."""
    first = [each for each in addresses if each.version == addresses[0].version]
    second = [each for each in addresses if each.version != addresses[0].version]
    pairs = zip_longest(first, second)
    return [each for pair in pairs for each in pair if each is not None]


def _no_connection(problem: Exception | None) -> str:
    # The words of the system name an address and a port, never a path.
    if isinstance(problem, httpx2.ConnectError) and "CERTIFICATE" in str(problem):
        return "The certificate of the target is not trusted, or not for its name."
    return "The target accepts no connection."
