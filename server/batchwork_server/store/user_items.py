"""The items for one user and the references to whole batches, the newest batch first."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from batchwork_server.domain.batch import Batch, Counts, UserValidation
from batchwork_server.domain.context import INVALID_USER_REASONS
from batchwork_server.domain.item import ItemState
from batchwork_server.domain.reference import OwnItem, Recipient
from batchwork_server.domain.user_context import UserEntry
from batchwork_server.store.database import Database
from batchwork_server.store.own_items import ALONE, TOGETHER, batches_of, own_item_from
from batchwork_server.store.statements import Dialect, Row, dialect_of, run

_WHOLE_BATCHES = """
SELECT r.batch_key, -1, r.user_id, r.problem FROM batch_references r
JOIN batches b ON b.batch_key = r.batch_key
WHERE {conditions} ORDER BY r.batch_key DESC LIMIT ?
"""
_INVALID = ", ".join(f"'{reason}'" for reason in sorted(INVALID_USER_REASONS))
_COUNT_ALONE = f"""
SELECT COALESCE(o.state, 'PENDING'), CASE WHEN o.skip_reason IN ({_INVALID}) THEN 1 ELSE 0 END,
  CASE WHEN {{unknown}} > 0 THEN 1 ELSE 0 END,
  COUNT(*), COALESCE(SUM(CASE WHEN o.attempt_count > 1 THEN o.attempt_count - 1 ELSE 0 END), 0)
FROM items i JOIN batches b ON b.batch_key = i.batch_key
LEFT JOIN outcomes o ON o.batch_key = i.batch_key AND o.item_index = i.item_index
WHERE {{conditions}} GROUP BY 1, 2, 3
"""
_COUNT_TOGETHER = f"""
SELECT CASE WHEN u.item_index IS NULL THEN 'SKIPPED' ELSE COALESCE(o.state, 'PENDING') END,
  CASE WHEN u.skip_reason IN ({_INVALID}) THEN 1 ELSE 0 END,
  CASE WHEN {{unknown}} > 0 THEN 1 ELSE 0 END,
  COUNT(*), COALESCE(SUM(CASE WHEN o.attempt_count > 1 THEN o.attempt_count - 1 ELSE 0 END), 0)
FROM item_users u JOIN batches b ON b.batch_key = u.batch_key
LEFT JOIN outcomes o ON o.batch_key = u.batch_key AND o.item_index = u.item_index
WHERE {{conditions}} GROUP BY 1, 2, 3
"""
# Which users could not be looked up is written nowhere, but how many of a batch: nearly always it
# is all or none, as all are looked up together.
_UNKNOWN: Mapping[Dialect, str] = {
    "sqlite": "COALESCE(json_extract(b.request_json, '$.user_validation[3]'), 0)",
    "postgresql": "COALESCE(CAST(CAST(b.request_json AS json)"
    " -> 'user_validation' ->> 3 AS bigint), 0)",
}


@dataclass(frozen=True, slots=True)
class _Found:
    """An entry without its batch."""

    batch_key: int
    place: int
    recipient: Recipient
    item: OwnItem | None = None
    is_shared: bool = False


class SqlUserItems:
    """Implements ``UserItemStore``."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def entries(
        self,
        user_id: str,
        *,
        tenant_id: str,
        batch: Batch | None,
        after: tuple[int, int] | None,
        limit: int,
    ) -> tuple[Sequence[UserEntry], tuple[int, int] | None]:
        async with self._database.reading() as connection:
            found = []
            for sql, table, number in (
                (_WHOLE_BATCHES, "r", "-1"),
                (ALONE, "i", "i.item_index"),
                (TOGETHER, "u", "u.place"),
            ):
                conditions, values = _conditions(table, user_id, tenant_id, batch)
                if after is not None:
                    conditions += (
                        f" AND {table}.batch_key <= ? AND ({table}.batch_key < ? OR {number} > ?)"
                    )
                    values += (after[0], *after)
                rows = await run(
                    connection, sql.format(conditions=conditions), (*values, limit + 1)
                )
                found += [_found(row, table) for row in rows]
            found.sort(key=lambda each: (-each.batch_key, each.place))
            page = found[:limit]
            batches = await batches_of(connection, [each.batch_key for each in page])
        entries = [
            UserEntry(
                batch=batches[each.batch_key],
                place=each.place,
                recipient=each.recipient,
                item=each.item,
                is_shared=each.is_shared,
            )
            for each in page
        ]
        return entries, (page[-1].batch_key, page[-1].place) if len(found) > limit else None

    async def counts(
        self, user_id: str, *, tenant_id: str, batch: Batch | None
    ) -> tuple[Counts, UserValidation]:
        counted: Counter[str] = Counter()
        found: Counter[str] = Counter()
        async with self._database.reading() as connection:
            for sql, table in ((_COUNT_ALONE, "i"), (_COUNT_TOGETHER, "u")):
                conditions, values = _conditions(table, user_id, tenant_id, batch)
                sql = sql.format(conditions=conditions, unknown=_UNKNOWN[dialect_of(connection)])
                for state, is_invalid, is_unknown, count, retries in await run(
                    connection, sql, values
                ):
                    counted[ItemState(state).lower()] += count
                    counted["total"] += count
                    counted["retries"] += int(retries)
                    kind = "invalid" if is_invalid else "unknown" if is_unknown else "valid"
                    found[kind] += count
        return Counts(**counted), UserValidation(total=counted["total"], **found)


def _conditions(table: str, user_id: str, tenant_id: str, batch: Batch | None) -> tuple[str, Row]:
    """Returns what holds of the rows of a user, in the words of the index of each table."""
    conditions = ["b.state <> 'DELETED'", "b.tenant_id = ?", f"{table}.user_id = ?"]
    values: list[str | int] = [tenant_id, user_id]
    if table != "i":
        conditions.append(f"{table}.tenant_id = ?")
        values.append(tenant_id)
    if batch is not None:
        # As a range, or SQLite would read the whole batch for the order in which that is stored.
        conditions.append(f"{table}.batch_key BETWEEN ? AND ?")
        values += [batch.key, batch.key]
    return " AND ".join(conditions), tuple(values)


def _found(row: Row, table: str) -> _Found:
    batch_key, place, user_id, *_ = row
    if table == "r":
        recipient = Recipient(user_id=user_id, problem=row[3])
        return _Found(batch_key=batch_key, place=place, recipient=recipient)
    return _Found(
        batch_key=batch_key,
        place=place,
        recipient=Recipient(user_id=user_id),
        item=own_item_from(row),
        is_shared=table == "u",
    )
