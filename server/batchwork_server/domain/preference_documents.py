"""Reads what one user wishes, in both JSON shapes of the requirement documents.

The configuration guide has ``{"tenant_id": …, "active": true, "features": {feature: wish}}``, the
preference document ``{"tenant_id": …, "config_key": …, "config_value": {feature: wish}}``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from batchwork_server.domain.config_source import UserWishes
from batchwork_server.domain.json_object import (
    FieldReader,
    child_path,
    is_line,
    quoted,
    unsound,
)
from batchwork_server.domain.preference import LONGEST_NAME, Wish, parse_wish
from batchwork_server.domain.template_overrides import check_known_overrides
from batchwork_server.errors import Violation

MAX_FEATURES = 100
"""So many features at most has a document that a service answers."""

_OWNER = "a document of preferences"


def parse_preference_documents(
    documents: Sequence[Any], *, path: str, service_key: str | None = None
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
        user, found = parse_preference_document(document, path=own_path, service_key=service_key)
        if user is None:
            violations += found
        elif user.user_id in users:
            message = f"There is a document of {quoted(user.user_id)} before this one; keep one."
            violations.append(Violation(own_path, message))
        else:
            users[user.user_id] = user
    return list(users.values()), violations


def parse_preference_document(
    value: Any, *, path: str, service_key: str | None = None
) -> tuple[UserWishes | None, list[Violation]]:
    """Reads the document of one user, in either shape.

    A ``user_id`` names the user, else the ``tenant_id`` does. A ``config_value`` may hold the
    features directly, or the guide's ``features`` with nothing beside them that could be one.

    Args:
        service_key: Given for what a service answers: the only key that the second shape may have.
            Then fields around the features may be unknown, because a service has ids and times of
            its own; in a wish they never may. And there are at most ``MAX_FEATURES``.

    Returns:
        The user, or none and every violation.
    """
    violations = list(unsound(value, path=path))
    fields = FieldReader(value, path=path, violations=violations)
    if violations:
        return None, violations
    user = _Document(fields, violations, service_key=service_key).read()
    if not violations:
        return user, []
    if service_key is not None and user.user_id:
        violations = [_naming(user.user_id, found) for found in violations]
    return None, violations


def _naming(user_id: str, violation: Violation) -> Violation:
    """Says whose document it is: nobody can count to the place in the answer of a service."""
    return replace(violation, message=f"{violation.message} It is what {quoted(user_id)} wishes.")


class _Document:
    """The document of one user, while it is read."""

    def __init__(
        self,
        fields: FieldReader,
        violations: list[Violation],
        *,
        service_key: str | None,
    ) -> None:
        self._fields = fields
        self._violations = violations
        self._service_key = service_key

    def read(self) -> UserWishes:
        user_id = self._read_user_id()
        active = self._fields.flag("active")
        features, path, inner_active = self._read_features()
        if self._service_key is None:
            self._fields.refuse_unknown(_OWNER)
        return UserWishes(
            user_id=user_id,
            wishes=self._read_wishes(features, path=path),
            active=inner_active if active is None or inner_active is False else active,
            path=path,
        )

    def _read_user_id(self) -> str:
        before = len(self._violations)
        tenant_id = self._fields.line("tenant_id", longest=LONGEST_NAME)
        user_id = self._fields.line("user_id", longest=LONGEST_NAME) or tenant_id
        if not user_id and len(self._violations) == before:
            self._fields.refuse("tenant_id", "This field is required; it names the user.")
        return user_id

    def _read_features(self) -> tuple[Mapping[str, Any], str, bool | None]:
        """Returns the features, where they stand, and what is said beside them of the user."""
        fields = self._fields
        fields.know("features", "config_value")
        key = fields.line("config_key", longest=LONGEST_NAME)
        if self._service_key is not None and key not in ("", self._service_key):
            fields.refuse(
                "config_key", f"{quoted(key)} is not {quoted(self._service_key)}, which is read."
            )
        second = fields.has("config_value") or bool(key)
        name = "config_value" if second else "features"
        if second and fields.has("features"):
            fields.refuse("features", "A document has `features` or `config_value`, not both.")
        elif not fields.has(name):
            fields.refuse(name, "This field is required, or `config_value`.")
        value, path = fields.mapping(name), fields.path_of(name)
        if not second or not _holds_the_other_shape(value):
            return value, path, None
        inner = FieldReader(value, path=path, violations=self._violations)
        inner.know("tenant_id")
        active, features = inner.flag("active"), inner.mapping("features")
        if self._service_key is None:
            inner.refuse_unknown(_OWNER)
        return features, child_path(path, "features"), active

    def _read_wishes(self, features: Mapping[str, Any], *, path: str) -> dict[str, Wish]:
        if self._service_key is not None and len(features) > MAX_FEATURES:
            message = f"{len(features)} features are too many; the limit is {MAX_FEATURES}."
            self._violations.append(Violation(path, message, limit=MAX_FEATURES))
            return {}
        wishes: dict[str, Wish] = {}
        for feature_type, value in features.items():
            place = child_path(path, feature_type)
            if not is_line(feature_type, longest=LONGEST_NAME):
                message = (
                    f"{quoted(feature_type)} is not a name with 1 to {LONGEST_NAME} characters."
                )
                self._violations.append(Violation(place, message))
            wish, wrong = parse_wish(value, path=place)
            self._violations += wrong
            if wish is not None:
                overrides = child_path(place, "template_overrides")
                self._violations += check_known_overrides(wish.template_overrides, path=overrides)
                wishes[feature_type] = wish
        return wishes


def _holds_the_other_shape(value: Mapping[str, Any]) -> bool:
    others = (other for name, other in value.items() if name != "features")
    return isinstance(value.get("features"), Mapping) and not any(
        isinstance(other, Mapping) for other in others
    )
