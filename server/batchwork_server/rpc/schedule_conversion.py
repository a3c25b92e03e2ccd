"""Schedules between the contract and the domain."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, assert_never

from batchwork.v1 import schedule_pb2 as messages
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message

from batchwork_server.domain.schedule import (
    Biweekly,
    Cron,
    Daily,
    Hourly,
    MonthEnd,
    Monthly,
    OnFold,
    OnGap,
    Schedule,
    Weekday,
    Weekly,
    parse_schedule,
    render_schedule,
)
from batchwork_server.rpc.checks import Checks
from batchwork_server.rpc.values import duration_to

_DAY_NAMES = {day.value: day.name.capitalize() for day in Weekday}


# What is as it is by default stays unset, as it came.
_GAPS = {
    OnGap.SHIFT_FORWARD: messages.ON_GAP_UNSPECIFIED,
    OnGap.SKIP: messages.ON_GAP_SKIP,
}
_FOLDS = {
    OnFold.FIRST: messages.ON_FOLD_UNSPECIFIED,
    OnFold.SECOND: messages.ON_FOLD_SECOND,
    OnFold.BOTH: messages.ON_FOLD_BOTH,
}
_MONTH_ENDS = {
    MonthEnd.CLAMP: messages.MONTH_END_UNSPECIFIED,
    MonthEnd.SKIP: messages.MONTH_END_SKIP,
}
_OPTIONS = (
    "time_zone",
    "on_gap",
    "on_fold",
    "start_date",
    "end_date",
    "excluded_dates",
    "jitter",
)


def schedule_from(path: str, schedule: messages.Schedule, *, checks: Checks) -> Schedule | None:
    """Reads a schedule by the rules of job files, so that there is one set of rules."""
    cadence = schedule.WhichOneof("cadence")
    if cadence is None:
        checks.refuse(path, "Set one of hourly, daily, weekly, biweekly, monthly and cron.")
        return None
    cadence_path = f"{path}.{cadence}"
    options = {name: value for name, value in _fields_of(schedule).items() if name in _OPTIONS}
    document = {"frequency": cadence, **_fields_of(getattr(schedule, cadence)), **options}
    parsed, violations = parse_schedule(document, path=cadence_path)
    # The options stand beside the cadence, where a job file has them among the cadence's fields.
    moved = {f"{cadence_path}.{name}": f"{path}.{name}" for name in _OPTIONS}
    checks.add(
        replace(violation, path=moved.get(violation.path, violation.path))
        for violation in violations
    )
    return parsed


def _fields_of(message: Message) -> dict[str, Any]:
    """Returns the fields of a message as a job file writes them; what is unset is absent."""
    fields = {field.name: _written(field, value) for field, value in message.ListFields()}
    if "days" in fields:
        fields["days"] = [_DAY_NAMES.get(day, day) for day in fields["days"]]
    return fields


def _written(field: FieldDescriptor, value: Any) -> Any:
    if isinstance(value, Duration):
        return value.seconds + value.nanos / 1e9
    if field.enum_type is not None and isinstance(value, int):
        known = field.enum_type.values_by_number.get(value)
        return value if known is None else known.name.removeprefix(f"{field.name.upper()}_").lower()
    return value if isinstance(value, str | int | Message) else list(value)


def schedule_to(schedule: Schedule) -> messages.Schedule:
    message = messages.Schedule(
        time_zone=schedule.time_zone or "",
        on_gap=_GAPS[schedule.on_gap],
        on_fold=_FOLDS[schedule.on_fold],
        start_date="" if schedule.start_date is None else schedule.start_date.isoformat(),
        end_date="" if schedule.end_date is None else schedule.end_date.isoformat(),
        excluded_dates=[day.isoformat() for day in schedule.excluded_dates],
        jitter=duration_to(schedule.jitter or None),
    )
    _set_cadence(message, schedule)
    return message


def _set_cadence(message: messages.Schedule, schedule: Schedule) -> None:
    document = render_schedule(schedule)
    match schedule.cadence:
        case Hourly(minute=minute):
            message.hourly.CopyFrom(messages.HourlyCadence(minute=minute))
        case Daily():
            message.daily.CopyFrom(messages.DailyCadence(at=document["at"]))
        case Weekly(days=days):
            message.weekly.CopyFrom(messages.WeeklyCadence(days=_days_to(days), at=document["at"]))
        case Biweekly(days=days):
            message.biweekly.CopyFrom(
                messages.BiweeklyCadence(
                    days=_days_to(days),
                    at=document["at"],
                    anchor_date=document.get("anchor_date", ""),
                )
            )
        case Monthly(day_of_month=day, month_end=month_end):
            message.monthly.CopyFrom(
                messages.MonthlyCadence(
                    day_of_month=day,
                    at=document["at"],
                    month_end=_MONTH_ENDS[month_end],
                )
            )
        case Cron(expression=expression):
            message.cron.CopyFrom(messages.CronCadence(expression=expression))
        case _:
            assert_never(schedule.cadence)


def _days_to(days: tuple[Weekday, ...]) -> list[messages.Weekday.ValueType]:
    return [messages.Weekday.Value(f"WEEKDAY_{day.name}") for day in days]
