"""Times as the tables hold them: whole microseconds since the epoch, UTC."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import overload

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


@overload
def to_micros(moment: datetime) -> int: ...
@overload
def to_micros(moment: None) -> None: ...
def to_micros(moment: datetime | None) -> int | None:
    return None if moment is None else (moment - _EPOCH) // _MICROSECOND


@overload
def from_micros(micros: int) -> datetime: ...
@overload
def from_micros(micros: None) -> None: ...
def from_micros(micros: int | None) -> datetime | None:
    return None if micros is None else _EPOCH + timedelta(microseconds=micros)


@overload
def duration_to_micros(duration: timedelta) -> int: ...
@overload
def duration_to_micros(duration: None) -> None: ...
def duration_to_micros(duration: timedelta | None) -> int | None:
    return None if duration is None else duration // _MICROSECOND


@overload
def duration_from_micros(micros: int) -> timedelta: ...
@overload
def duration_from_micros(micros: None) -> None: ...
def duration_from_micros(micros: int | None) -> timedelta | None:
    return None if micros is None else timedelta(microseconds=micros)
