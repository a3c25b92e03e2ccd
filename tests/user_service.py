"""A user service over real HTTP, as docs/user-service.md has it."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from tests.http_service import HttpService, Told


class UserService(HttpService):
    """What the service knows, and how it behaves.

    Attributes:
        users: What it says of each user, by tenant and id.
        asked_for: The ids of each request that asked for any, in order.
    """

    def __init__(self) -> None:
        super().__init__()
        self.users: dict[tuple[str, str], dict[str, Any]] = {}
        self.asked_for: list[list[str]] = []

    def add(self, user_id: str, *, tenant_id: str = "default", active: bool = True) -> None:
        self.users[tenant_id, user_id] = {
            "user_id": user_id,
            "tenant_id": tenant_id,
            "active": active,
        }

    def right(self, target: str, body: bytes) -> Told:
        if target != "/api/v1/users/validate":
            return Told(status=404, body="{}")
        wanted = set(json.loads(body)["user_ids"])
        if wanted:
            self.asked_for.append(json.loads(body)["user_ids"])
        users = [user for (_, user_id), user in self.users.items() if user_id in wanted]
        return Told(body=json.dumps({"users": users}))


@asynccontextmanager
async def user_service() -> AsyncIterator[UserService]:
    """Runs a service for as long as the block does."""
    service = UserService()
    await service.start()
    try:
        yield service
    finally:
        await service.stop()
