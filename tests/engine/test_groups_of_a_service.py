"""Users whose wishes a Config Database has: served on time while it is there, and while it is away.

On each database, over a whole day, with users in two zones on a day on which clocks change.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta

import pytest
import stamina
from batchwork_server.store.database import Database

from tests.config_service import ConfigService, config_service
from tests.engine.config_following import INTERVAL, Server
from tests.engine.groups import GroupServer
from tests.fakes import FakeClock

DAY_OF_CHANGE = datetime(2026, 3, 28, 12, tzinfo=UTC)  # in the night the clocks of Berlin change
USERS = {"ada": "Europe/Berlin", "eve": "Asia/Kolkata"}


@pytest.fixture(autouse=True)
def no_pauses() -> Iterator[None]:
    with stamina.set_testing(True, attempts=10, cap=True):
        yield


@pytest.fixture
async def service() -> AsyncIterator[ConfigService]:
    async with config_service() as running:
        yield running


class Day:
    """A server that follows a service and fires groups, over one database and clock."""

    def __init__(self, database: Database, service: ConfigService) -> None:
        self.service = service
        self.clock = FakeClock(DAY_OF_CHANGE)
        self.groups = GroupServer(database, clock=self.clock)
        self.follower = Server(database, service, self.clock)

    async def goes_on(self, hours: int) -> None:
        """Lets time pass; both look every four hours, or once."""
        looks = max(1, hours // 4)
        for _ in range(looks):
            await self.follower.poll()
            await self.groups.run_at(self.clock.now() + timedelta(hours=hours) / looks - INTERVAL)

    async def served(self) -> Counter[str]:
        """Returns how often each user had work done for them."""
        fates = [fate for users in await self.groups.fates() for fate in users.items()]
        return Counter(user for user, skip_reason in fates if not skip_reason)


@pytest.fixture
async def day(database: Database, service: ConfigService) -> AsyncIterator[Day]:
    day = Day(database, service)
    await day.groups.add_users(*USERS)
    await day.groups.put_job()
    for user, zone in USERS.items():
        wish = {"frequency": "daily", "preferred_time": "02:15", "time_zone": zone}
        service.set(user, podcast=wish)
    yield day
    await day.follower.client.close()


async def test_users_are_served_on_time_while_the_service_is_away(day: Day):
    await day.goes_on(1)

    await day.service.stop()
    await day.goes_on(48)

    assert await day.served() == {"ada": 2, "eve": 2}
    assert not day.follower.poller.is_well


async def test_what_changed_while_it_was_away_counts_as_soon_as_it_is_back(day: Day):
    await day.goes_on(1)
    await day.service.stop()
    await day.goes_on(4)

    day.service.set("ada", podcast={"enabled": False})
    await day.service.start()
    await day.goes_on(44)

    assert await day.served() == {"eve": 2}


async def test_a_user_who_moves_in_the_service_is_served_once_that_day(day: Day):
    await day.goes_on(16)  # both had their run

    noon = {"frequency": "daily", "preferred_time": "12:00", "time_zone": "Europe/Berlin"}
    day.service.set("ada", podcast=noon)
    await day.goes_on(8)
    same_day = await day.served()
    await day.goes_on(24)

    assert same_day == {"ada": 1, "eve": 1}
    assert await day.served() == {"ada": 2, "eve": 2}
