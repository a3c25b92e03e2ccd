"""Due times that wait for other runs of their job, and those that a backfill names."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    for name in ("queued_as", "backfill_id"):
        op.add_column(
            "occurrences", sa.Column(name, sa.Text, server_default=sa.text("''"), nullable=False)
        )
    op.add_column(
        "occurrences",
        sa.Column("is_parallel", sa.Boolean, server_default=sa.false(), nullable=False),
    )
    _partial_index(
        "ix_occurrences_queued",
        ["tenant_id", "job_id", "is_parallel", "backfill_id", "due_time"],
        where="decision = 'QUEUED'",
    )
    _partial_index(
        "ix_occurrences_backfill", ["tenant_id", "backfill_id"], where="backfill_id <> ''"
    )


def _partial_index(name: str, columns: list[str], *, where: str) -> None:
    op.create_index(
        name, "occurrences", columns, sqlite_where=sa.text(where), postgresql_where=sa.text(where)
    )
