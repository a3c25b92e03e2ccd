"""Groups keep what their guests need, and users are active or not once."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0016"
down_revision = "0015"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("group_schedules", sa.Column("reset_time", sa.BigInteger))
    op.add_column(
        "preferences",
        sa.Column("change_sequence", sa.BigInteger, server_default=sa.text("0"), nullable=False),
    )
    op.add_column(
        "preference_groups",
        sa.Column("populate_time", sa.BigInteger, server_default=sa.text("0"), nullable=False),
    )
    op.execute("UPDATE preference_groups SET populate_time = create_time")
    where = sa.text("member_count = 0")
    op.create_index(
        "ix_preference_groups_empty",
        "preference_groups",
        ["populate_time"],
        sqlite_where=where,
        postgresql_where=where,
    )
    op.add_column("user_runs", sa.Column("due_day", sa.BigInteger))
    op.add_column("user_runs", sa.Column("period_day", sa.BigInteger))
    op.create_table(
        "inactive_users",
        sa.Column("tenant_id", sa.Text, nullable=False),
        sa.Column("user_id", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("tenant_id", "user_id", name=op.f("pk_inactive_users")),
        sqlite_with_rowid=False,
    )
    op.execute(
        "INSERT INTO inactive_users (tenant_id, user_id)"
        " SELECT DISTINCT tenant_id, user_id FROM preferences WHERE NOT active"
    )


def downgrade() -> None:
    op.drop_table("inactive_users")
    op.drop_column("user_runs", "period_day")
    op.drop_column("user_runs", "due_day")
    op.drop_index("ix_preference_groups_empty", "preference_groups")
    op.drop_column("preference_groups", "populate_time")
    op.drop_column("preferences", "change_sequence")
    op.drop_column("group_schedules", "reset_time")
