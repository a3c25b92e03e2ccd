"""How long items of a template take."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Protocol

from batchwork_server.domain.item_durations import MeasuredAttempts


class ItemDurationStore(Protocol):
    """What all servers have measured together. It only serves the order of dispatch."""

    async def mean(self, template_id: str, *, tenant_id: str) -> timedelta | None:
        """Returns how long an attempt takes on the average, or none when nobody has made one."""
        ...

    async def learn(self, measured: Iterable[MeasuredAttempts], *, now: datetime) -> None:
        """Adds to the means, in which what is long ago counts less and less.

        Args:
            measured: At most one of each template.
        """
        ...
