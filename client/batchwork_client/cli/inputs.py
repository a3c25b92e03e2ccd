"""What the command line reads: files of items, ``name=value`` pairs, schedules in words."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any, NoReturn, TextIO

from batchwork.v1.batch_pb2 import BatchOptions
from batchwork.v1.item_pb2 import ItemInput
from batchwork.v1.schedule_pb2 import Schedule, Weekday
from google.protobuf.descriptor import Descriptor, EnumDescriptor, FieldDescriptor
from google.protobuf.duration_pb2 import Duration
from google.protobuf.json_format import ParseDict, ParseError

from batchwork_client.batches import item_input

STANDARD_INPUT = "-"
_JSON_LINES = (".jsonl", ".ndjson")
_MOST_PROBLEMS = 100
_DURATION = Duration.DESCRIPTOR.full_name
SCHEDULE_FORMS = (
    "'hourly MM', 'daily HH:MM', 'weekly DAY[,DAY] HH:MM', 'biweekly DAY[,DAY] HH:MM' or "
    "'monthly 1..31|last HH:MM'"
)


class InputError(Exception):
    """What the user gave cannot be used.

    Attributes:
        problems: Everything that is wrong, a line each, with its place.
    """

    def __init__(self, problems: Sequence[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = tuple(problems)


@dataclass(frozen=True, kw_only=True, slots=True)
class Record:
    """One entry of a file of items, and its place for error messages."""

    place: str
    value: Any


def read_text(path: str) -> str:
    """Returns the text of a file, or of standard input for ``-``.

    Raises:
        InputError: It cannot be read, or is not UTF-8.
    """
    try:
        if path == STANDARD_INPUT:
            return sys.stdin.read()
        return Path(path).read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError([f"{path}: {error}"]) from error


def items_from(path: str, *, id_field: str = "", user_field: str = "") -> list[ItemInput]:
    """Returns the items of a JSON, JSONL or CSV file; standard input is JSONL.

    ``item_id`` and ``user_id`` of a record name its item and user. Its ``data`` is the input; a
    record without ``data`` is the input itself, less these two.

    Args:
        path: The suffix tells the format.
        id_field: Another field that names the item; it stays in the input.
        user_field: Another field that names the user; it stays in the input.

    Raises:
        InputError: Names everything that is wrong with its line or index.
    """
    problems: list[str] = []
    items = []
    for record in _records(path, read_text(path), problems):
        item = _item(record, id_field=id_field, user_field=user_field, problems=problems)
        if item is not None:
            items.append(item)
    if problems:
        raise InputError(problems)
    return items


def check_items(path: str, *, id_field: str = "", user_field: str = "") -> None:
    """Reads a file of any size, of JSON lines or CSV, for what is wrong with it.

    Raises:
        InputError: Names the first hundred things that are wrong with their lines.
    """
    problems: list[str] = []
    with _opened(path) as lines:
        for record in _line_records(path, lines, problems):
            _item(record, id_field=id_field, user_field=user_field, problems=problems)
            if len(problems) >= _MOST_PROBLEMS:
                break
    if problems:
        raise InputError(problems)


def each_item_from(path: str, *, id_field: str = "", user_field: str = "") -> Iterator[ItemInput]:
    """Yields the items of a file of any size, of JSON lines or CSV, as ``items_from`` reads them.

    Raises:
        InputError: At the first line that is wrong.
    """
    problems: list[str] = []
    with _opened(path) as lines:
        for record in _line_records(path, lines, problems):
            item = _item(record, id_field=id_field, user_field=user_field, problems=problems)
            if problems or item is None:
                break
            yield item
    if problems:
        raise InputError(problems)


@contextmanager
def _opened(path: str) -> Iterator[TextIO]:
    if path == STANDARD_INPUT:
        yield sys.stdin
        return
    # Only "\n" ends a line of JSON; the CSV reader wants to see line ends as they are.
    newline = "" if Path(path).suffix.lower() == ".csv" else "\n"
    try:
        with Path(path).open(encoding="utf-8-sig", newline=newline) as lines:
            yield lines
    except (OSError, UnicodeDecodeError) as error:
        raise InputError([f"{path}: {error}"]) from error


def _line_records(path: str, lines: Iterable[str], problems: list[str]) -> Iterator[Record]:
    suffix = Path(path).suffix.lower()
    if path == STANDARD_INPUT or suffix in _JSON_LINES:
        return _json_lines(path, lines, problems)
    if suffix == ".csv":
        return _csv_rows(path, lines, problems)
    raise InputError([f"{path}: the name must end in .jsonl, .ndjson or .csv"])


def pairs_from(option: str, texts: Iterable[str]) -> dict[str, str]:
    """Returns ``name=value`` texts as a mapping.

    Raises:
        InputError: A text has no name or no ``=``, or a name stands twice.
    """
    problems: list[str] = []
    pairs: dict[str, str] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not name or not equals:
            problems.append(f"{option} {text}: write it as name=value")
        elif name in pairs:
            problems.append(f"{option} {text}: {name} was given before")
        else:
            pairs[name] = value
    if problems:
        raise InputError(problems)
    return pairs


def values_from(option: str, texts: Iterable[str]) -> dict[str, Any]:
    """Returns ``name=value`` texts as a mapping; a value that is JSON is read as JSON."""
    return {name: _json_or_text(value) for name, value in pairs_from(option, texts).items()}


def options_from(texts: Iterable[str]) -> BatchOptions:
    """Returns ``--option`` texts as a message, such as ``priority=high`` or ``item_timeout=30s``.

    A dot leads into a policy, as in ``failure_policy.max_failed=10``; commas part a list.

    Raises:
        InputError: An unknown name, or a value of another type.
    """
    options = BatchOptions()
    problems: list[str] = []
    known = dict(_option_fields(BatchOptions.DESCRIPTOR))
    for name, value in pairs_from("--option", texts).items():
        field = known.get(name)
        if field is None:
            names = ", ".join(known)
            problems.append(f"--option {name}={value}: there is no such option; there are {names}")
            continue
        try:
            ParseDict(_nested(name, _option_value(field, value)), options)
        except ParseError:
            problems.append(f"--option {name}={value}: {value!r} is no value for {name}")
    if problems:
        raise InputError(problems)
    return options


def _option_fields(message: Descriptor, prefix: str = "") -> Iterator[tuple[str, FieldDescriptor]]:
    """Names every option; those of a policy with its name before a dot."""
    for field in message.fields:
        nested = field.message_type
        if nested is None or nested.full_name == _DURATION:
            yield prefix + field.name, field
        else:
            yield from _option_fields(nested, f"{prefix}{field.name}.")


def _option_value(field: FieldDescriptor, text: str) -> Any:
    if field.cpp_type == FieldDescriptor.CPPTYPE_BOOL:
        return {"true": True, "false": False}.get(text.lower(), text)
    if field.enum_type is not None:
        unset = field.enum_type.values_by_number[0].name
        return unset.removesuffix("UNSPECIFIED") + text.upper()
    return text.split(",") if field.is_repeated else text


def _nested(name: str, value: Any) -> dict[str, Any]:
    outer, dot, inner = name.partition(".")
    return {outer: _nested(inner, value) if dot else value}


def enum_values_from(option: str, enum: EnumDescriptor, texts: Iterable[str]) -> list[Any]:
    """Returns the numbers of enum values that are named without their prefix, in any case.

    Raises:
        InputError: A name is unknown; the message lists the known ones.
    """
    known = {short_name(enum, number).lower(): number for number in enum.values_by_number if number}
    problems = [
        f"{option} {text}: there is no such value; there are {', '.join(known)}"
        for text in texts
        if text.lower() not in known
    ]
    if problems:
        raise InputError(problems)
    return [known[text.lower()] for text in texts]


def short_name(enum: EnumDescriptor, number: int) -> str:
    """Returns the name of an enum value without its prefix; the number when it is unknown."""
    if number not in enum.values_by_number:
        return str(number)
    prefix = enum.values_by_number[0].name.removesuffix("UNSPECIFIED")
    return enum.values_by_number[number].name.removeprefix(prefix)


def schedule_from(text: str, *, time_zone: str = "") -> Schedule:
    """Returns a schedule from words such as ``weekly mon,thu 09:00``.

    Raises:
        InputError: The words are none of the known forms.
    """
    schedule = Schedule(time_zone=time_zone)
    try:
        match text.lower().split():
            case ["hourly", minute]:
                schedule.hourly.minute = int(minute)
            case ["daily", at]:
                schedule.daily.at = at
            case ["weekly", days, at]:
                schedule.weekly.at = at
                schedule.weekly.days.extend(_weekdays(days))
            case ["biweekly", days, at]:
                schedule.biweekly.at = at
                schedule.biweekly.days.extend(_weekdays(days))
            case ["monthly", day, at]:
                schedule.monthly.at = at
                schedule.monthly.day_of_month = -1 if day == "last" else int(day)
            case _:
                _refuse_schedule(text)
    except ValueError:
        _refuse_schedule(text)
    return schedule


def _weekdays(text: str) -> list[Weekday.ValueType]:
    days = {
        short_name(Weekday.DESCRIPTOR, number)[:3].lower(): number
        for number in Weekday.values()[1:]
    }
    try:
        return [days[name[:3]] for name in text.split(",")]
    except KeyError as unknown:
        raise ValueError(f"unknown day {unknown}") from unknown


def _refuse_schedule(text: str) -> NoReturn:
    raise InputError([f"--schedule {text}: write it as {SCHEDULE_FORMS}"])


def _json_or_text(text: str) -> Any:
    try:
        return json_from(text)
    except ValueError:
        return text


def json_from(text: str) -> Any:
    """Returns the value of JSON text.

    Raises:
        ValueError: It is not JSON.
    """
    return json.loads(text, parse_constant=_refuse_constant)


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _records(path: str, text: str, problems: list[str]) -> Iterator[Record]:
    suffix = Path(path).suffix.lower()
    if path == STANDARD_INPUT or suffix in _JSON_LINES:
        # Only "\n" ends a line: `splitlines` would cut JSON texts at U+2028 and its like.
        return _json_lines(path, text.split("\n"), problems)
    if suffix == ".json":
        return _json_document(path, text, problems)
    if suffix == ".csv":
        return _csv_rows(path, StringIO(text, newline=""), problems)
    raise InputError([f"{path}: the name must end in .json, .jsonl, .ndjson or .csv"])


def _json_lines(path: str, lines: Iterable[str], problems: list[str]) -> Iterator[Record]:
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            yield Record(place=f"{path}:{number}", value=json_from(line))
        except ValueError as error:
            problems.append(f"{path}:{number}: not JSON: {error}")


def _json_document(path: str, text: str, problems: list[str]) -> Iterator[Record]:
    try:
        document = json_from(text)
    except ValueError as error:
        problems.append(f"{path}: not JSON: {error}")
        return
    entries = document.get("items") if isinstance(document, dict) else document
    if not isinstance(entries, list):
        problems.append(f"{path}: neither a list nor an object with a list 'items'")
        return
    for index, entry in enumerate(entries):
        yield Record(place=f"{path}: items[{index}]", value=entry)


def _csv_rows(path: str, lines: Iterable[str], problems: list[str]) -> Iterator[Record]:
    reader = csv.DictReader(lines, strict=True)
    try:
        for row in reader:
            # DictReader files surplus cells under None and missing ones as None.
            if None in row or None in row.values():
                problems.append(f"{path}:{reader.line_num}: more or fewer cells than the header")
            else:
                yield Record(place=f"{path}:{reader.line_num}", value=row)
    except csv.Error as error:
        problems.append(f"{path}:{reader.line_num}: not CSV: {error}")


def _item(
    record: Record, *, id_field: str, user_field: str, problems: list[str]
) -> ItemInput | None:
    if not isinstance(record.value, dict):
        if id_field or user_field:
            problems.append(f"{record.place}: not an object, so it has no field to name it")
            return None
        return item_input("", record.value)
    fields = dict(record.value)
    for option, name in (("--id-field", id_field), ("--user-field", user_field)):
        if name and name not in fields:
            problems.append(f"{record.place}: there is no field {name!r} ({option})")
            return None
    item_id = fields[id_field] if id_field else fields.pop("item_id", None)
    user_id = fields[user_field] if user_field else fields.pop("user_id", None)
    return item_input(_name(item_id), fields.get("data", fields), user_id=_name(user_id))


def _name(value: Any) -> str:
    return "" if value is None else str(value)
