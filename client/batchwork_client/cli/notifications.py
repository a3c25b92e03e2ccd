"""The command about who was told of batches: notifications."""

from __future__ import annotations

from typing import Annotated

import typer
from batchwork.v1.batch_service_pb2 import Notification, NotificationKind, NotificationState

from batchwork_client.cli.inputs import enum_values_from, short_name
from batchwork_client.cli.output import time_in_words, write_message, write_table
from batchwork_client.cli.parameters import AsJson, Limit
from batchwork_client.cli.session import command, session_of


def add_to(app: typer.Typer) -> None:
    """Adds the command to the application."""
    command(app, "notifications")(list_notifications)


async def list_notifications(
    context: typer.Context,
    batch: Annotated[str, typer.Argument(help="Only of this batch.")] = "",
    states: Annotated[
        list[str] | None,
        typer.Option(
            "--state", help="Only waiting, pending, sent, failed or skipped ones; repeatable."
        ),
    ] = None,
    limit: Limit = 100,
    as_json: AsJson = False,
) -> None:
    """Lists who is to be told of batches and who was, newest first."""
    session = session_of(context)
    wanted = enum_values_from("--state", NotificationState.DESCRIPTOR, states or ())
    async with session.connect() as batchwork:
        found = batchwork.batches.list_notifications(
            batch_id=batch, states=wanted, tenant_id=session.tenant_id, limit=limit
        )
        if as_json:
            async for notification in found:
                write_message(notification)
            return
        write_table(
            ("BATCH", "TARGET", "KIND", "STATE", "ATTEMPTS", "NEXT ATTEMPT", "ERROR"),
            [_row(notification) async for notification in found],
        )


def _row(notification: Notification) -> tuple[str, ...]:
    return (
        notification.batch_id,
        notification.target,
        short_name(NotificationKind.DESCRIPTOR, notification.kind),
        short_name(NotificationState.DESCRIPTOR, notification.state),
        str(notification.attempts),
        time_in_words(notification, "next_attempt_time"),
        notification.error,
    )
