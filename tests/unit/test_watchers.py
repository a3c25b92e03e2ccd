"""One count for all watches of a server."""

from __future__ import annotations

from datetime import timedelta

import pytest
from batchwork_server.application.watchers import Watchers
from batchwork_server.errors import QuotaExceeded


def test_one_watch_too_many_is_told_when_to_come_back_and_does_not_count() -> None:
    watchers = Watchers(1)

    with watchers.admitted(), pytest.raises(QuotaExceeded) as refusal, watchers.admitted():
        pass

    assert (refusal.value.reason, refusal.value.retry_after) == (
        "QUOTA_WATCHERS",
        timedelta(seconds=5),
    )
    assert watchers.count == 0


def test_a_watch_that_fails_makes_room() -> None:
    watchers = Watchers(1)
    with pytest.raises(ConnectionError), watchers.admitted():
        raise ConnectionError

    with watchers.admitted():
        assert watchers.count == 1
