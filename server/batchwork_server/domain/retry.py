"""When a failed item is tried again, or that it never is."""

from __future__ import annotations

import re
from dataclasses import dataclass, fields, replace
from datetime import timedelta

LONGEST_INITIAL_BACKOFF = timedelta(hours=1)
LONGEST_BACKOFF = timedelta(days=1)
LEAST_MULTIPLIER = 1.0
LARGEST_MULTIPLIER = 10.0
MAX_NON_RETRYABLE_REASONS = 32
LONGEST_REASON = 63

REASON_PATTERN = re.compile(rf"[A-Z0-9][A-Z0-9_]{{0,{LONGEST_REASON - 1}}}")
"""What the reasons of failures look like."""

_LARGEST_EXPONENT = 300  # even ten to its power is a number


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryPolicy:
    """Exponential backoff with full jitter.

    The delay before retry ``n`` (from 1) is drawn evenly from 0 to
    ``min(max_backoff, initial_backoff * multiplier ** (n - 1))``. Source: Marc Brooker,
    "Exponential Backoff And Jitter", AWS Architecture Blog, 2015.

    Attributes:
        retry_limit: Retries after the first attempt; 3 means four attempts at most.
        non_retryable_reasons: Reasons of failures that no retry helps, whatever a processor says.
    """

    retry_limit: int = 3
    initial_backoff: timedelta = timedelta(seconds=1)
    max_backoff: timedelta = timedelta(minutes=5)
    multiplier: float = 2.0
    non_retryable_reasons: frozenset[str] = frozenset()

    def allows(self, *, attempts: int, reason: str) -> bool:
        """Tells whether another attempt may follow.

        Args:
            attempts: How many ended, the last of them for ``reason``.
        """
        return attempts <= self.retry_limit and reason not in self.non_retryable_reasons

    def backoff(self, *, retry: int, draw: float) -> timedelta:
        """Returns the delay before a retry.

        Args:
            retry: Which one, from 1.
            draw: The jitter's random number, 0 to 1. One draw serves all items of a chunk
                that failed together, so that they come back together.
        """
        exponent = min(retry - 1, _LARGEST_EXPONENT)
        ceiling = self.initial_backoff.total_seconds() * self.multiplier**exponent
        return timedelta(seconds=draw * min(ceiling, self.max_backoff.total_seconds()))


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestedRetry:
    """The parts of a retry policy that a request or a job names; None leaves one open."""

    initial_backoff: timedelta | None = None
    max_backoff: timedelta | None = None
    multiplier: float | None = None
    non_retryable_reasons: frozenset[str] | None = None

    def over(self, policy: RetryPolicy) -> RetryPolicy:
        """Returns a policy with these parts in the place of its own."""
        named = {field.name: getattr(self, field.name) for field in fields(self)}
        return replace(policy, **{name: part for name, part in named.items() if part is not None})


FIRST_PROVIDER_PAUSE = timedelta(seconds=30)
LONGEST_PROVIDER_PAUSE = timedelta(minutes=15)


def provider_pause(pauses_before: int) -> timedelta:
    """Returns how long a batch pauses whose provider is away and named no delay.

    Args:
        pauses_before: How often it was away in a row, without an item done in between.
    """
    doubled: int = 2 ** min(pauses_before, 16)
    return min(FIRST_PROVIDER_PAUSE * doubled, LONGEST_PROVIDER_PAUSE)
