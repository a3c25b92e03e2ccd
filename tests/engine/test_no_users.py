"""A run for nobody is told with what may be the matter, however many groups there are."""

from __future__ import annotations

from datetime import time

from batchwork_server.application.no_users import no_users_notice
from batchwork_server.domain.schedule import Daily, Schedule
from batchwork_server.domain.submission import Submission
from batchwork_server.store.database import Database
from batchwork_server.store.sql_store import SqlStore

from tests.factories import TENANT
from tests.store.test_preferences import make_preference, put


async def test_features_are_found_behind_any_number_of_groups(database: Database):
    # The story: those of the first thousand groups were told, and others taken for missing.
    store = SqlStore(database)
    times = [time(n // 60, n % 60) for n in range(1001)]
    others = [
        make_preference(f"user_{n}", "ads", schedule=Schedule(cadence=Daily(at=at)))
        for n, at in enumerate(times)
    ]
    await put(store, *others, make_preference("ada", "posts"))

    async def told(feature_type: str) -> str:
        submission = Submission(feature_type=feature_type)
        notice = await no_users_notice(submission, store.preference_groups, tenant_id=TENANT)
        return notice.message

    assert "restricted to" in await told("posts")
    assert '"ads", "posts"' in await told("mails")
