"""The users of items that are for several users together."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "item_users",
        sa.Column("batch_key", sa.BigInteger, autoincrement=False, nullable=False),
        sa.Column("place", sa.BigInteger, autoincrement=False, nullable=False),
        sa.Column("tenant_id", sa.Text, nullable=False),
        sa.Column("user_id", sa.Text, nullable=False),
        sa.Column("item_index", sa.BigInteger, nullable=True),
        sa.Column("skip_reason", sa.Text, server_default=sa.text("''"), nullable=False),
        sa.PrimaryKeyConstraint("batch_key", "place", name=op.f("pk_item_users")),
        sqlite_with_rowid=False,
    )
    op.create_index(
        op.f("ix_item_users_tenant_id_user_id_batch_key"),
        "item_users",
        ["tenant_id", "user_id", "batch_key"],
    )


def downgrade() -> None:
    op.drop_table("item_users")
