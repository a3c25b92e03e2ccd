"""By what the runs of groups go that are being filled."""

from __future__ import annotations

from typing import Protocol

from batchwork_server.domain.group_schedules import GroupSchedule, RunTerms
from batchwork_server.store.protocols.transaction import Transaction


class GroupFillingStore(Protocol):
    """What was decided with the first page of a run, until its last one."""

    async def put(
        self, tx: Transaction, row: GroupSchedule, terms: RunTerms, *, batch_id: str
    ) -> None:
        """Keeps by what a run goes; what was kept of the group and the job before is gone."""
        ...

    async def get(self, row: GroupSchedule, *, batch_id: str) -> RunTerms | None:
        """Returns by what the run goes that a batch is made for; none when that was not kept."""
        ...

    async def drop(self, tx: Transaction, row: GroupSchedule) -> None:
        """Forgets by what the run of a group and a job went."""
        ...
