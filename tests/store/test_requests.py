"""The first answer to each request id, on each database."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest
from batchwork_server.errors import RequestIdReused
from batchwork_server.store.sql_store import SqlStore

from tests.fakes import START


async def submit(
    store: SqlStore, *, request_hash: str = "h", answer: int = 1, tenant="t", now=START
):
    """Does what a use case does: replays, or works and remembers."""
    key = {"tenant_id": tenant, "method": "M", "request_id": "r"}
    async with store.transaction() as tx:
        known = await store.requests.replay(tx, **key, request_hash=request_hash, now=now)
        if known is not None:
            return known
        await store.requests.remember(tx, **key, answer={"answer": answer})
    return {"answer": answer}


async def test_the_same_request_gets_the_first_answer(store):
    first = await submit(store, answer=1)
    second = await submit(store, answer=2)

    assert first == second == {"answer": 1}
    found = await store.requests.find(tenant_id="t", method="M", request_id="r", request_hash="h")
    assert found == {"answer": 1}


async def test_a_request_id_with_other_content_is_refused(store):
    await submit(store)

    with pytest.raises(RequestIdReused, match="'r'"):
        await submit(store, request_hash="other")


async def test_tenants_do_not_share_request_ids(store):
    await submit(store, answer=1)

    assert await submit(store, answer=2, tenant="other") == {"answer": 2}


async def test_of_a_hundred_at_once_one_works_and_all_get_its_answer(store):
    answers = await asyncio.gather(*(submit(store, answer=n) for n in range(100)))

    assert len({answer["answer"] for answer in answers}) == 1


async def test_a_request_that_failed_was_not_made(store):
    key = {"tenant_id": "t", "method": "M", "request_id": "r"}

    async def fail() -> None:
        async with store.transaction() as tx:
            await store.requests.replay(tx, **key, request_hash="h", now=START)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await fail()

    assert await submit(store, answer=7) == {"answer": 7}


async def test_old_answers_are_forgotten(store):
    await submit(store)

    assert await store.requests.forget(before=START, limit=10) == 0
    assert await store.requests.forget(before=START + timedelta(seconds=1), limit=10) == 1
    assert await submit(store, answer=2) == {"answer": 2}


async def test_so_many_old_answers_are_forgotten_at_once_the_oldest_first(store):
    for n in range(5):
        await submit(store, answer=n, tenant=f"t{n}", now=START + timedelta(seconds=5 - n))

    removed = [await store.requests.forget(before=START + timedelta(days=1), limit=2)]
    is_kept = [await submit(store, answer=9, tenant=f"t{n}") == {"answer": n} for n in range(5)]
    removed += [
        await store.requests.forget(before=START + timedelta(days=1), limit=limit)
        for limit in (2, 100)
    ]

    assert is_kept == [True, True, True, False, False]
    assert removed == [2, 2, 3]
