"""Items between the contract and the domain."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import orjson
from batchwork.v1 import item_pb2 as messages

from batchwork_server.domain.ids import idempotency_key
from batchwork_server.domain.item import Attempt, Item, ItemError, ItemState
from batchwork_server.domain.json_object import quoted
from batchwork_server.domain.selection import SelectedItem
from batchwork_server.rpc.checks import LONGEST_NAME, Checks
from batchwork_server.rpc.values import duration_to, timestamp_to

MAX_ITEMS = 50_000
LARGEST_ITEM = 1024 * 1024

_SURELY_SMALL = LARGEST_ITEM // 4  # so many characters are never more bytes than allowed
_NUL = r"\u0000"

ITEM_STATE_TO = {state: messages.ItemState.Value(f"ITEM_STATE_{state.name}") for state in ItemState}
ITEM_STATE_FROM: dict[int, ItemState] = {number: state for state, number in ITEM_STATE_TO.items()}


def items_from(inputs: Sequence[messages.ItemInput], *, checks: Checks) -> tuple[SelectedItem, ...]:
    """Returns the items of a request; an item without an id gets its place as its id."""
    if len(inputs) > MAX_ITEMS:
        checks.refuse("items", f"{len(inputs)} items are too many; the limit is {MAX_ITEMS}.")
        return ()
    items = uploaded_items_from(inputs, first=0, checks=checks)
    if len({item.item_id for item in items}) < len(items):
        _refuse_duplicates(items, checks=checks)
    return items


def uploaded_items_from(
    inputs: Sequence[messages.ItemInput], *, first: int, checks: Checks
) -> tuple[SelectedItem, ...]:
    """Returns the items of one message; an item without an id gets its place as its id.

    A message holds thousands of items, and nearly all of them are right: they are judged by what
    is cheap to see, and only the others are looked at closely.

    Args:
        first: The place of the first of them.
    """
    items: list[SelectedItem] = []
    for index, given in enumerate(inputs):
        item_id, user_id = given.item_id or str(first + index), given.user_id
        data_json = given.data_json or "{}"
        if not (
            len(item_id) <= LONGEST_NAME
            and item_id.isprintable()
            and len(user_id) <= LONGEST_NAME
            and user_id.isprintable()
            and len(data_json) <= _SURELY_SMALL
            and _NUL not in data_json
            and _is_json(data_json)
        ):
            _check_closely(given, index, checks=checks)
        items.append(SelectedItem(item_id=item_id, user_id=user_id or None, data_json=data_json))
    return tuple(items)


def item_to(item: Item) -> messages.Item:
    return messages.Item(
        batch_id=item.batch_id,
        item_id=item.item_id,
        item_index=item.index,
        user_id=item.user_id or "",
        state=ITEM_STATE_TO[item.state],
        data_json=item.data_json,
        result_json=item.result_json or "",
        error=_error_to(item.error),
        skip_reason=item.skip_reason or "",
        attempt_count=item.attempt_count,
        attempts=[_attempt_to(attempt) for attempt in item.attempts],
        next_attempt_time=timestamp_to(item.next_attempt_time),
        start_time=timestamp_to(item.start_time),
        end_time=timestamp_to(item.end_time),
        duration=duration_to(item.duration),
        quality_score=item.quality_score,
        idempotency_key=idempotency_key(item.batch_id, item.item_id),
    )


def _error_to(error: ItemError | None) -> messages.ItemError | None:
    if error is None:
        return None
    return messages.ItemError(reason=error.reason, message=error.message, retryable=error.retryable)


def _attempt_to(attempt: Attempt) -> messages.ItemAttempt:
    return messages.ItemAttempt(
        number=attempt.number,
        start_time=timestamp_to(attempt.start_time),
        duration=duration_to(attempt.duration),
        error=_error_to(attempt.error),
    )


def _is_json(text: str) -> bool:
    try:
        orjson.loads(text)
    except orjson.JSONDecodeError:
        return False
    return True


def _check_closely(given: messages.ItemInput, index: int, *, checks: Checks) -> None:
    path = f"items[{index}]"
    checks.line(f"{path}.item_id", given.item_id)
    checks.line(f"{path}.user_id", given.user_id)
    if given.data_json:
        _check_data(f"{path}.data_json", given.data_json, index=index, checks=checks)


def _check_data(path: str, text: str, *, index: int, checks: Checks) -> None:
    size = len(text.encode())
    if size > LARGEST_ITEM:
        message = f"{size} bytes of JSON; the limit is {LARGEST_ITEM}."
        checks.refuse_size(path, message, limit=LARGEST_ITEM, index=index)
        return
    try:
        value = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        place = f"line {error.lineno}, column {error.colno}"
        checks.refuse(path, f"{quoted(text)} is not JSON; at {place}: {error.msg}.")
        return
    if _NUL in text and any("\0" in found for found in _texts_of(value)):
        checks.refuse(path, "A text in this JSON holds a null character.")


def _texts_of(value: object) -> Iterator[str]:
    """Yields every text in a JSON value, the names in its objects included, however deep."""
    left = [value]
    while left:
        match left.pop():
            case str() as text:
                yield text
            case dict() as members:
                yield from members
                left += members.values()
            case list() as elements:
                left += elements


def _refuse_duplicates(items: Sequence[SelectedItem], *, checks: Checks) -> None:
    first: dict[str, int] = {}
    for index, item in enumerate(items):
        place = first.setdefault(item.item_id, index)
        if place != index:
            checks.refuse(
                f"items[{index}].item_id",
                f"{quoted(item.item_id)} is the id of items[{place}] already.",
            )
