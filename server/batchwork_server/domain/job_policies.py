"""The policies of a job as its file has them: what is tried again, may fail, is made up for."""

from __future__ import annotations

from dataclasses import fields
from datetime import timedelta
from enum import StrEnum
from typing import Any

from batchwork_server.domain.failure import (
    DEFAULT_MIN_SAMPLE,
    MAX_MIN_SAMPLE,
    FailureAction,
    FailurePolicy,
)
from batchwork_server.domain.json_object import MAX_INTEGER, FieldReader, seconds_of
from batchwork_server.domain.retry import (
    LARGEST_MULTIPLIER,
    LEAST_MULTIPLIER,
    LONGEST_BACKOFF,
    LONGEST_INITIAL_BACKOFF,
    LONGEST_REASON,
    MAX_NON_RETRYABLE_REASONS,
    REASON_PATTERN,
    RequestedRetry,
)
from batchwork_server.errors import Violation

SHORTEST_CATCH_UP_WINDOW = timedelta(seconds=1)
LONGEST_CATCH_UP_WINDOW = timedelta(days=366)

_ACTIONS = {action.lower(): action for action in FailureAction}


class CatchUp(StrEnum):
    """What becomes of due times that were missed, such as while no server ran."""

    LATEST = "LATEST"  # one run for the newest of them, unless the next one is due already
    NONE = "NONE"
    ALL = "ALL"  # one run for each of the newest hundred


class Overlap(StrEnum):
    """What becomes of a due time while another run of the job goes on."""

    SKIP = "SKIP"
    ALLOW = "ALLOW"  # it runs beside the other one
    QUEUE_ONE = "QUEUE_ONE"  # it waits for the other one, but one at most does
    CANCEL_PREVIOUS = "CANCEL_PREVIOUS"  # the other one is cancelled


def parse_retry_policy(value: Any, *, path: str) -> tuple[RequestedRetry | None, list[Violation]]:
    """Reads a retry policy; backoffs are numbers of seconds, and everything is optional.

    Returns:
        The policy, or none and every violation.
    """
    violations: list[Violation] = []
    reader = FieldReader(value, path=path, violations=violations)
    if violations:
        return None, violations
    policy = _read_retry_policy(reader)
    reader.refuse_unknown("a retry policy")
    return (None, violations) if violations else (policy, [])


def _read_retry_policy(reader: FieldReader) -> RequestedRetry:
    reasons = reader.lines(
        "non_retryable_reasons",
        most=MAX_NON_RETRYABLE_REASONS,
        longest=LONGEST_REASON,
        form=REASON_PATTERN,
    )
    return RequestedRetry(
        initial_backoff=reader.duration(
            "initial_backoff", least=timedelta(0), most=LONGEST_INITIAL_BACKOFF
        ),
        max_backoff=reader.duration("max_backoff", least=timedelta(0), most=LONGEST_BACKOFF),
        multiplier=reader.number("multiplier", least=LEAST_MULTIPLIER, most=LARGEST_MULTIPLIER),
        non_retryable_reasons=frozenset(reasons) or None,
    )


def render_retry_policy(policy: RequestedRetry) -> dict[str, Any]:
    """Writes a retry policy so that ``parse_retry_policy`` reads an equal one."""
    parts = {field.name: getattr(policy, field.name) for field in fields(policy)}
    return {name: _rendered_part(part) for name, part in parts.items() if part is not None}


def _rendered_part(part: timedelta | float | frozenset[str]) -> Any:
    match part:
        case timedelta():
            return seconds_of(part)
        case frozenset():
            return sorted(part)
        case _:
            return part


def parse_failure_policy(value: Any, *, path: str) -> tuple[FailurePolicy | None, list[Violation]]:
    """Reads a failure policy, in which everything is optional.

    Returns:
        The policy, or none and every violation.
    """
    violations: list[Violation] = []
    reader = FieldReader(value, path=path, violations=violations)
    if violations:
        return None, violations
    policy = FailurePolicy(
        max_failed=reader.whole("max_failed", least=0, most=MAX_INTEGER),
        max_failed_ratio=reader.number("max_failed_ratio", least=0, most=1),
        min_sample=reader.whole("min_sample", least=1, most=MAX_MIN_SAMPLE) or DEFAULT_MIN_SAMPLE,
        action=reader.choice("action", _ACTIONS) or FailureAction.PAUSE,
    )
    reader.refuse_unknown("a failure policy")
    return (None, violations) if violations else (policy, [])


def render_failure_policy(policy: FailurePolicy) -> dict[str, Any]:
    """Writes a failure policy so that ``parse_failure_policy`` reads an equal one."""
    document: dict[str, Any] = {}
    if policy.max_failed is not None:
        document["max_failed"] = policy.max_failed
    if policy.max_failed_ratio is not None:
        document["max_failed_ratio"] = policy.max_failed_ratio
    return document | {"min_sample": policy.min_sample, "action": policy.action.lower()}
