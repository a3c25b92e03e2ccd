"""Every table, every index, and why it exists.

Times are whole microseconds since the epoch, UTC: exact, ordered, and the same on both databases.
JSON is text, stored as it came. Rows of items have no foreign key to their batch: PostgreSQL would
look the batch up for each of them. Every table that a caller can reach carries the tenant, or hangs
on a batch that does.
"""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.schema import CreateIndex
from sqlalchemy.sql.functions import FunctionElement

metadata = sa.MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
        "pk": "pk_%(table_name)s",
    }
)

_BigKey = sa.BigInteger().with_variant(sa.Integer, "sqlite")  # SQLite numbers only INTEGER keys


class _TransactionNumber(FunctionElement[int]):
    """The number of the transaction that writes; SQLite, where one at a time writes, needs none."""

    inherit_cache = True


@compiles(_TransactionNumber, "sqlite")
def _none_on_sqlite(_element: Any, _compiler: Any, **_options: Any) -> str:
    return "0"


@compiles(_TransactionNumber, "postgresql")
def _number_on_postgresql(_element: Any, _compiler: Any, **_options: Any) -> str:
    return "((pg_current_xact_id())::text)::bigint"


def _count(name: str) -> sa.Column[int]:
    return sa.Column(name, sa.BigInteger, nullable=False, server_default=sa.text("0"))


def _text(name: str) -> sa.Column[str]:
    return sa.Column(name, sa.Text, nullable=False, server_default=sa.text("''"))


def _partial_index(name: str, *columns: str, where: str) -> sa.Index:
    return sa.Index(name, *columns, sqlite_where=sa.text(where), info={_CONDITION: where})


_CONDITION = "condition"


@compiles(CreateIndex, "postgresql")
def _with_condition(create: CreateIndex, compiler: Any, **options: Any) -> str:
    """Does what ``postgresql_where`` does, which loads the dialect: 2 MiB also on SQLite."""
    text: str = compiler.visit_create_index(create, **options)
    condition = create.element.info.get(_CONDITION)
    return text if condition is None else f"{text} WHERE {condition}"


def _time(name: str, *, nullable: bool = False) -> sa.Column[int]:
    return sa.Column(name, sa.BigInteger, nullable=nullable)


batches = sa.Table(
    "batches",
    metadata,
    sa.Column("batch_key", _BigKey, primary_key=True, autoincrement=True),
    sa.Column("tenant_id", sa.Text, nullable=False),
    sa.Column("batch_id", sa.Text, nullable=False),
    sa.Column("state", sa.Text, nullable=False),
    _count("total"),
    _count("pending"),
    _count("running"),
    _count("succeeded"),
    _count("failed"),
    _count("skipped"),
    _count("cancelled"),
    _count("expired"),
    _count("retries"),
    _count("open_chunks"),
    _count("event_sequence"),
    sa.Column("source", sa.Text, nullable=False),
    sa.Column("operation", sa.Text, nullable=False),
    sa.Column("template_id", sa.Text, nullable=False),
    sa.Column("job_id", sa.Text, nullable=False),
    sa.Column("feature_type", sa.Text, nullable=False),
    sa.Column("request_json", sa.Text, nullable=False),
    _time("create_time"),
    _time("update_time"),
    _time("start_time", nullable=True),
    _time("end_time", nullable=True),
    _text("state_reason"),
    _text("state_message"),
    _text("closing"),  # of a batch that is CANCELLING: the state in which it is to end
    sa.Column("stop_in_flight", sa.Boolean, nullable=False, server_default=sa.false()),
    _time("resume_time", nullable=True),  # when a paused batch resumes by itself
    _time("expire_time", nullable=True),
    sa.Column("attempt_number", sa.Integer, nullable=False, server_default=sa.text("1")),
    _count("upload_offset"),
    _count("provider_pauses"),  # in a row, without an item done in between
    _count("paused_at_done"),  # the items that were done at the last of them
    _count("failed_before"),  # what the failure policy does not count: before the last resume
    _count("tried_before"),
    # NAMED: users whom the job names get a reference; OWN: each user of the run does, besides.
    _text("distribution"),
    sa.UniqueConstraint("tenant_id", "batch_id"),
    # The history of a tenant, newest first, and page by page.
    sa.Index(None, "tenant_id", "batch_key"),
    # The runs of one job.
    sa.Index(None, "tenant_id", "job_id", "batch_key"),
    # Whether a run of a job still goes on.
    _partial_index(
        "ix_batches_open_runs", "tenant_id", "job_id", where="end_time IS NULL AND job_id <> ''"
    ),
    # What is over, oldest first, for retention.
    _partial_index("ix_batches_end_time", "end_time", where="end_time IS NOT NULL"),
    # What resumes or expires by itself, next first.
    _partial_index("ix_batches_resume_time", "resume_time", where="resume_time IS NOT NULL"),
    _partial_index("ix_batches_expire_time", "expire_time", where="expire_time IS NOT NULL"),
    # What gives references, newest first.
    _partial_index("ix_batches_distribution", "tenant_id", "batch_key", where="distribution <> ''"),
    # What begins when its users are validated.
    _partial_index("ix_batches_deferred", "batch_key", where="state_reason = 'USERS_UNAVAILABLE'"),
    # What was deleted and has rows left.
    _partial_index("ix_batches_deleted", "batch_key", where="state = 'DELETED'"),
    sqlite_autoincrement=True,
)

# Who gets a reference to the results. Whether they have it follows from the state of the batch.
batch_references = sa.Table(
    "batch_references",
    metadata,
    sa.Column("batch_key", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("user_id", sa.Text, primary_key=True),
    sa.Column("tenant_id", sa.Text, nullable=False),
    _text("problem"),  # why nothing can be delivered; empty for most
    # What one user was given, newest first.
    sa.Index(None, "tenant_id", "user_id", "batch_key"),
    sqlite_with_rowid=False,
)

# The references to users that were taken out of the items of a batch before it was stored, numbered
# in the order of the items.
invalid_references = sa.Table(
    "invalid_references",
    metadata,
    sa.Column("batch_key", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("number", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("category", sa.Text, nullable=False),
    sa.Column("item_id", sa.Text, nullable=False),
    sa.Column("field", sa.Text, nullable=False),  # user_ids, member_ids, or user_id
    sa.Column("user_id", sa.Text, nullable=False),
    sa.Column("verdict", sa.Text, nullable=False),
    sqlite_with_rowid=False,
)

# The users of items that are for several users together, in the order of the batch, and those for
# whom such a batch has nothing to do. Items for one user name them in their own row.
item_users = sa.Table(
    "item_users",
    metadata,
    sa.Column("batch_key", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("place", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("tenant_id", sa.Text, nullable=False),
    sa.Column("user_id", sa.Text, nullable=False),
    sa.Column("item_index", sa.BigInteger),  # none for those for whom nothing is to be done
    _text("skip_reason"),  # why; empty when something is
    # The batches of a user, newest first.
    sa.Index(None, "tenant_id", "user_id", "batch_key"),
    sqlite_with_rowid=False,
)

# Who is to be told of a batch: written with it, so that its end, which is on the path of items,
# writes nothing more, and nothing is lost between the end and the telling.
notifications = sa.Table(
    "notifications",
    metadata,
    sa.Column("notification_key", _BigKey, primary_key=True, autoincrement=True),
    sa.Column("batch_key", sa.BigInteger, nullable=False),
    sa.Column("attempt_number", sa.Integer, nullable=False),  # of the batch
    sa.Column("target", sa.Text, nullable=False),
    sa.Column("kind", sa.Text, nullable=False),  # END, DELIVERIES
    sa.Column("tenant_id", sa.Text, nullable=False),
    sa.Column("state", sa.Text, nullable=False),  # WAITING, PENDING, SENT, FAILED, SKIPPED
    sa.Column("message_id", sa.Text, nullable=False),
    _text("payload_json"),  # what is told of the batch; empty while it is not over
    _count("attempts"),
    _count("page"),  # of deliveries: the one that is under way
    _text("sent_after"),  # the user with whom the page before ended
    _text("error"),
    _time("next_attempt_time", nullable=True),  # while it is being sent: when that counts as lost
    _time("create_time"),
    _time("update_time"),
    _time("end_time", nullable=True),
    # Those of a batch, and each once.
    sa.UniqueConstraint("batch_key", "attempt_number", "target", "kind"),
    # Whose batch may be over.
    _partial_index("ix_notifications_waiting", "batch_key", where="state = 'WAITING'"),
    # What is to be sent to a target, and to which ones at all.
    _partial_index(
        "ix_notifications_pending", "target", "next_attempt_time", where="state = 'PENDING'"
    ),
    sqlite_autoincrement=True,
)

batch_labels = sa.Table(
    "batch_labels",
    metadata,
    sa.Column("batch_key", sa.BigInteger, primary_key=True),
    sa.Column("name", sa.Text, primary_key=True),
    sa.Column("value", sa.Text, nullable=False),
    sa.ForeignKeyConstraint(["batch_key"], ["batches.batch_key"], ondelete="CASCADE"),
    # Batches by label.
    sa.Index(None, "name", "value", "batch_key"),
    sqlite_with_rowid=False,
)

# The input: written once, in the transaction that creates the batch, and never updated. The key
# follows the order of insertion, so that writing and reading go straight through the table.
items = sa.Table(
    "items",
    metadata,
    sa.Column("batch_key", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("item_index", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("item_id", sa.Text, nullable=False),
    sa.Column("user_id", sa.Text),
    sa.Column("data_json", sa.Text, nullable=False),
    # One item by its id, and no id twice in a batch.
    sa.UniqueConstraint("batch_key", "item_id"),
    # The batches of a user; items without a user cost nothing.
    _partial_index(
        "ix_items_user_id_batch_key", "user_id", "batch_key", where="user_id IS NOT NULL"
    ),
    sqlite_with_rowid=False,
)

# What became of each item: one row at most, so the key itself forbids a second outcome. An item
# without a row waits for its first attempt; PENDING with a time waits for a retry.
outcomes = sa.Table(
    "outcomes",
    metadata,
    sa.Column("batch_key", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("item_index", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("state", sa.Text, nullable=False),
    sa.Column("attempt_count", sa.Integer, nullable=False),
    sa.Column("result_json", sa.Text),
    sa.Column("error_reason", sa.Text),
    sa.Column("error_message", sa.Text),
    sa.Column("error_retryable", sa.Boolean),
    sa.Column("skip_reason", sa.Text),
    _time("next_attempt_time", nullable=True),
    _time("start_time", nullable=True),
    _time("end_time", nullable=True),
    sa.Column("duration", sa.BigInteger),  # microseconds
    sa.Column("quality_score", sa.Float),
    sa.Column("attempts_before", sa.Integer),  # the last RetryBatch; they count for no limit
    # The few that did not go well, without a cost for the many that did.
    _partial_index(
        "ix_outcomes_batch_key_state_item_index",
        "batch_key",
        "state",
        "item_index",
        where="state <> 'SUCCEEDED'",
    ),
    sqlite_with_rowid=False,
)

# The attempts that failed before the last one. The last one stands in the outcome.
attempts = sa.Table(
    "attempts",
    metadata,
    sa.Column("batch_key", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("item_index", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("number", sa.Integer, primary_key=True, autoincrement=False),
    _time("start_time"),
    sa.Column("duration", sa.BigInteger, nullable=False),  # microseconds
    sa.Column("error_reason", sa.Text, nullable=False),
    sa.Column("error_message", sa.Text, nullable=False),
    sa.Column("error_retryable", sa.Boolean, nullable=False),
    sqlite_with_rowid=False,
)

# The ledger of dispatch: which range of items is open, taken (and by whom), or done.
chunks = sa.Table(
    "chunks",
    metadata,
    sa.Column("chunk_key", _BigKey, primary_key=True, autoincrement=True),
    sa.Column("batch_key", sa.BigInteger, nullable=False),
    sa.Column("first_index", sa.BigInteger, nullable=False),
    sa.Column("item_count", sa.BigInteger, nullable=False),
    sa.Column("state", sa.Text, nullable=False),  # OPEN, HELD, CLAIMED, CLOSING, DONE
    _time("due_time"),  # not dispatched earlier
    _time("dispatch_time"),  # the order of dispatch, smallest first
    sa.Column("epoch", sa.Integer, nullable=False, server_default=sa.text("0")),
    sa.Column("owner", sa.Text),
    _time("claim_time", nullable=True),
    _time("lease_time", nullable=True),
    _count("taken"),  # items that the last claim took and that are not recorded yet
    _count("crashes"),  # claims that ended by neither record nor release
    sa.Column("suspect_index", sa.BigInteger),  # the item in hand of a chunk that crashed often
    sa.ForeignKeyConstraint(["batch_key"], ["batches.batch_key"], ondelete="CASCADE"),
    # What is next; done chunks cost nothing.
    _partial_index("ix_chunks_dispatch_time", "dispatch_time", where="state = 'OPEN'"),
    # Whose lease is over.
    _partial_index("ix_chunks_lease_time", "lease_time", where="state = 'CLAIMED'"),
    # What is left of batches that are being cancelled.
    _partial_index("ix_chunks_closing", "batch_key", where="state = 'CLOSING'"),
    # The chunk of an item.
    sa.Index(None, "batch_key", "first_index"),
    sqlite_autoincrement=True,
)

# How long an attempt at an item of a template takes: a mean over the last many.
item_durations = sa.Table(
    "item_durations",
    metadata,
    sa.Column("tenant_id", sa.Text, primary_key=True),
    sa.Column("template_id", sa.Text, primary_key=True),
    sa.Column("mean", sa.BigInteger, nullable=False),  # microseconds
    sa.Column("weight", sa.BigInteger, nullable=False),  # of attempts, in the mean with the next
    _time("update_time"),
    sqlite_with_rowid=False,
)

# Facts about batches, in the order in which they became durable. Of one batch: the sequence is
# counted in the batch's own row, so two transactions cannot take the same number or publish out of
# order. Of all batches: on SQLite the position; on PostgreSQL the number of the transaction first,
# and only events are read whose transaction is older than every one that still goes on.
events = sa.Table(
    "events",
    metadata,
    sa.Column("position", _BigKey, primary_key=True, autoincrement=True),
    sa.Column(
        "transaction_number", sa.BigInteger, nullable=False, server_default=_TransactionNumber()
    ),
    sa.Column("batch_key", sa.BigInteger, nullable=False),
    sa.Column("sequence", sa.BigInteger, nullable=False),
    sa.Column("kind", sa.Text, nullable=False),
    sa.Column("event_type", sa.Text, nullable=False),
    _time("event_time"),
    sa.Column("payload_json", sa.Text, nullable=False),
    sa.ForeignKeyConstraint(["batch_key"], ["batches.batch_key"], ondelete="CASCADE"),
    sa.UniqueConstraint("batch_key", "sequence"),
    # The newest of all batches.
    sa.Index(None, "transaction_number", "position"),
    sqlite_autoincrement=True,
)

# The first answer to each request id, kept for at least a day.
requests = sa.Table(
    "requests",
    metadata,
    sa.Column("tenant_id", sa.Text, primary_key=True),
    sa.Column("method", sa.Text, primary_key=True),
    sa.Column("request_id", sa.Text, primary_key=True),
    sa.Column("request_hash", sa.Text, nullable=False),
    sa.Column("answer_json", sa.Text, nullable=False),
    _time("create_time"),
    # The oldest, to forget them.
    sa.Index(None, "create_time"),
    sqlite_with_rowid=False,
)

jobs = sa.Table(
    "jobs",
    metadata,
    sa.Column("tenant_id", sa.Text, primary_key=True),
    sa.Column("job_id", sa.Text, primary_key=True),
    sa.Column("revision", sa.Integer, nullable=False),
    sa.Column("shape", sa.Text, nullable=False),
    sa.Column("feature_type", sa.Text, nullable=False),
    sa.Column("purpose_id", sa.Text, nullable=False),
    sa.Column("source", sa.Text, nullable=False),
    sa.Column("definition_json", sa.Text, nullable=False),
    _time("create_time"),
    _time("update_time"),
    _time("next_due_time", nullable=True),  # the first on which nothing is decided yet
    _time("next_start_time", nullable=True),  # when that run begins: due, and spread by its jitter
    _time("pause_time", nullable=True),
    _text("pause_note"),
    sa.Column("preference_based", sa.Boolean, nullable=False, server_default=sa.false()),
    # The jobs that groups of preferences drive.
    _partial_index("ix_jobs_preference_based", "tenant_id", "job_id", where="preference_based"),
    # What starts next; jobs that a schedule does not drive cost nothing.
    _partial_index(
        "ix_jobs_next_start_time", "next_start_time", where="next_start_time IS NOT NULL"
    ),
    sqlite_with_rowid=False,
)

# What was decided on each due time of a job: one row at most, so the key itself forbids that a due
# time fires twice. It stays when its job goes.
occurrences = sa.Table(
    "occurrences",
    metadata,
    sa.Column("tenant_id", sa.Text, primary_key=True),
    sa.Column("job_id", sa.Text, primary_key=True),
    sa.Column("due_time", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("decision", sa.Text, nullable=False),  # FIRED, CAUGHT_UP, BACKFILLED, QUEUED, SKIPPED
    sa.Column("reason", sa.Text, nullable=False),
    sa.Column("message", sa.Text, nullable=False),
    sa.Column("batch_id", sa.Text, nullable=False),
    _time("decide_time"),
    _text("queued_as"),  # of one that is QUEUED: the decision when it starts
    _text("backfill_id"),
    sa.Column("is_parallel", sa.Boolean, nullable=False, server_default=sa.false()),
    # The oldest, to forget them.
    sa.Index(None, "decide_time"),
    # What waits, job by job, in the order in which it starts: the job's own schedule goes before
    # backfills, and an older backfill before a newer one.
    _partial_index(
        "ix_occurrences_queued",
        *("tenant_id", "job_id", "is_parallel", "backfill_id", "due_time"),
        where="decision = 'QUEUED'",
    ),
    # The due times of a backfill.
    _partial_index(
        "ix_occurrences_backfill", "tenant_id", "backfill_id", where="backfill_id <> ''"
    ),
    sqlite_with_rowid=False,
)

preferences = sa.Table(
    "preferences",
    metadata,
    sa.Column("tenant_id", sa.Text, primary_key=True),
    sa.Column("feature_type", sa.Text, primary_key=True),
    sa.Column("user_id", sa.Text, primary_key=True),
    sa.Column("enabled", sa.Boolean, nullable=False),
    sa.Column("schedule_json", sa.Text),
    sa.Column("overrides_json", sa.Text, nullable=False),
    sa.Column("revision", sa.Integer, nullable=False),
    _time("create_time"),
    _time("update_time"),
    sa.Column("group_key", sa.BigInteger),  # none while it is not enabled
    # As of the last write, for servers of the release before; ``inactive_users`` has what counts.
    sa.Column("active", sa.Boolean, nullable=False, server_default=sa.true()),
    _count("change_sequence"),  # of the change that made it so; 0 from before that was noted
    # What one user has set.
    sa.Index(None, "tenant_id", "user_id", "feature_type"),
    # The members of a group, page by page.
    _partial_index(
        "ix_preferences_group_key_user_id", "group_key", "user_id", where="group_key IS NOT NULL"
    ),
    sqlite_with_rowid=False,
)

# The users of whom whoever keeps them says that nothing is to be done for them, whatever they have
# set and for which features.
inactive_users = sa.Table(
    "inactive_users",
    metadata,
    sa.Column("tenant_id", sa.Text, primary_key=True),
    sa.Column("user_id", sa.Text, primary_key=True),
    sqlite_with_rowid=False,
)

# The users of a feature whose preferences name the same schedule. A group has no zone or time of
# its own: what comes of its schedule depends on defaults, and those change without its members.
preference_groups = sa.Table(
    "preference_groups",
    metadata,
    sa.Column("group_key", _BigKey, primary_key=True, autoincrement=True),
    sa.Column("tenant_id", sa.Text, nullable=False),
    sa.Column("feature_type", sa.Text, nullable=False),
    _text("schedule_json"),  # canonical; empty for users who name none
    _count("member_count"),
    _time("create_time"),
    _count("populate_time"),  # when it had no member and got one, the last time
    # Those without members, to forget them.
    _partial_index("ix_preference_groups_empty", "populate_time", where="member_count = 0"),
    # A group by what its members wish, and the groups of a feature.
    sa.UniqueConstraint("tenant_id", "feature_type", "schedule_json"),
    sqlite_autoincrement=True,
)

# How many changes of preferences a tenant has had. Its row is locked before anything of the
# preferences of the tenant is read or written, so changes become visible in their order.
preference_feeds = sa.Table(
    "preference_feeds",
    metadata,
    sa.Column("tenant_id", sa.Text, primary_key=True),
    _count("sequence"),
    _count("change_time"),  # of the newest; time does not go back from one change to the next
    sqlite_with_rowid=False,
)

preference_changes = sa.Table(
    "preference_changes",
    metadata,
    sa.Column("tenant_id", sa.Text, primary_key=True),
    sa.Column("sequence", sa.BigInteger, primary_key=True, autoincrement=False),
    _time("change_time"),
    sa.Column("kind", sa.Text, nullable=False),  # SET, DELETED, DEFAULT_SET
    sa.Column("feature_type", sa.Text, nullable=False),
    _text("user_id"),  # empty for a default
    sa.Column("revision", sa.Integer, nullable=False),
    sa.Column("enabled", sa.Boolean, nullable=False),
    sa.Column("group_left", sa.BigInteger),  # none in both when the user did not move
    sa.Column("group_joined", sa.BigInteger),
    # The oldest, to forget them.
    sa.Index(None, "change_time"),
    # Who has left a group, and not opted out.
    _partial_index(
        "ix_preference_changes_group_left",
        *("group_left", "change_time"),
        where="group_left IS NOT NULL AND enabled",
    ),
    sqlite_with_rowid=False,
)

# What a tenant wishes for the users who say nothing.
preference_defaults = sa.Table(
    "preference_defaults",
    metadata,
    sa.Column("tenant_id", sa.Text, primary_key=True),
    sa.Column("feature_type", sa.Text, primary_key=True),
    sa.Column("enabled", sa.Boolean, nullable=False),
    sa.Column("schedule_json", sa.Text),
    sa.Column("overrides_json", sa.Text, nullable=False),
    sa.Column("revision", sa.Integer, nullable=False),
    _time("create_time"),
    _time("update_time"),
    sqlite_with_rowid=False,
)

# Up to where a Config Database has been read.
config_sources = sa.Table(
    "config_sources",
    metadata,
    sa.Column("tenant_id", sa.Text, primary_key=True),
    sa.Column("source", sa.Text, primary_key=True),  # where it is, and what is read of it
    sa.Column("change_id", sa.Text, nullable=False),
    _time("read_time"),
    sa.Column("revision", sa.BigInteger, nullable=False),
    sqlite_with_rowid=False,
)

# When each group of a preference-based job runs next, and the batch that it is being filled into. A
# row is worked out anew when its revisions are not those of the job and the default any more.
group_schedules = sa.Table(
    "group_schedules",
    metadata,
    sa.Column("tenant_id", sa.Text, primary_key=True),
    sa.Column("job_id", sa.Text, primary_key=True),
    sa.Column("group_key", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("job_revision", sa.Integer, nullable=False),  # 0: to be worked out anew; -1: sleeps
    _time("job_create_time"),  # another job of the same id began at another time
    sa.Column("default_revision", sa.Integer, nullable=False),
    _text("schedule_json"),  # the effective one; empty when nobody names one
    _time("next_due_time", nullable=True),  # the first on which nothing is decided yet
    _time("next_start_time", nullable=True),  # when somebody is to look at the row
    _time("last_due_time"),  # the last on which something is decided
    _text("last_batch_id"),
    _text("queued_as"),  # of a due time that waits: the decision when it starts
    _text("filling_batch_id"),
    _time("filling_due_time", nullable=True),
    _text("filled_after"),  # where the next page of members starts
    _time("reset_time", nullable=True),  # since when it counts anew because the job was paused
    # What is to be looked at next: what is due, and what nobody fills any more.
    _partial_index(
        "ix_group_schedules_next_start_time",
        "next_start_time",
        where="next_start_time IS NOT NULL",
    ),
    sqlite_with_rowid=False,
)

# By what a run goes whose batch is being filled, from its first page to its last one: the job may
# change or go meanwhile, and another server may go on. One row at most for each group and job.
group_fillings = sa.Table(
    "group_fillings",
    metadata,
    sa.Column("tenant_id", sa.Text, primary_key=True),
    sa.Column("job_id", sa.Text, primary_key=True),
    sa.Column("group_key", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("batch_id", sa.Text, nullable=False),
    # The job as it was, like the columns of ``jobs``.
    sa.Column("revision", sa.Integer, nullable=False),
    sa.Column("source", sa.Text, nullable=False),
    sa.Column("definition_json", sa.Text, nullable=False),
    _time("create_time"),
    _time("update_time"),
    sa.Column("schedule_json", sa.Text, nullable=False),  # the effective one
    _text("default_json"),  # of the tenant for the feature; empty for none
    sqlite_with_rowid=False,
)

# What was decided on each due time of a job's group: one row at most, like ``occurrences``.
group_occurrences = sa.Table(
    "group_occurrences",
    metadata,
    sa.Column("tenant_id", sa.Text, primary_key=True),
    sa.Column("job_id", sa.Text, primary_key=True),
    sa.Column("group_key", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("due_time", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("decision", sa.Text, nullable=False),  # FIRED, CAUGHT_UP, SKIPPED
    _text("reason"),
    _text("message"),
    _text("batch_id"),
    _text("schedule_json"),  # the effective one at that time
    _time("decide_time"),
    # Of all groups of a job, newest first.
    sa.Index(None, "tenant_id", "job_id", "due_time", "group_key"),
    # The oldest, to forget them.
    sa.Index(None, "decide_time"),
    sqlite_with_rowid=False,
)

# The last run of a job for each user; it keeps them from a second one in a period, whatever group
# they are in by then.
user_runs = sa.Table(
    "user_runs",
    metadata,
    sa.Column("tenant_id", sa.Text, primary_key=True),
    sa.Column("user_id", sa.Text, primary_key=True),
    sa.Column("job_id", sa.Text, primary_key=True),
    _time("due_time", nullable=True),  # of the last run with work for the user
    _time("period_start", nullable=True),
    _count("group_key"),
    _text("batch_id"),
    _text("item_id"),
    _time("look_due_time"),  # of the last run that looked at the user
    _count("look_group_key"),
    _text("look_batch_id"),
    _text("look_reason"),  # why nothing was done then
    # Dates, as their numbers from 0001-01-01, the first: of the due time in the zone of its period,
    # and the first one of that, when it is made of days.
    sa.Column("due_day", sa.BigInteger),
    sa.Column("period_day", sa.BigInteger),
    sqlite_with_rowid=False,
)

# The embedded source of users. Another database takes its place by a setting.
system_users = sa.Table(
    "system_users",
    metadata,
    sa.Column("tenant_id", sa.Text, primary_key=True),
    sa.Column("user_id", sa.Text, primary_key=True),
    sa.Column("active", sa.Boolean, nullable=False),
    _time("create_time"),
    # Whether a user exists in another tenant.
    sa.Index(None, "user_id"),
    sqlite_with_rowid=False,
)

# The embedded source of categories.
category_items = sa.Table(
    "category_items",
    metadata,
    sa.Column("position", _BigKey, primary_key=True, autoincrement=True),
    sa.Column("tenant_id", sa.Text, nullable=False),
    sa.Column("category", sa.Text, nullable=False),
    sa.Column("item_id", sa.Text, nullable=False),
    sa.Column("user_id", sa.Text),
    sa.Column("data_json", sa.Text, nullable=False),
    _time("create_time"),
    _time("active_time", nullable=True),  # when the thing was last active, if its data tells
    # One item by its id, and no id twice in a category.
    sa.UniqueConstraint("tenant_id", "category", "item_id"),
    # A category in the order in which it was loaded.
    sa.Index(None, "tenant_id", "category", "position"),
    # What is whose: what names no user may be one itself.
    sa.Index(
        "ix_category_items_owner",
        sa.text("(COALESCE(NULLIF(user_id, ''), item_id))"),
        *("tenant_id", "category"),
    ),
    sqlite_autoincrement=True,
)
