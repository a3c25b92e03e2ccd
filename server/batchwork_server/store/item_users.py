"""The users of items that are for several users together."""

from __future__ import annotations

from sqlalchemy.ext.asyncio import AsyncConnection

from batchwork_server.domain.batch import Batch
from batchwork_server.store.statements import run

_SERVED = """
SELECT COUNT(*) FROM item_users u
JOIN outcomes o ON o.batch_key = u.batch_key AND o.item_index = u.item_index
WHERE u.batch_key = ? AND o.state = 'SUCCEEDED'
"""


def names_users_apart(batch: Batch) -> bool:
    """Tells whether the items of a batch are for several users, who stand in their own table."""
    return batch.request.batch_type.removeprefix("PREFERENCE_").startswith("BATCH_")


async def count_served(connection: AsyncConnection, batch: Batch) -> int:
    """Counts the users whose item succeeded, of a batch that gives each user their own."""
    succeeded = batch.counts.succeeded
    if not succeeded or not batch.request.distribution.own or not names_users_apart(batch):
        return succeeded
    [(served,)] = await run(connection, _SERVED, (batch.key,))
    return int(served)
