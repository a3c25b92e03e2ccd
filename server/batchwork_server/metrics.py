"""Numbers for monitoring, in the format of Prometheus; loaded only where somebody wants them.

No label names a user, an item, a batch, a job or a tenant: their number has no bound.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from datetime import timedelta
from threading import Thread
from wsgiref.simple_server import WSGIServer

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Histogram,
    ProcessCollector,
    start_http_server,
)

from batchwork_server.domain.batch import Batch, BatchState
from batchwork_server.domain.notification import NotificationState
from batchwork_server.domain.user import UserVerdict
from batchwork_server.errors import ConfigurationError

_LAGS = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
_OUTCOMES = ("succeeded", "failed", "skipped", "cancelled", "expired")


class Metrics:
    """Implements ``Meter``."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self._users = self._counter(
            "batchwork_users_validated",
            "User ids that were looked up, each once for every question.",
            "verdict",
            UserVerdict,
        )
        self._references = self._counter(
            "batchwork_user_references",
            "References to users in the items of batches that were stored.",
            "verdict",
            UserVerdict,
        )
        self._batches = self._counter(
            "batchwork_batches_finished",
            "Batches that ended; one that is tried again ends again.",
            "state",
            (state for state in BatchState if state.is_final),
        )
        self._items = self._counter(
            "batchwork_items_finished",
            "Items of batches that ended, all of them at each end.",
            "outcome",
            _OUTCOMES,
        )
        self._notifications = self._counter(
            "batchwork_notification_attempts",
            "Attempts to send a message to a target; after PENDING it is tried again.",
            "state",
            NotificationState,
        )
        self._loop_lag = Histogram(
            "batchwork_event_loop_lag_seconds",
            "How late the event loop was, measured four times a second.",
            registry=self.registry,
            buckets=_LAGS,
        )

    def users_validated(self, verdicts: Mapping[UserVerdict, int]) -> None:
        for verdict, count in verdicts.items():
            self._users.labels(verdict).inc(count)

    def references_validated(self, verdicts: Mapping[UserVerdict, int]) -> None:
        for verdict, count in verdicts.items():
            self._references.labels(verdict).inc(count)

    def batch_finished(self, batch: Batch) -> None:
        self._batches.labels(batch.state).inc()
        for outcome in _OUTCOMES:
            self._items.labels(outcome).inc(getattr(batch.counts, outcome))

    def notification_attempted(self, state: NotificationState) -> None:
        self._notifications.labels(state).inc()

    def loop_lagged(self, lag: timedelta) -> None:
        self._loop_lag.observe(lag.total_seconds())

    def _counter(self, name: str, meaning: str, label: str, values: Iterable[str]) -> Counter:
        """Makes a counter that shows a 0 for what has not happened yet."""
        counter = Counter(name, meaning, [label], registry=self.registry)
        for value in values:
            counter.labels(value)
        return counter


class MetricsServer:
    """Shows metrics by HTTP, from a thread of its own, until it is closed.

    Attributes:
        meter: What counts.
    """

    def __init__(self, meter: Metrics, server: WSGIServer, thread: Thread) -> None:
        self.meter = meter
        self._server = server
        self._thread = thread

    @classmethod
    def listening(cls, address: str) -> MetricsServer:
        """Answers at ``host:port``, where port 0 lets the system choose.

        Raises:
            ConfigurationError: nobody can listen there.
        """
        meter = Metrics()
        host, _, port = address.rpartition(":")
        try:
            server, thread = start_http_server(
                int(port), addr=host.strip("[]"), registry=meter.registry
            )
        except OSError as error:
            raise ConfigurationError(
                f"BATCHWORK_METRICS_LISTEN: nobody can listen at {address}: {error.strerror}. Name "
                "an address of this machine and a free port."
            ) from error
        return cls(meter, server, thread)

    @property
    def port(self) -> int:
        return int(self._server.server_port)

    async def close(self) -> None:
        """Returns when nobody is answered any more."""
        await asyncio.to_thread(self._server.shutdown)
        self._server.server_close()
        await asyncio.to_thread(self._thread.join)
