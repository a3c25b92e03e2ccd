"""Which batches give references: to users whom their job names, or to each user their own."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column(
        "batches",
        sa.Column("distribution", sa.Text, server_default=sa.text("''"), nullable=False),
    )
    op.execute(
        "UPDATE batches SET distribution = 'NAMED' WHERE batch_key IN"
        " (SELECT batch_key FROM batch_references)"
    )
    is_any = sa.text("distribution <> ''")
    op.create_index(
        "ix_batches_distribution",
        "batches",
        ["tenant_id", "batch_key"],
        sqlite_where=is_any,
        postgresql_where=is_any,
    )


def downgrade() -> None:
    op.drop_index("ix_batches_distribution", "batches")
    op.drop_column("batches", "distribution")
