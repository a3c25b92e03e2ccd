"""The modes of ``batchwork-server`` as processes: once, scheduler, health."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sqlite3
import sys
from asyncio.subprocess import PIPE, Process
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from batchwork.v1.batch_pb2 import BatchState
from batchwork_client import Batchwork, connect
from batchwork_server.application.loading import Loading, OnError
from batchwork_server.bootstrap import Application, application
from batchwork_server.config import Settings
from batchwork_server.domain.batch import Batch
from batchwork_server.domain.filters import BatchFilter, OccurrenceFilter
from batchwork_server.setting_kinds import Secret

from tests.e2e.conftest import ROOT, StartServer
from tests.e2e.processors import load
from tests.fakes import FakeClock

HOURLY = {"frequency": "hourly", "minute": 30}
GOOD = ["a", "b", "c"]


@dataclass
class Place:
    """A folder with templates, jobs and a database for commands to work on."""

    folder: Path
    database_url: str

    @property
    def templates(self) -> Path:
        return self.folder / "templates_of_commands"

    @property
    def log(self) -> Path:
        return self.folder / "command.log"

    @property
    def logged(self) -> list[dict[str, Any]]:
        """What commands have logged so far as JSON."""
        lines = self.log.read_text().splitlines()
        return [json.loads(line) for line in lines if line.startswith("{")]

    async def until_logged(self, event: str) -> None:
        """Waits until a command has logged such a line."""
        async with asyncio.timeout(60):
            while event not in {line["event"] for line in self.logged}:
                await asyncio.sleep(0.02)

    @property
    def processed(self) -> list[str]:
        """The keys that were processed so far, each as often as it was."""
        words = (line.partition(" ") for line in self.log.read_text().splitlines())
        return [key for word, _, key in words if word == "processed"]

    async def start(self, *arguments: str, **settings: str) -> Process:
        environment = {
            **{k: v for k, v in os.environ.items() if not k.startswith("BATCH")},
            "BATCHWORK_DATABASE_URL": self.database_url,
            "BATCHWORK_TEMPLATES_DIR": str(self.templates),
            **settings,
        }
        with self.log.open("ab") as stderr:
            return await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "tests.e2e.command", *arguments),
                stdout=PIPE,
                stderr=stderr,
                cwd=ROOT,
                env={name: value for name, value in environment.items() if value},
            )

    async def run(self, *arguments: str, **settings: str) -> tuple[int, str]:
        """Runs a command to its end; returns its exit code and what it printed."""
        process = await self.start(*arguments, **settings)
        async with asyncio.timeout(60):
            output, _ = await process.communicate()
        assert process.returncode is not None
        return process.returncode, output.decode()

    @asynccontextmanager
    async def opened(self, *, ago: timedelta = timedelta(0)) -> AsyncIterator[Application]:
        """Opens the database as it was, or as it would have been some time ago."""
        settings = Settings(
            database_url=Secret(self.database_url),
            templates_dir=self.templates,
        )
        clock = FakeClock(datetime.now(UTC) - ago)
        async with application(settings, clock=clock, processors=load()) as app:
            yield app

    async def put(
        self,
        job_id: str = "job-1",
        *,
        items: list[str] = GOOD,
        template_id: str = "faulty",
        ago: timedelta = timedelta(0),
        **fields: Any,
    ) -> None:
        """Stores a job over items of its own; with an age it is as old, and so is what is due."""
        rows = self.folder / "rows.csv"
        rows.write_text("".join(["id,user_id\n", *(f"{item},user-{item}\n" for item in items)]))
        users = self.folder / "users.csv"
        users.write_text("".join(["id\n", *(f"user-{item}\n" for item in items)]))
        job = {
            "id": job_id,
            "type": "individual",
            "category": f"of-{job_id}",
            "template_id": template_id,
            "retry_limit": 0,
        } | fields
        async with self.opened(ago=ago) as app:
            loading = Loading(app.store, FakeClock())
            await loading.load_users(
                users, tenant_id="default", id_column=None, on_error=OnError.ABORT
            )
            await loading.load_category(
                rows,
                tenant_id="default",
                category=f"of-{job_id}",
                id_column=None,
                user_column=None,
                on_error=OnError.ABORT,
            )
            await app.jobs.imports.import_jobs(
                json.dumps({"batch_processing_jobs": [job]}), tenant_id="default"
            )

    async def batches(self) -> list[Batch]:
        """Returns what there is, oldest first."""
        async with self.opened() as app:
            found, _ = await app.store.batches.list(
                BatchFilter(tenant_id=None), page_size=100, after=None
            )
        return list(found)[::-1]

    async def fates(self, job_id: str = "job-1") -> list[str]:
        wanted = OccurrenceFilter(tenant_id="default", job_id=job_id)
        async with self.opened() as app:
            found, _ = await app.store.occurrences.list(wanted, page_size=100, before=None)
        return [each.decision for each in found]

    async def until(self, holds: Callable[[], bool]) -> None:
        async with asyncio.timeout(60):
            while not holds():
                await asyncio.sleep(0.01)


@pytest.fixture
def place(tmp_path: Path, sqlite_url: str) -> Place:
    return make_place(tmp_path, sqlite_url)


def make_place(folder: Path, database_url: str) -> Place:
    place = Place(folder=folder, database_url=database_url)
    place.templates.mkdir()
    for name, template in TEMPLATES.items():
        (place.templates / f"{name}.json").write_text(json.dumps({"template_id": name, **template}))
    return place


TEMPLATES: Mapping[str, dict[str, Any]] = {
    "faulty": {"processor": "faulty"},
    "telling": {"processor": "telling", "parameters": {"seconds": 0.02}},
    "slow": {"processor": "telling", "parameters": {"seconds": 3600}},
}


# once


@pytest.mark.parametrize(
    ("items", "options", "code"),
    [
        pytest.param(GOOD, [], 0, id="all succeed"),
        pytest.param(["a", "error-1"], [], 0, id="one fails"),
        pytest.param(["a", "error-1"], ["--strict"], 1, id="one fails, strictly"),
        pytest.param(["error-1", "error-2"], [], 1, id="all fail"),
    ],
)
async def test_the_exit_code_of_once_says_how_the_run_went(
    place: Place, items: list[str], options: list[str], code: int
):
    await place.put(items=items)

    assert await place.run("once", "job-1", *options) == (code, "")

    [batch] = await place.batches()
    assert (batch.request.job_id, batch.counts.total) == ("job-1", len(items))
    assert batch.state.is_final


async def test_a_job_that_is_not_there_does_not_keep_the_others_from_their_runs(place: Place):
    await place.put()

    assert await place.run("once", "job-none", "job-1", "job-1") == (1, "")

    assert [batch.state for batch in await place.batches()] == ["SUCCEEDED"]
    assert "There is no job 'job-none'" in place.log.read_text()


async def test_once_fires_what_is_due_and_nothing_twice(place: Place):
    await place.put(schedule=HOURLY, ago=timedelta(minutes=61))

    codes = [(await place.run("once"))[0] for _ in range(2)]

    [batch] = await place.batches()
    assert codes == [0, 0]
    assert (batch.request.source, batch.state) == ("schedule", "SUCCEEDED")
    assert [fate for fate in await place.fates() if fate != "SKIPPED"] in (["CAUGHT_UP"], ["FIRED"])


async def test_a_due_run_that_cannot_be_made_is_a_failure(place: Place):
    await place.put(schedule=HOURLY, category="nothing-there", ago=timedelta(minutes=61))

    assert (await place.run("once"))[0] == 1

    assert "There is no category 'nothing-there'" in place.log.read_text()
    assert await place.batches() == []


async def test_the_summary_of_a_run_has_the_keys_of_the_documents(place: Place):
    await place.put(items=["a", "b", "error-1"])

    await place.run("once", "job-1")

    [line] = [line for line in place.logged if line["event"] == "batch.finished"]
    assert line["message"] == "Batch job completed"
    assert (line["job_id"], line["processed"], line["successful"], line["errors"]) == (
        *("job-1", 3, 2, 1),
    )
    assert {"timestamp", "level", "duration", "batch_id", "tenant_id", "skipped"} <= line.keys()


async def test_once_can_be_restricted_to_users(place: Place):
    await place.put(template_id="telling")

    codes = [
        await place.run("once", "job-1", "--user", "user-b", USER_ID_FILTER="user-a"),
        await place.run("once", "job-1", USER_ID_FILTER="user-c"),
    ]

    assert codes == [(0, "")] * 2
    assert [key.rpartition("/")[2] for key in place.processed] == ["b", "c"]


async def test_due_runs_for_one_user_leave_their_due_times_to_all(place: Place):
    await place.put(schedule=HOURLY, template_id="telling", ago=timedelta(minutes=61))

    assert (await place.run(BATCH_MODE="once", USER_ID_FILTER="user-a"))[0] == 0
    assert await place.fates() == []
    assert (await place.run("once"))[0] == 0

    assert [batch.counts.total for batch in await place.batches()] == [1, 3]


@pytest.mark.parametrize(
    ("arguments", "settings", "said"),
    [
        pytest.param(["once", "--tenant", "acme"], {}, "Name jobs as well", id="a tenant alone"),
        pytest.param(
            ["once"],
            {"ENABLE_BATCH_PROCESSING": "false"},
            "ENABLE_BATCH_PROCESSING",
            id="processing is off",
        ),
        pytest.param([], {"BATCH_MODE": "daemon"}, "scheduler, once", id="an unknown mode"),
        pytest.param(["once"], {"DB_PORT": "no", "LOG_LEVEL": "no"}, "DB_PORT", id="settings"),
    ],
)
async def test_what_cannot_be_done_so_is_told_apart_from_a_failure(
    place: Place, arguments: list[str], settings: dict[str, str], said: str
):
    assert (await place.run(*arguments, **settings))[0] == 2

    assert said in place.log.read_text()


async def test_without_a_command_and_a_mode_there_is_help(place: Place):
    code, output = await place.run()

    assert code == 2
    assert all(f" {mode} " in output for mode in ("serve", "scheduler", "once", "health"))


async def test_once_beside_a_server_on_sqlite_is_refused(place: Place, start_server: StartServer):
    await start_server(place.database_url)

    assert (await place.run("once"))[0] == 2

    assert "Another server (process" in place.log.read_text()


async def test_what_a_killed_once_left_is_finished_by_the_next_one(place: Place):
    items = [f"item-{n}" for n in range(200)]
    await place.put(items=items, template_id="telling", schedule=HOURLY, ago=timedelta(minutes=61))
    process = await place.start("once", BATCH_MAX_CONCURRENT_ITEMS="4")
    await place.until(lambda: len(place.processed) >= 30)
    process.kill()
    await process.wait()
    assert len(set(place.processed)) < 200

    assert (await place.run(BATCH_MODE="once"))[0] == 0

    [batch] = await place.batches()
    assert (batch.state, batch.counts.succeeded) == ("SUCCEEDED", 200)
    assert set(place.processed) == {f"{batch.batch_id}/{item}" for item in items}


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_once_that_is_told_to_stop_gives_back_what_it_cannot_finish(
    place: Place, number: signal.Signals
):
    await place.put(template_id="slow")
    process = await place.start("once", "job-1", BATCHWORK_SHUTDOWN_GRACE="0")
    await place.until(lambda: any(line["event"] == "batch.created" for line in place.logged))
    process.send_signal(number)

    assert await process.wait() == 128 + number

    [batch] = await place.batches()
    assert not batch.state.is_final
    assert (batch.counts.pending, batch.counts.failed) == (3, 0)


# scheduler


@pytest.fixture
async def start_scheduler() -> AsyncIterator[Callable[[Place], Awaitable[Process]]]:
    started: list[Process] = []

    async def start(place: Place) -> Process:
        started.append(await place.start("scheduler"))
        await place.until_logged("scheduler.started")  # before, a signal simply ends it
        return started[-1]

    yield start
    for process in started:
        if process.returncode is None:
            process.kill()
            await process.wait()


@pytest.mark.parametrize(
    "processing", [pytest.param("true", id="who fires too"), pytest.param("false", id="for calls")]
)
async def test_a_scheduler_beside_a_server_fires_each_due_time_once(
    start_server: StartServer,
    start_scheduler: Callable[[Place], Awaitable[Process]],
    tmp_path: Path,
    postgresql_url: str,
    processing: str,
):
    place = make_place(tmp_path, postgresql_url)
    await place.put(
        schedule={"frequency": "cron", "expression": "*/10 * * * *"},
        catch_up="all",
        catch_up_window=7200,
        overlap="allow",
        ago=timedelta(minutes=61),
    )

    server, scheduler = await asyncio.gather(
        start_server(postgresql_url, ENABLE_BATCH_PROCESSING=processing), start_scheduler(place)
    )
    async with connect(server.target) as client:
        await until_decided(client, 6)
        made = [batch async for batch in client.batches.list_batches()]
        ended = [await client.batches.wait_for_batch(batch.batch_id) for batch in made]
        occurrences = [each async for each in client.jobs.list_occurrences("job-1")]
    scheduler.terminate()

    assert await scheduler.wait() == 0
    assert {batch.state for batch in ended} == {BatchState.BATCH_STATE_SUCCEEDED}
    decided = Counter(each.batch_id for each in occurrences)
    assert set(decided.values()) == {1}
    assert {batch.batch_id for batch in made} <= decided.keys()  # a second one would not be there


async def until_decided(client: Batchwork, count: int) -> None:
    async with asyncio.timeout(60):
        while len([each async for each in client.jobs.list_occurrences("job-1")]) < count:
            await asyncio.sleep(0.05)


# health


async def health(place: Place, **settings: str) -> tuple[int, str]:
    return await place.run("health", **settings)


async def test_health_passes_beside_a_running_server(place: Place, start_server: StartServer):
    server = await start_server(place.database_url)

    assert await health(place, ENVIRONMENT="production") == (0, "Health check passed\n")

    assert server.is_running
    [line] = [line for line in place.logged if line["event"] == "health.passed"]
    assert line["environment"] == "production"


async def test_health_passes_with_a_database_at_rest_and_leaves_it_alone(place: Place):
    await place.put()
    database = place.folder / "batchwork.db"
    before = database.read_bytes()

    assert await place.run(BATCH_MODE="health") == (0, "Health check passed\n")

    assert database.read_bytes() == before
    assert not (place.folder / "batchwork.db-wal").exists()


async def test_health_passes_on_postgresql(tmp_path: Path, postgresql_url: str):
    place = make_place(tmp_path, postgresql_url)

    assert await health(place) == (0, "Health check passed\n")
    assert (await health(place, BATCHWORK_DATABASE_URL=f"{postgresql_url}&nonsense=1"))[0] == 1
    assert "does not know: nonsense" in place.log.read_text()


async def test_health_names_a_database_that_is_not_there_and_does_not_make_one(place: Place):
    (place.folder / "batchwork.db").unlink()

    assert await health(place) == (1, "")

    assert "There is no database file" in place.log.read_text()
    assert not (place.folder / "batchwork.db").exists()


async def test_health_names_a_schema_that_is_older(place: Place):
    await place.put()
    with closing(sqlite3.connect(place.folder / "batchwork.db")) as connection, connection:
        connection.execute("UPDATE batchwork_schema SET version_num = '0001'")

    assert await health(place) == (1, "")

    assert "has the schema '0001', and this release wants" in place.log.read_text()


async def test_health_tells_every_problem_at_once(place: Place):
    keys = place.folder / "keys.json"
    keys.write_text("no")
    (place.templates / "broken.json").write_text("no")
    (place.folder / "batchwork.db").unlink()
    people = place.folder / "people.db"
    sqlite3.connect(people).close()
    settings = {
        "BATCHWORK_API_KEYS_FILE": str(keys),
        "BATCHWORK_USERS_DATABASE_URL": f"sqlite:///{people}",
        "BATCHWORK_USERS_TABLE": "persons",
    }

    assert await health(place, **settings) == (1, "")

    said = place.log.read_text()
    problems = ("broken.json", str(keys), "persons", "There is no database file")
    assert all(problem in said for problem in problems)


async def test_health_says_no_to_wrong_settings_and_keeps_a_password_to_itself(place: Place):
    code, _ = await health(
        place,
        BATCHWORK_DATABASE_URL="",
        DB_HOST=str(place.folder),
        DB_NAME="nowhere",
        DB_USER="somebody",
        DB_PASSWORD="top/secret",
    )
    assert code == 1
    assert (await health(place, LOG_LEVEL="loud", DB_PASSWORD="top/secret"))[0] == 1

    said = place.log.read_text()
    assert "does not answer" in said
    assert "LOG_LEVEL" in said
    assert "secret" not in said
