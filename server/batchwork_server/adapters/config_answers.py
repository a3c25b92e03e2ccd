"""Reads what a Config Database answers; ``docs/config-service.md`` has the shapes.

What one document gets wrong leaves out that document. What the answer gets wrong leaves nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from batchwork_server.domain.config_source import UserWishes, WishGroup, WishPage
from batchwork_server.domain.json_object import (
    MAX_INTEGER,
    FieldReader,
    decode_json,
    is_line,
    quoted,
    whole_number,
)
from batchwork_server.domain.preference import LONGEST_NAME, parse_wish
from batchwork_server.domain.preference_documents import (
    parse_preference_document,
    parse_preference_documents,
)
from batchwork_server.errors import Violation

_LONGEST_TOKEN = 4096
_LONGEST_ID = 256


class WrongAnswer(Exception):
    """An answer is not what it must be; it says what is wrong and where."""

    def __init__(self, violations: Sequence[Violation]) -> None:
        super().__init__("; ".join(f"{found.path}: {found.message}" for found in violations[:5]))


@dataclass(frozen=True, slots=True, kw_only=True)
class ToldChanges:
    """Who changed, as the service tells it.

    Attributes:
        users: By id, as they are after their last change here; none where the service tells only
            who changed.
    """

    users: Mapping[str, UserWishes | None]
    problems: Sequence[Violation]
    last_id: str
    more_follow: bool


def read_page(text: str, *, config_key: str) -> WishPage:
    """Reads all users, or a page of them: a list, or an object with it under ``configs``.

    Raises:
        WrongAnswer: it is neither.
    """
    value = _decoded(text)
    if isinstance(value, list):
        documents, path, token = value, "$", ""
    else:
        violations: list[Violation] = []
        fields = FieldReader(value, path="$", violations=violations)
        documents, path = _list_of(fields, "configs"), "$.configs"
        token = fields.line("next_page_token", longest=_LONGEST_TOKEN)
        _refuse(violations)
    users, problems = parse_preference_documents(documents, path=path, service_key=config_key)
    return WishPage(users=users, problems=problems, next_page_token=token)


def read_user(text: str, *, user_id: str, config_key: str) -> UserWishes:
    """Reads the document of one user, who need not be named in it.

    Raises:
        WrongAnswer: it is broken, or that of somebody else.
    """
    value = _decoded(text)
    if isinstance(value, Mapping) and value.get("tenant_id", value.get("user_id")) is None:
        value = {**value, "tenant_id": user_id}
    user, violations = parse_preference_document(value, path="$", service_key=config_key)
    if user is not None and user.user_id != user_id:
        message = f"This is the document of {quoted(user.user_id)}, not of {quoted(user_id)}."
        violations = [Violation("$.tenant_id", message)]
    if user is None or violations:
        raise WrongAnswer(violations)
    return user


def read_groups(text: str, *, feature_type: str) -> list[WishGroup]:
    """Reads the groups of a feature, all of them or nothing.

    Raises:
        WrongAnswer: something is wrong with one of them.
    """
    violations: list[Violation] = []
    fields = FieldReader(_decoded(text), path="$", violations=violations)
    groups = []
    for index, value in enumerate(_list_of(fields, "groups")):
        path = f"$.groups[{index}]"
        group = FieldReader(value, path=path, violations=violations)
        group.require("tenant_count")
        count = group.whole("tenant_count", least=0, most=MAX_INTEGER)
        if isinstance(value, Mapping):
            value = {name: value[name] for name in value if name != "tenant_count"}
        wish, found = parse_wish(value, path=path)
        violations += found
        if wish is not None:
            groups.append(
                WishGroup(feature_type=feature_type, schedule=wish.schedule, user_count=count or 0)
            )
    _refuse(violations)
    return groups


def read_last_id(text: str) -> str:
    """Reads the id of the newest change.

    Raises:
        WrongAnswer: there is none.
    """
    violations: list[Violation] = []
    fields = FieldReader(_decoded(text), path="$", violations=violations)
    last_id = _id_of(fields, "last_id", required=True)
    _refuse(violations)
    return last_id


def read_changes(text: str, *, since_id: str, config_key: str) -> ToldChanges:
    """Reads changes, oldest first.

    A change of a key that is not ours counts, but tells nothing.

    Raises:
        WrongAnswer: a change has no id, or no user; going on without it could lose it for ever.
    """
    violations: list[Violation] = []
    fields = FieldReader(_decoded(text), path="$", violations=violations)
    values = _list_of(fields, "changes")
    last_id = _id_of(fields, "last_id")
    more_follow = fields.flag("has_more") is True
    users: dict[str, UserWishes | None] = {}
    problems: list[Violation] = []
    for index, value in enumerate(values):
        path = f"$.changes[{index}]"
        change = FieldReader(value, path=path, violations=violations)
        change_id = _id_of(change, "id", required=True)
        tenant_id = change.line("tenant_id", longest=LONGEST_NAME)
        user_id = change.line("user_id", longest=LONGEST_NAME) or tenant_id
        if not user_id:
            change.refuse("tenant_id", "This field is required; it names the user.")
        if violations:
            continue
        last_id = last_id if fields.has("last_id") else change_id
        if value.get("config_key") in (None, config_key):
            users.pop(user_id, None)  # the last change of a user decides, and stands last
            user, found = _changed(value, user_id, path=path, config_key=config_key)
            problems += found
            if not found:
                users[user_id] = user
    _refuse(violations)
    if more_follow and (not values or last_id == since_id):
        message = "More changes are said to follow, but this page has none that lead on."
        raise WrongAnswer([Violation("$.has_more", message)])
    return ToldChanges(
        users=users, problems=problems, last_id=last_id or since_id, more_follow=more_follow
    )


def _changed(
    value: Mapping[str, Any], user_id: str, *, path: str, config_key: str
) -> tuple[UserWishes | None, list[Violation]]:
    if value.get("deleted") is True:
        return UserWishes(user_id=user_id), []
    if value.get("features") is None and value.get("config_value") is None:
        return None, []
    return parse_preference_document(value, path=path, service_key=config_key)


def _decoded(text: str) -> Any:
    value, violations = decode_json(text)
    _refuse(violations)
    return value


def _list_of(fields: FieldReader, name: str) -> list[Any]:
    value = fields.take(name)
    if isinstance(value, list):
        return value
    fields.refuse(name, f"{quoted(value)} is not a list.")
    return []


def _id_of(fields: FieldReader, name: str, *, required: bool = False) -> str:
    """Returns an id, which is text of one line or a whole number; empty when there is none."""
    value = fields.take(name)
    if value is None and not required:
        return ""
    number = whole_number(value)
    text = value if number is None else str(number)
    if is_line(text, longest=_LONGEST_ID):
        return str(text)
    fields.refuse(name, f"{quoted(value)} is no id: a number, or text of one line.")
    return ""


def _refuse(violations: Sequence[Violation]) -> None:
    if violations:
        raise WrongAnswer(violations)
