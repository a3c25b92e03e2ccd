"""The command that tells whether the users whom things list are there: validate references."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Annotated, Any

import typer
from batchwork.v1.item_pb2 import ItemInput
from batchwork.v1.validation_service_pb2 import (
    CategoryReferences,
    CategoryVerdict,
    UserVerdict,
    ValidateReferencesResponse,
)

from batchwork_client.cli.inputs import InputError, items_from, short_name
from batchwork_client.cli.output import note, write_message, write_table
from batchwork_client.cli.parameters import AsJson
from batchwork_client.cli.session import ExitCode, command, session_of
from batchwork_client.cli.validation_reports import in_words

_FIELDS = ("user_ids", "member_ids")


def add_to(group: typer.Typer) -> None:
    """Adds the command to the others that validate."""
    command(group, "references")(validate_references)


async def validate_references(
    context: typer.Context,
    file: Annotated[
        str,
        typer.Argument(
            help="Things as .json or .jsonl, as submit takes them, with user_ids or member_ids; "
            "- reads JSON lines from stdin."
        ),
    ],
    id_field: Annotated[
        str, typer.Option(help="The field that names a thing, instead of item_id.")
    ] = "",
    as_json: AsJson = False,
) -> None:
    """Tells whether the users whom things list exist and are active; changes nothing."""
    session = session_of(context)
    session.require_own_tenant("validate references")
    listed = _references_in(file, items_from(file, id_field=id_field))
    async with session.connect() as batchwork:
        answer = await batchwork.validation.validate_references(listed)
    if as_json:
        write_message(answer)
    else:
        _show(answer)
    totals = answer.totals
    if any(each.valid < each.total for each in (totals.categories, totals.user_references)):
        raise typer.Exit(ExitCode.FAILURES)


def _references_in(file: str, things: list[ItemInput]) -> list[CategoryReferences]:
    """Returns whom each thing lists.

    Raises:
        InputError: Names every thing whose lists cannot be ones of ids.
    """
    found, problems = [], []
    for number, thing in enumerate(things, start=1):
        data = json.loads(thing.data_json)
        fields = data if isinstance(data, dict) else {}
        lists = {name: fields[name] for name in _FIELDS if fields.get(name) is not None}
        wrong = [name for name, ids in lists.items() if not _are_ids(ids)]
        problems += [
            f"{file}: thing {number} ({thing.item_id!r}): {name} is "
            f"{json.dumps(lists[name], ensure_ascii=False)}; give a list of ids"
            for name in wrong
        ]
        if not wrong:
            found.append(CategoryReferences(category_id=thing.item_id, **lists))
    if problems:
        raise InputError(problems)
    return found


def _are_ids(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(each, str) for each in value)


def _show(answer: ValidateReferencesResponse) -> None:
    if answer.results:
        write_table(("CATEGORY", "VERDICT", "USER", "VERDICT", "FIELD"), _rows(answer))
    totals = answer.totals
    note(
        f"categories: {in_words(totals.categories)}; "
        f"references to users: {in_words(totals.user_references)}"
    )


def _rows(answer: ValidateReferencesResponse) -> Iterator[tuple[str, ...]]:
    for result in answer.results:
        category = result.category_id, short_name(CategoryVerdict.DESCRIPTOR, result.verdict)
        users = [(name, each) for name in _FIELDS for each in getattr(result, name)]
        if not users:
            yield *category, "", "", ""
        for name, each in users:
            yield *category, each.user_id, short_name(UserVerdict.DESCRIPTOR, each.verdict), name
