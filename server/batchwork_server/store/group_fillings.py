"""By what the runs of groups go that are being filled, whatever becomes of the job meanwhile."""

from __future__ import annotations

import json

import sqlalchemy as sa

from batchwork_server.domain.group_schedules import GroupSchedule, RunTerms
from batchwork_server.domain.job import StoredJob, render_job
from batchwork_server.domain.preference import DefaultPreference
from batchwork_server.domain.preference_groups import schedule_of_text, schedule_text
from batchwork_server.store.database import Database
from batchwork_server.store.jobs import job_from
from batchwork_server.store.statements import Column, insert_rows, run
from batchwork_server.store.store import Transaction
from batchwork_server.store.tables import group_fillings
from batchwork_server.store.times import from_micros, to_micros

_COLUMNS = (
    *(Column("tenant_id", "text"), Column("job_id", "text"), Column("group_key")),
    *(Column("batch_id", "text"), Column("revision", "integer"), Column("source", "text")),
    Column("definition_json", "text"),
    *(Column("create_time"), Column("update_time")),
    *(Column("schedule_json", "text"), Column("default_json", "text")),
)
_REPLACE = """
ON CONFLICT (tenant_id, job_id, group_key) DO UPDATE SET
  batch_id = excluded.batch_id, revision = excluded.revision, source = excluded.source,
  definition_json = excluded.definition_json, create_time = excluded.create_time,
  update_time = excluded.update_time, schedule_json = excluded.schedule_json,
  default_json = excluded.default_json
"""
_DROP = "DELETE FROM group_fillings WHERE tenant_id = ? AND job_id = ? AND group_key = ?"
_rows = group_fillings.c


class SqlGroupFillings:
    """Implements ``GroupFillingStore``."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def put(
        self, tx: Transaction, row: GroupSchedule, terms: RunTerms, *, batch_id: str
    ) -> None:
        job = terms.job
        values = (
            *(*row.key, batch_id, job.revision, job.source),
            json.dumps(render_job(job.definition)),
            *(to_micros(job.create_time), to_micros(job.update_time)),
            *(schedule_text(terms.schedule), _default_text(terms.default)),
        )
        await insert_rows(tx.connection, "group_fillings", _COLUMNS, [values], on_conflict=_REPLACE)

    async def get(self, row: GroupSchedule, *, batch_id: str) -> RunTerms | None:
        tenant_id, job_id, group_key = row.key
        query = sa.select(
            group_fillings,
            sa.null().label("pause_time"),  # a run that has begun goes on
            sa.literal("").label("pause_note"),
        ).where(
            _rows.tenant_id == tenant_id,
            _rows.job_id == job_id,
            _rows.group_key == group_key,
            _rows.batch_id == batch_id,
        )
        async with self._database.reading() as connection:
            found = (await connection.execute(query)).first()
        schedule = None if found is None else schedule_of_text(found.schedule_json)
        if found is None or schedule is None:
            return None
        job = job_from(found)
        return RunTerms(
            job=job,
            schedule=schedule,
            default=_default_of(found.default_json, job=job),
        )

    async def drop(self, tx: Transaction, row: GroupSchedule) -> None:
        await run(tx.connection, _DROP, row.key)


def _default_text(default: DefaultPreference | None) -> str:
    if default is None:
        return ""
    return json.dumps(
        {
            "enabled": default.enabled,
            "schedule": schedule_text(default.schedule),
            "template_overrides": default.template_overrides,
            "revision": default.revision,
            "create_time": to_micros(default.create_time),
            "update_time": to_micros(default.update_time),
        }
    )


def _default_of(text: str, *, job: StoredJob) -> DefaultPreference | None:
    if not text:
        return None
    value = json.loads(text)
    return DefaultPreference(
        tenant_id=job.tenant_id,
        feature_type=job.definition.feature_type,
        enabled=value["enabled"],
        schedule=schedule_of_text(value["schedule"]),
        template_overrides=value["template_overrides"],
        revision=value["revision"],
        create_time=from_micros(value["create_time"]),
        update_time=from_micros(value["update_time"]),
    )
