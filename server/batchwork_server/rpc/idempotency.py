"""What makes a repeated request the same request."""

from __future__ import annotations

from hashlib import sha256
from typing import Protocol

from batchwork_server.domain.submission import Idempotency
from batchwork_server.rpc.checks import Checks


class RepeatableRequest(Protocol):
    """A request that may carry an id."""

    @property
    def request_id(self) -> str: ...

    def SerializeToString(self, *, deterministic: bool = ...) -> bytes: ...


def idempotency_from(request: RepeatableRequest, *, checks: Checks) -> Idempotency:
    """Returns the request's id with a hash of its content; nothing when it has no id."""
    request_id = checks.line("request_id", request.request_id)
    if not request_id:
        return Idempotency()
    content = request.SerializeToString(deterministic=True)
    return Idempotency(request_id=request_id, request_hash=sha256(content).hexdigest())
