"""Pauses, timeouts, drafts and further attempts of batches; events in one order for all batches."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

_BIG_KEY = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    _extend_batches()
    op.add_column("outcomes", sa.Column("attempts_before", sa.Integer))
    op.add_column("chunks", sa.Column("suspect_index", sa.BigInteger))
    _partial_index("ix_chunks_closing", "chunks", "batch_key", where="state = 'CLOSING'")
    _close_what_is_being_cancelled()
    _renumber_events()
    if op.get_bind().dialect.name == "postgresql":
        _keep_the_planner_from_guessing()


def _extend_batches() -> None:
    for name in ("state_reason", "state_message", "closing"):
        op.add_column(
            "batches", sa.Column(name, sa.Text, server_default=sa.text("''"), nullable=False)
        )
    op.add_column(
        "batches",
        sa.Column("stop_in_flight", sa.Boolean, server_default=sa.false(), nullable=False),
    )
    op.add_column("batches", sa.Column("resume_time", sa.BigInteger))
    op.add_column("batches", sa.Column("expire_time", sa.BigInteger))
    op.add_column(
        "batches",
        sa.Column("attempt_number", sa.Integer, server_default=sa.text("1"), nullable=False),
    )
    for name in (
        "upload_offset",
        "provider_pauses",
        "paused_at_done",
        "failed_before",
        "tried_before",
    ):
        op.add_column(
            "batches", sa.Column(name, sa.BigInteger, server_default=sa.text("0"), nullable=False)
        )
    for name in ("end_time", "resume_time", "expire_time"):
        _partial_index(f"ix_batches_{name}", "batches", name, where=f"{name} IS NOT NULL")
    _partial_index("ix_batches_deleted", "batches", "batch_key", where="state = 'DELETED'")


def _partial_index(name: str, table: str, column: str, *, where: str) -> None:
    op.create_index(
        name, table, [column], sqlite_where=sa.text(where), postgresql_where=sa.text(where)
    )


def _close_what_is_being_cancelled() -> None:
    """Before, workers counted what was left of a cancelled batch; now its chunks say it."""
    op.execute("UPDATE batches SET closing = 'CANCELLED' WHERE state = 'CANCELLING'")
    op.execute(
        "UPDATE chunks SET state = 'CLOSING' WHERE state = 'OPEN'"
        " AND batch_key IN (SELECT batch_key FROM batches WHERE state = 'CANCELLING')"
    )


def _renumber_events() -> None:
    on_postgresql = op.get_bind().dialect.name == "postgresql"
    number = "((pg_current_xact_id())::text)::bigint" if on_postgresql else "0"
    op.execute("CREATE TABLE events_before AS SELECT * FROM events")
    op.drop_table("events")
    op.create_table(
        "events",
        sa.Column("position", _BIG_KEY, autoincrement=True, nullable=False),
        sa.Column(
            "transaction_number", sa.BigInteger, server_default=sa.text(number), nullable=False
        ),
        sa.Column("batch_key", sa.BigInteger, nullable=False),
        sa.Column("sequence", sa.BigInteger, nullable=False),
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
        sa.PrimaryKeyConstraint("position", name=op.f("pk_events")),
        sa.UniqueConstraint("batch_key", "sequence", name=op.f("uq_events_batch_key_sequence")),
        sqlite_autoincrement=True,
    )
    op.create_index(
        "ix_events_transaction_number_position", "events", ["transaction_number", "position"]
    )
    columns = "batch_key, sequence, kind, event_type, event_time, payload_json"
    op.execute(
        f"INSERT INTO events ({columns}) SELECT {columns} FROM events_before"
        " ORDER BY event_time, batch_key, sequence"
    )
    op.drop_table("events_before")


def _keep_the_planner_from_guessing() -> None:
    """Makes PostgreSQL plan for a batch of average size, whichever batch is asked for.

    Its statistics are from before the newest batch, so it takes that for empty, and then reads all
    of its rows for each item. Without statistics of the column it divides the rows of a table by
    200. A change of type, even to the same, drops the statistics that there are.
    """
    for table in ("items", "outcomes", "attempts", "chunks", "events"):
        op.execute(
            f"ALTER TABLE {table} ALTER COLUMN batch_key SET STATISTICS 0,"
            " ALTER COLUMN batch_key TYPE bigint"
        )
