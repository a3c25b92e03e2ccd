"""The commands about batches, from submit to cancel."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from datetime import datetime
from typing import Annotated

import typer
from batchwork.v1.batch_pb2 import Batch, BatchPlan, BatchState
from batchwork.v1.item_pb2 import Item, ItemInput, ItemState

from batchwork_client.batches import BatchFields
from batchwork_client.cli.batch_files import batch_from, over
from batchwork_client.cli.following import PATIENCE, follow, follow_many
from batchwork_client.cli.inputs import (
    InputError,
    enum_values_from,
    options_from,
    pairs_from,
    short_name,
    values_from,
)
from batchwork_client.cli.output import (
    batch_facts,
    counts_in_words,
    note,
    note_warnings,
    printable,
    seconds_in_words,
    state_name,
    time_in_words,
    write_facts,
    write_message,
    write_table,
)
from batchwork_client.cli.parameters import AsJson, BatchId, Limit, Note, RequestId, Watch
from batchwork_client.cli.session import command, session_of
from batchwork_client.connection import Batchwork

_FAILED = "failed"


def add_to(app: typer.Typer) -> None:
    """Adds the commands to the application."""
    command(app, "submit")(submit)
    command(app, "watch")(watch)
    command(app, "list")(list_batches)
    command(app, "show")(show)
    command(app, "results")(results)
    command(app, "pause")(pause)
    command(app, "resume")(resume)
    command(app, "retry")(retry)
    command(app, "cancel")(cancel)


async def submit(
    context: typer.Context,
    file: Annotated[
        str | None,
        typer.Argument(
            help="Items as .json, .jsonl or .csv, or a whole batch as a JSON object; - reads JSON "
            "lines from stdin."
        ),
    ] = None,
    category: Annotated[str, typer.Option(help="Selects items from a category instead.")] = "",
    filters: Annotated[
        list[str] | None,
        typer.Option("--filter", metavar="NAME=VALUE", help="Narrows the category; repeatable."),
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Selects at most so many.")] = None,
    operation: Annotated[str, typer.Option(help="The work to do, such as annotate.")] = "",
    template: Annotated[str, typer.Option(help="The template that the items go through.")] = "",
    options: Annotated[
        list[str] | None,
        typer.Option(
            "--option",
            metavar="NAME=VALUE",
            help="How to process: model, chunk_size, retry_limit, item_timeout (30s), priority "
            "(low, medium, high, critical), max_concurrent_items, batch_timeout, "
            "notify_on_complete (true, false), notification_targets (NAME,NAME), "
            "failure_policy.max_failed, failure_policy.max_failed_ratio (0 to 1), "
            "failure_policy.min_sample, failure_policy.action (pause, fail, continue), "
            "retry_policy.initial_backoff, retry_policy.max_backoff, retry_policy.multiplier, "
            "retry_policy.non_retryable_reasons (REASON,REASON), users_away (fail, assume_valid, "
            "defer); repeatable.",
        ),
    ] = None,
    labels: Annotated[
        list[str] | None, typer.Option("--label", metavar="NAME=VALUE", help="Repeatable.")
    ] = None,
    metadata: Annotated[
        list[str] | None,
        typer.Option(
            "--metadata",
            metavar="NAME=VALUE",
            help="Kept with the batch, such as data_source_type=users; repeatable.",
        ),
    ] = None,
    batch_id: Annotated[str, typer.Option(help="The id; unset means a generated one.")] = "",
    name: Annotated[str, typer.Option(help="Names the batch for people.")] = "",
    description: Annotated[str, typer.Option(help="Describes the batch for people.")] = "",
    source: Annotated[str, typer.Option(help="Who or what asks.")] = "",
    purpose: Annotated[str, typer.Option(help="The business purpose.")] = "",
    id_field: Annotated[
        str, typer.Option(help="The field that names an item, instead of item_id.")
    ] = "",
    user_field: Annotated[
        str, typer.Option(help="The field that names its user, instead of user_id.")
    ] = "",
    request_id: RequestId = "",
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Says what would run, and stores nothing.")
    ] = False,
    watch: Watch = False,
    as_json: AsJson = False,
) -> None:
    """Submits a batch and prints its id.

    In a file, item_id and user_id name an item and its user; data is its input, or else all the
    other fields are. A JSON object may say the rest of the batch, too, as the documents have it;
    options go over what it says.
    """
    session = session_of(context)
    session.require_own_tenant("submit")
    if (file is None) == (category == ""):
        raise InputError(["give either a file of items or --category"])
    items, stated = (
        batch_from(file, id_field=id_field, user_field=user_field)
        if file is not None
        else ([], BatchFields())
    )
    given = BatchFields(
        operation=operation,
        template_id=template,
        category=category,
        limit=limit or 0,
        options=options_from(options or ()),
        labels=pairs_from("--label", labels or ()),
        batch_id=batch_id,
        display_name=name,
        description=description,
        source=source,
        purpose_id=purpose,
    )
    if filters:
        given["filters"] = values_from("--filter", filters)
    if metadata:
        given["batch_metadata"] = values_from("--metadata", metadata)
    fields = over(stated, given)
    async with session.connect() as batchwork:
        if dry_run:
            await _plan(batchwork, items, fields, as_json=as_json)
            return
        batch = await batchwork.batches.create_batch(items, request_id=request_id or None, **fields)
        await show_started(batchwork, batch, watch=watch, as_json=as_json)


async def _plan(
    batchwork: Batchwork, items: list[ItemInput], fields: BatchFields, *, as_json: bool
) -> None:
    response = await batchwork.batches.plan_batch(items, **fields)
    if as_json:
        write_message(response)
        return
    show_warnings(response.batch)
    examples = ", ".join(response.plan.sample_item_ids)
    write_facts([*plan_facts(response.plan), ("for example", examples)])


def plan_facts(plan: BatchPlan) -> list[tuple[str, str]]:
    """Returns how many items would be processed, and how many skipped for which reason."""
    skips = sorted(plan.skips.items())
    return [
        ("would process", str(plan.item_count)),
        ("would skip", ", ".join(f"{count} {why}" for why, count in skips)),
    ]


async def show_started(batchwork: Batchwork, batch: Batch, *, watch: bool, as_json: bool) -> None:
    """Says that a batch was started, and shows it to its end when asked to."""
    show_warnings(batch)
    if watch:
        note(f"batch {batch.batch_id}")
        await follow(batchwork, batch.batch_id, tenant_id="", as_json=as_json)
    elif as_json:
        write_message(batch)
    else:
        typer.echo(batch.batch_id)


def show_warnings(batch: Batch) -> None:
    """Tells what was accepted but may not be meant."""
    note_warnings(batch.warnings)


async def watch(
    context: typer.Context,
    batch: Annotated[
        str, typer.Argument(metavar="[BATCH]", help="The id of the batch; unset means all.")
    ] = "",
    operation: Annotated[str, typer.Option(help="Of all: only of this operation.")] = "",
    job: Annotated[str, typer.Option(help="Of all: only of this job.")] = "",
    labels: Annotated[
        list[str] | None,
        typer.Option("--label", metavar="NAME=VALUE", help="Of all: only with it; repeatable."),
    ] = None,
    feature: Annotated[str, typer.Option(help="Of all: only of this feature.")] = "",
    as_json: AsJson = False,
) -> None:
    """Shows a batch until it is done, or all batches until it is interrupted.

    Interrupting it leaves the batches alone. --json writes the events.
    """
    session = session_of(context)
    if not batch:
        async with session.connect() as batchwork:
            events = batchwork.batches.watch_batches(
                operation=operation,
                job_id=job,
                labels=pairs_from("--label", labels or ()),
                feature_type=feature,
                tenant_id=session.tenant_id,
                patience=PATIENCE,
            )
            await follow_many(events, as_json=as_json)
        return
    if operation or job or labels or feature:
        raise InputError(["give either the id of a batch or filters, not both"])
    async with session.connect() as batchwork:
        # A server that is not there, or a wrong id, is told at once instead of being waited for.
        await batchwork.batches.get_batch(batch, tenant_id=session.tenant_id)
        await follow(batchwork, batch, tenant_id=session.tenant_id, as_json=as_json)


async def list_batches(
    context: typer.Context,
    states: Annotated[
        list[str] | None, typer.Option("--state", help="Such as running; repeatable.")
    ] = None,
    operation: Annotated[str, typer.Option(help="Only of this operation.")] = "",
    job: Annotated[str, typer.Option(help="Only of this job.")] = "",
    labels: Annotated[
        list[str] | None,
        typer.Option("--label", metavar="NAME=VALUE", help="Only with it; repeatable."),
    ] = None,
    user: Annotated[str, typer.Option(help="Only with an item of this user.")] = "",
    feature: Annotated[str, typer.Option(help="Only of this feature.")] = "",
    since: Annotated[
        datetime | None, typer.Option(help="Only created then or later, local time.")
    ] = None,
    until: Annotated[datetime | None, typer.Option(help="Only created before, local time.")] = None,
    limit: Limit = 20,
    as_json: AsJson = False,
) -> None:
    """Lists batches, newest first."""
    session = session_of(context)
    async with session.connect() as batchwork:
        found = batchwork.batches.list_batches(
            states=enum_values_from("--state", BatchState.DESCRIPTOR, states or ()),
            operation=operation,
            job_id=job,
            labels=pairs_from("--label", labels or ()),
            user_id=user,
            feature_type=feature,
            created_after=since.astimezone() if since else None,
            created_before=until.astimezone() if until else None,
            tenant_id=session.tenant_id,
            limit=limit,
        )
        if as_json:
            async for batch in found:
                write_message(batch)
            return
        write_table(
            ("BATCH", "STATE", "ITEMS", "WORK", "CREATED"), [_row(batch) async for batch in found]
        )


def _row(batch: Batch) -> tuple[str, ...]:
    return (
        batch.batch_id,
        state_name(batch),
        counts_in_words(batch.counts),
        batch.operation or batch.template_id,
        time_in_words(batch, "create_time"),
    )


async def show(context: typer.Context, batch: BatchId, as_json: AsJson = False) -> None:
    """Shows one batch."""
    session = session_of(context)
    async with session.connect() as batchwork:
        found = await batchwork.batches.get_batch(batch, tenant_id=session.tenant_id)
    if as_json:
        write_message(found)
        return
    show_warnings(found)
    write_facts(batch_facts(found))


async def results(
    context: typer.Context,
    batch: BatchId,
    item: Annotated[str, typer.Option(help="One item, with its attempts.")] = "",
    states: Annotated[
        list[str] | None, typer.Option("--state", help="Such as succeeded; repeatable.")
    ] = None,
    failed: Annotated[bool, typer.Option("--failed", help="Short for --state failed.")] = False,
    user: Annotated[str, typer.Option(help="Only of this user.")] = "",
    error_reason: Annotated[str, typer.Option(help="Only failed for this reason.")] = "",
    skip_reason: Annotated[str, typer.Option(help="Only skipped for this reason.")] = "",
    limit: Annotated[int | None, typer.Option(min=0, help="Shows at most so many.")] = None,
    follow_it: Annotated[
        bool,
        typer.Option(
            "--follow", help="Shows items as they finish, until the batch is done; a line each."
        ),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Shows the items of a batch, also while it runs."""
    session = session_of(context)
    if follow_it and (item or error_reason or skip_reason):
        raise InputError(["--follow goes with --state, --failed, --user, --limit and --json only"])
    wanted = enum_values_from(
        "--state", ItemState.DESCRIPTOR, (states or []) + ([_FAILED] if failed else [])
    )
    async with session.connect() as batchwork:
        if follow_it:
            finished = batchwork.batches.stream_results(
                batch, follow=True, states=wanted, user_id=user, tenant_id=session.tenant_id
            )
            await _follow_results(finished, limit=limit, as_json=as_json)
            return
        if item:
            one = await batchwork.batches.get_item(batch, item_id=item, tenant_id=session.tenant_id)
            _show_item(one, as_json=as_json)
            return
        found = batchwork.batches.list_items(
            batch,
            states=wanted,
            user_id=user,
            error_reason=error_reason,
            skip_reason=skip_reason,
            tenant_id=session.tenant_id,
            limit=limit,
        )
        if as_json:
            async for each in found:
                write_message(each)
            return
        write_table(
            ("ITEM", "USER", "STATE", "ATTEMPTS", "RESULT"),
            [_item_row(each) async for each in found],
        )


async def _follow_results(
    items: AsyncGenerator[Item, None], *, limit: int | None, as_json: bool
) -> None:
    shown = 0
    async with aclosing(items):
        async for item in items:
            if shown == limit:
                return
            if as_json:
                write_message(item)
            else:
                typer.echo("  ".join(printable(cell) for cell in _item_row(item)))
            shown += 1


def _item_row(item: Item) -> tuple[str, ...]:
    return (
        item.item_id,
        item.user_id,
        short_name(ItemState.DESCRIPTOR, item.state),
        str(item.attempt_count),
        _outcome(item),
    )


def _outcome(item: Item) -> str:
    if item.HasField("error"):
        return f"{item.error.reason}: {item.error.message}"
    return item.result_json or item.skip_reason


def _show_item(item: Item, *, as_json: bool) -> None:
    if as_json:
        write_message(item)
        return
    facts = [
        ("item", item.item_id),
        ("user", item.user_id),
        ("state", short_name(ItemState.DESCRIPTOR, item.state)),
        ("input", item.data_json),
        ("outcome", _outcome(item)),
        ("quality", f"{item.quality_score:.2f}" if item.HasField("quality_score") else ""),
    ]
    for attempt in item.attempts:
        what = (
            f"{attempt.error.reason}: {attempt.error.message}"
            if attempt.HasField("error")
            else "succeeded"
        )
        facts.append(
            (
                f"attempt {attempt.number}",
                f"{time_in_words(attempt, 'start_time')}, "
                f"{seconds_in_words(attempt.duration)}, {what}",
            )
        )
    write_facts(facts)


async def pause(
    context: typer.Context,
    batch: BatchId,
    why: Note = "",
    request_id: RequestId = "",
    as_json: AsJson = False,
) -> None:
    """Pauses a batch.

    Items in flight finish, no other starts until it is resumed.
    """
    session = session_of(context)
    session.require_own_tenant("pause")
    async with session.connect() as batchwork:
        paused = await batchwork.batches.pause_batch(batch, note=why, request_id=request_id or None)
    _show_changed(paused, as_json=as_json)


async def resume(
    context: typer.Context, batch: BatchId, request_id: RequestId = "", as_json: AsJson = False
) -> None:
    """Goes on with a paused batch."""
    session = session_of(context)
    session.require_own_tenant("resume")
    async with session.connect() as batchwork:
        resumed = await batchwork.batches.resume_batch(batch, request_id=request_id or None)
    _show_changed(resumed, as_json=as_json)


async def retry(
    context: typer.Context,
    batch: BatchId,
    states: Annotated[
        list[str] | None,
        typer.Option(
            "--state", help="failed, cancelled or expired; unset means failed; repeatable."
        ),
    ] = None,
    items: Annotated[
        list[str] | None, typer.Option("--item", help="Only this item; repeatable.")
    ] = None,
    user: Annotated[str, typer.Option(help="Only of this user.")] = "",
    error_reason: Annotated[str, typer.Option(help="Only failed for this reason.")] = "",
    request_id: RequestId = "",
    watch: Watch = False,
    as_json: AsJson = False,
) -> None:
    """Runs failed items of a batch that is over once more.

    What succeeded is untouched.
    """
    session = session_of(context)
    session.require_own_tenant("retry")
    async with session.connect() as batchwork:
        retried = await batchwork.batches.retry_batch(
            batch,
            states=enum_values_from("--state", ItemState.DESCRIPTOR, states or ()),
            user_id=user,
            error_reason=error_reason,
            item_ids=items or (),
            request_id=request_id or None,
        )
        count = retried.retried_count
        if watch:
            note(f"items to try again: {count}")
            await follow(batchwork, batch, tenant_id="", as_json=as_json)
        elif as_json:
            write_message(retried)
        else:
            typer.echo(
                f"{retried.batch.batch_id} {state_name(retried.batch)}, items to try again: {count}"
            )


async def cancel(
    context: typer.Context,
    batch: BatchId,
    stop: Annotated[bool, typer.Option("--stop", help="Stops the items in flight, too.")] = False,
    why: Note = "",
    request_id: RequestId = "",
    as_json: AsJson = False,
) -> None:
    """Cancels a batch.

    Items in flight finish unless --stop is given, what is done stays done.
    """
    session = session_of(context)
    session.require_own_tenant("cancel")
    async with session.connect() as batchwork:
        cancelled = await batchwork.batches.cancel_batch(
            batch, stop_in_flight=stop, note=why, request_id=request_id or None
        )
    _show_changed(cancelled, as_json=as_json)


def _show_changed(batch: Batch, *, as_json: bool) -> None:
    if as_json:
        write_message(batch)
    else:
        typer.echo(f"{batch.batch_id} {state_name(batch)}")
