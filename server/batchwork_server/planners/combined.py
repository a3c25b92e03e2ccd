"""Combined: one item that holds the selections of several categories."""

from __future__ import annotations

import orjson

from batchwork_server.domain.item import NewItem
from batchwork_server.planners.selected import Selected, group_object


def plan(selected: Selected) -> list[NewItem]:
    """Returns one item with ``{"categories": {name: {"category", "count", "items"}}}``.

    None when no category has anything. Things of users who are not valid are left out.
    """
    groups = {category: selected.valid(category) for category in selected.groups}
    if not any(groups.values()):
        return []
    members = b",".join(
        orjson.dumps(category) + b":" + group_object(category, things)
        for category, things in groups.items()
    )
    return [NewItem(item_id="combined", data_json=(b'{"categories":{%b}}' % members).decode())]
