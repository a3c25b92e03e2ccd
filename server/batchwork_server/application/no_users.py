"""Tells that a run of a preference-based job is for nobody, and what may be the matter."""

from __future__ import annotations

from batchwork_server.domain.batch import Notice
from batchwork_server.domain.json_object import listed, quoted
from batchwork_server.domain.submission import Submission
from batchwork_server.store.store import PreferenceGroupStore

NO_USERS = "NO_USERS"


async def no_users_notice(
    submission: Submission, groups: PreferenceGroupStore, *, tenant_id: str
) -> Notice:
    """Returns what to tell whoever asked for a run that has no users."""
    features = await groups.feature_types(tenant_id=tenant_id)
    wanted = quoted(submission.feature_type)
    if submission.feature_type in features:
        why = "none of the users whom the run is restricted to has an enabled preference for it"
    elif features:
        why = f"enabled preferences are for {listed(features)}"
    else:
        why = "nobody has an enabled preference for any feature"
    message = f"No users found for feature_type {wanted}: {why}."
    return Notice(reason=NO_USERS, path="feature_type", message=message)
