"""What happens around a call, whatever the call does."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import grpc
import pytest
from batchwork_server.errors import NotFound
from batchwork_server.logs import correlation_id
from batchwork_server.rpc.credentials import ANONYMOUS, Credentials
from batchwork_server.rpc.interceptors import Boundary, caller_of
from structlog.testing import capture_logs

from tests.fakes import FakeClock
from tests.rpc.api import refused, told_until_refused


class Service:
    """Does what a test tells it to.

    Attributes:
        started: Set when a call has begun to wait.
        gate: What calls wait for.
        cleaned: Set when a call that waited has cleaned up.
    """

    def __init__(self) -> None:
        self.started, self.gate, self.cleaned = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def echo(self, request: bytes, context: Any) -> bytes:
        return request

    async def whoami(self, request: bytes, context: Any) -> bytes:
        return f"{caller_of().name} {correlation_id.get()}".encode()

    async def fail(self, request: bytes, context: Any) -> bytes:
        raise ValueError("the password is hunter2")

    async def refuse(self, request: bytes, context: Any) -> bytes:
        raise NotFound("thing", "thing-1")

    async def abort(self, request: bytes, context: Any) -> bytes:
        await context.abort(grpc.StatusCode.DATA_LOSS, "lost")
        raise AssertionError

    async def wait(self, request: bytes, context: Any) -> bytes:
        self.started.set()
        try:
            await self.gate.wait()
        finally:
            self.cleaned.set()
        return b"done"

    async def count(self, request: bytes, context: Any) -> AsyncIterator[bytes]:
        try:
            yield b"1"
            yield b"2"
            if request == b"fail":
                raise ValueError("the password is hunter2")
            if request == b"wait":
                await self.gate.wait()
        finally:
            self.cleaned.set()

    async def join(self, requests: Any, context: Any) -> bytes:
        return b"".join([request async for request in requests])

    async def repeat(self, requests: Any, context: Any) -> AsyncIterator[bytes]:
        async for request in requests:
            yield request


@pytest.fixture
def service() -> Service:
    return Service()


@pytest.fixture
def boundary(clock: FakeClock) -> Boundary:
    return Boundary(credentials=Credentials(), clock=clock)


@pytest.fixture
async def channel(service: Service, boundary: Boundary) -> AsyncIterator[grpc.aio.Channel]:
    unary, stream = grpc.unary_unary_rpc_method_handler, grpc.unary_stream_rpc_method_handler
    handlers: dict[str, Any] = {
        name: unary(getattr(service, name))
        for name in ("echo", "whoami", "fail", "refuse", "abort", "wait")
    }
    handlers["count"] = stream(service.count)
    handlers["join"] = grpc.stream_unary_rpc_method_handler(service.join)
    handlers["repeat"] = grpc.stream_stream_rpc_method_handler(service.repeat)
    server = grpc.aio.server(options=(("grpc.so_reuseport", 0),))
    boundary.around(server).add_registered_method_handlers("test.Test", handlers)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        yield channel
    service.gate.set()
    await server.stop(None)


def call(channel: Any, name: str, request: bytes = b"", **options: Any) -> Any:
    return channel.unary_unary(f"/test.Test/{name}")(request, **options)


def count(channel: Any, request: bytes = b"") -> Any:
    return channel.unary_stream("/test.Test/count")(request)


async def _chunks() -> AsyncIterator[bytes]:
    yield b"a"
    yield b"b"


async def test_every_arity_passes_through(channel):
    assert await call(channel, "echo", b"a") == b"a"
    assert [answer async for answer in count(channel)] == [b"1", b"2"]
    assert await channel.stream_unary("/test.Test/join")(_chunks()) == b"ab"
    repeated = channel.stream_stream("/test.Test/repeat")(_chunks())
    assert [answer async for answer in repeated] == [b"a", b"b"]


async def test_the_caller_s_correlation_id_is_kept_and_returned_with_an_error(channel):
    metadata = (("x-correlation-id", "call-1"),)

    assert await call(channel, "whoami", metadata=metadata) == f"{ANONYMOUS.name} call-1".encode()
    with pytest.raises(grpc.aio.AioRpcError) as refusal:
        await call(channel, "refuse", metadata=metadata)

    assert ("x-correlation-id", "call-1") in tuple(refusal.value.trailing_metadata())


@pytest.mark.parametrize(
    "metadata",
    [
        pytest.param((), id="none"),
        pytest.param((("x-correlation-id", "x" * 129),), id="too long"),
        pytest.param((("x-correlation-id", ""),), id="empty"),
    ],
)
async def test_a_correlation_id_that_cannot_be_used_is_replaced(channel, metadata):
    answering = call(channel, "whoami", metadata=metadata)

    _, _, made = (await answering).partition(b" ")

    assert len(made) == 32


async def test_an_error_of_ours_becomes_its_status(channel):
    refusal = await refused(call(channel, "refuse"))

    assert refusal.code is grpc.StatusCode.NOT_FOUND
    assert refusal.message == "There is no thing 'thing-1'."
    assert refusal.trailers["x-correlation-id"]


async def test_a_fault_of_ours_keeps_its_text_to_the_log(channel):
    with capture_logs() as logs:
        refusal = await refused(call(channel, "fail"))

    assert refusal.code is grpc.StatusCode.INTERNAL
    assert "hunter2" not in str(refusal)
    assert refusal.metadata["correlation_id"] == refusal.trailers["x-correlation-id"]
    failed = [entry for entry in logs if entry["event"] == "rpc.failed"]
    assert [entry["exc_info"] for entry in failed] == [True]


async def test_a_fault_in_the_middle_of_a_stream_ends_it_the_same_way(channel, service):
    told, refusal = await told_until_refused(count(channel, b"fail"))

    assert told == [b"1", b"2"]
    assert refusal.code is grpc.StatusCode.INTERNAL
    assert service.cleaned.is_set()


async def test_a_status_that_a_servicer_set_itself_is_left_alone(channel):
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await call(channel, "abort")

    assert (raised.value.code(), raised.value.details()) == (grpc.StatusCode.DATA_LOSS, "lost")


async def test_an_unknown_method_is_unimplemented(channel):
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await call(channel, "no_such_method")

    assert raised.value.code() is grpc.StatusCode.UNIMPLEMENTED


async def test_a_stream_whose_reader_left_is_closed(channel, service):
    stream = count(channel, b"wait")
    await stream.read()

    stream.cancel()

    async with asyncio.timeout(10):
        await service.cleaned.wait()


async def test_each_call_has_one_line_in_the_log(channel, boundary, logged):
    await call(channel, "echo")
    await refused(call(channel, "refuse"))
    await boundary.finish(timedelta(minutes=1))  # a caller can be ahead of the log

    lines = [entry for entry in logged() if entry["event"] == "rpc.finished"]
    assert {tuple(line)[:3] for line in lines} == {("timestamp", "level", "event")}
    assert all(line["timestamp"].endswith("Z") for line in lines)
    assert [(line["method"], line["code"]) for line in lines] == [
        ("/test.Test/echo", "OK"),
        ("/test.Test/refuse", "NOT_FOUND"),
    ]
    assert {(line["caller"], line["tenant_id"]) for line in lines} == {("anonymous", "default")}
    assert {line["seconds"] for line in lines} == {0.0}


async def test_a_draining_server_refuses_calls_and_says_when_to_come_back(channel, boundary):
    boundary.drain()

    refusal = await refused(call(channel, "echo"))

    assert refusal.code is grpc.StatusCode.UNAVAILABLE
    assert refusal.reason == "SHUTTING_DOWN"
    assert refusal.details == ["ErrorInfo", "RetryInfo"]


async def test_a_call_under_way_is_finished_while_the_server_drains(channel, boundary, service):
    answering = asyncio.ensure_future(call(channel, "wait"))
    await service.started.wait()
    finishing = asyncio.create_task(boundary.finish(timedelta(minutes=5)))

    service.gate.set()

    assert await answering == b"done"
    await finishing


async def test_a_call_that_outlasts_the_grace_is_told_and_cleans_up(channel, boundary, service):
    answering = asyncio.ensure_future(refused(call(channel, "wait")))
    await service.started.wait()

    await boundary.finish(timedelta(0))

    assert service.cleaned.is_set()
    assert (await answering).reason == "SHUTTING_DOWN"


async def test_a_stream_that_outlasts_the_grace_is_told_and_cleans_up(channel, boundary, service):
    responses = aiter(count(channel, b"wait"))
    told = [await anext(responses), await anext(responses)]

    await boundary.finish(timedelta(0))

    assert told == [b"1", b"2"]
    assert service.cleaned.is_set()
    assert (await told_until_refused(responses))[1].reason == "SHUTTING_DOWN"


async def test_finishing_without_calls_is_over_at_once(boundary):
    await boundary.finish(timedelta(hours=1))
