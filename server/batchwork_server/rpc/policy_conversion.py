"""Retry and failure policies between the contract and the domain; batches and jobs have both."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Literal

from batchwork.v1 import policy_pb2 as messages

from batchwork_server.domain.failure import (
    DEFAULT_MIN_SAMPLE,
    MAX_MIN_SAMPLE,
    FailureAction,
    FailurePolicy,
)
from batchwork_server.domain.json_object import MAX_INTEGER, quoted
from batchwork_server.domain.retry import (
    LARGEST_MULTIPLIER,
    LEAST_MULTIPLIER,
    LONGEST_BACKOFF,
    LONGEST_INITIAL_BACKOFF,
    MAX_NON_RETRYABLE_REASONS,
    REASON_PATTERN,
    RequestedRetry,
    RetryPolicy,
)
from batchwork_server.domain.user import UsersAway
from batchwork_server.rpc.checks import Checks
from batchwork_server.rpc.values import duration_to

_ACTION_TO = {
    action: messages.FailureAction.Value(f"FAILURE_ACTION_{action.name}")
    for action in FailureAction
}
_ACTION_FROM: dict[int, FailureAction] = {number: action for action, number in _ACTION_TO.items()}
USERS_AWAY_TO = {away: messages.UsersAway.Value(f"USERS_AWAY_{away.name}") for away in UsersAway}
USERS_AWAY_FROM: dict[int, UsersAway] = {number: away for away, number in USERS_AWAY_TO.items()}


def retry_policy_from(path: str, policy: messages.RetryPolicy, *, checks: Checks) -> RequestedRetry:
    """Returns the parts that are set; of a message that is unset, none."""
    return RequestedRetry(
        initial_backoff=_backoff_from(
            path, policy, "initial_backoff", most=LONGEST_INITIAL_BACKOFF, checks=checks
        ),
        max_backoff=_backoff_from(path, policy, "max_backoff", most=LONGEST_BACKOFF, checks=checks),
        multiplier=checks.set_number(
            f"{path}.multiplier",
            policy.multiplier,
            least=LEAST_MULTIPLIER,
            most=LARGEST_MULTIPLIER,
        ),
        non_retryable_reasons=_reasons_from(
            f"{path}.non_retryable_reasons", policy.non_retryable_reasons, checks=checks
        ),
    )


def _backoff_from(
    path: str,
    policy: messages.RetryPolicy,
    name: Literal["initial_backoff", "max_backoff"],
    *,
    most: timedelta,
    checks: Checks,
) -> timedelta | None:
    if not policy.HasField(name):
        return None
    return checks.duration(f"{path}.{name}", getattr(policy, name), least=timedelta(0), most=most)


def _reasons_from(path: str, reasons: Sequence[str], *, checks: Checks) -> frozenset[str] | None:
    checks.count(path, reasons, most=MAX_NON_RETRYABLE_REASONS)
    for index, reason in enumerate(reasons):
        if not REASON_PATTERN.fullmatch(reason):
            message = f"{quoted(reason)} is no code; codes look like {REASON_PATTERN.pattern}."
            checks.refuse(f"{path}[{index}]", message)
    return frozenset(reasons) or None


def retry_policy_to(policy: RetryPolicy | RequestedRetry) -> messages.RetryPolicy:
    return messages.RetryPolicy(
        initial_backoff=duration_to(policy.initial_backoff),
        max_backoff=duration_to(policy.max_backoff),
        multiplier=policy.multiplier or 0,
        non_retryable_reasons=sorted(policy.non_retryable_reasons or ()),
    )


def failure_policy_from(
    path: str, policy: messages.FailurePolicy, *, checks: Checks
) -> FailurePolicy:
    max_failed = max_failed_ratio = None
    if policy.HasField("max_failed"):
        max_failed = checks.whole(
            f"{path}.max_failed", policy.max_failed, least=0, most=MAX_INTEGER
        )
    if policy.HasField("max_failed_ratio"):
        max_failed_ratio = checks.ratio(f"{path}.max_failed_ratio", policy.max_failed_ratio)
    min_sample = checks.set_whole(
        f"{path}.min_sample", policy.min_sample, least=1, most=MAX_MIN_SAMPLE
    )
    return FailurePolicy(
        max_failed=max_failed,
        max_failed_ratio=max_failed_ratio,
        min_sample=min_sample or DEFAULT_MIN_SAMPLE,
        action=checks.choice(f"{path}.action", policy.action, _ACTION_FROM) or FailureAction.PAUSE,
    )


def failure_policy_to(policy: FailurePolicy | None) -> messages.FailurePolicy | None:
    if policy is None:
        return None
    return messages.FailurePolicy(
        max_failed=policy.max_failed,
        max_failed_ratio=policy.max_failed_ratio,
        min_sample=policy.min_sample,
        action=_ACTION_TO[policy.action],
    )
