"""The rules of batches: their ends, their order, their retries."""

from __future__ import annotations

from datetime import timedelta
from itertools import pairwise

import pytest
from batchwork_server.domain.batch import (
    BatchState,
    Counts,
    Priority,
    dispatch_time,
    final_state,
)
from batchwork_server.domain.ids import is_id, new_batch_id
from batchwork_server.domain.retry import RetryPolicy
from batchwork_server.store.events import ranges_of
from hypothesis import given
from hypothesis import strategies as st

from tests.fakes import START

MINUTE = timedelta(minutes=1)


@pytest.mark.parametrize(
    ("counts", "cancelling", "state"),
    [
        pytest.param(Counts(), False, BatchState.SUCCEEDED, id="nothing to do"),
        pytest.param(Counts(succeeded=2), False, BatchState.SUCCEEDED, id="all well"),
        pytest.param(Counts(skipped=2), False, BatchState.SUCCEEDED, id="all skipped"),
        pytest.param(
            Counts(succeeded=1, failed=1), False, BatchState.PARTIALLY_SUCCEEDED, id="some failed"
        ),
        pytest.param(Counts(failed=1, skipped=1), False, BatchState.FAILED, id="none well"),
        pytest.param(Counts(succeeded=2), True, BatchState.CANCELLED, id="cancelled"),
        pytest.param(Counts(succeeded=1, expired=1), False, BatchState.EXPIRED, id="expired"),
    ],
)
def test_a_batch_ends_in_the_state_that_its_counts_say(counts, cancelling, state):
    assert final_state(counts, cancelling=cancelling) is state


def test_a_batch_without_items_is_done():
    assert Counts().progress_ratio == 1
    assert Counts(total=4, pending=1, running=1, failed=2).progress_ratio == 0.5


def test_a_low_chunk_waits_at_most_fifteen_minutes_behind_what_came_later():
    low = dispatch_time(due=START, priority=Priority.LOW, place=0)

    before = dispatch_time(due=START + 14 * MINUTE, priority=Priority.CRITICAL, place=0)
    after = dispatch_time(due=START + 16 * MINUTE, priority=Priority.CRITICAL, place=0)

    assert before < low < after


def test_chunks_due_together_go_by_priority():
    times = [dispatch_time(due=START, priority=priority, place=0) for priority in Priority]

    assert times == sorted(times, reverse=True), "low, medium, high, critical"


def test_generated_ids_are_ids_and_tell_where_they_are_from():
    batch_id = new_batch_id(source="user_management_of_a_service_with_a_very_long_name", now=START)

    assert is_id(batch_id)
    assert batch_id.startswith("bat_user_management_")
    assert "_20260302090000_" in batch_id
    assert batch_id != new_batch_id(source="user_management", now=START)


@given(attempts=st.integers(1, 2000), draw=st.floats(0, 1))
def test_a_backoff_is_never_longer_than_the_largest(attempts, draw):
    policy = RetryPolicy(initial_backoff=timedelta(seconds=1), max_backoff=MINUTE)

    assert timedelta(0) <= policy.backoff(attempts=attempts, draw=draw) <= MINUTE


def test_a_backoff_doubles_from_attempt_to_attempt():
    policy = RetryPolicy(initial_backoff=timedelta(seconds=1), max_backoff=MINUTE)

    seconds = [policy.backoff(attempts=n, draw=1).total_seconds() for n in range(1, 8)]

    assert seconds == [1, 2, 4, 8, 16, 32, 60]


def test_a_retry_limit_counts_retries():
    policy = RetryPolicy(retry_limit=3)

    assert [policy.allows(attempts=n) for n in (1, 2, 3, 4)] == [True, True, True, False]


@given(st.sets(st.integers(0, 200)))
def test_ranges_name_each_index_once(indexes):
    ranges = ranges_of(indexes)

    assert [n for first, last in ranges for n in range(first, last + 1)] == sorted(indexes)
    assert all(b[0] > a[1] + 1 for a, b in pairwise(ranges))
