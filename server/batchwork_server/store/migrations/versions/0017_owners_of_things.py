"""Whose a thing of a category is can be asked without reading the category."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0017"
down_revision = "0016"
branch_labels = None
depends_on = None


def upgrade() -> None:
    owner = sa.text("(COALESCE(NULLIF(user_id, ''), item_id))")
    op.create_index("ix_category_items_owner", "category_items", [owner, "tenant_id", "category"])


def downgrade() -> None:
    op.drop_index("ix_category_items_owner", "category_items")
