"""Reads what one user wishes, in both JSON shapes of the requirement documents.

The configuration guide has ``{"tenant_id": …, "active": true, "features": {feature: wish}}``, the
preference document ``{"tenant_id": …, "config_key": …, "config_value": {feature: wish}}``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from batchwork_server.domain.config_source import UserWishes
from batchwork_server.domain.json_object import (
    FieldReader,
    child_path,
    decode_json,
    is_line,
    quoted,
    unsound,
)
from batchwork_server.domain.preference import LONGEST_NAME, Wish, parse_wish
from batchwork_server.errors import Violation

MAX_DOCUMENTS = 10_000
"""So many documents at most are in one file."""

MAX_FEATURES = 100
"""So many features at most has one document."""


def parse_preference_file(
    text: str, *, config_key: str | None = None
) -> tuple[list[UserWishes], list[Violation]]:
    """Reads JSON text that is one document, or a list of them; both shapes may be mixed.

    Args:
        config_key: The only key that the second shape may have; None means any.

    Returns:
        The users whose documents are right, and every violation with its JSON path.
    """
    document, violations = decode_json(text)
    if violations:
        return [], violations
    if not isinstance(document, list):
        user, violations = parse_preference_document(document, path="$", config_key=config_key)
        return ([] if user is None else [user]), violations
    if len(document) > MAX_DOCUMENTS:
        message = f"{len(document)} documents are too many; the limit is {MAX_DOCUMENTS}."
        return [], [Violation("$", message, limit=MAX_DOCUMENTS)]
    return parse_preference_documents(document, path="$", config_key=config_key)


def parse_preference_documents(
    documents: Sequence[Any],
    *,
    path: str,
    config_key: str | None = None,
    ignore_unknown: bool = False,
) -> tuple[list[UserWishes], list[Violation]]:
    """Reads the elements of the list at ``path``; a broken one does not lose the others.

    Of two documents of one user the first counts, and the second is a violation. The arguments
    are those of ``parse_preference_document``.

    Returns:
        The users whose documents are right, in their order, and every violation.
    """
    users: dict[str, UserWishes] = {}
    violations: list[Violation] = []
    for index, document in enumerate(documents):
        own_path = f"{path}[{index}]"
        user, found = parse_preference_document(
            document, path=own_path, config_key=config_key, ignore_unknown=ignore_unknown
        )
        if user is None:
            violations += found
        elif user.user_id in users:
            message = f"There is a document of {quoted(user.user_id)} before this one; keep one."
            violations.append(Violation(f"{own_path}.tenant_id", message))
        else:
            users[user.user_id] = user
    return list(users.values()), violations


def parse_preference_document(
    value: Any, *, path: str, config_key: str | None = None, ignore_unknown: bool = False
) -> tuple[UserWishes | None, list[Violation]]:
    """Reads the document of one user, in either shape.

    A ``config_value`` may hold the features directly, or the guide's ``features`` and ``active``;
    so no feature of the second shape can be called ``features``. What is null is absent.

    Args:
        config_key: The only key that the second shape may have; None means any.
        ignore_unknown: Whether fields around the features may be unknown, as those of a service
            may, which has ids and times of its own. In a wish they never may.

    Returns:
        The user, or none and every violation.
    """
    violations = list(unsound(value, path=path))
    fields = FieldReader(value, path=path, violations=violations)
    if violations:
        return None, violations
    user_id = _read_user_id(fields)
    if fields.has("config_key", "config_value"):
        wishes, active = _read_config_value(fields, config_key, violations, ignore_unknown)
    else:
        wishes, active = _read_features(fields, violations)
    if not ignore_unknown:
        fields.refuse_unknown("a preference document")
    if violations:
        return None, violations
    return UserWishes(user_id=user_id, wishes=wishes, active=active), []


def _read_user_id(fields: FieldReader) -> str:
    user_id = fields.take("tenant_id", "user_id")
    if is_line(user_id, longest=LONGEST_NAME):
        return str(user_id)
    fields.refuse(
        "tenant_id",
        f"{quoted(user_id)} is not the id of a user: text of one line with 1 to {LONGEST_NAME} "
        "characters.",
    )
    return ""


def _read_config_value(
    fields: FieldReader,
    config_key: str | None,
    violations: list[Violation],
    ignore_unknown: bool,
) -> tuple[dict[str, Wish], bool]:
    key = fields.line("config_key", longest=LONGEST_NAME)
    if config_key is not None and key not in ("", config_key):
        fields.refuse("config_key", f"{quoted(key)} is not {quoted(config_key)}, which is read.")
    active = fields.flag("active")
    if not fields.require("config_value"):
        return {}, True
    value = fields.take("config_value")
    path = fields.path_of("config_value")
    if isinstance(value, Mapping) and value.get("features") is not None:
        inner = FieldReader(value, path=path, violations=violations)
        inner.know("tenant_id")
        wishes, inner_active = _read_features(inner, violations)
        if not ignore_unknown:
            inner.refuse_unknown("a preference document")
        return wishes, inner_active and active is not False
    return _read_wishes(value, path=path, violations=violations), active is not False


def _read_features(
    fields: FieldReader, violations: list[Violation]
) -> tuple[dict[str, Wish], bool]:
    active = fields.flag("active")
    if not fields.require("features"):
        return {}, True
    value = fields.take("features")
    wishes = _read_wishes(value, path=fields.path_of("features"), violations=violations)
    return wishes, active is not False


def _read_wishes(value: Any, *, path: str, violations: list[Violation]) -> dict[str, Wish]:
    if not isinstance(value, Mapping):
        violations.append(Violation(path, f"{quoted(value)} is not an object of features."))
        return {}
    if len(value) > MAX_FEATURES:
        message = f"{len(value)} features are too many; the limit is {MAX_FEATURES}."
        violations.append(Violation(path, message, limit=MAX_FEATURES))
        return {}
    wishes: dict[str, Wish] = {}
    for feature_type, wished in value.items():
        own_path = child_path(path, feature_type)
        if not is_line(feature_type, longest=LONGEST_NAME):
            message = f"A feature's name is text of one line with 1 to {LONGEST_NAME} characters."
            violations.append(Violation(own_path, message))
            continue
        wish, found = parse_wish(wished, path=own_path)
        violations += found
        if wish is not None:
            wishes[feature_type] = wish
    return wishes
