"""Who gets a reference to the results of a batch."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "batch_references",
        sa.Column("batch_key", sa.BigInteger, autoincrement=False, nullable=False),
        sa.Column("user_id", sa.Text, nullable=False),
        sa.Column("tenant_id", sa.Text, nullable=False),
        sa.Column("problem", sa.Text, server_default=sa.text("''"), nullable=False),
        sa.PrimaryKeyConstraint("batch_key", "user_id", name=op.f("pk_batch_references")),
        sqlite_with_rowid=False,
    )
    op.create_index(
        op.f("ix_batch_references_tenant_id_user_id_batch_key"),
        "batch_references",
        ["tenant_id", "user_id", "batch_key"],
    )


def downgrade() -> None:
    op.drop_table("batch_references")
