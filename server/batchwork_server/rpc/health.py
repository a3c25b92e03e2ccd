"""Health: whether the server, each of its services, and what they need are well."""

from __future__ import annotations

from typing import Any

from grpc_health.v1 import health
from grpc_health.v1.health_pb2 import (
    HealthCheckRequest,
    HealthCheckResponse,
    HealthListRequest,
    HealthListResponse,
)


class Health(health.aio.HealthServicer):  # type: ignore[misc]  # the library has no types
    """The library's servicer, and ``List``, which it lacks."""

    def __init__(self) -> None:
        super().__init__()
        self._names = {health.OVERALL_HEALTH}

    async def report(self, name: str, *, is_well: bool) -> None:
        """Sets the health of one name; the empty one stands for the whole server.

        After ``enter_graceful_shutdown`` nothing is well any more, whatever is reported.
        """
        self._names.add(name)
        await self.set(
            name, HealthCheckResponse.SERVING if is_well else HealthCheckResponse.NOT_SERVING
        )

    async def List(self, request: HealthListRequest, context: Any) -> HealthListResponse:
        return HealthListResponse(
            statuses={
                name: await self.Check(HealthCheckRequest(service=name), context)
                for name in sorted(self._names)
            }
        )
