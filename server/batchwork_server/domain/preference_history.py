"""What a user had set for a feature at a moment, from the log of changes: pure rules."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from batchwork_server.domain.preference_groups import ChangeKind, PreferenceChange


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """What a user has set.

    Attributes:
        has_preference: Whether there is one at all.
        group_key: The group it is in; None while it is not enabled.
    """

    has_preference: bool
    group_key: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class PreferenceHistory:
    """What a user has set, and how it came to that, as far back as the log tells.

    Attributes:
        update_time: Of the newest change; None when there is no preference.
        changes: In order.
    """

    now: Standing
    update_time: datetime | None
    changes: Sequence[PreferenceChange]

    def at(self, moment: datetime) -> Standing:
        """Returns what was set at a moment; of one before the log, what the log begins with."""
        found = self.now
        for change in reversed(self.changes):
            if change.change_time <= moment:
                break
            found = _before(change, found)
        return found

    def reaches(self, moment: datetime) -> bool:
        """Tells whether it is known what was set at a moment; what is forgotten is not."""
        if self.update_time is None or self.update_time <= moment:
            return True
        return any(change.change_time > moment for change in self.changes)

    def changed_after(self, moment: datetime) -> datetime | None:
        """Returns when the user got a group that they did not have at a moment; None for never.

        Other changes, as of their overrides, do not count.
        """
        before = self.at(moment)
        if before == self.now:
            return None if self.reaches(moment) else self.update_time
        return next(
            (
                change.change_time
                for change in self.changes
                if change.change_time > moment and self.at(change.change_time) != before
            ),
            None,
        )

    def left(self, group_key: int, *, by: datetime) -> datetime | None:
        """Returns when the user left a group for another one last, by a moment; None for never."""
        moments = [
            change.change_time
            for change in self.changes
            if change.group_left == group_key and change.enabled and change.change_time <= by
        ]
        return max(moments, default=None)

    @property
    def groups(self) -> list[int]:
        """The groups that the user has been in, the newest first."""
        found = [self.now.group_key, *(change.group_left for change in reversed(self.changes))]
        return [key for key in dict.fromkeys(found) if key is not None]


def _before(change: PreferenceChange, after: Standing) -> Standing:
    """Returns what was set before a change, from what was set after it."""
    if change.kind is ChangeKind.SET and change.revision == 1:
        return Standing(has_preference=False, group_key=None)
    has_moved = change.group_left is not None or change.group_joined is not None
    if change.kind is ChangeKind.DELETED or has_moved:
        return Standing(has_preference=True, group_key=change.group_left)
    return replace(after, has_preference=True)
