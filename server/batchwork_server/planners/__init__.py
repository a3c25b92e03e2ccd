"""Planners turn what was selected into items; the table of them is here.

A planner is pure: it gets the selection and what is known of its users, and says which items the
batch is made of.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from batchwork_server.domain.item import NewItem
from batchwork_server.domain.job import JobShape
from batchwork_server.planners.combined import plan as plan_combined
from batchwork_server.planners.individual import plan as plan_individual
from batchwork_server.planners.object import plan as plan_object
from batchwork_server.planners.selected import Planner, Selected

PLANNERS: Final[Mapping[JobShape, Planner]] = {
    JobShape.INDIVIDUAL: plan_individual,
    JobShape.OBJECT: plan_object,
    JobShape.COMBINED: plan_combined,
}


def plan(shape: JobShape, selected: Selected) -> list[NewItem]:
    """Returns the items of a batch of this shape."""
    return PLANNERS[shape](selected)


__all__ = ["PLANNERS", "Planner", "Selected", "plan"]
