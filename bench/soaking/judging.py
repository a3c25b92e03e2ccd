"""Whether a server has stayed what it was."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median

from bench.soaking.probe import Vitals

_ALLOWED_GROWTH = 1.1
_ALLOWED_DESCRIPTORS = 3  # connections come and go; a leak is more than a few
_ROWS = 20
_BAR = 40


@dataclass(frozen=True, slots=True, kw_only=True)
class Moment:
    """What was seen at one moment of a soak.

    Attributes:
        at: Seconds since the load began.
        batches_done: Since then.
    """

    at: float
    vitals: Vitals
    batches_done: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgement:
    """What the second and the last quarter of a soak say. The first one warms the server up.

    Attributes:
        memory_growth: The last quarter's resident memory through the second one's; medians.
        new_descriptors: How many more are open; medians.
        problems: What the batches show.
    """

    memory_growth: float
    new_descriptors: float
    problems: int

    @property
    def is_good(self) -> bool:
        return (
            self.memory_growth <= _ALLOWED_GROWTH
            and self.new_descriptors <= _ALLOWED_DESCRIPTORS
            and not self.problems
        )


def judge(moments: Sequence[Moment], *, problems: int) -> Judgement:
    """Compares the quarters of a soak.

    Raises:
        ValueError: there are too few moments for quarters.
    """
    if len(moments) < 8:
        raise ValueError(f"{len(moments)} s of load say nothing; soak for longer.")
    return Judgement(
        memory_growth=_quarter(moments, 3, _resident) / _quarter(moments, 1, _resident),
        new_descriptors=_quarter(moments, 3, _descriptors) - _quarter(moments, 1, _descriptors),
        problems=problems,
    )


def chart(moments: Sequence[Moment]) -> str:
    """Returns the course of a soak, a row for each interval, with a bar for the memory."""
    size = max(1, -(-len(moments) // _ROWS))
    intervals = [moments[first : first + size] for first in range(0, len(moments), size)]
    highest = max(moment.vitals.resident for moment in moments)
    heading = "      s     MiB   fds  threads  batches  GetBatch ms  slowest ms"
    return "\n".join([heading, *(_row(interval, highest=highest) for interval in intervals)])


def _row(interval: Sequence[Moment], *, highest: float) -> str:
    last = interval[-1]
    resident = median(map(_resident, interval))
    return (
        f"{last.at:7.0f} {resident:7.1f} {median(map(_descriptors, interval)):5.0f} "
        f"{last.vitals.threads:8d} {last.batches_done:8d} "
        f"{median(moment.vitals.answer_ms for moment in interval):12.1f} "
        f"{max(moment.vitals.slowest_ms for moment in interval):11.0f}  "
        f"{'#' * round(_BAR * resident / highest)}"
    )


def _quarter(moments: Sequence[Moment], number: int, figure: Callable[[Moment], float]) -> float:
    size = len(moments) // 4
    return median(map(figure, moments[number * size : (number + 1) * size]))


def _resident(moment: Moment) -> float:
    return moment.vitals.resident


def _descriptors(moment: Moment) -> float:
    return moment.vitals.descriptors
