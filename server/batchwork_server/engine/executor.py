"""One attempt at one item, as a pipeline of named steps. It writes nothing."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Generator, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Protocol

import orjson

from batchwork_server.clock import Clock
from batchwork_server.domain.batch import Batch, BatchRequest
from batchwork_server.domain.declared_overrides import defaults_of
from batchwork_server.domain.ids import idempotency_key
from batchwork_server.domain.item import ItemError, ItemState, Outcome, PendingItem
from batchwork_server.engine.isolation import ChildDied, ChildProcesses
from batchwork_server.engine.opting_out import OptOuts, of_those_who_want
from batchwork_server.errors import ItemFailed, ItemSkipped, ProviderUnavailable, StoreUnavailable
from batchwork_server.failpoints import reach
from batchwork_server.logs import get_logger
from batchwork_server.ports import ItemCall, ItemResult, Processor, is_cpu_bound

log = get_logger(__name__)

LARGEST_RESULT = 1024 * 1024
"""The most bytes that a result may have as JSON text."""

LONGEST_DELAY = timedelta(days=7)
"""The longest time that a provider can make an item wait for its next attempt."""

_LONGEST_MESSAGE = 1000


class Processors(Protocol):
    """Finds a processor by its name; an unknown one is a ``LookupError``."""

    def get(self, name: str) -> Processor: ...


@dataclass(slots=True, kw_only=True)
class RunningBatch:
    """What the worker knows of a batch while it has chunks of it.

    Attributes:
        wanted: Cleared when the batch is stopped; no new attempt starts while it is.
        pausing: The provider is away, and the batch is about to be paused.
        probing: The provider was away: one item at a time, until one is done.
        progressed: An item was done since the provider was away.
        chunks: Chunks of it that the worker has.
        in_flight: Attempts that are going on.
        processes: How many can go on at once, as its processor is CPU-bound and each attempt takes
            a child process; 0 while that is not known, or not so.
        deadlines: Of those attempts that wait for something.
        surprises: Kinds of errors that were logged for it.
    """

    batch: Batch
    wanted: bool = True
    pausing: bool = False
    probing: bool = False
    progressed: bool = False
    chunks: int = 0
    in_flight: int = 0
    processes: int = 0
    deadlines: set[asyncio.Timeout] = field(default_factory=set)
    surprises: set[str] = field(default_factory=set)

    @property
    def has_room(self) -> bool:
        bound = 1 if self.probing else self.batch.request.options.max_concurrent_items
        if self.processes and not 0 < bound < self.processes:
            bound = self.processes  # more would only wait, in the way of other batches
        return not bound or self.in_flight < bound

    def stop_attempts(self) -> None:
        """Ends the attempts that are going on; they do not count."""
        now = asyncio.get_running_loop().time()
        for deadline in self.deadlines:
            deadline.reschedule(now)


@dataclass(frozen=True, slots=True, kw_only=True)
class NotDone:
    """An attempt that does not count: its item is given back as if it had not begun.

    Attributes:
        pause: What the processor calls is away, and the batch is to wait for it.
    """

    pause: ProviderUnavailable | None = None


class Executor:
    """Makes attempts.

    Args:
        opt_outs: Where a user may have said in the meantime that they do not want it any more.
        children: Runs processors that say that they are CPU-bound, and items that may bring their
            process down. Without it everything runs in this process.
    """

    def __init__(
        self,
        *,
        processors: Processors,
        opt_outs: OptOuts,
        clock: Clock,
        children: ChildProcesses | None = None,
    ) -> None:
        self._processors = processors
        self._opt_outs = opt_outs
        self._clock = clock
        self._children = children

    @property
    def isolates(self) -> bool:
        """Tells whether an item can have a process of its own, that dies without the server."""
        return self._children is not None

    async def attempt(
        self, running: RunningBatch, item: PendingItem, *, isolated: bool = False
    ) -> Outcome | NotDone:
        """Makes one attempt and returns what it came to, whatever the processor does.

        An outcome that is PENDING asks for a retry; its ``next_attempt_time`` is set only when
        a provider named a delay.

        Args:
            isolated: In a process of its own; one that dies fails its item for good.

        Raises:
            asyncio.CancelledError: the worker itself was cancelled; the attempt does not count.
        """
        if not running.wanted:
            return NotDone()
        begin = self._clock.monotonic()
        outcome = Outcome(item.index, ItemState.SUCCEEDED, item.attempts + 1)
        outcome.start_micros = start = self._clock.micros()
        outcome.is_new = item.is_new
        try:
            result = await self._process(running, item, outcome, isolated=isolated)
            reach("processor.succeeded")
            outcome.result_json = _result_json(result)
            outcome.quality_score = result.quality_score
        except ItemSkipped as skip:
            outcome.state = ItemState.SKIPPED
            outcome.skip_reason = _reason(skip.reason)
        except ProviderUnavailable as away:
            return NotDone(pause=away)
        except (_Stopped, _StoreIsAway):
            return NotDone()
        except BaseException as error:
            if isinstance(error, asyncio.CancelledError) and _worker_is_cancelled():
                raise
            self._failed(running, item, outcome, error)
        outcome.end_micros = start + int((self._clock.monotonic() - begin) * 1_000_000)
        return outcome

    async def _process(
        self, running: RunningBatch, item: PendingItem, outcome: Outcome, *, isolated: bool
    ) -> ItemResult:
        request = running.batch.request
        if request.is_preference_based:
            item = await self._refuse_unwanted(running.batch, item)
        call = _call_of(running.batch, item)
        processor = self._processor(request.template.processor)
        if self._children is not None and (isolated or is_cpu_bound(processor)):
            return await self._process_apart(running, call, outcome, isolated=isolated)
        steps = processor.process(call).__await__()
        try:
            waits_for = next(steps)
        except StopIteration as end:
            # Done without having waited for anything: no deadline could have done anything.
            done: ItemResult = end.value
            return done
        return await _finish_in_time(_Rest(steps, waits_for), running)

    async def _refuse_unwanted(self, batch: Batch, item: PendingItem) -> PendingItem:
        """Looks again who wants the feature: the batch may be hours old."""
        try:
            return await of_those_who_want(batch, item, self._opt_outs)
        except StoreUnavailable as error:
            raise _StoreIsAway from error

    async def _process_apart(
        self, running: RunningBatch, call: ItemCall, outcome: Outcome, *, isolated: bool
    ) -> ItemResult:
        """Has the processor work in a process that can be killed.

        The attempt begins, and its time runs, when there is a process for it.
        """
        assert self._children is not None  # noqa: S101  the caller has looked
        request = running.batch.request
        if not isolated:
            running.processes = self._children.workers

        def begun() -> None:
            outcome.start_micros = self._clock.micros()

        apart = self._children.process(
            request.template.processor, call, limit=request.options.item_timeout, begun=begun
        )
        try:
            return await _unless_stopped(apart, running)
        except ChildDied as death:
            raise ItemFailed(
                "POISON" if isolated else "PROCESS_DIED", death.message, retryable=not isolated
            ) from death

    def _processor(self, name: str) -> Processor:
        try:
            return self._processors.get(name)
        except LookupError as error:
            # Another server, or this one after an installation, may know it.
            raise ItemFailed("PROCESSOR_UNKNOWN", str(error), retryable=True) from error

    def _failed(
        self, running: RunningBatch, item: PendingItem, outcome: Outcome, error: BaseException
    ) -> None:
        """Classifies: a processor's own word counts, and anything else may be worth a retry."""
        outcome.state = ItemState.FAILED
        outcome.result_json = outcome.quality_score = None
        if isinstance(error, ItemFailed):
            outcome.error = _error(error.reason, error.message, retryable=error.retryable)
        else:
            _log_surprise(running, item, error)
            outcome.error = _error("PROCESSOR_ERROR", _described(error), retryable=True)
        policy = running.batch.request.options.retry
        counted = outcome.attempts - item.attempts_before
        allowed = policy.allows(attempts=counted, reason=outcome.error.reason)
        if outcome.error.retryable and allowed:
            outcome.state = ItemState.PENDING
            outcome.retry_number = counted
            delay = error.retry_after if isinstance(error, ItemFailed) else None
            if delay is not None:
                outcome.next_attempt_time = self._clock.now() + min(delay, LONGEST_DELAY)


def poisoned(item: PendingItem, *, now: int) -> Outcome:
    """Returns the outcome of an item that was alone in hand when its process died, again.

    Args:
        now: In microseconds since the epoch.
    """
    message = "The process died each time that this item was in hand; it is not tried again."
    return Outcome(
        item.index,
        ItemState.FAILED,
        item.attempts + 1,
        error=_error("POISON", message, retryable=False),
        start_micros=now,
        end_micros=now,
        is_new=item.is_new,
    )


def timed_out(item: PendingItem, *, now: int, elapsed: timedelta) -> Outcome:
    """Returns the outcome of an attempt that did not end when it was cancelled.

    Args:
        now: In microseconds since the epoch.
    """
    message = "The attempt took too long and did not stop when it was cancelled; it was given up."
    return Outcome(
        item.index,
        ItemState.FAILED,
        item.attempts + 1,
        error=_error("ITEM_TIMEOUT", message, retryable=False),
        start_micros=now - elapsed // timedelta(microseconds=1),
        end_micros=now,
        is_new=item.is_new,
    )


class _Stopped(Exception):
    """The attempt was stopped because its batch was; nobody outside of this module sees it."""


class _StoreIsAway(Exception):
    """It could not be told whether the item is wanted; nothing could be recorded either."""


async def _finish_in_time(rest: Awaitable[ItemResult], running: RunningBatch) -> ItemResult:
    """Goes on with a processor that waits for something, for as long as an attempt may take."""
    limit = running.batch.request.options.item_timeout.total_seconds()
    deadline = asyncio.timeout(limit)
    try:
        return await _until(deadline, rest, running)
    except TimeoutError as error:
        if not deadline.expired():
            raise
        raise ItemFailed(
            "ITEM_TIMEOUT", f"The attempt took longer than {limit:g} s.", retryable=True
        ) from error


async def _unless_stopped(rest: Awaitable[ItemResult], running: RunningBatch) -> ItemResult:
    """Goes on with what keeps its time limit itself."""
    return await _until(asyncio.timeout(None), rest, running)


async def _until(
    deadline: asyncio.Timeout, rest: Awaitable[ItemResult], running: RunningBatch
) -> ItemResult:
    running.deadlines.add(deadline)
    try:
        async with deadline:
            return await rest
    except TimeoutError as error:
        if deadline.expired() and running.batch.stop_in_flight:
            raise _Stopped from error
        raise
    finally:
        running.deadlines.discard(deadline)


class _Rest:
    """What is left of an awaitable after its first step.

    Most items of most batches are done in one step, and the timer of a deadline costs more than
    all the rest of an attempt; so the first step is made before there is one.
    """

    __slots__ = ("_steps", "_waits_for")

    def __init__(self, steps: Generator[Any, Any, ItemResult], waits_for: Any) -> None:
        self._steps = steps
        self._waits_for = waits_for

    def __await__(self) -> Generator[Any, Any, ItemResult]:
        steps, waits_for = self._steps, self._waits_for
        try:
            while True:
                try:
                    answer = yield waits_for
                except GeneratorExit:
                    steps.close()
                    raise
                except BaseException as error:  # noqa: BLE001  it belongs to the processor
                    waits_for = steps.throw(error)
                else:
                    waits_for = steps.send(answer)
        except StopIteration as end:
            result: ItemResult = end.value
            return result


def _call_of(batch: Batch, item: PendingItem) -> ItemCall:
    request = batch.request
    data = orjson.loads(item.data_json)
    return ItemCall(
        batch_id=batch.batch_id,
        tenant_id=batch.tenant_id,
        item_id=item.item_id,
        user_id=item.user_id,
        data=data,
        attempt=item.attempts + 1,
        idempotency_key=idempotency_key(batch.batch_id, item.item_id),
        parameters=request.template.parameters,
        operation=request.operation,
        model=request.options.model,
        batch_metadata=request.batch_metadata,
        due_time=request.due_time,
        overrides=_overrides_of(request, data),
    )


def _overrides_of(request: BatchRequest, data: Any) -> Mapping[str, Any]:
    """Returns what counts for an item: what its user wishes, or what the template says itself."""
    if request.is_preference_based and isinstance(data, dict):
        said = data.get("template_overrides")
        if isinstance(said, dict):
            return said
    return defaults_of(request.template.overrides)


def _log_surprise(running: RunningBatch, item: PendingItem, error: BaseException) -> None:
    """Logs the first error of each kind with its trace; a million of a kind say no more."""
    kind = type(error).__name__
    if kind not in running.surprises:
        running.surprises.add(kind)
        log.warning(
            "item.raised",
            batch_id=running.batch.batch_id,
            item_id=item.item_id,
            error=kind,
            exc_info=error,
        )


def _worker_is_cancelled() -> bool:
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def _result_json(result: Any) -> str:
    """Writes a result as JSON text; what cannot be written, or is too large, fails the item."""
    if not isinstance(result, ItemResult):
        raise ItemFailed(
            "RESULT_INVALID",
            f"The processor returned {type(result).__name__} instead of an ItemResult.",
        )
    score = result.quality_score
    if score is not None and not 0 <= score <= 1:
        raise ItemFailed("RESULT_INVALID", f"The quality score {score!r} is not within 0 and 1.")
    try:
        text = orjson.dumps(result.value)
    except (TypeError, ValueError) as error:
        raise ItemFailed("RESULT_INVALID", f"The result is not JSON: {error}") from error
    if len(text) > LARGEST_RESULT:
        raise ItemFailed(
            "RESULT_TOO_LARGE",
            f"The result has {len(text)} bytes as JSON; at most {LARGEST_RESULT} are kept.",
        )
    return text.decode()


def _error(reason: str, message: str, *, retryable: bool) -> ItemError:
    return ItemError(
        reason=_reason(reason), message=_clean(message)[:_LONGEST_MESSAGE], retryable=retryable
    )


def _described(error: BaseException) -> str:
    try:
        return f"{type(error).__name__}: {error}"
    except Exception:  # noqa: BLE001  an error that cannot even say what it is
        return type(error).__name__


def _reason(text: str) -> str:
    """Returns a reason as the contract has it, UPPER_SNAKE, whatever a processor wrote."""
    return re.sub(r"[^A-Z0-9]+", "_", str(text).upper()).strip("_")[:63] or "UNSPECIFIED"


def _clean(text: str) -> str:
    """Leaves out what a database cannot hold as text."""
    return text.replace("\x00", "").encode("utf-8", "replace").decode()
