"""Showing a batch while it runs."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing, contextmanager
from datetime import timedelta
from typing import Protocol

import typer
from batchwork.v1.batch_pb2 import Batch, BatchCounts, BatchState
from batchwork.v1.batch_service_pb2 import (
    BATCH_EVENT_KIND_END,
    BATCH_EVENT_KIND_PROGRESS,
    BatchEvent,
)
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from batchwork_client.cli.inputs import short_name
from batchwork_client.cli.output import (
    batch_facts,
    counts_in_words,
    done_of,
    note,
    stderr_is_terminal,
    time_in_words,
    write_facts,
    write_message,
)
from batchwork_client.cli.session import ExitCode
from batchwork_client.connection import Batchwork
from batchwork_client.watch import Patience

# Somebody waits in front of it, or a script with a time limit of its own.
PATIENCE = Patience(give_up_after=timedelta(minutes=2))


class View(Protocol):
    """Shows where a batch stands."""

    def show(self, state: str, counts: BatchCounts, event: BatchEvent) -> None:
        """Replaces, or follows, what was shown before."""
        ...


class Bar:
    """A bar that moves on a terminal."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._task = progress.add_task("", total=None, failed=0)

    def show(self, state: str, counts: BatchCounts, event: BatchEvent) -> None:
        self._progress.update(
            self._task,
            description=state,
            total=counts.total,
            completed=done_of(counts),
            failed=counts.failed,
        )


class Lines:
    """A line for each change, for logs."""

    def show(self, state: str, counts: BatchCounts, event: BatchEvent) -> None:
        when = time_in_words(event, "event_time")
        if event.HasField("delivery"):
            note(f"{when} {_delivery_in_words(event)}".strip())
            return
        note(f"{when} {state}: {counts_in_words(counts)}".strip())


async def follow(batchwork: Batchwork, batch_id: str, *, tenant_id: str, as_json: bool) -> None:
    """Shows a batch until it is done; then says how it ended.

    Interrupting it leaves the batch alone and says so.

    Raises:
        typer.Exit: The batch did not succeed in all its items.
    """
    try:
        with _view() as view:
            final = await _shown_to_the_end(
                batchwork, batch_id, tenant_id=tenant_id, as_json=as_json, view=view
            )
    except asyncio.CancelledError:
        note(f"The batch {batch_id} goes on; see it again with: batchwork watch {batch_id}")
        raise
    if not as_json:
        write_facts(batch_facts(final))
    if final.state != BatchState.BATCH_STATE_SUCCEEDED:
        raise typer.Exit(ExitCode.FAILURES)


async def follow_many(events: AsyncGenerator[BatchEvent, None], *, as_json: bool) -> None:
    """Writes a line for whatever happens to any of the batches, until it is interrupted."""
    counts: dict[tuple[str, str], BatchCounts] = {}
    async with aclosing(events):
        async for event in events:
            batch = (event.tenant_id, event.batch_id)
            if event.HasField("batch"):
                counts[batch] = event.batch.counts
            elif event.HasField("counts"):
                counts[batch] = event.counts
            if as_json:
                write_message(event)
            else:
                typer.echo(_line(event, counts.get(batch, BatchCounts())))
            if event.kind == BATCH_EVENT_KIND_END:
                del counts[batch]


def _line(event: BatchEvent, counts: BatchCounts) -> str:
    what = re.split("[:.]", event.event_type)[-1]  # `batch:started`, `posts.batch_job.started`
    when = time_in_words(event, "event_time")
    if event.HasField("delivery"):
        return f"{when} {event.batch_id} {_delivery_in_words(event)}".strip()
    return f"{when} {event.batch_id} {what}: {counts_in_words(counts)}".strip()


def _delivery_in_words(event: BatchEvent) -> str:
    delivered, failed = event.delivery.delivered, event.delivery.failed
    return f"delivered: {delivered} have the results" + (f", {failed} do not" if failed else "")


async def _shown_to_the_end(
    batchwork: Batchwork, batch_id: str, *, tenant_id: str, as_json: bool, view: View
) -> Batch:
    events = batchwork.batches.watch_batch(
        batch_id,
        tenant_id=tenant_id,
        min_interval=None if stderr_is_terminal() else timedelta(seconds=1),
        patience=PATIENCE,
    )
    latest = Batch(batch_id=batch_id)
    async with aclosing(events):
        async for event in events:
            if as_json:
                write_message(event)
            if event.kind == BATCH_EVENT_KIND_PROGRESS:
                latest.counts.CopyFrom(event.counts)
            elif event.HasField("batch"):
                latest.CopyFrom(event.batch)
            view.show(short_name(BatchState.DESCRIPTOR, latest.state), latest.counts, event)
    return latest


@contextmanager
def _view() -> Iterator[View]:
    if not stderr_is_terminal():
        yield Lines()
        return
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[failed]} failed", style="red"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=Console(stderr=True)) as progress:
        yield Bar(progress)
