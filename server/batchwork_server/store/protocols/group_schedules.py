"""The schedules of groups."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from batchwork_server.domain.group_schedules import Filling, GroupSchedule
from batchwork_server.domain.job import StoredJob
from batchwork_server.domain.preference_groups import PreferenceGroup
from batchwork_server.store.protocols.transaction import Transaction


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupedJob:
    """What tells whether the schedules of a job's groups may have to be worked out anew.

    Attributes:
        sequence: Of the newest change of a preference or default of the tenant.
        reset_time: When the job was resumed last, as the first of its groups has it: all have to
            be worked out anew then, also when nobody looked while it was paused.
    """

    tenant_id: str
    job_id: str
    revision: int
    create_time: datetime
    sequence: int
    reset_time: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class DueGroup:
    """A group that somebody is to look at: it is due, or nobody fills its batch any more.

    Attributes:
        job: None when it is gone.
        is_running: Whether the group's newest batch still goes on.
        look_time: Since when it is to be looked at.
    """

    row: GroupSchedule
    job: StoredJob | None
    is_running: bool
    look_time: datetime


class GroupScheduleStore(Protocol):
    """When the groups of preference-based jobs run. What loses a race changes nothing."""

    async def grouped_jobs(self) -> list[GroupedJob]:
        """Returns the preference-based jobs of every tenant that are not paused."""
        ...

    async def ensure_group(
        self, tx: Transaction, feature_type: str, *, tenant_id: str, now: datetime
    ) -> None:
        """Makes the group of the users who name no schedule, unless it is there."""
        ...

    async def outdated(
        self, job: StoredJob, *, default_revision: int, limit: int
    ) -> list[tuple[PreferenceGroup, GroupSchedule | None]]:
        """Returns groups of the job's feature whose schedule is missing or out of date.

        One that sleeps is so when its group has had a member since then.
        """
        ...

    async def insert(self, tx: Transaction, new: Sequence[GroupSchedule]) -> int:
        """Stores schedules that are missing; tells how many were."""
        ...

    async def renew(
        self, tx: Transaction, changed: Sequence[tuple[GroupSchedule, GroupSchedule]]
    ) -> int:
        """Puts schedules in place of those that were read; tells of how many that was so."""
        ...

    async def reset(self, tx: Transaction, job_id: str, *, tenant_id: str, now: datetime) -> None:
        """Lets the groups of a job count anew from now on.

        A due time that is still to come stays, and so does what is being filled.
        """
        ...

    async def due(self, *, now: datetime, limit: int) -> list[DueGroup]:
        """Returns what is to be looked at, of every tenant, the longest due first."""
        ...

    async def next_start_time(self, *, after: datetime) -> datetime | None:
        """Returns when something is to be looked at first after a moment."""
        ...

    async def get(self, job_id: str, group_key: int, *, tenant_id: str) -> GroupSchedule | None: ...

    async def move(
        self,
        tx: Transaction,
        before: GroupSchedule,
        after: GroupSchedule,
        *,
        look_time: datetime | None,
    ) -> bool:
        """Says when a group runs next, and what it is being filled into.

        Returns:
            False, and nothing was written, when the row or its job is not as it was read.
        """
        ...

    async def take_filling(self, tx: Transaction, due: DueGroup, *, until: datetime) -> bool:
        """Takes over a batch that nobody fills any more; tells whether nobody else did."""
        ...

    async def go_on_filling(
        self,
        tx: Transaction,
        row: GroupSchedule,
        filling: Filling,
        *,
        after: str | None,
        until: datetime,
    ) -> bool:
        """Moves the place up to which a batch is filled.

        Args:
            after: None ends the filling.
            until: Until when nobody else looks at it.

        Returns:
            False, and nothing was written, when somebody else has moved it.
        """
        ...

    async def drop(self, tx: Transaction, row: GroupSchedule) -> None:
        """Removes a row that is not being filled."""
        ...
