"""The commands about what comes of preferences: groups, changes, defaults, previews."""

from __future__ import annotations

from contextlib import aclosing
from datetime import datetime
from typing import Annotated

import typer
from batchwork.v1.preference_pb2 import (
    DefaultPreference,
    PreferenceChange,
    PreferenceChangeKind,
)
from batchwork.v1.preference_service_pb2 import PreferenceGroup, UserDecision
from google.protobuf.json_format import MessageToJson
from google.protobuf.struct_pb2 import Struct

from batchwork_client.cli.following import PATIENCE
from batchwork_client.cli.inputs import (
    SCHEDULE_FORMS,
    InputError,
    schedule_from,
    short_name,
    values_from,
)
from batchwork_client.cli.output import (
    note_warnings,
    printable,
    time_in_words,
    write_facts,
    write_message,
    write_owned,
    write_table,
)
from batchwork_client.cli.parameters import AsJson, Limit, RequestId
from batchwork_client.cli.preference_words import (
    group_cells,
    origin_in_words,
    run_facts,
    run_in_words,
    schedule_in_words,
    source_facts,
)
from batchwork_client.cli.session import command, session_of
from batchwork_client.cli.upcoming import rules_in_words

Feature = Annotated[str, typer.Argument(help="The feature, such as instagram_posts.")]
OfFeature = Annotated[str, typer.Option("--feature", help="Only of this feature.")]
After = Annotated[int | None, typer.Option(min=0, help="Begins after this change.")]


def add_to(group: typer.Typer) -> None:
    """Adds the commands to those about preferences."""
    command(group, "effective")(get_effective_preference)
    command(group, "explain")(explain_user)
    command(group, "preview")(preview_schedule)
    command(group, "groups")(list_preference_groups)
    command(group, "members")(list_group_members)
    command(group, "categories")(list_compatible_categories)
    command(group, "changes")(list_preference_changes)
    command(group, "get-default")(get_default_preference)
    command(group, "set-default")(set_default_preference)


async def get_effective_preference(
    context: typer.Context,
    user: Annotated[str, typer.Argument(help="The id of the user.")],
    feature: Feature,
    job: Annotated[str, typer.Option(help="The job whose defaults count.")] = "",
    as_json: AsJson = False,
) -> None:
    """Shows what counts for one user, and who said each part of it."""
    session = session_of(context)
    async with session.connect() as batchwork:
        found = await batchwork.preferences.get_effective_preference(
            user, feature_type=feature, job_id=job, tenant_id=session.tenant_id
        )
    if as_json:
        write_message(found)
        return
    overrides = found.template_overrides
    rows = [
        ("enabled", "yes" if found.enabled else "no", origin_in_words(found.enabled_origin)),
        ("inactive", "yes" if found.inactive else "no", ""),
        (
            "schedule",
            schedule_in_words(found, "schedule", unset="none"),
            origin_in_words(found.schedule_origin),
        ),
        ("zone", found.schedule.time_zone, origin_in_words(found.time_zone_origin)),
        *(
            (name, _json_of(overrides, name), origin_in_words(found.override_origins[name]))
            for name in sorted(overrides.fields)
        ),
        *((name, run, "") for name, run in run_facts(found.next_runs)),
    ]
    write_table(("FIELD", "VALUE", "SAID BY"), rows)


async def explain_user(
    context: typer.Context,
    user: Annotated[str, typer.Argument(help="The id of the user.")],
    feature: Annotated[str, typer.Option(help="The feature, such as instagram_posts.")],
    job: Annotated[str, typer.Option(help="Only this job.")] = "",
    since: Annotated[
        datetime | None, typer.Option(help="From when on; local time if it names no zone.")
    ] = None,
    until: Annotated[datetime | None, typer.Option(help="Until when.")] = None,
    as_json: AsJson = False,
) -> None:
    """Tells why a user got something, or nothing: period by period, newest first."""
    session = session_of(context)
    async with session.connect() as batchwork:
        found = await batchwork.preferences.explain_user(
            user,
            feature_type=feature,
            job_id=job,
            start_time=since.astimezone() if since else None,
            end_time=until.astimezone() if until else None,
            tenant_id=session.tenant_id,
        )
    if as_json:
        write_message(found)
        return
    write_table(
        ("JOB", "PERIOD", "DUE", "DECISION", "REASON", "BATCH", "MESSAGE"),
        [
            (
                told.job_id,
                told.period,
                time_in_words(told, "due_time"),
                UserDecision.Name(told.decision).removeprefix("USER_DECISION_"),
                told.reason,
                told.batch_id,
                told.message,
            )
            for told in found.periods
        ],
    )
    write_facts([*run_facts(found.next_runs), *source_facts(found)])


async def preview_schedule(
    context: typer.Context,
    schedule: Annotated[str, typer.Argument(help=f"When: {SCHEDULE_FORMS}.")],
    time_zone: Annotated[str, typer.Option(help="Zone of the schedule, as Europe/Berlin.")] = "",
    feature: Annotated[str, typer.Option(help="Whose defaults lend the zone.")] = "",
    since: Annotated[
        datetime | None, typer.Option(help="After when; local time if it names no zone.")
    ] = None,
    limit: Annotated[int, typer.Option(min=1, max=100, help="How many due times.")] = 10,
    as_json: AsJson = False,
) -> None:
    """Tells when a schedule would be due, by the rules for days on which clocks change."""
    session = session_of(context)
    async with session.connect() as batchwork:
        found = await batchwork.preferences.preview_schedule(
            schedule_from(schedule, time_zone=time_zone),
            feature_type=feature,
            start_time=since.astimezone() if since else None,
            count=limit,
            tenant_id=session.tenant_id,
        )
    if as_json:
        write_message(found)
        return
    write_table(
        ("DUE", "LOCAL TIME", "ZONE", "RULE"),
        [
            (
                time_in_words(run, "due_time"),
                run.local_time.replace("T", " "),
                run.time_zone,
                rules_in_words(run),
            )
            for run in found.runs
        ],
    )


async def list_preference_groups(
    context: typer.Context,
    feature: OfFeature = "",
    with_empty: Annotated[
        bool, typer.Option("--with-empty", help="Also groups without members.")
    ] = False,
    limit: Limit = 100,
    as_json: AsJson = False,
) -> None:
    """Lists the groups of users who wish the same schedule."""
    session = session_of(context)
    async with session.connect() as batchwork:
        found = batchwork.preferences.list_preference_groups(
            feature_type=feature,
            with_empty=with_empty,
            tenant_id=session.tenant_id,
            limit=limit,
        )
        if as_json:
            async for group in found:
                write_message(group)
            return
        write_owned(
            ("GROUP", "FEATURE", "MEMBERS", "SCHEDULE", "NEXT RUN"),
            [(group.tenant_id, _group_row(group)) async for group in found],
            with_tenant=session.reads_all_tenants,
        )


async def list_group_members(
    context: typer.Context,
    group: Annotated[int, typer.Argument(min=1, help="The group, as groups lists it.")],
    limit: Limit = 100,
    as_json: AsJson = False,
) -> None:
    """Lists the members of a group."""
    session = session_of(context)
    async with session.connect() as batchwork:
        found = batchwork.preferences.list_group_members(
            group, tenant_id=session.tenant_id, limit=limit
        )
        if as_json:
            async for member in found:
                write_message(member)
            return
        write_table(
            ("USER", "CHANGED"),
            [(each.user_id, time_in_words(each, "update_time")) async for each in found],
        )


async def list_compatible_categories(
    context: typer.Context,
    feature: Feature,
    user: Annotated[str, typer.Option(help="Whose overrides count.")] = "",
    limit: Limit = 100,
    as_json: AsJson = False,
) -> None:
    """Lists the categories that suit a feature."""
    session = session_of(context)
    async with session.connect() as batchwork:
        found = batchwork.preferences.list_compatible_categories(
            feature, user_id=user, tenant_id=session.tenant_id, limit=limit
        )
        if as_json:
            async for category in found:
                write_message(category)
            return
        write_table(
            ("CATEGORY", "JOBS", "FIELDS", "MISSING"),
            [
                (
                    each.category,
                    ", ".join(each.job_ids),
                    ", ".join(each.matching_fields),
                    ", ".join(each.missing_fields),
                )
                async for each in found
            ],
        )


async def list_preference_changes(
    context: typer.Context,
    after: After = None,
    follow: Annotated[bool, typer.Option("--follow", help="Goes on as changes happen.")] = False,
    limit: Limit = 100,
    as_json: AsJson = False,
) -> None:
    """Lists the changes of preferences in their order, and with --follow goes on."""
    session = session_of(context)
    async with session.connect() as batchwork:
        if follow:
            watch = batchwork.preferences.watch_preference_changes(
                after=after, tenant_id=session.tenant_id, patience=PATIENCE
            )
            async with aclosing(watch):
                async for change in watch:
                    _tell(change, as_json=as_json)
            return
        found = batchwork.preferences.list_preference_changes(
            after=after, tenant_id=session.tenant_id, limit=limit
        )
        if as_json:
            async for change in found:
                write_message(change)
            return
        write_owned(
            ("CHANGE", "TIME", "WHAT", "FEATURE", "USER", "ENABLED", "LEFT", "JOINED"),
            [(change.tenant_id, _change_row(change)) async for change in found],
            with_tenant=session.reads_all_tenants,
        )


async def get_default_preference(
    context: typer.Context, feature: Feature, as_json: AsJson = False
) -> None:
    """Shows what the tenant wishes for a feature, for users who say nothing."""
    session = session_of(context)
    async with session.connect() as batchwork:
        default = await batchwork.preferences.get_default_preference(
            feature, tenant_id=session.tenant_id
        )
    _show(default, as_json=as_json)


async def set_default_preference(
    context: typer.Context,
    feature: Feature,
    enabled: Annotated[
        bool | None, typer.Option("--enabled/--disabled", help="For users without a preference.")
    ] = None,
    schedule: Annotated[str, typer.Option(help=f"When: {SCHEDULE_FORMS}.")] = "",
    time_zone: Annotated[str, typer.Option(help="Zone of the schedule, as Europe/Berlin.")] = "",
    overrides: Annotated[
        list[str] | None,
        typer.Option("--override", metavar="NAME=VALUE", help="For the template; repeatable."),
    ] = None,
    etag: Annotated[str, typer.Option(help="Refuses when the default has another one.")] = "",
    request_id: RequestId = "",
    as_json: AsJson = False,
) -> None:
    """Sets what is given of the tenant's default, and leaves the rest as it is."""
    session = session_of(context)
    session.require_own_tenant("preferences set-default")
    default = DefaultPreference(feature_type=feature, etag=etag)
    mask: list[str] = []
    if enabled is not None:
        default.enabled = enabled
        mask.append("enabled")
    if schedule:
        default.schedule.CopyFrom(schedule_from(schedule, time_zone=time_zone))
        mask.append("schedule")
    elif time_zone:
        raise InputError(["--time-zone belongs to a --schedule; give both"])
    if overrides:
        default.template_overrides.update(values_from("--override", overrides))
        mask.append("template_overrides")
    if not mask:
        raise InputError(["give --enabled, --disabled, --schedule or --override"])
    async with session.connect() as batchwork:
        done = await batchwork.preferences.set_default_preference(
            default, update_mask=mask, request_id=request_id or None
        )
    note_warnings(done.warnings)
    _show(done.default_preference, as_json=as_json)


def _show(default: DefaultPreference, *, as_json: bool) -> None:
    if as_json:
        write_message(default)
        return
    overrides = default.template_overrides
    write_facts(
        [
            ("feature", default.feature_type),
            ("enabled", "yes" if default.enabled else "no"),
            ("schedule", schedule_in_words(default, "schedule", unset="the job's")),
            ("overrides", MessageToJson(overrides, indent=None) if overrides.fields else ""),
            ("etag", default.etag),
            ("changed", time_in_words(default, "update_time")),
        ]
    )


def _group_row(group: PreferenceGroup) -> tuple[str, ...]:
    return (
        str(group.group_key),
        group.feature_type,
        str(group.member_count),
        schedule_in_words(group, "schedule", unset="the default"),
        "; ".join(run_in_words(run) for run in group.next_runs),
    )


def _change_row(change: PreferenceChange) -> tuple[str, ...]:
    return (
        str(change.sequence),
        time_in_words(change, "change_time"),
        short_name(PreferenceChangeKind.DESCRIPTOR, change.kind).lower(),
        change.feature_type,
        change.user_id,
        "yes" if change.enabled else "no",
        *group_cells(change),
    )


def _tell(change: PreferenceChange, *, as_json: bool) -> None:
    if as_json:
        write_message(change)
        return
    typer.echo(printable("  ".join(cell or "-" for cell in _change_row(change))))


def _json_of(overrides: Struct, name: str) -> str:
    return MessageToJson(overrides.fields[name], indent=None)
