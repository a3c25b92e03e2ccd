"""Batches that begin when their users are validated."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None


def upgrade() -> None:
    where = sa.text("state_reason = 'USERS_UNAVAILABLE'")
    op.create_index(
        "ix_batches_deferred",
        "batches",
        ["batch_key"],
        sqlite_where=where,
        postgresql_where=where,
    )


def downgrade() -> None:
    op.drop_index("ix_batches_deferred", "batches")
