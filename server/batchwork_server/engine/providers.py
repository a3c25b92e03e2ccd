"""Providers that are away, as far as this server has heard: what one batch learns, all know."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime

from batchwork_server.clock import Clock
from batchwork_server.domain.batch import Batch
from batchwork_server.domain.retry import provider_pause
from batchwork_server.engine.classification import Pause
from batchwork_server.engine.executor import RunningBatch


@dataclass(slots=True, kw_only=True)
class Away:
    """What a provider said, and until when nobody asks it again.

    Attributes:
        told: The keys of the batches that were paused for it.
    """

    pause: Pause
    until: datetime
    told: set[int] = field(default_factory=set)


class Providers:
    """The providers that are away: what the processor of a template calls, for one tenant."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._away: dict[tuple[str, str], Away] = {}

    def report(self, running: RunningBatch, pause: Pause) -> Away:
        """Takes note of what the provider of a batch said; what it said before counts no more."""
        now = self._clock.now()
        self._away = {name: away for name, away in self._away.items() if away.until > now}
        # What was done in the meantime may not be recorded yet.
        pauses = 0 if running.progressed else running.batch.provider_pauses
        delay = provider_pause(pauses) if pause.delay is None else pause.delay
        away = Away(pause=pause, until=now + delay)
        self._away[provider_of(running.batch)] = away
        return away

    def find(self, batch: Batch) -> Away | None:
        """Returns the provider of a batch while it is away.

        One that was paused for it and goes on nevertheless was resumed by somebody, and finds out
        by itself.
        """
        away = self._away.get(provider_of(batch))
        if away is None:
            return None
        if away.until <= self._clock.now():
            self.is_back(batch)
            return None
        return None if batch.key in away.told else away

    def is_back(self, batch: Batch) -> None:
        """Takes note that the provider of a batch has answered, or may do so by now."""
        self._away.pop(provider_of(batch), None)


def provider_of(batch: Batch) -> tuple[str, str]:
    """Names what the processor of a batch calls."""
    return batch.tenant_id, batch.request.template.template_id
