"""One attempt at one item, as a pipeline of named steps. It writes nothing."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Generator
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Protocol

import orjson

from batchwork_server.clock import Clock
from batchwork_server.domain.batch import Batch
from batchwork_server.domain.ids import idempotency_key
from batchwork_server.domain.item import ItemError, ItemState, Outcome, PendingItem
from batchwork_server.errors import ItemFailed, ItemSkipped
from batchwork_server.logs import get_logger
from batchwork_server.ports import ItemCall, ItemResult, Processor

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
        wanted: Cleared when the batch is cancelled; no new attempt starts after that.
        chunks: Chunks of it that the worker has.
        in_flight: Attempts that are going on.
        surprises: Kinds of errors that were logged for it.
    """

    batch: Batch
    wanted: bool = True
    chunks: int = 0
    in_flight: int = 0
    surprises: set[str] = field(default_factory=set)

    @property
    def has_room(self) -> bool:
        bound = self.batch.request.options.max_concurrent_items
        return not bound or self.in_flight < bound


class Executor:
    """Makes attempts."""

    def __init__(self, *, processors: Processors, clock: Clock) -> None:
        self._processors = processors
        self._clock = clock

    async def attempt(self, running: RunningBatch, item: PendingItem) -> Outcome:
        """Makes one attempt and returns what it came to, whatever the processor does.

        An outcome that is PENDING asks for a retry; its ``next_attempt_time`` is set only when
        a provider named a delay.

        Raises:
            asyncio.CancelledError: the worker itself was cancelled; the attempt does not count.
        """
        if not running.wanted:
            return self._not_wanted(item)
        begin = self._clock.monotonic()
        start_time = self._clock.now()
        outcome = Outcome(
            index=item.index,
            state=ItemState.FAILED,
            attempts=item.attempts + 1,
            start_time=start_time,
        )
        try:
            result = await self._process(running.batch, item)
            outcome.result_json = _result_json(result)
            outcome.quality_score = result.quality_score
            outcome.state = ItemState.SUCCEEDED
        except ItemSkipped as skip:
            outcome.state = ItemState.SKIPPED
            outcome.skip_reason = _reason(skip.reason)
        except BaseException as error:
            if isinstance(error, asyncio.CancelledError) and _worker_is_cancelled():
                raise
            self._failed(running, item, outcome, error)
        elapsed = self._clock.monotonic() - begin
        outcome.duration = timedelta(seconds=elapsed)
        outcome.end_time = start_time + outcome.duration
        return outcome

    def _not_wanted(self, item: PendingItem) -> Outcome:
        return Outcome(
            index=item.index,
            state=ItemState.CANCELLED,
            attempts=item.attempts,
            end_time=self._clock.now(),
        )

    async def _process(self, batch: Batch, item: PendingItem) -> ItemResult:
        request = batch.request
        template = request.template
        processor = self._processor(template.processor)
        call = ItemCall(
            batch_id=batch.batch_id,
            tenant_id=batch.tenant_id,
            item_id=item.item_id,
            user_id=item.user_id,
            data=orjson.loads(item.data_json),
            attempt=item.attempts + 1,
            idempotency_key=idempotency_key(batch.batch_id, item.item_id),
            parameters=template.parameters,
            operation=request.operation,
            model=request.options.model,
            batch_metadata=request.batch_metadata,
        )
        steps = processor.process(call).__await__()
        try:
            waits_for = next(steps)
        except StopIteration as end:
            # Done without having waited for anything: no deadline could have done anything.
            done: ItemResult = end.value
            return done
        return await _finish_in_time(steps, waits_for, limit=request.options.item_timeout)

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
        if isinstance(error, ItemFailed):
            outcome.error = _error(error.reason, error.message, retryable=error.retryable)
        else:
            _log_surprise(running, item, error)
            outcome.error = _error("PROCESSOR_ERROR", _described(error), retryable=True)
        policy = running.batch.request.options.retry
        if running.wanted and outcome.error.retryable and policy.allows(attempts=outcome.attempts):
            outcome.state = ItemState.PENDING
            delay = error.retry_after if isinstance(error, ItemFailed) else None
            if delay is not None:
                outcome.next_attempt_time = self._clock.now() + min(delay, LONGEST_DELAY)


async def _finish_in_time(
    steps: Generator[Any, Any, ItemResult], waits_for: Any, *, limit: timedelta
) -> ItemResult:
    """Goes on with a processor that waits for something, for as long as an attempt may take."""
    deadline = asyncio.timeout(limit.total_seconds())
    try:
        async with deadline:
            return await _Rest(steps, waits_for)
    except TimeoutError as error:
        if not deadline.expired():
            raise
        raise ItemFailed(
            "ITEM_TIMEOUT",
            f"The attempt took longer than {limit.total_seconds():g} s.",
            retryable=True,
        ) from error


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
