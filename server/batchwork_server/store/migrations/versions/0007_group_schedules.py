"""When the groups of preference-based jobs run, what was decided, and the last run of each user."""

from __future__ import annotations

import json

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    _mark_jobs()
    _create_schedules()
    _create_occurrences()
    _create_user_runs()
    _partial_index(
        "ix_preference_changes_group_left",
        "preference_changes",
        ["group_left", "change_time"],
        where="group_left IS NOT NULL AND enabled",
    )


def _mark_jobs() -> None:
    op.add_column(
        "jobs",
        sa.Column("preference_based", sa.Boolean, server_default=sa.false(), nullable=False),
    )
    jobs = sa.table(
        "jobs",
        sa.column("tenant_id", sa.Text),
        sa.column("job_id", sa.Text),
        sa.column("definition_json", sa.Text),
        sa.column("preference_based", sa.Boolean),
    )
    connection = op.get_bind()
    named = sa.select(jobs).where(jobs.c.definition_json.contains("preference_based"))
    for row in connection.execute(named).all():
        if json.loads(row.definition_json).get("preference_based"):
            connection.execute(
                jobs.update()
                .where(jobs.c.tenant_id == row.tenant_id, jobs.c.job_id == row.job_id)
                .values(preference_based=True)
            )
    _partial_index(
        "ix_jobs_preference_based", "jobs", ["tenant_id", "job_id"], where="preference_based"
    )


def _create_schedules() -> None:
    op.create_table(
        "group_schedules",
        sa.Column("tenant_id", sa.Text, nullable=False),
        sa.Column("job_id", sa.Text, nullable=False),
        sa.Column("group_key", sa.BigInteger, autoincrement=False, nullable=False),
        sa.Column("job_revision", sa.Integer, nullable=False),
        sa.Column("job_create_time", sa.BigInteger, nullable=False),
        sa.Column("default_revision", sa.Integer, nullable=False),
        _text("schedule_json"),
        sa.Column("next_due_time", sa.BigInteger),
        sa.Column("next_start_time", sa.BigInteger),
        sa.Column("last_due_time", sa.BigInteger, nullable=False),
        _text("last_batch_id"),
        _text("queued_as"),
        _text("filling_batch_id"),
        sa.Column("filling_due_time", sa.BigInteger),
        _text("filled_after"),
        sa.PrimaryKeyConstraint(
            "tenant_id", "job_id", "group_key", name=op.f("pk_group_schedules")
        ),
        sqlite_with_rowid=False,
    )
    _partial_index(
        "ix_group_schedules_next_start_time",
        "group_schedules",
        ["next_start_time"],
        where="next_start_time IS NOT NULL",
    )


def _create_occurrences() -> None:
    op.create_table(
        "group_occurrences",
        sa.Column("tenant_id", sa.Text, nullable=False),
        sa.Column("job_id", sa.Text, nullable=False),
        sa.Column("group_key", sa.BigInteger, autoincrement=False, nullable=False),
        sa.Column("due_time", sa.BigInteger, autoincrement=False, nullable=False),
        sa.Column("decision", sa.Text, nullable=False),
        _text("reason"),
        _text("message"),
        _text("batch_id"),
        _text("schedule_json"),
        sa.Column("decide_time", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint(
            "tenant_id", "job_id", "group_key", "due_time", name=op.f("pk_group_occurrences")
        ),
        sqlite_with_rowid=False,
    )
    op.create_index(
        "ix_group_occurrences_tenant_id_job_id_due_time_group_key",
        "group_occurrences",
        ["tenant_id", "job_id", "due_time", "group_key"],
    )
    op.create_index("ix_group_occurrences_decide_time", "group_occurrences", ["decide_time"])


def _create_user_runs() -> None:
    op.create_table(
        "user_runs",
        sa.Column("tenant_id", sa.Text, nullable=False),
        sa.Column("user_id", sa.Text, nullable=False),
        sa.Column("job_id", sa.Text, nullable=False),
        sa.Column("due_time", sa.BigInteger),
        sa.Column("period_start", sa.BigInteger),
        _count("group_key"),
        _text("batch_id"),
        _text("item_id"),
        sa.Column("look_due_time", sa.BigInteger, nullable=False),
        _count("look_group_key"),
        _text("look_batch_id"),
        _text("look_reason"),
        sa.PrimaryKeyConstraint("tenant_id", "user_id", "job_id", name=op.f("pk_user_runs")),
        sqlite_with_rowid=False,
    )


def _text(name: str) -> sa.Column[str]:
    return sa.Column(name, sa.Text, server_default=sa.text("''"), nullable=False)


def _count(name: str) -> sa.Column[int]:
    return sa.Column(name, sa.BigInteger, server_default=sa.text("0"), nullable=False)


def _partial_index(name: str, table: str, columns: list[str], *, where: str) -> None:
    op.create_index(
        name, table, columns, sqlite_where=sa.text(where), postgresql_where=sa.text(where)
    )
