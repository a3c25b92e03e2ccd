"""The outbox: who is to be told of batches, and who was."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

import orjson
from sqlalchemy.ext.asyncio import AsyncConnection

from batchwork_server.domain.batch import Batch
from batchwork_server.domain.filters import NotificationFilter
from batchwork_server.domain.ids import new_message_id
from batchwork_server.domain.notification import (
    Notification,
    NotificationKind,
    NotificationState,
    NotificationTarget,
    payload_of,
)
from batchwork_server.store.database import Database
from batchwork_server.store.rows import BATCH_COLUMNS, batch_from
from batchwork_server.store.statements import Column, Row, dialect_of, insert_rows, run
from batchwork_server.store.store import Transaction
from batchwork_server.store.times import from_micros, to_micros

_INSERTED = (
    Column("batch_key"),
    Column("attempt_number", "integer"),
    Column("target", "text"),
    Column("kind", "text"),
    Column("tenant_id", "text"),
    Column("state", "text"),
    Column("message_id", "text"),
    Column("create_time"),
    Column("update_time"),
)
_NAMES = (
    *("notification_key", "batch_key", "attempt_number", "target", "kind", "tenant_id", "state"),
    *("message_id", "payload_json", "attempts", "page", "sent_after", "error"),
    *("next_attempt_time", "create_time", "update_time", "end_time"),
)
_COLUMNS = ", ".join(_NAMES)

_ARM = """
UPDATE notifications SET state = 'PENDING', payload_json = ?, next_attempt_time = ?,
  update_time = ?
WHERE batch_key = ? AND attempt_number = ? AND state = 'WAITING'
"""
_OVER = """
SELECT DISTINCT n.batch_key FROM notifications n JOIN batches b ON b.batch_key = n.batch_key
WHERE n.state = 'WAITING' AND b.end_time IS NOT NULL ORDER BY n.batch_key LIMIT ?
"""
_DUE_TARGETS = """
SELECT DISTINCT target FROM notifications WHERE state = 'PENDING' AND next_attempt_time <= ?
"""
# While it is being sent, the time of the next attempt says when that counts as lost.
_TAKE = f"""
UPDATE notifications SET attempts = attempts + 1, next_attempt_time = ?, update_time = ?
WHERE notification_key IN (
  SELECT n.notification_key FROM notifications n
  WHERE n.state = 'PENDING' AND n.target = ? AND n.next_attempt_time <= ? AND NOT EXISTS
    (SELECT 1 FROM batches b WHERE b.batch_key = n.batch_key AND b.state = 'DELETED')
  ORDER BY n.next_attempt_time LIMIT ?{{skip}})
RETURNING {_COLUMNS}
"""
_RECORD = """
UPDATE notifications SET state = ?, error = ?, next_attempt_time = ?, end_time = ?,
  update_time = ?
WHERE notification_key = ? AND state = 'PENDING' AND attempts = ? AND page = ?
RETURNING notification_key
"""
_RECORD_PAGE = """
UPDATE notifications SET page = page + 1, sent_after = ?, attempts = 0, error = '',
  next_attempt_time = ?, update_time = ?
WHERE notification_key = ? AND state = 'PENDING' AND attempts = ? AND page = ?
RETURNING notification_key
"""


class SqlNotifications:
    """Implements ``NotificationStore``."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def add(
        self, tx: Transaction, batch: Batch, targets: Sequence[NotificationTarget], *, now: datetime
    ) -> None:
        told = [(target.name, kind) for target in targets for kind in target.kinds]
        await _insert(tx.connection, batch, told, now=now)

    async def reopen(
        self, tx: Transaction, ended: Batch, reopened: Batch, *, now: datetime
    ) -> None:
        await _arm(tx.connection, ended, now=now)
        told = await run(
            tx.connection,
            "SELECT target, kind FROM notifications WHERE batch_key = ? AND attempt_number = ?",
            (ended.key, ended.attempt_number),
        )
        await _insert(tx.connection, reopened, [(row[0], row[1]) for row in told], now=now)

    async def arm(self, batch_key: int, *, now: datetime) -> None:
        async with self._database.transaction() as tx:
            await _arm_if_over(tx.connection, batch_key, now=now)

    async def arm_some(self, *, now: datetime, limit: int) -> int:
        async with self._database.reading() as connection:
            keys = [key for (key,) in await run(connection, _OVER, (limit,))]
        if keys:
            async with self._database.transaction() as tx:
                for key in keys:
                    await _arm_if_over(tx.connection, key, now=now)
        return len(keys)

    async def due_targets(self, *, now: datetime) -> Sequence[str]:
        async with self._database.reading() as connection:
            rows = await run(connection, _DUE_TARGETS, (to_micros(now),))
        return sorted(target for (target,) in rows)

    async def take(
        self, target: str, *, now: datetime, lease: timedelta, limit: int
    ) -> list[Notification]:
        moment = to_micros(now)
        async with self._database.transaction() as tx:
            on_postgresql = dialect_of(tx.connection) == "postgresql"
            skip = " FOR UPDATE OF n SKIP LOCKED" if on_postgresql else ""
            rows = await run(
                tx.connection,
                _TAKE.format(skip=skip),
                (to_micros(now + lease), moment, target, moment, limit),
            )
        return sorted((_notification_from(row) for row in rows), key=lambda taken: taken.key)

    async def record(
        self,
        taken: Notification,
        *,
        state: NotificationState,
        now: datetime,
        error: str = "",
        next_attempt_time: datetime | None = None,
    ) -> bool:
        moment = to_micros(now)
        over = None if state is NotificationState.PENDING else moment
        return await self._write(
            _RECORD,
            (
                *(state, error, to_micros(next_attempt_time), over, moment),
                *(taken.key, taken.attempts, taken.page),
            ),
        )

    async def record_page(self, taken: Notification, *, sent_after: str, now: datetime) -> bool:
        moment = to_micros(now)
        return await self._write(
            _RECORD_PAGE, (sent_after, moment, moment, taken.key, taken.attempts, taken.page)
        )

    async def list(
        self, matching: NotificationFilter, *, page_size: int, after: int | None
    ) -> tuple[Sequence[Notification], int | None]:
        conditions, parameters = _conditions(matching)
        if after is not None:
            conditions += " AND n.notification_key < ?"
            parameters += (after,)
        columns = ", ".join(f"n.{name}" for name in _NAMES)
        async with self._database.reading() as connection:
            rows = await run(
                connection,
                f"SELECT {columns}, b.batch_id FROM notifications n"
                f" JOIN batches b ON b.batch_key = n.batch_key WHERE {conditions}"
                " ORDER BY n.notification_key DESC LIMIT ?",
                (*parameters, page_size + 1),
            )
        found = [_notification_from(row[:-1], batch_id=row[-1]) for row in rows[:page_size]]
        return found, found[-1].key if len(rows) > page_size else None

    async def _write(self, statement: str, parameters: Row) -> bool:
        async with self._database.transaction() as tx:
            return bool(await run(tx.connection, statement, parameters))


async def _insert(
    connection: AsyncConnection, batch: Batch, told: Sequence[tuple[str, str]], *, now: datetime
) -> None:
    moment = to_micros(now)
    rows: list[Row] = [
        (
            *(batch.key, batch.attempt_number, target, str(kind), batch.tenant_id),
            *(str(NotificationState.WAITING), new_message_id(), moment, moment),
        )
        for target, kind in told
    ]
    await insert_rows(connection, "notifications", _INSERTED, rows)


async def _arm_if_over(connection: AsyncConnection, batch_key: int, *, now: datetime) -> None:
    rows = await run(
        connection,
        f"SELECT {BATCH_COLUMNS} FROM batches WHERE batch_key = ? AND end_time IS NOT NULL",
        (batch_key,),
    )
    if rows:
        await _arm(connection, batch_from(rows[0]), now=now)


async def _arm(connection: AsyncConnection, batch: Batch, *, now: datetime) -> None:
    payload, moment = orjson.dumps(payload_of(batch)).decode(), to_micros(now)
    parameters = (payload, moment, moment, batch.key, batch.attempt_number)
    await run(connection, _ARM, parameters)


def _conditions(matching: NotificationFilter) -> tuple[str, Row]:
    conditions, parameters = ["b.state <> 'DELETED'"], []
    if matching.tenant_id is not None:
        conditions.append("n.tenant_id = ? AND b.tenant_id = ?")
        parameters += [matching.tenant_id, matching.tenant_id]
    if matching.batch_id:
        conditions.append("b.batch_id = ?")
        parameters.append(matching.batch_id)
    if matching.states:
        states = ", ".join(f"'{state}'" for state in sorted(matching.states))
        conditions.append(f"n.state IN ({states})")
    return " AND ".join(conditions), tuple(parameters)


def _notification_from(row: Row, *, batch_id: str = "") -> Notification:
    named: dict[str, Any] = dict(zip(_NAMES, row, strict=True))
    payload = orjson.loads(named["payload_json"] or b"{}")
    return Notification(
        key=named["notification_key"],
        batch_key=named["batch_key"],
        batch_id=batch_id or payload["batch_id"],
        tenant_id=named["tenant_id"],
        attempt_number=named["attempt_number"],
        target=named["target"],
        kind=NotificationKind(named["kind"]),
        state=NotificationState(named["state"]),
        message_id=named["message_id"],
        payload=payload,
        attempts=named["attempts"],
        page=named["page"],
        sent_after=named["sent_after"],
        error=named["error"],
        next_attempt_time=from_micros(named["next_attempt_time"]),
        create_time=from_micros(named["create_time"]),
        update_time=from_micros(named["update_time"]),
        end_time=from_micros(named["end_time"]),
    )
