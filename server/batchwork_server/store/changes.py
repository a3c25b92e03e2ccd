"""Changes of the state of batches, from the callers' and the engine's side."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from batchwork_server.domain.batch import Batch, BatchState, StateReason
from batchwork_server.domain.filters import RetryFilter
from batchwork_server.store import closing as closing_rows
from batchwork_server.store import reopening, transitions
from batchwork_server.store.database import Database
from batchwork_server.store.rows import BATCH_COLUMNS, batch_from
from batchwork_server.store.statements import dialect_of, run
from batchwork_server.store.store import Transaction
from batchwork_server.store.times import from_micros, to_micros


class SqlChanges:
    """Implements ``ChangeStore``."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def lock(self, tx: Transaction, batch_id: str, *, tenant_id: str) -> Batch | None:
        on_postgresql = dialect_of(tx.connection) == "postgresql"
        rows = await run(
            tx.connection,
            f"SELECT {BATCH_COLUMNS} FROM batches WHERE batch_id = ? AND tenant_id = ?"
            + (" FOR UPDATE" if on_postgresql else ""),
            (batch_id, tenant_id),
        )
        return batch_from(rows[0]) if rows else None

    async def open_runs(self, tx: Transaction, job_id: str, *, tenant_id: str) -> Sequence[Batch]:
        rows = await run(
            tx.connection,
            f"SELECT {BATCH_COLUMNS} FROM batches WHERE tenant_id = ? AND job_id = ?"
            " AND end_time IS NULL AND job_id <> '' AND state <> 'DELETED' ORDER BY batch_key",
            (tenant_id, job_id),
        )
        return [batch_from(row) for row in rows]

    async def pause(
        self,
        tx: Transaction,
        batch_key: int,
        *,
        reason: StateReason,
        message: str,
        resume_time: datetime | None,
        now: datetime,
    ) -> Batch | None:
        return await transitions.pause(
            tx.connection,
            batch_key,
            reason=reason,
            message=message,
            resume_time=resume_time,
            now=now,
        )

    async def stay_paused(
        self,
        tx: Transaction,
        batch_key: int,
        *,
        reason: StateReason,
        message: str,
        now: datetime,
    ) -> Batch | None:
        return await transitions.stay_paused(
            tx.connection, batch_key, reason=reason, message=message, now=now
        )

    async def resume(
        self, tx: Transaction, batch_key: int, *, now: datetime, only_if_due: bool = False
    ) -> Batch | None:
        return await transitions.resume(tx.connection, batch_key, now=now, only_if_due=only_if_due)

    async def close(
        self,
        tx: Transaction,
        batch_key: int,
        *,
        closing: BatchState,
        reason: StateReason,
        message: str,
        stop_in_flight: bool,
        now: datetime,
        only_if_due: bool = False,
    ) -> Batch | None:
        return await transitions.close(
            tx.connection,
            batch_key,
            closing=closing,
            reason=reason,
            message=message,
            stop_in_flight=stop_in_flight,
            now=now,
            only_if_due=only_if_due,
        )

    async def stop_in_flight(
        self, tx: Transaction, batch_key: int, *, now: datetime
    ) -> Batch | None:
        return await transitions.stop_in_flight(tx.connection, batch_key, now=now)

    async def seal(self, tx: Transaction, batch: Batch, *, now: datetime) -> Batch | None:
        return await transitions.seal(tx.connection, batch, now=now)

    async def reopen(
        self, tx: Transaction, batch: Batch, matching: RetryFilter, *, now: datetime
    ) -> tuple[Batch | None, int]:
        return await reopening.reopen(tx.connection, batch, matching, now=now)

    async def close_some(self, *, now: datetime) -> Batch | None:
        async with self._database.transaction() as tx:
            return await closing_rows.close_some(tx.connection, now=now)

    async def due(self, *, now: datetime, limit: int) -> Sequence[Batch]:
        moment = to_micros(now)
        async with self._database.reading() as connection:
            rows = await run(
                connection,
                f"SELECT {BATCH_COLUMNS} FROM batches WHERE resume_time <= ?"
                f" UNION SELECT {BATCH_COLUMNS} FROM batches WHERE expire_time <= ? LIMIT ?",
                (moment, moment, limit),
            )
        return [batch_from(row) for row in rows]

    async def next_due_time(self) -> datetime | None:
        async with self._database.reading() as connection:
            rows = await run(
                connection,
                "SELECT MIN(resume_time) FROM batches WHERE resume_time IS NOT NULL"
                " UNION ALL SELECT MIN(expire_time) FROM batches WHERE expire_time IS NOT NULL",
            )
        times = [time for (time,) in rows if time is not None]
        return from_micros(min(times)) if times else None
