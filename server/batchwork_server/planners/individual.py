"""Individual: one item for each selected thing."""

from __future__ import annotations

from batchwork_server.domain.item import NewItem
from batchwork_server.planners.selected import Selected


def plan(selected: Selected) -> list[NewItem]:
    """Returns an item a thing; those of users who are not valid are to be skipped."""
    return [
        NewItem(
            item_id=item.item_id,
            user_id=item.user_id,
            data_json=item.data_json,
            skip_reason=selected.skip_reason(item),
        )
        for group in selected.groups.values()
        for item in group
    ]
