"""The process dies at each named point: nothing accepted is lost, nothing counts twice."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import sqlite3
from collections.abc import Awaitable, Callable
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from batchwork.v1.batch_pb2 import Batch, BatchOptions, BatchState
from batchwork.v1.preference_pb2 import Preference
from batchwork.v1.schedule_pb2 import HourlyCadence, Schedule
from batchwork_client import Batchwork, BatchworkError, Patience, connect
from batchwork_server.failpoints import POINTS

from tests.e2e.conftest import ServerProcess, StartServer
from tests.e2e.test_kill import assert_counts_are_true
from tests.webhook_receiver import SECRET, webhook_receiver

SOURCES = Path(__file__).parents[2] / "server" / "batchwork_server"
ITEMS = 120

Change = Callable[[Batchwork, str], Awaitable[object]]

IN_THE_WORK = [
    "create.committed=kill",
    "claim.committed=kill:1",
    "processor.succeeded=kill:30",
    "record.begun=kill:1",
    "record.committed=kill:1",
    "record.committed=exit:2",
]
IN_THE_SCHEDULER = "fire.committed"
IN_A_GROUP = "fill.committed"
IN_THE_OUTBOX = "notification.sent"
IN_AN_UPLOAD = ["upload.committed", "seal.committed"]
CHANGES: dict[str, Change] = {
    "pause.committed": lambda client, batch_id: client.batches.pause_batch(batch_id),
    "resume.committed": lambda client, batch_id: client.batches.resume_batch(batch_id),
    "cancel.committed": lambda client, batch_id: client.batches.cancel_batch(batch_id),
    "close.committed": lambda client, batch_id: client.batches.cancel_batch(batch_id),
    "retry.committed": lambda client, batch_id: client.batches.retry_batch(
        batch_id, item_ids=["error-0"]
    ),
    "retention.committed": lambda client, batch_id: client.batches.delete_batch(batch_id),
}


def connect_to_die(server: ServerProcess) -> Batchwork:
    """Returns a client that does not call again, for nobody will be there."""
    return connect(server.target, options=[("grpc.enable_retries", 0)])


async def submit(client: Batchwork, batch_id: str, *, template_id: str = "telling") -> Batch:
    items = [(f"item-{n}", {"n": n}) for n in range(ITEMS)]
    if template_id == "faulty":
        items.append(("error-0", {}))
    return await client.batches.create_batch(
        items,
        batch_id=batch_id,
        request_id="the-one-request",
        template_id=template_id,
        options=BatchOptions(chunk_size=10, retry_limit=0),
    )


async def until(client: Batchwork, batch_id: str, *states: BatchState.ValueType) -> Batch:
    async with asyncio.timeout(60):
        while True:
            batch = await client.batches.get_batch(batch_id)
            if batch.state in states:
                return batch
            await asyncio.sleep(0.02)


@pytest.mark.parametrize("failpoint", IN_THE_WORK)
async def test_a_death_in_the_work_loses_nothing_and_counts_nothing_twice(
    start_server: StartServer, sqlite_url: str, failpoint: str
):
    server = await start_server(sqlite_url, TEST_FAILPOINT=failpoint)
    async with connect_to_die(server) as client:
        with contextlib.suppress(BatchworkError):  # it may die before it answers
            await submit(client, "the-batch")
        code = await server.ended()
    processed = server.processed
    await assert_counts_are_true(sqlite_url, "the-batch")

    server = await start_server(sqlite_url)
    async with connect(server.target) as client:
        same = await submit(client, "the-batch")
        batch = await client.batches.wait_for_batch("the-batch")
        attempts = [item.attempt_count async for item in client.batches.list_items(batch.batch_id)]
    assert await server.terminate() == 0

    assert code in (-9, 70)
    assert same.batch_id == "the-batch"
    assert batch.counts.succeeded == batch.counts.total == ITEMS
    assert attempts == [1] * ITEMS, "an interrupted attempt is given back"
    keys = {f"the-batch/item-{n}" for n in range(ITEMS)}
    assert keys == set(processed + server.processed)
    await assert_counts_are_true(sqlite_url, "the-batch")


async def test_an_item_runs_again_with_its_key_after_a_death_before_its_commit(
    start_server: StartServer, sqlite_url: str
):
    server = await start_server(sqlite_url, TEST_FAILPOINT="processor.succeeded=kill:5")
    async with connect_to_die(server) as client:
        with contextlib.suppress(BatchworkError):
            await submit(client, "the-batch")
        await server.ended()
    first = server.processed

    server = await start_server(sqlite_url)
    async with connect(server.target) as client:
        batch = await client.batches.wait_for_batch("the-batch")
    await server.terminate()

    again = set(first) & set(server.processed)
    assert again, "what had succeeded and was not committed ran again under the same key"
    assert batch.counts.succeeded == ITEMS


@pytest.mark.parametrize("point", sorted(CHANGES))
async def test_a_death_after_a_change_of_state_keeps_the_change(
    start_server: StartServer, sqlite_url: str, point: str
):
    over = point in ("retry.committed", "retention.committed")
    server = await start_server(sqlite_url)
    async with connect(server.target) as client:
        await submit(client, "the-batch", template_id="faulty" if over else "slow")
        if over:
            await client.batches.wait_for_batch("the-batch")
        if point == "resume.committed":
            await client.batches.pause_batch("the-batch")
    await server.kill()

    server = await start_server(sqlite_url, TEST_FAILPOINT=f"{point}=kill")
    async with connect_to_die(server) as client:
        with contextlib.suppress(BatchworkError):
            await CHANGES[point](client, "the-batch")
        assert await server.ended() == -9
    if point != "retention.committed":
        await assert_counts_are_true(sqlite_url, "the-batch")

    server = await start_server(sqlite_url)
    async with connect(server.target) as client:
        if point == "retention.committed":
            await _until_no_rows_are_left(sqlite_url)
        else:
            batch = await _after(client, point)
            assert batch.batch_id == "the-batch"
    await server.kill()


async def _after(client: Batchwork, point: str) -> Batch:
    match point:
        case "pause.committed":
            return await until(client, "the-batch", BatchState.BATCH_STATE_PAUSED)
        case "resume.committed":
            return await until(
                client,
                "the-batch",
                BatchState.BATCH_STATE_RUNNING,
                BatchState.BATCH_STATE_PENDING,
            )
        case "retry.committed":
            batch = await client.batches.wait_for_batch("the-batch")
            assert (batch.attempt_number, batch.counts.failed) == (2, 1)
            assert batch.counts.succeeded == ITEMS
            return batch
        case _:
            batch = await until(client, "the-batch", BatchState.BATCH_STATE_CANCELLED)
            assert batch.counts.cancelled == ITEMS
            return batch


async def _until_no_rows_are_left(sqlite_url: str) -> None:
    path = sqlite_url.removeprefix("sqlite:///")
    async with asyncio.timeout(60):
        while True:
            with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as connection:
                counts = [
                    connection.execute(f"SELECT COUNT(*) FROM {table}").fetchone()[0]
                    for table in ("batches", "items", "outcomes", "attempts", "chunks", "events")
                ]
            if not any(counts):
                return
            await asyncio.sleep(0.05)


async def test_what_cannot_be_recorded_is_kept(start_server: StartServer, sqlite_url: str):
    server = await start_server(sqlite_url, TEST_FAILPOINT="record.begun=raise:1")
    async with connect(server.target) as client:
        await submit(client, "the-batch")
        # The point goes on raising: what is done is kept, and nothing of it is lost meanwhile.
        await server.until_logged("chunk.unrecorded")
        batch = await client.batches.get_batch("the-batch")
    await server.kill()

    server = await start_server(sqlite_url)
    async with connect(server.target) as client:
        done = await client.batches.wait_for_batch("the-batch")
    await server.terminate()

    assert batch.counts.failed == 0
    assert done.counts.succeeded == ITEMS


@pytest.mark.parametrize("point", IN_AN_UPLOAD)
async def test_a_death_in_an_upload_costs_no_item_and_doubles_none(
    start_server: StartServer, sqlite_url: str, point: str
):
    items = [(f"item-{n}", {"n": n}) for n in range(ITEMS)]
    hurry = Patience(give_up_after=timedelta(seconds=0.1))
    server = await start_server(sqlite_url, TEST_FAILPOINT=f"{point}=kill")
    async with connect_to_die(server) as client:
        await client.batches.create_batch(batch_id="the-batch", template_id="telling", draft=True)
        with contextlib.suppress(BatchworkError):
            await client.batches.upload_items("the-batch", items, patience=hurry)
            await client.batches.seal_batch(
                "the-batch", expected_count=ITEMS, request_id="the-one-request"
            )
        assert await server.ended() == -9

    server = await start_server(sqlite_url)
    async with connect(server.target) as client:
        draft = await client.batches.get_batch("the-batch")
        if point == "upload.committed":
            answer = await client.batches.upload_items("the-batch", items, offset=0)
            assert (answer.accepted_count, answer.deduplicated_count) == (0, ITEMS)
        await client.batches.seal_batch(
            "the-batch", expected_count=ITEMS, request_id="the-one-request"
        )
        done = await client.batches.wait_for_batch("the-batch")
    await server.terminate()

    assert draft.upload_offset == ITEMS
    assert done.counts.succeeded == done.counts.total == ITEMS
    await assert_counts_are_true(sqlite_url, "the-batch")


async def test_a_death_after_a_job_fired_fires_it_once(start_server: StartServer, sqlite_url: str):
    due = datetime.now(UTC).replace(second=0, microsecond=0) - timedelta(minutes=2)
    job = {
        "id": "job-hourly",
        "type": "individual",
        "category": "posts",
        "template_id": "telling",
        "schedule": {"frequency": "hourly", "minute": due.minute},
    }
    server = await start_server(sqlite_url, TEST_FAILPOINT=f"{IN_THE_SCHEDULER}=kill")
    async with connect_to_die(server) as client:
        await client.jobs.import_jobs(json.dumps({"batch_processing_jobs": [job]}))
    _make_due(sqlite_url, due)
    assert await server.ended() == -9

    server = await start_server(sqlite_url)
    async with connect(server.target) as client:
        [batch] = [each async for each in client.batches.list_batches(job_id="job-hourly")]
        done = await client.batches.wait_for_batch(batch.batch_id)
    await server.terminate()

    assert done.counts.succeeded == done.counts.total == 1
    assert _occurrences(sqlite_url) == [(round(due.timestamp() * 1e6), "CAUGHT_UP", batch.batch_id)]


async def test_a_death_between_pages_of_a_group_serves_everybody_once(
    start_server: StartServer, sqlite_url: str
):
    users = [f"user-{n:04}" for n in range(2500)]  # three pages
    job = {
        "id": "job-digest",
        "type": "preference",
        "feature_type": "digest",
        "template_id": "telling",
    }
    server = await start_server(sqlite_url, TEST_FAILPOINT=f"{IN_A_GROUP}=kill")
    async with connect_to_die(server) as client:
        await client.jobs.import_jobs(json.dumps({"batch_processing_jobs": [job]}))
        _execute(
            sqlite_url,
            "INSERT INTO system_users (tenant_id, user_id, active, create_time)"
            " SELECT 'default', value, true, 0 FROM json_each(?)",
            json.dumps(users),
        )
        schedule = Schedule(hourly=HourlyCadence(minute=(datetime.now(UTC).minute + 30) % 60))
        wishes = [
            Preference(user_id=user, feature_type="digest", enabled=True, schedule=schedule)
            for user in users
        ]
        for first in range(0, len(wishes), 1000):
            await client.preferences.batch_set_preferences(wishes[first : first + 1000])
    await _until_scheduled(sqlite_url)
    _execute(
        sqlite_url,
        "UPDATE group_schedules SET next_due_time = ?",
        round((datetime.now(UTC) - timedelta(seconds=5)).timestamp() * 1e6),
    )
    _execute(sqlite_url, "UPDATE group_schedules SET next_start_time = next_due_time")
    assert await server.ended() == -9

    _execute(sqlite_url, "UPDATE group_schedules SET next_start_time = 1")  # its lease is over
    server = await start_server(sqlite_url)
    async with connect(server.target) as client:
        [batch] = [each async for each in client.batches.list_batches(job_id="job-digest")]
        done = await client.batches.wait_for_batch(batch.batch_id)
    await server.terminate()

    assert done.counts.succeeded == done.counts.total == len(users)
    await assert_counts_are_true(sqlite_url, batch.batch_id)


async def _until_scheduled(sqlite_url: str) -> None:
    """Waits for the server's own look at what has changed."""
    async with asyncio.timeout(60):
        while not _execute(sqlite_url, "SELECT 1 FROM group_schedules"):
            await asyncio.sleep(0.1)


def _execute(sqlite_url: str, sql: str, *values: object) -> list[tuple[object, ...]]:
    path = sqlite_url.removeprefix("sqlite:///")
    with closing(sqlite3.connect(path, timeout=30)) as connection, connection:
        return connection.execute(sql, values).fetchall()


def _make_due(sqlite_url: str, due: datetime) -> None:
    """Gives the job something to do, and makes it due, as if no server had run since."""
    moment = round(due.timestamp() * 1e6)
    path = sqlite_url.removeprefix("sqlite:///")
    with closing(sqlite3.connect(path, timeout=30)) as connection, connection:
        connection.execute(
            "INSERT INTO category_items (tenant_id, category, item_id, data_json, create_time)"
            " VALUES ('default', 'posts', 'post-1', '{}', 0)"
        )
        connection.execute("UPDATE jobs SET next_due_time = ?, next_start_time = ?", (moment,) * 2)


def _occurrences(sqlite_url: str) -> list[tuple[int, str, str]]:
    path = sqlite_url.removeprefix("sqlite:///")
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as connection:
        return connection.execute("SELECT due_time, decision, batch_id FROM occurrences").fetchall()


async def test_what_was_sent_is_sent_again_under_its_id_after_a_death_before_that_is_known(
    start_server: StartServer, sqlite_url: str, tmp_path: Path
):
    async with webhook_receiver() as receiver:
        targets = tmp_path / "notifications.json"
        ops = {"name": "ops", "url": receiver.url, "secret": SECRET, "default": True}
        targets.write_text(json.dumps({"allow_private_addresses": True, "targets": [ops]}))
        file = {"BATCHWORK_NOTIFICATIONS_FILE": str(targets)}
        server = await start_server(sqlite_url, TEST_FAILPOINT=f"{IN_THE_OUTBOX}=kill", **file)
        async with connect_to_die(server) as client:
            with contextlib.suppress(BatchworkError):  # it may die before it answers
                await client.batches.create_batch(
                    [("item-1", {})],
                    batch_id="the-batch",
                    template_id="telling",
                    options=BatchOptions(notify_on_complete=True),
                )
            code = await server.ended()
        [(state, attempts)] = _execute(sqlite_url, "SELECT state, attempts FROM notifications")
        _execute(sqlite_url, "UPDATE notifications SET next_attempt_time = 0")  # its lease is over

        server = await start_server(sqlite_url, **file)
        first, second = await receiver.until(2)
        assert await server.terminate() == 0

    assert (code, state, attempts) == (-9, "PENDING", 1)
    assert first.id == second.id
    assert first.body == second.body
    assert first.json["data"]["batch_id"] == "the-batch"
    assert _execute(sqlite_url, "SELECT state FROM notifications") == [("SENT",)]


def test_every_point_is_reached_by_the_server_and_used_by_a_test():
    in_the_work = {text.partition("=")[0] for text in IN_THE_WORK}
    used = (
        in_the_work | CHANGES.keys() | {*IN_AN_UPLOAD, IN_THE_SCHEDULER, IN_A_GROUP, IN_THE_OUTBOX}
    )
    source = "\n".join(path.read_text() for path in SOURCES.rglob("*.py"))
    reached = set(re.findall(r"reach\(\"([a-z.]+)\"\)", source))

    assert used == POINTS
    assert reached == POINTS


def test_no_code_of_the_server_arms_a_point():
    armed = [path for path in SOURCES.rglob("*.py") if "failpoints.arm" in path.read_text()]

    assert armed == []
