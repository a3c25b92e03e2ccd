"""The values of the contract that are no nouns of ours: instants, durations, JSON objects."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from google.protobuf.duration_pb2 import Duration
from google.protobuf.struct_pb2 import Struct, Value
from google.protobuf.timestamp_pb2 import Timestamp

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_EXACT = 2**53  # up to here a double holds every whole number


def timestamp_to(moment: datetime | None) -> Timestamp | None:
    if moment is None:
        return None
    timestamp = Timestamp()
    set_timestamp(timestamp, moment)
    return timestamp


def set_timestamp(timestamp: Timestamp, moment: datetime) -> None:
    """Does what ``FromDatetime`` does, for moments that know their zone, in a fifth of the time."""
    since = moment - _EPOCH
    timestamp.seconds = since.days * 86_400 + since.seconds
    timestamp.nanos = since.microseconds * 1_000


def duration_to(length: timedelta | None) -> Duration | None:
    if length is None:
        return None
    duration = Duration()
    duration.FromTimedelta(length)
    return duration


def struct_to(plain: Mapping[str, Any]) -> Struct | None:
    """Returns a message for JSON values; none for an empty object."""
    if not plain:
        return None
    struct = Struct()
    struct.update(plain)
    return struct


def json_object_from(struct: Struct) -> dict[str, Any]:
    """Returns plain JSON values; a whole number comes back as one, though a double carried it."""
    return {name: _json_value_from(value) for name, value in struct.fields.items()}


def _json_value_from(value: Value) -> Any:
    match value.WhichOneof("kind"):
        case "number_value":
            number = value.number_value
            return int(number) if number.is_integer() and abs(number) <= _EXACT else number
        case "string_value":
            return value.string_value
        case "bool_value":
            return value.bool_value
        case "struct_value":
            return json_object_from(value.struct_value)
        case "list_value":
            return [_json_value_from(element) for element in value.list_value.values]
        case _:
            return None
