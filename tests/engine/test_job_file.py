"""The job file is followed: all of a good file is stored, and nothing of a bad one."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from batchwork_server.application.job_imports import JobImports
from batchwork_server.application.jobs import Jobs
from batchwork_server.application.notices import JobNotices
from batchwork_server.domain.filters import JobFilter
from batchwork_server.domain.job_file import MAX_FILE_BYTES
from batchwork_server.engine import job_file as module
from batchwork_server.engine import watched_file
from batchwork_server.engine.job_file import MAX_LOGGED, JobFile
from batchwork_server.engine.loop import tick
from batchwork_server.errors import StoreUnavailable, Unavailable
from batchwork_server.logs import get_logger
from batchwork_server.store.database import Database, open_database
from batchwork_server.store.sql_store import SqlStore
from batchwork_server.wakeups import Wakeups

from tests.factories import TENANT, make_loaded_item, make_template
from tests.fakes import FakeCategories, FakeClock, FakeTemplates, FakeUsers

INTERVAL = timedelta(seconds=5)

Lines = Callable[[], list[dict[str, Any]]]


def make_job(job_id: str, **fields: Any) -> dict[str, Any]:
    job = {"id": job_id, "type": "individual", "category": "posts", "template_id": "tpl_posts"}
    return job | fields


def file_of(*jobs: dict[str, Any]) -> str:
    return json.dumps({"batch_processing_jobs": jobs})


class Server:
    """What of a server follows a job file, over a database."""

    def __init__(self, database: Database, path: Path, *, clock: FakeClock) -> None:
        self.path = path
        self.clock = clock
        self.store = SqlStore(database)
        self.categories = FakeCategories()
        self.categories.add("posts", make_loaded_item("post_1"))
        templates = FakeTemplates(make_template(template_id="tpl_posts"))
        notices = JobNotices(
            categories=self.categories,
            users=FakeUsers(),
            templates=templates,
            preferences=self.store.preferences,
        )
        self.jobs = Jobs(
            store=self.store,
            notices=notices,
            templates=templates,
            clock=clock,
            wakeups=Wakeups(),
            zone="UTC",
        )
        self.imports = JobImports(
            store=self.store,
            notices=notices,
            templates=templates,
            clock=clock,
            wakeups=Wakeups(),
            zone="UTC",
        )
        self.job_file = JobFile(path, imports=self.imports, tenant_id=TENANT, interval=INTERVAL)

    def write(self, *jobs: dict[str, Any]) -> None:
        self.path.write_text(file_of(*jobs))

    async def look(self) -> bool:
        """Looks when it is time for it, and tells whether the file is well."""
        self.clock.advance(INTERVAL)
        await self.job_file.run_once()
        return self.job_file.is_well

    async def stored(self) -> dict[str, tuple[int, str]]:
        """Returns the revision and the source of each job there is."""
        jobs, _ = await self.store.jobs.list(
            JobFilter(tenant_id=TENANT), page_size=10_000, after=None
        )
        return {job.definition.job_id: (job.revision, job.source) for job in jobs}


@pytest.fixture
def server(database: Database, tmp_path: Path, clock: FakeClock) -> Server:
    return Server(database, tmp_path / "jobs.json", clock=clock)


@pytest.fixture
def told(logged: Lines, monkeypatch: pytest.MonkeyPatch) -> Lines:
    """Returns what the log says about the job file."""
    # A logger keeps the stream that it wrote to first, which was another test's.
    monkeypatch.setattr(module, "log", get_logger(module.__name__))
    return lambda: [line for line in logged() if line["event"].startswith("job_file.")]


def fates(told: Lines) -> list[str]:
    return [line["event"] for line in told()]


async def test_a_good_file_is_stored_once_and_told_once(server: Server, told: Lines):
    server.write(make_job("job_1"), make_job("job_2", category="nothing_there"))

    assert not server.job_file.is_well
    assert await server.look()
    assert await server.look()

    assert await server.stored() == {"job_1": (1, "job-file"), "job_2": (1, "job-file")}
    [line] = told()
    counts = {name: line[name] for name in ("created", "updated", "unchanged", "deleted")}
    assert line["event"] == "job_file.loaded"
    assert (line["path"], line["tenant_id"]) == (str(server.path), TENANT)
    assert counts == {"created": 2, "updated": 0, "unchanged": 0, "deleted": 0}
    assert line["notice_count"] == 1
    assert [notice["reason"] for notice in line["notices"]] == ["CATEGORY_WITHOUT_ITEMS"]


async def test_a_change_of_the_file_changes_the_jobs(server: Server, told: Lines):
    server.write(make_job("job_1"), make_job("job_2"), make_job("job_3"))
    await server.look()

    server.write(make_job("job_1"), make_job("job_2", name="Other"), make_job("job_4"))
    assert await server.look()

    assert await server.stored() == {
        "job_1": (1, "job-file"),
        "job_2": (2, "job-file"),
        "job_4": (1, "job-file"),
    }
    line = told()[-1]
    counts = {name: line[name] for name in ("created", "updated", "unchanged", "deleted")}
    assert counts == {"created": 1, "updated": 1, "unchanged": 1, "deleted": 1}


async def test_jobs_of_other_sources_stay(server: Server):
    await server.imports.import_jobs(file_of(make_job("job_mine")), tenant_id=TENANT, source="mine")
    server.write(make_job("job_1"))
    await server.look()

    server.write()
    assert await server.look()

    assert await server.stored() == {"job_mine": (1, "mine")}


async def test_one_bad_job_among_many_keeps_all_of_the_change_out(server: Server, told: Lines):
    server.write(make_job("job_1"), make_job("job_2"))
    await server.look()
    before = await server.stored()

    server.write(
        make_job("job_1", name="Other"),
        *(make_job(f"job_new_{number}") for number in range(50)),
        make_job("job_bad", template_id="no_such", limit=0),
    )
    assert not await server.look()
    assert not await server.look()

    assert await server.stored() == before
    assert fates(told) == ["job_file.loaded", "job_file.refused"]
    line = told()[-1]
    assert (line["level"], line["violation_count"]) == ("error", 2)
    assert [v["path"] for v in line["violations"]] == [
        "$.batch_processing_jobs[51].limit",
        "$.batch_processing_jobs[51].template_id",
    ]
    assert "0" in line["violations"][0]["message"]


async def test_a_file_that_is_mended_is_well_again(server: Server, told: Lines):
    server.write(make_job("job_1"))
    await server.look()
    server.write(make_job("job_1", priority="none"))
    await server.look()

    server.write(make_job("job_1"))
    assert await server.look()

    assert fates(told) == ["job_file.loaded", "job_file.refused", "job_file.loaded"]
    assert told()[-1]["unchanged"] == 1
    assert await server.stored() == {"job_1": (1, "job-file")}


async def test_each_of_two_bad_files_is_told(server: Server, told: Lines):
    server.write(make_job("job_1", template_id="no_such"))
    await server.look()
    server.write(make_job("job_1", template_id="nor_this"))
    await server.look()

    assert [line["violations"][0]["message"].split('"')[1] for line in told()] == [
        "no_such",
        "nor_this",
    ]


async def test_of_many_violations_the_first_are_told_and_the_others_counted(
    server: Server, told: Lines
):
    server.write(*(make_job(f"job_{number}", limit=0) for number in range(MAX_LOGGED + 7)))

    await server.look()

    [line] = told()
    assert line["violation_count"] == MAX_LOGGED + 7
    assert len(line["violations"]) == MAX_LOGGED


def no_file(path: Path) -> None:
    path.unlink(missing_ok=True)


def folder(path: Path) -> None:
    no_file(path)
    path.mkdir()


def pipe(path: Path) -> None:
    no_file(path)
    os.mkfifo(path)


def link_to_itself(path: Path) -> None:
    no_file(path)
    path.symlink_to(path)


@pytest.mark.parametrize(
    ("break_it", "reason", "message"),
    [
        pytest.param(no_file, "FILE_UNREADABLE", "No such file", id="missing"),
        pytest.param(folder, "FILE_UNREADABLE", "Is a directory", id="a folder"),
        pytest.param(pipe, "FILE_UNREADABLE", "is no file", id="a pipe"),
        pytest.param(link_to_itself, "FILE_UNREADABLE", "symbolic links", id="a circle"),
        pytest.param(
            lambda path: path.write_bytes(b""), "FILE_UNREADABLE", "is empty", id="0 bytes"
        ),
        pytest.param(
            lambda path: path.write_bytes(b'{"batch\xff'),
            "FILE_UNREADABLE",
            "the byte at 7 is 0xff",
            id="not UTF-8",
        ),
        pytest.param(
            lambda path: path.write_bytes(b" " * (MAX_FILE_BYTES + 9)),
            "PAYLOAD_TOO_LARGE",
            f"{MAX_FILE_BYTES + 9} bytes; the limit is {MAX_FILE_BYTES}",
            id="too large",
        ),
        pytest.param(
            lambda path: path.write_text(file_of(make_job("job_1"))[:-1]),
            "FIELD_VIOLATION",
            "This is not JSON",
            id="half written",
        ),
    ],
)
async def test_what_cannot_be_read_changes_nothing_and_is_told_once(
    server: Server,
    told: Lines,
    break_it: Callable[[Path], None],
    reason: str,
    message: str,
):
    server.write(make_job("job_1"))
    await server.look()
    before = await server.stored()

    break_it(server.path)
    assert not await server.look()
    assert not await server.look()
    assert not await server.look()

    assert await server.stored() == before
    [_, line] = told()
    [violation] = line["violations"]
    assert line["event"] == "job_file.refused"
    assert (violation["path"], violation["reason"]) == ("$", reason)
    assert message in violation["message"]


async def test_a_file_that_comes_later_is_loaded(server: Server, told: Lines):
    assert not await server.look()

    server.write(make_job("job_1"))
    assert await server.look()

    assert fates(told) == ["job_file.refused", "job_file.loaded"]
    assert await server.stored() == {"job_1": (1, "job-file")}


async def test_a_file_that_comes_back_as_it_was_is_well_again(server: Server):
    server.write(make_job("job_1"))
    await server.look()
    server.path.rename(server.path.with_suffix(".away"))
    assert not await server.look()

    server.path.with_suffix(".away").rename(server.path)

    assert await server.look()


async def test_a_file_that_another_one_replaces_by_its_name_is_loaded(server: Server):
    server.write(make_job("job_1"))
    await server.look()
    await server.look()

    status = server.path.stat()
    other = server.path.with_suffix(".new")
    other.write_text(file_of(make_job("job_2")))  # as long as the first one
    os.utime(other, ns=(status.st_atime_ns, status.st_mtime_ns))
    other.replace(server.path)
    assert await server.look()

    assert list(await server.stored()) == ["job_2"]


async def test_a_link_that_is_swapped_is_followed(server: Server):
    """An orchestrator points a link to a folder elsewhere; the link to the file stays as it is."""
    folder = server.path.parent
    for number in (1, 2):
        (folder / f"version_{number}").mkdir()
        (folder / f"version_{number}" / "jobs.json").write_text(file_of(make_job(f"job_{number}")))
    (folder / "data").symlink_to("version_1")
    server.path.symlink_to("data/jobs.json")
    await server.look()
    await server.look()

    (folder / "swapped").symlink_to("version_2")
    (folder / "swapped").replace(folder / "data")
    assert await server.look()

    assert list(await server.stored()) == ["job_2"]


async def test_a_second_change_in_one_tick_of_the_file_system_is_seen_at_the_next_look(
    server: Server, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(watched_file, "_stamp_of", lambda status: (status.st_size,))
    server.write(make_job("job_1"))
    await server.look()

    server.write(make_job("job_2"))
    assert await server.look()

    assert list(await server.stored()) == ["job_2"]


async def test_a_file_that_does_not_change_is_not_read_again(
    server: Server, monkeypatch: pytest.MonkeyPatch
):
    server.write(make_job("job_1"))
    await server.look()
    await server.look()

    read = []
    monkeypatch.setattr(watched_file, "_found", lambda content, **_: read.append(content))
    assert await server.look()

    assert read == []


async def test_a_file_that_is_touched_is_not_loaded_again(server: Server, told: Lines):
    server.write(make_job("job_1"))
    await server.look()

    os.utime(server.path)
    assert await server.look()

    assert fates(told) == ["job_file.loaded"]


async def test_the_file_wins_over_what_was_changed_by_hand(
    server: Server, database: Database, clock: FakeClock
):
    server.write(make_job("job_1", name="File"))
    await server.look()
    await server.imports.import_jobs(file_of(make_job("job_1", name="Hand")), tenant_id=TENANT)
    await server.look()
    untouched = (await server.jobs.get_job("job_1", tenant_id=TENANT)).definition.display_name

    started = Server(database, server.path, clock=clock)
    assert await started.look()

    job = await server.jobs.get_job("job_1", tenant_id=TENANT)
    assert untouched == "Hand"
    assert (job.definition.display_name, job.revision, job.source) == ("File", 3, "job-file")


async def test_a_database_that_is_away_is_tried_again_at_the_next_look(
    server: Server, told: Lines, monkeypatch: pytest.MonkeyPatch
):
    server.write(make_job("job_1"))
    await server.look()
    await server.look()

    async def away(*_: Any, **__: Any) -> None:
        raise StoreUnavailable("The database is away.")

    server.write(make_job("job_1"), make_job("job_2"))
    with monkeypatch.context() as patched:
        patched.setattr(server.store.jobs, "put", away)
        for _ in range(3):
            with pytest.raises(Unavailable):
                await server.look()
        assert server.job_file.is_well  # the file is not to blame
    assert await server.look()

    assert fates(told) == ["job_file.loaded"] * 2
    assert list(await server.stored()) == ["job_1", "job_2"]


async def test_a_source_of_data_that_is_away_at_the_start_is_waited_for(server: Server):
    server.write(make_job("job_1"))
    server.categories.away = True
    with pytest.raises(Unavailable):
        await server.look()
    before = server.job_file.is_well

    server.categories.away = False

    assert await server.look()
    assert not before
    assert list(await server.stored()) == ["job_1"]


async def test_the_first_look_is_over_also_when_it_failed(server: Server, clock: FakeClock):
    server.write(make_job("job_1"))
    server.categories.away = True
    stop = asyncio.Event()
    loop = asyncio.create_task(
        tick("job-file", server.job_file.run_once, interval=INTERVAL, clock=clock, stop=stop)
    )

    async with asyncio.timeout(30):
        await server.job_file.looked.wait()

    assert await server.stored() == {}
    stop.set()
    await loop


async def test_several_servers_with_one_file_store_it_once(
    database: Database, database_url: str, tmp_path: Path, clock: FakeClock
):
    path = tmp_path / "jobs.json"
    # A lock file keeps a second process away from SQLite.
    alone = database.dialect == "sqlite"
    other = database if alone else await open_database(database_url)
    try:
        servers = [Server(each, path, clock=clock) for each in (database, other) * 2]
        for name in ("One", "Two"):
            servers[0].write(*(make_job(f"job_{number}", name=name) for number in range(20)))
            await asyncio.gather(*(server.job_file.run_once() for server in servers))

        assert all(server.job_file.is_well for server in servers)
        assert set((await servers[0].stored()).values()) == {(2, "job-file")}
    finally:
        if not alone:
            await other.close()
