"""The gRPC server: what it listens on, what it serves, and how it stops."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import grpc
from batchwork.v1.batch_service_pb2_grpc import add_BatchServiceServicer_to_server
from batchwork.v1.job_service_pb2_grpc import add_JobServiceServicer_to_server
from batchwork.v1.preference_service_pb2_grpc import add_PreferenceServiceServicer_to_server
from batchwork.v1.validation_service_pb2_grpc import add_ValidationServiceServicer_to_server
from grpc_health.v1.health import OVERALL_HEALTH
from grpc_health.v1.health import SERVICE_NAME as HEALTH_SERVICE
from grpc_health.v1.health_pb2_grpc import add_HealthServicer_to_server
from grpc_reflection.v1alpha.reflection import SERVICE_NAME as REFLECTION_SERVICE
from grpc_reflection.v1alpha.reflection import enable_server_reflection

from batchwork_server.application.use_cases import UseCases
from batchwork_server.clock import Clock
from batchwork_server.errors import ConfigurationError
from batchwork_server.rpc.batch_servicer import BatchServicer
from batchwork_server.rpc.credentials import Credentials
from batchwork_server.rpc.health import Health
from batchwork_server.rpc.interceptors import CLEANUP, WRITE_TIMEOUT, Boundary
from batchwork_server.rpc.job_servicer import JobServicer
from batchwork_server.rpc.preference_servicer import PreferenceServicer
from batchwork_server.rpc.validation_servicer import ValidationServicer

SERVICES = tuple(
    f"batchwork.v1.{name}"
    for name in ("BatchService", "JobService", "PreferenceService", "ValidationService")
)

PARTS = ("engine", "database")
"""What else has a health of its own; not well until somebody says so."""

_OPTIONS: tuple[tuple[str, int], ...] = (
    # Else two servers could share a port without either noticing.
    ("grpc.so_reuseport", 0),
    # A watch is a stream; a thousand of them on one connection leave room for other calls.
    ("grpc.max_concurrent_streams", 4096),
    # Our own client pings every six minutes; others may every half, when they wait for something.
    ("grpc.http2.min_ping_interval_without_data_ms", 30 * 1000),
    # A watcher whose machine is gone keeps its place no longer than this.
    ("grpc.keepalive_time_ms", 60 * 1000),
    ("grpc.keepalive_timeout_ms", 20 * 1000),
)


class RpcServer:
    """Serves the use cases under one address.

    Create it inside the event loop that is to serve.

    Args:
        use_cases: What the services call.
        credentials: Who may call; None lets everybody in.
        clock: Measures calls.
        listen: ``host:port``, where port 0 lets the system choose, or ``unix:path``.
        tls: The certificate chain and the private key, as PEM; None means clear text.
        reflection: Whether clients may ask for the contract.
        max_message_bytes: The largest request.
        write_timeout: How long a message of a stream may wait for its reader.
    """

    def __init__(
        self,
        use_cases: UseCases,
        *,
        credentials: Credentials | None,
        clock: Clock,
        listen: str,
        tls: tuple[bytes, bytes] | None,
        reflection: bool,
        max_message_bytes: int,
        write_timeout: timedelta = WRITE_TIMEOUT,
    ) -> None:
        self._listen = listen
        self._tls = tls
        self._boundary = Boundary(
            credentials=credentials or Credentials(), clock=clock, write_timeout=write_timeout
        )
        self._health = Health()
        self._server = grpc.aio.server(
            options=(*_OPTIONS, ("grpc.max_receive_message_length", max_message_bytes)),
        )
        # All that generated code wants of a server is that it takes handlers.
        guarded: Any = self._boundary.around(self._server)
        add_BatchServiceServicer_to_server(BatchServicer(use_cases.batches), guarded)
        add_JobServiceServicer_to_server(JobServicer(use_cases.jobs), guarded)
        add_PreferenceServiceServicer_to_server(PreferenceServicer(use_cases.preferences), guarded)
        add_ValidationServiceServicer_to_server(ValidationServicer(use_cases.validation), guarded)
        add_HealthServicer_to_server(self._health, guarded)
        if reflection:
            enable_server_reflection((*SERVICES, HEALTH_SERVICE, REFLECTION_SERVICE), guarded)

    async def start(self) -> int:
        """Listens, and says that all services are well.

        Returns:
            The port; of no meaning with a unix socket.

        Raises:
            ConfigurationError: the address is taken or cannot be listened on, or the certificate
                and the key do not fit.
        """
        port = self._bind()
        for part in PARTS:
            await self._health.report(part, is_well=False)
        for service in (OVERALL_HEALTH, *SERVICES):
            await self._health.report(service, is_well=True)
        await self._server.start()
        return port

    def _bind(self) -> int:
        try:
            if self._tls is None:
                return self._server.add_insecure_port(self._listen)
            chain, key = self._tls
            credentials = grpc.ssl_server_credentials([(key, chain)])
            return self._server.add_secure_port(self._listen, credentials)
        except RuntimeError as error:
            raise ConfigurationError(
                f"The server cannot listen on {self._listen}: {error}. The address may be taken, "
                "or the certificate and the key do not belong together."
            ) from error

    async def set_health(self, name: str, serving: bool) -> None:
        """Reports under ``grpc.health.v1`` whether a part is well."""
        await self._health.report(name, is_well=serving)

    async def stop_serving(self) -> None:
        """Says that nothing is well any more and refuses calls; those under way go on."""
        await self._health.enter_graceful_shutdown()
        self._boundary.drain()

    async def stop(self, grace: timedelta) -> None:
        """Closes the address and returns when every call has finished.

        Calls under way have ``grace`` to end by themselves; then they are told that the server
        shuts down.
        """
        # gRPC's own stop closes the address and asks clients to leave, but it would cut calls
        # without a status, and return before they have cleaned up.
        longest = grace + 2 * CLEANUP
        closing = asyncio.create_task(self._server.stop(longest.total_seconds()))
        await self._boundary.finish(grace)
        await closing
