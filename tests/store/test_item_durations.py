"""How long items take is kept by tenant and template, for every server."""

from __future__ import annotations

import asyncio
from datetime import timedelta

from batchwork_server.domain.item_durations import MeasuredAttempts
from batchwork_server.store.item_durations import LONGEST_MEMORY
from batchwork_server.store.sql_store import SqlStore

from tests.factories import TENANT
from tests.fakes import START

SECOND = 1_000_000


def measured(
    count: int, seconds: int, template_id: str = "welcome", *, tenant_id: str = TENANT
) -> MeasuredAttempts:
    """Says that attempts took so many seconds each."""
    return MeasuredAttempts(
        tenant_id=tenant_id, template_id=template_id, count=count, micros=count * seconds * SECOND
    )


async def mean(
    store: SqlStore, template_id: str = "welcome", *, tenant_id: str = TENANT
) -> timedelta | None:
    return await store.item_durations.mean(template_id, tenant_id=tenant_id)


async def test_nothing_is_known_of_a_template_that_nobody_used(store: SqlStore):
    await store.item_durations.learn([measured(1, 2, "other")], now=START)
    await store.item_durations.learn([measured(1, 2, tenant_id="acme")], now=START)

    assert await mean(store) is None


async def test_every_attempt_counts(store: SqlStore):
    await store.item_durations.learn([measured(30, 10), measured(1, 7, "other")], now=START)
    await store.item_durations.learn([measured(10, 2)], now=START)

    assert await mean(store) == timedelta(seconds=8)
    assert await mean(store, "other") == timedelta(seconds=7)


async def test_what_is_long_ago_counts_less_than_what_is_now(store: SqlStore):
    await store.item_durations.learn([measured(100 * LONGEST_MEMORY, 10)], now=START)
    await store.item_durations.learn([measured(LONGEST_MEMORY, 2)], now=START)

    assert await mean(store) == timedelta(seconds=6)


async def test_servers_learn_at_once_without_losing_a_word(store: SqlStore):
    names = [f"template-{number}" for number in range(20)]
    words = [[measured(1, 4, name) for name in names], [measured(1, 8, name) for name in names]]

    await asyncio.gather(
        store.item_durations.learn(words[0], now=START),
        store.item_durations.learn(reversed(words[1]), now=START),
    )

    assert {await mean(store, name) for name in names} == {timedelta(seconds=6)}
