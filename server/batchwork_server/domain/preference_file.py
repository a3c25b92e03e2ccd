"""Preferences as the requirement documents have them: one document, or a list of them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from batchwork_server.domain.config_source import UserWishes
from batchwork_server.domain.json_object import decode_json
from batchwork_server.domain.preference_documents import (
    parse_preference_document,
    parse_preference_documents,
)
from batchwork_server.errors import Violation

MAX_FILE_BYTES = 16 * 1024 * 1024
MAX_PREFERENCES = 10_000

_PAYLOAD_TOO_LARGE = "PAYLOAD_TOO_LARGE"


def parse_preference_file(text: str) -> tuple[list[UserWishes], list[Violation]]:
    """Reads a document, or a list of documents; both shapes may be mixed.

    Returns:
        The users in the order of the text, and every violation with its JSON path.
    """
    size = len(text.encode(errors="surrogatepass"))
    if size > MAX_FILE_BYTES:
        message = f"The text has {size} bytes; the limit is {MAX_FILE_BYTES}."
        return [], [Violation("$", message, _PAYLOAD_TOO_LARGE, limit=MAX_FILE_BYTES)]
    document, violations = decode_json(text)
    if violations:
        return [], violations
    users, violations = _read(document)
    return users, violations + _too_many(users)


def _read(document: Any) -> tuple[list[UserWishes], list[Violation]]:
    if isinstance(document, list):
        return parse_preference_documents(document, path="$")
    user, violations = parse_preference_document(document, path="$")
    return ([] if user is None else [user]), violations


def _too_many(users: Iterable[UserWishes]) -> list[Violation]:
    count = sum(len(user.wishes) for user in users)
    if count <= MAX_PREFERENCES:
        return []
    message = f"{count} preferences are too many for one import; the limit is {MAX_PREFERENCES}."
    return [Violation("$", message, _PAYLOAD_TOO_LARGE, limit=MAX_PREFERENCES)]
