"""A Config Database over real HTTP, which can be slow, wrong, huge, empty, down or flapping."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from tests.http_service import HttpService, Told

KEY = "feature_preferences"


class ConfigService(HttpService):
    """What the service knows, and how it behaves.

    Attributes:
        documents: By user.
        changes: Oldest first, each with its id.
        forgotten: Ids up to this one are not known any more.
        page_size: Of all users; 0 answers a bare list.
        changes_size: So many changes are told at once.
        group_problem: What stands instead of every number of users.
        has_groups: Whether it tells how many users wish which schedule.
    """

    def __init__(self) -> None:
        super().__init__()
        self.documents: dict[str, dict[str, Any]] = {}
        self.changes: list[dict[str, Any]] = []
        self.forgotten = 0
        self.page_size = 0
        self.changes_size = 1000
        self.group_problem: str | None = None
        self.has_groups = True

    def set(self, user_id: str, *, tells: bool = True, **features: Any) -> None:
        """Sets what a user wishes; with ``tells=False`` the change says only who changed."""
        document = {"tenant_id": user_id, "active": True, "features": features}
        self.documents[user_id] = document
        self._changed(document if tells else {"tenant_id": user_id})

    def set_active(self, user_id: str, *, active: bool) -> None:
        self.documents[user_id]["active"] = active
        self._changed(self.documents[user_id])

    def delete(self, user_id: str) -> None:
        del self.documents[user_id]
        self._changed({"tenant_id": user_id, "deleted": True})

    def forget(self) -> None:
        """Forgets every change so far."""
        self.forgotten = len(self.changes)

    def _changed(self, change: Mapping[str, Any]) -> None:
        self.changes.append({"id": len(self.changes) + 1, **change})

    def right(self, target: str, body: bytes) -> Told:
        parts = urlsplit(target)
        query = {name: values[0] for name, values in parse_qs(parts.query).items()}
        match [unquote(segment) for segment in parts.path.split("/")[3:]]:
            case ["config", "configs", key, "all-tenants"] if key == KEY:
                return Told(body=json.dumps(self._page(query.get("page_token", "0"))))
            case ["tenants", user_id, "configs", key] if key == KEY and user_id in self.documents:
                return Told(body=json.dumps(self.documents[user_id]))
            case ["preferences", "groups"] if self.has_groups:
                return Told(body=json.dumps({"groups": self._groups(query["feature_type"])}))
            case ["preferences", "changes"]:
                return self._changes(query.get("since_id"))
        return Told(status=404, body="{}")

    def _page(self, token: str) -> Any:
        documents = list(self.documents.values())
        if not self.page_size:
            return documents
        first = int(token)
        following = first + self.page_size
        more = following < len(documents)
        return {
            "configs": documents[first:following],
            "next_page_token": str(following) if more else "",
        }

    def _groups(self, feature_type: str) -> list[dict[str, Any]]:
        names = ("frequency", "preferred_time", "preferred_day", "time_zone", "minute")
        counts: dict[str, int] = {}
        for document in self.documents.values():
            wish = document["features"].get(feature_type)
            if wish is not None and wish.get("enabled", True):
                group = json.dumps({name: wish[name] for name in names if name in wish})
                counts[group] = counts.get(group, 0) + 1
        return [
            {**json.loads(group), "tenant_count": self.group_problem or count}
            for group, count in counts.items()
        ]

    def _changes(self, since_id: str | None) -> Told:
        newest = len(self.changes)
        if since_id is None:
            return Told(body=json.dumps({"changes": [], "last_id": newest}))
        since = int(since_id)
        if since < self.forgotten:
            return Told(status=410, body="{}")
        page = self.changes[since : since + self.changes_size]
        more = since + len(page) < newest
        return Told(
            body=json.dumps({"changes": page, "last_id": since + len(page), "has_more": more})
        )


@asynccontextmanager
async def config_service() -> AsyncIterator[ConfigService]:
    """Runs a service for as long as the block does."""
    service = ConfigService()
    await service.start()
    try:
        yield service
    finally:
        await service.stop()
