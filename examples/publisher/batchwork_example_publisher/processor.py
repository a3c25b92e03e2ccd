"""Renders the text of a post and publishes it."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from batchwork_server.domain.batch import Template
from batchwork_server.errors import ItemFailed
from batchwork_server.ports import ItemCall, ItemResult
from batchwork_server.processors.render import RenderProcessor

from batchwork_example_publisher.outlet import Outlet

DEFAULT_CHARACTER_LIMIT = 280
LONGEST_POST = 60
"""The most seconds that ``seconds_per_post`` may ask for."""

_OWN_PARAMETERS = frozenset(
    {"character_limit", "busy_share", "always_busy_share", "seconds_per_post"}
)


class PublishProcessor:
    """Publishes one post for an item.

    Parameters of the template, besides ``text`` and ``max_length`` of ``RenderProcessor``:
        ``character_limit``: The longest post that the outlet takes; 280 when unset.
        ``busy_share``: The share of items, 0 to 1, that find the outlet busy on their first
            attempt; 0 when unset.
        ``always_busy_share``: The share of items, 0 to 1, that find it busy on every attempt; 0
            when unset.
        ``seconds_per_post``: How long the outlet takes to answer, 0 to 60; 0 when unset.

    The two shares rehearse what a real outlet does now and then. Which items they hit follows
    from the item's id alone, so that every run of the same items goes the same way.
    """

    def __init__(
        self,
        outlet: Outlet | None = None,
        *,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._render = RenderProcessor()
        self._outlet = outlet or Outlet()
        self._sleep = sleep

    def check(self, template: Template) -> Sequence[str]:
        of_render = {
            name: value
            for name, value in template.parameters.items()
            if name not in _OWN_PARAMETERS
        }
        return [
            *self._render.check(replace(template, parameters=of_render)),
            *_problems(template.parameters),
        ]

    async def process(self, call: ItemCall) -> ItemResult:
        """Publishes the post once, however often the item comes.

        Raises:
            ItemFailed: OUTLET_BUSY, retryable; TEXT_TOO_LONG, not; and what rendering raises.
        """
        await self._sleep(call.parameters.get("seconds_per_post", 0))
        if _is_busy(call):
            raise ItemFailed("OUTLET_BUSY", "The outlet takes no posts right now.", retryable=True)
        text = await self._text(call)
        publication = await self._outlet.publish(text, idempotency_key=call.idempotency_key)
        return ItemResult(value={"publication_id": publication.publication_id, "text": text})

    async def _text(self, call: ItemCall) -> str:
        rendered = await self._render.process(call)
        text: str = rendered.value["text"]
        limit = call.parameters.get("character_limit", DEFAULT_CHARACTER_LIMIT)
        if len(text) > limit:
            raise ItemFailed(
                "TEXT_TOO_LONG", f"The post has {len(text)} characters; the outlet takes {limit}."
            )
        return text


def _is_busy(call: ItemCall) -> bool:
    busy_share: float = call.parameters.get("always_busy_share", 0)
    if call.attempt == 1:
        busy_share += call.parameters.get("busy_share", 0)
    return _draw(call.item_id) < busy_share


def _draw(item_id: str) -> float:
    """Returns a number from 0 to 1 that is always the same for an id, on every machine.

    It leaves the idempotency key alone: that has the id of the batch in it, which is another one
    in every run.
    """
    digest = hashlib.blake2b(item_id.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") / 2**64


def _problems(parameters: Mapping[str, Any]) -> Iterator[str]:
    if not isinstance(parameters.get("text", ""), str):
        yield "text must be one text: a post is not made of several."
    limit = parameters.get("character_limit", DEFAULT_CHARACTER_LIMIT)
    if isinstance(limit, bool) or not isinstance(limit, int) or limit < 1:
        yield f"character_limit is {limit!r}; it must be a whole number from 1 on."
    for name in ("busy_share", "always_busy_share"):
        share = parameters.get(name, 0)
        if not _is_number(share) or not 0 <= share <= 1:
            yield f"{name} is {share!r}; it must be a number from 0 to 1."
    seconds = parameters.get("seconds_per_post", 0)
    if not _is_number(seconds) or not 0 <= seconds <= LONGEST_POST:
        yield f"seconds_per_post is {seconds!r}; it must be a number from 0 to {LONGEST_POST}."


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
