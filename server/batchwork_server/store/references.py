"""Who is given a reference to the results of a batch.

The users whom a job names stand in a table. Those for whom a preference-based job runs stand in the
items of the run already, and their references are read from there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy.ext.asyncio import AsyncConnection

from batchwork_server.domain.batch import Batch
from batchwork_server.domain.filters import ReferenceFilter
from batchwork_server.domain.reference import OwnItem, PlaceInBatch, Recipient, Reference
from batchwork_server.store.database import Database
from batchwork_server.store.own_items import (
    ALONE,
    TOGETHER,
    names_users_apart,
    own_item_from,
)
from batchwork_server.store.rows import BATCH_COLUMNS, batch_from
from batchwork_server.store.statements import Column, Row, dialect_of, insert_rows, one_of, run
from batchwork_server.store.store import Transaction

_COLUMNS = (
    Column("batch_key"),
    Column("user_id", "text"),
    Column("tenant_id", "text"),
    Column("problem", "text"),
)
_FIRST = PlaceInBatch()

_NAMED = """
SELECT r.batch_key, r.user_id, r.problem FROM batch_references r
JOIN batches b ON b.batch_key = r.batch_key
WHERE {conditions} ORDER BY r.batch_key DESC, r.user_id LIMIT ?
"""
_BATCHES = f"SELECT {BATCH_COLUMNS} FROM batches b WHERE "


@dataclass(frozen=True, slots=True, kw_only=True)
class _Given:
    """A reference without its batch."""

    batch_key: int
    place: PlaceInBatch
    recipient: Recipient
    item: OwnItem | None = None

    @property
    def order(self) -> tuple[int, bool, int, str]:
        place = self.place.place
        return (-self.batch_key, place is not None, place or 0, self.place.user_id)


class SqlReferences:
    """Implements ``ReferenceStore``."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def add(self, tx: Transaction, batch: Batch, recipients: Sequence[Recipient]) -> None:
        rows = [(batch.key, each.user_id, batch.tenant_id, each.problem) for each in recipients]
        await insert_rows(tx.connection, "batch_references", _COLUMNS, rows)

    async def list(
        self, matching: ReferenceFilter, *, page_size: int, after: tuple[str, int] | None
    ) -> tuple[list[Reference], tuple[str, int] | None]:
        async with self._database.reading() as connection:
            given = _of_user if matching.user_id else _of_batches
            found = await given(connection, _Page(matching, after, page_size + 1))
            page = found[:page_size]
            batches = await _batches_of(connection, page)
        references = [
            Reference(recipient=each.recipient, batch=batches[each.batch_key], item=each.item)
            for each in page
        ]
        if len(found) <= page_size:
            return references, None
        return references, (str(page[-1].place), page[-1].batch_key)


@dataclass(frozen=True, slots=True)
class _Page:
    """What is asked for.

    Attributes:
        after: The place in a batch, as a text, and the key of the batch.
        limit: How many references at most.
    """

    matching: ReferenceFilter
    after: tuple[str, int] | None
    limit: int

    @property
    def start(self) -> tuple[PlaceInBatch, int] | None:
        if self.after is None:
            return None
        text, batch_key = self.after
        return PlaceInBatch.read(text) or _FIRST, batch_key

    def conditions(self) -> tuple[str, Row]:
        """Returns what holds of the batches."""
        wanted = self.matching
        conditions, values = ["b.state <> 'DELETED'", "b.distribution <> ''"], []
        for column, value in (
            ("tenant_id", wanted.tenant_id),
            ("batch_id", wanted.batch_id or None),
            ("job_id", wanted.job_id or None),
            ("feature_type", wanted.feature_type or None),
        ):
            if value is not None:
                conditions.append(f"b.{column} = ?")
                values.append(value)
        return " AND ".join(conditions), tuple(values)


async def _of_user(connection: AsyncConnection, page: _Page) -> list[_Given]:
    """Returns what one user was given: each kind is read from an index of its own."""
    found = [
        *await _named_to(connection, page),
        *await _own_of(connection, page, ALONE, "i", "item_index"),
        *await _own_of(connection, page, TOGETHER, "u", "place"),
    ]
    return sorted(found, key=lambda each: each.order)[: page.limit]


async def _named_to(connection: AsyncConnection, page: _Page) -> list[_Given]:
    of_batch, values = page.conditions()
    conditions, parameters = [of_batch, "r.user_id = ?"], [*values, page.matching.user_id]
    if page.matching.tenant_id is not None:
        conditions.append("r.tenant_id = ?")
        parameters.append(page.matching.tenant_id)
    if page.start is not None:
        conditions.append("r.batch_key < ?")
        parameters.append(page.start[1])
    sql = _NAMED.format(conditions=" AND ".join(conditions))
    return [_named(row) for row in await run(connection, sql, (*parameters, page.limit))]


async def _own_of(
    connection: AsyncConnection, page: _Page, sql: str, table: str, number: str
) -> list[_Given]:
    of_batch, values = page.conditions()
    conditions, parameters = [of_batch, "b.distribution = 'OWN'"], [*values]
    conditions.append(f"{table}.user_id = ?")
    parameters.append(page.matching.user_id)
    if table == "u" and page.matching.tenant_id is not None:
        conditions.append("u.tenant_id = ?")  # in the words of the index
        parameters.append(page.matching.tenant_id)
    if page.start is not None:
        place, batch_key = page.start
        conditions.append(
            f"{table}.batch_key <= ? AND ({table}.batch_key < ? OR {table}.{number} > ?)"
        )
        parameters += [batch_key, batch_key, -1 if place.place is None else place.place]
    rows = await run(
        connection, sql.format(conditions=" AND ".join(conditions)), (*parameters, page.limit)
    )
    return [_own(row) for row in rows]


async def _of_batches(connection: AsyncConnection, page: _Page) -> list[_Given]:
    """Returns what everybody was given, batch by batch; no batch is read further than needed."""
    found: list[_Given] = []
    at: tuple[PlaceInBatch | None, int] | None = page.start
    while len(found) < page.limit:
        batches = await _next_batches(connection, page, at)
        if not batches:
            break
        for batch in batches:
            place = at[0] if at is not None and batch.key == at[1] else None
            found += await _of_batch(connection, batch, place, limit=page.limit - len(found))
            if len(found) >= page.limit:
                break
        at = (None, batches[-1].key)
    return found


async def _next_batches(
    connection: AsyncConnection, page: _Page, at: tuple[PlaceInBatch | None, int] | None
) -> list[Batch]:
    conditions, values = page.conditions()
    if at is not None:
        conditions += " AND b.batch_key <= ?" if at[0] is not None else " AND b.batch_key < ?"
        values += (at[1],)
    sql = f"{_BATCHES}{conditions} ORDER BY b.batch_key DESC LIMIT ?"
    return [batch_from(row) for row in await run(connection, sql, (*values, page.limit))]


async def _of_batch(
    connection: AsyncConnection, batch: Batch, place: PlaceInBatch | None, *, limit: int
) -> list[_Given]:
    found: list[_Given] = []
    if place is None or place.place is None:
        after = "" if place is None else place.user_id
        sql = _NAMED.format(conditions="r.batch_key = ? AND r.user_id > ?")
        found = [_named(row) for row in await run(connection, sql, (batch.key, after, limit))]
    if len(found) < limit and batch.request.distribution.own:
        number = -1 if place is None or place.place is None else place.place
        sql = (
            TOGETHER.format(conditions="u.batch_key = ? AND u.place > ?")
            if names_users_apart(batch)
            else ALONE.format(
                conditions="i.batch_key = ? AND i.item_index > ? AND i.user_id IS NOT NULL"
            )
        )
        rows = await run(connection, sql, (batch.key, number, limit - len(found)))
        found += [_own(row) for row in rows]
    return found


async def _batches_of(connection: AsyncConnection, given: Sequence[_Given]) -> dict[int, Batch]:
    keys = tuple(dict.fromkeys(each.batch_key for each in given))
    if not keys:
        return {}
    named, parameters = one_of("b.batch_key", keys, dialect_of(connection))
    rows = await run(connection, f"{_BATCHES} {named}", parameters)
    return {batch.key: batch for batch in map(batch_from, rows)}


def _named(row: Row) -> _Given:
    batch_key, user_id, problem = row
    return _Given(
        batch_key=batch_key,
        place=PlaceInBatch(user_id=user_id),
        recipient=Recipient(user_id=user_id, problem=problem),
    )


def _own(row: Row) -> _Given:
    batch_key, place, user_id, *_ = row
    return _Given(
        batch_key=batch_key,
        place=PlaceInBatch(place=place),
        recipient=Recipient(user_id=user_id),
        item=own_item_from(row),
    )
