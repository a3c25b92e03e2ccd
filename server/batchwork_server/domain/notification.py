"""Notifications: who is told when a batch ends, of what, and in which words."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any

from batchwork_server.domain.batch import FINAL_STATES, Batch, BatchState
from batchwork_server.domain.durations import render_duration
from batchwork_server.domain.retry import RetryPolicy

MAX_TARGETS = 10
"""How many targets a batch or a job may name."""

LONGEST_TARGET_NAME = 63

TARGET_NAME = re.compile(rf"[a-z0-9][a-z0-9_-]{{0,{LONGEST_TARGET_NAME - 1}}}")
"""What the name of a target looks like."""

DELIVERIES_PAGE = 1000
"""The most references in one message."""

POLICY = RetryPolicy(
    retry_limit=9,
    initial_backoff=timedelta(minutes=1),
    max_backoff=timedelta(hours=6),
    multiplier=3.0,
)
"""How often a message is sent, and when: ten times within a day, then never again."""


class NotificationKind(StrEnum):
    """What a notification tells of."""

    END = "END"  # the batch is over
    DELIVERIES = "DELIVERIES"  # the references that users were given, page by page


class NotificationState(StrEnum):
    """Where a notification stands."""

    WAITING = "WAITING"  # the batch is not over
    PENDING = "PENDING"  # to be sent now, or again later
    SENT = "SENT"  # final: the target took it
    FAILED = "FAILED"  # final: the target refused it, or it was tried often enough
    SKIPPED = "SKIPPED"  # final: nothing of it concerns the target


@dataclass(frozen=True, slots=True, kw_only=True)
class NotificationTarget:
    """Somebody who can be told, by the name that requests use.

    Attributes:
        states: The ends of batches that it wants to hear of.
        deliveries: Whether it wants to hear of the references that users were given.
        is_default: Whether it is meant by a request that names nobody.
        tenants: Whose batches may name it; empty means everybody's.
    """

    name: str
    states: frozenset[BatchState] = FINAL_STATES
    deliveries: bool = False
    is_default: bool = False
    tenants: frozenset[str] = frozenset()

    @property
    def kinds(self) -> tuple[NotificationKind, ...]:
        """What is kept ready for it from the creation of a batch on."""
        end = (NotificationKind.END,) if self.states else ()
        return (*end, NotificationKind.DELIVERIES) if self.deliveries else end

    def is_open_to(self, tenant_id: str) -> bool:
        return not self.tenants or tenant_id in self.tenants


class NotificationTargets:
    """Every target that the operator allows."""

    def __init__(self, targets: Iterable[NotificationTarget] = ()) -> None:
        self._targets = {target.name: target for target in targets}

    def get(self, name: str, *, tenant_id: str) -> NotificationTarget | None:
        """Returns a target; none when the tenant has none of that name."""
        target = self._targets.get(name)
        return target if target is not None and target.is_open_to(tenant_id) else None

    def names(self, *, tenant_id: str) -> list[str]:
        """Returns the names that batches of a tenant may use, sorted."""
        return sorted(t.name for t in self._targets.values() if t.is_open_to(tenant_id))

    def defaults(self, *, tenant_id: str) -> tuple[str, ...]:
        """Returns who is told of a batch of a tenant that names nobody."""
        return tuple(
            name for name in self.names(tenant_id=tenant_id) if self._targets[name].is_default
        )


NO_TARGETS = NotificationTargets()
"""What a server has whose operator names nobody."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Notification:
    """One thing that one target is to be told of one attempt at a batch.

    Attributes:
        key: The store's number for it; never leaves the server.
        message_id: The same each time it is sent.
        attempts: How often it was sent; of deliveries, the page that is under way.
        payload: What is told of the batch, as it was when it ended; empty while it is not over.
        page: Which page of deliveries is under way, from 0.
        sent_after: The user with whom the page before ended.
        next_attempt_time: When it is sent, if it is PENDING.
        error: Why it was not taken, the last time; nothing secret.
        end_time: When it got into a final state.
    """

    key: int
    batch_key: int
    batch_id: str
    tenant_id: str
    attempt_number: int
    target: str
    kind: NotificationKind
    state: NotificationState
    message_id: str
    create_time: datetime
    update_time: datetime
    attempts: int = 0
    payload: Mapping[str, Any] = field(default_factory=dict)
    page: int = 0
    sent_after: str = ""
    next_attempt_time: datetime | None = None
    error: str = ""
    end_time: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """What is sent to a target.

    Attributes:
        message_id: The same each time it is sent, so that the receiver can tell a repeated one.
        type: Such as ``batch.completed``.
        time: When it happened.
        data: For programs; JSON values.
        title: For people, one line.
        text: For people, plain text.
    """

    message_id: str
    type: str
    time: datetime
    data: Mapping[str, Any]
    title: str
    text: str


_TYPES: Mapping[BatchState, str] = {
    BatchState.SUCCEEDED: "batch.completed",
    BatchState.PARTIALLY_SUCCEEDED: "batch.completed",
    BatchState.FAILED: "batch.failed",
    BatchState.CANCELLED: "batch.cancelled",
    BatchState.EXPIRED: "batch.expired",
}

DELIVERED_TYPE = "reference.delivered"

_COUNTS = ("total", "succeeded", "failed", "skipped", "cancelled", "expired", "retries")


def payload_of(batch: Batch) -> dict[str, Any]:
    """Returns what is told of a batch that is over: never of its items, never of its links."""
    request, end = batch.request, batch.end_time or batch.update_time
    return {
        "batch_id": batch.batch_id,
        "tenant_id": batch.tenant_id,
        "state": str(batch.state),
        "state_reason": batch.state_reason,
        "attempt_number": batch.attempt_number,
        "display_name": request.display_name,
        "job_id": request.job_id,
        "operation": request.operation,
        "purpose_id": request.purpose_id,
        "labels": dict(request.labels),
        "counts": {name: getattr(batch.counts, name) for name in _COUNTS},
        "create_time": _rendered(batch.create_time),
        "start_time": _rendered(batch.start_time),
        "end_time": _rendered(end),
        "duration_seconds": (end - (batch.start_time or end)).total_seconds(),
    }


def _rendered(time: datetime | None) -> str | None:
    return None if time is None else time.isoformat().replace("+00:00", "Z")


def end_message(notification: Notification) -> Message:
    """Returns the message that says how a batch ended."""
    payload = notification.payload
    state = BatchState(payload["state"])
    return Message(
        message_id=notification.message_id,
        type=_TYPES[state],
        time=datetime.fromisoformat(payload["end_time"]),
        data=payload,
        title=_title(payload, state),
        text="\n".join(_lines(payload)) + "\n",
    )


def _title(payload: Mapping[str, Any], state: BatchState) -> str:
    name = payload["display_name"] or payload["job_id"] or payload["batch_id"]
    return f"Batch {name}: {_in_words(state)}"


def _in_words(state: str) -> str:
    return state.lower().replace("_", " ")


def _lines(payload: Mapping[str, Any]) -> Iterable[str]:
    counts = payload["counts"]
    told = (f"{counts[name]} {name}" for name in _COUNTS[1:] if counts[name])
    yield f"Batch: {payload['batch_id']}"
    if payload["job_id"]:
        yield f"Job: {payload['job_id']}"
    reason = f" ({payload['state_reason']})" if payload["state_reason"] else ""
    yield f"State: {_in_words(payload['state'])}{reason}"
    yield f"Items: {', '.join((str(counts['total']), *told))}"
    yield f"Duration: {render_duration(timedelta(seconds=payload['duration_seconds']))}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """What one user was given, as a message tells it."""

    user_id: str
    state: str
    reason: str


def delivery_message(notification: Notification, deliveries: Sequence[Delivery]) -> Message:
    """Returns one page of what users were given of a batch; each page has an id of its own."""
    payload = notification.payload
    named = ("batch_id", "tenant_id", "job_id", "purpose_id", "display_name", "attempt_number")
    references = [
        {"user_id": each.user_id, "state": each.state, "reason": each.reason} for each in deliveries
    ]
    return Message(
        message_id=f"{notification.message_id}-{notification.page + 1}",
        type=DELIVERED_TYPE,
        time=datetime.fromisoformat(payload["end_time"]),
        data={
            **{name: payload[name] for name in named},
            "page": notification.page + 1,
            "references": references,
        },
        title=f"Batch {payload['batch_id']}: references delivered",
        text=f"{len(references)} users were given the results of {payload['batch_id']}.\n",
    )
