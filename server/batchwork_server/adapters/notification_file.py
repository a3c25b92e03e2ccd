"""The operator's file of notification targets. What it says is secret, but for the names."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import yaml

from batchwork_server.adapters.destinations import is_loopback_host
from batchwork_server.domain.batch import FINAL_STATES
from batchwork_server.domain.caller import LONGEST_TENANT_ID
from batchwork_server.domain.json_object import FieldReader, quoted
from batchwork_server.domain.notification import TARGET_NAME, NotificationTarget
from batchwork_server.errors import ConfigurationError, Violation

MAX_FILE_BYTES = 1024 * 1024
MAX_TARGETS_IN_FILE = 1000
_MAX_TENANTS = 1000
_LONGEST_URL = 4096

_DELIVERIES = "deliveries"
_KINDS = {state.lower(): state for state in sorted(FINAL_STATES)}
_HTTP = ("https", "http")
_SECRET_PREFIX = "whsec_"  # noqa: S105 - the prefix is public
_SECRET_BYTES = range(24, 65)


@dataclass(frozen=True, slots=True, kw_only=True)
class TargetEntry:
    """One target as the file has it.

    Attributes:
        path: Where it stands in the file.
        url: Of a webhook, or as Apprise writes it.
        secret: That signs; of webhooks only.
    """

    path: str
    target: NotificationTarget
    url: str = field(repr=False)
    secret: str = field(repr=False)

    @property
    def is_webhook(self) -> bool:
        return _scheme_of(self.url) in _HTTP


@dataclass(frozen=True, slots=True, kw_only=True)
class NotificationFile:
    """All that the file says."""

    entries: tuple[TargetEntry, ...]
    allow_private_addresses: bool


def read_notification_file(path: Path, *, allow_clear_text: bool) -> NotificationFile:
    """Reads the file, YAML or, where its name ends so, JSON.

    Args:
        path: Of the file.
        allow_clear_text: Whether webhooks beyond this machine may do without TLS.

    Raises:
        ConfigurationError: naming all that is wrong with it, and nothing secret.
    """
    violations: list[Violation] = []
    document = _document(path)
    if not isinstance(document, Mapping):
        raise problems_of(path, [Violation("$", "Write an object with the field `targets`.")])
    fields = FieldReader(_with_text_keys(document), path="$", violations=violations)
    allow_private = fields.flag("allow_private_addresses") or False
    values = fields.take("targets")
    fields.refuse_unknown("a file of targets")
    entries: list[TargetEntry] = []
    if not isinstance(values, list) or not values:
        fields.refuse("targets", "List at least one target.")
    elif len(values) > MAX_TARGETS_IN_FILE:
        fields.refuse("targets", f"{len(values)} are too many; at most {MAX_TARGETS_IN_FILE}.")
    else:
        reading = _Reading(violations, allow_private=allow_private, clear_text=allow_clear_text)
        entries = [reading.read(f"$.targets[{n}]", value) for n, value in enumerate(values)]
    if violations:
        raise problems_of(path, violations)
    return NotificationFile(entries=tuple(entries), allow_private_addresses=allow_private)


def problems_of(path: Path, violations: list[Violation]) -> ConfigurationError:
    """Returns the error that names everything that is wrong with the file."""
    listed = "".join(f"\n  {found.path}: {found.message}" for found in violations)
    return ConfigurationError(f"The notification targets in {path} cannot be used:{listed}")


def _document(path: Path) -> Any:
    """Parses the file; an error tells the place only, since the line may hold a secret."""
    try:
        with path.open("rb") as file:
            content = file.read(MAX_FILE_BYTES + 1)
        if len(content) > MAX_FILE_BYTES:
            problem = f"The file is larger than {MAX_FILE_BYTES} bytes."
            raise problems_of(path, [Violation("$", problem)])
        text = content.decode()
        return json.loads(text) if path.suffix == ".json" else yaml.safe_load(text)
    except OSError as error:
        problem = f"The file cannot be read: {error.strerror}."
    except UnicodeDecodeError as error:
        problem = f"The file is not UTF-8: the byte at {error.start}."
    except json.JSONDecodeError as error:
        problem = f"This is not JSON, at line {error.lineno}, column {error.colno}."
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        place = f", at line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        problem = f"This is not YAML{place}."
    except (yaml.YAMLError, RecursionError, ValueError):
        problem = "This is neither YAML nor JSON."
    raise problems_of(path, [Violation("$", problem)]) from None


def _with_text_keys(value: Mapping[Any, Any]) -> dict[str, Any]:
    return {str(name): element for name, element in value.items()}


def _scheme_of(url: str) -> str:
    return url.partition("://")[0].lower()


class _Reading:
    """Reads one target after the other, and notes what is wrong with each."""

    def __init__(
        self, violations: list[Violation], *, allow_private: bool, clear_text: bool
    ) -> None:
        self._violations = violations
        self._allow_private = allow_private
        self._clear_text = clear_text
        self._first_places: dict[str, str] = {}

    def read(self, path: str, value: Any) -> TargetEntry:
        if not isinstance(value, Mapping):
            self._violations.append(Violation(path, "Write an object with `name` and `url`."))
            value = {"name": "", "url": ""}
            fields = FieldReader(value, path=path, violations=[])
        else:
            fields = FieldReader(_with_text_keys(value), path=path, violations=self._violations)
        target = self._target(fields, path)
        url = self._url(fields)
        is_webhook = _scheme_of(url) in _HTTP
        secret = self._secret(fields, is_webhook=is_webhook)
        if url and target.deliveries and not is_webhook:
            fields.refuse("kinds", f"{quoted(_DELIVERIES)} are for programs; name a webhook.")
        fields.refuse_unknown("a target")
        return TargetEntry(path=path, target=target, url=url, secret=secret)

    def _target(self, fields: FieldReader, path: str) -> NotificationTarget:
        name = fields.take("name") if fields.require("name") else ""
        if not isinstance(name, str) or (name and not TARGET_NAME.fullmatch(name)):
            fields.refuse("name", f"A name looks like {TARGET_NAME.pattern}.")
            name = ""
        first = self._first_places.setdefault(name, path) if name else path
        if first != path:
            fields.refuse("name", f"{quoted(name)} is the name of {first} already.")
        states, deliveries = _kinds(fields)
        return NotificationTarget(
            name=name,
            states=states,
            deliveries=deliveries,
            is_default=fields.flag("default") or False,
            tenants=frozenset(
                fields.lines("tenants", most=_MAX_TENANTS, longest=LONGEST_TENANT_ID)
            ),
        )

    def _url(self, fields: FieldReader) -> str:
        if not fields.require("url"):
            return ""
        url = fields.take("url")
        if not isinstance(url, str) or len(url) > _LONGEST_URL or "://" not in url:
            fields.refuse("url", "This is no URL of a webhook, nor one of Apprise.")
            return ""
        if _scheme_of(url) in _HTTP:
            problem = self._webhook_problem(url)
            if problem:
                fields.refuse("url", problem)
        return url

    def _webhook_problem(self, url: str) -> str:
        try:
            parts = urlsplit(url)
            host, _port = parts.hostname or "", parts.port
        except ValueError:
            return "This is no URL."
        if not host or any(sign.isspace() or not sign.isprintable() for sign in url):
            return "This is no URL: it has no host, or signs that none may have."
        if parts.scheme.lower() == "https":
            return ""
        if self._clear_text or (self._allow_private and is_loopback_host(host)):
            return ""
        return (
            "Without TLS everybody on the way can read along. Write https; http may stand for "
            "this machine with `allow_private_addresses: true`, or anywhere with "
            "BATCHWORK_ALLOW_CLEAR_TEXT=true when something else encrypts."
        )

    def _secret(self, fields: FieldReader, *, is_webhook: bool) -> str:
        secret = fields.take("secret")
        if not is_webhook:
            if secret is not None:
                fields.refuse("secret", "Only webhooks are signed; leave it out.")
            return ""
        if isinstance(secret, str) and _is_secret(secret):
            return secret
        fields.refuse(
            "secret",
            "A webhook needs a secret that signs: `whsec_` and the base64 of 24 to 64 random "
            "bytes.",
        )
        return ""


def _kinds(fields: FieldReader) -> tuple[frozenset[Any], bool]:
    names = [*_KINDS, _DELIVERIES]
    given = fields.lines("kinds", most=len(names), longest=63)
    unknown = [name for name in given if name not in names]
    if unknown:
        listed = ", ".join(names)
        fields.refuse("kinds", f"{quoted(unknown[0])} is none of {listed}.")
    if not given:
        return FINAL_STATES, False
    return frozenset(_KINDS[name] for name in given if name in _KINDS), _DELIVERIES in given


def _is_secret(secret: str) -> bool:
    if not secret.startswith(_SECRET_PREFIX):
        return False
    try:
        key = base64.b64decode(secret.removeprefix(_SECRET_PREFIX), validate=True)
    except (binascii.Error, ValueError):
        return False
    return len(key) in _SECRET_BYTES
