"""The first answers to calls that change something, for those who call again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from batchwork_server.domain.submission import Idempotency
from batchwork_server.store.store import RequestStore, Transaction


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """A call that may have been answered before."""

    method: str
    tenant_id: str
    idempotency: Idempotency

    @property
    def key(self) -> dict[str, str]:
        """Under what the store keeps the answer."""
        return {
            "tenant_id": self.tenant_id,
            "method": self.method,
            "request_id": self.idempotency.request_id,
        }


class FirstAnswers:
    """Answers a request that comes again as it was answered first; one without an id is new."""

    def __init__(self, requests: RequestStore) -> None:
        self._requests = requests

    async def find(self, request: Request) -> Mapping[str, Any] | None:
        """Returns the answer to the same request before, without reading the request again."""
        if not request.idempotency.request_id:
            return None
        return await self._requests.find(
            **request.key, request_hash=request.idempotency.request_hash
        )

    async def replay(
        self, tx: Transaction, request: Request, *, now: datetime
    ) -> Mapping[str, Any] | None:
        """Returns the first answer, or none when this is the first request with its id."""
        if not request.idempotency.request_id:
            return None
        return await self._requests.replay(
            tx, **request.key, request_hash=request.idempotency.request_hash, now=now
        )

    async def remember(self, tx: Transaction, request: Request, answer: Mapping[str, Any]) -> None:
        """Keeps the answer to the request that ``replay`` let through."""
        if request.idempotency.request_id:
            await self._requests.remember(tx, **request.key, answer=answer)
