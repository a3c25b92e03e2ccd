"""Groups of users who wish the same schedule, the changes of wishes, and tenants' defaults."""

from __future__ import annotations

import json

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

_BigKey = sa.BigInteger().with_variant(sa.Integer, "sqlite")


def upgrade() -> None:
    op.add_column("preferences", sa.Column("group_key", sa.BigInteger))
    op.add_column(
        "preferences", sa.Column("active", sa.Boolean, server_default=sa.true(), nullable=False)
    )
    _create_groups()
    _create_changes()
    _create_defaults()
    _group_what_is_there()
    where = sa.text("group_key IS NOT NULL")
    op.create_index(
        "ix_preferences_group_key_user_id",
        "preferences",
        ["group_key", "user_id"],
        sqlite_where=where,
        postgresql_where=where,
    )


def _create_groups() -> None:
    op.create_table(
        "preference_groups",
        sa.Column("group_key", _BigKey, autoincrement=True, nullable=False),
        sa.Column("tenant_id", sa.Text, nullable=False),
        sa.Column("feature_type", sa.Text, nullable=False),
        sa.Column("schedule_json", sa.Text, server_default=sa.text("''"), nullable=False),
        sa.Column("member_count", sa.BigInteger, server_default=sa.text("0"), nullable=False),
        sa.Column("create_time", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("group_key", name=op.f("pk_preference_groups")),
        sa.UniqueConstraint(
            "tenant_id",
            "feature_type",
            "schedule_json",
            name=op.f("uq_preference_groups_tenant_id_feature_type_schedule_json"),
        ),
        sqlite_autoincrement=True,
    )


def _create_changes() -> None:
    op.create_table(
        "preference_feeds",
        sa.Column("tenant_id", sa.Text, nullable=False),
        sa.Column("sequence", sa.BigInteger, server_default=sa.text("0"), nullable=False),
        sa.Column("change_time", sa.BigInteger, server_default=sa.text("0"), nullable=False),
        sa.PrimaryKeyConstraint("tenant_id", name=op.f("pk_preference_feeds")),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "preference_changes",
        sa.Column("tenant_id", sa.Text, nullable=False),
        sa.Column("sequence", sa.BigInteger, autoincrement=False, nullable=False),
        sa.Column("change_time", sa.BigInteger, nullable=False),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("feature_type", sa.Text, nullable=False),
        sa.Column("user_id", sa.Text, server_default=sa.text("''"), nullable=False),
        sa.Column("revision", sa.Integer, nullable=False),
        sa.Column("enabled", sa.Boolean, nullable=False),
        sa.Column("group_left", sa.BigInteger),
        sa.Column("group_joined", sa.BigInteger),
        sa.PrimaryKeyConstraint("tenant_id", "sequence", name=op.f("pk_preference_changes")),
        sqlite_with_rowid=False,
    )
    op.create_index("ix_preference_changes_change_time", "preference_changes", ["change_time"])


def _create_defaults() -> None:
    op.create_table(
        "preference_defaults",
        sa.Column("tenant_id", sa.Text, nullable=False),
        sa.Column("feature_type", sa.Text, nullable=False),
        sa.Column("enabled", sa.Boolean, nullable=False),
        sa.Column("schedule_json", sa.Text),
        sa.Column("overrides_json", sa.Text, nullable=False),
        sa.Column("revision", sa.Integer, nullable=False),
        sa.Column("create_time", sa.BigInteger, nullable=False),
        sa.Column("update_time", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("tenant_id", "feature_type", name=op.f("pk_preference_defaults")),
        sqlite_with_rowid=False,
    )


def _group_what_is_there() -> None:
    """Groups the preferences that are stored; each schedule stands there in one spelling only."""
    connection = op.get_bind()
    if connection.dialect.name == "postgresql":
        # Until the end of the upgrade: a million rows are counted and sorted in memory.
        op.execute("SET LOCAL work_mem = '64MB'")
        op.execute("SET LOCAL maintenance_work_mem = '256MB'")
    op.execute(
        "INSERT INTO preference_groups"
        " (tenant_id, feature_type, schedule_json, member_count, create_time)"
        " SELECT tenant_id, feature_type, COALESCE(schedule_json, ''), COUNT(*), MIN(create_time)"
        " FROM preferences WHERE enabled"
        " GROUP BY tenant_id, feature_type, COALESCE(schedule_json, '')"
    )
    if connection.dialect.name == "postgresql":
        _fill_anew(connection)
    else:
        op.execute(
            "UPDATE preferences SET group_key = (SELECT group_key FROM preference_groups AS found"
            f" WHERE {_IS_GROUP}) WHERE enabled"
        )
    _spell_canonically(connection)


_IS_GROUP = (
    "found.tenant_id = preferences.tenant_id AND found.feature_type = preferences.feature_type"
    " AND found.schedule_json = COALESCE(preferences.schedule_json, '')"
)


def _fill_anew(connection: sa.Connection) -> None:
    """Writes every preference once more, with its group.

    PostgreSQL would write each row that an UPDATE changes to the table and to both indexes; a table
    that is filled anew, and indexed then, takes it a third of the time and leaves no dead rows. The
    table stays the same one, with whatever rights and views somebody has put on it.
    """
    columns = [column["name"] for column in sa.inspect(connection).get_columns("preferences")]
    stored = ", ".join(name for name in columns if name != "group_key")
    of_preference = ", ".join(f"preferences.{name}" for name in columns if name != "group_key")
    op.execute("ANALYZE preference_groups")
    op.execute(
        f"CREATE TEMPORARY TABLE grouped_preferences ON COMMIT DROP AS SELECT {of_preference},"
        " CASE WHEN enabled THEN found.group_key END AS group_key"
        f" FROM preferences LEFT JOIN preference_groups AS found ON {_IS_GROUP}"
    )
    op.drop_constraint("pk_preferences", "preferences")
    op.drop_index("ix_preferences_tenant_id_user_id_feature_type", "preferences")
    op.execute("TRUNCATE preferences")
    op.execute(
        f"INSERT INTO preferences ({stored}, group_key)"
        f" SELECT {stored}, group_key FROM grouped_preferences"
    )
    op.execute("DROP TABLE grouped_preferences")
    op.create_primary_key("pk_preferences", "preferences", ["tenant_id", "feature_type", "user_id"])
    op.create_index(
        "ix_preferences_tenant_id_user_id_feature_type",
        "preferences",
        ["tenant_id", "user_id", "feature_type"],
    )


def _spell_canonically(connection: sa.Connection) -> None:
    groups = sa.table(
        "preference_groups",
        sa.column("group_key", sa.BigInteger),
        sa.column("schedule_json", sa.Text),
    )
    found = connection.execute(sa.select(groups).where(groups.c.schedule_json != "")).all()
    if found:
        connection.execute(
            groups.update()
            .where(groups.c.group_key == sa.bindparam("key"))
            .values(schedule_json=sa.bindparam("text")),
            [{"key": key, "text": _canonical(text)} for key, text in found],
        )


def _canonical(schedule_json: str) -> str:
    return json.dumps(json.loads(schedule_json), sort_keys=True, separators=(",", ":"))
