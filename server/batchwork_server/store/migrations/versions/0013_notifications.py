"""Who is to be told of the end of a batch."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None

_BIG_KEY = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
_WAITING = "state = 'WAITING'"
_PENDING = "state = 'PENDING'"


def upgrade() -> None:
    op.create_table(
        "notifications",
        sa.Column("notification_key", _BIG_KEY, autoincrement=True, nullable=False),
        sa.Column("batch_key", sa.BigInteger, nullable=False),
        sa.Column("attempt_number", sa.Integer, nullable=False),
        sa.Column("target", sa.Text, nullable=False),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("tenant_id", sa.Text, nullable=False),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("message_id", sa.Text, nullable=False),
        sa.Column("payload_json", sa.Text, server_default=sa.text("''"), nullable=False),
        sa.Column("attempts", sa.BigInteger, server_default=sa.text("0"), nullable=False),
        sa.Column("page", sa.BigInteger, server_default=sa.text("0"), nullable=False),
        sa.Column("sent_after", sa.Text, server_default=sa.text("''"), nullable=False),
        sa.Column("error", sa.Text, server_default=sa.text("''"), nullable=False),
        sa.Column("next_attempt_time", sa.BigInteger),
        sa.Column("create_time", sa.BigInteger, nullable=False),
        sa.Column("update_time", sa.BigInteger, nullable=False),
        sa.Column("end_time", sa.BigInteger),
        sa.PrimaryKeyConstraint("notification_key", name=op.f("pk_notifications")),
        sa.UniqueConstraint(
            *("batch_key", "attempt_number", "target", "kind"),
            name=op.f("uq_notifications_batch_key_attempt_number_target_kind"),
        ),
        sqlite_autoincrement=True,
    )
    op.create_index(
        "ix_notifications_waiting",
        "notifications",
        ["batch_key"],
        sqlite_where=sa.text(_WAITING),
        postgresql_where=sa.text(_WAITING),
    )
    op.create_index(
        "ix_notifications_pending",
        "notifications",
        ["target", "next_attempt_time"],
        sqlite_where=sa.text(_PENDING),
        postgresql_where=sa.text(_PENDING),
    )


def downgrade() -> None:
    op.drop_table("notifications")
