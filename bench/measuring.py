"""How a benchmark measures, and how it speaks."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from statistics import median

Measure = Callable[[], Awaitable[float]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Scale:
    """How much work one measurement is, and how often it is done.

    Attributes:
        runs: Pairs of measurements, the project and its limit; the median counts.
        items: In a batch that is processed.
        waiting_items: In a batch whose items wait.
        inline_items: In a batch of which only the creation is measured.
        calls: Of one measurement with many calls in flight; one at a time, a fifth of them.
        stored_items: In all batches together, where it is measured what they leave in memory.
        preferences: Of one feature, in groups.
        user_ids: That are validated in one measurement, all of users who are there.
        memory_runs: Servers whose memory is measured, one after the other.
    """

    runs: int
    items: int
    waiting_items: int
    inline_items: int
    calls: int
    stored_items: int
    preferences: int
    user_ids: int
    memory_runs: int


SMALL = Scale(
    runs=3,
    items=20_000,
    waiting_items=10_000,
    inline_items=10_000,
    calls=2_000,
    stored_items=120_000,
    preferences=50_000,
    user_ids=200_000,
    memory_runs=1,
)
FULL = Scale(
    runs=7,
    items=50_000,
    waiting_items=50_000,
    inline_items=10_000,
    calls=10_000,
    stored_items=1_000_000,
    preferences=1_000_000,
    user_ids=1_000_000,
    memory_runs=3,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """The project and its limit, one right after the other."""

    ours: float
    limit: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What came of one target.

    Attributes:
        name: Such as ``P1 sqlite``.
        target: A ratio that is to be reached; with ``target_is_ours`` a value of our own that is
            not to be exceeded.
        pairs: A measurement each, in ``unit``.
        lower_is_better: Less of ``unit`` is better; the ratio is then the limit through ours, so
            that a larger ratio is the better one everywhere.
        details: Further figures, by name.
    """

    name: str
    target: float
    unit: str
    pairs: Sequence[Pair]
    lower_is_better: bool = False
    target_is_ours: bool = False
    details: dict[str, float] = field(default_factory=dict)

    @property
    def ratio(self) -> float:
        """The share of the limit that is reached: the median over the pairs.

        Each pair saw the machine in one mood. A ratio of the two medians would mix moods, so this
        one need not be exactly ``ours`` through ``limit``.
        """
        return median(
            pair.limit / pair.ours if self.lower_is_better else pair.ours / pair.limit
            for pair in self.pairs
        )

    @property
    def ours(self) -> float:
        return median(pair.ours for pair in self.pairs)

    @property
    def is_met(self) -> bool:
        """Tells whether the target is reached, on the sizes that were measured."""
        return self.ours <= self.target if self.target_is_ours else self.ratio >= self.target

    @property
    def line(self) -> str:
        """The line that a program can read."""
        fields = {
            "ratio": f"{self.ratio:.2f}",
            "target": f"{self.target:g}" if self.target_is_ours else f"{self.target:.2f}",
            "ours": number(self.ours),
            "limit": number(median(pair.limit for pair in self.pairs)),
            "unit": self.unit,
            "runs": str(len(self.pairs)),
            "met": "yes" if self.is_met else "no",
            **{name: number(value) for name, value in self.details.items()},
        }
        return " ".join([self.name, *(f"{name}={value}" for name, value in fields.items())])


async def alternate(
    name: str, *, runs: int, unit: str, ours: Measure, limit: Measure
) -> list[Pair]:
    """Measures the project, the limit, the project, the limit … and prints a row for each pair."""
    return [
        await measure_pair(name, run=run, unit=unit, ours=ours, limit=limit)
        for run in range(1, runs + 1)
    ]


async def measure_pair(name: str, *, run: int, unit: str, ours: Measure, limit: Measure) -> Pair:
    """Measures the project and then the limit, and prints a row."""
    pair = Pair(ours=await ours(), limit=await limit())
    print(
        f"  {name:<24} run {run}   ours {number(pair.ours):>7}   "
        f"limit {number(pair.limit):>7}   {unit}",
        flush=True,
    )
    return pair


def tell(name: str, **figures: float | str) -> None:
    """Prints a row that no target asks for."""
    shown = (f"{k} {v if isinstance(v, str) else number(v)}" for k, v in figures.items())
    print(f"  {name:<24} {'   '.join(shown)}", flush=True)


def number(value: float) -> str:
    """Returns a figure with about three digits that mean something."""
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"
