"""The rules of batches: their ends, their order, their retries."""

from __future__ import annotations

from datetime import timedelta
from itertools import pairwise
from typing import Any

import pytest
from batchwork_server.domain.batch import (
    HANDICAPS,
    BatchState,
    Counts,
    Priority,
    dispatch_time,
    expected_chunk_duration,
    final_state,
)
from batchwork_server.domain.failure import FailurePolicy
from batchwork_server.domain.ids import is_id, new_batch_id
from batchwork_server.domain.retry import LARGEST_MULTIPLIER, RequestedRetry, RetryPolicy
from batchwork_server.store.events import ranges_of
from hypothesis import given
from hypothesis import strategies as st

from tests.fakes import START

SECOND = timedelta(seconds=1)
MINUTE = timedelta(minutes=1)


@pytest.mark.parametrize(
    ("counts", "state"),
    [
        pytest.param(Counts(), BatchState.SUCCEEDED, id="nothing to do"),
        pytest.param(Counts(succeeded=2), BatchState.SUCCEEDED, id="all well"),
        pytest.param(Counts(skipped=2), BatchState.SUCCEEDED, id="all skipped"),
        pytest.param(
            Counts(succeeded=1, failed=1), BatchState.PARTIALLY_SUCCEEDED, id="some failed"
        ),
        pytest.param(Counts(failed=1, skipped=1), BatchState.FAILED, id="none well"),
    ],
)
def test_a_batch_ends_in_the_state_that_its_counts_say(counts, state):
    assert final_state(counts) is state


@pytest.mark.parametrize(
    ("counts", "closing"),
    [
        pytest.param(Counts(succeeded=2), BatchState.CANCELLED, id="cancelled after the last"),
        pytest.param(Counts(succeeded=1, cancelled=1), BatchState.CANCELLED, id="cancelled"),
        pytest.param(Counts(succeeded=1, expired=1), BatchState.EXPIRED, id="expired"),
        pytest.param(Counts(succeeded=9, failed=1), BatchState.FAILED, id="too many failed"),
    ],
)
def test_a_batch_that_is_ended_early_ends_as_it_was_to(counts, closing):
    assert final_state(counts, closing=closing) is closing


def test_a_batch_whose_last_items_finished_after_its_time_did_not_expire():
    counts = Counts(succeeded=1, failed=1)

    assert final_state(counts, closing=BatchState.EXPIRED) is BatchState.PARTIALLY_SUCCEEDED


def test_a_batch_without_items_is_done():
    assert Counts().progress_ratio == 1
    assert Counts(total=4, pending=1, running=1, failed=2).progress_ratio == 0.5


def test_a_low_chunk_waits_at_most_fifteen_minutes_behind_what_came_later():
    low = dispatch_time(due=START, handicap=HANDICAPS[Priority.LOW], place=0)

    before, after = (
        dispatch_time(due=START + minutes * MINUTE, handicap=HANDICAPS[Priority.CRITICAL], place=0)
        for minutes in (14, 16)
    )

    assert before < low < after


def test_chunks_due_together_go_by_priority():
    times = [
        dispatch_time(due=START, handicap=HANDICAPS[priority], place=0) for priority in Priority
    ]

    assert times == sorted(times, reverse=True), "low, medium, high, critical"


def test_a_small_batch_goes_before_the_rest_of_a_large_one():
    handicap = HANDICAPS[Priority.MEDIUM]
    large = [dispatch_time(due=START, handicap=handicap, place=place) for place in range(1000)]

    small = dispatch_time(due=START + 2.5 * SECOND, handicap=handicap, place=0)

    assert large[2] < small < large[3]


@pytest.mark.parametrize(
    ("known", "most", "expected"),
    [
        pytest.param(None, 0, SECOND, id="nothing is known"),
        pytest.param(10 * SECOND, 0, 20 * SECOND, id="all workers"),
        pytest.param(10 * SECOND, 5, 100 * SECOND, id="a bound of its own"),
        pytest.param(10 * SECOND, 100, 20 * SECOND, id="a bound above the workers"),
        pytest.param(SECOND / 50_000, 0, SECOND / 10, id="no closer"),
        pytest.param(60 * MINUTE, 1, 60 * MINUTE, id="no farther"),
    ],
)
def test_a_chunk_is_expected_to_take_what_its_items_take(known, most, expected):
    duration = expected_chunk_duration(
        chunk_size=50, max_concurrent_items=most, item_duration=known, slots=25
    )

    assert duration == expected


def test_generated_ids_are_ids_and_tell_where_they_are_from():
    batch_id = new_batch_id(source="user_management_of_a_service_with_a_very_long_name", now=START)

    assert is_id(batch_id)
    assert batch_id.startswith("bat_user_management_")
    assert "_20260302090000_" in batch_id
    assert batch_id != new_batch_id(source="user_management", now=START)


@given(
    initial_backoff=st.timedeltas(timedelta(0), timedelta(hours=1)),
    max_backoff=st.timedeltas(timedelta(0), timedelta(days=1)),
    multiplier=st.floats(1, LARGEST_MULTIPLIER),
    retry=st.integers(1, 2000),
    draw=st.floats(0, 1),
)
def test_a_backoff_stays_below_the_largest_and_below_its_place_in_the_row(
    initial_backoff, max_backoff, multiplier, retry, draw
):
    policy = RetryPolicy(
        initial_backoff=initial_backoff, max_backoff=max_backoff, multiplier=multiplier
    )

    backoff = policy.backoff(retry=retry, draw=draw)

    assert timedelta(0) <= backoff <= max_backoff
    if retry <= 100:  # the largest retry limit; further on the power is no number
        ceiling = initial_backoff.total_seconds() * multiplier ** (retry - 1)
        assert backoff.total_seconds() <= ceiling + 1e-6, "but for rounding to microseconds"


@pytest.mark.parametrize(
    ("multiplier", "seconds"),
    [
        pytest.param(2, [1, 2, 4, 8, 16, 32, 60], id="doubling"),
        pytest.param(10, [1, 10, 60, 60, 60, 60, 60], id="tenfold"),
        pytest.param(1, [1] * 7, id="always the same"),
    ],
)
def test_a_backoff_grows_from_retry_to_retry_up_to_the_largest(multiplier, seconds):
    policy = RetryPolicy(initial_backoff=SECOND, max_backoff=MINUTE, multiplier=multiplier)

    assert [policy.backoff(retry=n, draw=1).total_seconds() for n in range(1, 8)] == seconds


def test_a_slow_growth_goes_on_to_the_last_retry():
    policy = RetryPolicy(initial_backoff=SECOND, max_backoff=MINUTE, multiplier=1.01)

    assert policy.backoff(retry=100, draw=1) == timedelta(seconds=1.01**99)


def test_a_retry_limit_counts_retries():
    policy = RetryPolicy(retry_limit=3)

    allowed = [policy.allows(attempts=n, reason="TIMEOUT") for n in (1, 2, 3, 4)]

    assert allowed == [True, True, True, False]


def test_a_reason_that_no_retry_helps_is_not_tried_again():
    policy = RetryPolicy(non_retryable_reasons=frozenset({"ACCOUNT_GONE"}))

    assert not policy.allows(attempts=1, reason="ACCOUNT_GONE")
    assert policy.allows(attempts=1, reason="TIMEOUT")


def test_what_a_request_names_of_a_retry_policy_replaces_only_that():
    policy = RetryPolicy(retry_limit=7, max_backoff=MINUTE, multiplier=3)

    asked = RequestedRetry(initial_backoff=timedelta(0), non_retryable_reasons=frozenset({"A"}))

    assert asked.over(policy) == RetryPolicy(
        retry_limit=7,
        initial_backoff=timedelta(0),
        max_backoff=MINUTE,
        multiplier=3,
        non_retryable_reasons=frozenset({"A"}),
    )


@pytest.mark.parametrize(
    ("bounds", "failed", "tried", "broken"),
    [
        pytest.param({}, 10**9, 10**9, False, id="no bound"),
        pytest.param({"max_failed": 2}, 2, 2, False, id="as many as may"),
        pytest.param({"max_failed": 2}, 3, 1000, True, id="one more"),
        pytest.param({"max_failed": 0}, 0, 0, False, id="none may fail, and none did"),
        pytest.param({"max_failed": 0}, 1, 1, True, id="none may fail, and one did"),
        pytest.param({"max_failed_ratio": 0.5}, 10, 20, False, id="exactly the share"),
        pytest.param({"max_failed_ratio": 0.5}, 11, 20, True, id="more than the share"),
        pytest.param({"max_failed_ratio": 0.5}, 19, 19, False, id="too few were tried"),
        pytest.param({"max_failed_ratio": 0.0}, 1, 20, True, id="no share may fail"),
        pytest.param({"max_failed_ratio": 1.0}, 20, 20, False, id="all may fail"),
        pytest.param({"max_failed_ratio": 0.5, "min_sample": 1}, 1, 1, True, id="the first counts"),
        pytest.param({"max_failed_ratio": 0.0, "min_sample": 1}, 0, 0, False, id="none was tried"),
        pytest.param(
            {"max_failed": 5, "max_failed_ratio": 0.1}, 4, 20, True, id="the share, not the number"
        ),
        pytest.param(
            {"max_failed": 5, "max_failed_ratio": 0.9}, 6, 10, True, id="the number, not the share"
        ),
    ],
)
def test_a_failure_policy_is_broken_by_one_failure_too_many(
    bounds: dict[str, Any], failed: int, tried: int, broken: bool
):
    assert FailurePolicy(**bounds).is_broken(failed=failed, tried=tried) is broken


@given(st.sets(st.integers(0, 200)))
def test_ranges_name_each_index_once(indexes):
    ranges = ranges_of(indexes)

    assert [n for first, last in ranges for n in range(first, last + 1)] == sorted(indexes)
    assert all(b[0] > a[1] + 1 for a, b in pairwise(ranges))
