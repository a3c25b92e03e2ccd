"""The commands about preferences: get, set, set-many, import, delete, list."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer
from batchwork.v1.preference_pb2 import Preference
from batchwork.v1.preference_service_pb2 import (
    BatchSetPreferencesRequest,
    PreferenceImportKind,
)
from google.protobuf.json_format import MessageToJson, ParseDict, ParseError

from batchwork_client.cli.inputs import (
    SCHEDULE_FORMS,
    InputError,
    read_text,
    schedule_from,
    short_name,
    values_from,
)
from batchwork_client.cli.output import (
    note_warnings,
    time_in_words,
    write_facts,
    write_message,
    write_owned,
    write_table,
)
from batchwork_client.cli.parameters import AsJson, Limit, RequestId
from batchwork_client.cli.preference_words import (
    group_cells,
    group_facts,
    run_facts,
    schedule_in_words,
)
from batchwork_client.cli.session import command, session_of

User = Annotated[str, typer.Argument(help="The id of the user.")]
Feature = Annotated[str, typer.Argument(help="The feature, such as instagram_posts.")]

group = typer.Typer(
    help="Reads and sets what users wish for features.",
    no_args_is_help=True,
    rich_markup_mode=None,
)


@command(group, "get")
async def get_preference(
    context: typer.Context, user: User, feature: Feature, as_json: AsJson = False
) -> None:
    """Shows one user's preference for one feature."""
    session = session_of(context)
    async with session.connect() as batchwork:
        preference = await batchwork.preferences.get_preference(
            user, feature_type=feature, tenant_id=session.tenant_id
        )
    _show(preference, as_json=as_json)


@command(group, "set")
async def set_preference(
    context: typer.Context,
    user: User,
    feature: Feature,
    enabled: Annotated[
        bool | None, typer.Option("--enabled/--disabled", help="Whether the user wants it at all.")
    ] = None,
    schedule: Annotated[str, typer.Option(help=f"When: {SCHEDULE_FORMS}.")] = "",
    time_zone: Annotated[str, typer.Option(help="Zone of the schedule, as Europe/Berlin.")] = "",
    overrides: Annotated[
        list[str] | None,
        typer.Option("--override", metavar="NAME=VALUE", help="For the template; repeatable."),
    ] = None,
    etag: Annotated[str, typer.Option(help="Refuses when the preference has another one.")] = "",
    request_id: RequestId = "",
    as_json: AsJson = False,
) -> None:
    """Sets what is given of one user's preference, and leaves the rest as it is."""
    session = session_of(context)
    session.require_own_tenant("preferences set")
    preference = Preference(user_id=user, feature_type=feature, etag=etag)
    mask: list[str] = []
    if enabled is not None:
        preference.enabled = enabled
        mask.append("enabled")
    if schedule:
        preference.schedule.CopyFrom(schedule_from(schedule, time_zone=time_zone))
        mask.append("schedule")
    elif time_zone:
        raise InputError(["--time-zone belongs to a --schedule; give both"])
    if overrides:
        preference.template_overrides.update(values_from("--override", overrides))
        mask.append("template_overrides")
    if not mask:
        raise InputError(["give --enabled, --disabled, --schedule or --override"])
    async with session.connect() as batchwork:
        done = await batchwork.preferences.set_preference(
            preference, update_mask=mask, request_id=request_id or None
        )
    if as_json:
        write_message(done)
        return
    note_warnings(done.warnings)
    _show(done.preference, as_json=False, more=[*group_facts(done), *run_facts(done.next_runs)])


@command(group, "set-many")
async def batch_set_preferences(
    context: typer.Context,
    file: Annotated[
        Path, typer.Argument(help="JSON list of preferences, as preferences get --json writes one.")
    ],
    request_id: RequestId = "",
    as_json: AsJson = False,
) -> None:
    """Sets up to 1,000 preferences, all of them or none."""
    session = session_of(context)
    session.require_own_tenant("preferences set-many")
    request = BatchSetPreferencesRequest()
    try:
        ParseDict({"preferences": json.loads(file.read_text(encoding="utf-8"))}, request)
    except (OSError, ValueError, ParseError) as error:
        raise InputError([f"{file}: {error}"]) from error
    async with session.connect() as batchwork:
        done = await batchwork.preferences.batch_set_preferences(
            request.preferences, request_id=request_id or None
        )
    if as_json:
        write_message(done)
        return
    note_warnings(done.warnings)
    write_table(
        ("USER", "FEATURE", "CHANGED", "LEFT", "JOINED"),
        [
            (each.user_id, each.feature_type, _yes_or_no(each.changed), *group_cells(each))
            for each in done.results
        ],
    )


@command(group, "import")
async def import_preferences(
    context: typer.Context,
    file: Annotated[str, typer.Argument(help="JSON of the documents; - reads stdin.")],
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Shows the difference and stores nothing.")
    ] = False,
    request_id: RequestId = "",
    as_json: AsJson = False,
) -> None:
    """Imports preferences in the documents' JSON, all of them or none."""
    session = session_of(context)
    session.require_own_tenant("preferences import")
    text = read_text(file)
    async with session.connect() as batchwork:
        done = await batchwork.preferences.import_preferences(
            text, validate_only=dry_run, request_id=request_id or None
        )
    if as_json:
        write_message(done)
        return
    note_warnings(done.warnings)
    write_table(
        ("USER", "FEATURE", "CHANGE", "FIELDS"),
        [
            (
                each.user_id,
                each.feature_type,
                short_name(PreferenceImportKind.DESCRIPTOR, each.kind).lower(),
                ", ".join(each.changed_fields),
            )
            for each in done.preferences
        ],
    )


@command(group, "delete")
async def delete_preference(
    context: typer.Context,
    user: User,
    feature: Feature,
    etag: Annotated[str, typer.Option(help="Refuses when the preference has another one.")] = "",
    request_id: RequestId = "",
    as_json: AsJson = False,
) -> None:
    """Deletes one user's preference for one feature; defaults count for the user then."""
    session = session_of(context)
    session.require_own_tenant("preferences delete")
    async with session.connect() as batchwork:
        done = await batchwork.preferences.delete_preference(
            user, feature_type=feature, etag=etag, request_id=request_id or None
        )
    if as_json:
        write_message(done)
        return
    left = str(done.group_left) if done.HasField("group_left") else ""
    write_facts([("deleted", f"{user} / {feature}"), ("left group", left)])


@command(group, "list")
async def list_preferences(
    context: typer.Context,
    user: Annotated[str, typer.Option(help="Only of this user.")] = "",
    feature: Annotated[str, typer.Option(help="Only for this feature.")] = "",
    enabled: Annotated[
        bool | None, typer.Option("--enabled/--disabled", help="Only these.")
    ] = None,
    limit: Limit = 100,
    as_json: AsJson = False,
) -> None:
    """Lists preferences by feature and user; of all tenants by tenant first."""
    session = session_of(context)
    async with session.connect() as batchwork:
        found = batchwork.preferences.list_preferences(
            user_id=user,
            feature_type=feature,
            enabled=enabled,
            tenant_id=session.tenant_id,
            limit=limit,
        )
        if as_json:
            async for preference in found:
                write_message(preference)
            return
        write_owned(
            ("USER", "FEATURE", "ENABLED", "SCHEDULE", "CHANGED"),
            [(preference.tenant_id, _row(preference)) async for preference in found],
            with_tenant=session.reads_all_tenants,
        )


def _row(preference: Preference) -> tuple[str, ...]:
    return (
        preference.user_id,
        preference.feature_type,
        _yes_or_no(preference.enabled),
        schedule_in_words(preference, "schedule", unset="the default"),
        time_in_words(preference, "update_time"),
    )


def _show(preference: Preference, *, as_json: bool, more: Sequence[tuple[str, str]] = ()) -> None:
    if as_json:
        write_message(preference)
        return
    overrides = preference.template_overrides
    write_facts(
        [
            ("user", preference.user_id),
            ("feature", preference.feature_type),
            ("enabled", _yes_or_no(preference.enabled)),
            ("schedule", schedule_in_words(preference, "schedule", unset="the default")),
            ("overrides", MessageToJson(overrides, indent=None) if overrides.fields else ""),
            ("etag", preference.etag),
            ("inactive", _yes_or_no(True) if preference.inactive else ""),
            ("changed", time_in_words(preference, "update_time")),
            *more,
        ]
    )


def _yes_or_no(answer: bool) -> str:
    return "yes" if answer else "no"
