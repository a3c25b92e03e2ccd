"""The command about the load to come: preferences forecast."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Annotated

import typer
from batchwork.v1.preference_service_pb2 import LoadBucket

from batchwork_client.cli.output import note, write_message, write_table
from batchwork_client.cli.parameters import AsJson
from batchwork_client.cli.session import command, session_of

_HOUR = timedelta(hours=1)
_WIDTH = 40


def add_to(group: typer.Typer) -> None:
    """Adds the command to those about preferences."""
    command(group, "forecast")(forecast)


async def forecast(
    context: typer.Context,
    feature: Annotated[str, typer.Option(help="Only of this feature.")] = "",
    since: Annotated[
        datetime | None, typer.Option(help="From when on; local time if it names no zone.")
    ] = None,
    hours: Annotated[int, typer.Option(min=1, max=192, help="How far to look.")] = 24,
    as_json: AsJson = False,
) -> None:
    """Shows how many users are due in each hour to come, and in its busiest minute."""
    session = session_of(context)
    start = since.astimezone() if since else datetime.now(UTC)
    async with session.connect() as batchwork:
        found = await batchwork.preferences.forecast_load(
            feature_type=feature,
            start_time=start,
            end_time=start + hours * _HOUR,
            tenant_id=session.tenant_id,
        )
    if as_json:
        write_message(found)
        return
    write_table(("HOUR (UTC)", "USERS", "RUNS", "BUSIEST MINUTE", ""), _rows(found.buckets))
    note(f"{found.user_count} users in {found.run_count} runs")


def _rows(minutes: Iterable[LoadBucket]) -> list[tuple[str, ...]]:
    by_hour: dict[datetime, list[LoadBucket]] = {}
    for minute in minutes:
        hour = minute.start_time.ToDatetime().replace(minute=0)
        by_hour.setdefault(hour, []).append(minute)
    users = {hour: sum(each.user_count for each in found) for hour, found in by_hour.items()}
    most = max(users.values(), default=0)
    rows: list[tuple[str, ...]] = []
    for hour, found in by_hour.items():
        busiest = max(found, key=lambda minute: minute.user_count)
        rows.append(
            (
                f"{hour:%Y-%m-%d %H:%M}",
                str(users[hour]),
                str(sum(each.run_count for each in found)),
                f"{busiest.start_time.ToDatetime():%H:%M} ({busiest.user_count})",
                "#" * max(1, round(users[hour] / most * _WIDTH)),
            )
        )
    return rows
