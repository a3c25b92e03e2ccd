"""Loads users and categories from CSV and JSONL files into the embedded sources.

A file is read as a stream, some thousand rows at a time, so its size does not matter. Reading and
parsing run in a thread.
"""

from __future__ import annotations

import asyncio
import csv
import json
import re
from collections.abc import Awaitable, Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO, Generic, Protocol, TypeVar

from batchwork_server.application.validation import LONGEST_USER_ID, is_user_id
from batchwork_server.clock import Clock
from batchwork_server.domain.json_object import is_line, parse_json, quoted
from batchwork_server.domain.selection import LoadedItem
from batchwork_server.errors import InvalidArgument, Violation
from batchwork_server.store.store import Transaction

MAX_ROW_BYTES = 1024 * 1024
"""The longest row that is loaded."""

MAX_PROBLEMS = 100
"""How many problems a report names; the others are only counted."""

ROWS_PER_CHUNK = 5000
LONGEST_ITEM_ID = 128
ID_COLUMNS = ("id", "item_id", "user_id")
USER_COLUMN = "user_id"
CREATE_TIME_COLUMNS = ("create_time", "created_at")
ACTIVE_TIME_COLUMNS = ("last_active", "last_active_time", "active_time")

# A longer line is not looked into at all.
_LONGEST_LINE = 16 * MAX_ROW_BYTES


class OnError(StrEnum):
    """What becomes of a file when rows of it are wrong."""

    ABORT = "abort"  # nothing of it is loaded
    SKIP = "skip"  # the other rows are loaded


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadProblem:
    """Why a row is not loaded.

    Attributes:
        line: Where the row starts, from 1.
    """

    line: int
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadReport:
    """What became of a file.

    Attributes:
        loaded: Rows that are in the source now.
        skipped: Rows that were not loaded because of a problem of their own.
        problems: The first of them, at most ``MAX_PROBLEMS``.
    """

    loaded: int
    skipped: int
    problems: tuple[LoadProblem, ...]


_Record = TypeVar("_Record")
_Read_co = TypeVar("_Read_co", covariant=True)
_Write = Callable[[Transaction, Sequence[_Record]], Awaitable[None]]


class UserLoader(Protocol):
    """Takes users in; one that is there already is updated."""

    async def load(
        self,
        tx: Transaction,
        *,
        tenant_id: str,
        users: Sequence[tuple[str, bool]],
        now: datetime,
    ) -> None: ...


class CategoryLoader(Protocol):
    """Takes items of a category in; one that is there already is updated in its place."""

    async def load(
        self,
        tx: Transaction,
        *,
        tenant_id: str,
        category: str,
        items: Sequence[LoadedItem],
        now: datetime,
    ) -> None: ...


class LoadableStore(Protocol):
    """The part of the store that files are loaded into."""

    @property
    def users(self) -> UserLoader: ...
    @property
    def categories(self) -> CategoryLoader: ...

    def transaction(self) -> AbstractAsyncContextManager[Transaction]: ...


class Loading:
    """Loads files.

    The format is told by the ending: ``.csv``, or ``.jsonl`` and ``.ndjson`` with one object a
    line. Loading the same file again changes nothing.
    """

    def __init__(self, store: LoadableStore, clock: Clock) -> None:
        self._store = store
        self._clock = clock

    async def load_users(
        self,
        path: Path,
        *,
        tenant_id: str,
        id_column: str | None = None,
        on_error: OnError = OnError.ABORT,
    ) -> LoadReport:
        """Loads users: an id each, and whether they are ``active``, which they are by default.

        Args:
            path: The file.
            tenant_id: Whose users they are.
            id_column: By default the first of ``ID_COLUMNS`` that is there.
            on_error: What becomes of the file when rows of it are wrong.

        Raises:
            InvalidArgument: the file cannot be read at all; nothing was loaded.
            StoreUnavailable: with ABORT nothing was loaded; with SKIP a part may have been, and
                loading the file again is safe.
        """
        now = self._clock.now()

        async def write(tx: Transaction, users: Sequence[tuple[str, bool]]) -> None:
            await self._store.users.load(tx, tenant_id=tenant_id, users=users, now=now)

        return await self._load(path, _UserReader(id_column), write, on_error=on_error)

    async def load_category(
        self,
        path: Path,
        *,
        tenant_id: str,
        category: str,
        id_column: str | None = None,
        user_column: str | None = None,
        on_error: OnError = OnError.ABORT,
    ) -> LoadReport:
        """Loads the items of a category in the order of the file; each row is an item's data.

        Of a CSV file, an empty cell is an absent field, and cells that read as whole numbers,
        decimal numbers, true or false become that. Numbers with leading zeros, and those that a
        floating point number cannot hold, stay text, as ids do.

        Args:
            path: The file.
            tenant_id: Whose category it is.
            category: The name of the category.
            id_column: By default the first of ``ID_COLUMNS`` that is there.
            user_column: Names the user whom an item belongs to; by default ``user_id``, if it is
                there.
            on_error: What becomes of the file when rows of it are wrong.

        Raises:
            InvalidArgument: the name or the file as a whole is wrong; nothing was loaded.
            StoreUnavailable: as with ``load_users``.
        """
        if not is_line(category, longest=LONGEST_ITEM_ID):
            raise InvalidArgument(
                [Violation("category", f"{quoted(category)} is no name of 1 to 128 characters.")]
            )
        now = self._clock.now()

        async def write(tx: Transaction, items: Sequence[LoadedItem]) -> None:
            await self._store.categories.load(
                tx, tenant_id=tenant_id, category=category, items=items, now=now
            )

        reader = _ItemReader(id_column, user_column)
        return await self._load(path, reader, write, on_error=on_error)

    async def _load(
        self,
        path: Path,
        reader: _RowReader[_Record],
        write: _Write[_Record],
        *,
        on_error: OnError,
    ) -> LoadReport:
        with _opened(path) as file:
            records = _Records(reader, _rows(path, file, id_columns=reader.id_columns))
            if on_error is OnError.SKIP:
                return await self._load_what_is_right(records, write)
            return await self._load_all_or_nothing(records, write)

    async def _load_what_is_right(
        self,
        records: _Records[_Record],
        write: _Write[_Record],
    ) -> LoadReport:
        while chunk := await asyncio.to_thread(records.next_chunk):
            async with self._store.transaction() as tx:
                await write(tx, chunk)
        return records.report()

    async def _load_all_or_nothing(
        self,
        records: _Records[_Record],
        write: _Write[_Record],
    ) -> LoadReport:
        try:
            async with self._store.transaction() as tx:
                while chunk := await asyncio.to_thread(records.next_chunk):
                    if not records.skipped:
                        await write(tx, chunk)
                if records.skipped:
                    raise _Abort
        except _Abort:
            return records.report(is_aborted=True)
        return records.report()


class _Abort(Exception):
    """Undoes a transaction; it never leaves this module."""


class _Unsound(Exception):
    """A row, or what it says, is wrong."""


class _Unreadable(_Unsound):
    """A row is so wrong that nobody can tell where the next one starts."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Row:
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


class _RowReader(Protocol[_Read_co]):
    """Makes records of rows."""

    @property
    def id_columns(self) -> Sequence[str]:
        """Where the id may stand, in order."""
        ...

    def read(self, row: _Row) -> tuple[str, _Read_co]:
        """Returns the id and the record of a row.

        Raises:
            _Unsound: the row is wrong.
        """
        ...


class _Records(Generic[_Record]):
    """The records of a file, chunk by chunk, and what is wrong with the other rows."""

    def __init__(self, reader: _RowReader[_Record], rows: Iterator[_Row]) -> None:
        self.skipped = 0
        self._loaded = 0
        self._reader = reader
        self._lines: dict[str, int] = {}
        self._problems: list[LoadProblem] = []
        self._records = self._read(rows)

    def next_chunk(self) -> list[_Record]:
        """Returns the next records; none when the file is over."""
        chunk = list(islice(self._records, ROWS_PER_CHUNK))
        self._loaded += len(chunk)
        return chunk

    def report(self, *, is_aborted: bool = False) -> LoadReport:
        return LoadReport(
            loaded=0 if is_aborted else self._loaded,
            skipped=self.skipped,
            problems=tuple(self._problems),
        )

    def _read(self, rows: Iterator[_Row]) -> Iterator[_Record]:
        for row in rows:
            try:
                yield self._record(row)
            except _Unsound as error:
                self.skipped += 1
                if len(self._problems) < MAX_PROBLEMS:
                    self._problems.append(LoadProblem(line=row.line, message=str(error)))

    def _record(self, row: _Row) -> _Record:
        if row.problem:
            raise _Unsound(row.problem)
        record_id, record = self._reader.read(row)
        first = self._lines.setdefault(record_id, row.line)
        if first != row.line:
            raise _Unsound(f"The id {quoted(record_id)} stands in line {first} already.")
        return record


class _UserReader:
    def __init__(self, id_column: str | None) -> None:
        self.id_columns = _id_columns(id_column)

    def read(self, row: _Row) -> tuple[str, tuple[str, bool]]:
        user_id = _text_of(row.fields, _id_column(row.fields, self.id_columns))
        if not is_user_id(user_id):
            raise _Unsound(
                f"The id {quoted(user_id)} is not 1 to {LONGEST_USER_ID} characters without "
                "control characters."
            )
        return user_id, (user_id, _active(row.fields.get("active")))


def _active(value: Any) -> bool:
    match value:
        case None | "":
            return True
        case bool():
            return value
        case str() if value.lower() in _BOOLEANS:
            return _BOOLEANS[value.lower()]
    raise _Unsound(f"`active` is {quoted(value)}; write true or false.")


class _ItemReader:
    def __init__(self, id_column: str | None, user_column: str | None) -> None:
        self.id_columns = _id_columns(id_column)
        self._user_column = user_column or USER_COLUMN

    def read(self, row: _Row) -> tuple[str, LoadedItem]:
        id_column = _id_column(row.fields, self.id_columns)
        item_id = _text_of(row.fields, id_column)
        if not is_line(item_id, longest=LONGEST_ITEM_ID):
            raise _Unsound(
                f"The id {quoted(item_id)} is not 1 to {LONGEST_ITEM_ID} characters without "
                "control characters."
            )
        return item_id, LoadedItem(
            item_id=item_id,
            user_id=self._user_of(row.fields),
            data_json=row.text or _typed_json(row.fields, as_text={id_column, self._user_column}),
            create_time=_time_of(row.fields, CREATE_TIME_COLUMNS),
            active_time=_time_of(row.fields, ACTIVE_TIME_COLUMNS),
        )

    def _user_of(self, fields: Mapping[str, Any]) -> str | None:
        if fields.get(self._user_column) in (None, ""):
            return None
        user_id = _text_of(fields, self._user_column)
        if not is_user_id(user_id):
            raise _Unsound(f"`{self._user_column}` is {quoted(user_id)}, which is no user's id.")
        return user_id


def _id_columns(wanted: str | None) -> tuple[str, ...]:
    return (wanted,) if wanted else ID_COLUMNS


def _id_column(names: Collection[str], wanted: Sequence[str]) -> str:
    for column in wanted:
        if column in names:
            return column
    raise _Unsound(f"There is no column `{wanted[0]}`; name the one that holds the ids.")


def _text_of(fields: Mapping[str, Any], column: str) -> str:
    value = fields[column]
    if isinstance(value, str):
        return value
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    raise _Unsound(f"`{column}` is {quoted(value)}; an id is a text or a whole number.")


def _time_of(fields: Mapping[str, Any], columns: Sequence[str]) -> datetime | None:
    for column in columns:
        value = fields.get(column)
        if value not in (None, ""):
            return _time(value, column)
    return None


def _time(value: Any, column: str) -> datetime:
    try:
        moment = datetime.fromisoformat(value)
        return moment.astimezone(UTC) if moment.tzinfo else moment.replace(tzinfo=UTC)
    except (TypeError, ValueError, OverflowError):
        raise _Unsound(
            f"`{column}` is {quoted(value)}; write a date or a time such as "
            "2023-01-31T09:30:00+01:00."
        ) from None


_BOOLEANS: Mapping[str, bool] = {"true": True, "false": False}
_INTEGER = re.compile(r"0|-?[1-9][0-9]{0,15}")
_DECIMAL = re.compile(r"-?(0|[1-9][0-9]{0,15})\.[0-9]{1,17}")
_LARGEST_EXACT_INTEGER = 2**53


def _typed_json(cells: Mapping[str, str], *, as_text: set[str]) -> str:
    data = {name: cell if name in as_text else _typed(cell) for name, cell in cells.items() if cell}
    return json.dumps(data, ensure_ascii=False, separators=(",", ":"))


def _typed(cell: str) -> str | int | float | bool:
    if _INTEGER.fullmatch(cell) and abs(int(cell)) <= _LARGEST_EXACT_INTEGER:
        return int(cell)
    if _DECIMAL.fullmatch(cell):
        return float(cell)
    return _BOOLEANS.get(cell.lower(), cell)


def _opened(path: Path) -> BinaryIO:
    try:
        return path.open("rb")
    except OSError as error:
        raise InvalidArgument(
            [Violation(str(path), f"This file cannot be read: {error.strerror}.")]
        ) from error


def _rows(path: Path, file: BinaryIO, *, id_columns: Sequence[str]) -> Iterator[_Row]:
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
            raise _Unreadable("The row is longer than 1 MiB.")
        if self.number == 1:
            line = line.removeprefix(b"\xef\xbb\xbf")
        return line.decode(errors="surrogateescape")

    def _leave_line(self) -> None:
        while (rest := self._file.readline(_LONGEST_LINE)) and not rest.endswith(b"\n"):
            pass


def _jsonl_rows(file: BinaryIO) -> Iterator[_Row]:
    lines = _Lines(file)
    while True:
        try:
            line = next(lines).strip()
        except StopIteration:
            return
        except _Unreadable as error:
            yield _Row(line=lines.number, problem=str(error))
            continue
        if line:
            yield _jsonl_row(line, number=lines.number)


def _jsonl_row(line: str, *, number: int) -> _Row:
    if len(line.encode(errors="surrogateescape")) > MAX_ROW_BYTES:
        return _Row(line=number, problem="The row is longer than 1 MiB.")
    value, violations = parse_json(line)
    if violations:
        found = "; ".join(f"{violation.path}: {violation.message}" for violation in violations[:5])
        return _Row(line=number, problem=found)
    if not isinstance(value, dict):
        return _Row(line=number, problem="The line holds no JSON object.")
    return _Row(line=number, fields=value, text=line)


_UNSTORABLE = re.compile("[\x00\ud800-\udfff]")


def _csv_rows(path: Path, file: BinaryIO, *, id_columns: Sequence[str]) -> Iterator[_Row]:
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
        except (csv.Error, _Unreadable) as error:
            # Quotes are out of step: going on would load the rest of a text as rows.
            yield _Row(line=line, problem=f"{error} Nothing from here on was read.")
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
            raise _Unsound("The header has to name each column, and each differently.")
        _id_column(names, id_columns)
    except _Unsound as error:
        raise InvalidArgument([Violation(f"{path}:1", str(error))]) from None
    return names


def _csv_row(header: list[str], cells: list[str], *, line: int) -> _Row:
    if len(cells) != len(header):
        problem = f"The row has {len(cells)} cells, the header {len(header)}."
        return _Row(line=line, problem=problem)
    joined = "".join(cells)
    if _UNSTORABLE.search(joined):
        return _Row(line=line, problem="The row holds a null character, or is not UTF-8.")
    if len(joined.encode()) > MAX_ROW_BYTES:
        return _Row(line=line, problem="The row is longer than 1 MiB.")
    return _Row(line=line, fields=dict(zip(header, cells, strict=True)))
