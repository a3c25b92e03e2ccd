"""What the load has asked for, and what has to be there in the end."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from batchwork.v1.batch_pb2 import Batch, BatchCounts, BatchState

from bench.fates import Fate

_FINAL = frozenset(
    {
        BatchState.BATCH_STATE_SUCCEEDED,
        BatchState.BATCH_STATE_PARTIALLY_SUCCEEDED,
        BatchState.BATCH_STATE_FAILED,
        BatchState.BATCH_STATE_CANCELLED,
    }
)
_SHOWN = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Expected:
    """How the items of one batch have to end.

    Attributes:
        may_be_cancelled: Then only the sum is known.
    """

    fates: Counter[Fate]
    may_be_cancelled: bool = False

    def problem(self, batch: Batch) -> str | None:
        """Returns what is wrong with a batch that should be over, if anything is."""
        counts = batch.counts
        if batch.state not in _FINAL:
            return f"is not over: {BatchState.Name(batch.state)}"
        if counts.total != self.fates.total() or _accounted_for(counts) != counts.total:
            return f"does not account for {self.fates.total()} items: {_told(counts)}"
        if not self.may_be_cancelled and _ends(counts) != self._ends:
            return f"ended otherwise than its items were made to: {_told(counts)}"
        return None

    @property
    def _ends(self) -> tuple[int, int, int]:
        well = sum(self.fates[fate] for fate in (Fate.SUCCEED, Fate.WAIT, Fate.RETRY))
        return well, self.fates[Fate.FAIL], self.fates[Fate.SKIP]


class Ledger:
    """Every batch of a soak, and what went wrong."""

    def __init__(self) -> None:
        self._expected: dict[str, Expected] = {}
        self._deleted: set[str] = set()
        self._problems: list[str] = []
        self.batches_done = 0

    @property
    def problems(self) -> Sequence[str]:
        return self._problems

    @property
    def batches(self) -> int:
        """How many there were, deleted ones included."""
        return len(self._expected)

    @property
    def items(self) -> int:
        return sum(expected.fates.total() for expected in self._expected.values())

    def created(self, batch_id: str, expected: Expected) -> None:
        self._expected[batch_id] = expected

    def done(self, batch: Batch) -> None:
        """Checks a batch of which its creator heard that it is over."""
        self.batches_done += 1
        self._check(batch)

    def deleted(self, batch_id: str) -> None:
        self._deleted.add(batch_id)

    def complain(self, problem: str) -> None:
        """Notes what went wrong; what goes wrong all the time is told a few times only."""
        self._problems.append(problem)
        if len(self._problems) <= _SHOWN:
            print(f"  problem: {problem}", flush=True)

    def compare(self, stored: Sequence[Batch]) -> None:
        """Checks what the server has in the end against what was asked for."""
        found = {batch.batch_id for batch in stored}
        for batch in stored:
            self._check(batch)
        for batch_id in self._expected.keys() - self._deleted - found:
            self.complain(f"{batch_id} is not listed.")
        for batch_id in self._deleted & found:
            self.complain(f"{batch_id} was deleted and is listed.")
        for batch_id in found - self._expected.keys():
            self.complain(f"{batch_id} is listed, and nobody created it.")

    def _check(self, batch: Batch) -> None:
        expected = self._expected.get(batch.batch_id)
        problem = expected and expected.problem(batch)
        if problem:
            self.complain(f"{batch.batch_id} {problem}")


def _accounted_for(counts: BatchCounts) -> int:
    return counts.succeeded + counts.failed + counts.skipped + counts.cancelled


def _ends(counts: BatchCounts) -> tuple[int, int, int]:
    return counts.succeeded, counts.failed, counts.skipped


def _told(counts: BatchCounts) -> str:
    return " ".join(str(counts).split())
