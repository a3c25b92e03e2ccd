"""What a processor returned or raised, in a form that can be kept, whatever it is.

A processor is a stranger's: its texts may be no texts, its numbers no numbers, and what it raises
may itself raise when it is looked at.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, SupportsFloat

import orjson

from batchwork_server.domain.batch import StateReason
from batchwork_server.domain.item import ItemError
from batchwork_server.errors import ItemFailed, ItemSkipped, ProviderUnavailable, RateLimited
from batchwork_server.ports import ItemResult

LARGEST_RESULT = 1024 * 1024
"""The most bytes that a result may have as JSON text."""

LONGEST_DELAY = timedelta(days=7)
"""The longest time that a provider can make an item, or a batch, wait."""

_LONGEST_MESSAGE = 1000
_LONGEST_STATE_MESSAGE = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class Skip:
    """There is nothing to do for the item."""

    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Pause:
    """What the processor calls is away, and the batch is to wait for it.

    Attributes:
        message: For the batch.
        delay: What the provider asked for; none when it named no delay.
    """

    reason: StateReason
    message: str
    delay: timedelta | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """The attempt failed.

    Attributes:
        retry_after: The next attempt does not start earlier.
        is_surprise: The processor did not raise it on purpose.
    """

    error: ItemError
    retry_after: timedelta | None = None
    is_surprise: bool = False


def classified(error: BaseException) -> Skip | Pause | Failure:
    """Says what an error means: a processor's own word counts, and anything else is a surprise."""
    try:
        return _said(error)
    except BaseException:  # noqa: BLE001  its facts are missing, or raise when they are read
        return _surprise(error)


def _said(error: BaseException) -> Skip | Pause | Failure:
    if isinstance(error, ItemSkipped):
        return Skip(reason=_reason(error.reason))
    if isinstance(error, ProviderUnavailable):
        is_limit = isinstance(error, RateLimited)
        message = f"{_reason(error.reason)}: {_clean(_text(error.message))}"
        return Pause(
            reason=StateReason.PROVIDER_RATE_LIMITED if is_limit else StateReason.PROVIDER_DOWN,
            message=message[:_LONGEST_STATE_MESSAGE],
            delay=_delay(error.retry_after),
        )
    if isinstance(error, ItemFailed):
        return Failure(
            error=item_error(error.reason, error.message, retryable=bool(error.retryable)),
            retry_after=_delay(error.retry_after),
        )
    return _surprise(error)


def _surprise(error: BaseException) -> Failure:
    """Anything that nobody raised on purpose may be worth a retry."""
    return Failure(
        error=item_error("PROCESSOR_ERROR", _described(error), retryable=True), is_surprise=True
    )


def item_error(reason: object, message: object, *, retryable: bool) -> ItemError:
    return ItemError(
        reason=_reason(reason),
        message=_clean(_text(message))[:_LONGEST_MESSAGE],
        retryable=retryable,
    )


def result_json(result: Any) -> str:
    """Writes a result as JSON text.

    Raises:
        ItemFailed: it cannot be written, or is too large.
    """
    if not isinstance(result, ItemResult):
        raise ItemFailed(
            "RESULT_INVALID",
            f"The processor returned {type(result).__name__} instead of an ItemResult.",
        )
    try:
        text = orjson.dumps(result.value)
    except (TypeError, ValueError) as error:
        raise ItemFailed("RESULT_INVALID", f"The result is not JSON: {error}") from error
    if len(text) > LARGEST_RESULT:
        raise ItemFailed(
            "RESULT_TOO_LARGE",
            f"The result has {len(text)} bytes as JSON; at most {LARGEST_RESULT} are kept.",
        )
    return text.decode()


def quality_score(result: ItemResult) -> float | None:
    """Returns the score of a result as the number that a database can hold.

    Raises:
        ItemFailed: it is no number within 0 and 1.
    """
    score = result.quality_score
    if score is None:
        return None
    number = score if type(score) is float else _number(score)
    if number is None or not 0 <= number <= 1:
        raise ItemFailed("RESULT_INVALID", f"The quality score {score!r} is not within 0 and 1.")
    return number


def _number(said: object) -> float | None:
    """Returns any kind of number as one, such as a Decimal; what ``float`` reads is none."""
    if not isinstance(said, SupportsFloat):
        return None
    try:
        return float(said)
    except (ValueError, OverflowError):
        return None


def _delay(named: Any) -> timedelta | None:
    """Returns a delay as it counts; a bare number is one of seconds.

    Returns:
        At most ``LONGEST_DELAY``; none for what is no delay, such as a time that has passed.
    """
    if named is None:
        return None
    try:
        seconds = named.total_seconds() if isinstance(named, timedelta) else float(named)
    except OverflowError:
        return LONGEST_DELAY
    except (TypeError, ValueError):
        return None
    if not seconds >= 0:
        return None
    return timedelta(seconds=min(seconds, LONGEST_DELAY.total_seconds()))


def _described(error: BaseException) -> str:
    try:
        return f"{type(error).__name__}: {error}"
    except BaseException:  # noqa: BLE001  an error that cannot even say what it is
        return type(error).__name__


def _text(said: object) -> str:
    try:
        return str(said)
    except BaseException:  # noqa: BLE001  what has no text
        return type(said).__name__


def _reason(said: object) -> str:
    """Returns a reason as the contract has it, UPPER_SNAKE, whatever a processor wrote."""
    return re.sub(r"[^A-Z0-9]+", "_", _text(said).upper()).strip("_")[:63] or "UNSPECIFIED"


def _clean(text: str) -> str:
    """Leaves out what a database cannot hold as text."""
    return text.replace("\x00", "").encode("utf-8", "replace").decode()
