"""What a setting can hold: marshmallow fields that read it from the text of a variable."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Any, get_args
from urllib.parse import urlsplit

from marshmallow import EXCLUDE, Schema, ValidationError
from marshmallow.fields import Boolean, Field, Float, Integer, String
from marshmallow.validate import Length, OneOf, Range

from batchwork_server.domain.caller import ALL_TENANTS, LONGEST_TENANT_ID
from batchwork_server.domain.durations import parse_duration
from batchwork_server.domain.json_object import is_line
from batchwork_server.domain.schedule import is_time_zone

_KIND = "kind"
_VARIABLE = "variable"
_LONGEST_URL = 2048
_IDENTIFIER = re.compile("[A-Za-z_][A-Za-z0-9_]{0,62}")


@dataclass(frozen=True, slots=True)
class Secret:
    """A text that does not show where its holder is printed."""

    value: str

    def __repr__(self) -> str:
        return "Secret(…)"

    __str__ = __repr__

    def reveal(self) -> str:
        """Returns the text; for whoever is to have it, never for a log."""
        return self.value


def setting(variable: str, kind: Field[Any], default: Any) -> Any:
    """Returns a field of a dataclass that is read from an environment variable."""
    return dataclasses.field(default=default, metadata={_VARIABLE: variable, _KIND: kind})


def variables_of(settings: type[Any]) -> Mapping[str, str]:
    """Returns the variable of each field of a dataclass of settings."""
    return {each.name: each.metadata[_VARIABLE] for each in _settings_of(settings)}


def read(settings: type[Any], environment: Mapping[str, str]) -> dict[str, Any]:
    """Returns the values of the fields whose variables are set.

    Raises:
        UnreadableSettings: naming each variable that is wrong; never with its value, because a
            secret may have got into any of them.
    """
    fields = {each.metadata[_VARIABLE]: each.metadata[_KIND] for each in _settings_of(settings)}
    names = {each.metadata[_VARIABLE]: each.name for each in _settings_of(settings)}
    try:
        values = Schema.from_dict(fields)(unknown=EXCLUDE).load(environment)
    except ValidationError as error:
        raise UnreadableSettings(
            [
                f"{variable}: {problem}"
                for variable, problems in _messages(error).items()
                for problem in problems
            ]
        ) from error
    return {names[variable]: value for variable, value in values.items()}


class UnreadableSettings(Exception):
    """Some variables cannot be read.

    Args:
        problems: A line for each.
    """

    def __init__(self, problems: list[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


def _messages(error: ValidationError) -> Mapping[str, list[str]]:
    messages: Mapping[str, list[str]] = error.normalized_messages()  # type: ignore[no-untyped-call]
    return messages


def _settings_of(settings: type[Any]) -> list[dataclasses.Field[Any]]:
    return [each for each in dataclasses.fields(settings) if _VARIABLE in each.metadata]


class Whole(Integer):
    """A whole number in a range, both ends included."""

    def __init__(self, least: int, most: int | None = None) -> None:
        super().__init__(validate=Range(least, most))


class Number(Float):
    """A number in a range, both ends included."""

    def __init__(self, least: float, most: float) -> None:
        super().__init__(validate=Range(least, most))


class YesOrNo(Boolean):
    """``true``, ``yes``, ``on`` or ``1``, or one of their opposites."""


class Text(String):
    """Text of at least so many characters."""

    def __init__(self, least: int = 0) -> None:
        super().__init__(validate=Length(min=least))


class Line(String):
    """Text of one line."""

    def __init__(self, longest: int) -> None:
        super().__init__()
        self._longest = longest

    def _deserialize(self, value: Any, *args: Any, **kwargs: Any) -> str:
        if not is_line(value, longest=self._longest):
            raise ValidationError(f"Write text of one line with 1 to {self._longest} characters.")
        return str(value)


class Identifier(String):
    """The name of a column or a table of a database.

    Args:
        parts: At most so many, with dots between them.
    """

    def __init__(self, *, parts: int = 1) -> None:
        super().__init__()
        self._parts = parts

    def _deserialize(self, value: Any, *args: Any, **kwargs: Any) -> str:
        names = str(value).split(".")
        if len(names) > self._parts or not all(map(_IDENTIFIER.fullmatch, names)):
            example = "public.system_users" if self._parts > 1 else "user_id"
            raise ValidationError(f"Write letters, digits and underscores, such as {example}.")
        return str(value)


class Word(String):
    """One of the texts of a ``Literal``."""

    def __init__(self, literal: Any) -> None:
        words = get_args(literal)
        super().__init__(validate=OneOf(words, error=f"Write one of {', '.join(words)}."))


class Tenant(String):
    """The id of one tenant."""

    def _deserialize(self, value: Any, *args: Any, **kwargs: Any) -> str:
        if not is_line(value, longest=LONGEST_TENANT_ID) or value == ALL_TENANTS:
            raise ValidationError(
                f"Write the id of one tenant, at most {LONGEST_TENANT_ID} characters."
            )
        return str(value)


class TimeZone(String):
    """The name of an IANA time zone."""

    def _deserialize(self, value: Any, *args: Any, **kwargs: Any) -> str:
        if not is_time_zone(value):
            raise ValidationError("Write an IANA time zone such as Europe/Berlin.")
        return str(value)


class Address(String):
    """``host:port``, or ``unix:path``."""

    def __init__(self, *, unix_sockets: bool = True) -> None:
        super().__init__()
        self._unix_sockets = unix_sockets

    def _deserialize(self, value: Any, *args: Any, **kwargs: Any) -> str:
        host, _, port = str(value).rpartition(":")
        is_web = host and port.isdigit() and int(port) <= 65535
        if not is_web and not (self._unix_sockets and str(value).startswith("unix:")):
            otherwise = ", or unix:path" if self._unix_sockets else ""
            raise ValidationError(f"Write host:port, such as 127.0.0.1:50051{otherwise}.")
        return str(value)


class Duration(Field[timedelta]):
    """Seconds, or numbers with units, in a range with both ends included."""

    def __init__(self, least: timedelta, most: timedelta) -> None:
        super().__init__()
        self._least = least
        self._most = most

    def _deserialize(self, value: Any, *args: Any, **kwargs: Any) -> timedelta:
        duration = parse_duration(value)
        if duration is None:
            raise ValidationError("Write seconds, or numbers with units, such as 1h30m or 250ms.")
        if not self._least <= duration <= self._most:
            least, most = (f"{each.total_seconds():.10g}" for each in (self._least, self._most))
            raise ValidationError(f"Write a duration of {least} s to {most} s.")
        return duration


class FilePath(Field[Path]):
    """The path of a file or a folder."""

    def _deserialize(self, value: Any, *args: Any, **kwargs: Any) -> Path:
        return Path(value)


class SecretText(Field[Secret]):
    """Text that shows nowhere."""

    def _deserialize(self, value: Any, *args: Any, **kwargs: Any) -> Secret:
        return Secret(str(value))


class HeaderText(SecretText):
    """A secret that can be sent in a header of HTTP."""

    def _deserialize(self, value: Any, *args: Any, **kwargs: Any) -> Secret:
        if not all("!" <= character <= "~" for character in value):
            raise ValidationError("Write ASCII characters without spaces.")
        return Secret(str(value))


class WebAddress(Field[str | None]):
    """A URL that paths can be added to; an empty one means none.

    Args:
        key: The setting for what a user and a password in the URL would be.
    """

    def __init__(self, *, key: str) -> None:
        super().__init__()
        self._key = key

    def _deserialize(self, value: Any, *args: Any, **kwargs: Any) -> str | None:
        if not value:
            return None
        advice = "Write a URL such as https://service.example.com/api/v1."
        try:
            parts = urlsplit(value)
            _ = parts.port
        except ValueError as error:
            raise ValidationError(advice) from error
        is_web = parts.scheme in ("http", "https") and bool(parts.hostname)
        if not is_web or not is_line(value, longest=_LONGEST_URL):
            raise ValidationError(advice)
        if parts.username is not None or parts.password is not None:
            raise ValidationError(f"Write no user and password; {self._key} is the secret.")
        if parts.query or parts.fragment:
            raise ValidationError("Write a URL without a query; paths are added to it.")
        return str(value).rstrip("/")


def is_loopback(address: str) -> bool:
    """Tells whether an address, ``host:port`` or ``unix:path``, is this machine's own."""
    if address.startswith("unix:"):
        return True
    host = address.rpartition(":")[0].strip("[]")
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False
