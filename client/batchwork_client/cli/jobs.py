"""The commands about jobs: jobs, job-show, job-import, job-export, job-pause and the like."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from batchwork.v1.job_pb2 import Job, JobShape
from batchwork.v1.job_service_pb2 import JobChange, JobChangeKind
from batchwork.v1.policy_pb2 import Overlap

from batchwork_client.cli.batches import show_started
from batchwork_client.cli.inputs import InputError, enum_values_from, read_text, short_name
from batchwork_client.cli.output import (
    json_in_words,
    note_warnings,
    time_in_words,
    write_facts,
    write_message,
    write_table,
)
from batchwork_client.cli.parameters import AsJson, Limit, Note, RequestId, Users, Watch
from batchwork_client.cli.session import command, session_of


def add_to(app: typer.Typer) -> None:
    """Adds the commands to the application."""
    command(app, "jobs")(list_jobs)
    command(app, "job-show")(show_job)
    command(app, "job-import")(import_jobs)
    command(app, "job-export")(export_jobs)
    command(app, "job-delete")(delete_job)
    command(app, "job-pause")(pause_job)
    command(app, "job-resume")(resume_job)
    command(app, "run")(run)


async def list_jobs(
    context: typer.Context,
    shape: Annotated[str, typer.Option(help="Only individual, object or combined jobs.")] = "",
    feature: Annotated[str, typer.Option(help="Only driven by this feature.")] = "",
    purpose: Annotated[str, typer.Option(help="Only of this purpose.")] = "",
    limit: Limit = 100,
    as_json: AsJson = False,
) -> None:
    """Lists jobs by id."""
    session = session_of(context)
    shapes = enum_values_from("--shape", JobShape.DESCRIPTOR, [shape] if shape else [])
    async with session.connect() as batchwork:
        found = batchwork.jobs.list_jobs(
            shape=shapes[0] if shapes else JobShape.JOB_SHAPE_UNSPECIFIED,
            feature_type=feature,
            purpose_id=purpose,
            tenant_id=session.tenant_id,
            limit=limit,
        )
        if as_json:
            async for job in found:
                write_message(job)
            return
        write_table(
            ("JOB", "REVISION", "TYPE", "CATEGORIES", "SCHEDULE", "WORK"),
            [_row(job) async for job in found],
        )


def _row(job: Job) -> tuple[str, ...]:
    return (
        job.job_id,
        str(job.revision),
        job.batch_type,
        ", ".join(job.categories),
        job.schedule.WhichOneof("cadence") or "on request",
        job.operation or job.template_id,
    )


async def show_job(
    context: typer.Context,
    job: Annotated[str, typer.Argument(help="The id of the job.")],
    as_json: AsJson = False,
) -> None:
    """Shows one job; job-export writes it as a job file."""
    session = session_of(context)
    async with session.connect() as batchwork:
        found = await batchwork.jobs.get_job(job, tenant_id=session.tenant_id)
    if as_json:
        write_message(found)
    else:
        write_facts(_facts(found))


def _facts(job: Job) -> list[tuple[str, str]]:
    has_schedule = job.schedule.WhichOneof("cadence") is not None
    return [
        ("job", f"{job.job_id} (revision {job.revision})"),
        ("name", job.display_name),
        ("description", job.description),
        ("type", job.batch_type),
        ("categories", ", ".join(job.categories)),
        ("filters", json_in_words(job.filters) if job.HasField("filters") else ""),
        ("limit", str(job.limit) if job.limit else ""),
        ("template", job.template_id),
        ("operation", job.operation),
        ("schedule", json_in_words(job.schedule) if has_schedule else "on request"),
        ("feature", job.feature_type),
        ("purpose", job.purpose_id),
        ("source", job.source),
        ("paused", time_in_words(job, "pause_time")),
        ("why", job.pause_note),
        ("created", time_in_words(job, "create_time")),
        ("changed", time_in_words(job, "update_time")),
        ("etag", job.etag),
    ]


async def import_jobs(
    context: typer.Context,
    file: Annotated[str, typer.Argument(help="A job file; - reads stdin.")],
    source: Annotated[str, typer.Option(help="Where the jobs come from; kept with them.")] = "",
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Shows the difference and stores nothing.")
    ] = False,
    prune: Annotated[
        bool,
        typer.Option("--prune", help="Deletes jobs of the same source that are not in the file."),
    ] = False,
    request_id: RequestId = "",
    as_json: AsJson = False,
) -> None:
    """Imports a job file, all of it or nothing."""
    session = session_of(context)
    session.require_own_tenant("job-import")
    text = read_text(file)
    async with session.connect() as batchwork:
        response = await batchwork.jobs.import_jobs(
            text,
            source=source,
            validate_only=dry_run,
            prune=prune,
            request_id=request_id or None,
        )
    if as_json:
        write_message(response)
        return
    note_warnings(response.warnings)
    write_table(
        ("JOB", "CHANGE", "REVISION", "FIELDS"), [_change_row(each) for each in response.changes]
    )


def _change_row(change: JobChange) -> tuple[str, ...]:
    return (
        change.job_id,
        short_name(JobChangeKind.DESCRIPTOR, change.kind),
        str(change.revision),
        ", ".join(change.changed_fields),
    )


async def export_jobs(
    context: typer.Context,
    jobs: Annotated[
        list[str] | None, typer.Argument(metavar="[JOB]...", help="The jobs; none means all.")
    ] = None,
    output: Annotated[Path | None, typer.Option(help="A file instead of stdout.")] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Changes nothing: a job file is JSON.")
    ] = False,
) -> None:
    """Writes jobs as a job file that job-import reads."""
    session = session_of(context)
    async with session.connect() as batchwork:
        text = await batchwork.jobs.export_jobs(jobs or (), tenant_id=session.tenant_id)
    if output is None:
        typer.echo(text)
        return
    try:
        output.write_text(text + "\n", encoding="utf-8")
    except OSError as error:
        raise InputError([f"--output {output}: {error.strerror}"]) from error


async def delete_job(
    context: typer.Context,
    job: Annotated[str, typer.Argument(help="The id of the job.")],
    etag: Annotated[str, typer.Option(help="Refuses when the job has another one.")] = "",
    allow_missing: Annotated[
        bool, typer.Option("--allow-missing", help="Succeeds when there is no such job.")
    ] = False,
    request_id: RequestId = "",
) -> None:
    """Deletes a job; its batches stay."""
    session = session_of(context)
    session.require_own_tenant("job-delete")
    async with session.connect() as batchwork:
        await batchwork.jobs.delete_job(
            job, etag=etag, allow_missing=allow_missing, request_id=request_id or None
        )
    typer.echo(f"{job} deleted")


async def pause_job(
    context: typer.Context,
    job: Annotated[str, typer.Argument(help="The id of the job.")],
    reason: Note = "",
    request_id: RequestId = "",
    as_json: AsJson = False,
) -> None:
    """Lets the schedule of a job rest; run still runs it."""
    session = session_of(context)
    session.require_own_tenant("job-pause")
    async with session.connect() as batchwork:
        paused = await batchwork.jobs.pause_job(job, note=reason, request_id=request_id or None)
    if as_json:
        write_message(paused)
    else:
        typer.echo(f"{job} paused")


async def resume_job(
    context: typer.Context,
    job: Annotated[str, typer.Argument(help="The id of the job.")],
    request_id: RequestId = "",
    as_json: AsJson = False,
) -> None:
    """Lets a paused job run by its schedule again."""
    session = session_of(context)
    session.require_own_tenant("job-resume")
    async with session.connect() as batchwork:
        resumed = await batchwork.jobs.resume_job(job, request_id=request_id or None)
    if as_json:
        write_message(resumed)
    else:
        typer.echo(f"{job} resumed")


async def run(
    context: typer.Context,
    job: Annotated[str, typer.Argument(help="The id of the job.")],
    users: Users = None,
    plan: Annotated[
        str, typer.Option(metavar="TOKEN", help="Only if it is exactly what plan has shown.")
    ] = "",
    overlap: Annotated[
        str,
        typer.Option(
            help="While another run goes on: skip refuses, cancel_previous cancels it; unset runs "
            "beside it."
        ),
    ] = "",
    request_id: RequestId = "",
    watch: Watch = False,
    as_json: AsJson = False,
) -> None:
    """Runs a job now and prints the id of its batch."""
    session = session_of(context)
    session.require_own_tenant("run")
    overlaps = enum_values_from("--overlap", Overlap.DESCRIPTOR, [overlap] if overlap else [])
    async with session.connect() as batchwork:
        batch = await batchwork.jobs.run_job(
            job,
            user_ids=users or (),
            overlap=overlaps[0] if overlaps else Overlap.OVERLAP_UNSPECIFIED,
            plan_token=plan,
            request_id=request_id or None,
        )
        await show_started(batchwork, batch, watch=watch, as_json=as_json)
