"""The lag of the event loop is what a wait took beyond its time."""

from __future__ import annotations

import asyncio
from datetime import timedelta

from batchwork_server.engine.loop import tick
from batchwork_server.engine.loop_lag import LoopLag
from batchwork_server.metrics import Metrics

from tests.fakes import FakeClock

INTERVAL = LoopLag.INTERVAL
SECOND = timedelta(seconds=1)


class Lags(Metrics):
    """Keeps what is told."""

    def __init__(self) -> None:
        super().__init__()
        self.lags: list[timedelta] = []

    def loop_lagged(self, lag: timedelta) -> None:
        super().loop_lagged(lag)
        self.lags.append(lag)


async def test_a_loop_that_is_held_up_is_seen(clock: FakeClock):
    meter, stop = Lags(), asyncio.Event()
    lag = LoopLag(clock=clock, meter=meter)
    ticking = asyncio.create_task(
        tick("loop-lag", lag.run_once, interval=INTERVAL, clock=clock, stop=stop)
    )
    for held_up in (timedelta(0), 3 * SECOND, timedelta(0), SECOND / 2):
        await clock.waited_on()
        clock.advance(INTERVAL + held_up)
    await clock.waited_on()
    stop.set()
    await ticking

    assert meter.lags == [timedelta(0), 3 * SECOND, timedelta(0), SECOND / 2]
    shown = meter.registry.get_sample_value
    name = "batchwork_event_loop_lag_seconds"
    assert (shown(f"{name}_count"), shown(f"{name}_sum")) == (4, 3.5)
    assert [shown(f"{name}_bucket", {"le": le}) for le in ("0.001", "0.5", "5.0")] == [2, 3, 4]
