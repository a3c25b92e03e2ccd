"""When jobs run next, and what was decided about each of their due times."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    # Jobs that are there get theirs when a server starts: it knows the zone of those without one.
    for name in ("next_due_time", "next_start_time"):
        op.add_column("jobs", sa.Column(name, sa.BigInteger))
    op.add_column("jobs", sa.Column("pause_time", sa.BigInteger))
    op.add_column(
        "jobs", sa.Column("pause_note", sa.Text, server_default=sa.text("''"), nullable=False)
    )
    _partial_index(
        "ix_jobs_next_start_time", "jobs", ["next_start_time"], where="next_start_time IS NOT NULL"
    )
    _partial_index(
        "ix_batches_open_runs",
        "batches",
        ["tenant_id", "job_id"],
        where="end_time IS NULL AND job_id <> ''",
    )
    op.create_table(
        "occurrences",
        sa.Column("tenant_id", sa.Text, nullable=False),
        sa.Column("job_id", sa.Text, nullable=False),
        sa.Column("due_time", sa.BigInteger, autoincrement=False, nullable=False),
        sa.Column("decision", sa.Text, nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("message", sa.Text, nullable=False),
        sa.Column("batch_id", sa.Text, nullable=False),
        sa.Column("decide_time", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("tenant_id", "job_id", "due_time", name=op.f("pk_occurrences")),
        sqlite_with_rowid=False,
    )
    op.create_index("ix_occurrences_decide_time", "occurrences", ["decide_time"])


def _partial_index(name: str, table: str, columns: list[str], *, where: str) -> None:
    op.create_index(
        name, table, columns, sqlite_where=sa.text(where), postgresql_where=sa.text(where)
    )
