"""The embedded source of categories: named collections of things, narrowed down in SQL."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

import orjson
import sqlalchemy as sa

from batchwork_server.domain.selection import (
    ActiveSince,
    Condition,
    CreatedBetween,
    Equality,
    LoadedItem,
    NumberBound,
    Order,
    Presence,
    SelectedItem,
    Selection,
    TagsAny,
)
from batchwork_server.store.category_json import JsonReader, PostgresqlJson, SqliteJson
from batchwork_server.store.database import Database
from batchwork_server.store.store import Transaction
from batchwork_server.store.tables import category_items
from batchwork_server.store.times import to_micros

FIELD_NAMES_SAMPLE = 1000
"""How many items are looked at to learn which fields a category has."""

_columns = category_items.c

_OWNER = "COALESCE(NULLIF(i.user_id, ''), i.item_id)"  # as ``ix_category_items_owner`` has it

# User by user: a planner without fresh statistics takes a category for a few rows, and would read
# all of it. Compared as rows, tenant and category fit that index alone; the offset keeps the join
# from being turned around.
_OWN = {
    "sqlite": f"""
SELECT asked.value AS owner, i.position
FROM json_each(:user_ids) AS asked CROSS JOIN category_items i
WHERE {_OWNER} = asked.value AND i.tenant_id = :tenant_id AND i.category = :category
""",
    "postgresql": f"""
SELECT asked.value AS owner, found.position
FROM unnest(CAST(:user_ids AS text[])) AS asked(value) CROSS JOIN LATERAL (
  SELECT i.position FROM category_items i WHERE {_OWNER} = asked.value
    AND ({_OWNER}, i.tenant_id, i.category) >= (asked.value, :tenant_id, :category)
    AND ({_OWNER}, i.tenant_id, i.category) <= (asked.value, :tenant_id, :category)
  OFFSET 0
) AS found
""",
}


class SqlCategories:
    """Categories in the tables of this database."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._json: JsonReader = SqliteJson() if database.dialect == "sqlite" else PostgresqlJson()

    async def select(self, selection: Selection, *, tenant_id: str) -> list[SelectedItem]:
        """Returns the items in the order of the category, at most ``selection.limit``.

        An item meets a condition by the type of its value too: the text ``"30"`` is no number.

        Raises:
            StoreUnavailable: the database is away.
        """
        statement = (
            sa.select(_columns.item_id, _columns.user_id, _columns.data_json)
            .select_from(self._json.source())
            .where(*self._conditions(selection, tenant_id=tenant_id))
            .order_by(*self._ordering(selection.order), _columns.position)
            .limit(selection.limit)
        )
        async with self._database.reading() as connection:
            rows = await connection.execute(statement)
            return [_selected(row) for row in rows]

    async def select_of_users(
        self, selection: Selection, user_ids: Sequence[str], *, tenant_id: str
    ) -> dict[str, list[SelectedItem]]:
        """Returns of each user the items that are theirs, at most ``selection.limit`` of each.

        Raises:
            StoreUnavailable: the database is away.
        """
        statement = self.own_of(selection, user_ids, tenant_id=tenant_id)
        found: dict[str, list[SelectedItem]] = {}
        async with self._database.reading() as connection:
            for row in await connection.execute(statement):
                found.setdefault(row.owner, []).append(_selected(row))
        return found

    def own_of(
        self, selection: Selection, user_ids: Sequence[str], *, tenant_id: str
    ) -> sa.Select[Any]:
        """Returns the query of ``select_of_users``."""
        own = self._own(user_ids, selection.category, tenant_id=tenant_id)
        place = sa.func.row_number().over(
            partition_by=own.c.owner,
            order_by=[*self._ordering(selection.order), _columns.position],
        )
        ranked = (
            sa.select(
                *(_columns.item_id, _columns.user_id, _columns.data_json),
                own.c.owner,
                place.label("place"),
            )
            .select_from(self._json.source().join(own, own.c.position == _columns.position))
            .where(*self._clauses(selection))
            .subquery()
        )
        return (
            sa.select(ranked)
            .where(ranked.c.place <= selection.limit)
            .order_by(ranked.c.owner, ranked.c.place)
        )

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
                *self._conditions(selection, tenant_id=tenant_id),
                sa.true() if after is None else _columns.position > after,
            )
            .order_by(_columns.position)
            .limit(page_size)
        )
        async with self._database.reading() as connection:
            rows = (await connection.execute(statement)).all()
        return [_selected(row) for row in rows], rows[-1].position if len(
            rows
        ) == page_size else None

    def _own(self, user_ids: Sequence[str], category: str, *, tenant_id: str) -> sa.CTE:
        """Returns the places of what is users' own, each with its ``owner``."""
        distinct = sorted(set(user_ids))
        is_sqlite = self._database.dialect == "sqlite"
        return (
            sa.text(_OWN[self._database.dialect])
            .bindparams(
                user_ids=orjson.dumps(distinct).decode() if is_sqlite else distinct,
                tenant_id=tenant_id,
                category=category,
            )
            .columns(sa.column("owner", sa.Text), sa.column("position", sa.BigInteger))
            .cte("own")
            .prefix_with("MATERIALIZED")  # else SQLite goes through all things for each user
        )

    def _conditions(self, selection: Selection, *, tenant_id: str) -> list[sa.ColumnElement[bool]]:
        return [
            _columns.tenant_id == tenant_id,
            _columns.category == selection.category,
            *self._clauses(selection),
        ]

    def _clauses(self, selection: Selection) -> list[sa.ColumnElement[bool]]:
        return [_clause(condition, self._json) for condition in selection.conditions]

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


def _selected(row: Any) -> SelectedItem:
    return SelectedItem(item_id=row.item_id, user_id=row.user_id, data_json=row.data_json)


def _clause(condition: Condition, json: JsonReader) -> sa.ColumnElement[bool]:
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


def _all_of(*bounds: sa.ColumnElement[bool] | None) -> sa.ColumnElement[bool]:
    return sa.and_(sa.true(), *(bound for bound in bounds if bound is not None))


def _equals(
    json: JsonReader, name: str, values: Sequence[str | float | bool | None]
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
