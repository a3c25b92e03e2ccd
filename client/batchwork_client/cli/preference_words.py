"""Groups, schedules and next runs of preferences in the words of the command line."""

from __future__ import annotations

from collections.abc import Iterable

from batchwork.v1.job_service_pb2 import UpcomingRun
from batchwork.v1.preference_pb2 import (
    DefaultPreference,
    Preference,
    PreferenceChange,
    PreferenceOrigin,
)
from batchwork.v1.preference_service_pb2 import (
    ExplainUserResponse,
    GetEffectivePreferenceResponse,
    PreferenceGroup,
    SetPreferenceResponse,
    SetPreferenceResult,
)

from batchwork_client.cli.inputs import short_name
from batchwork_client.cli.output import json_in_words

Moved = PreferenceChange | SetPreferenceResponse | SetPreferenceResult
Scheduled = Preference | DefaultPreference | PreferenceGroup | GetEffectivePreferenceResponse


def schedule_in_words(message: Scheduled, field: str, *, unset: str) -> str:
    """Returns a schedule as JSON on one line, or what it means that there is none."""
    if not message.HasField(field):  # type: ignore[arg-type]
        return unset
    return json_in_words(getattr(message, field))


def origin_in_words(origin: PreferenceOrigin.ValueType) -> str:
    """Returns who said something, such as ``tenant default``; empty for nobody."""
    if not origin:
        return ""
    return short_name(PreferenceOrigin.DESCRIPTOR, origin).lower().replace("_", " ")


def group_cells(moved: Moved) -> tuple[str, str]:
    """Returns the groups that a user left and joined; empty where there is none."""
    left = str(moved.group_left) if moved.HasField("group_left") else ""
    joined = str(moved.group_joined) if moved.HasField("group_joined") else ""
    return left, joined


def group_facts(moved: Moved) -> list[tuple[str, str]]:
    left, joined = group_cells(moved)
    return [("left group", left), ("joined group", joined)]


def run_facts(runs: Iterable[UpcomingRun]) -> list[tuple[str, str]]:
    return [("next run", run_in_words(run)) for run in runs]


def source_facts(explained: ExplainUserResponse) -> list[tuple[str, str]]:
    """Returns what a Config Database says of a user, and in what it differs; none for none."""
    note = explained.source_note
    return [
        ("config database", note.message),
        *(
            (f"  {each.field}", f"stored {each.stored or 'none'}, there {each.source or 'none'}")
            for each in note.differences
        ),
    ]


def run_in_words(run: UpcomingRun) -> str:
    """Returns a due time on the local clock, with its zone and its job."""
    when = f"{run.local_time.replace('T', ' ')} {run.time_zone}"
    return f"{when}, {run.job_id}" if run.job_id else when
