"""Loads users and categories from CSV and JSONL files into the embedded sources.

A file is read as a stream, some thousand rows at a time, so its size does not matter. Reading and
parsing run in a thread.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from itertools import islice
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

from batchwork_server.application.row_files import Row, Unsound, id_column_of, opened, rows_of
from batchwork_server.application.validation import LONGEST_USER_ID, is_user_id
from batchwork_server.clock import Clock
from batchwork_server.domain.json_object import is_line, quoted
from batchwork_server.domain.selection import LoadedItem
from batchwork_server.errors import InvalidArgument, Violation
from batchwork_server.store.store import Transaction

MAX_PROBLEMS = 100
"""How many problems a report names; the others are only counted."""

ROWS_PER_CHUNK = 5000
LONGEST_ITEM_ID = 128
ID_COLUMNS = ("id", "item_id", "user_id")
USER_COLUMN = "user_id"
CREATE_TIME_COLUMNS = ("create_time", "created_at")
ACTIVE_TIME_COLUMNS = ("last_active", "last_active_time", "active_time")


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
        with opened(path) as file:
            records = _Records(reader, rows_of(path, file, id_columns=reader.id_columns))
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


class _RowReader(Protocol[_Read_co]):
    """Makes records of rows."""

    @property
    def id_columns(self) -> Sequence[str]:
        """Where the id may stand, in order."""
        ...

    def read(self, row: Row) -> tuple[str, _Read_co]:
        """Returns the id and the record of a row.

        Raises:
            Unsound: the row is wrong.
        """
        ...


class _Records(Generic[_Record]):
    """The records of a file, chunk by chunk, and what is wrong with the other rows."""

    def __init__(self, reader: _RowReader[_Record], rows: Iterator[Row]) -> None:
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

    def _read(self, rows: Iterator[Row]) -> Iterator[_Record]:
        for row in rows:
            try:
                yield self._record(row)
            except Unsound as error:
                self.skipped += 1
                if len(self._problems) < MAX_PROBLEMS:
                    self._problems.append(LoadProblem(line=row.line, message=str(error)))

    def _record(self, row: Row) -> _Record:
        if row.problem:
            raise Unsound(row.problem)
        record_id, record = self._reader.read(row)
        first = self._lines.setdefault(record_id, row.line)
        if first != row.line:
            raise Unsound(f"The id {quoted(record_id)} stands in line {first} already.")
        return record


class _UserReader:
    def __init__(self, id_column: str | None) -> None:
        self.id_columns = _id_columns(id_column)

    def read(self, row: Row) -> tuple[str, tuple[str, bool]]:
        user_id = _text_of(row.fields, id_column_of(row.fields, self.id_columns))
        if not is_user_id(user_id):
            raise Unsound(
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
    raise Unsound(f"`active` is {quoted(value)}; write true or false.")


class _ItemReader:
    def __init__(self, id_column: str | None, user_column: str | None) -> None:
        self.id_columns = _id_columns(id_column)
        self._user_column = user_column or USER_COLUMN

    def read(self, row: Row) -> tuple[str, LoadedItem]:
        id_column = id_column_of(row.fields, self.id_columns)
        item_id = _text_of(row.fields, id_column)
        if not is_line(item_id, longest=LONGEST_ITEM_ID):
            raise Unsound(
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
            raise Unsound(f"`{self._user_column}` is {quoted(user_id)}, which is no user's id.")
        return user_id


def _id_columns(wanted: str | None) -> tuple[str, ...]:
    return (wanted,) if wanted else ID_COLUMNS


def _text_of(fields: Mapping[str, Any], column: str) -> str:
    value = fields[column]
    if isinstance(value, str):
        return value
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    raise Unsound(f"`{column}` is {quoted(value)}; an id is a text or a whole number.")


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
        raise Unsound(
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
