"""What users wish, from a Config Database over HTTP."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from functools import partial
from typing import TypeVar

from batchwork_server.adapters.config_answers import (
    WrongAnswer,
    read_changes,
    read_groups,
    read_last_id,
    read_page,
    read_user,
)
from batchwork_server.adapters.http_source import HttpSource, Reply
from batchwork_server.adapters.stale_cache import StaleCache
from batchwork_server.clock import Clock
from batchwork_server.domain.config_source import (
    Answer,
    UserWishes,
    WishChanges,
    WishGroup,
    WishPage,
)
from batchwork_server.errors import SourceUnavailable, Violation

NAME = "Config Database"

_Value = TypeVar("_Value")

_MOST_USERS_KEPT = 10_000
_MOST_GROUPS_KEPT = 1_000
_AT_ONCE = 8
"""So many users at most are asked for at once."""


class HttpConfigDatabase:
    """Implements ``ConfigDatabase``. Called ConfigDatabaseClient in the requirement documents.

    One user and groups are kept for a while (``cache_ttl``), and told after it while the service
    is away. Pages of all users and changes are always asked for.

    Args:
        url: The service, such as ``https://config.example.com/api/v1``.
        api_key: Sent as ``Authorization: Bearer``; empty sends none.
        config_key: The documents that are read.
        timeout: For one attempt, from the connection to the last byte.
    """

    def __init__(
        self,
        *,
        url: str,
        api_key: str,
        config_key: str,
        timeout: timedelta,
        cache_ttl: timedelta,
        clock: Clock,
    ) -> None:
        self._source = HttpSource(
            name=NAME,
            page="docs/config-service.md",
            url=url,
            url_setting="CONFIG_SERVICE_URL",
            api_key=api_key,
            key_setting="CONFIG_SERVICE_API_KEY",
            timeout=timeout,
            clock=clock,
        )
        self._config_key = config_key
        self._users: StaleCache[UserWishes | None] = StaleCache(
            ttl=cache_ttl, most=_MOST_USERS_KEPT, clock=clock
        )
        self._groups: StaleCache[Sequence[WishGroup] | None] = StaleCache(
            ttl=cache_ttl, most=_MOST_GROUPS_KEPT, clock=clock
        )
        self._asking = asyncio.Semaphore(_AT_ONCE)

    async def all_users(self, *, page_token: str = "") -> WishPage:
        parameters = {"page_token": page_token} if page_token else {}
        reply = await self._source.get(
            "config", "configs", self._config_key, "all-tenants", **parameters
        )
        return await _read(reply, partial(read_page, config_key=self._config_key))

    async def user(
        self, user_id: str, *, max_age: timedelta | None = None
    ) -> Answer[UserWishes | None]:
        read = partial(self._read_user, user_id)
        return await self._users.get(user_id, read, max_age=max_age)

    async def groups(
        self, feature_type: str, *, max_age: timedelta | None = None
    ) -> Answer[Sequence[WishGroup] | None]:
        read = partial(self._read_groups, feature_type)
        return await self._groups.get(feature_type, read, max_age=max_age)

    async def newest_change(self) -> str:
        return await _read(await self._source.get("preferences", "changes"), read_last_id)

    async def changes(self, since_id: str) -> WishChanges | None:
        reply = await self._source.get("preferences", "changes", since_id=since_id)
        if reply.status == 410:
            return None
        read = partial(read_changes, since_id=since_id, config_key=self._config_key)
        told = await _read(reply, read)
        users, problems = await self._filled(told.users)
        for user in users:
            self._users.put(user.user_id, user)
        return WishChanges(
            users=users,
            last_id=told.last_id,
            problems=[*told.problems, *problems],
            more_follow=told.more_follow,
        )

    async def _filled(
        self, told: Mapping[str, UserWishes | None]
    ) -> tuple[list[UserWishes], list[Violation]]:
        """Asks for the users of whom only the name was told; a broken one loses no other."""
        asked = await asyncio.gather(
            *(self._ask(user_id) for user_id, user in told.items() if user is None)
        )
        known = [user for user in told.values() if user is not None]
        users = [answer for answer in asked if isinstance(answer, UserWishes)]
        return known + users, [answer for answer in asked if isinstance(answer, Violation)]

    async def _ask(self, user_id: str) -> UserWishes | Violation:
        try:
            return await self._read_user(user_id) or UserWishes(user_id=user_id)
        except UnreadableAnswer as error:
            return Violation(f"tenants/{user_id}", error.message)

    async def close(self) -> None:
        """Ends the connections."""
        await self._source.close()

    async def _read_user(self, user_id: str) -> UserWishes | None:
        async with self._asking:
            reply = await self._source.get("tenants", user_id, "configs", self._config_key)
        if reply.status != 200:
            return None
        return await _read(reply, partial(read_user, user_id=user_id, config_key=self._config_key))

    async def _read_groups(self, feature_type: str) -> Sequence[WishGroup] | None:
        reply = await self._source.get("preferences", "groups", feature_type=feature_type)
        if reply.status == 404:
            return None
        return await _read(reply, partial(read_groups, feature_type=feature_type))


class UnreadableAnswer(SourceUnavailable):
    """The service is there, but what it answers is not what it should be."""

    def __init__(self, reply: Reply, problems: str) -> None:
        super().__init__(
            f"{NAME} answered GET {reply.url} with what cannot be read: {problems} "
            "docs/config-service.md has the shapes."
        )


async def _read(reply: Reply, read: Callable[[str], _Value]) -> _Value:
    """Reads an answer in a thread: a large one takes seconds."""
    if reply.status != 200:
        raise SourceUnavailable(
            f"Error connecting to {NAME}: GET {reply.url} was answered with {reply.status}. "
            "Check CONFIG_SERVICE_URL and CONFIG_PREFERENCES_KEY."
        )
    try:
        return await asyncio.to_thread(read, reply.text)
    except WrongAnswer as error:
        raise UnreadableAnswer(reply, str(error)) from error
