"""Schedules between the contract and the domain."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, assert_never

from batchwork.v1 import schedule_pb2 as messages

from batchwork_server.domain.schedule import (
    Biweekly,
    Daily,
    Hourly,
    Monthly,
    Schedule,
    Weekday,
    Weekly,
    parse_schedule,
    render_schedule,
)
from batchwork_server.rpc.checks import Checks

_DAY_NAMES = {day.value: day.name.capitalize() for day in Weekday}


def schedule_from(path: str, schedule: messages.Schedule, *, checks: Checks) -> Schedule | None:
    """Reads a schedule by the rules of job files, so that there is one set of rules."""
    cadence = schedule.WhichOneof("cadence")
    if cadence is None:
        checks.refuse(path, "Set one of hourly, daily, weekly, biweekly and monthly.")
        return None
    cadence_path = f"{path}.{cadence}"
    document = {"frequency": cadence, **_fields_of(getattr(schedule, cadence))}
    if schedule.time_zone:
        document["time_zone"] = schedule.time_zone
    parsed, violations = parse_schedule(document, path=cadence_path)
    # The zone stands beside the cadence, where a job file has it among the cadence's fields.
    zone_path = f"{cadence_path}.time_zone"
    checks.add(
        replace(violation, path=f"{path}.time_zone") if violation.path == zone_path else violation
        for violation in violations
    )
    return parsed


def _fields_of(cadence: Any) -> dict[str, Any]:
    """Returns the fields of a cadence as a job file writes them; what is unset is absent."""
    fields = {field.name: value for field, value in cadence.ListFields()}
    if "days" in fields:
        fields["days"] = [_DAY_NAMES.get(day, day) for day in fields["days"]]
    return fields


def schedule_to(schedule: Schedule) -> messages.Schedule:
    zone, document = schedule.time_zone or "", render_schedule(schedule)
    match schedule.cadence:
        case Hourly(minute=minute):
            return messages.Schedule(time_zone=zone, hourly=messages.HourlyCadence(minute=minute))
        case Daily():
            return messages.Schedule(time_zone=zone, daily=messages.DailyCadence(at=document["at"]))
        case Weekly(days=days):
            weekly = messages.WeeklyCadence(days=_days_to(days), at=document["at"])
            return messages.Schedule(time_zone=zone, weekly=weekly)
        case Biweekly(days=days):
            biweekly = messages.BiweeklyCadence(
                days=_days_to(days),
                at=document["at"],
                anchor_date=document.get("anchor_date", ""),
            )
            return messages.Schedule(time_zone=zone, biweekly=biweekly)
        case Monthly(day_of_month=day):
            monthly = messages.MonthlyCadence(day_of_month=day, at=document["at"])
            return messages.Schedule(time_zone=zone, monthly=monthly)
        case _:
            assert_never(schedule.cadence)


def _days_to(days: tuple[Weekday, ...]) -> list[messages.Weekday.ValueType]:
    return [messages.Weekday.Value(f"WEEKDAY_{day.name}") for day in days]
