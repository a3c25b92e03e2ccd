from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any

import grpc
import pytest
from batchwork.v1.batch_service_pb2_grpc import (
    BatchServiceServicer,
    add_BatchServiceServicer_to_server,
)
from batchwork.v1.job_service_pb2_grpc import JobServiceServicer, add_JobServiceServicer_to_server
from batchwork.v1.preference_service_pb2_grpc import (
    PreferenceServiceServicer,
    add_PreferenceServiceServicer_to_server,
)
from batchwork.v1.validation_service_pb2_grpc import (
    ValidationServiceServicer,
    add_ValidationServiceServicer_to_server,
)
from batchwork_client import Batchwork, connect

_ADDERS: dict[type, Callable[[Any, Any], None]] = {
    BatchServiceServicer: add_BatchServiceServicer_to_server,
    JobServiceServicer: add_JobServiceServicer_to_server,
    PreferenceServiceServicer: add_PreferenceServiceServicer_to_server,
    ValidationServiceServicer: add_ValidationServiceServicer_to_server,
}


def add_to_server(servicer: Any, server: Any) -> None:
    for base, add in _ADDERS.items():
        if isinstance(servicer, base):
            add(servicer, server)


@pytest.fixture
async def client_of() -> AsyncIterator[Callable[..., Awaitable[Batchwork]]]:
    """Starts a server for a servicer and returns a client that is connected to it."""
    async with AsyncExitStack() as stack:

        async def start(servicer: Any, **options: Any) -> Batchwork:
            server = grpc.aio.server(options=(("grpc.so_reuseport", 0),))
            add_to_server(servicer, server)
            port = server.add_insecure_port("localhost:0")
            await server.start()
            stack.push_async_callback(server.stop, None)
            return await stack.enter_async_context(connect(f"localhost:{port}", **options))

        yield start
