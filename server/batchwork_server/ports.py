"""The outside systems that Batchwork needs, as Protocols, on one page.

Each has one adapter a system. Where unit tests need a fake, it stands in ``tests/fakes.py``.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Protocol

from batchwork_server.domain.batch import Batch, Template
from batchwork_server.domain.config_source import (
    Answer,
    UserWishes,
    WishChanges,
    WishGroup,
    WishPage,
)
from batchwork_server.domain.item_schema import CheckedItem
from batchwork_server.domain.notification import Message, NotificationState
from batchwork_server.domain.read_templates import ReadTemplates
from batchwork_server.domain.selection import SelectedItem, Selection
from batchwork_server.domain.user import UserVerdict

Take = Callable[[Sequence[int]], Awaitable[Sequence[asyncio.Event]]]
"""Claims chunks by their keys and returns, for each that was claimed, what is set at its end."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Room:
    """What a worker could use right now.

    Attributes:
        items: How many more items.
        by_batch: How many more of each batch that it has in hand; 0 or less means that the batch
            has enough in hand for what it may use, and is left out.
        of_another: How many at first of any other batch: what it may use is not known yet.
    """

    items: int
    by_batch: Mapping[int, int] = field(default_factory=dict)
    of_another: int = 0

    def of(self, batch_key: int) -> int:
        """Returns how many more items of a batch the worker could use."""
        return self.by_batch.get(batch_key, self.of_another)


class Dispatcher(Protocol):
    """Decides which worker gets which chunk when. The ledger in the store stays the truth.

    A chunk that is handed out twice is processed once: the claim decides.
    """

    async def enqueue(self, tx: Any, chunk_count: int) -> None:
        """Announces chunks that the open transaction has stored."""
        ...

    def enqueued(self) -> None:
        """Tells that the transaction of ``enqueue`` has committed."""
        ...

    async def run(self, take: Take, *, room: Callable[[], Room], stop: asyncio.Event) -> None:
        """Hands out chunks until ``stop`` is set, in their order, as far as there is room.

        Args:
            room: What the worker could use right now.
        """
        ...


class UserRepository(Protocol):
    """Knows which users exist."""

    async def verdicts(
        self, user_ids: Sequence[str], *, tenant_id: str
    ) -> Mapping[str, UserVerdict]:
        """Returns a verdict for each distinct id, one statement per thousands of ids.

        Malformed ids are the caller's business; the source answers NOT_FOUND for them.

        Raises:
            Unavailable: no verdict could be reached.
        """
        ...


class OutsideUsers(UserRepository, Protocol):
    """Users whom somebody else keeps. Every method raises SourceUnavailable when they are away."""

    async def ping(self) -> None:
        """Looks whether the source answers."""
        ...

    async def close(self) -> None:
        """Ends the connections."""
        ...


class CategoryRepository(Protocol):
    """Holds named collections of things that batches are made of."""

    async def select(self, selection: Selection, *, tenant_id: str) -> list[SelectedItem]:
        """Returns the items in the order of the category, at most ``selection.limit``.

        Raises:
            Unavailable: the source is away.
        """
        ...

    async def select_of_users(
        self, selection: Selection, user_ids: Sequence[str], *, tenant_id: str
    ) -> dict[str, list[SelectedItem]]:
        """Returns of each user the items that are theirs, at most ``selection.limit`` of each.

        An item belongs to the user whom it names, or is the user with its id when it names none.
        Who has nothing is left out.

        Raises:
            Unavailable: the source is away.
        """
        ...

    async def page(
        self, selection: Selection, *, tenant_id: str, page_size: int, after: int | None = None
    ) -> tuple[list[SelectedItem], int | None]:
        """Returns some of the items in the order of the category, and after which others follow.

        The order and the limit of the selection do not count.

        Args:
            after: What the page before told; none begins with the first item.

        Raises:
            Unavailable: the source is away.
        """
        ...

    async def exists(self, category: str, *, tenant_id: str) -> bool:
        """Tells whether the category has any item."""
        ...

    async def categories(self, *, tenant_id: str) -> list[str]:
        """Returns the names of the categories that have items, sorted."""
        ...

    async def field_names(self, category: str, *, tenant_id: str) -> list[str]:
        """Returns the names of the fields that the category's items have, sorted.

        At most the first thousand items are looked at.
        """
        ...


class OpenSchema(Protocol):
    """A schema against which items are checked."""

    async def check(self, items: Sequence[tuple[str, str]]) -> Sequence[CheckedItem]:
        """Checks items, each an id and JSON text, and returns each in its place.

        Raises:
            InvalidArgument: the schema refers to what is not there, or takes too long.
        """
        ...


class ItemSchemas(Protocol):
    """Checks items against schemas that callers bring."""

    def open(self, schema_json: str) -> AbstractAsyncContextManager[OpenSchema]:
        """Yields what checks items against a schema.

        Raises:
            InvalidArgument: with everything that is wrong with the schema.
        """
        ...


class ConfigDatabase(Protocol):
    """Knows what the users of one tenant wish. Called ConfigDatabaseClient in the documents.

    Every method raises SourceUnavailable when the source is away, or answers what cannot be read.
    """

    async def all_users(self, *, page_token: str = "") -> WishPage:
        """Returns a page of all users, as the source has them now.

        Args:
            page_token: Of the page before; empty asks for the first one.
        """
        ...

    async def user(
        self, user_id: str, *, max_age: timedelta | None = None
    ) -> Answer[UserWishes | None]:
        """Returns one user, or none who is not there; perhaps as it was a while ago.

        Args:
            max_age: An older answer is told only while the source is away; unset means as long as
                answers are used again.
        """
        ...

    async def groups(
        self, feature_type: str, *, max_age: timedelta | None = None
    ) -> Answer[Sequence[WishGroup] | None]:
        """Returns how many users wish which schedule; perhaps as it was a while ago.

        None means that the source does not tell it of this feature.

        Args:
            max_age: As of ``user``.
        """
        ...

    async def newest_change(self) -> str:
        """Returns the id after which everything that changes from now on is found."""
        ...

    async def changes(self, since_id: str) -> WishChanges | None:
        """Returns who changed after a change, oldest first.

        Returns:
            The changes, or none when the source does not know the id any more: read all users.
        """
        ...


class TemplateService(Protocol):
    """Knows how requests are to be processed.

    Every method raises SourceUnavailable when the templates are not known yet.
    """

    async def get(self, template_id: str) -> Template | None:
        """Returns the template, or none."""
        ...

    async def all(self) -> Sequence[Template]:
        """Returns every template, by id."""
        ...


class OutsideTemplates(Protocol):
    """A service that has the templates."""

    async def read(self, before: Mapping[str, Template]) -> ReadTemplates | None:
        """Returns all templates, or none when nothing has changed since the last reading.

        Args:
            before: What was read before, by id.

        Raises:
            SourceUnavailable: the service is away, or answers what cannot be read.
        """
        ...

    async def close(self) -> None:
        """Ends the connections."""
        ...


class Notifier(Protocol):
    """Sends messages to one target that the operator allows."""

    async def send(self, message: Message) -> None:
        """Returns when the target has taken the message.

        Raises:
            NotSent: it has not, as far as is known. It may have got it all the same.
        """
        ...

    async def close(self) -> None:
        """Ends the connections."""
        ...


# Not frozen, as values are elsewhere: one of each is made for every attempt, and a frozen one takes
# three times as long to make.
@dataclass(slots=True, kw_only=True)
class ItemCall:
    """One attempt at one item, as a processor sees it. It is there to be read.

    Attributes:
        data: The item's input, parsed JSON.
        attempt: Counts from 1.
        idempotency_key: The same on every attempt at the item.
        parameters: Of the template.
        due_time: When the batch was due, if a schedule or a backfill made it.
        overrides: What counts for the item's user; the template's own defaults where the work is
            for no user, or for several, whose overrides are in the data.
    """

    batch_id: str
    tenant_id: str
    item_id: str
    user_id: str | None
    data: Any
    attempt: int
    idempotency_key: str
    parameters: Mapping[str, Any]
    operation: str = ""
    model: str = ""
    batch_metadata: Mapping[str, Any] = field(default_factory=dict)
    due_time: datetime | None = None
    overrides: Mapping[str, Any] = field(default_factory=dict)


@dataclass(slots=True, kw_only=True)
class ItemResult:
    """What a processor made of an item.

    Attributes:
        value: Anything that JSON can hold.
        quality_score: 0 to 1, when the processor rates its results.
    """

    value: Any
    quality_score: float | None = None


class Processor(Protocol):
    """Does the work of one item. Found in a registry by name, or by an entry point.

    The same item may come again after a crash, with the same ``idempotency_key``: a processor
    with side effects hands that key on, or checks it.

    One that keeps a processor core busy says so with an attribute ``cpu_bound = True``. It then
    works in child processes, which are killed when an attempt takes too long; anywhere else it
    would hold up the whole server, and nothing could stop it. Each child builds it anew, so that
    what one attempt leaves in memory need not be there for the next.
    """

    def check(self, template: Template) -> Sequence[str]:
        """Returns what is wrong with a template's parameters, as sentences; none if all is well."""
        ...

    async def process(self, call: ItemCall) -> ItemResult:
        """Processes one item.

        Raises:
            ItemFailed: the attempt failed; it says whether another may succeed.
            ItemSkipped: there is nothing to do for this item.
            Exception: anything else counts as failed and retryable.
        """
        ...


def is_cpu_bound(processor: Processor) -> bool:
    """Tells whether a processor says that it keeps a processor core busy."""
    return bool(getattr(processor, "cpu_bound", False))


class Meter(Protocol):
    """Counts what happens, for whoever watches the server; it must not block."""

    def users_validated(self, verdicts: Mapping[UserVerdict, int]) -> None:
        """Counts user ids that were looked up, by what was found."""
        ...

    def references_validated(self, verdicts: Mapping[UserVerdict, int]) -> None:
        """Counts the references in items that were stored, by what was found."""
        ...

    def batch_finished(self, batch: Batch) -> None:
        """Counts a batch that is over, with its items."""
        ...

    def notification_attempted(self, state: NotificationState) -> None:
        """Counts an attempt to send a message to a target; after PENDING it is tried again."""
        ...

    def loop_lagged(self, lag: timedelta) -> None:
        """Takes note of how late the event loop came back to somebody who waited for a time."""
        ...
