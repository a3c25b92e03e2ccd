"""What one user wishes for one feature."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from batchwork_server.domain.json_object import FieldReader, is_line, quoted, unsound
from batchwork_server.domain.schedule import (
    Biweekly,
    Schedule,
    ScheduleSpelling,
    Weekly,
    read_schedule,
)
from batchwork_server.domain.template_overrides import check_known_overrides
from batchwork_server.errors import Violation

MAX_OVERRIDES_BYTES = 64 * 1024
LONGEST_NAME = 128

_SPELLING = ScheduleSpelling(
    at="preferred_time", days="preferred_day", day_of_month="preferred_day"
)
_SCHEDULE_FIELDS = ("frequency", "time_zone", "timezone", *_SPELLING.names)


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """What is wished, without who wishes it.

    Attributes:
        schedule: Unset means the default of the job. A weekly or biweekly one names one day.
        template_overrides: JSON values; at most 64 KiB as JSON.
    """

    enabled: bool = True
    schedule: Schedule | None = None
    template_overrides: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Preference:
    """One user's wish for one feature, as it is stored.

    Attributes:
        revision: Counts the changes from 1.
        active: False while whoever keeps the user says that nothing is to be done for them.
        change_sequence: Of the change that made it so; the store gives it. 0 for one that was
            stored before that was noted.
    """

    tenant_id: str
    user_id: str
    feature_type: str
    enabled: bool
    schedule: Schedule | None
    template_overrides: Mapping[str, Any]
    revision: int
    create_time: datetime
    update_time: datetime
    active: bool = True
    change_sequence: int = field(default=0, compare=False)

    @property
    def etag(self) -> str:
        """Changes with every change of the preference, and never comes again, also once deleted."""
        return f"c{self.change_sequence}" if self.change_sequence else f"r{self.revision}"

    @property
    def wish(self) -> Wish:
        return Wish(
            enabled=self.enabled,
            schedule=self.schedule,
            template_overrides=self.template_overrides,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class DefaultPreference:
    """What a tenant wishes for those of its users who say nothing about a feature.

    Attributes:
        enabled: Counts for users without a preference of their own.
        revision: Counts the changes from 1.
    """

    tenant_id: str
    feature_type: str
    enabled: bool
    schedule: Schedule | None
    template_overrides: Mapping[str, Any]
    revision: int
    create_time: datetime
    update_time: datetime

    @property
    def etag(self) -> str:
        """Changes with every change of the default."""
        return f"r{self.revision}"


def check_key(user_id: str, feature_type: str, *, path: str) -> list[Violation]:
    """Returns what is wrong with the names that a preference is found by."""
    return [
        Violation(
            f"{path}.{name}",
            f"{quoted(value)} is not text of one line with 1 to {LONGEST_NAME} characters.",
        )
        for name, value in (("user_id", user_id), ("feature_type", feature_type))
        if not is_line(value, longest=LONGEST_NAME)
    ]


def check_wish(wish: Wish, *, path: str) -> list[Violation]:
    """Returns what is wrong with a wish, whatever it was made from."""
    return [
        *check_schedule(wish.schedule, path=f"{path}.schedule"),
        *_check_overrides(wish.template_overrides, path=f"{path}.template_overrides"),
        *check_known_overrides(wish.template_overrides, path=f"{path}.template_overrides"),
    ]


def parse_wish(value: Any, *, path: str) -> tuple[Wish | None, list[Violation]]:
    """Reads a wish as the documents have it.

    The fields are ``enabled``, ``template_overrides``, and those of a schedule: ``frequency``,
    ``preferred_time``, ``preferred_day`` (the name of a day, or the day of the month).

    Returns:
        The wish, or none and every violation.
    """
    violations: list[Violation] = []
    fields = FieldReader(value, path=path, violations=violations)
    if violations:
        return None, violations
    enabled = fields.flag("enabled")
    overrides = fields.mapping("template_overrides")
    schedule = _read_schedule(fields)
    fields.refuse_unknown("a preference")
    violations += check_schedule(schedule, path=fields.path_of("preferred_day"))
    violations += _check_overrides(overrides, path=fields.path_of("template_overrides"))
    if violations:
        return None, violations
    return Wish(enabled=enabled is not False, schedule=schedule, template_overrides=overrides), []


def _read_schedule(fields: FieldReader) -> Schedule | None:
    if fields.has(*_SCHEDULE_FIELDS):
        return read_schedule(fields, spelling=_SPELLING)
    fields.know(*_SCHEDULE_FIELDS)
    return None


def check_schedule(schedule: Schedule | None, *, path: str) -> list[Violation]:
    """Returns what is wrong with a schedule that is right for a job, as that of a preference."""
    if schedule is None or not isinstance(schedule.cadence, Weekly | Biweekly):
        return []
    if len(schedule.cadence.days) == 1:
        return []
    return [Violation(path, "A preference names exactly one day of the week.")]


def _check_overrides(overrides: Mapping[str, Any], *, path: str) -> list[Violation]:
    violations = list(unsound(overrides, path=path))
    if violations:
        return violations
    size = len(json.dumps(overrides, ensure_ascii=False, separators=(",", ":")).encode())
    if size > MAX_OVERRIDES_BYTES:
        return [Violation(path, f"{size} bytes of JSON; the limit is {MAX_OVERRIDES_BYTES}.")]
    return []
