"""Times between Python and the contract."""

from __future__ import annotations

from datetime import datetime

from google.protobuf.timestamp_pb2 import Timestamp


def timestamp_of(name: str, instant: datetime | None) -> Timestamp | None:
    """Returns an instant as the contract has it.

    Raises:
        ValueError: It knows no time zone; the message says which argument it is.
    """
    if instant is None:
        return None
    if instant.tzinfo is None:
        raise ValueError(f"{name} is {instant}, which has no time zone; give it one")
    timestamp = Timestamp()
    timestamp.FromDatetime(instant)
    return timestamp
