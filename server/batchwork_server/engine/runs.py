"""What this worker has in hand: its chunks, and what it knows of their batches."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator

from batchwork_server.domain.batch import Batch, BatchState
from batchwork_server.domain.item_durations import MeasuredAttempts
from batchwork_server.engine.executor import RunningBatch
from batchwork_server.engine.feed import ChunkRun, Feed
from batchwork_server.engine.providers import provider_of
from batchwork_server.store.store import ClaimedChunk

CRASHES_TO_ISOLATE = 3
"""After so many crashes in a row the items of a chunk run one by one."""

_REMEMBERED_STOPS = 1000
"""Of so many batches it is remembered that they were stopped: a claim is over before the next."""

_STOPPED = frozenset({BatchState.PAUSED, BatchState.CANCELLING})


class Runs:
    """Chunks on their way through the workers, by key, and their batches.

    A batch that is stopped takes its items back from the feed at once. What a claim says of a
    batch can be older than what was heard of it meanwhile; the higher sequence counts.
    """

    def __init__(self, feed: Feed) -> None:
        self._feed = feed
        self._runs: dict[int, ChunkRun] = {}
        self._batches: dict[int, RunningBatch] = {}
        self._siblings: dict[tuple[str, str], list[RunningBatch]] = {}
        self._stopped: dict[int, Batch] = {}
        self._told: dict[int, tuple[int, int]] = {}
        self._measured: dict[tuple[str, str], tuple[int, int]] = {}

    def __iter__(self) -> Iterator[ChunkRun]:
        return iter(list(self._runs.values()))

    def __contains__(self, run: ChunkRun) -> bool:
        return self._runs.get(run.chunk.chunk_key) is run

    @property
    def chunk_keys(self) -> list[int]:
        return list(self._runs)

    @property
    def batches(self) -> Iterable[RunningBatch]:
        return self._batches.values()

    def of(self, chunk_keys: Iterable[int]) -> list[ChunkRun]:
        """Returns what is in hand of some chunks."""
        return [self._runs[key] for key in chunk_keys if key in self._runs]

    def add(self, chunk: ClaimedChunk, batch: Batch) -> ChunkRun:
        """Takes a chunk in hand, whether its items are wanted any more or not."""
        running = self._batches.get(batch.key)
        if running is None:
            running = self._begin(batch)
        for heard in (batch, self._stopped.get(batch.key)):
            if heard is not None and heard.sequence > running.batch.sequence:
                running.batch = heard
        running.wanted = _goes_on(running)
        running.chunks += 1
        run = ChunkRun(
            chunk=chunk,
            running=running,
            queue=deque(chunk.items),
            isolated=chunk.crashes >= CRASHES_TO_ISOLATE,
        )
        self._runs[chunk.chunk_key] = run
        return run

    def _begin(self, batch: Batch) -> RunningBatch:
        """Takes a batch in hand; while another one probes its provider, it waits for that."""
        siblings = self._siblings.setdefault(provider_of(batch), [])
        running = RunningBatch(
            batch=batch,
            siblings=siblings,
            probing=batch.provider_pauses > 0 or any(each.probing for each in siblings),
        )
        siblings.append(running)
        self._batches[batch.key] = running
        return running

    def hear(self, batch: Batch) -> list[ChunkRun]:
        """Takes note of a batch that was written.

        Returns:
            The chunks from which items were taken back because it was stopped.
        """
        self._remember_stop(batch)
        running = self._batches.get(batch.key)
        if running is None or batch.sequence < running.batch.sequence:
            return []
        running.batch = batch
        running.wanted = _goes_on(running)
        return [] if running.wanted else self.stop(running)

    def _remember_stop(self, batch: Batch) -> None:
        known = self._stopped.get(batch.key)
        if known is not None and known.sequence > batch.sequence:
            return
        if batch.state in _STOPPED:
            self._stopped[batch.key] = batch
            if len(self._stopped) > _REMEMBERED_STOPS:  # their ends were heard elsewhere
                del self._stopped[next(iter(self._stopped))]
        else:
            self._stopped.pop(batch.key, None)

    def stop(self, running: RunningBatch) -> list[ChunkRun]:
        """Starts no further item of a batch, and returns the chunks that have items to give back.

        What is in flight goes on, unless the batch says that it is to be stopped, too.
        """
        running.wanted = False
        if running.batch.stop_in_flight:
            running.stop_attempts()
        runs = [run for run in self._runs.values() if run.running is running and run.queue]
        for run in runs:
            run.give_back(self._feed.drop(run))
        return runs

    def forget(self, run: ChunkRun) -> None:
        """Lets go of a chunk that is recorded, released or lost."""
        if self._runs.get(run.chunk.chunk_key) is not run:
            return  # it was let go of before, and may be in hand again by another claim
        del self._runs[run.chunk.chunk_key]
        run.finished.set()
        run.running.chunks -= 1
        if not run.running.chunks:
            self._end(run.running)

    def _end(self, running: RunningBatch) -> None:
        self._measure(running)
        self._told.pop(running.batch.key, None)
        del self._batches[running.batch.key]
        running.siblings.remove(running)
        if not running.siblings:
            del self._siblings[provider_of(running.batch)]

    def take_measured(self) -> list[MeasuredAttempts]:
        """Returns how long the attempts took that ended since the last call, by template."""
        for running in self._batches.values():
            self._measure(running)
        measured, self._measured = self._measured, {}
        return [
            MeasuredAttempts(
                tenant_id=tenant_id, template_id=template_id, count=count, micros=micros
            )
            for (tenant_id, template_id), (count, micros) in measured.items()
        ]

    def _measure(self, running: RunningBatch) -> None:
        """Adds what is new of a batch to what is known of its template."""
        batch, now = running.batch, (running.attempts, running.busy_micros)
        attempts, micros = self._told.get(batch.key, (0, 0))
        self._told[batch.key] = now
        if now[0] > attempts:
            key = (batch.tenant_id, batch.request.template.template_id)
            count, total = self._measured.get(key, (0, 0))
            self._measured[key] = (count + now[0] - attempts, total + now[1] - micros)


def _goes_on(running: RunningBatch) -> bool:
    if running.batch.state in _STOPPED or running.pausing:
        return False
    return not running.breaks_failure_policy
