"""A preference as it is kept with a request, for whoever sends the request again."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from batchwork_server.domain.preference import Preference
from batchwork_server.domain.schedule import parse_schedule, render_schedule


def remembered(preference: Preference) -> dict[str, Any]:
    """Returns what ``recalled`` reads."""
    schedule = preference.schedule
    return {
        "user_id": preference.user_id,
        "feature_type": preference.feature_type,
        "enabled": preference.enabled,
        "schedule": None if schedule is None else render_schedule(schedule),
        "template_overrides": dict(preference.template_overrides),
        "revision": preference.revision,
        "create_time": preference.create_time.isoformat(),
        "update_time": preference.update_time.isoformat(),
        "active": preference.active,
        "change_sequence": preference.change_sequence,
    }


def recalled(document: Mapping[str, Any], *, tenant_id: str) -> Preference:
    """Reads a preference; what an older server has kept says less.

    Args:
        tenant_id: Whose request it was kept with; it does not say so itself.
    """
    schedule = document["schedule"]
    return Preference(
        tenant_id=tenant_id,
        user_id=document["user_id"],
        feature_type=document["feature_type"],
        enabled=document["enabled"],
        schedule=None if schedule is None else parse_schedule(schedule, path="schedule")[0],
        template_overrides=document["template_overrides"],
        revision=document["revision"],
        create_time=datetime.fromisoformat(document["create_time"]),
        update_time=datetime.fromisoformat(document["update_time"]),
        active=document.get("active", True),
        change_sequence=document.get("change_sequence", 0),
    )
