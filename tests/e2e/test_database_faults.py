"""A database that is full, goes away or drops its callers, and servers that are cut off from it.

Everything goes on by itself: no server is started again, nothing is lost, and every item has one
outcome.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import timedelta
from urllib.parse import urlsplit

import pytest
from batchwork.v1.batch_pb2 import Batch, BatchState
from batchwork.v1.item_pb2 import ItemState
from batchwork_client import Batchwork, StorageFullError, UnavailableError, connect

from tests.e2e.conftest import ServerProcess, StartServer
from tests.e2e.test_kill import assert_counts_are_true
from tests.long import LONG
from tests.postgres import ROLE, PostgresServer
from tests.tcp_proxy import TcpProxy

LEASE = "3"
"""The shortest that there is, in seconds."""

CutOff = Callable[[TcpProxy, ServerProcess], None]


@pytest.fixture
def own_postgres() -> Iterator[PostgresServer]:
    """A PostgreSQL of the test's own, to be stopped and started."""
    with PostgresServer() as server:
        yield server


async def submit(client: Batchwork, *, count: int, text: str = "") -> Batch:
    """Creates a batch of items that take 20 ms each."""
    items = [(f"item-{n}", {"text": text}) for n in range(count)]
    return await client.batches.create_batch(items, template_id="paced")


async def outcomes_of(client: Batchwork, batch: Batch) -> Counter[tuple[object, ...]]:
    """Returns everything that is known of each item, its times included."""
    return Counter(
        [
            (item.item_id, item.state, item.result_json, item.end_time.ToNanoseconds())
            async for item in client.batches.list_items(batch.batch_id)
        ]
    )


async def assert_succeeds_with_each_item_once(client: Batchwork, batch: Batch) -> None:
    async with asyncio.timeout(90):
        done = await client.batches.wait_for_batch(batch.batch_id)
    outcomes = await outcomes_of(client, batch)

    total = batch.counts.total
    assert done.state == BatchState.BATCH_STATE_SUCCEEDED
    assert done.counts.succeeded == done.counts.total == total
    assert Counter((item_id, state, result) for item_id, state, result, _ in outcomes) == Counter(
        (f"item-{n}", ItemState.ITEM_STATE_SUCCEEDED, f'{{"item":"item-{n}"}}')
        for n in range(total)
    )
    assert outcomes.total() == total


def through(proxy: TcpProxy, database_url: str) -> str:
    """Returns the URL of a database as seen through the proxy."""
    name = urlsplit(database_url).path
    return f"postgresql://{ROLE}@127.0.0.1:{proxy.port}{name}"


async def assert_is_unfinished(client: Batchwork, batch: Batch) -> None:
    now = await client.batches.get_batch(batch.batch_id)
    assert now.counts.succeeded < now.counts.total


async def test_full_disk_refuses_new_work_and_what_runs_goes_on_when_there_is_space(
    start_server: StartServer, sqlite_url: str
):
    server = await start_server(sqlite_url, BATCH_MAX_CONCURRENT_ITEMS="5")
    async with connect(server.target) as client:
        batch = await submit(client, count=600, text="x" * 1000)
        await server.until_processed(50)

        server.limit_file_size(256 * 1024)  # the log of the database is far beyond it
        await server.until_logged("QUOTA_STORAGE")

        with pytest.raises(StorageFullError) as refusal:
            await submit(client, count=1)
        assert refusal.value.retry_after is not None
        await assert_is_unfinished(client, batch)

        server.lift_file_size()
        await assert_succeeds_with_each_item_once(client, batch)
        accepted_again = await submit(client, count=1)
        await assert_succeeds_with_each_item_once(client, accepted_again)
    assert await server.terminate() == 0
    await assert_counts_are_true(sqlite_url, batch.batch_id)


async def test_low_disk_refuses_new_work_and_records_what_runs(
    start_server: StartServer, sqlite_url: str
):
    server = await start_server(sqlite_url)
    async with connect(server.target) as client:
        batch = await submit(client, count=100)
    await server.kill()

    server = await start_server(sqlite_url, BATCHWORK_MIN_FREE_BYTES=str(2**62))
    async with connect(server.target) as client:
        with pytest.raises(StorageFullError, match="BATCHWORK_MIN_FREE_BYTES"):
            await submit(client, count=1)
        await assert_succeeds_with_each_item_once(client, batch)


@pytest.mark.parametrize(
    "seconds",
    [
        pytest.param(3, id="for three seconds"),
        pytest.param(
            45,
            id="longer than a lease",
            marks=pytest.mark.skipif(not LONG, reason="takes a minute"),
        ),
    ],
)
async def test_postgresql_that_goes_away_pauses_the_work_and_nothing_else(
    start_server: StartServer, own_postgres: PostgresServer, seconds: int
):
    url = own_postgres.create_database("batchwork")
    server = await start_server(url, BATCH_MAX_CONCURRENT_ITEMS="5")
    async with connect(server.target) as client:
        batch = await submit(client, count=1000)
        await server.until_processed(100)

        await asyncio.to_thread(own_postgres.halt)
        with pytest.raises(UnavailableError) as refusal:
            await client.batches.get_batch(batch.batch_id)
        await asyncio.sleep(seconds)  # how long it is away is what this is about
        await asyncio.to_thread(own_postgres.start)

        assert refusal.value.retry_after is not None
        await assert_is_unfinished(client, batch)
        await assert_succeeds_with_each_item_once(client, batch)
    assert await server.terminate() == 0
    await assert_counts_are_true(url, batch.batch_id)


async def test_standby_that_is_promoted_has_all_that_was_acknowledged(start_server: StartServer):
    durable = {"synchronous_commit": "on"}
    with (
        PostgresServer(settings=durable) as primary,
        PostgresServer(settings=durable, standby_of=primary) as standby,
    ):
        url = primary.create_database("batchwork")
        primary.acknowledge_with_standby()
        async with TcpProxy(primary.socket()) as proxy:
            server = await start_server(through(proxy, url), BATCH_MAX_CONCURRENT_ITEMS="5")
            async with connect(server.target) as client:
                batch = await submit(client, count=500)
                await server.until_processed(100)
                last = await submit(client, count=5)  # acknowledged a moment before the end

                await asyncio.to_thread(primary.kill)
                await asyncio.to_thread(standby.promote)
                proxy.target = standby.socket()

                await assert_is_unfinished(client, batch)
                await assert_succeeds_with_each_item_once(client, batch)
                await assert_succeeds_with_each_item_once(client, last)
            assert await server.terminate() == 0
        await assert_counts_are_true(standby.url("batchwork"), batch.batch_id)


async def test_storm_of_dropped_connections_leaves_nothing_stuck(
    start_server: StartServer, own_postgres: PostgresServer
):
    url = own_postgres.create_database("batchwork")
    server = await start_server(url, BATCH_MAX_CONCURRENT_ITEMS="2")
    async with connect(server.target) as client:
        batch = await submit(client, count=700)
        await server.until_processed(10)

        for _ in range(12):
            await asyncio.to_thread(own_postgres.drop_connections, "batchwork")
            await asyncio.sleep(0.5)  # the beat of the storm

        await assert_is_unfinished(client, batch)
        await assert_succeeds_with_each_item_once(client, batch)
    assert await server.terminate() == 0
    await assert_counts_are_true(url, batch.batch_id)


async def test_slow_line_to_the_database_only_takes_longer(
    start_server: StartServer, postgres: PostgresServer, postgresql_url: str
):
    async with TcpProxy(postgres.socket()) as proxy:
        server = await start_server(through(proxy, postgresql_url))
        async with connect(server.target) as client:
            proxy.delay = timedelta(milliseconds=20)
            batch = await submit(client, count=200)
            await assert_succeeds_with_each_item_once(client, batch)
        assert await server.terminate() == 0
    await assert_counts_are_true(postgresql_url, batch.batch_id)


async def test_server_that_falls_asleep_before_its_commit_writes_nothing_late(
    start_server: StartServer, postgresql_url: str
):
    first = await start_server(
        postgresql_url, BATCHWORK_LEASE=LEASE, TEST_FAILPOINT="record.begun=sleep:1"
    )
    async with connect(first.target) as client:
        batch = await submit(client, count=100)
    await first.until_frozen()

    second = await start_server(postgresql_url, BATCHWORK_LEASE=LEASE)
    async with connect(second.target) as client:
        await assert_succeeds_with_each_item_once(client, batch)
        outcomes = await outcomes_of(client, batch)
        first.thaw()
        await first.until_logged("chunk.lost")

        later = await submit(client, count=5)
        await assert_succeeds_with_each_item_once(client, later)
        assert await outcomes_of(client, batch) == outcomes
    assert await first.terminate() == 0
    assert await second.terminate() == 0
    await assert_counts_are_true(postgresql_url, batch.batch_id)


@pytest.mark.parametrize(
    ("cut_off", "restore"),
    [
        pytest.param(
            lambda proxy, _: proxy.pause(), lambda proxy, _: proxy.resume(), id="silent line"
        ),
        pytest.param(lambda proxy, _: proxy.cut(), lambda proxy, _: proxy.mend(), id="cut line"),
        pytest.param(
            lambda _, server: server.freeze(), lambda _, server: server.thaw(), id="frozen"
        ),
    ],
)
async def test_server_that_is_cut_off_loses_its_work_to_a_peer_and_writes_nothing_late(
    start_server: StartServer,
    postgres: PostgresServer,
    postgresql_url: str,
    cut_off: CutOff,
    restore: CutOff,
):
    async with TcpProxy(postgres.socket()) as proxy:
        proxy.given_up_after = timedelta(seconds=float(LEASE))
        first = await start_server(
            through(proxy, postgresql_url), BATCHWORK_LEASE=LEASE, BATCH_MAX_CONCURRENT_ITEMS="5"
        )
        async with connect(first.target) as client:
            batch = await submit(client, count=400)
        await first.until_processed(50)

        cut_off(proxy, first)
        await asyncio.sleep(float(LEASE))  # a peer looks for leases that are over when it starts
        second = await start_server(postgresql_url, BATCHWORK_LEASE=LEASE)
        async with connect(second.target) as client:
            await assert_succeeds_with_each_item_once(client, batch)
            outcomes = await outcomes_of(client, batch)
        assert await second.terminate() == 0

        restore(proxy, first)
        await first.until_logged("chunk.lost")
        async with connect(first.target) as client:
            later = await submit(client, count=5)  # recorded after whatever it had left to write
            await assert_succeeds_with_each_item_once(client, later)
            assert await outcomes_of(client, batch) == outcomes
        assert await first.terminate() == 0
    await assert_counts_are_true(postgresql_url, batch.batch_id)


async def test_server_that_is_told_to_stop_while_its_disk_is_full_stops_well(
    start_server: StartServer, sqlite_url: str
):
    # The story: it ended with the exit code of wrong settings.
    server = await start_server(sqlite_url, BATCH_MAX_CONCURRENT_ITEMS="5")
    async with connect(server.target) as client:
        batch = await submit(client, count=600, text="x" * 1000)
        await server.until_processed(50)
        server.limit_file_size(256 * 1024)
        await server.until_logged("QUOTA_STORAGE")

    assert await server.terminate() == 0

    server = await start_server(sqlite_url)
    async with connect(server.target) as client:
        await assert_succeeds_with_each_item_once(client, batch)


@pytest.mark.parametrize(
    "cut_off",
    [
        pytest.param(
            TcpProxy.pause,
            id="silent line",
            marks=pytest.mark.skipif(not LONG, reason="takes half a minute"),
        ),
        pytest.param(TcpProxy.cut, id="cut line"),
    ],
)
async def test_server_that_is_told_to_stop_while_its_database_is_away_stops_well(
    start_server: StartServer,
    postgres: PostgresServer,
    postgresql_url: str,
    cut_off: Callable[[TcpProxy], None],
):
    async with TcpProxy(postgres.socket()) as proxy:
        proxy.given_up_after = timedelta(seconds=float(LEASE))
        first = await start_server(through(proxy, postgresql_url), BATCHWORK_LEASE=LEASE)
        async with connect(first.target) as client:
            batch = await submit(client, count=400)
        await first.until_processed(50)

        cut_off(proxy)

        assert await first.terminate() == 0

    second = await start_server(postgresql_url, BATCHWORK_LEASE=LEASE)
    async with connect(second.target) as client:
        await assert_succeeds_with_each_item_once(client, batch)
