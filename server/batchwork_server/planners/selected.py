"""What planners work on."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import orjson

from batchwork_server.domain.item import ItemUser, NewItem
from batchwork_server.domain.job import JobShape
from batchwork_server.domain.reference_validation import OWN, InvalidReference
from batchwork_server.domain.selection import SelectedItem
from batchwork_server.domain.user import UserVerdict

INLINE = ""
"""The name under which inline items stand, which come from no category."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Selected:
    """What was selected, and what is known of the users in it.

    Attributes:
        groups: The things by category, in order.
        verdicts: For every user that a thing names.
    """

    groups: Mapping[str, Sequence[SelectedItem]]
    verdicts: Mapping[str, UserVerdict]

    def skip_reason(self, item: SelectedItem) -> str | None:
        """Returns why a thing is not to be worked on, because of its user or those it lists."""
        return self.user_problem(item) or item.skip_reason

    def user_problem(self, item: SelectedItem) -> str | None:
        """Returns why nothing is to be done for the user of a thing."""
        if item.user_id is None:
            return None
        verdict = self.verdicts[item.user_id]
        return None if verdict.is_served else f"USER_{verdict}"

    def valid(self, category: str) -> list[SelectedItem]:
        return [item for item in self.groups[category] if self.skip_reason(item) is None]

    def users_together(self) -> list[ItemUser]:
        """Returns the users of the one item that holds the whole selection, each once."""
        reasons = {
            item.user_id: self.user_problem(item)
            for group in self.groups.values()
            for item in group
            if item.user_id is not None
        }
        return [
            ItemUser(
                user_id=user_id,
                item_index=0 if reason is None else None,
                skip_reason=reason or "",
            )
            for user_id, reason in reasons.items()
        ]


def left_out(shape: JobShape, selected: Selected) -> list[InvalidReference]:
    """Returns the invalid users whose things are not in the one item of a batch.

    Where each thing is an item, the item itself says so.
    """
    if shape is JobShape.INDIVIDUAL:
        return []
    return [
        InvalidReference(
            category=category,
            item_id=thing.item_id,
            field=OWN,
            user_id=thing.user_id,
            verdict=selected.verdicts[thing.user_id],
        )
        for category, things in selected.groups.items()
        for thing in things
        if thing.user_id is not None and selected.user_problem(thing) is not None
    ]


Planner = Callable[[Selected], list[NewItem]]


def array_of(items: Sequence[SelectedItem]) -> bytes:
    """Returns the data of things as a JSON array; each text is pasted as it is, unread."""
    return b"[" + b",".join(item.data_json.encode() for item in items) + b"]"


def group_object(category: str, items: Sequence[SelectedItem]) -> bytes:
    """Returns a category's things as one JSON object: category, count, items."""
    name = orjson.dumps(category)
    return b'{"category":%b,"count":%d,"items":%b}' % (name, len(items), array_of(items))
