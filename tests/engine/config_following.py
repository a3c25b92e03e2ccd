"""What of a server follows a Config Database, over a database."""

from __future__ import annotations

from datetime import timedelta

from batchwork_server.adapters.config_database import HttpConfigDatabase
from batchwork_server.application.config_drift import ConfigDrift
from batchwork_server.application.config_sync import ConfigSync
from batchwork_server.application.override_notices import OverrideNotices
from batchwork_server.application.preferences import Preferences
from batchwork_server.domain.filters import PreferenceFilter
from batchwork_server.domain.job import StoredJob, parse_job
from batchwork_server.domain.preference import Preference
from batchwork_server.domain.schedule import Daily, Schedule
from batchwork_server.engine.preference_poller import PreferencePoller
from batchwork_server.ports import TemplateService
from batchwork_server.store.database import Database
from batchwork_server.store.sql_store import SqlStore

from tests.config_service import KEY, ConfigService
from tests.factories import TENANT
from tests.fakes import FakeClock, FakeTemplates
from tests.http_service import API_KEY

INTERVAL = timedelta(seconds=60)
REREAD = timedelta(hours=1)


class Server:
    """What of a server follows a Config Database, over a database."""

    def __init__(
        self,
        database: Database,
        service: ConfigService,
        clock: FakeClock,
        *,
        key: str = KEY,
        templates: TemplateService | None = None,
    ) -> None:
        templates = templates or FakeTemplates()
        self.clock = clock
        self.store = SqlStore(database)
        self.announced: list[str] = []
        self.preferences = Preferences(store=self.store, clock=clock, changed=self.announced.append)
        self.client = HttpConfigDatabase(
            url=service.url,
            api_key=API_KEY,
            config_key=key,
            timeout=timedelta(seconds=10),
            cache_ttl=REREAD,
            clock=clock,
        )
        self.sync = ConfigSync(
            store=self.store,
            clock=clock,
            tenant_id=TENANT,
            source=f"{service.url} {key}",
            changed=self.announced.append,
            overrides=OverrideNotices(jobs=self.store.jobs, templates=templates),
        )
        self.drift = ConfigDrift(
            self.client, store=self.store, tenant_id=TENANT, ttl=REREAD, clock=clock
        )
        self.poller = PreferencePoller(
            self.client,
            sync=self.sync,
            drift=self.drift,
            interval=INTERVAL,
            reread=REREAD,
            clock=clock,
        )

    async def poll(self) -> bool:
        """Polls when it is time for it, and tells whether the source is well."""
        self.clock.advance(INTERVAL)
        await self.poller.run_once()
        return self.poller.is_well

    async def put_job(self, feature_type: str) -> None:
        """Stores a job that preferences for a feature drive."""
        fields = {
            "id": f"job_{feature_type}",
            "type": "preference",
            "feature_type": feature_type,
            "template_id": "tpl_posts",
        }
        definition, violations = parse_job(fields)
        assert definition is not None, violations
        job = StoredJob(
            definition=definition,
            tenant_id=TENANT,
            revision=1,
            source="",
            create_time=self.clock.now(),
            update_time=self.clock.now(),
        )
        async with self.store.transaction() as tx:
            await self.store.jobs.put(tx, [job])

    async def stored(self) -> dict[str, Preference]:
        """Returns each preference there is, as ``user/feature``."""
        found, _ = await self.store.preferences.list(
            PreferenceFilter(tenant_id=TENANT), page_size=1000, after=None
        )
        return {f"{each.user_id}/{each.feature_type}": each for each in found}

    async def times(self) -> dict[str, int | None]:
        """Returns the hour that each preference names."""
        return {name: hour_of(each.schedule) for name, each in (await self.stored()).items()}


def hour_of(schedule: Schedule | None) -> int | None:
    if schedule is None:
        return None
    assert isinstance(schedule.cadence, Daily)
    return schedule.cadence.at.hour
