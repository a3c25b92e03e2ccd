"""Individual: one item for each selected thing."""

from __future__ import annotations

from dataclasses import replace

from batchwork_server.domain.item import NewItem
from batchwork_server.domain.selection import SelectedItem
from batchwork_server.planners.selected import Selected


def plan(selected: Selected) -> list[NewItem]:
    """Returns an item a thing; those of users who are not valid are to be skipped."""
    return [
        _item(thing, selected.skip_reason(thing))
        for group in selected.groups.values()
        for thing in group
    ]


def _item(thing: SelectedItem, skip_reason: str | None) -> NewItem:
    return thing if skip_reason is None else replace(thing, skip_reason=skip_reason)
