"""Values of the domain that are valid as they are; a test names only what it is about."""

from __future__ import annotations

import itertools
import json
from datetime import datetime, timedelta
from typing import Any

from batchwork_server.domain.batch import (
    HANDICAPS,
    Batch,
    BatchOptions,
    BatchRequest,
    BatchState,
    Counts,
    Priority,
    Template,
    dispatch_time,
)
from batchwork_server.domain.group_schedules import UserRun
from batchwork_server.domain.item import ItemState, NewItem, Outcome
from batchwork_server.domain.notification import Message
from batchwork_server.domain.preference_groups import Period
from batchwork_server.domain.reference_validation import InvalidReference
from batchwork_server.domain.selection import LoadedItem
from batchwork_server.domain.user import UserVerdict
from batchwork_server.ports import ItemCall
from batchwork_server.store.store import NewChunk

from tests.fakes import START

TENANT = "default"

_numbers = itertools.count(1)


def make_template(**changes: Any) -> Template:
    defaults: dict[str, Any] = {
        "template_id": "welcome",
        "processor": "render",
        "parameters": {"text": "Welcome, {{ name }}!"},
    }
    return Template(**defaults | changes)


def make_options(**changes: Any) -> BatchOptions:
    defaults: dict[str, Any] = {
        "chunk_size": 100,
        "item_timeout": timedelta(seconds=30),
        "handicap": HANDICAPS[changes.get("priority", Priority.MEDIUM)],
    }
    return BatchOptions(**defaults | changes)


def make_request(**changes: Any) -> BatchRequest:
    defaults: dict[str, Any] = {
        "template": make_template(),
        "options": make_options(),
        "source": "test",
        "operation": "render",
    }
    return BatchRequest(**defaults | changes)


def make_batch(**changes: Any) -> Batch:
    """Makes a batch of one item that has not begun."""
    defaults: dict[str, Any] = {
        "key": 1,
        "batch_id": "bat_test_1",
        "tenant_id": TENANT,
        "state": BatchState.PENDING,
        "counts": Counts(total=1, pending=1),
        "request": make_request(),
        "create_time": START,
        "update_time": START,
    }
    return Batch(**defaults | changes)


def make_item(item_id: str = "", *, data: Any = None, **changes: Any) -> NewItem:
    """Makes an item; without an id it gets one that no other has."""
    item_id = item_id or f"item-{next(_numbers)}"
    data = {"name": item_id} if data is None else data
    return NewItem(**{"item_id": item_id, "data_json": json.dumps(data)} | changes)


def make_items(count: int) -> list[NewItem]:
    return [make_item(f"item-{index}") for index in range(count)]


def make_chunk(first_index: int = 0, item_count: int = 100, **changes: Any) -> NewChunk:
    """Makes a chunk that is due at ``START``."""
    options = make_options()
    defaults: dict[str, Any] = {
        "first_index": first_index,
        "item_count": item_count,
        "due_time": START,
        "dispatch_time": dispatch_time(due=START, handicap=options.handicap, place=0),
    }
    return NewChunk(**defaults | changes)


def make_outcome(
    index: int = 0,
    *,
    start_time: datetime = START,
    duration: timedelta = timedelta(milliseconds=20),
    **changes: Any,
) -> Outcome:
    """Makes the outcome of an item that succeeded at its first attempt."""
    defaults: dict[str, Any] = {
        "index": index,
        "state": ItemState.SUCCEEDED,
        "attempts": 1,
        "result_json": '{"text":"Welcome!"}',
        "start_micros": round(start_time.timestamp() * 1_000_000),
        "end_micros": round((start_time + duration).timestamp() * 1_000_000),
    }
    return Outcome(**defaults | changes)


def make_call(item_id: str = "item-1", **changes: Any) -> ItemCall:
    defaults: dict[str, Any] = {
        "batch_id": "bat_test_1",
        "tenant_id": TENANT,
        "item_id": item_id,
        "user_id": None,
        "data": {"name": item_id},
        "attempt": 1,
        "idempotency_key": f"bat_test_1/{item_id}",
        "parameters": {},
    }
    return ItemCall(**defaults | changes)


def make_message(**changes: Any) -> Message:
    """Makes the message that a batch is completed."""
    defaults: dict[str, Any] = {
        "message_id": "msg_test",
        "type": "batch.completed",
        "time": START,
        "data": {"batch_id": "bat_test_1"},
        "title": "Batch bat_test_1: succeeded",
        "text": "Batch: bat_test_1\n",
    }
    return Message(**defaults | changes)


def make_invalid_reference(user_id: str = "nobody", **changes: Any) -> InvalidReference:
    """Makes a reference that was taken out of an inline item, because there is no such user."""
    defaults: dict[str, Any] = {
        "category": "",
        "item_id": "item-1",
        "field": "user_ids",
        "verdict": UserVerdict.NOT_FOUND,
    }
    return InvalidReference(**{"user_id": user_id} | defaults | changes)


def make_loaded_item(item_id: str = "", *, data: Any = None, **changes: Any) -> LoadedItem:
    """Makes an item of a category; without an id it gets one that no other has."""
    item_id = item_id or f"item-{next(_numbers)}"
    data = {} if data is None else data
    return LoadedItem(
        **{"item_id": item_id, "data_json": json.dumps(data, ensure_ascii=False)} | changes
    )


def make_user_run(due: datetime, period: Period, **changes: Any) -> UserRun:
    """Makes the run that a user had at a due time, for a period."""
    defaults: dict[str, Any] = {
        "user_id": "ada",
        "due_time": due,
        "period_start": period.start,
        "due_day": period.day_of(due),
        "period_day": period.first_day,
        "batch_id": "",
        "item_id": "",
        "group_key": 1,
        "look_due_time": due,
        "look_group_key": 1,
        "look_batch_id": "",
        "look_reason": "",
    }
    return UserRun(**defaults | changes)
