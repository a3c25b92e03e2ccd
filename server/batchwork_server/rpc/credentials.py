"""Who calls: API keys, of which only the hashes are kept."""

from __future__ import annotations

import re
import stat
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

from batchwork_server.domain.caller import ALL_TENANTS, LONGEST_TENANT_ID, Caller
from batchwork_server.domain.json_object import FieldReader, parse_json
from batchwork_server.errors import ConfigurationError, Unauthenticated, Violation
from batchwork_server.logs import get_logger

log = get_logger(__name__)

ANONYMOUS = Caller(tenant_id="default", name="anonymous", is_operator=True)

_ROLES = {"member": False, "operator": True}
_KEY_HASH = re.compile(r"[0-9a-f]{64}")
_LONGEST_NAME = 128

Metadata = Iterable[tuple[str, str | bytes]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Credentials:
    """Knows callers by their API keys; without any key everybody is ``ANONYMOUS``.

    Attributes:
        callers: By the SHA-256 of their key, in lower-case hex.
    """

    callers: Mapping[str, Caller] = field(default_factory=dict)

    def authenticate(self, metadata: Metadata) -> Caller:
        """Returns who sent a call with this metadata.

        Raises:
            Unauthenticated: there is no key, or nobody has it.
        """
        if not self.callers:
            return ANONYMOUS
        scheme, _, key = _authorization(metadata).partition(" ")
        if scheme.lower() != "bearer" or not key:
            raise Unauthenticated("Send an API key as `authorization: Bearer <key>`.")
        caller = self.callers.get(sha256(key.encode()).hexdigest())
        if caller is None:
            raise Unauthenticated("This server does not know the API key; ask its operator.")
        return caller


def _authorization(metadata: Metadata) -> str:
    for name, value in metadata:
        if name == "authorization" and isinstance(value, str):
            return value
    return ""


def load_credentials(path: Path) -> Credentials:
    """Reads a file of keys.

    It is JSON: ``{"keys": [{"key_sha256": …, "tenant_id": …, "name": …, "role": …}]}``; the role
    is ``member`` or ``operator``.

    Raises:
        ConfigurationError: naming everything that is wrong with the file.
    """
    try:
        text = path.read_text(encoding="utf-8")
        mode = path.stat().st_mode
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{path}: the file of API keys cannot be read: {error}") from error
    if mode & (stat.S_IRGRP | stat.S_IROTH):
        log.warning("credentials.readable", path=str(path), action="chmod 600")
    document, violations = parse_json(text)
    callers = {} if violations else _read_keys(document, violations=violations)
    if violations:
        raise ConfigurationError(
            "\n".join(f"{path}: {found.path}: {found.message}" for found in violations)
        )
    return Credentials(callers=callers)


def _read_keys(document: Any, *, violations: list[Violation]) -> dict[str, Caller]:
    fields = FieldReader(document, path="$", violations=violations)
    keys = fields.take("keys")
    fields.refuse_unknown("a file of API keys")
    if not isinstance(keys, list) or not keys:
        # Without a key everybody would be let in, which nobody means who names a file of keys.
        fields.refuse("keys", "List at least one key.")
        return {}
    callers: dict[str, Caller] = {}
    for index, entry in enumerate(keys):
        reader = FieldReader(entry, path=f"$.keys[{index}]", violations=violations)
        key_hash, caller = _read_key(reader)
        if key_hash in callers:
            reader.refuse("key_sha256", "This key stands twice.")
        callers[key_hash] = caller
    return callers


def _read_key(fields: FieldReader) -> tuple[str, Caller]:
    for name in ("key_sha256", "tenant_id", "name", "role"):
        fields.require(name)
    key_hash = fields.line("key_sha256", longest=64).lower()
    if key_hash and not _KEY_HASH.fullmatch(key_hash):
        fields.refuse("key_sha256", "Write the SHA-256 of the key as 64 hexadecimal digits.")
    tenant_id = fields.line("tenant_id", longest=LONGEST_TENANT_ID)
    if tenant_id == ALL_TENANTS:
        fields.refuse("tenant_id", f"{ALL_TENANTS!r} stands for all tenants; name one.")
    caller = Caller(
        tenant_id=tenant_id,
        name=fields.line("name", longest=_LONGEST_NAME),
        is_operator=fields.choice("role", _ROLES) or False,
    )
    fields.refuse_unknown("a key")
    return key_hash, caller
