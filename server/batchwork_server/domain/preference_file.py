"""Preferences as the requirement documents have them: two shapes of JSON, one object or many."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from batchwork_server.domain.json_object import (
    FieldReader,
    child_path,
    is_line,
    parse_json,
    quoted,
)
from batchwork_server.domain.preference import LONGEST_NAME, Wish, parse_wish
from batchwork_server.domain.template_overrides import check_known_overrides
from batchwork_server.errors import Violation

MAX_FILE_BYTES = 16 * 1024 * 1024
MAX_PREFERENCES = 10_000

_PAYLOAD_TOO_LARGE = "PAYLOAD_TOO_LARGE"


@dataclass(frozen=True, slots=True, kw_only=True)
class UserPreferences:
    """What a document says about one user.

    Attributes:
        wishes: By feature.
        active: None when the document does not say.
    """

    user_id: str
    wishes: Mapping[str, Wish]
    active: bool | None = None


def parse_preference_file(text: str) -> tuple[list[UserPreferences], list[Violation]]:
    """Reads a document, or a list of documents.

    Returns:
        The users in the order of the text, and every violation with its JSON path.
    """
    size = len(text.encode(errors="surrogatepass"))
    if size > MAX_FILE_BYTES:
        message = f"The text has {size} bytes; the limit is {MAX_FILE_BYTES}."
        return [], [Violation("$", message, _PAYLOAD_TOO_LARGE, limit=MAX_FILE_BYTES)]
    document, violations = parse_json(text)
    if violations:
        return [], violations
    documents = (
        {f"$[{index}]": each for index, each in enumerate(document)}
        if isinstance(document, list)
        else {"$": document}
    )
    users: dict[str, UserPreferences] = {}
    for path, each in documents.items():
        user = _read_user(each, path=path, violations=violations)
        if user is not None:
            users[path] = user
    violations += _too_many(users.values())
    violations += _repeated(users)
    return list(users.values()), violations


def _read_user(value: Any, *, path: str, violations: list[Violation]) -> UserPreferences | None:
    before = len(violations)
    reader = FieldReader(value, path=path, violations=violations)
    if len(violations) > before:
        return None
    tenant_id = reader.line("tenant_id", longest=LONGEST_NAME)
    user_id = reader.line("user_id", longest=LONGEST_NAME) or tenant_id
    if not user_id and len(violations) == before:
        reader.refuse("tenant_id", "This field is required; it names the user.")
    active = reader.flag("active")
    reader.line("config_key", longest=LONGEST_NAME)
    wishes = _read_features(reader, violations)
    reader.refuse_unknown("a document of preferences")
    # One whose features are wrong still counts where users are compared.
    return UserPreferences(user_id=user_id, wishes=wishes, active=active) if user_id else None


def _read_features(reader: FieldReader, violations: list[Violation]) -> dict[str, Wish]:
    """Reads the wishes of either shape; a ``config_value`` may hold ``features`` of its own."""
    reader.know("features", "config_value")
    field = "config_value" if reader.has("config_value") else "features"
    if field == "config_value" and reader.has("features"):
        reader.refuse("features", "A document has `features` or `config_value`, not both.")
    elif not reader.has(field):
        reader.refuse(field, "This field is required, or `config_value`.")
    features, path = reader.mapping(field), reader.path_of(field)
    nested = features.get("features")
    if field == "config_value" and set(features) == {"features"} and isinstance(nested, Mapping):
        features, path = nested, child_path(path, "features")
    wishes: dict[str, Wish] = {}
    for feature_type, value in features.items():
        place = child_path(path, feature_type)
        if not is_line(feature_type, longest=LONGEST_NAME):
            message = f"{quoted(feature_type)} is not a name with 1 to {LONGEST_NAME} characters."
            violations.append(Violation(place, message))
        wish, wrong = parse_wish(value, path=place)
        violations += wrong
        if wish is not None:
            overrides = child_path(place, "template_overrides")
            violations += check_known_overrides(wish.template_overrides, path=overrides)
            wishes[feature_type] = wish
    return wishes


def _too_many(users: Iterable[UserPreferences]) -> list[Violation]:
    count = sum(len(user.wishes) for user in users)
    if count <= MAX_PREFERENCES:
        return []
    message = f"{count} preferences are too many for one import; the limit is {MAX_PREFERENCES}."
    return [Violation("$", message, _PAYLOAD_TOO_LARGE, limit=MAX_PREFERENCES)]


def _repeated(users: Mapping[str, UserPreferences]) -> list[Violation]:
    """Finds users that stand twice: their documents could contradict each other."""
    violations: list[Violation] = []
    first_places: dict[str, str] = {}
    for path, user in users.items():
        first = first_places.setdefault(user.user_id, path)
        if first != path:
            message = f"{quoted(user.user_id)} stands in {first} already; keep one document."
            violations.append(Violation(path, message))
    return violations
