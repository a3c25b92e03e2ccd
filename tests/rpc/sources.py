"""What jobs select from, put into the embedded sources of a server."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from batchwork_server.bootstrap import Serving
from batchwork_server.domain.selection import LoadedItem

TENANT = "default"

Thing = Mapping[str, Any]
"""The data of an item; what begins with ``@`` is no data but the argument of ``LoadedItem``."""


async def load_users(server: Serving, *active: str, inactive: tuple[str, ...] = ()) -> None:
    """Makes users known."""
    store = server.application.store
    users = [(user, True) for user in active] + [(user, False) for user in inactive]
    async with store.transaction() as tx:
        await store.users.load(tx, tenant_id=TENANT, users=users, now=datetime.now(UTC))


async def load_category(server: Serving, category: str, things: Mapping[str, Thing]) -> None:
    """Puts things into a category, by their ids."""
    store = server.application.store
    items = [_item(item_id, thing) for item_id, thing in things.items()]
    async with store.transaction() as tx:
        await store.categories.load(
            tx, tenant_id=TENANT, category=category, items=items, now=datetime.now(UTC)
        )


def data_of(*things: Thing) -> list[dict[str, Any]]:
    """Returns the data of things as a processor gets it."""
    return [
        {name: value for name, value in thing.items() if not name.startswith("@")}
        for thing in things
    ]


def _item(item_id: str, thing: Thing) -> LoadedItem:
    arguments = {name[1:]: value for name, value in thing.items() if name.startswith("@")}
    [data] = data_of(thing)
    return LoadedItem(item_id=item_id, data_json=json.dumps(data), **arguments)
