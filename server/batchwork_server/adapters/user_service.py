"""Users of a service over HTTP."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from datetime import timedelta
from typing import Any

import orjson

from batchwork_server.adapters.http_source import HttpSource, Reply
from batchwork_server.clock import Clock
from batchwork_server.domain.user import UserVerdict
from batchwork_server.errors import SourceUnavailable

NAME = "user service"
URL_SETTING = "USER_SERVICE_URL"
PAGE = "docs/user-service.md"

IDS_PER_REQUEST = 5_000

_AT_ONCE = 4
"""So many requests at most are under way at once."""


class HttpUserService:
    """Implements ``OutsideUsers`` with a service that answers as docs/user-service.md says.

    Args:
        url: The service, such as ``https://users.example.com/api/v1``.
        api_key: Sent as ``Authorization: Bearer``; empty sends none.
        timeout: For one attempt, from the connection to the last byte.
    """

    def __init__(self, *, url: str, api_key: str, timeout: timedelta, clock: Clock) -> None:
        self._source = HttpSource(
            name=NAME,
            page=PAGE,
            url=url,
            url_setting=URL_SETTING,
            api_key=api_key,
            key_setting="USER_SERVICE_API_KEY",
            timeout=timeout,
            clock=clock,
        )
        self._asking = asyncio.Semaphore(_AT_ONCE)

    async def ping(self) -> None:
        await self._ask([], tenant_id="")

    async def verdicts(
        self, user_ids: Sequence[str], *, tenant_id: str
    ) -> Mapping[str, UserVerdict]:
        distinct = list(dict.fromkeys(user_ids))
        verdicts = dict.fromkeys(distinct, UserVerdict.NOT_FOUND)
        answers: list[Mapping[str, UserVerdict]] = []
        try:
            async with asyncio.TaskGroup() as group:
                asked = [
                    group.create_task(self._ask(some, tenant_id=tenant_id))
                    for some in _some(distinct)
                ]
        except ExceptionGroup as failures:
            raise failures.exceptions[0] from failures
        answers = [task.result() for task in asked]
        for answer in answers:
            verdicts |= {user_id: answer[user_id] for user_id in answer if user_id in verdicts}
        return verdicts

    async def close(self) -> None:
        """Ends the connections."""
        await self._source.close()

    async def _ask(self, user_ids: list[str], *, tenant_id: str) -> Mapping[str, UserVerdict]:
        """Returns the verdict on each user whom the service names."""
        async with self._asking:
            reply = await self._source.post(
                "users", "validate", body={"tenant_id": tenant_id, "user_ids": user_ids}
            )
        if reply.status != 200:
            raise SourceUnavailable(
                f"Error connecting to {NAME}: POST {reply.url} was answered with {reply.status}. "
                f"Check {URL_SETTING}, and see {PAGE}."
            )
        # An answer may have megabytes, and others have work meanwhile.
        return await asyncio.to_thread(_verdicts, reply, tenant_id=tenant_id)


def _some(user_ids: list[str]) -> Iterator[list[str]]:
    for start in range(0, len(user_ids), IDS_PER_REQUEST):
        yield user_ids[start : start + IDS_PER_REQUEST]


_BETTER_LAST = (UserVerdict.WRONG_TENANT, UserVerdict.INACTIVE, UserVerdict.VALID)


def _verdicts(reply: Reply, *, tenant_id: str) -> dict[str, UserVerdict]:
    """Reads an answer. Of several users with one id the best counts."""
    verdicts: dict[str, UserVerdict] = {}
    for index, user in enumerate(_users(reply)):
        user_id, verdict = _verdict(user, reply, path=f"$.users[{index}]", tenant_id=tenant_id)
        known = verdicts.get(user_id, verdict)
        verdicts[user_id] = max(known, verdict, key=_BETTER_LAST.index)
    return verdicts


def _users(reply: Reply) -> list[Any]:
    try:
        answer = orjson.loads(reply.text)
    except orjson.JSONDecodeError as error:
        raise _unreadable(reply, f"it is no JSON: {error}") from error
    users = answer.get("users") if isinstance(answer, dict) else None
    if not isinstance(users, list):
        raise _unreadable(reply, "$.users has to be a list")
    return users


def _verdict(user: Any, reply: Reply, *, path: str, tenant_id: str) -> tuple[str, UserVerdict]:
    if not isinstance(user, dict):
        raise _unreadable(reply, f"{path} has to be an object")
    user_id, active, tenant = (
        user.get("user_id"),
        user.get("active", True),
        user.get("tenant_id", tenant_id),
    )
    if not isinstance(user_id, str):
        raise _unreadable(reply, f"{path}.user_id has to be text")
    if not isinstance(active, bool):
        raise _unreadable(reply, f"{path}.active has to be true or false")
    if not isinstance(tenant, str):
        raise _unreadable(reply, f"{path}.tenant_id has to be text")
    if tenant != tenant_id:
        return user_id, UserVerdict.WRONG_TENANT
    return user_id, UserVerdict.VALID if active else UserVerdict.INACTIVE


def _unreadable(reply: Reply, problem: str) -> SourceUnavailable:
    return SourceUnavailable(
        f"Error reading {NAME}: the answer to POST {reply.url} cannot be used, {problem}; "
        f"see {PAGE}."
    )
