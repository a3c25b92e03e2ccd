"""By what the runs of groups go that are being filled."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "group_fillings",
        sa.Column("tenant_id", sa.Text, nullable=False),
        sa.Column("job_id", sa.Text, nullable=False),
        sa.Column("group_key", sa.BigInteger, autoincrement=False, nullable=False),
        sa.Column("batch_id", sa.Text, nullable=False),
        sa.Column("revision", sa.Integer, nullable=False),
        sa.Column("source", sa.Text, nullable=False),
        sa.Column("definition_json", sa.Text, nullable=False),
        sa.Column("create_time", sa.BigInteger, nullable=False),
        sa.Column("update_time", sa.BigInteger, nullable=False),
        sa.Column("schedule_json", sa.Text, nullable=False),
        sa.Column("default_json", sa.Text, server_default=sa.text("''"), nullable=False),
        sa.PrimaryKeyConstraint("tenant_id", "job_id", "group_key", name=op.f("pk_group_fillings")),
        sqlite_with_rowid=False,
    )


def downgrade() -> None:
    op.drop_table("group_fillings")
