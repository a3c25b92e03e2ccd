"""How many items of a batch may fail before it is stopped."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

DEFAULT_MIN_SAMPLE = 20
MAX_MIN_SAMPLE = 1_000_000


class FailureAction(StrEnum):
    """What happens to a batch in which too many items fail."""

    PAUSE = "PAUSE"  # until somebody resumes or cancels it
    FAIL = "FAIL"  # it ends; what was not attempted is cancelled
    CONTINUE = "CONTINUE"  # it goes on, and says so


@dataclass(frozen=True, slots=True, kw_only=True)
class FailurePolicy:
    """Bounds the failures of a batch. Only items that failed for good count.

    Attributes:
        max_failed: How many items may fail; None means no bound on the number.
        max_failed_ratio: The share of the items tried that may fail, 0 to 1; None means no bound.
        min_sample: How many items must have been tried before the ratio counts.
    """

    max_failed: int | None = None
    max_failed_ratio: float | None = None
    min_sample: int = DEFAULT_MIN_SAMPLE
    action: FailureAction = FailureAction.PAUSE

    def is_broken(self, *, failed: int, tried: int) -> bool:
        """Tells whether too many items failed.

        Args:
            failed: Items that failed for good since the batch began or was resumed.
            tried: Items that failed or succeeded since then.
        """
        if self.max_failed is not None and failed > self.max_failed:
            return True
        if self.max_failed_ratio is None or tried < max(1, self.min_sample):
            return False
        return failed > self.max_failed_ratio * tried
