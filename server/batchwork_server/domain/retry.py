"""When a failed item is tried again, or that it never is."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryPolicy:
    """Exponential backoff with full jitter.

    The delay before retry ``n`` (from 1) is drawn evenly from 0 to
    ``min(max_backoff, initial_backoff * multiplier ** (n - 1))``. Source: Marc Brooker,
    "Exponential Backoff And Jitter", AWS Architecture Blog, 2015.

    Attributes:
        retry_limit: Retries after the first attempt; 3 means four attempts at most.
    """

    retry_limit: int = 3
    initial_backoff: timedelta = timedelta(seconds=1)
    max_backoff: timedelta = timedelta(minutes=5)
    multiplier: float = 2.0

    def allows(self, *, attempts: int) -> bool:
        """Tells whether another attempt may follow after ``attempts`` that ended."""
        return attempts <= self.retry_limit

    def backoff(self, *, attempts: int, draw: float) -> timedelta:
        """Returns the delay before the next attempt.

        Args:
            attempts: Attempts that ended, at least 1.
            draw: The jitter's random number, 0 to 1. One draw serves all items of a chunk
                that failed together, so that they come back together.
        """
        exponent = min(attempts - 1, 63)
        ceiling = self.initial_backoff.total_seconds() * self.multiplier**exponent
        return timedelta(seconds=draw * min(ceiling, self.max_backoff.total_seconds()))
