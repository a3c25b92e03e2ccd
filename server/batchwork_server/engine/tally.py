"""What the worker knows of the failures of a batch before the database does."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from batchwork_server.domain.batch import Batch
from batchwork_server.domain.failure import FailureAction
from batchwork_server.domain.item import ItemState, Outcome

_TRIED = frozenset({ItemState.SUCCEEDED, ItemState.FAILED})


@dataclass(slots=True)
class Tally:
    """The outcomes of a batch that are not recorded yet.

    Successes are most, and are not counted one by one: they are what is left of the attempts.

    Attributes:
        recorded: Outcomes that are recorded by now, or lost.
        failed: Of those that are neither: items that failed for good.
        untried: The same of items that are to be tried again, or were skipped.
    """

    recorded: int = 0
    failed: int = 0
    untried: int = 0

    def add(self, outcome: Outcome) -> None:
        """Counts an outcome that is no success."""
        self._count(outcome, 1)

    def exchange(self, outcome: Outcome, other: Outcome) -> None:
        """Counts another outcome in the place of one."""
        self._count(outcome, -1)
        self._count(other, 1)

    def take_off(self, outcomes: Sequence[Outcome]) -> None:
        """Counts outcomes no more: the database knows them, or nobody ever will."""
        self.recorded += len(outcomes)
        if self.failed or self.untried:
            for outcome in outcomes:
                self._count(outcome, -1)

    def _count(self, outcome: Outcome, number: int) -> None:
        if outcome.state is ItemState.FAILED:
            self.failed += number
        elif outcome.state not in _TRIED:
            self.untried += number

    def breaks_failure_policy(self, batch: Batch, *, attempts: int) -> bool:
        """Tells whether the next commit will find that too many items of a batch failed.

        About what is recorded already, the database has decided.

        Args:
            attempts: How many were made here, recorded or not.
        """
        policy = batch.request.options.failure_policy
        if not self.failed or policy is None or policy.action is FailureAction.CONTINUE:
            return False
        tried = attempts - self.recorded - self.untried
        return batch.breaks_failure_policy(more_failed=self.failed, more_tried=tried)
