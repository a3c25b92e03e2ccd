"""What the command line reads: files of items, and schedules in words."""

from __future__ import annotations

import json

import pytest
from batchwork.v1.schedule_pb2 import (
    BiweeklyCadence,
    DailyCadence,
    HourlyCadence,
    MonthlyCadence,
    Schedule,
    Weekday,
    WeeklyCadence,
)
from batchwork_client.cli.inputs import (
    InputError,
    items_from,
    pairs_from,
    schedule_from,
    values_from,
)

MONDAY, THURSDAY = Weekday.WEEKDAY_MONDAY, Weekday.WEEKDAY_THURSDAY


@pytest.fixture
def file_of(tmp_path):
    def write(name, text):
        path = tmp_path / name
        path.write_text(text, encoding="utf-8")
        return str(path)

    return write


def told(items):
    return [(item.item_id, item.user_id, json.loads(item.data_json)) for item in items]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        pytest.param(
            "a.json",
            '[{"item_id": "p1", "user_id": "u1", "data": {"text": "x"}}, {"text": "y"}]',
            id="list",
        ),
        pytest.param(
            "a.json",
            '{"items": [{"item_id": "p1", "user_id": "u1", "text": "x"}, {"text": "y"}]}',
            id="object with items",
        ),
        pytest.param(
            "a.jsonl",
            '{"item_id": "p1", "user_id": "u1", "text": "x"}\n\n{"text": "y"}',
            id="lines",
        ),
        pytest.param("a.csv", "\ufeffitem_id,user_id,text\r\np1,u1,x\r\n,,y\r\n", id="spreadsheet"),
    ],
)
def test_formats_say_the_same(file_of, name, text):
    items = items_from(file_of(name, text))

    assert told(items) == [("p1", "u1", {"text": "x"}), ("", "", {"text": "y"})]


def test_line_separator_inside_a_text_is_no_end_of_line(file_of):
    items = items_from(file_of("a.jsonl", '{"text": "a\u2028b"}\n'))

    assert told(items) == [("", "", {"text": "a\u2028b"})]


def test_cell_may_have_several_lines(file_of):
    items = items_from(file_of("a.csv", 'item_id,text\np1,"a\nb"\n'))

    assert told(items) == [("p1", "", {"text": "a\nb"})]


def test_number_may_name_an_item(file_of):
    items = items_from(file_of("a.json", '[{"post": 7}]'), id_field="post")

    assert told(items) == [("7", "", {"post": 7})]


@pytest.mark.parametrize(
    ("name", "text", "problems"),
    [
        pytest.param("a.txt", "", ["must end in .json, .jsonl"], id="unknown format"),
        pytest.param("a.json", "{", ["not JSON"], id="broken document"),
        pytest.param("a.json", "7", ["neither a list nor"], id="document of another kind"),
        pytest.param("a.jsonl", "1\n{\n[NaN]", ["a.jsonl:2: ", "a.jsonl:3: "], id="broken lines"),
        pytest.param("a.csv", "a,b\n1\n1,2,3\n", ["a.csv:2: ", "a.csv:3: "], id="ragged rows"),
        pytest.param("a.csv", 'a,b\n"1,2\n', ["not CSV"], id="open quote"),
    ],
)
def test_everything_wrong_is_told_with_its_place(file_of, name, text, problems):
    with pytest.raises(InputError) as refused:
        items_from(file_of(name, text))

    assert len(refused.value.problems) == len(problems)
    for told_problem, expected in zip(refused.value.problems, problems, strict=True):
        assert expected in told_problem


def test_field_that_is_to_name_items_has_to_be_in_each(file_of):
    path = file_of("a.json", '[{"post": "p1"}, {"pots": "p2"}, "p3"]')

    with pytest.raises(InputError) as refused:
        items_from(path, id_field="post")

    second, third = refused.value.problems
    assert "items[1]: there is no field 'post'" in second
    assert "items[2]: not an object" in third


def test_file_that_is_no_text_is_told(tmp_path):
    path = tmp_path / "a.json"
    path.write_bytes(b"\xff\xfe\x00")

    with pytest.raises(InputError, match=r"a\.json"):
        items_from(str(path))


def test_values_are_json_where_they_can_be():
    values = values_from("--filter", ["n=1", "yes=true", "list=[1]", "text=one two", "eq=a=b"])

    assert values == {"n": 1, "yes": True, "list": [1], "text": "one two", "eq": "a=b"}


def test_every_pair_that_is_none_is_told():
    with pytest.raises(InputError) as refused:
        pairs_from("--label", ["a", "=b", "c=1", "c=2"])

    assert len(refused.value.problems) == 3


@pytest.mark.parametrize(
    ("words", "schedule"),
    [
        ("hourly 15", Schedule(hourly=HourlyCadence(minute=15))),
        ("daily 09:00", Schedule(daily=DailyCadence(at="09:00"))),
        ("weekly mon 09:00", Schedule(weekly=WeeklyCadence(days=[MONDAY], at="09:00"))),
        (
            "Biweekly Monday,Thu 09:00",
            Schedule(biweekly=BiweeklyCadence(days=[MONDAY, THURSDAY], at="09:00")),
        ),
        ("monthly 31 09:00", Schedule(monthly=MonthlyCadence(day_of_month=31, at="09:00"))),
        ("monthly last 09:00", Schedule(monthly=MonthlyCadence(day_of_month=-1, at="09:00"))),
    ],
)
def test_schedule_is_read_from_words(words, schedule):
    assert schedule_from(words) == schedule


@pytest.mark.parametrize("words", ["", "daily", "yearly 1 09:00", "hourly soon", "weekly x 09:00"])
def test_words_that_are_no_schedule_are_told_with_the_forms(words):
    with pytest.raises(InputError, match="hourly MM"):
        schedule_from(words)
