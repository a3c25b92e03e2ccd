"""The embedded source of categories: named collections of things, narrowed down in SQL."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any, Protocol

import sqlalchemy as sa

from batchwork_server.domain.selection import (
    ActiveSince,
    Condition,
    CreatedBetween,
    Equality,
    LoadedItem,
    NumberBound,
    OfUsers,
    Order,
    Presence,
    SelectedItem,
    Selection,
    TagsAny,
)
from batchwork_server.store.database import Database
from batchwork_server.store.store import Transaction
from batchwork_server.store.tables import category_items
from batchwork_server.store.times import to_micros

FIELD_NAMES_SAMPLE = 1000
"""How many items are looked at to learn which fields a category has."""

_columns = category_items.c


class SqlCategories:
    """Categories in the tables of this database."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._json: _JsonReader = _SqliteJson() if database.dialect == "sqlite" else _JsonB()

    async def select(self, selection: Selection, *, tenant_id: str) -> list[SelectedItem]:
        """Returns the items in the order of the category, at most ``selection.limit``.

        An item meets a condition by the type of its value too: the text ``"30"`` is no number.

        Raises:
            StoreUnavailable: the database is away.
        """
        statement = (
            sa.select(_columns.item_id, _columns.user_id, _columns.data_json)
            .select_from(self._json.source())
            .where(
                _columns.tenant_id == tenant_id,
                _columns.category == selection.category,
                *(_clause(condition, self._json) for condition in selection.conditions),
            )
            .order_by(*self._ordering(selection.order), _columns.position)
            .limit(selection.limit)
        )
        async with self._database.reading() as connection:
            rows = await connection.execute(statement)
            return [
                SelectedItem(item_id=item_id, user_id=user_id, data_json=data_json)
                for item_id, user_id, data_json in rows
            ]

    async def page(
        self, selection: Selection, *, tenant_id: str, page_size: int, after: int | None = None
    ) -> tuple[list[SelectedItem], int | None]:
        """Returns some of the items in the order of the category, and after which others follow.

        The order and the limit of the selection do not count.
        """
        statement = (
            sa.select(_columns.item_id, _columns.user_id, _columns.data_json, _columns.position)
            .select_from(self._json.source())
            .where(
                _columns.tenant_id == tenant_id,
                _columns.category == selection.category,
                sa.true() if after is None else _columns.position > after,
                *(_clause(condition, self._json) for condition in selection.conditions),
            )
            .order_by(_columns.position)
            .limit(page_size)
        )
        async with self._database.reading() as connection:
            rows = (await connection.execute(statement)).all()
        items = [
            SelectedItem(item_id=item_id, user_id=user_id, data_json=data_json)
            for item_id, user_id, data_json, _ in rows
        ]
        return items, rows[-1].position if len(rows) == page_size else None

    def _ordering(self, order: Order | None) -> list[sa.ColumnElement[Any]]:
        if order is None:
            return []
        field = self._json.field(order.field)
        text = field.text
        if self._database.dialect == "postgresql":
            # Else it sorts by the rules of the country that the database was made for.
            text = sa.collate(sa.type_coerce(text, sa.Text), "C")
        return [
            expression.desc().nulls_last() if order.descending else expression.asc().nulls_last()
            for expression in (field.number, text)
        ]

    async def exists(self, category: str, *, tenant_id: str) -> bool:
        """Tells whether the category has any item."""
        row = await self._database.fetch_row(
            "SELECT 1 FROM category_items WHERE tenant_id = ? AND category = ? LIMIT 1",
            (tenant_id, category),
        )
        return row is not None

    async def categories(self, *, tenant_id: str) -> list[str]:
        """Returns the names of the categories that have items, sorted."""
        statement = sa.select(_columns.category).where(_columns.tenant_id == tenant_id).distinct()
        async with self._database.reading() as connection:
            return sorted(name for (name,) in await connection.execute(statement))

    async def count(self, category: str, *, tenant_id: str) -> int:
        """Returns how many items the category has."""
        statement = (
            sa.select(sa.func.count())
            .select_from(category_items)
            .where(_columns.tenant_id == tenant_id, _columns.category == category)
        )
        async with self._database.reading() as connection:
            return int((await connection.execute(statement)).scalar_one())

    async def field_names(self, category: str, *, tenant_id: str) -> list[str]:
        """Returns the names of the fields that the category's items have, sorted.

        At most the first thousand items are looked at.
        """
        sample = (
            sa.select(_columns.data_json)
            .where(_columns.tenant_id == tenant_id, _columns.category == category)
            .order_by(_columns.position)
            .limit(FIELD_NAMES_SAMPLE)
            .subquery()
        )
        statement = self._json.field_names(sample)
        async with self._database.reading() as connection:
            return sorted(name for (name,) in await connection.execute(statement))

    async def load(
        self,
        tx: Transaction,
        *,
        tenant_id: str,
        category: str,
        items: Sequence[LoadedItem],
        now: datetime,
    ) -> None:
        """Puts items into a category.

        An item that is there already gets the new data and keeps its place, and its creation time
        unless a new one is given. Of several with one id the last one counts.
        """
        rows = [
            (
                item.item_id,
                item.user_id,
                item.data_json,
                to_micros(item.create_time or now),
                to_micros(item.active_time),
            )
            for item in {item.item_id: item for item in items}.values()
        ]
        if rows:
            await self._insert(tx, (tenant_id, category), rows, now=to_micros(now))

    async def _insert(
        self, tx: Transaction, owner: tuple[str, str], rows: list[tuple[Any, ...]], *, now: int
    ) -> None:
        if self._database.dialect == "sqlite":
            await tx.connection.exec_driver_sql(_LOAD_SQLITE, [(*owner, *row, now) for row in rows])
            return
        await tx.connection.exec_driver_sql(
            _LOAD_POSTGRESQL, (*owner, *(list(column) for column in zip(*rows, strict=True)), now)
        )


# A row that names no creation time of its own brings the time of the load, and does not replace
# an older one by it.
_LOAD_SQLITE = """
    INSERT INTO category_items
        (tenant_id, category, item_id, user_id, data_json, create_time, active_time)
    VALUES (?, ?, ?, ?, ?, ?, ?)
    ON CONFLICT (tenant_id, category, item_id) DO UPDATE SET
        user_id = excluded.user_id,
        data_json = excluded.data_json,
        active_time = excluded.active_time,
        create_time = CASE excluded.create_time
            WHEN ? THEN category_items.create_time ELSE excluded.create_time END
"""

_LOAD_POSTGRESQL = """
    INSERT INTO category_items
        (tenant_id, category, item_id, user_id, data_json, create_time, active_time)
    SELECT $1, $2, loaded.item_id, loaded.user_id, loaded.data_json, loaded.create_time,
        loaded.active_time
    FROM unnest($3::text[], $4::text[], $5::text[], $6::bigint[], $7::bigint[]) WITH ORDINALITY
        AS loaded (item_id, user_id, data_json, create_time, active_time, place)
    ORDER BY loaded.place
    ON CONFLICT (tenant_id, category, item_id) DO UPDATE SET
        user_id = excluded.user_id,
        data_json = excluded.data_json,
        active_time = excluded.active_time,
        create_time = CASE excluded.create_time
            WHEN $8::bigint THEN category_items.create_time ELSE excluded.create_time END
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Field:
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


class _JsonReader(Protocol):
    """Looks into the data of an item in the words of one database.

    The name of a field is a literal key and always a bound value: no character of it means
    anything. A key that stands twice in an object counts as it stands last.
    """

    def source(self) -> sa.FromClause:
        """Returns where the expressions of ``field`` find their rows."""
        ...

    def field(self, name: str) -> _Field: ...

    def number(self, value: float) -> Any:
        """Returns a number as it is bound."""
        ...

    def list_holds(self, name: str, texts: Sequence[str]) -> sa.ColumnElement[bool]:
        """Tells whether the field is a list with one of the texts in it."""
        ...

    def field_names(self, items: sa.Subquery) -> sa.Select[str]:
        """Returns a query of the distinct names of the fields of ``items``."""
        ...


def _clause(condition: Condition, json: _JsonReader) -> sa.ColumnElement[bool]:
    match condition:
        case NumberBound(field=name, minimum=minimum, maximum=maximum):
            number = json.field(name).number
            return _all_of(
                None if minimum is None else number >= json.number(minimum),
                None if maximum is None else number <= json.number(maximum),
            )
        case Presence(field=name, present=present):
            own = json.field(f"has_{name}").is_true
            is_present = sa.func.coalesce(own, json.field(name).is_filled, sa.false())
            return is_present if present else sa.not_(is_present)
        case Equality(field=name, values=values):
            return _equals(json, name, values)
        case TagsAny(tags=tags):
            return sa.or_(json.field("tags").text.in_(tags), json.list_holds("tags", tags))
        case CreatedBetween(after=after, before=before):
            created = _columns.create_time
            return _all_of(
                None if after is None else created >= to_micros(after),
                None if before is None else created < to_micros(before),
            )
        case ActiveSince(since=since):
            return _columns.active_time >= to_micros(since)
        case OfUsers(user_ids=user_ids):
            return sa.or_(_columns.user_id.in_(user_ids), _columns.item_id.in_(user_ids))


def _all_of(*bounds: sa.ColumnElement[bool] | None) -> sa.ColumnElement[bool]:
    return sa.and_(sa.true(), *(bound for bound in bounds if bound is not None))


def _equals(
    json: _JsonReader, name: str, values: Sequence[str | float | bool | None]
) -> sa.ColumnElement[bool]:
    field = json.field(name)
    texts = [value for value in values if isinstance(value, str)]
    booleans = [value for value in values if isinstance(value, bool)]
    numbers = [
        json.number(value)
        for value in values
        if isinstance(value, int | float) and not isinstance(value, bool)
    ]
    alternatives: list[sa.ColumnElement[bool]] = []
    if texts:
        alternatives.append(field.text.in_(texts))
    if booleans:
        alternatives.append(field.boolean.in_(booleans))
    if numbers:
        alternatives.append(field.number.in_(numbers))
    if None in values:
        alternatives.append(field.is_null)
    return sa.or_(sa.false(), *alternatives)


class _SqliteJson:
    """The JSON functions of SQLite.

    ``json_each`` and not ``json_extract``: a path of SQLite cannot name a key that holds a quote,
    and does not find one that was written with an escape.
    """

    def source(self) -> sa.FromClause:
        return category_items

    def field(self, name: str) -> _Field:
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
        return _Field(
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


class _JsonB:
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

    def field(self, name: str) -> _Field:
        value = self._value(name)
        kind = sa.func.jsonb_typeof(value)
        return _Field(
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
