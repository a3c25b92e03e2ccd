"""Preferences between the contract and the domain."""

from __future__ import annotations

from batchwork.v1 import preference_pb2 as messages

from batchwork_server.domain.preference import (
    MAX_OVERRIDES_BYTES,
    Preference,
    Wish,
    check_key,
    check_wish,
)
from batchwork_server.rpc.checks import Checks
from batchwork_server.rpc.schedule_conversion import schedule_from, schedule_to
from batchwork_server.rpc.values import struct_to, timestamp_to


def wish_from(path: str, preference: messages.Preference, *, checks: Checks) -> Wish:
    """Returns what a preference wishes, and checks the names that it is found by."""
    checks.add(check_key(preference.user_id, preference.feature_type, path=path))
    checks.line(f"{path}.etag", preference.etag)
    schedule = None
    if preference.HasField("schedule"):
        schedule = schedule_from(f"{path}.schedule", preference.schedule, checks=checks)
    wish = Wish(
        enabled=preference.enabled,
        schedule=schedule,
        template_overrides=checks.json_object(
            f"{path}.template_overrides",
            preference.template_overrides,
            most_bytes=MAX_OVERRIDES_BYTES,
        ),
    )
    checks.add(check_wish(wish, path=path))
    return wish


def preference_to(preference: Preference) -> messages.Preference:
    schedule = preference.schedule
    return messages.Preference(
        user_id=preference.user_id,
        feature_type=preference.feature_type,
        enabled=preference.enabled,
        schedule=None if schedule is None else schedule_to(schedule),
        template_overrides=struct_to(preference.template_overrides),
        etag=preference.etag,
        create_time=timestamp_to(preference.create_time),
        update_time=timestamp_to(preference.update_time),
    )
