"""P7: whether a great many users are there, asked through the API."""

from __future__ import annotations

import time

from batchwork_server.clock import SystemClock
from batchwork_server.store.database import open_database
from batchwork_server.store.users import SqlUsers

from bench.children import child
from bench.measuring import Scale, Verdict, alternate
from bench.user_ids import PAGE, unsorted_ids
from bench.workplace import DatabaseKind, Workplace


async def many_users(
    place: Workplace, scale: Scale, kind: DatabaseKind, target: float
) -> list[Verdict]:
    """P7: StreamValidateUsers with the client package, against the bare statement."""
    name = f"P7 {kind}"
    url = place.database(kind)
    await _load(url, scale.user_ids)
    ids = unsorted_ids(scale.user_ids)
    async with (
        place.service(kind, database=url) as service,
        child("bench.limits.bare_statement", url, log=place.log) as statement,
    ):

        async def validate() -> float:
            begin = time.perf_counter()
            valid = 0
            async for answer in service.client.validation.stream_validate_users(ids):
                valid = answer.running_totals.valid
            if valid != len(ids):
                raise RuntimeError(f"{valid} of {len(ids)} users were found.")
            return len(ids) / (time.perf_counter() - begin)

        async def ask() -> float:
            return len(ids) / float(await statement.ask(str(len(ids))))

        await validate()
        await ask()
        pairs = await alternate(name, runs=scale.runs, unit="ids/s", ours=validate, limit=ask)
    return [Verdict(name=name, target=target, unit="ids/s", pairs=pairs)]


async def _load(url: str, count: int) -> None:
    database = await open_database(url)
    users = SqlUsers(database)
    ids = sorted(unsorted_ids(count))
    now = SystemClock().now()
    for start in range(0, count, PAGE):
        async with database.transaction() as tx:
            page = [(user_id, True) for user_id in ids[start : start + PAGE]]
            await users.load(tx, tenant_id="default", users=page, now=now)
    await database.close()
