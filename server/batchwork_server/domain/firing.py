"""When a job runs by its schedule, and what becomes of a due time: pure rules.

A due time identifies a run, whenever that begins: the schedule's jitter only delays the start.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum
from typing import assert_never

from batchwork_server.domain.due_times import due_times, start_time
from batchwork_server.domain.job import PreferenceSource, StoredJob
from batchwork_server.domain.job_policies import CatchUp, Overlap
from batchwork_server.domain.schedule import Schedule

PROMPT = timedelta(minutes=1)
"""A run that begins so much later than it should, or more, was missed."""

MAX_CAUGHT_UP = 100
"""The most runs that ``CatchUp.ALL`` makes up for in one decision."""

_TICK = timedelta(microseconds=1)


class Decision(StrEnum):
    """What was decided about a due time."""

    FIRED = "FIRED"  # a batch began when it should
    CAUGHT_UP = "CAUGHT_UP"  # a batch began later
    BACKFILLED = "BACKFILLED"  # a batch began because of a backfill
    QUEUED = "QUEUED"  # a batch begins when no other run of the job goes on
    SKIPPED = "SKIPPED"  # no batch; there is a reason


class SkipReason(StrEnum):
    """Why a due time has no batch."""

    MISSED = "MISSED"  # nobody could make it in time, and the job does not make up for this one
    OVERLAP = "OVERLAP"  # another run of the job went on, or a newer one took its place
    OUTSIDE_WINDOW = "OUTSIDE_WINDOW"  # missed for longer than the job's catch-up window
    RUN_FAILED = "RUN_FAILED"  # the batch could not be made; the message says why
    JOB_DELETED = "JOB_DELETED"  # its job was deleted while it waited
    CANCELLED = "CANCELLED"  # its backfill was cancelled while it waited


@dataclass(frozen=True, slots=True, kw_only=True)
class NextRun:
    """A run of a job that is to come.

    Attributes:
        due_time: Identifies the run.
        start_time: When it begins: at the due time, or later by the schedule's jitter.
    """

    due_time: datetime
    start_time: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Decided:
    """What becomes of a due time.

    Attributes:
        reason: Empty unless it is skipped.
        batch_id: Empty when it is skipped or waits.
        queued_as: What it becomes when it starts; only of one that is QUEUED.
    """

    run: NextRun
    decision: Decision
    reason: SkipReason | None = None
    message: str = ""
    batch_id: str = ""
    queued_as: Decision | None = None

    @property
    def starts(self) -> bool:
        """Tells whether a batch begins with this decision."""
        return self.decision not in (Decision.SKIPPED, Decision.QUEUED)


@dataclass(frozen=True, slots=True, kw_only=True)
class Occurrence:
    """What was decided about a due time, as it is kept.

    Attributes:
        decide_time: Of one that was queued and has started: when it started.
        queued_as: What it becomes when it starts; only of one that is QUEUED.
        backfill_id: The newest backfill that queued it, if one did.
        group_key: Of a preference-based job the group that was due; 0 for the job's own schedule.
        schedule: That of the group, as it was then.
    """

    tenant_id: str
    job_id: str
    due_time: datetime
    decision: Decision
    reason: SkipReason | None
    message: str
    batch_id: str
    decide_time: datetime
    queued_as: Decision | None = None
    backfill_id: str = ""
    group_key: int = 0
    schedule: Schedule | None = None


def runs_from(job: StoredJob, start: datetime, *, zone: str) -> Iterator[NextRun]:
    """Yields the runs that a job's own schedule makes, from a due time on.

    Args:
        job: One that a preference drives, or nothing, or that is paused has none.
        start: The first due time that counts.
        zone: Of a schedule that names none.
    """
    schedule = job.definition.schedule
    if (
        job.is_paused
        or schedule is None
        or job.definition.preference_source is PreferenceSource.DYNAMIC
    ):
        return
    key = f"{job.tenant_id}/{job.definition.job_id}"
    for due in due_times(schedule, zone=zone, after=start - _TICK, created=job.create_time):
        begin = start_time(due.instant, key=key, jitter=schedule.jitter)
        yield NextRun(due_time=due.instant, start_time=begin)


def next_run_after(job: StoredJob, now: datetime, *, zone: str) -> NextRun | None:
    """Returns the first run of a job that is due after an instant."""
    return next(runs_from(job, now + _TICK, zone=zone), None)


def decide(
    up: Sequence[NextRun],
    following: NextRun | None,
    *,
    now: datetime,
    catch_up: CatchUp = CatchUp.LATEST,
    window: timedelta | None = None,
    overlap: Overlap = Overlap.SKIP,
    is_running: bool = False,
    is_waiting: bool = False,
) -> list[Decided]:
    """Decides about every run that should have begun by now, in the order of the due times.

    Args:
        up: The runs.
        following: The one after them, if there is one.
        now: When the decision is made.
        catch_up: What becomes of those that were missed.
        window: How long after its start a missed run is worth making up for; none means until the
            next one is due.
        overlap: What becomes of those that would run beside another one.
        is_running: Whether another run of the job goes on.
        is_waiting: Whether a due time of its schedule is queued already.
    """
    decided = [
        _decide_alone(run, later, now=now, window=window)
        for run, later in zip(up, [*up[1:], following], strict=True)
    ]
    decided = _make_up(decided, catch_up)
    match overlap:
        case Overlap.ALLOW:
            return decided
        case Overlap.CANCEL_PREVIOUS:
            return _newest_alone(decided)
        case _ if catch_up is CatchUp.ALL and any(_is_made_up_for(each) for each in decided):
            return _one_after_another(decided, is_busy=is_running or is_waiting)
        case Overlap.SKIP:
            return _newest_unless_busy(decided, is_running=is_running, is_waiting=is_waiting)
        case Overlap.QUEUE_ONE:
            return _one_in_the_queue(decided, is_running=is_running, is_waiting=is_waiting)
        case _:
            assert_never(overlap)


def _decide_alone(
    run: NextRun, later: NextRun | None, *, now: datetime, window: timedelta | None
) -> Decided:
    late = now - run.start_time
    if late < PROMPT:
        return Decided(run=run, decision=Decision.FIRED)
    replaced = later is not None and later.start_time <= now
    is_outside = replaced if window is None else late > window
    if is_outside:
        return _skipped(
            run, SkipReason.OUTSIDE_WINDOW, f"{_late(late)}, after its window was over."
        )
    return Decided(run=run, decision=Decision.CAUGHT_UP, message=f"{_late(late)}.")


def _late(late: timedelta) -> str:
    return f"It was decided {late // timedelta(seconds=1)} s after it should have begun"


def _skipped(run: NextRun, reason: SkipReason, message: str) -> Decided:
    return Decided(run=run, decision=Decision.SKIPPED, reason=reason, message=message)


def _make_up(decided: Sequence[Decided], catch_up: CatchUp) -> list[Decided]:
    """Leaves out what was missed and the policy does not want."""
    wanted = {CatchUp.NONE: 0, CatchUp.LATEST: 1, CatchUp.ALL: MAX_CAUGHT_UP}[catch_up]
    told: list[Decided] = []
    for each in reversed(decided):
        if each.decision is not Decision.CAUGHT_UP:
            # A run that begins now is the latest.
            wanted -= catch_up is CatchUp.LATEST and each.decision is Decision.FIRED
            told.append(each)
        elif wanted > 0:
            wanted -= 1
            told.append(each)
        else:
            message = f"{each.message[:-1]}; catch_up is {catch_up.lower()}."
            told.append(_skipped(each.run, SkipReason.MISSED, message))
    return told[::-1]


def _is_made_up_for(decided: Decided) -> bool:
    return decided.decision is Decision.CAUGHT_UP


def _newest_alone(decided: Sequence[Decided]) -> list[Decided]:
    """Leaves the newest run of those that would begin at once: it would cancel the others."""
    newest = max((each.run.due_time for each in decided if each.starts), default=None)
    message = "A newer run of the job was due at once."
    return [
        _skipped(each.run, SkipReason.OVERLAP, message)
        if each.starts and each.run.due_time != newest
        else each
        for each in decided
    ]


def _newest_unless_busy(
    decided: Sequence[Decided], *, is_running: bool, is_waiting: bool
) -> list[Decided]:
    """Leaves the newest run of those that would go on at once, and none while another does."""
    told: list[Decided] = []
    for each in reversed(decided):
        if each.starts and (is_running or is_waiting):
            message = _GOES_ON if is_running else _WAITS
            told.append(_skipped(each.run, SkipReason.OVERLAP, message))
        else:
            is_running = is_running or each.starts
            told.append(each)
    return told[::-1]


def _one_in_the_queue(
    decided: Sequence[Decided], *, is_running: bool, is_waiting: bool
) -> list[Decided]:
    """Queues what would run beside another run, but one at most."""
    told: list[Decided] = []
    for each in decided:
        if each.starts and is_waiting:
            told.append(_skipped(each.run, SkipReason.OVERLAP, _WAITS))
        elif each.starts and is_running:
            is_waiting = True
            told.append(_queued(each))
        else:
            is_running = is_running or each.starts
            told.append(each)
    return told


def _one_after_another(decided: Sequence[Decided], *, is_busy: bool) -> list[Decided]:
    """Queues all that would run beside another run, whatever waits already."""
    told: list[Decided] = []
    for each in decided:
        told.append(_queued(each) if each.starts and is_busy else each)
        is_busy = is_busy or each.starts
    return told


_GOES_ON = "Another run of the job went on."
_WAITS = "Another due time of the job waited already."


def _queued(decided: Decided) -> Decided:
    message = f"{decided.message} It waits for other runs of the job.".strip()
    return replace(decided, decision=Decision.QUEUED, queued_as=decided.decision, message=message)


def started(waiting: Occurrence, *, batch_id: str, now: datetime) -> Decided:
    """Returns what becomes of a due time that was queued and whose batch begins."""
    if waiting.queued_as is None:
        raise ValueError(f"The due time {waiting.due_time} of {waiting.job_id} is not queued.")
    waited = (now - waiting.decide_time) // timedelta(seconds=1)
    return Decided(
        run=NextRun(due_time=waiting.due_time, start_time=waiting.decide_time),
        decision=waiting.queued_as,
        message=f"It waited {waited} s for other runs of the job.",
        batch_id=batch_id,
    )
