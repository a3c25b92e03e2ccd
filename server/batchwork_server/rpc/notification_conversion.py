"""Between the messages of notifications and those of the use cases."""

from __future__ import annotations

from batchwork.v1 import batch_service_pb2 as messages

from batchwork_server.domain.caller import Caller
from batchwork_server.domain.filters import NotificationFilter
from batchwork_server.domain.notification import Notification, NotificationKind, NotificationState
from batchwork_server.rpc.checks import Checks
from batchwork_server.rpc.values import set_timestamp

_STATE_TO = {
    state: messages.NotificationState.Value(f"NOTIFICATION_STATE_{state}")
    for state in NotificationState
}
_STATE_FROM: dict[int, NotificationState] = {number: state for state, number in _STATE_TO.items()}
_KIND_TO = {
    kind: messages.NotificationKind.Value(f"NOTIFICATION_KIND_{kind}") for kind in NotificationKind
}


def notification_filter_from(
    request: messages.ListNotificationsRequest, *, caller: Caller, checks: Checks
) -> NotificationFilter:
    return NotificationFilter(
        tenant_id=checks.scope(caller, request.tenant_id),
        batch_id=checks.optional_id("batch_id", request.batch_id),
        states=frozenset(checks.choices("states", request.states, _STATE_FROM)),
    )


def notification_to(notification: Notification) -> messages.Notification:
    message = messages.Notification(
        message_id=notification.message_id,
        batch_id=notification.batch_id,
        tenant_id=notification.tenant_id,
        attempt_number=notification.attempt_number,
        target=notification.target,
        kind=_KIND_TO[notification.kind],
        state=_STATE_TO[notification.state],
        attempts=notification.attempts,
        error=notification.error,
        pages_sent=notification.page,
    )
    set_timestamp(message.create_time, notification.create_time)
    if notification.next_attempt_time is not None:
        set_timestamp(message.next_attempt_time, notification.next_attempt_time)
    if notification.end_time is not None:
        set_timestamp(message.end_time, notification.end_time)
    return message
