"""Loading files into the embedded sources: what becomes of each row, and of the whole."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from batchwork_server.application import loading, row_files
from batchwork_server.application.loading import Loading, LoadReport, OnError
from batchwork_server.domain.selection import ActiveSince, Condition, CreatedBetween, Selection
from batchwork_server.domain.user import UserVerdict
from batchwork_server.errors import InvalidArgument
from batchwork_server.store.database import open_database
from batchwork_server.store.sql_store import SqlStore

from tests.factories import TENANT
from tests.fakes import START, FakeClock


class Files:
    """Writes a file, loads it, and looks at what came of it."""

    def __init__(self, folder: Path, store: SqlStore, clock: FakeClock) -> None:
        self._folder = folder
        self._store = store
        self._loading = Loading(store, clock)

    def write(self, name: str, content: str | bytes) -> Path:
        path = self._folder / name
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    async def load(self, name: str, content: str | bytes, **options: Any) -> LoadReport:
        path = self.write(name, content)
        return await self._loading.load_category(
            path, tenant_id=TENANT, category="things", **options
        )

    async def load_users(self, name: str, content: str | bytes, **options: Any) -> LoadReport:
        return await self._loading.load_users(
            self.write(name, content), tenant_id=TENANT, **options
        )

    async def items(self, *conditions: Condition) -> dict[str, Any]:
        selection = Selection(category="things", conditions=conditions)
        selected = await self._store.categories.select(selection, tenant_id=TENANT)
        return {item.item_id: json.loads(item.data_json) for item in selected}

    async def owners(self) -> list[str | None]:
        selected = await self._store.categories.select(
            Selection(category="things"), tenant_id=TENANT
        )
        return [item.user_id for item in selected]

    async def users(self, *user_ids: str) -> list[UserVerdict]:
        return list((await self._store.users.verdicts(user_ids, tenant_id=TENANT)).values())


@pytest.fixture
async def files(tmp_path: Path, sqlite_url: str, clock: FakeClock) -> AsyncIterator[Files]:
    database = await open_database(sqlite_url)
    yield Files(tmp_path, SqlStore(database), clock)
    await database.close()


def lines_of(report: LoadReport) -> list[int]:
    return [problem.line for problem in report.problems]


async def test_csv_becomes_items_in_the_order_of_the_file(files):
    report = await files.load("things.csv", "id,name,size\nb,Bee,1\na,Ant,2\n")

    assert report == LoadReport(loaded=2, skipped=0, problems=())
    assert list((await files.items()).items()) == [
        ("b", {"id": "b", "name": "Bee", "size": 1}),
        ("a", {"id": "a", "name": "Ant", "size": 2}),
    ]


@pytest.mark.parametrize(
    ("cell", "value"),
    [
        ("0", 0),
        ("-12", -12),
        ("1.50", 1.5),
        ("-0.25", -0.25),
        ("true", True),
        ("FALSE", False),
        ("9007199254740992", 9007199254740992),
        ("9007199254740993", "9007199254740993"),
        ("12345678901234567890.5", "12345678901234567890.5"),
        ("007", "007"),
        ("-0", "-0"),
        ("+1", "+1"),
        ("1e5", "1e5"),
        ("1_000", "1_000"),
        ("٣", "٣"),
        ("nan", "nan"),
        (" 1", " 1"),
        ("null", "null"),
        ('"a ""quoted"", word"', 'a "quoted", word'),
        ('"two\r\nlines"', "two\r\nlines"),
    ],
)
async def test_cell_becomes_the_value_that_it_reads_as(files, cell, value):
    await files.load("things.csv", f"id,x\na,{cell}\n")

    [item] = (await files.items()).values()
    assert item["x"] == value
    assert type(item["x"]) is type(value)


async def test_empty_cell_is_an_absent_field_and_an_empty_line_no_row(files):
    report = await files.load("things.csv", "id,x,y\n\na,,1\n\n")

    assert report.loaded == 1
    assert await files.items() == {"a": {"id": "a", "y": 1}}


async def test_ids_stay_text(files):
    await files.load("things.csv", "id,user_id,n\n1,007,1\n2,42,1\n")

    assert await files.items() == {
        "1": {"id": "1", "user_id": "007", "n": 1},
        "2": {"id": "2", "user_id": "42", "n": 1},
    }
    assert await files.owners() == ["007", "42"]


async def test_columns_are_named_by_the_caller(files):
    await files.load(
        "things.csv", "id,sku,owner\n1,x,ann\n2,y,\n", id_column="sku", user_column="owner"
    )

    assert list(await files.items()) == ["x", "y"]
    assert await files.owners() == ["ann", None]


async def test_byte_order_mark_and_windows_line_ends_are_no_content(files):
    await files.load("things.csv", b"\xef\xbb\xbfid,x\r\na,1\r\n")

    assert await files.items() == {"a": {"id": "a", "x": 1}}


async def test_jsonl_data_is_kept_as_it_came(files):
    report = await files.load(
        "things.jsonl", b'\xef\xbb\xbf{"item_id": 7, "x": 1.0}\r\n\n  {"item_id":"b","x":null}'
    )

    assert report.loaded == 2
    assert await files.items() == {"7": {"item_id": 7, "x": 1.0}, "b": {"item_id": "b", "x": None}}


async def test_times_of_a_row_are_times_of_the_item(files):
    await files.load(
        "things.csv",
        "id,created_at,last_active\n"
        "old,2020-01-31,\n"
        "new,2026-01-01T02:00:00+02:00,2026-03-01T00:00:00Z\n"
        "unsaid,,\n",
    )

    new_year = datetime(2026, 1, 1, tzinfo=UTC)
    created_then = CreatedBetween(after=new_year, before=new_year + timedelta(microseconds=1))
    assert list(await files.items(created_then)) == ["new"]
    assert list(await files.items(CreatedBetween(after=START))) == ["unsaid"]
    assert list(await files.items(ActiveSince(since=new_year))) == ["new"]


BAD_CSV = (
    b"id,x,created_at,user_id\n"
    b"good,1,,\n"
    b"few,1\n"
    b"many,1,,,,\n"
    b",1,,\n"
    b"nul,a\x00b,,\n"
    b"latin,gr\xfcn,,\n"
    b"late,1,31.01.2020,\n"
    b"who,1,,a\x07b\n"
    b'"two\nlines",1,,\n'
    b"good,2,,\n"
    b"fine,3,,\n"
)


async def test_each_bad_csv_row_is_named_by_its_line(files):
    report = await files.load("things.csv", BAD_CSV, on_error=OnError.SKIP)

    assert report.loaded == 2
    assert report.skipped == len(report.problems)
    assert lines_of(report) == [3, 4, 5, 6, 7, 8, 9, 10, 12]
    assert report.problems[-1].message == 'The id "good" stands in line 2 already.'
    assert list(await files.items()) == ["good", "fine"]


BAD_JSONL = (
    b'{"id":"good"}\n'
    b'{"id":"cut\n'
    b'["id"]\n'
    b'{"name":"nobody"}\n'
    b'{"id":true}\n'
    b'{"id":"nul","x":"\\u0000"}\n'
    b'{"id":"half","x":"\\ud800"}\n'
    b'{"id":"latin","x":"\xfc"}\n'
    b'{"id":"nan","x":NaN}\n'
    b'{"id":"huge","x":1e999}\n'
    b'{"id":"twice","x":1,"x":2}\n'
    b'{"id":"late","create_time":12}\n'
    b'{"id":"good"}\n'
    b'{"id":"fine"}\n'
)


async def test_each_bad_jsonl_line_is_named(files):
    report = await files.load("things.jsonl", BAD_JSONL, on_error=OnError.SKIP)

    assert report.loaded == 2
    assert lines_of(report) == list(range(2, 14))
    assert list(await files.items()) == ["good", "fine"]


@pytest.mark.parametrize(
    ("name", "content", "problems"), [("a.csv", BAD_CSV, 9), ("a.jsonl", BAD_JSONL, 12)]
)
async def test_by_default_nothing_of_a_file_with_a_problem_is_loaded(
    files, monkeypatch, name, content, problems
):
    monkeypatch.setattr(loading, "ROWS_PER_CHUNK", 1)  # the good rows before it are written first

    report = await files.load(name, content)

    assert (report.loaded, report.skipped) == (0, problems)
    assert await files.items() == {}


@pytest.mark.parametrize("name", ["a.csv", "a.jsonl"])
async def test_row_that_is_too_long_is_skipped(files, name):
    long = "x" * row_files.MAX_ROW_BYTES
    content = {
        "a.csv": f"id,x\na,{long}\nb,1\n",
        "a.jsonl": f'{{"id":"a","x":"{long}"}}\n{{"id":"b"}}\n',
    }[name]

    report = await files.load(name, content, on_error=OnError.SKIP)

    assert [problem.message for problem in report.problems] == ["The row is longer than 1 MiB."]
    assert list(await files.items()) == ["b"]


async def test_line_without_an_end_is_not_taken_into_memory(files, monkeypatch):
    monkeypatch.setattr(row_files, "_LONGEST_LINE", 64)

    report = await files.load("a.jsonl", "x" * 1000 + '\n{"id":"b"}\n', on_error=OnError.SKIP)

    assert lines_of(report) == [1]
    assert list(await files.items()) == ["b"]


async def test_quotes_out_of_step_end_the_reading(files):
    """A quote that never ended once turned the rest of a text into rows of their own."""
    report = await files.load("a.csv", 'id,x\na,1\nb,"open\nc,3\nd,"4"\n', on_error=OnError.SKIP)

    assert report.loaded == 1
    assert lines_of(report) == [3]
    assert "Nothing from here on was read" in report.problems[0].message
    assert list(await files.items()) == ["a"]


async def test_report_names_the_first_problems_and_counts_all(files):
    rows = "\n".join("a,1,2" for _ in range(loading.MAX_PROBLEMS + 50))

    report = await files.load("a.csv", f"id,x\n{rows}\n")

    assert len(report.problems) == loading.MAX_PROBLEMS
    assert report.skipped == loading.MAX_PROBLEMS + 50


async def test_same_file_again_changes_nothing(files):
    content = "id,x\na,1\nb,2\n"
    await files.load("a.csv", content)
    before = await files.items()

    report = await files.load("a.csv", content)

    assert report.loaded == 2
    assert await files.items() == before


async def test_users_are_active_unless_the_file_says_otherwise(files):
    report = await files.load_users("users.csv", "user_id,active\nann,\nbob,false\ncleo,TRUE\n")

    assert report.loaded == 3
    assert await files.users("ann", "bob", "cleo", "dora") == [
        UserVerdict.VALID,
        UserVerdict.INACTIVE,
        UserVerdict.VALID,
        UserVerdict.NOT_FOUND,
    ]


async def test_users_come_from_jsonl_too(files):
    report = await files.load_users(
        "users.jsonl",
        '{"id":"ann"}\n{"id":"bob","active":false}\n{"id":"c","active":"maybe"}\n{"id":""}\n',
        on_error=OnError.SKIP,
    )

    assert report.loaded == 2
    assert lines_of(report) == [3, 4]
    assert await files.users("ann", "bob") == [UserVerdict.VALID, UserVerdict.INACTIVE]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        pytest.param("a.csv", "", "no header", id="empty file"),
        pytest.param("a.csv", "id,x,x\n", "name each column", id="column twice"),
        pytest.param("a.csv", "id,,x\n", "name each column", id="column without a name"),
        pytest.param("a.csv", "name,x\na,1\n", "no column `id`", id="no id"),
        pytest.param("a.xlsx", "id\n", ".csv, .jsonl or .ndjson", id="other format"),
    ],
)
async def test_file_that_is_wrong_as_a_whole_is_refused(files, name, content, message):
    with pytest.raises(InvalidArgument, match=message):
        await files.load(name, content, on_error=OnError.SKIP)


async def test_file_that_is_not_there_is_refused_by_its_name(files, tmp_path, clock):
    with pytest.raises(InvalidArgument, match=r"nowhere\.csv"):
        await files._loading.load_users(tmp_path / "nowhere.csv", tenant_id=TENANT)


async def test_category_has_a_name(files, tmp_path):
    path = files.write("a.csv", "id\na\n")

    with pytest.raises(InvalidArgument, match="category"):
        await files._loading.load_category(path, tenant_id=TENANT, category="")
