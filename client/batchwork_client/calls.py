"""How every call is made: who calls, for how long, and what a refusal becomes."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator, Callable, Iterable
from dataclasses import dataclass
from datetime import timedelta
from typing import Protocol, TypeVar

import grpc

from batchwork_client.errors import error_of

LARGEST_PAGE = 100

ALL_TENANTS = "-"
"""Names every tenant, where an operator may."""

Metadata = tuple[tuple[str, str], ...]

_Request = TypeVar("_Request")
_Response = TypeVar("_Response")
_Thing = TypeVar("_Thing")


class Page(Protocol):
    """An answer that knows how to go on."""

    next_page_token: str


_Page = TypeVar("_Page", bound=Page)


def new_request_id() -> str:
    """Returns an id that no other request has, so that gRPC may repeat the call."""
    return uuid.uuid4().hex


@dataclass(frozen=True, kw_only=True, slots=True)
class Calls:
    """What all calls of a client have in common.

    Attributes:
        api_key: Travels as a bearer token; None where the server asks for none.
        timeout: The deadline of each unary call, its repetitions included.
        correlation_id: The same for every call; None means a new one for each.
    """

    api_key: str | None
    timeout: timedelta
    correlation_id: str | None = None

    def next_correlation_id(self) -> str:
        return self.correlation_id or uuid.uuid4().hex

    def metadata(self, correlation_id: str) -> Metadata:
        metadata: Metadata = (("x-correlation-id", correlation_id),)
        if self.api_key is not None:
            metadata += (("authorization", f"Bearer {self.api_key}"),)
        return metadata

    async def unary(
        self,
        method: grpc.aio.UnaryUnaryMultiCallable[_Request, _Response],
        request: _Request,
    ) -> _Response:
        """Makes one call.

        Raises:
            BatchworkError: The status was not OK; its class tells why.
        """
        correlation_id = self.next_correlation_id()
        try:
            return await method(
                request,
                timeout=self.timeout.total_seconds(),
                metadata=self.metadata(correlation_id),
            )
        except grpc.aio.AioRpcError as failure:
            raise error_of(failure, correlation_id=correlation_id) from failure

    async def paged(
        self,
        method: grpc.aio.UnaryUnaryMultiCallable[_Request, _Page],
        request_for: Callable[[int, str], _Request],
        things_of: Callable[[_Page], Iterable[_Thing]],
        *,
        limit: int | None,
    ) -> AsyncIterator[_Thing]:
        """Yields the things of one page after the other, at most ``limit``.

        A page is asked for when the first thing of it is.

        Args:
            method: The call that returns a page.
            request_for: Makes the request from a page size and a page token.
            things_of: Takes the things out of a page.
            limit: None means all.

        Raises:
            ValueError: ``limit`` is negative.
            BatchworkError: A page was refused; its class tells why.
        """
        if limit is not None and limit < 0:
            raise ValueError(f"limit is {limit}; it must be 0 or more")
        missing = limit
        token = ""
        while missing is None or missing > 0:
            size = LARGEST_PAGE if missing is None else min(missing, LARGEST_PAGE)
            page = await self.unary(method, request_for(size, token))
            things = list(things_of(page))[:missing]
            for thing in things:
                yield thing
            missing = None if missing is None else missing - len(things)
            token = page.next_page_token
            if not token:
                return
