"""What became of every user on every day, from what a server answers and from nothing else."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import date, datetime
from zoneinfo import ZoneInfo

from batchwork.v1.item_pb2 import ItemState
from batchwork.v1.preference_service_pb2 import PreferenceGroup
from batchwork.v1.schedule_pb2 import Schedule
from batchwork_client import Batchwork

SERVED = "SUCCEEDED"
OPTED_OUT = "opted out"
NOT_DUE = "not due"
UNEXPLAINED = "UNEXPLAINED"
TWICE = "TWICE"

ALREADY_DONE = "ALREADY_DONE"
"""The skip of a user who moved after their run: they are served once, and listed once more."""


@dataclass(kw_only=True)
class Row:
    """One group: who is in it now, and what became of those whom it ran for."""

    group: PreferenceGroup
    runs: int = 0
    served: int = 0
    skipped: Counter[str] = field(default_factory=Counter)

    @property
    def name(self) -> tuple[str, str]:
        """The zone and the cadence."""
        return self.group.schedule.time_zone, cadence_in_words(self.group.schedule)


@dataclass(kw_only=True)
class Ledger:
    """What was read.

    Attributes:
        users: Everybody who has said what they wish, and whether they want it at all.
        group_of: The group in which a user is now.
        fates: What was said about a user on a local day: SUCCEEDED, or why they were skipped.
        due: The groups that had a run on a local day.
        served: How many items succeeded, as the batches count them.
        skipped: How many were skipped, likewise.
    """

    days: Sequence[date]
    rows: dict[int, Row] = field(default_factory=dict)
    users: dict[str, bool] = field(default_factory=dict)
    group_of: dict[str, int] = field(default_factory=dict)
    fates: defaultdict[tuple[str, date], list[str]] = field(
        default_factory=lambda: defaultdict(list)
    )
    due: set[tuple[int, date]] = field(default_factory=set)
    served: int = 0
    skipped: int = 0

    def fate(self, user_id: str, day: date) -> str:
        """Returns the one thing that became of a user on a day, or what cannot be."""
        said = self.fates.get((user_id, day), [])
        match [fate for fate in said if fate != ALREADY_DONE]:
            case [one]:
                return one
            case [_, *_]:
                return TWICE
        if said:
            return UNEXPLAINED  # done already, and nobody knows when
        if not self.users[user_id]:
            return OPTED_OUT
        if (self.group_of.get(user_id), day) in self.due:
            return UNEXPLAINED
        return NOT_DUE if user_id in self.group_of else UNEXPLAINED

    def fates_of_all(self) -> Counter[str]:
        """Counts what became of every user on every day."""
        return Counter(self.fate(user_id, day) for user_id in self.users for day in self.days)

    def skipped_once_more(self) -> int:
        """Counts the items that only say that the user was served already."""
        return sum(fates.count(ALREADY_DONE) for fates in self.fates.values())

    def sum(self) -> int:
        """Adds up what the batches count, and the users for whom they have no item."""
        fates = self.fates_of_all()
        listed = self.served + self.skipped - self.skipped_once_more()
        return listed + fates[OPTED_OUT] + fates[NOT_DUE]

    def problems(self) -> list[str]:
        """Returns what does not add up; nothing when all does."""
        found = [
            f"{user_id} on {day}: {fate} {self.fates.get((user_id, day), [])}"
            for user_id in self.users
            for day in self.days
            if (fate := self.fate(user_id, day)) in IMPOSSIBLE
        ]
        found += [
            f"{user_id} has an item on {day}"
            for user_id, day in self.fates
            if user_id not in self.users or day not in self.days
        ]
        if self.sum() != len(self.users) * len(self.days):
            found.append(f"The sum is {self.sum()}")
        return found


IMPOSSIBLE = frozenset({TWICE, UNEXPLAINED, "PENDING", "RUNNING", "FAILED", "CANCELLED", "EXPIRED"})
"""What must not become of anybody here: nothing fails, and nothing is left undone."""


async def read_ledger(
    batchwork: Batchwork, *, job_id: str, feature_type: str, days: Sequence[date]
) -> Ledger:
    """Reads groups, members, occurrences, batches and items."""
    ledger = Ledger(days=days)
    groups = batchwork.preferences.list_preference_groups(
        feature_type=feature_type, with_empty=True
    )
    async for group in groups:
        ledger.rows[group.group_key] = Row(group=group)
        async for member in batchwork.preferences.list_group_members(group.group_key):
            ledger.group_of[member.user_id] = group.group_key
    async for preference in batchwork.preferences.list_preferences(feature_type=feature_type):
        ledger.users[preference.user_id] = preference.enabled
    async for occurrence in batchwork.jobs.list_occurrences(job_id):
        if not occurrence.batch_id:
            continue
        zone = ZoneInfo(occurrence.schedule.time_zone)
        day = occurrence.due_time.ToDatetime(tzinfo=zone).date()
        ledger.due.add((occurrence.group_key, day))
        await _read_run(batchwork, ledger, occurrence.group_key, occurrence.batch_id, day)
    return ledger


async def _read_run(
    batchwork: Batchwork, ledger: Ledger, group_key: int, batch_id: str, day: date
) -> None:
    batch = await batchwork.batches.get_batch(batch_id)
    ledger.served += batch.counts.succeeded
    ledger.skipped += batch.counts.skipped
    row = ledger.rows[group_key]
    row.runs += 1
    async for item in batchwork.batches.list_items(batch_id):
        state = ItemState.Name(item.state).removeprefix("ITEM_STATE_")
        fate = item.skip_reason or state
        ledger.fates[item.user_id, day].append(fate)
        if fate == SERVED:
            row.served += 1
        else:
            row.skipped[fate] += 1


def cadence_in_words(schedule: Schedule) -> str:
    """Returns such as ``daily 09:00``, or ``weekly SUN 09:00``."""
    if schedule.WhichOneof("cadence") == "weekly":
        [day] = schedule.weekly.days
        return f"weekly {_WEEKDAYS[day - 1]} {schedule.weekly.at}"
    return f"daily {schedule.daily.at}"


_WEEKDAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")


def local(moment: datetime, zone: str) -> str:
    """Returns a moment on the clock of a zone, with its distance from UTC."""
    return moment.astimezone(ZoneInfo(zone)).strftime("%a %H:%M %Z")
