"""Jobs: stored definitions of what to process, how, and when."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Any

from batchwork_server.domain.batch import Priority
from batchwork_server.domain.failure import FailurePolicy
from batchwork_server.domain.ids import is_id
from batchwork_server.domain.job_policies import (
    LONGEST_CATCH_UP_WINDOW,
    SHORTEST_CATCH_UP_WINDOW,
    CatchUp,
    Overlap,
    parse_failure_policy,
    parse_retry_policy,
    render_failure_policy,
    render_retry_policy,
)
from batchwork_server.domain.json_object import (
    FieldReader,
    child_path,
    comparable,
    listed,
    quoted,
    seconds_of,
)
from batchwork_server.domain.notification import LONGEST_TARGET_NAME, MAX_TARGETS, TARGET_NAME
from batchwork_server.domain.preference import parse_wish
from batchwork_server.domain.retry import RequestedRetry
from batchwork_server.domain.schedule import Schedule, parse_schedule, render_schedule
from batchwork_server.domain.selection import MAX_ITEMS, parse_filters
from batchwork_server.domain.user import UsersAway
from batchwork_server.errors import Violation

MAX_CATEGORIES = 32
MAX_DISTRIBUTION_USERS = 10_000
MAX_RETRY_LIMIT = 100
SHORTEST_BATCH_TIMEOUT = timedelta(seconds=1)
LONGEST_BATCH_TIMEOUT = timedelta(days=30)
DEFAULT_LIMIT = 1000
LONGEST_NAME = 128
LONGEST_DISPLAY_NAME = 256
LONGEST_DESCRIPTION = 4096

PAYLOAD_TOO_LARGE = "PAYLOAD_TOO_LARGE"


class JobShape(StrEnum):
    """How the selected data becomes items."""

    INDIVIDUAL = "INDIVIDUAL"  # one item for each selected thing
    OBJECT = "OBJECT"  # one item that holds the selection of one category
    COMBINED = "COMBINED"  # one item that holds the selections of several categories


class DataSource(StrEnum):
    """What the selected data is about."""

    USERS = "USERS"  # an item's id is a user's id
    CATEGORIES = "CATEGORIES"


class PreferenceSource(StrEnum):
    """Where the parameters of the work come from."""

    STATIC = "STATIC"  # from the job alone
    DYNAMIC = "DYNAMIC"  # from the preferences of the users


def batch_type_of(
    shape: JobShape, data_source: DataSource, preference_source: PreferenceSource
) -> str:
    """Returns the name of a place in the documents' matrix, such as ``INDIVIDUAL_USERS``."""
    preference = "PREFERENCE_" if preference_source is PreferenceSource.DYNAMIC else ""
    method = "INDIVIDUAL" if shape is JobShape.INDIVIDUAL else "BATCH"
    return f"{preference}{method}_{data_source}"


@dataclass(frozen=True, slots=True, kw_only=True)
class JobDefinition:
    """What to process, how, and when.

    Attributes:
        categories: One; several when COMBINED; none when the users of a feature are meant.
        template_id: Empty means the default template of the operation or the feature.
        schedule: None means that the job runs on request only.
        filters: JSON values; for COMBINED one object of filters a category.
        limit: The most items of each category.
        retry_limit: None means the server's setting.
        batch_timeout: The longest time of a run; None means no limit.
        failure_policy: None means that every item of a run may fail.
        users_away: What becomes of a run whose users cannot be validated; None means what the
            settings say.
        catch_up_window: How long after it should have begun a missed run is worth making up for;
            None means until the next one is due.
        default_preferences: The wish of users who have none, as ``parse_wish`` reads it.
        include_all_users: Whether it also runs for active users without a preference for the
            feature, as ``default_preferences`` and the tenant's default say.
        notify_on_complete: Whether somebody is told when a run ends; None says what
            ``notification_targets`` do.
        notification_targets: Who is told; empty means the operator's default targets.
    """

    job_id: str
    display_name: str
    shape: JobShape
    data_source: DataSource
    preference_source: PreferenceSource = PreferenceSource.STATIC
    description: str = ""
    priority: Priority = Priority.MEDIUM
    categories: tuple[str, ...] = ()
    template_id: str = ""
    operation: str = ""
    schedule: Schedule | None = None
    filters: Mapping[str, Any] = field(default_factory=dict)
    limit: int = DEFAULT_LIMIT
    retry_limit: int | None = None
    retry_policy: RequestedRetry = field(default_factory=RequestedRetry)
    batch_timeout: timedelta | None = None
    failure_policy: FailurePolicy | None = None
    users_away: UsersAway | None = None
    catch_up: CatchUp = CatchUp.LATEST
    catch_up_window: timedelta | None = None
    overlap: Overlap = Overlap.SKIP
    distribute_results: bool = False
    distribution_user_ids: tuple[str, ...] = ()
    purpose_id: str = ""
    feature_type: str = ""
    default_preferences: Mapping[str, Any] = field(default_factory=dict)
    include_all_users: bool = False
    notify_on_complete: bool | None = None
    notification_targets: tuple[str, ...] = ()

    @property
    def batch_type(self) -> str:
        """The name of the job's place in the matrix, such as ``PREFERENCE_INDIVIDUAL_USERS``."""
        return batch_type_of(self.shape, self.data_source, self.preference_source)

    def filters_of(self, category: str) -> Mapping[str, Any]:
        """Returns the filters that narrow one of the job's categories."""
        if self.shape is not JobShape.COMBINED:
            return self.filters
        filters: Mapping[str, Any] = self.filters.get(category, {})
        return filters


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredJob:
    """A definition as a tenant has it.

    Attributes:
        revision: Counts the changes of the definition from 1.
        source: Who imported this revision.
        pause_time: Since when its schedule rests; None means that it does not.
        pause_note: Why it rests, for people.
    """

    definition: JobDefinition
    tenant_id: str
    revision: int
    source: str
    create_time: datetime
    update_time: datetime
    pause_time: datetime | None = None
    pause_note: str = ""

    @property
    def is_paused(self) -> bool:
        """Tells whether the schedule of the job rests."""
        return self.pause_time is not None


def changed_fields(old: JobDefinition, new: JobDefinition) -> tuple[str, ...]:
    """Returns the names of the fields in which two definitions differ, sorted."""
    return tuple(
        sorted(
            item.name
            for item in fields(JobDefinition)
            if comparable(getattr(old, item.name)) != comparable(getattr(new, item.name))
        )
    )


def default_data_source(
    categories: tuple[str, ...], preference_source: PreferenceSource
) -> DataSource:
    """Returns what the data is about when the job does not say so."""
    users_of_a_feature = not categories and preference_source is PreferenceSource.DYNAMIC
    if categories == ("users",) or users_of_a_feature:
        return DataSource.USERS
    return DataSource.CATEGORIES


def render_job(job: JobDefinition) -> dict[str, Any]:
    """Writes a job so that ``parse_job`` reads an equal one."""
    return dict(_rendered_fields(job))


def _rendered_fields(job: JobDefinition) -> Iterator[tuple[str, Any]]:
    yield "id", job.job_id
    yield "name", job.display_name
    if job.description:
        yield "description", job.description
    yield "type", job.shape.lower()
    if job.preference_source is PreferenceSource.DYNAMIC:
        yield "preference_based", True
    yield "priority", job.priority.lower()
    yield from _rendered_data(job)
    for name in ("template_id", "operation", "purpose_id", "feature_type"):
        if getattr(job, name):
            yield name, getattr(job, name)
    if job.schedule is not None:
        yield "schedule", render_schedule(job.schedule)
    if job.retry_limit is not None:
        yield "retry_limit", job.retry_limit
    yield from _rendered_policies(job)
    yield "distribute_results", job.distribute_results
    if job.distribution_user_ids:
        yield "distribution", {"users": list(job.distribution_user_ids)}
    if job.default_preferences:
        yield "default_preferences", job.default_preferences
    if job.include_all_users:
        yield "include_all_users", True
    if job.notify_on_complete is not None:
        yield "notify_on_complete", job.notify_on_complete
    if job.notification_targets:
        yield "notification_targets", list(job.notification_targets)


def _rendered_policies(job: JobDefinition) -> Iterator[tuple[str, Any]]:
    retry_policy = render_retry_policy(job.retry_policy)
    if retry_policy:
        yield "retry_policy", retry_policy
    if job.batch_timeout is not None:
        yield "batch_timeout", seconds_of(job.batch_timeout)
    if job.failure_policy is not None:
        yield "failure_policy", render_failure_policy(job.failure_policy)
    if job.users_away is not None:
        yield "users_away", job.users_away.lower()
    if job.catch_up is not CatchUp.LATEST:
        yield "catch_up", job.catch_up.lower()
    if job.catch_up_window is not None:
        yield "catch_up_window", seconds_of(job.catch_up_window)
    if job.overlap is not Overlap.SKIP:
        yield "overlap", job.overlap.lower()


def _rendered_data(job: JobDefinition) -> Iterator[tuple[str, Any]]:
    if job.shape is JobShape.COMBINED:
        yield "categories", list(job.categories)
    elif job.categories:
        yield "category", job.categories[0]
    if job.data_source is not default_data_source(job.categories, job.preference_source):
        yield "data_source", job.data_source.lower()
    if job.filters:
        yield "filters", job.filters
    yield "limit", job.limit


def parse_job(value: Any, *, path: str = "$") -> tuple[JobDefinition | None, list[Violation]]:
    """Reads one job of a file.

    Both ``id`` and ``job_id`` are read, both ``individual`` and ``individual_batch``, both
    ``category`` and ``categories``; ``name`` defaults to the id.

    Returns:
        The job, or none and every violation.
    """
    job, violations = read_job(value, path=path)
    return (None, violations) if violations else (job, [])


def read_job(value: Any, *, path: str) -> tuple[JobDefinition | None, list[Violation]]:
    """Reads one job like ``parse_job``, as far as possible.

    Returns:
        The job, in which something of its type stands in for each field that is wrong, and every
        violation; none when the value is no object.
    """
    violations: list[Violation] = []
    reader = FieldReader(value, path=path, violations=violations)
    if violations:
        return None, violations
    job = _read_job(reader)
    reader.refuse_unknown("a job")
    return job, violations


ID_SPELLINGS = ("id", "job_id")

_TYPES: Mapping[str, tuple[JobShape, PreferenceSource]] = {
    "individual": (JobShape.INDIVIDUAL, PreferenceSource.STATIC),
    "object": (JobShape.OBJECT, PreferenceSource.STATIC),
    "combined": (JobShape.COMBINED, PreferenceSource.STATIC),
    "preference": (JobShape.INDIVIDUAL, PreferenceSource.DYNAMIC),
    "individual_batch": (JobShape.INDIVIDUAL, PreferenceSource.STATIC),
    "object_batch": (JobShape.OBJECT, PreferenceSource.STATIC),
    "combined_batch": (JobShape.COMBINED, PreferenceSource.STATIC),
    "preference_batch": (JobShape.INDIVIDUAL, PreferenceSource.DYNAMIC),
}
_PRIORITIES = {priority.lower(): priority for priority in Priority}
_CATCH_UPS = {catch_up.lower(): catch_up for catch_up in CatchUp}
_USERS_AWAY = {away.lower(): away for away in UsersAway}
_OVERLAPS = {overlap.lower(): overlap for overlap in Overlap}
_DATA_SOURCES = {source.lower(): source for source in DataSource}


def _read_job(reader: FieldReader) -> JobDefinition:
    """Takes every field of a job; where one is wrong, something of its type stands in for it."""
    job_id = _read_id(reader)
    shape, preference_source = _read_type(reader)
    categories = _read_categories(reader, shape=shape, preference_source=preference_source)
    return JobDefinition(
        job_id=job_id,
        display_name=reader.line("name", longest=LONGEST_DISPLAY_NAME) or job_id,
        description=reader.prose("description", longest=LONGEST_DESCRIPTION),
        shape=shape or JobShape.INDIVIDUAL,
        preference_source=preference_source,
        priority=reader.choice("priority", _PRIORITIES) or Priority.MEDIUM,
        categories=categories,
        data_source=reader.choice("data_source", _DATA_SOURCES)
        or default_data_source(categories, preference_source),
        filters=_read_filters(reader, shape=shape, categories=categories),
        limit=reader.whole("limit", least=1, most=MAX_ITEMS) or DEFAULT_LIMIT,
        operation=reader.line("operation", longest=LONGEST_NAME),
        feature_type=_read_feature_type(reader, preference_source=preference_source),
        template_id=_read_template_id(reader),
        schedule=reader.nested("schedule", parse_schedule),
        retry_limit=reader.whole("retry_limit", least=0, most=MAX_RETRY_LIMIT),
        retry_policy=reader.nested("retry_policy", parse_retry_policy) or RequestedRetry(),
        batch_timeout=reader.duration(
            "batch_timeout", least=SHORTEST_BATCH_TIMEOUT, most=LONGEST_BATCH_TIMEOUT
        ),
        failure_policy=reader.nested("failure_policy", parse_failure_policy),
        users_away=reader.choice("users_away", _USERS_AWAY),
        catch_up=reader.choice("catch_up", _CATCH_UPS) or CatchUp.LATEST,
        catch_up_window=reader.duration(
            "catch_up_window", least=SHORTEST_CATCH_UP_WINDOW, most=LONGEST_CATCH_UP_WINDOW
        ),
        overlap=reader.choice("overlap", _OVERLAPS) or Overlap.SKIP,
        distribute_results=reader.flag("distribute_results") or False,
        distribution_user_ids=reader.nested("distribution", _parse_distribution) or (),
        purpose_id=reader.line("purpose_id", longest=LONGEST_NAME),
        default_preferences=reader.nested("default_preferences", _parse_default_preferences) or {},
        include_all_users=_read_include_all_users(reader, preference_source=preference_source),
        notify_on_complete=reader.flag("notify_on_complete", "notifyOnComplete"),
        notification_targets=reader.lines(
            *("notification_targets", "notificationTargets"),
            most=MAX_TARGETS,
            longest=LONGEST_TARGET_NAME,
            form=TARGET_NAME,
        ),
    )


def _read_id(reader: FieldReader) -> str:
    if not reader.require(*ID_SPELLINGS):
        return ""
    value = reader.take(*ID_SPELLINGS)
    if isinstance(value, str) and is_id(value):
        return value
    reader.refuse("id", f"{quoted(value)} is no id; an id has 4 to 63 letters, digits, '_' or '-'.")
    return ""


def _read_type(reader: FieldReader) -> tuple[JobShape | None, PreferenceSource]:
    given = reader.choice("type", _TYPES) if reader.require("type") else None
    shape, preference_source = given or (None, PreferenceSource.STATIC)
    preference_based = reader.flag("preference_based")
    if preference_based:
        return shape, PreferenceSource.DYNAMIC
    if preference_based is False and preference_source is PreferenceSource.DYNAMIC:
        reader.refuse("preference_based", "false contradicts the type; leave one of them out.")
    return shape, preference_source


def _read_categories(
    reader: FieldReader, *, shape: JobShape | None, preference_source: PreferenceSource
) -> tuple[str, ...]:
    single = reader.line("category", longest=LONGEST_NAME)
    several = reader.lines("categories", most=MAX_CATEGORIES, longest=LONGEST_NAME)
    if single and several and several != (single,):
        reader.refuse("categories", f"This differs from {quoted(single)} in `category`; keep one.")
    categories = several or ((single,) if single else ())
    if shape is JobShape.COMBINED:
        if len(categories) < 2:
            reader.refuse("categories", "A combined job needs at least two categories.")
    elif shape is not None and len(categories) > 1:
        reader.refuse("categories", "Only a combined job has several categories; name one.")
    elif not categories and preference_source is PreferenceSource.STATIC:
        reader.refuse("category", "This field is required, unless the job is preference-based.")
    return categories


def _read_filters(
    reader: FieldReader, *, shape: JobShape | None, categories: tuple[str, ...]
) -> Mapping[str, Any]:
    filters = reader.mapping("filters")
    path = reader.path_of("filters")
    if shape is JobShape.COMBINED:
        for name, filters_of_one in filters.items():
            reader.add(_check_combined_filters(name, filters_of_one, categories, path=path))
    elif filters and not reader.has("category", "categories"):
        reader.refuse("filters", "Filters narrow a category; name it, or leave them out.")
    elif shape is not None:
        reader.add(_check_filters(filters, path=path))
    return filters


def _check_combined_filters(
    name: str, filters: Any, categories: tuple[str, ...], *, path: str
) -> list[Violation]:
    if name not in categories:
        message = f"{quoted(name)} is none of the job's categories, {listed(categories)}."
        return [Violation(child_path(path, name), message)]
    if not isinstance(filters, Mapping):
        message = f"{quoted(filters)} is not an object; write filters for each category."
        return [Violation(child_path(path, name), message)]
    return _check_filters(filters, path=child_path(path, name))


def _check_filters(filters: Mapping[str, Any], *, path: str) -> list[Violation]:
    _, violations = parse_filters(filters, category="", limit=1, now=_ANY_TIME, path=path)
    return violations


_ANY_TIME = datetime(2000, 1, 1, tzinfo=UTC)


def _read_feature_type(reader: FieldReader, *, preference_source: PreferenceSource) -> str:
    if preference_source is PreferenceSource.DYNAMIC:
        reader.require("feature_type")
    return reader.line("feature_type", longest=LONGEST_NAME)


def _read_include_all_users(reader: FieldReader, *, preference_source: PreferenceSource) -> bool:
    include = reader.flag("include_all_users") or False
    if include and preference_source is not PreferenceSource.DYNAMIC:
        reader.refuse("include_all_users", "Only a preference-based job can include all users.")
    return include


def _read_template_id(reader: FieldReader) -> str:
    if not reader.has("template_id", "operation", "feature_type"):
        reader.refuse(
            "template_id",
            "This field is required, unless `operation` or `feature_type` has a default template.",
        )
    return reader.line("template_id", longest=LONGEST_NAME)


def _parse_distribution(value: Any, *, path: str) -> tuple[tuple[str, ...], list[Violation]]:
    violations: list[Violation] = []
    reader = FieldReader(value, path=path, violations=violations)
    users = reader.lines("users", most=MAX_DISTRIBUTION_USERS, longest=LONGEST_NAME)
    reader.refuse_unknown("a distribution")
    return users, violations


def _parse_default_preferences(
    value: Any, *, path: str
) -> tuple[Mapping[str, Any] | None, list[Violation]]:
    wish, violations = parse_wish(value, path=path)
    return (None if wish is None else value), violations
