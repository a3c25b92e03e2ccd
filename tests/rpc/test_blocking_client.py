"""A foreign, blocking client can use the server: the fixtures of pytest-grpc, and plain stubs.

The plugin offers a stub over a channel over a server. Its own server is one of threads; ours runs
in the event loop, so the fixtures below stand in its place, and blocking calls go to a thread.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import grpc
import pytest
import pytest_asyncio
from batchwork.v1.batch_pb2 import BATCH_STATE_SUCCEEDED
from batchwork.v1.batch_service_pb2 import (
    BATCH_EVENT_KIND_END,
    CreateBatchRequest,
    GetBatchRequest,
    WatchBatchRequest,
)
from batchwork.v1.batch_service_pb2_grpc import BatchServiceStub
from batchwork.v1.item_pb2 import ItemInput
from batchwork_server.bootstrap import Serving, serving
from batchwork_server.processors.registry import ProcessorRegistry

from tests.fakes import FakeProcessor
from tests.rpc.api import refusal_of, settings_in

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def grpc_server(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Serving]:
    processors = ProcessorRegistry()
    processors.register("fake", FakeProcessor())
    folder: Path = tmp_path_factory.mktemp("server")
    async with serving(settings_in(folder), processors=processors) as server:
        yield server


@pytest.fixture(scope="module")
def grpc_addr(grpc_server: Serving) -> str:
    return f"127.0.0.1:{grpc_server.port}"


@pytest.fixture(scope="module")
def grpc_create_channel(grpc_addr: str) -> Callable[[], grpc.Channel]:
    return lambda: grpc.insecure_channel(grpc_addr)


@pytest.fixture(scope="module")
def grpc_channel(grpc_create_channel: Callable[[], grpc.Channel]) -> Iterator[grpc.Channel]:
    with grpc_create_channel() as channel:
        yield channel


@pytest.fixture(scope="module")
def grpc_stub_cls() -> type[BatchServiceStub]:
    return BatchServiceStub


async def test_a_batch_is_created_and_watched_to_its_end(grpc_stub):
    request = CreateBatchRequest(operation="echo", items=[ItemInput(item_id="a")])

    def run() -> list[int]:
        batch = grpc_stub.CreateBatch(request).batch
        watched = list(grpc_stub.WatchBatch(WatchBatchRequest(batch_id=batch.batch_id)))
        return [watched[-1].event.kind, watched[-1].event.batch.state]

    assert await asyncio.to_thread(run) == [BATCH_EVENT_KIND_END, BATCH_STATE_SUCCEEDED]


async def test_a_refusal_tells_a_blocking_client_the_same(grpc_stub):
    def run() -> grpc.RpcError:
        with pytest.raises(grpc.RpcError) as raised:
            grpc_stub.GetBatch(GetBatchRequest())
        return raised.value

    refusal = refusal_of(await asyncio.to_thread(run))

    assert refusal.code is grpc.StatusCode.INVALID_ARGUMENT
    assert refusal.violations == {"batch_id": "This field is required."}
