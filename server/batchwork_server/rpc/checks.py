"""Gathers everything that is wrong with a request, in one pass."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

import orjson
from google.protobuf.duration_pb2 import Duration
from google.protobuf.field_mask_pb2 import FieldMask
from google.protobuf.struct_pb2 import Struct
from google.protobuf.timestamp_pb2 import Timestamp

from batchwork_server.domain.caller import ALL_TENANTS, Caller
from batchwork_server.domain.ids import ID_PATTERN, is_id
from batchwork_server.domain.json_object import child_path, is_line, listed, quoted, unsound
from batchwork_server.errors import FIELD_VIOLATION, InvalidArgument, Violation
from batchwork_server.rpc.values import json_object_from

_Value = TypeVar("_Value")

LONGEST_NAME = 128
DEFAULT_PAGE_SIZE = 50
MAX_PAGE_SIZE = 100
MAX_LABELS = 32
LONGEST_LABEL_VALUE = 255

PAYLOAD_TOO_LARGE = "PAYLOAD_TOO_LARGE"

_SOURCE = re.compile(r"[A-Za-z0-9_-]{1,63}")
_LABEL_KEY = re.compile(r"[A-Za-z0-9_.-]{1,63}")
_CONTROL_BUT_BREAKS = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]")

_NANOS = 1_000_000_000  # in a second
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_FIRST_SECOND = -62_135_596_800  # 0001-01-01T00:00:00Z
_LAST_SECOND = 253_402_300_799  # 9999-12-31T23:59:59Z


class Checks:
    """What is wrong with one request, and the values of what is right.

    Each method takes the field's path first. What is wrong is noted and answered as if it were
    unset; ``done`` raises when anything was noted.
    """

    def __init__(self) -> None:
        self._violations: list[Violation] = []
        self._metadata: dict[str, str] = {}

    def refuse(self, path: str, message: str, *, reason: str = FIELD_VIOLATION) -> None:
        self._violations.append(Violation(path, message, reason))

    def refuse_size(self, path: str, message: str, *, limit: int, index: int | None = None) -> None:
        """Notes that something is too large; programs get the limit, and the first index."""
        self.refuse(path, message, reason=PAYLOAD_TOO_LARGE)
        self._metadata.setdefault("limit", str(limit))
        if index is not None:
            self._metadata.setdefault("index", str(index))

    def add(self, violations: Iterable[Violation]) -> None:
        """Notes what was found elsewhere."""
        self._violations.extend(violations)

    @property
    def violations(self) -> Sequence[Violation]:
        """What was noted so far."""
        return tuple(self._violations)

    def done(self) -> None:
        """Ends the pass.

        Raises:
            InvalidArgument: with everything that was noted.
        """
        if self._violations:
            raise InvalidArgument(self._violations, metadata=self._metadata)

    def line(self, path: str, value: str, *, longest: int = LONGEST_NAME) -> str:
        """Returns text of one line, or nothing."""
        if value and not is_line(value, longest=longest):
            self.refuse(
                path, f"{quoted(value)} is not text of one line with at most {longest} characters."
            )
            return ""
        return value

    def name(self, path: str, value: str) -> str:
        """Returns text of one line that has to be there."""
        if not value:
            self.refuse(path, "This field is required.")
        return self.line(path, value)

    def prose(self, path: str, value: str, *, longest: int) -> str:
        """Returns text of any number of lines, or nothing."""
        if len(value) > longest or _CONTROL_BUT_BREAKS.search(value):
            self.refuse(
                path,
                f"{quoted(value)} is not text with at most {longest} characters and without "
                "control characters.",
            )
            return ""
        return value

    def optional_id(self, path: str, value: str) -> str:
        if value and not is_id(value):
            self.refuse(path, f"{quoted(value)} is no id; ids look like {ID_PATTERN.pattern}.")
            return ""
        return value

    def required_id(self, path: str, value: str) -> str:
        if not value:
            self.refuse(path, "This field is required.")
        return self.optional_id(path, value)

    def names(self, path: str, values: Sequence[str], *, most: int) -> tuple[str, ...]:
        """Returns texts of one line, each of which has to say something."""
        self.count(path, values, most=most)
        return tuple(self.name(f"{path}[{index}]", value) for index, value in enumerate(values))

    def ids(self, path: str, values: Sequence[str], *, most: int) -> tuple[str, ...]:
        self.count(path, values, most=most)
        return tuple(
            self.required_id(f"{path}[{index}]", value) for index, value in enumerate(values)
        )

    def count(self, path: str, values: Sequence[Any], *, least: int = 0, most: int) -> None:
        """Checks how many values there are."""
        if not least <= len(values) <= most:
            self.refuse(path, f"{len(values)} values; {least} to {most} are allowed.")

    def mask(self, path: str, mask: FieldMask, fields: Collection[str]) -> tuple[str, ...]:
        """Returns the paths of a mask, each the name of a field, or ``*``."""
        for name in mask.paths:
            if name != "*" and name not in fields:
                self.refuse(path, f"{quoted(name)} is none of {listed(tuple(fields))}.")
        return tuple(mask.paths)

    def source(self, path: str, value: str) -> str:
        if value and not _SOURCE.fullmatch(value):
            message = f"{quoted(value)} is no source; sources look like {_SOURCE.pattern}."
            self.refuse(path, message)
            return ""
        return value

    def labels(self, path: str, labels: Mapping[str, str]) -> dict[str, str]:
        if len(labels) > MAX_LABELS:
            self.refuse(path, f"{len(labels)} labels are too many; the limit is {MAX_LABELS}.")
            return {}
        for key, value in labels.items():
            if not _LABEL_KEY.fullmatch(key):
                message = f"{quoted(key)} is no key; keys look like {_LABEL_KEY.pattern}."
                self.refuse(path, message)
            self.line(child_path(path, key), value, longest=LONGEST_LABEL_VALUE)
        return dict(labels)

    def whole(self, path: str, value: int, *, least: int, most: int) -> int:
        if not least <= value <= most:
            self.refuse(path, f"{value} is not in the range of {least} to {most}.")
            return least
        return value

    def set_whole(self, path: str, value: int, *, least: int, most: int) -> int | None:
        """Returns a number that counts as unset when it is 0."""
        return self.whole(path, value, least=least, most=most) if value else None

    def ratio(self, path: str, value: float) -> float:
        if not 0 <= value <= 1:  # which NaN is not, either
            self.refuse(path, f"{value} is not in the range of 0 to 1.")
            return 0.0
        return value

    def set_number(self, path: str, value: float, *, least: float, most: float) -> float | None:
        """Returns a number that counts as unset when it is 0."""
        if not value:
            return None
        if not least <= value <= most:  # which NaN is not, either
            self.refuse(path, f"{value:g} is not in the range of {least:g} to {most:g}.")
            return None
        return value

    def choice(self, path: str, number: int, choices: Mapping[int, _Value]) -> _Value | None:
        """Returns what an enum's number stands for; none when it is unset."""
        if number and number not in choices:
            self.refuse(path, f"{number} is no value of this enum that this server knows.")
        return choices.get(number)

    def choices(
        self, path: str, numbers: Sequence[int], choices: Mapping[int, _Value]
    ) -> tuple[_Value, ...]:
        """Returns what an enum's numbers stand for, each once; here 0 stands for nothing."""
        for index, number in enumerate(numbers):
            if number not in choices:
                self.refuse(f"{path}[{index}]", f"{number} is no value to ask for.")
        return tuple(choices[number] for number in dict.fromkeys(numbers) if number in choices)

    def page_size(
        self, value: int, *, unset: int = DEFAULT_PAGE_SIZE, most: int = MAX_PAGE_SIZE
    ) -> int:
        if value < 0:
            self.refuse("page_size", f"{value} is negative; leave it out for {unset}.")
        return min(value or unset, most)

    def duration(
        self, path: str, value: Duration, *, least: timedelta, most: timedelta
    ) -> timedelta:
        """Returns a length of time, cut to microseconds."""
        nanos = value.seconds * _NANOS + value.nanos
        is_sound = abs(value.nanos) < _NANOS and value.seconds * value.nanos >= 0
        if is_sound and _nanos_of(least) <= nanos <= _nanos_of(most):
            return timedelta(microseconds=nanos // 1000)
        self.refuse(
            path,
            f"{value.seconds} s and {value.nanos} ns is not a duration in the range of "
            f"{least.total_seconds():g} s to {most.total_seconds():g} s.",
        )
        return least

    def moment(self, path: str, value: Timestamp) -> datetime | None:
        """Returns an instant, cut to microseconds."""
        seconds, nanos = value.seconds, value.nanos
        if _FIRST_SECOND <= seconds <= _LAST_SECOND and 0 <= nanos < _NANOS:
            return _EPOCH + timedelta(seconds=seconds, microseconds=nanos // 1000)
        self.refuse(path, f"{seconds} s and {nanos} ns is no instant of the years 1 to 9999.")
        return None

    def json_object(self, path: str, value: Struct, *, most_bytes: int) -> dict[str, Any]:
        """Returns plain JSON values that can be stored and sent on."""
        plain = json_object_from(value)
        violations = list(unsound(plain, path=path))
        self.add(violations)
        if violations:
            return {}
        size = len(orjson.dumps(plain))
        if size > most_bytes:
            self.refuse_size(
                path, f"{size} bytes of JSON; the limit is {most_bytes}.", limit=most_bytes
            )
            return {}
        return plain

    def scope(self, caller: Caller, tenant_id: str) -> str | None:
        """Returns the tenant whose things a read may see; None means every tenant's.

        Raises:
            PermissionDenied: the request names another tenant, and the caller is no operator.
        """
        return caller.scope(self.line("tenant_id", tenant_id))

    def tenant(self, caller: Caller, tenant_id: str) -> str:
        """Returns the one tenant whose things a read may see.

        Raises:
            PermissionDenied: the request names another tenant, and the caller is no operator.
        """
        tenant = self.scope(caller, tenant_id)
        if tenant is None:
            self.refuse("tenant_id", f"Name one tenant; {quoted(ALL_TENANTS)} means all of them.")
            return caller.tenant_id
        return tenant


def _nanos_of(length: timedelta) -> int:
    return length // timedelta(microseconds=1) * 1000
