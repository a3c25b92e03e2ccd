"""The main job on 200 real accounts, from nothing to results: what `make demo` runs.

Everything lives in the folder ``.demo`` and starts from scratch each time. Only public ways are
used: the server's command line to load data, and the client package over gRPC for the rest.
"""

from __future__ import annotations

import asyncio
import fcntl
import json
import signal
import sys
from collections.abc import Iterator
from contextlib import aclosing, contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Protocol

from batchwork.v1.batch_pb2 import Batch, BatchCounts, BatchState
from batchwork.v1.batch_service_pb2 import BATCH_EVENT_KIND_END, BATCH_EVENT_KIND_PROGRESS
from batchwork.v1.item_pb2 import Item, ItemAttempt, ItemState
from batchwork.v1.job_service_pb2 import JobChangeKind
from batchwork_client import Batchwork, BatchworkError, Patience, connect
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from examples.server_process import ROOT, ServerProcessError, load, running_server

FOLDER = Path(".demo")
DATABASE = FOLDER / "batchwork.db"
LOG = FOLDER / "server.log"
JOBS = Path("examples/jobs/jobs.json")
JOB_ID = "bat_demo_reach_20261123_a1b2c3d4"
SHOWN_RESULTS = 5

# Ten posts at a time, and short pauses before a retry: slow enough to see, quick enough to wait.
SETTINGS = {
    "BATCHWORK_DATABASE_URL": f"sqlite:///{DATABASE.absolute()}",
    "BATCHWORK_LISTEN": "127.0.0.1:0",
    "BATCHWORK_TEMPLATES_DIR": str(ROOT / "examples" / "templates"),
    "BATCHWORK_RETRY_INITIAL_BACKOFF": "0.2",
    "BATCHWORK_SHUTDOWN_GRACE": "5",
    "BATCH_MAX_CONCURRENT_ITEMS": "10",
    "BATCH_DEFAULT_SIZE": "10",
}


async def demo() -> None:
    """Runs the demo.

    Raises:
        ServerProcessError: the server or its loader refused.
        BatchworkError: a call was refused, or the server fell silent.
    """
    start_from_scratch()
    heading("Load 200 accounts as users, and as the category that the job reads")
    say(await load("users", "examples/accounts/users.csv", settings=SETTINGS))
    say(await load("category", "users", "examples/accounts/accounts.csv", settings=SETTINGS))

    heading(f"Start the server on a free port; its log is {LOG}")
    async with running_server(settings=SETTINGS, log=LOG) as target, connect(target) as batchwork:
        heading(f"Import {JOBS}")
        await import_jobs(batchwork)

        heading(f"Run the job {JOB_ID}")
        batch = await run_job(batchwork)

        await show_results(batchwork, batch)
        await show_failures(batchwork, batch)
        await show_retries(batchwork, batch)
        await show_skips(batchwork, batch)

        heading("In the end")
        show_counts(batch)
    say("The server has stopped.")
    show_what_is_next(batch)


def start_from_scratch() -> None:
    """Removes the database of an earlier demo, unless a server still works on it.

    Raises:
        ServerProcessError: a server does.
    """
    FOLDER.mkdir(exist_ok=True)
    LOG.unlink(missing_ok=True)
    with Path(f"{DATABASE}.lock").open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ServerProcessError(f"A server uses {DATABASE}; stop it first.") from error
        for suffix in ("", "-wal", "-shm"):
            Path(f"{DATABASE}{suffix}").unlink(missing_ok=True)


async def import_jobs(batchwork: Batchwork) -> None:
    imported = await batchwork.jobs.import_jobs(ROOT / JOBS)
    for change in imported.changes:
        say(f"{short(JobChangeKind.Name(change.kind))}  {change.job_id}")
    say("Accepted, but perhaps not meant:")
    for warning in imported.warnings:
        say(f"- {warning.path}: {warning.message}")


async def run_job(batchwork: Batchwork) -> Batch:
    """Runs the job, shows how it goes on, and returns the batch when it is done."""
    job = await batchwork.jobs.get_job(JOB_ID)
    say(f"{job.description}.")
    batch = await batchwork.jobs.run_job(JOB_ID)
    say(f"Batch {batch.batch_id}: {batch.counts.total} accounts match.")
    events = batchwork.batches.watch_batch(
        batch.batch_id,
        min_interval=timedelta(milliseconds=250),
        patience=Patience(give_up_after=timedelta(seconds=5)),
    )
    with progress_view() as view:
        async with aclosing(events):
            async for event in events:
                if event.kind == BATCH_EVENT_KIND_PROGRESS:
                    view.show(event.counts)
                if event.kind == BATCH_EVENT_KIND_END:
                    batch = event.batch
    say(f"{short(BatchState.Name(batch.state))}.")
    return batch


async def show_results(batchwork: Batchwork, batch: Batch) -> None:
    heading(f"Posts, {SHOWN_RESULTS} of {batch.counts.succeeded}")
    found = batchwork.batches.list_items(
        batch.batch_id, states=[ItemState.ITEM_STATE_SUCCEEDED], limit=SHOWN_RESULTS
    )
    async for item in found:
        say(text_of(item))


async def show_failures(batchwork: Batchwork, batch: Batch) -> None:
    heading("What failed, and why")
    failed = batchwork.batches.list_items(batch.batch_id, states=[ItemState.ITEM_STATE_FAILED])
    async for item in failed:
        say(f"{item.item_id}: {item.error.reason}, {item.error.message}")


async def show_retries(batchwork: Batchwork, batch: Batch) -> None:
    heading("What needed more than one attempt")
    async for item in batchwork.batches.list_items(batch.batch_id):
        if item.attempt_count > 1:
            whole = await batchwork.batches.get_item(batch.batch_id, item_id=item.item_id)
            say(f"{item.item_id}: {', '.join(map(outcome_of, whole.attempts))}")


async def show_skips(batchwork: Batchwork, batch: Batch) -> None:
    heading("Who was skipped, and why")
    skipped = batchwork.batches.list_items(batch.batch_id, states=[ItemState.ITEM_STATE_SKIPPED])
    async for item in skipped:
        say(f"{item.user_id}: {item.skip_reason}")


def show_counts(batch: Batch) -> None:
    counts = batch.counts
    say(
        f"{counts.succeeded} succeeded + {counts.failed} failed + {counts.skipped} skipped"
        f" = {counts.total} accounts, with {counts.retries} retries."
    )


def show_what_is_next(batch: Batch) -> None:
    heading("What to try next, in two terminals")
    for command in (
        f"BATCHWORK_DATABASE_URL=sqlite:///{DATABASE} make serve",
        f".venv/bin/batchwork results {batch.batch_id} --failed",
        f".venv/bin/batchwork run {JOB_ID} --watch",
        ".venv/bin/batchwork list",
        ".venv/bin/batchwork --help",
    ):
        say(command)


def text_of(item: Item) -> str:
    """Returns the text that the example processor published."""
    text: str = json.loads(item.result_json)["text"]
    return text


def outcome_of(attempt: ItemAttempt) -> str:
    return attempt.error.reason if attempt.HasField("error") else "succeeded"


def short(name: str) -> str:
    """Returns the last word of an enum's value: BATCH_STATE_RUNNING is RUNNING."""
    for prefix in ("BATCH_STATE_", "JOB_CHANGE_KIND_"):
        name = name.removeprefix(prefix)
    return name


class View(Protocol):
    """Shows how far a batch is."""

    def show(self, counts: BatchCounts) -> None: ...


class Bar:
    """A bar on a terminal."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._task = progress.add_task("", total=None, retries=0)

    def show(self, counts: BatchCounts) -> None:
        self._progress.update(
            self._task, total=counts.total, completed=done(counts), retries=counts.retries
        )


class Lines:
    """A line for each change, where there is no terminal."""

    def show(self, counts: BatchCounts) -> None:
        say(f"{done(counts)} of {counts.total} done, {counts.retries} retries")


def done(counts: BatchCounts) -> int:
    return counts.total - counts.pending - counts.running


@contextmanager
def progress_view() -> Iterator[View]:
    if not sys.stdout.isatty():
        yield Lines()
        return
    columns = (
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("done, {task.fields[retries]} retries"),
    )
    with Progress(*columns) as progress:
        yield Bar(progress)


def heading(text: str) -> None:
    print(f"\n{text}", flush=True)


def say(text: str) -> None:
    print(f"  {text}", flush=True)


async def until_interrupted() -> None:
    """Runs the demo; a signal that would end this process lets it stop its server first."""
    task = asyncio.current_task()
    assert task is not None
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        asyncio.get_running_loop().add_signal_handler(number, task.cancel)
    async with asyncio.timeout(120):
        await demo()


def main() -> int:
    """Returns the exit code: 0 done, 1 failed, 130 interrupted."""
    try:
        asyncio.run(until_interrupted())
    except asyncio.CancelledError:
        return ended("The demo was interrupted.", exit_code=130)
    except TimeoutError:
        return ended("The demo took more than two minutes.", exit_code=1)
    except (ServerProcessError, BatchworkError) as error:
        return ended(f"The demo failed: {error}", exit_code=1)
    return 0


def ended(why: str, *, exit_code: int) -> int:
    """Tells why the demo ended early, with the last lines of the server's log."""
    print(f"\n{why}", file=sys.stderr)
    if LOG.exists():
        print(f"The server's log, {LOG}, ends with:", file=sys.stderr)
        for line in LOG.read_text(encoding="utf-8").splitlines()[-10:]:
            print(f"  {line}", file=sys.stderr)
    return exit_code


if __name__ == "__main__":
    sys.exit(main())
