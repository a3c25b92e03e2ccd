"""Looks into the data of the things of categories, in the words of each database."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Protocol

import sqlalchemy as sa

from batchwork_server.store.tables import category_items

_columns = category_items.c


@dataclass(frozen=True, slots=True, kw_only=True)
class Field:
    """One field of an item's data, as SQL expressions.

    Attributes:
        number: NULL unless the value is a number.
        text: NULL unless the value is a text.
        boolean: NULL unless the value is true or false.
        is_null: Whether the field is absent or null.
        is_filled: Whether there is something in the value; NULL when the field is absent.
        is_true: The same, and neither false nor 0.
    """

    number: sa.ColumnElement[Any]
    text: sa.ColumnElement[Any]
    boolean: sa.ColumnElement[Any]
    is_null: sa.ColumnElement[bool]
    is_filled: sa.ColumnElement[Any]
    is_true: sa.ColumnElement[Any]


class JsonReader(Protocol):
    """Looks into the data of an item in the words of one database.

    The name of a field is a literal key and always a bound value: no character of it means
    anything. A key that stands twice in an object counts as it stands last.
    """

    def source(self) -> sa.FromClause:
        """Returns where the expressions of ``field`` find their rows."""
        ...

    def field(self, name: str) -> Field: ...

    def number(self, value: float) -> Any:
        """Returns a number as it is bound."""
        ...

    def list_holds(self, name: str, texts: Sequence[str]) -> sa.ColumnElement[bool]:
        """Tells whether the field is a list with one of the texts in it."""
        ...

    def field_names(self, items: sa.Subquery) -> sa.Select[str]:
        """Returns a query of the distinct names of the fields of ``items``."""
        ...


class SqliteJson:
    """The JSON functions of SQLite.

    ``json_each`` and not ``json_extract``: a path of SQLite cannot name a key that holds a quote,
    and does not find one that was written with an escape.
    """

    def source(self) -> sa.FromClause:
        return category_items

    def field(self, name: str) -> Field:
        member = _members(_columns.data_json)
        kind, value = member.c.type, member.c.value

        def read(expression: sa.ColumnElement[Any]) -> sa.ColumnElement[Any]:
            return (
                sa.select(expression)
                .where(member.c.key == name)
                .order_by(member.c.id.desc())
                .limit(1)
                .correlate(category_items)
                .scalar_subquery()
            )

        is_empty = sa.or_(
            kind == "null",
            sa.and_(kind == "text", value == ""),
            sa.and_(kind == "array", value == "[]"),
            sa.and_(kind == "object", value == "{}"),
        )
        is_zero = sa.and_(kind.in_(["integer", "real"]), value == 0)
        return Field(
            number=read(sa.case((kind.in_(["integer", "real"]), value))),
            text=read(sa.case((kind == "text", value))),
            boolean=read(sa.case((kind == "true", sa.true()), (kind == "false", sa.false()))),
            is_null=sa.func.coalesce(read(kind == "null"), sa.true()),
            is_filled=read(sa.not_(is_empty)),
            is_true=read(sa.not_(sa.or_(is_empty, is_zero, kind == "false"))),
        )

    def number(self, value: float) -> float:
        fits = isinstance(value, float) or -(2**63) <= value < 2**63
        return value if fits else float(value)

    def list_holds(self, name: str, texts: Sequence[str]) -> sa.ColumnElement[bool]:
        member = _members(_columns.data_json)
        lists = (
            sa.select(member.c.value)
            .where(member.c.key == name, member.c.type == "array")
            .order_by(member.c.id.desc())
            .limit(1)
            .correlate(category_items)
            .scalar_subquery()
        )
        element = _members(lists)
        return (
            sa.select(sa.literal(1))
            .select_from(element)
            .where(element.c.type == "text", element.c.value.in_(texts))
            .correlate(category_items)
            .exists()
        )

    def field_names(self, items: sa.Subquery) -> sa.Select[str]:
        member = _members(items.c.data_json)
        return sa.select(member.c.key).select_from(items.join(member, sa.true())).distinct()


def _members(json: sa.ColumnElement[Any]) -> Any:
    return sa.func.json_each(json).table_valued("key", "value", "type", "id")


class PostgresqlJson:
    """The JSON functions of PostgreSQL.

    Each item is parsed once, however many conditions there are, and a value is cast only where
    its type allows it.
    """

    def __init__(self) -> None:
        data = _parsed(_columns.data_json).label("data")
        # The offset keeps the planner from pulling the cast into every condition.
        self._parsed = (
            sa.select(data)
            .offset(sa.literal_column("0"))
            .correlate(category_items)
            .lateral("parsed")
        )

    def source(self) -> sa.FromClause:
        return category_items.join(self._parsed, sa.true())

    def field(self, name: str) -> Field:
        value = self._value(name)
        kind = sa.func.jsonb_typeof(value)
        return Field(
            number=sa.case((kind == "number", sa.cast(value, sa.Numeric))),
            text=sa.case((kind == "string", value.op("#>>")(_NO_PATH))),
            boolean=sa.case((kind == "boolean", sa.cast(value, sa.Boolean))),
            is_null=sa.func.coalesce(kind == "null", sa.true()),
            is_filled=value.not_in(_EMPTY),
            is_true=value.not_in([*_EMPTY, *_UNTRUE]),
        )

    def number(self, value: float) -> Decimal:
        return Decimal(repr(value))

    def list_holds(self, name: str, texts: Sequence[str]) -> sa.ColumnElement[bool]:
        value = self._value(name)
        return sa.and_(
            sa.func.jsonb_typeof(value) == "array",
            value.op("?|")(sa.cast(list(texts), sa.ARRAY(sa.Text))),
        )

    def field_names(self, items: sa.Subquery) -> sa.Select[str]:
        key = sa.func.jsonb_object_keys(_parsed(items.c.data_json))
        return sa.select(key).distinct()

    def _value(self, name: str) -> sa.ColumnElement[Any]:
        return self._parsed.c.data.op("->")(sa.cast(name, sa.Text))


def _parsed(text: sa.ColumnElement[Any]) -> sa.ColumnElement[Any]:
    # Only here: the dialect takes 2 MiB, which a server on SQLite does not need.
    from sqlalchemy.dialects.postgresql import JSONB

    return sa.cast(text, JSONB)


def _jsonb(text: str) -> sa.ColumnElement[Any]:
    return sa.literal_column(f"'{text}'::jsonb")


_NO_PATH: sa.ColumnElement[Any] = sa.literal_column("'{}'")
_EMPTY = [_jsonb(value) for value in ("null", '""', "[]", "{}")]
_UNTRUE = [_jsonb(value) for value in ("false", "0")]
