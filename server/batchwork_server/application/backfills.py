"""Backfills of jobs: due times of the past are queued, or what waits of them is dropped."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from typing import Any

from batchwork_server.application.first_answers import FirstAnswers, Request
from batchwork_server.clock import Clock
from batchwork_server.domain.backfill import (
    EARLIEST,
    Backfill,
    BackfilledDueTime,
    BackfillRange,
    Fate,
    due_times_in,
)
from batchwork_server.domain.firing import Decision, Occurrence
from batchwork_server.domain.ids import new_backfill_id
from batchwork_server.domain.job import StoredJob
from batchwork_server.domain.submission import Idempotency
from batchwork_server.errors import InvalidArgument, NotFound, Violation
from batchwork_server.logs import get_logger
from batchwork_server.store.store import QueuedDueTimes, Store, Transaction
from batchwork_server.wakeups import Wakeups

log = get_logger(__name__)


class Backfills:
    """The use cases around backfills; the scheduler starts what they queue.

    Args:
        zone: Of jobs whose schedule names none.
    """

    def __init__(self, *, store: Store, clock: Clock, wakeups: Wakeups, zone: str) -> None:
        self._store = store
        self._answers = FirstAnswers(store.requests)
        self._clock = clock
        self._wakeups = wakeups
        self._zone = zone

    async def backfill_job(
        self,
        asked: BackfillRange,
        *,
        tenant_id: str,
        idempotency: Idempotency,
        validate_only: bool = False,
    ) -> Backfill:
        """Queues due times of the past; the same request again gets the first answer.

        Args:
            asked: Which.
            tenant_id: Who owns the job.
            idempotency: Names the request.
            validate_only: Answers what would be done and stores nothing.

        Raises:
            NotFound: there is no such job, or it is not the tenant's.
            WrongState: no schedule of its own drives the job.
            InvalidArgument: the range is not in the past, or holds too many due times.
            RequestIdReused: nothing was queued.
        """
        request = Request(method="BackfillJob", tenant_id=tenant_id, idempotency=idempotency)
        first = None if validate_only else await self._answers.find(request)
        if first is not None:
            return _backfill_from(first)
        now = self._clock.now()
        _check_range(asked, now=now)
        job = await self._store.jobs.get(asked.job_id, tenant_id=tenant_id)
        if job is None:
            raise NotFound("job", asked.job_id)
        # Thousands of due times take a while; calls that wait for the loop must not.
        times = await asyncio.to_thread(due_times_in, asked, job, zone=self._zone)
        if validate_only:
            known = await self._store.occurrences.of_due_times(job, times)
            return _planned(times, known)
        async with self._store.transaction() as tx:
            answer = await self._answers.replay(tx, request, now=now)
            if answer is not None:
                return _backfill_from(answer)
            held = await self._store.occurrences.hold(tx, asked.job_id, tenant_id=tenant_id)
            if held is None:
                raise NotFound("job", asked.job_id)
            if held != job:
                times = due_times_in(asked, held, zone=self._zone)
            backfill = await self._queue(tx, held, times, asked, now=now)
            await self._answers.remember(tx, request, _backfill_to(backfill))
        log.info(
            "job.backfilled",
            tenant_id=tenant_id,
            job_id=asked.job_id,
            backfill_id=backfill.backfill_id,
            queued=sum(each.fate is Fate.QUEUED for each in backfill.due_times),
        )
        self._wakeups.schedules_changed()
        return backfill

    async def _queue(
        self,
        tx: Transaction,
        job: StoredJob,
        times: Sequence[datetime],
        asked: BackfillRange,
        *,
        now: datetime,
    ) -> Backfill:
        backfill_id = new_backfill_id(now=now)
        wanted = QueuedDueTimes(
            due_times=times, backfill_id=backfill_id, is_parallel=asked.is_parallel
        )
        queued = await self._store.occurrences.queue(tx, job, wanted, now=now)
        known = await self._store.occurrences.of_due_times(job, times, tx=tx)
        return Backfill(
            backfill_id=backfill_id if queued else "", due_times=_fates(times, known, queued)
        )

    async def cancel_backfill(
        self, backfill_id: str, *, tenant_id: str, idempotency: Idempotency
    ) -> int:
        """Skips what waits of a backfill, and counts it; runs that go on are left.

        Raises:
            NotFound: no occurrence of such a backfill is kept, or it is not the tenant's.
            RequestIdReused: nothing was cancelled.
        """
        request = Request(method="CancelBackfill", tenant_id=tenant_id, idempotency=idempotency)
        now = self._clock.now()
        async with self._store.transaction() as tx:
            answer = await self._answers.replay(tx, request, now=now)
            if answer is not None:
                return int(answer["cancelled_count"])
            count = await self._store.occurrences.cancel_backfill(
                tx, backfill_id, tenant_id=tenant_id, now=now
            )
            if count is None:
                raise NotFound("backfill", backfill_id)
            await self._answers.remember(tx, request, {"cancelled_count": count})
        log.info(
            "backfill.cancelled", tenant_id=tenant_id, backfill_id=backfill_id, cancelled=count
        )
        return count


def _check_range(asked: BackfillRange, *, now: datetime) -> None:
    violations = []
    if asked.start < EARLIEST:
        message = f"{asked.start.isoformat()} is before {EARLIEST.isoformat()}; begin then."
        violations.append(Violation("start_time", message))
    if asked.end > now:
        message = (
            f"{asked.end.isoformat()} is in the future; end at {now.isoformat()} at most: what is "
            "due later is the schedule's business."
        )
        violations.append(Violation("end_time", message))
    if violations:
        raise InvalidArgument(violations)


def _planned(times: Sequence[datetime], known: Mapping[datetime, Occurrence]) -> Backfill:
    """Returns what a backfill would do."""
    free = [time for time in times if time not in known or known[time].decision is Decision.SKIPPED]
    return Backfill(backfill_id="", due_times=_fates(times, known, free))


def _fates(
    times: Sequence[datetime],
    known: Mapping[datetime, Occurrence],
    queued: Collection[datetime],
) -> list[BackfilledDueTime]:
    ours = frozenset(queued)
    return [
        BackfilledDueTime(due_time=time, fate=Fate.QUEUED)
        if time in ours
        else _left_alone(known[time])
        for time in times
    ]


def _left_alone(occurrence: Occurrence) -> BackfilledDueTime:
    waits = occurrence.decision is Decision.QUEUED
    return BackfilledDueTime(
        due_time=occurrence.due_time,
        fate=Fate.ALREADY_QUEUED if waits else Fate.ALREADY_RUN,
        batch_id=occurrence.batch_id,
    )


def _backfill_to(backfill: Backfill) -> dict[str, Any]:
    return {
        "backfill_id": backfill.backfill_id,
        "due_times": [
            [each.due_time.isoformat(), each.fate, each.batch_id] for each in backfill.due_times
        ],
    }


def _backfill_from(document: Mapping[str, Any]) -> Backfill:
    return Backfill(
        backfill_id=document["backfill_id"],
        due_times=[
            BackfilledDueTime(due_time=datetime.fromisoformat(t), fate=Fate(f), batch_id=b)
            for t, f, b in document["due_times"]
        ],
    )
