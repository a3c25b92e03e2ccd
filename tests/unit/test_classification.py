"""What processors return and raise is made into what can be kept, however odd it is."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal
from fractions import Fraction
from typing import Any

import pytest
from batchwork_server.domain.batch import StateReason
from batchwork_server.domain.item import ItemError
from batchwork_server.engine.classification import (
    LONGEST_DELAY,
    Failure,
    Pause,
    Skip,
    classified,
    quality_score,
)
from batchwork_server.errors import (
    ItemFailed,
    ItemSkipped,
    ProcessorError,
    ProviderUnavailable,
    RateLimited,
)
from batchwork_server.ports import ItemResult

SECOND = timedelta(seconds=1)


class Unspeakable(Exception):
    """Has no text."""

    def __str__(self) -> str:
        raise SystemExit("not even this")


class Mute(ItemFailed):
    """Keeps its facts to itself."""

    def __init__(self) -> None:
        pass


class Ambiguous:
    """Is neither true nor false, as an array of numbers is."""

    def __bool__(self) -> bool:
        raise ValueError("ambiguous")


def item_failed(*said: Any, **more: Any) -> ItemFailed:
    """Fails as no type checker would let pass."""
    return ItemFailed(*said, **more)


def without_facts(kind: type[ProcessorError]) -> ProcessorError:
    return kind.__new__(kind)


def failure(reason: str, message: str, *, retryable: bool = False) -> Failure:
    return Failure(error=ItemError(reason=reason, message=message, retryable=retryable))


def surprise(message: str) -> Failure:
    error = ItemError(reason="PROCESSOR_ERROR", message=message, retryable=True)
    return Failure(error=error, is_surprise=True)


def test_what_is_said_as_it_should_be_is_taken_as_it_is():
    assert classified(ItemSkipped("NOTHING_TO_DO")) == Skip(reason="NOTHING_TO_DO")
    assert classified(ItemFailed("BUSY", "Later.", retryable=True, retry_after=SECOND)) == Failure(
        error=ItemError(reason="BUSY", message="Later.", retryable=True), retry_after=SECOND
    )
    assert classified(RateLimited("QUOTA", "Slow down.", retry_after=SECOND)) == Pause(
        reason=StateReason.PROVIDER_RATE_LIMITED, message="QUOTA: Slow down.", delay=SECOND
    )
    assert classified(ProviderUnavailable("GONE", "Refused.")) == Pause(
        reason=StateReason.PROVIDER_DOWN, message="GONE: Refused.", delay=None
    )


@pytest.mark.parametrize(
    ("error", "said"),
    [
        pytest.param(item_failed("X", OSError("inner")), failure("X", "inner"), id="message"),
        pytest.param(item_failed("X", Unspeakable()), failure("X", "Unspeakable"), id="no message"),
        pytest.param(item_failed(Unspeakable(), "T"), failure("UNSPEAKABLE", "T"), id="no reason"),
        pytest.param(item_failed(503, "T"), failure("503", "T"), id="a number for a reason"),
        pytest.param(
            item_failed("X", "T", retryable=1), failure("X", "T", retryable=True), id="a number"
        ),
        pytest.param(
            item_failed("X", "T", retryable=Ambiguous()), surprise("ItemFailed: T"), id="ambiguous"
        ),
        pytest.param(item_failed("X", "a\x00b\ud800"), failure("X", "ab?"), id="odd characters"),
        pytest.param(Mute(), surprise("Mute: "), id="no facts of a failure"),
        pytest.param(without_facts(ItemSkipped), surprise("ItemSkipped: "), id="of a skip"),
        pytest.param(without_facts(RateLimited), surprise("RateLimited: "), id="of a pause"),
        pytest.param(ProcessorError("X", "T"), surprise("ProcessorError: T"), id="the root"),
        pytest.param(Unspeakable(), surprise("Unspeakable"), id="an error without a text"),
        pytest.param(
            ItemSkipped(Unspeakable()),  # type: ignore[arg-type]
            Skip(reason="UNSPEAKABLE"),
            id="a skip without a reason",
        ),
    ],
)
def test_every_error_means_something(error: BaseException, said: Skip | Failure):
    assert classified(error) == said


def test_long_texts_are_cut():
    failed = classified(ItemFailed("R" * 99, "x" * 9999))
    away = classified(ProviderUnavailable("GONE", "x" * 9999))

    assert isinstance(failed, Failure)
    assert (len(failed.error.reason), len(failed.error.message)) == (63, 1000)
    assert isinstance(away, Pause)
    assert away.message == "GONE: " + "x" * 494


@pytest.mark.parametrize(
    ("named", "delay"),
    [
        (None, None),
        (SECOND, SECOND),
        (30, 30 * SECOND),
        (0.5, 0.5 * SECOND),
        (Decimal(2), 2 * SECOND),
        ("30", 30 * SECOND),
        (0, timedelta(0)),
        (timedelta(0), timedelta(0)),
        (timedelta.max, LONGEST_DELAY),
        (float("inf"), LONGEST_DELAY),
        (1e300, LONGEST_DELAY),
        pytest.param(10**400, LONGEST_DELAY, id="10**400"),
        (timedelta.min, None),
        (-SECOND, None),
        (-1e300, None),
        (float("nan"), None),
        ("soon", None),
        ([30], None),
    ],
    ids=str,
)
@pytest.mark.parametrize("kind", [ItemFailed, ProviderUnavailable, RateLimited])
def test_every_delay_is_none_or_bounded(kind: type, named: object, delay: timedelta | None):
    said = classified(kind("X", retry_after=named))

    assert not isinstance(said, Skip)
    assert (said.retry_after if isinstance(said, Failure) else said.delay) == delay


@pytest.mark.parametrize(
    ("score", "kept"),
    [
        (None, None),
        (0.5, 0.5),
        (1, 1.0),
        (True, 1.0),
        (Decimal("0.5"), 0.5),
        (Fraction(1, 4), 0.25),
    ],
    ids=str,
)
def test_a_score_is_kept_as_a_plain_number(score: object, kept: float | None):
    found = quality_score(ItemResult(value=1, quality_score=score))  # type: ignore[arg-type]

    assert (found, type(found)) == (kept, type(kept))


@pytest.mark.parametrize(
    "score",
    [
        *(float("nan"), float("inf"), Decimal("NaN"), Decimal("sNaN"), -0.1, 1.1, "0.5", [1]),
        pytest.param(10**400, id="10**400"),
    ],
    ids=str,
)
def test_a_score_that_is_none_is_refused(score: object):
    with pytest.raises(ItemFailed, match="is not within 0 and 1"):
        quality_score(ItemResult(value=1, quality_score=score))  # type: ignore[arg-type]
