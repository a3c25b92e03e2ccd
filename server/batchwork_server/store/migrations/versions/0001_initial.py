"""The first schema."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

_BIG_KEY = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    _create_batches()
    _create_batch_labels()
    _create_items()
    _create_outcomes()
    _create_attempts()
    _create_chunks()
    _create_events()
    _create_requests()
    _create_jobs()
    _create_preferences()
    _create_system_users()
    _create_category_items()


def _create_batches() -> None:
    op.create_table(
        "batches",
        sa.Column("batch_key", _BIG_KEY, autoincrement=True, nullable=False),
        sa.Column("tenant_id", sa.Text, nullable=False),
        sa.Column("batch_id", sa.Text, nullable=False),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("total", sa.BigInteger, server_default=sa.text("0"), nullable=False),
        sa.Column("pending", sa.BigInteger, server_default=sa.text("0"), nullable=False),
        sa.Column("running", sa.BigInteger, server_default=sa.text("0"), nullable=False),
        sa.Column("succeeded", sa.BigInteger, server_default=sa.text("0"), nullable=False),
        sa.Column("failed", sa.BigInteger, server_default=sa.text("0"), nullable=False),
        sa.Column("skipped", sa.BigInteger, server_default=sa.text("0"), nullable=False),
        sa.Column("cancelled", sa.BigInteger, server_default=sa.text("0"), nullable=False),
        sa.Column("expired", sa.BigInteger, server_default=sa.text("0"), nullable=False),
        sa.Column("retries", sa.BigInteger, server_default=sa.text("0"), nullable=False),
        sa.Column("open_chunks", sa.BigInteger, server_default=sa.text("0"), nullable=False),
        sa.Column("event_sequence", sa.BigInteger, server_default=sa.text("0"), nullable=False),
        sa.Column("source", sa.Text, nullable=False),
        sa.Column("operation", sa.Text, nullable=False),
        sa.Column("template_id", sa.Text, nullable=False),
        sa.Column("job_id", sa.Text, nullable=False),
        sa.Column("feature_type", sa.Text, nullable=False),
        sa.Column("request_json", sa.Text, nullable=False),
        sa.Column("create_time", sa.BigInteger, nullable=False),
        sa.Column("update_time", sa.BigInteger, nullable=False),
        sa.Column("start_time", sa.BigInteger),
        sa.Column("end_time", sa.BigInteger),
        sa.PrimaryKeyConstraint("batch_key", name=op.f("pk_batches")),
        sa.UniqueConstraint("tenant_id", "batch_id", name=op.f("uq_batches_tenant_id_batch_id")),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_batches_tenant_id_batch_key", "batches", ["tenant_id", "batch_key"])
    op.create_index(
        "ix_batches_tenant_id_job_id_batch_key", "batches", ["tenant_id", "job_id", "batch_key"]
    )


def _create_batch_labels() -> None:
    op.create_table(
        "batch_labels",
        sa.Column("batch_key", sa.BigInteger, nullable=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("value", sa.Text, nullable=False),
        sa.ForeignKeyConstraint(
            ["batch_key"],
            ["batches.batch_key"],
            name=op.f("fk_batch_labels_batch_key_batches"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("batch_key", "name", name=op.f("pk_batch_labels")),
        sqlite_with_rowid=False,
    )
    op.create_index(
        "ix_batch_labels_name_value_batch_key", "batch_labels", ["name", "value", "batch_key"]
    )


def _create_items() -> None:
    op.create_table(
        "items",
        sa.Column("batch_key", sa.BigInteger, autoincrement=False, nullable=False),
        sa.Column("item_index", sa.BigInteger, autoincrement=False, nullable=False),
        sa.Column("item_id", sa.Text, nullable=False),
        sa.Column("user_id", sa.Text),
        sa.Column("data_json", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("batch_key", "item_index", name=op.f("pk_items")),
        sa.UniqueConstraint("batch_key", "item_id", name=op.f("uq_items_batch_key_item_id")),
        sqlite_with_rowid=False,
    )
    op.create_index(
        "ix_items_user_id_batch_key",
        "items",
        ["user_id", "batch_key"],
        sqlite_where=sa.text("user_id IS NOT NULL"),
        postgresql_where=sa.text("user_id IS NOT NULL"),
    )


def _create_outcomes() -> None:
    op.create_table(
        "outcomes",
        sa.Column("batch_key", sa.BigInteger, autoincrement=False, nullable=False),
        sa.Column("item_index", sa.BigInteger, autoincrement=False, nullable=False),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("attempt_count", sa.Integer, nullable=False),
        sa.Column("result_json", sa.Text),
        sa.Column("error_reason", sa.Text),
        sa.Column("error_message", sa.Text),
        sa.Column("error_retryable", sa.Boolean),
        sa.Column("skip_reason", sa.Text),
        sa.Column("next_attempt_time", sa.BigInteger),
        sa.Column("start_time", sa.BigInteger),
        sa.Column("end_time", sa.BigInteger),
        sa.Column("duration", sa.BigInteger),
        sa.Column("quality_score", sa.Float),
        sa.PrimaryKeyConstraint("batch_key", "item_index", name=op.f("pk_outcomes")),
        sqlite_with_rowid=False,
    )
    op.create_index(
        "ix_outcomes_batch_key_state_item_index",
        "outcomes",
        ["batch_key", "state", "item_index"],
        sqlite_where=sa.text("state <> 'SUCCEEDED'"),
        postgresql_where=sa.text("state <> 'SUCCEEDED'"),
    )


def _create_attempts() -> None:
    op.create_table(
        "attempts",
        sa.Column("batch_key", sa.BigInteger, autoincrement=False, nullable=False),
        sa.Column("item_index", sa.BigInteger, autoincrement=False, nullable=False),
        sa.Column("number", sa.Integer, autoincrement=False, nullable=False),
        sa.Column("start_time", sa.BigInteger, nullable=False),
        sa.Column("duration", sa.BigInteger, nullable=False),
        sa.Column("error_reason", sa.Text, nullable=False),
        sa.Column("error_message", sa.Text, nullable=False),
        sa.Column("error_retryable", sa.Boolean, nullable=False),
        sa.PrimaryKeyConstraint("batch_key", "item_index", "number", name=op.f("pk_attempts")),
        sqlite_with_rowid=False,
    )


def _create_chunks() -> None:
    op.create_table(
        "chunks",
        sa.Column("chunk_key", _BIG_KEY, autoincrement=True, nullable=False),
        sa.Column("batch_key", sa.BigInteger, nullable=False),
        sa.Column("first_index", sa.BigInteger, nullable=False),
        sa.Column("item_count", sa.BigInteger, nullable=False),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("due_time", sa.BigInteger, nullable=False),
        sa.Column("dispatch_time", sa.BigInteger, nullable=False),
        sa.Column("epoch", sa.Integer, server_default=sa.text("0"), nullable=False),
        sa.Column("owner", sa.Text),
        sa.Column("claim_time", sa.BigInteger),
        sa.Column("lease_time", sa.BigInteger),
        sa.Column("taken", sa.BigInteger, server_default=sa.text("0"), nullable=False),
        sa.Column("crashes", sa.BigInteger, server_default=sa.text("0"), nullable=False),
        sa.ForeignKeyConstraint(
            ["batch_key"],
            ["batches.batch_key"],
            name=op.f("fk_chunks_batch_key_batches"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("chunk_key", name=op.f("pk_chunks")),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_chunks_batch_key_first_index", "chunks", ["batch_key", "first_index"])
    op.create_index(
        "ix_chunks_dispatch_time",
        "chunks",
        ["dispatch_time"],
        sqlite_where=sa.text("state = 'OPEN'"),
        postgresql_where=sa.text("state = 'OPEN'"),
    )
    op.create_index(
        "ix_chunks_lease_time",
        "chunks",
        ["lease_time"],
        sqlite_where=sa.text("state = 'CLAIMED'"),
        postgresql_where=sa.text("state = 'CLAIMED'"),
    )


def _create_events() -> None:
    op.create_table(
        "events",
        sa.Column("batch_key", sa.BigInteger, autoincrement=False, nullable=False),
        sa.Column("sequence", sa.BigInteger, autoincrement=False, nullable=False),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("event_type", sa.Text, nullable=False),
        sa.Column("event_time", sa.BigInteger, nullable=False),
        sa.Column("payload_json", sa.Text, nullable=False),
        sa.ForeignKeyConstraint(
            ["batch_key"],
            ["batches.batch_key"],
            name=op.f("fk_events_batch_key_batches"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("batch_key", "sequence", name=op.f("pk_events")),
        sqlite_with_rowid=False,
    )


def _create_requests() -> None:
    op.create_table(
        "requests",
        sa.Column("tenant_id", sa.Text, nullable=False),
        sa.Column("method", sa.Text, nullable=False),
        sa.Column("request_id", sa.Text, nullable=False),
        sa.Column("request_hash", sa.Text, nullable=False),
        sa.Column("answer_json", sa.Text, nullable=False),
        sa.Column("create_time", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("tenant_id", "method", "request_id", name=op.f("pk_requests")),
        sqlite_with_rowid=False,
    )
    op.create_index("ix_requests_create_time", "requests", ["create_time"])


def _create_jobs() -> None:
    op.create_table(
        "jobs",
        sa.Column("tenant_id", sa.Text, nullable=False),
        sa.Column("job_id", sa.Text, nullable=False),
        sa.Column("revision", sa.Integer, nullable=False),
        sa.Column("shape", sa.Text, nullable=False),
        sa.Column("feature_type", sa.Text, nullable=False),
        sa.Column("purpose_id", sa.Text, nullable=False),
        sa.Column("source", sa.Text, nullable=False),
        sa.Column("definition_json", sa.Text, nullable=False),
        sa.Column("create_time", sa.BigInteger, nullable=False),
        sa.Column("update_time", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("tenant_id", "job_id", name=op.f("pk_jobs")),
        sqlite_with_rowid=False,
    )


def _create_preferences() -> None:
    op.create_table(
        "preferences",
        sa.Column("tenant_id", sa.Text, nullable=False),
        sa.Column("feature_type", sa.Text, nullable=False),
        sa.Column("user_id", sa.Text, nullable=False),
        sa.Column("enabled", sa.Boolean, nullable=False),
        sa.Column("schedule_json", sa.Text),
        sa.Column("overrides_json", sa.Text, nullable=False),
        sa.Column("revision", sa.Integer, nullable=False),
        sa.Column("create_time", sa.BigInteger, nullable=False),
        sa.Column("update_time", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint(
            "tenant_id", "feature_type", "user_id", name=op.f("pk_preferences")
        ),
        sqlite_with_rowid=False,
    )
    op.create_index(
        "ix_preferences_tenant_id_user_id_feature_type",
        "preferences",
        ["tenant_id", "user_id", "feature_type"],
    )


def _create_system_users() -> None:
    op.create_table(
        "system_users",
        sa.Column("tenant_id", sa.Text, nullable=False),
        sa.Column("user_id", sa.Text, nullable=False),
        sa.Column("active", sa.Boolean, nullable=False),
        sa.Column("create_time", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("tenant_id", "user_id", name=op.f("pk_system_users")),
        sqlite_with_rowid=False,
    )
    op.create_index("ix_system_users_user_id", "system_users", ["user_id"])


def _create_category_items() -> None:
    op.create_table(
        "category_items",
        sa.Column("position", _BIG_KEY, autoincrement=True, nullable=False),
        sa.Column("tenant_id", sa.Text, nullable=False),
        sa.Column("category", sa.Text, nullable=False),
        sa.Column("item_id", sa.Text, nullable=False),
        sa.Column("user_id", sa.Text),
        sa.Column("data_json", sa.Text, nullable=False),
        sa.Column("create_time", sa.BigInteger, nullable=False),
        sa.Column("active_time", sa.BigInteger),
        sa.PrimaryKeyConstraint("position", name=op.f("pk_category_items")),
        sa.UniqueConstraint(
            "tenant_id",
            "category",
            "item_id",
            name=op.f("uq_category_items_tenant_id_category_item_id"),
        ),
        sqlite_autoincrement=True,
    )
    op.create_index(
        "ix_category_items_tenant_id_category_position",
        "category_items",
        ["tenant_id", "category", "position"],
    )
