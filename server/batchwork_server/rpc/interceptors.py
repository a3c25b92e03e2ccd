"""What happens around every call: who it is, what the log calls it, and what errors become."""

from __future__ import annotations

import asyncio
import inspect
import secrets
from collections.abc import Callable
from contextlib import aclosing
from contextvars import ContextVar
from datetime import timedelta
from itertools import count
from typing import Any, NoReturn, TypeAlias, cast

import grpc
from google.rpc.status_pb2 import Status

from batchwork_server.clock import Clock
from batchwork_server.domain.caller import Caller
from batchwork_server.errors import BatchworkError, QuotaExceeded, ShuttingDown
from batchwork_server.logs import correlation_id, get_logger, write_fact
from batchwork_server.rpc.credentials import Credentials
from batchwork_server.rpc.status import internal_status, status_of

log = get_logger(__name__)

CORRELATION_ID = "x-correlation-id"

CLEANUP = timedelta(seconds=5)
"""How long calls that were ended may take to clean up."""

WRITE_TIMEOUT = timedelta(seconds=30)
"""How long a message of a stream may wait for a reader, unless the settings say otherwise."""

_STATUS_DETAILS = "grpc-status-details-bin"
_HEALTH = "/grpc.health.v1.Health/"
_LONGEST_CORRELATION_ID = 128
_CODES = {code.value[0]: code for code in grpc.StatusCode}

# A random number for each call costs more than one for each process and a count.
_PROCESS = secrets.token_hex(8)
_numbers = count(1)

_caller: ContextVar[Caller] = ContextVar("caller")

# These classes take parameters in the eyes of type checkers only.
Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"
Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"
Behavior: TypeAlias = "Callable[[Any, Context], Any]"


def caller_of() -> Caller:
    """Returns who made the call that the current task works for."""
    return _caller.get()


class Boundary:
    """The outermost layer of every call.

    It knows the caller, refuses while the server drains, turns errors into statuses, and writes
    one line of log a call. Only health checks need no credentials, and are answered to the end.

    It is put around each handler once, when the handler is registered. An interceptor of gRPC's
    own does the same for each call anew, and that takes as long as all the rest of this.

    Args:
        write_timeout: A stream ends whose reader lets a message wait for so long: gRPC would let
            it wait for ever, and the stream keep its place.
    """

    def __init__(
        self, *, credentials: Credentials, clock: Clock, write_timeout: timedelta = WRITE_TIMEOUT
    ) -> None:
        self._credentials = credentials
        self._clock = clock
        self._write_timeout = write_timeout.total_seconds()
        self._calls: set[asyncio.Task[Any]] = set()
        self._health_streams: set[asyncio.Task[Any]] = set()
        self._ended: set[asyncio.Task[Any]] = set()
        self._draining = False

    def around(self, server: grpc.aio.Server) -> Guarded:
        """Returns what to register services with, in the place of the server."""
        return Guarded(server, self._around)

    def drain(self) -> None:
        """Refuses calls from now on; those under way go on."""
        self._draining = True

    async def finish(self, grace: timedelta) -> None:
        """Returns when every call has finished, its cleaning up included.

        Calls under way have ``grace`` to end by themselves; then they are told that the server
        shuts down. Health streams would never end, and are told at once.
        """
        self.drain()
        self._end(self._health_streams)
        await self._wait(grace)
        self._end(self._calls)
        await self._wait(CLEANUP)
        if self._calls:
            log.error("rpc.calls_left", calls=len(self._calls))

    def _end(self, calls: set[asyncio.Task[Any]]) -> None:
        for call in calls - self._ended:
            self._ended.add(call)
            call.cancel()

    async def _wait(self, patience: timedelta) -> None:
        if self._calls:
            await asyncio.wait(self._calls, timeout=patience.total_seconds())

    def _around(self, method: str, handler: Handler) -> Handler:
        """Returns a handler that does what ``handler`` does, inside the boundary."""
        behavior = _behavior_of(handler)
        is_stream = handler.response_streaming
        is_health = method.startswith(_HEALTH)
        is_health_stream = is_health and is_stream
        level = "debug" if is_health else "info"

        async def call(request: Any, context: Context) -> Any:
            started = self._clock.monotonic()
            metadata: Any = context.invocation_metadata() or ()
            call_id = _correlation_id_of(metadata)
            correlation_id.set(call_id)
            task = self._enter(is_health_stream=is_health_stream)
            try:
                if not is_health:
                    self._admit(metadata)
                if is_stream:
                    return await self._write_answers(behavior, request, context)
                return await behavior(request, context)
            except _ReaderTooSlow as error:
                log.warning("rpc.slow_reader", method=method, seconds=self._write_timeout)
                await _abort_at_once(context, status_of(error), call_id)
            except BatchworkError as error:
                await _abort(context, status_of(error), call_id)
            except grpc.aio.AbortError:
                raise
            except asyncio.CancelledError:
                if task not in self._ended:
                    context.set_code(grpc.StatusCode.CANCELLED)
                    raise
                await _abort(context, status_of(_shutting_down()), call_id)
            except Exception:
                log.exception("rpc.failed", method=method)
                await _abort(context, internal_status(call_id), call_id)
            finally:
                self._leave(task)
                caller = _caller.get(None)
                write_fact(
                    level,
                    {
                        "timestamp": self._clock.now(),
                        "level": level,
                        "event": "rpc.finished",
                        "method": method,
                        "code": _code_of(context),
                        "seconds": round(self._clock.monotonic() - started, 6),
                        "caller": caller and caller.name,
                        "tenant_id": caller and caller.tenant_id,
                        "correlation_id": call_id,
                    },
                )

        return _handler_like(handler, call)

    async def _write_answers(self, behavior: Behavior, request: Any, context: Context) -> None:
        """Writes what a servicer yields, and closes it before the call ends.

        gRPC itself would leave a generator that it no longer reads to the garbage collector.
        """
        answers = behavior(request, context)
        if inspect.isawaitable(answers):
            await answers  # a servicer that writes by itself
            return
        async with aclosing(answers):
            async for answer in answers:
                await self._write(context, answer)

    async def _write(self, context: Context, answer: Any) -> None:
        try:
            async with asyncio.timeout(self._write_timeout):
                await context.write(answer)
        except TimeoutError as error:
            raise _ReaderTooSlow(self._write_timeout) from error

    def _admit(self, metadata: Any) -> None:
        if self._draining:
            raise _shutting_down()
        _caller.set(self._credentials.authenticate(metadata))

    def _enter(self, *, is_health_stream: bool) -> asyncio.Task[Any]:
        # gRPC runs every call in a task of its own.
        task = cast("asyncio.Task[Any]", asyncio.current_task())
        self._calls.add(task)
        if is_health_stream:
            self._health_streams.add(task)
        return task

    def _leave(self, task: asyncio.Task[Any]) -> None:
        self._calls.discard(task)
        self._health_streams.discard(task)
        self._ended.discard(task)


class Guarded:
    """Registers handlers with a server after putting something around them."""

    def __init__(self, server: grpc.aio.Server, around: Callable[[str, Handler], Handler]) -> None:
        self._server = server
        self._around = around

    def add_registered_method_handlers(
        self, service_name: str, method_handlers: dict[str, Handler]
    ) -> None:
        guarded = {
            name: self._around(f"/{service_name}/{name}", handler)
            for name, handler in method_handlers.items()
        }
        # As a generic handler alone: for each method that is registered, grpc.aio keeps a call
        # waiting, and looks at all of them whenever one comes.
        generic = grpc.method_handlers_generic_handler(service_name, guarded)
        self._server.add_generic_rpc_handlers((generic,))

    def add_generic_rpc_handlers(self, _handlers: Any) -> None:
        """Leaves them out: generated code registers every handler the other way, too."""


# Reflection looks at the class to know that its servicer is to be asynchronous.
grpc.aio.Server.register(Guarded)


class _ReaderTooSlow(QuotaExceeded):
    """The reader of a stream did not read."""

    def __init__(self, seconds: float) -> None:
        super().__init__(
            f"A message waited for {seconds:g} s to be read, and the stream was ended; resume it "
            "with the newest token, and read as it comes.",
            reason="QUOTA_SLOW_READER",
            subject="stream",
            retry_after=timedelta(seconds=1),
        )


def _shutting_down() -> ShuttingDown:
    return ShuttingDown("This server shuts down; call again, here or elsewhere.")


async def _abort(context: Context, status: Status, call_id: str) -> NoReturn:
    await context.abort(
        _CODES[status.code],
        status.message,
        ((_STATUS_DETAILS, status.SerializeToString()), (CORRELATION_ID, call_id)),
    )


async def _abort_at_once(context: Context, status: Status, call_id: str) -> NoReturn:
    """Aborts a call whose reader may never take the status either; then the stream is cut."""
    try:
        async with asyncio.timeout(CLEANUP.total_seconds()):
            await _abort(context, status, call_id)
    except TimeoutError:
        raise asyncio.CancelledError from None


def _correlation_id_of(metadata: Any) -> str:
    """Returns the caller's name for the call when it fits into a header and a log, or a new one."""
    for name, value in metadata:
        if (
            name == CORRELATION_ID
            and 0 < len(value) <= _LONGEST_CORRELATION_ID
            and value.isascii()
            and value.isprintable()
        ):
            return str(value)
    return f"{_PROCESS}{next(_numbers):016x}"


def _code_of(context: Context) -> str:
    # None, whatever its type says, means that nobody has set another one than OK.
    return (context.code() or grpc.StatusCode.OK).name


def _behavior_of(handler: Handler) -> Behavior:
    return cast(
        "Behavior",
        handler.unary_unary
        or handler.unary_stream
        or handler.stream_unary
        or handler.stream_stream,
    )


_MAKERS: dict[tuple[bool, bool], Any] = {
    (False, False): grpc.unary_unary_rpc_method_handler,
    (False, True): grpc.unary_stream_rpc_method_handler,
    (True, False): grpc.stream_unary_rpc_method_handler,
    (True, True): grpc.stream_stream_rpc_method_handler,
}


def _handler_like(handler: Handler, behavior: Behavior) -> Handler:
    made: Handler = _MAKERS[handler.request_streaming, handler.response_streaming](
        behavior,
        request_deserializer=handler.request_deserializer,
        response_serializer=handler.response_serializer,
    )
    return made
