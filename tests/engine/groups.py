"""What of a server makes the groups of preferences fire, over a database."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

from batchwork_server.application.batches import Batches
from batchwork_server.application.firing import Firing
from batchwork_server.application.group_filling import GroupFilling
from batchwork_server.application.group_firing import GroupFiring
from batchwork_server.application.group_pages import GroupPages
from batchwork_server.application.group_schedules import GroupSchedules
from batchwork_server.application.job_imports import JobImports
from batchwork_server.application.jobs import Jobs
from batchwork_server.application.notices import JobNotices
from batchwork_server.application.planning import Planning
from batchwork_server.application.preference_views import PreferenceViews
from batchwork_server.application.preferences import Preferences
from batchwork_server.application.validation import Validation
from batchwork_server.domain.batch import Batch, BatchOptions, BatchState, StateReason
from batchwork_server.domain.filters import BatchFilter, ItemFilter, OccurrenceFilter
from batchwork_server.domain.firing import Occurrence
from batchwork_server.domain.item import Item
from batchwork_server.domain.preference import DefaultPreference, parse_wish
from batchwork_server.engine.batch_scheduler import BatchScheduler
from batchwork_server.engine.dispatch.local import LocalDispatcher
from batchwork_server.metrics import Metrics
from batchwork_server.ports import CategoryRepository
from batchwork_server.store.database import Database
from batchwork_server.store.sql_store import SqlStore
from batchwork_server.wakeups import Wakeups

from tests.factories import TENANT, make_loaded_item, make_template
from tests.fakes import START, FakeCategories, FakeClock, FakeTemplates

JOB = "job_podcast"
FEATURE = "podcast"

HOUR, DAY = timedelta(hours=1), timedelta(days=1)
TEN, SIX = START + HOUR, START + 9 * HOUR  # START is nine o'clock
AT_TEN = {"frequency": "daily", "preferred_time": "10:00"}
AT_SIX = {"frequency": "daily", "preferred_time": "18:00"}


class GroupServer:
    """A scheduler with all that it drives; several of them may share a database."""

    def __init__(
        self,
        database: Database,
        *,
        clock: FakeClock,
        zone: str = "UTC",
        source: CategoryRepository | None = None,
    ) -> None:
        self.store = SqlStore(database)
        self.clock = clock
        self.categories = FakeCategories()
        source = source or self.categories
        self.categories.add("news", make_loaded_item("news_1"), make_loaded_item("news_2"))
        templates = FakeTemplates(make_template(template_id="tpl_podcast"))
        wakeups = Wakeups()
        dispatcher = LocalDispatcher(chunks=self.store.chunks, clock=clock, wakeups=wakeups)
        planning = Planning(
            store=self.store,
            categories=source,
            validation=Validation(self.store.users),
            templates=templates,
            defaults=BatchOptions(chunk_size=10, item_timeout=timedelta(minutes=1)),
            clock=clock,
        )
        self.batches = Batches(
            store=self.store,
            planning=planning,
            dispatcher=dispatcher,
            clock=clock,
            wakeups=wakeups,
            alone=False,
            draft_timeout=timedelta(hours=1),
        )
        notices = JobNotices(
            categories=source,
            users=self.store.users,
            templates=templates,
            preferences=self.store.preferences,
        )
        self.jobs = Jobs(
            store=self.store,
            notices=notices,
            templates=templates,
            clock=clock,
            wakeups=wakeups,
            zone=zone,
        )
        self.imports = JobImports(
            store=self.store,
            notices=notices,
            templates=templates,
            clock=clock,
            wakeups=wakeups,
            zone=zone,
        )
        self.preferences = Preferences(
            store=self.store, clock=clock, changed=lambda _tenant_id: None
        )
        self.views = PreferenceViews(
            store=self.store, templates=FakeTemplates(), clock=clock, zone=zone
        )
        self.wakeups = wakeups
        self.meter = Metrics()
        self.firing = Firing(store=self.store, batches=self.batches, clock=clock, zone=zone)
        self.schedules = GroupSchedules(store=self.store, clock=clock, zone=zone)
        self.groups = GroupFiring(
            store=self.store,
            batches=self.batches,
            schedules=self.schedules,
            filling=GroupFilling(
                store=self.store,
                planning=planning,
                batches=self.batches,
                pages=GroupPages(store=self.store, zone=zone),
                dispatcher=dispatcher,
                clock=clock,
                wakeups=wakeups,
                meter=self.meter,
            ),
            clock=clock,
        )
        self.scheduler = BatchScheduler(self.firing, self.groups, clock=clock, wakeups=wakeups)

    async def put_job(self, job_id: str = JOB, **fields: Any) -> None:
        """Imports a preference-based job; its runs may go on beside each other.

        A field that is None is left out.
        """
        job = {
            "id": job_id,
            "type": "preference",
            "feature_type": FEATURE,
            "category": "news",
            "template_id": "tpl_podcast",
            "overlap": "allow",
        } | fields
        job = {name: value for name, value in job.items() if value is not None}
        text = json.dumps({"batch_processing_jobs": [job]})
        await self.imports.import_jobs(text, tenant_id=TENANT)

    async def add_users(self, *user_ids: str, active: bool = True) -> None:
        async with self.store.transaction() as tx:
            await self.store.users.load(
                tx,
                tenant_id=TENANT,
                users=[(user_id, active) for user_id in user_ids],
                now=self.clock.now(),
            )

    async def wish(self, user_id: str, feature_type: str = FEATURE, **fields: Any) -> None:
        """Stores what a user wishes, as the documents spell it."""
        wish, violations = parse_wish(fields, path="wish")
        assert wish is not None, violations
        await self.preferences.set_preference(
            wish, user_id=user_id, feature_type=feature_type, tenant_id=TENANT
        )

    async def set_default(self, **fields: Any) -> None:
        """Stores what the tenant wishes for those who say nothing."""
        wish, violations = parse_wish(fields, path="wish")
        assert wish is not None, violations
        now = self.clock.now()
        async with self.store.transaction() as tx:
            before = await self.store.preferences.lock_default(tx, FEATURE, tenant_id=TENANT)
            default = DefaultPreference(
                tenant_id=TENANT,
                feature_type=FEATURE,
                enabled=wish.enabled,
                schedule=wish.schedule,
                template_overrides=wish.template_overrides,
                revision=before.revision + 1 if before is not None else 1,
                create_time=now,
                update_time=now,
            )
            await self.store.preferences.put_default(tx, default, tenant_id=TENANT, now=now)

    async def set_active(self, user_id: str, *, active: bool) -> None:
        """Stores what whoever keeps the user says of them."""

        now, key = self.clock.now(), (FEATURE, user_id)
        async with self.store.transaction() as tx:
            found = await self.store.preferences.lock(tx, [key], tenant_id=TENANT)
            changed = replace(found[key], active=active, revision=found[key].revision + 1)
            await self.store.preferences.put(tx, [changed], tenant_id=TENANT, now=now)
            await self.store.inactive_users.put(tx, {user_id: active}, tenant_id=TENANT)

    async def run_at(self, moment: datetime) -> None:
        """Lets the scheduler look once, at that moment."""
        self.clock.advance(moment - self.clock.now())
        await self.scheduler.run_once()

    async def batches_of(self, job_id: str = JOB) -> list[Batch]:
        """Returns the batches of a job, oldest first."""
        wanted = BatchFilter(tenant_id=TENANT, job_id=job_id)
        found, _ = await self.store.batches.list(wanted, page_size=10_000, after=None, skip=0)
        return list(found)[::-1]

    async def items_of(self, batch: Batch) -> list[Item]:
        found, _ = await self.store.batches.list_items(
            batch, ItemFilter(), page_size=10_000, after=None
        )
        return list(found)

    async def fates(self, job_id: str = JOB) -> list[Mapping[str, str]]:
        """Returns for each batch what becomes of its users: an empty text for work to be done."""
        return [
            {
                item.user_id or item.item_id: item.skip_reason or ""
                for item in await self.items_of(b)
            }
            for b in await self.batches_of(job_id)
        ]

    async def occurrences_of(self, job_id: str = JOB) -> list[Occurrence]:
        """Returns what was decided about the groups of a job, oldest first."""
        wanted = OccurrenceFilter(tenant_id=TENANT, job_id=job_id)
        found, _ = await self.store.group_runs.list(wanted, page_size=10_000, before=None)
        return found[::-1]

    async def end_runs(self, job_id: str = JOB) -> None:
        """Ends what goes on of a job."""
        now = self.clock.now()
        async with self.store.transaction() as tx:
            for batch in await self.store.changes.open_runs(tx, job_id, tenant_id=TENANT):
                await self.store.changes.close(
                    tx,
                    batch.key,
                    closing=BatchState.CANCELLED,
                    reason=StateReason.CANCELLED_BY_CALLER,
                    message="",
                    stop_in_flight=False,
                    now=now,
                )
        while await self.store.changes.close_some(now=now):
            pass
