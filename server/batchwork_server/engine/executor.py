"""One attempt at one item, as a pipeline of named steps. It writes nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Generator, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Protocol

import orjson

from batchwork_server.clock import Clock
from batchwork_server.domain.batch import Batch, BatchRequest
from batchwork_server.domain.declared_overrides import defaults_of
from batchwork_server.domain.ids import idempotency_key
from batchwork_server.domain.item import ItemState, Outcome, PendingItem
from batchwork_server.engine.classification import (
    Failure,
    Pause,
    Skip,
    classified,
    item_error,
    quality_score,
    result_json,
)
from batchwork_server.engine.isolation import ChildDied, ChildProcesses
from batchwork_server.engine.opting_out import OptOuts, of_those_who_want
from batchwork_server.engine.tally import Tally
from batchwork_server.errors import ItemFailed, StoreUnavailable
from batchwork_server.failpoints import reach
from batchwork_server.logs import get_logger
from batchwork_server.ports import ItemCall, ItemResult, Processor, is_cpu_bound

log = get_logger(__name__)


class Processors(Protocol):
    """Finds a processor by its name; an unknown one is a ``LookupError``."""

    def get(self, name: str) -> Processor: ...


@dataclass(slots=True, kw_only=True, eq=False)
class RunningBatch:
    """What the worker knows of a batch while it has chunks of it.

    Attributes:
        wanted: Cleared when the batch is stopped; no new attempt starts while it is.
        pausing: The provider is away, and the batch is about to be paused.
        siblings: This one and the others whose processor calls the same provider.
        probing: The provider was away: one item at a time of all siblings, until one is done.
        progressed: An item was done since the provider was away.
        attempts: How many came to an outcome, so far.
        tally: Of those that are not recorded yet.
        chunks: Chunks of it that the worker has.
        in_flight: Attempts that are going on.
        queued: Items that no worker has yet; of a chunk that runs one by one no more than the next.
        low_water: When fewer are queued, it is time to claim more of it; 0 means that nobody waits
            for that.
        busy_micros: How long those took together.
        processes: How many can go on at once, as its processor is CPU-bound and each attempt takes
            a child process; 0 while that is not known, or not so.
        deadlines: Of those attempts that wait for something, by the worker that waits.
        stopped: Those of the deadlines that came early, and end attempts that do not count.
        surprises: Kinds of errors that were logged for it.
    """

    batch: Batch
    wanted: bool = True
    pausing: bool = False
    siblings: list[RunningBatch] = field(default_factory=list)
    probing: bool = False
    progressed: bool = False
    attempts: int = 0
    tally: Tally = field(default_factory=Tally)
    chunks: int = 0
    in_flight: int = 0
    queued: int = 0
    low_water: int = 0
    busy_micros: int = 0
    processes: int = 0
    deadlines: dict[asyncio.Task[Any] | None, asyncio.Timeout] = field(default_factory=dict)
    stopped: set[asyncio.Timeout] = field(default_factory=set)
    surprises: set[str] = field(default_factory=set)

    @property
    def waits_for_probe(self) -> bool:
        """Tells whether an item goes on by which it will be known whether the provider is back."""
        return self.probing and any(each.in_flight for each in self.siblings if each.probing)

    @property
    def bound(self) -> int:
        """How many attempts may go on at once; 0 means as many as there are workers."""
        bound = 1 if self.probing else self.batch.request.options.max_concurrent_items
        if self.processes and not 0 < bound < self.processes:
            bound = self.processes  # more would only wait, in the way of other batches
        return bound

    @property
    def startable(self) -> int:
        """How many of the queued items workers could begin now, if there were enough of them."""
        if self.waits_for_probe:
            return 0
        bound = self.bound
        return min(self.queued, max(0, bound - self.in_flight)) if bound else self.queued

    @property
    def pace(self) -> float:
        """How many attempts a second are done one after the other, as far as is known."""
        return self.attempts * 1_000_000 / self.busy_micros if self.busy_micros > 0 else 0.0

    @property
    def breaks_failure_policy(self) -> bool:
        """Tells whether too many items failed, those that are not recorded included."""
        return self.tally.breaks_failure_policy(self.batch, attempts=self.attempts)

    def stop_attempts(self) -> None:
        """Ends the attempts that are going on; they do not count."""
        now = asyncio.get_running_loop().time()
        for deadline in self.deadlines.values():
            if not deadline.expired():  # one that is over has cancelled its attempt already
                self.stopped.add(deadline)
                deadline.reschedule(now)


@dataclass(frozen=True, slots=True, kw_only=True)
class NotDone:
    """An attempt that does not count: its item is given back as if it had not begun.

    Attributes:
        pause: Set when the batch is to wait for what the processor calls.
    """

    pause: Pause | None = None


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
        self._stopping = False

    def stop(self) -> None:
        """From now on a cancellation is the server's word, and not one of a processor's tricks."""
        self._stopping = True

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
            asyncio.CancelledError: the server stops; the attempt does not count.
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
            outcome.result_json = result_json(result)
            outcome.quality_score = quality_score(result)
        except (_Stopped, _StoreIsAway):
            return NotDone()
        except BaseException as error:
            if isinstance(error, asyncio.CancelledError) and self._stopping:
                raise
            said = classified(error)
            if isinstance(said, Pause):
                return NotDone(pause=said)
            if isinstance(said, Skip):
                outcome.state = ItemState.SKIPPED
                outcome.skip_reason = said.reason
            else:
                if said.is_surprise:
                    _log_surprise(running, item, error)
                self._failed(running, item, outcome, said)
        outcome.end_micros = start + int((self._clock.monotonic() - begin) * 1_000_000)
        return outcome

    async def _process(
        self, running: RunningBatch, item: PendingItem, outcome: Outcome, *, isolated: bool
    ) -> ItemResult:
        request = running.batch.request
        if request.is_preference_based:
            item = await self._refuse_unwanted(running.batch, item)
            outcome.start_micros = self._clock.micros()  # what was read does not belong to it
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
        self, running: RunningBatch, item: PendingItem, outcome: Outcome, failure: Failure
    ) -> None:
        """Ends the item, or asks for a retry where the failure and the policy allow one."""
        outcome.state = ItemState.FAILED
        outcome.result_json = outcome.quality_score = None
        outcome.error = failure.error
        policy = running.batch.request.options.retry
        counted = outcome.attempts - item.attempts_before
        allowed = policy.allows(attempts=counted, reason=failure.error.reason)
        if failure.error.retryable and allowed:
            outcome.state = ItemState.PENDING
            outcome.retry_number = counted
            if failure.retry_after is not None:
                outcome.next_attempt_time = self._clock.now() + failure.retry_after


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
        error=item_error("POISON", message, retryable=False),
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
        error=item_error("ITEM_TIMEOUT", message, retryable=False),
        start_micros=now - elapsed // timedelta(microseconds=1),
        end_micros=now,
        is_new=item.is_new,
    )


class _Stopped(Exception):
    """The attempt was stopped; it does not count. Nobody outside of this module sees it."""


class _StoreIsAway(Exception):
    """It could not be told whether the item is wanted; nothing could be recorded either."""


async def _finish_in_time(rest: Awaitable[ItemResult], running: RunningBatch) -> ItemResult:
    """Goes on with a processor that waits for something, for as long as an attempt may take."""
    limit = running.batch.request.options.item_timeout.total_seconds()
    deadline = asyncio.timeout(limit)
    try:
        return await _until(deadline, rest, running)
    except (TimeoutError, asyncio.CancelledError) as error:
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
    """Goes on until ``deadline``.

    What ran into it may end as a cancellation, too: where a processor has cancelled its own task
    before, one more is not taken for a time that is over.
    """
    worker = asyncio.current_task()
    running.deadlines[worker] = deadline
    try:
        async with deadline:
            return await rest
    except (TimeoutError, asyncio.CancelledError) as error:
        is_stopped = running.batch.stop_in_flight or deadline in running.stopped
        if deadline.expired() and is_stopped:
            raise _Stopped from error
        raise
    finally:
        del running.deadlines[worker]
        running.stopped.discard(deadline)


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
