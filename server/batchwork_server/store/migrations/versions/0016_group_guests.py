"""Groups keep what their guests need."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0016"
down_revision = "0014"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("group_schedules", sa.Column("reset_time", sa.BigInteger))


def downgrade() -> None:
    op.drop_column("group_schedules", "reset_time")
