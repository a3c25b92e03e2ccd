"""Asks a service over HTTP: bounded in size and time, again when that may help, not for ever."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, ClassVar
from urllib.parse import quote

import httpx2
import stamina
from stamina.instrumentation import set_on_retry_hooks

from batchwork_server.adapters.retry_after import retry_after
from batchwork_server.clock import Clock
from batchwork_server.errors import SourceUnavailable

MAX_ANSWER_BYTES = 32 * 1024 * 1024
"""A larger answer is given up while it is read."""

_ATTEMPTS = 4
_LONGEST_CALL = timedelta(seconds=60)
_LONGEST_RETRY_AFTER = timedelta(seconds=30)
_REFUSED = {401, 403}
_TELLING = {200, 404, 410}


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """What a service said.

    Attributes:
        status: 200, or 404 or 410, which say that something is not there, or not any more; 304
            when it is as it was.
        url: What was asked, without anything secret.
        etag: Names what was said, when the service does that.
    """

    status: int
    text: str
    url: str
    etag: str = ""


@dataclass(frozen=True, slots=True)
class _Question:
    method: str
    url: str
    parameters: Mapping[str, str] | None = None
    content: bytes | None = None
    known_etag: str = ""

    @property
    def headers(self) -> dict[str, str]:
        headers = {"content-type": "application/json"} if self.content else {}
        return headers | ({"if-none-match": self.known_etag} if self.known_etag else {})


class _Failed(Exception):
    """One attempt came to nothing.

    Args:
        problem: What happened, as the end of a sentence.
        advice: What to do about it.
        again: Whether another attempt may succeed.
        retry_after: When the service asked to be asked again.
    """

    def __init__(
        self,
        problem: str,
        *,
        advice: str,
        again: bool = False,
        retry_after: timedelta | None = None,
    ) -> None:
        super().__init__(problem)
        self.problem = problem
        self.advice = advice
        self.again = again
        self.retry_after = retry_after


class Breaker:
    """Keeps calls away from a service for a while when it failed several times in a row.

    After the pause one call goes to find out; its success lets all others go again.
    """

    FAILURES: ClassVar = 5
    PAUSE: ClassVar = timedelta(seconds=30)

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._failures = 0
        self._closed_until = 0.0

    def admit(self) -> timedelta | None:
        """Returns none when a call may go, else how long none may."""
        if self._failures < self.FAILURES:
            return None
        now = self._clock.monotonic()
        if now < self._closed_until:
            return timedelta(seconds=self._closed_until - now)
        self._pause()  # for the others, while this one finds out
        return None

    def succeeded(self) -> None:
        self._failures = 0

    def failed(self) -> None:
        self._failures += 1
        self._pause()

    def _pause(self) -> None:
        self._closed_until = self._clock.monotonic() + self.PAUSE.total_seconds()


class HttpSource:
    """A service that is read, so that asking again is always safe.

    Args:
        name: What errors call it.
        page: Of our documentation, which says what the service is to answer.
        url: What every path is added to; ``url_setting`` names where it comes from.
        api_key: Sent as ``Authorization: Bearer``; empty sends none.
        timeout: For one attempt, from the connection to the last byte.
    """

    def __init__(
        self,
        *,
        name: str,
        page: str,
        url: str,
        url_setting: str,
        api_key: str,
        key_setting: str,
        timeout: timedelta,
        clock: Clock,
    ) -> None:
        self._name = name
        self._page = page
        self._url = url.rstrip("/")
        self._url_setting = url_setting
        self._key_setting = key_setting
        self._timeout = timeout
        self._clock = clock
        self._breaker = Breaker(clock)
        self._last_problem = ""
        # Compressed answers could be a thousand times as large as what is counted.
        headers = {"accept": "application/json", "accept-encoding": "identity"}
        if api_key:
            headers["authorization"] = f"Bearer {api_key}"
        # Each attempt has one limit for all of it; proxies of the environment would get the key.
        self._client = httpx2.AsyncClient(headers=headers, timeout=None, trust_env=False)
        set_on_retry_hooks([])  # whoever waits tells how it ends, once

    async def get(self, *segments: str, known_etag: str = "", **parameters: str) -> Reply:
        """Asks for a path, each segment of which may be any text.

        Args:
            segments: Of the path.
            known_etag: Of an earlier reply; the service may say that nothing has changed since.
            parameters: Of the query.

        Raises:
            SourceUnavailable: there is no answer, or one that says that something is wrong.
        """
        url = self._url_of(segments)
        return await self._ask(_Question("GET", url, parameters=parameters, known_etag=known_etag))

    async def post(self, *segments: str, body: Any) -> Reply:
        """Asks with a JSON value, for what does not fit into a path; it changes nothing there.

        Raises:
            SourceUnavailable: there is no answer, or one that says that something is wrong.
        """
        content = json.dumps(body, separators=(",", ":")).encode()
        return await self._ask(_Question("POST", self._url_of(segments), content=content))

    def _url_of(self, segments: Sequence[str]) -> str:
        return "/".join([self._url, *(_escaped(segment) for segment in segments)])

    async def _ask(self, question: _Question) -> Reply:
        pause = self._breaker.admit()
        if pause is not None:
            raise SourceUnavailable(
                f"Error connecting to {self._name}: it failed {Breaker.FAILURES} times in a row, "
                f"at last because {self._last_problem} It is asked again after a pause.",
                retry_after=pause,
            )
        try:
            reply = await self._retried(question)
        except _Failed as failed:
            self._breaker.failed()
            self._last_problem = f"{question.method} {question.url} {failed.problem}."
            raise SourceUnavailable(
                f"Error connecting to {self._name}: {self._last_problem} {failed.advice}",
                retry_after=failed.retry_after,
            ) from failed
        self._breaker.succeeded()
        return reply

    async def close(self) -> None:
        await self._client.aclose()

    async def _retried(self, question: _Question) -> Reply:
        async for attempt in stamina.retry_context(
            on=_pause_before_retry, attempts=_ATTEMPTS, timeout=_LONGEST_CALL
        ):
            with attempt:
                return await self._attempt(question)
        raise AssertionError("Retrying ends with an answer or an error.")

    async def _attempt(self, question: _Question) -> Reply:
        reachable = (
            f"Check that the service runs, that this machine reaches it, and {self._url_setting}."
        )
        try:
            async with (
                asyncio.timeout(self._timeout.total_seconds()),
                self._client.stream(
                    question.method,
                    question.url,
                    params=question.parameters,
                    content=question.content,
                    headers=question.headers,
                ) as response,
            ):
                self._check(response, question)
                body = await _read(response, page=self._page)
        except TimeoutError as error:
            seconds = self._timeout.total_seconds()
            raise _Failed(
                f"was not answered within {seconds:g} s", advice=reachable, again=True
            ) from error
        except httpx2.TransportError as error:
            why = str(error) or type(error).__name__
            raise _Failed(f"came to nothing: {why}", advice=reachable, again=True) from error
        except (httpx2.HTTPError, httpx2.InvalidURL) as error:
            raise _Failed(f"came to nothing: {error}", advice=reachable) from error
        try:
            return Reply(
                status=response.status_code,
                text=body.decode(),
                url=question.url,
                etag=response.headers.get("etag", ""),
            )
        except UnicodeDecodeError as error:
            raise _Failed(
                f"was answered with {response.status_code} and something that is not UTF-8",
                advice=f"Check {self._url_setting}.",
            ) from error

    def _check(self, response: httpx2.Response, question: _Question) -> None:
        status = response.status_code
        if status in _TELLING or (status == 304 and question.known_etag):
            return
        problem = f"was answered with {status}"
        if status == 429 or status >= 500:
            raise _Failed(
                problem,
                advice="Look into the log of the service.",
                again=True,
                retry_after=retry_after(response.headers.get("retry-after", ""), self._clock),
            )
        if status in _REFUSED:
            raise _Failed(problem, advice=f"Check {self._key_setting}.")
        raise _Failed(problem, advice=f"Check {self._url_setting}.")


def _pause_before_retry(error: Exception) -> bool | timedelta:
    """Tells whether to try again, and how long to wait when the service said so."""
    if not isinstance(error, _Failed) or not error.again:
        return False
    if error.retry_after is None:
        return True
    return error.retry_after if error.retry_after <= _LONGEST_RETRY_AFTER else False


async def _read(response: httpx2.Response, *, page: str) -> bytes:
    advice = f"Have the service answer with less at once, see {page}."
    limit = f"more than {MAX_ANSWER_BYTES} bytes, which is the limit"
    if response.headers.get("content-encoding", "identity") != "identity":
        raise _Failed("was answered compressed", advice="Have the service heed accept-encoding.")
    declared = response.headers.get("content-length", "")
    if declared.isdigit() and int(declared) > MAX_ANSWER_BYTES:
        raise _Failed(f"was answered with {limit}", advice=advice)
    body = bytearray()
    chunks: AsyncIterator[bytes] = response.aiter_raw()
    async for chunk in chunks:
        body += chunk
        if len(body) > MAX_ANSWER_BYTES:
            raise _Failed(f"was answered with {limit}", advice=advice)
    return bytes(body)


def _escaped(segment: str) -> str:
    """Returns text as one segment of a path, also where it is one of the two that mean others."""
    escaped = quote(segment, safe="")
    return escaped.replace(".", "%2E") if segment in (".", "..") else escaped
