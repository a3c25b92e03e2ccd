"""One fake for each port, and a clock that is moved by hand."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from batchwork_server.domain.batch import Template
from batchwork_server.domain.notification import Message
from batchwork_server.domain.selection import (
    ActiveSince,
    Condition,
    CreatedBetween,
    Equality,
    LoadedItem,
    NumberBound,
    Order,
    Presence,
    SelectedItem,
    Selection,
    TagsAny,
)
from batchwork_server.domain.user import UserVerdict
from batchwork_server.errors import SourceUnavailable, Unavailable
from batchwork_server.ports import ItemCall, ItemResult

START = datetime(2026, 3, 2, 9, 0, tzinfo=UTC)


class FakeClock:
    """A clock that stands still until a test moves it."""

    def __init__(self, now: datetime = START) -> None:
        self._now = now
        self._start = now
        self._moved = asyncio.Event()
        self._waited_on = asyncio.Event()

    def now(self) -> datetime:
        return self._now

    def micros(self) -> int:
        return round(self._now.timestamp() * 1_000_000)

    def monotonic(self) -> float:
        return (self._now - self._start).total_seconds()

    def advance(self, duration: timedelta) -> None:
        """Moves the time on, and wakes whoever waited for a time that is now over."""
        self._now += duration
        moved, self._moved = self._moved, asyncio.Event()
        moved.set()

    async def wait(self, event: asyncio.Event, patience: timedelta) -> bool:
        deadline = self._now + patience
        await asyncio.sleep(0)  # a loop that waits for nothing lets others run
        while not event.is_set() and self._now < deadline:
            self._waited_on.set()
            await _either(event, self._moved)
        return event.is_set()

    async def waited_on(self) -> None:
        """Returns when somebody waits, or has waited since the last call."""
        await self._waited_on.wait()
        self._waited_on.clear()


async def _either(*events: asyncio.Event) -> None:
    waits = [asyncio.ensure_future(event.wait()) for event in events]
    try:
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for wait in waits:
            wait.cancel()


class FakeUsers:
    """Users in memory.

    Attributes:
        away: Whether the source is down.
        calls: The ids of each call.
    """

    def __init__(self, *active: str, tenant_id: str = "default") -> None:
        self.away = False
        self.calls: list[tuple[str, ...]] = []
        self._active: dict[tuple[str, str], bool] = {}
        self.add(*active, tenant_id=tenant_id)

    def add(self, *user_ids: str, tenant_id: str = "default", active: bool = True) -> None:
        self._active.update({(tenant_id, user_id): active for user_id in user_ids})

    async def verdicts(
        self, user_ids: Sequence[str], *, tenant_id: str
    ) -> Mapping[str, UserVerdict]:
        self.calls.append(tuple(user_ids))
        if self.away:
            raise SourceUnavailable("The source of users is away.")
        return {user_id: self._verdict(user_id, tenant_id) for user_id in user_ids}

    def _verdict(self, user_id: str, tenant_id: str) -> UserVerdict:
        match self._active.get((tenant_id, user_id)):
            case True:
                return UserVerdict.VALID
            case False:
                return UserVerdict.INACTIVE
        elsewhere = any(other == user_id for _, other in self._active)
        return UserVerdict.WRONG_TENANT if elsewhere else UserVerdict.NOT_FOUND


class FakeCategories:
    """Categories in memory, with the meaning of conditions written down a second time.

    Attributes:
        away: Whether the source is down.
    """

    def __init__(self) -> None:
        self.away = False
        self._items: dict[tuple[str, str], dict[str, LoadedItem]] = {}

    def add(
        self, category: str, *items: LoadedItem, tenant_id: str = "default", now: datetime = START
    ) -> None:
        held = self._items.setdefault((tenant_id, category), {})
        for item in items:
            old = held.get(item.item_id)
            created = item.create_time or (old.create_time if old else None) or now
            held[item.item_id] = LoadedItem(
                item_id=item.item_id,
                data_json=item.data_json,
                user_id=item.user_id,
                create_time=created,
                active_time=item.active_time,
            )

    async def select(self, selection: Selection, *, tenant_id: str) -> list[SelectedItem]:
        return self._met(selection, tenant_id)[: selection.limit]

    async def select_of_users(
        self, selection: Selection, user_ids: Sequence[str], *, tenant_id: str
    ) -> dict[str, list[SelectedItem]]:
        found: dict[str, list[SelectedItem]] = {}
        for item in self._met(selection, tenant_id):
            owner = item.user_id or item.item_id
            if owner in user_ids and len(found.get(owner, ())) < selection.limit:
                found.setdefault(owner, []).append(item)
        return found

    def _met(self, selection: Selection, tenant_id: str) -> list[SelectedItem]:
        met = [
            SelectedItem(item_id=item.item_id, user_id=item.user_id, data_json=item.data_json)
            for item in self._held(selection.category, tenant_id)
            if all(_meets(item, condition) for condition in selection.conditions)
        ]
        if selection.order is not None:
            met = _sorted_by(selection.order, met)
        return met

    async def page(
        self, selection: Selection, *, tenant_id: str, page_size: int, after: int | None = None
    ) -> tuple[list[SelectedItem], int | None]:
        start = 0 if after is None else after
        held = self._held(selection.category, tenant_id)
        met = [
            (place, SelectedItem(item_id=i.item_id, user_id=i.user_id, data_json=i.data_json))
            for place, i in enumerate(held, start=1)
            if place > start and all(_meets(i, condition) for condition in selection.conditions)
        ]
        page = met[:page_size]
        return [item for _, item in page], page[-1][0] if len(page) == page_size else None

    async def exists(self, category: str, *, tenant_id: str) -> bool:
        return bool(self._held(category, tenant_id))

    async def categories(self, *, tenant_id: str) -> list[str]:
        self._check()
        return sorted(name for owner, name in self._items if owner == tenant_id)

    async def field_names(self, category: str, *, tenant_id: str) -> list[str]:
        sample = self._held(category, tenant_id)[:1000]
        return sorted({name for item in sample for name in json.loads(item.data_json)})

    def _held(self, category: str, tenant_id: str) -> list[LoadedItem]:
        self._check()
        return list(self._items.get((tenant_id, category), {}).values())

    def _check(self) -> None:
        if self.away:
            raise Unavailable("The source of categories is away.")


def _meets(item: LoadedItem, condition: Condition) -> bool:
    data: dict[str, Any] = json.loads(item.data_json)
    match condition:
        case NumberBound(field=name, minimum=minimum, maximum=maximum):
            value: Any = data.get(name)
            return (
                _kind(value) == "number"
                and (minimum is None or value >= minimum)
                and (maximum is None or value <= maximum)
            )
        case Presence(field=name, present=present):
            own = f"has_{name}"
            found = bool(data[own]) if own in data else data.get(name) not in (None, "", [], {})
            return found is present
        case Equality(field=name, values=values):
            value = data.get(name)
            return any(_kind(value) == _kind(wanted) and value == wanted for wanted in values)
        case TagsAny(tags=tags):
            held = data.get("tags")
            return any(tag in tags for tag in (held if isinstance(held, list) else [held]))
        case CreatedBetween(after=after, before=before):
            created = item.create_time
            assert created is not None
            return (after is None or created >= after) and (before is None or created < before)
        case ActiveSince(since=since):
            return item.active_time is not None and item.active_time >= since


def _sorted_by(order: Order, items: Sequence[SelectedItem]) -> list[SelectedItem]:
    values = [json.loads(item.data_json).get(order.field) for item in items]
    paired = list(zip(values, items, strict=True))
    told: list[SelectedItem] = []
    for kind in ("number", "str"):
        alike = [pair for pair in paired if _kind(pair[0]) == kind]
        alike.sort(key=lambda pair: pair[0], reverse=order.descending)
        told += [item for _, item in alike]
    return told + [item for value, item in paired if _kind(value) not in ("number", "str")]


def _kind(value: object) -> str:
    if isinstance(value, bool):
        return "boolean"
    return "number" if isinstance(value, int | float) else type(value).__name__


class FakeTemplates:
    """Templates in memory."""

    def __init__(self, *templates: Template) -> None:
        self._templates = {template.template_id: template for template in templates}

    async def get(self, template_id: str) -> Template | None:
        return self._templates.get(template_id)

    async def all(self) -> Sequence[Template]:
        return [self._templates[template_id] for template_id in sorted(self._templates)]


Step = ItemResult | BaseException | Callable[[ItemCall], ItemResult]
"""What one attempt comes to: a result, an error, or something that tells when it is called."""


class FakeProcessor:
    """Does what its script says; without one, it answers with the item's data.

    Attributes:
        calls: Every attempt, in order.
        gate: When set to an event, attempts wait for it.
        started: Set at the first attempt.
        problems: What ``check`` finds wrong with a template.
    """

    def __init__(self, script: Mapping[str, Sequence[Step]] | None = None) -> None:
        self.calls: list[ItemCall] = []
        self.gate: asyncio.Event | None = None
        self.started = asyncio.Event()
        self.problems: tuple[str, ...] = ()
        self._script = {item_id: list(steps) for item_id, steps in (script or {}).items()}

    def on(self, item_id: str, *steps: Step) -> None:
        """Scripts the attempts at an item; after the last step it succeeds."""
        self._script[item_id] = list(steps)

    def attempts(self, item_id: str) -> int:
        return sum(call.item_id == item_id for call in self.calls)

    def check(self, template: Template) -> Sequence[str]:
        return self.problems

    async def process(self, call: ItemCall) -> ItemResult:
        self.calls.append(call)
        self.started.set()
        if self.gate is not None:
            await self.gate.wait()
        steps = self._script.get(call.item_id)
        step = steps.pop(0) if steps else ItemResult(value=call.data)
        if isinstance(step, BaseException):
            raise step
        return step if isinstance(step, ItemResult) else step(call)


class FakeNotifier:
    """Keeps what is sent to it.

    Attributes:
        sent: What it took, in order.
        tried: Every message that came, in order.
        refusals: Raised one by one, by the next messages; then it takes what comes.
        gate: When set to an event, messages wait for it.
    """

    def __init__(self) -> None:
        self.sent: list[Message] = []
        self.tried: list[Message] = []
        self.refusals: list[Exception] = []
        self.gate: asyncio.Event | None = None
        self.called = asyncio.Event()
        self.closed = False

    async def send(self, message: Message) -> None:
        self.tried.append(message)
        self.called.set()
        if self.gate is not None:
            await self.gate.wait()
        if self.refusals:
            raise self.refusals.pop(0)
        self.sent.append(message)

    async def close(self) -> None:
        self.closed = True
