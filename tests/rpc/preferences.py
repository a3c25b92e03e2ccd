"""What the tests of PreferenceService call and make."""

from __future__ import annotations

from typing import Any

from batchwork.v1.preference_pb2 import DefaultPreference, Preference
from batchwork.v1.preference_service_pb2 import (
    ListPreferenceGroupsRequest,
    PreferenceGroup,
    SetDefaultPreferenceRequest,
    SetPreferenceRequest,
    SetPreferenceResponse,
)
from batchwork.v1.schedule_pb2 import DailyCadence, Schedule

from tests.rpc.api import Api, make_job


def daily(at: str = "09:00", **fields: Any) -> Schedule:
    return Schedule(daily=DailyCadence(at=at), **fields)


def make_preference(user_id: str = "ada", **changes: Any) -> Preference:
    defaults: dict[str, Any] = {"user_id": user_id, "feature_type": "posts", "enabled": True}
    return Preference(**defaults | changes)


def make_driven_job(job_id: str = "driven-job", **changes: Any) -> dict[str, Any]:
    """Makes a job that preferences for posts drive."""
    fields: dict[str, Any] = {"preference_based": True, "feature_type": "posts"}
    return make_job(job_id, **fields | changes)


async def put(api: Api, user_id: str = "ada", *, metadata: Any = (), **changes: Any):
    """Sets a preference and returns all that is answered."""
    request = SetPreferenceRequest(preference=make_preference(user_id, **changes))
    response: SetPreferenceResponse = await api.preferences.SetPreference(
        request, metadata=metadata
    )
    return response


def make_default(**changes: Any) -> DefaultPreference:
    defaults: dict[str, Any] = {"feature_type": "posts", "enabled": True}
    return DefaultPreference(**defaults | changes)


async def put_default(api: Api, *, metadata: Any = (), **changes: Any) -> DefaultPreference:
    request = SetDefaultPreferenceRequest(default_preference=make_default(**changes))
    response = await api.preferences.SetDefaultPreference(request, metadata=metadata)
    return response.default_preference


async def groups_of(api: Api, **fields: Any) -> list[PreferenceGroup]:
    response = await api.preferences.ListPreferenceGroups(ListPreferenceGroupsRequest(**fields))
    return list(response.groups)
