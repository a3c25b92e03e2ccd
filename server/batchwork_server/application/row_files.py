"""The rows of CSV and JSONL files, read with a bound, each with what is wrong with it."""

from __future__ import annotations

import csv
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from batchwork_server.domain.json_object import parse_json
from batchwork_server.errors import InvalidArgument, Violation

MAX_ROW_BYTES = 1024 * 1024
"""The longest row that is loaded."""

# A longer line is not looked into at all.
_LONGEST_LINE = 16 * MAX_ROW_BYTES


class Unsound(Exception):
    """A row, or what it says, is wrong."""


class Unreadable(Unsound):
    """A row is so wrong that nobody can tell where the next one starts."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One row of a file.

    Attributes:
        line: Where it starts.
        fields: Its fields; every cell of a CSV file is text here.
        text: As it stands in a JSONL file; None for CSV.
        problem: Set when it could not be read.
    """

    line: int
    fields: Mapping[str, Any] = field(default_factory=dict)
    text: str | None = None
    problem: str = ""


def id_column_of(names: Collection[str], wanted: Sequence[str]) -> str:
    for column in wanted:
        if column in names:
            return column
    raise Unsound(f"There is no column `{wanted[0]}`; name the one that holds the ids.")


def opened(path: Path) -> BinaryIO:
    try:
        return path.open("rb")
    except OSError as error:
        raise InvalidArgument(
            [Violation(str(path), f"This file cannot be read: {error.strerror}.")]
        ) from error


def rows_of(path: Path, file: BinaryIO, *, id_columns: Sequence[str]) -> Iterator[Row]:
    match path.suffix.lower():
        case ".csv":
            return _csv_rows(path, file, id_columns=id_columns)
        case ".jsonl" | ".ndjson":
            return _jsonl_rows(file)
    raise InvalidArgument(
        [Violation(str(path), "The ending tells the format; it has to be .csv, .jsonl or .ndjson.")]
    )


class _Lines:
    """The lines of a file as text, each read with a bound.

    It goes on after an exception, as a generator would not. Bytes that are not UTF-8 come out as
    lone surrogates, which no row may hold.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.number = 0

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        line = self._file.readline(_LONGEST_LINE)
        if not line:
            raise StopIteration
        self.number += 1
        if len(line) == _LONGEST_LINE and not line.endswith(b"\n"):
            self._leave_line()
            raise Unreadable("The row is longer than 1 MiB.")
        if self.number == 1:
            line = line.removeprefix(b"\xef\xbb\xbf")
        return line.decode(errors="surrogateescape")

    def _leave_line(self) -> None:
        while (rest := self._file.readline(_LONGEST_LINE)) and not rest.endswith(b"\n"):
            pass


def _jsonl_rows(file: BinaryIO) -> Iterator[Row]:
    lines = _Lines(file)
    while True:
        try:
            line = next(lines).strip()
        except StopIteration:
            return
        except Unreadable as error:
            yield Row(line=lines.number, problem=str(error))
            continue
        if line:
            yield _jsonl_row(line, number=lines.number)


def _jsonl_row(line: str, *, number: int) -> Row:
    if len(line.encode(errors="surrogateescape")) > MAX_ROW_BYTES:
        return Row(line=number, problem="The row is longer than 1 MiB.")
    value, violations = parse_json(line)
    if violations:
        found = "; ".join(f"{violation.path}: {violation.message}" for violation in violations[:5])
        return Row(line=number, problem=found)
    if not isinstance(value, dict):
        return Row(line=number, problem="The line holds no JSON object.")
    return Row(line=number, fields=value, text=line)


_UNSTORABLE = re.compile("[\x00\ud800-\udfff]")


def _csv_rows(path: Path, file: BinaryIO, *, id_columns: Sequence[str]) -> Iterator[Row]:
    csv.field_size_limit(_LONGEST_LINE)  # the module's own limit is one for the whole process
    lines = _Lines(file)
    reader = csv.reader(lines, strict=True)
    header: list[str] | None = None
    while True:
        line = lines.number + 1
        try:
            cells = next(reader)
        except StopIteration:
            break
        except (csv.Error, Unreadable) as error:
            # Quotes are out of step: going on would load the rest of a text as rows.
            yield Row(line=line, problem=f"{error} Nothing from here on was read.")
            return
        if header is None:
            header = _checked_header(path, cells, id_columns=id_columns)
        elif cells:
            yield _csv_row(header, cells, line=line)
    if header is None:
        raise InvalidArgument([Violation(str(path), "The file has no header.")])


def _checked_header(path: Path, cells: list[str], *, id_columns: Sequence[str]) -> list[str]:
    names = [cell.strip() for cell in cells]
    try:
        if len(set(names)) < len(names) or not all(names) or _UNSTORABLE.search("".join(names)):
            raise Unsound("The header has to name each column, and each differently.")
        id_column_of(names, id_columns)
    except Unsound as error:
        raise InvalidArgument([Violation(f"{path}:1", str(error))]) from None
    return names


def _csv_row(header: list[str], cells: list[str], *, line: int) -> Row:
    if len(cells) != len(header):
        problem = f"The row has {len(cells)} cells, the header {len(header)}."
        return Row(line=line, problem=problem)
    joined = "".join(cells)
    if _UNSTORABLE.search(joined):
        return Row(line=line, problem="The row holds a null character, or is not UTF-8.")
    if len(joined.encode()) > MAX_ROW_BYTES:
        return Row(line=line, problem="The row is longer than 1 MiB.")
    return Row(line=line, fields=dict(zip(header, cells, strict=True)))
