"""Object: one item that holds a whole selection."""

from __future__ import annotations

from batchwork_server.domain.item import NewItem
from batchwork_server.planners.selected import INLINE, Selected, group_object


def plan(selected: Selected) -> list[NewItem]:
    """Returns one item with ``{"category", "count", "items"}``; none when nothing was selected.

    Things of users who are not valid are left out of it.
    """
    [category] = selected.groups
    things = selected.valid(category)
    if not things:
        return []
    item_id = category if category != INLINE else "all"
    return [NewItem(item_id=item_id, data_json=group_object(category, things).decode())]
