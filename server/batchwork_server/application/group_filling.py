"""Batches of groups get their users, a page a transaction, whoever began them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from batchwork_server.application.batches import Batches, PreparedBatch, chunks_of, submission_of
from batchwork_server.application.group_pages import GroupPages, GroupRun, Place, Stage, UserPage
from batchwork_server.application.personal_items import PersonalItems
from batchwork_server.application.planning import LARGEST_ITEM, PersonalRun, Plan, Planning
from batchwork_server.application.validation_reports import tell_found
from batchwork_server.clock import Clock
from batchwork_server.domain.batch import Batch, BatchState, UserValidation
from batchwork_server.domain.group_schedules import Filling, GroupSchedule, MemberSkip, UserRun
from batchwork_server.domain.item import ItemUser, NewItem
from batchwork_server.domain.job import StoredJob
from batchwork_server.domain.schedule import render_schedule
from batchwork_server.domain.submission import Submission
from batchwork_server.errors import InvalidArgument, Unavailable
from batchwork_server.failpoints import reach
from batchwork_server.logs import get_logger
from batchwork_server.planners.preference import MembersItem, users_of
from batchwork_server.planners.user_references import NOTHING_JUDGED, Judged
from batchwork_server.ports import Dispatcher, Meter
from batchwork_server.store.store import DueGroup, Store, Transaction, UploadPage
from batchwork_server.wakeups import Wakeups

log = get_logger(__name__)

SOURCE = "preference"
"""The source of batches that groups of preferences have made."""

LEASE = timedelta(seconds=30)
"""How long nobody else looks at a batch that is being filled, after each page."""


class Overtaken(Exception):
    """Somebody else was faster; what was planned does not hold any more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedPage:
    """Users of a run with their items.

    Attributes:
        item_users: The users of items that are for several together.
        runs: Of the users who have work.
        skips: Of the users who have none.
        references: What was found of the users whom the selected things list.
        following: Where the next page starts; None after the last one.
    """

    items: Sequence[NewItem]
    item_users: Sequence[ItemUser]
    runs: Sequence[UserRun]
    skips: Sequence[UserRun]
    users: UserValidation
    following: Place | None
    references: Judged = NOTHING_JUDGED


@dataclass(frozen=True, slots=True, kw_only=True)
class FirstPage:
    """A batch with its first page of users.

    Attributes:
        filling: Where it goes on; None when everybody is in it.
    """

    run: GroupRun
    prepared: PreparedBatch
    page: PlannedPage
    personal: PersonalItems
    filling: Filling | None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Open:
    """A batch that this process fills."""

    run: GroupRun
    filling: Filling
    personal: PersonalItems


class GroupFilling:
    """Fills the batches of groups.

    How far it got stands in the database, written in the transaction of each page: so nobody is in
    a batch twice, and what one server leaves another goes on with.
    """

    def __init__(
        self,
        *,
        store: Store,
        planning: Planning,
        batches: Batches,
        pages: GroupPages,
        dispatcher: Dispatcher,
        clock: Clock,
        wakeups: Wakeups,
        meter: Meter | None = None,
    ) -> None:
        self._store = store
        self._planning = planning
        self._batches = batches
        self._pages = pages
        self._dispatcher = dispatcher
        self._clock = clock
        self._wakeups = wakeups
        self._meter = meter
        self._open: dict[tuple[str, str, int], _Open] = {}

    def lease_from(self, now: datetime) -> datetime:
        """Returns until when nobody else looks at a batch that is filled now."""
        return now + LEASE

    async def first_page(
        self, row: GroupSchedule, job: StoredJob, *, due_time: datetime
    ) -> FirstPage | None:
        """Plans the batch of a due time and its first page; none when it is for nobody.

        Raises:
            InvalidArgument: such a batch cannot be made.
            Unavailable: a source is away.
        """
        run = await self._pages.run_of(row, job, due_time=due_time)
        if run is None:
            return None
        users = await self._pages.page(run, Place(stage=Stage.MEMBERS, since=row.last_due_time))
        if not users.preferences:
            return None
        self._store.refuse_when_full()
        submission = submission_of_run(run)
        planned = await self._planning.plan_personal(submission, tenant_id=row.tenant_id)
        prepared = self._batches.planned(
            replace(submission, is_draft=users.following is not None),
            Plan(request=planned.request, items=(), recipients=planned.recipients),
            tenant_id=row.tenant_id,
        )
        page = await self._planned_page(run, planned.items, users, batch_id=prepared.batch_id)
        return FirstPage(
            run=run,
            prepared=_with_items(prepared, planned, page, now=prepared.create_time),
            page=page,
            personal=planned.items,
            filling=_filling(prepared.batch_id, due_time, page),
        )

    def begun(self, row: GroupSchedule, first: FirstPage) -> None:
        """Goes on with a batch whose first page is durable."""
        if first.filling is not None:
            run = replace(first.run, row=row)
            self._open[row.key] = _Open(run=run, filling=first.filling, personal=first.personal)

    async def keep_terms(self, tx: Transaction, row: GroupSchedule, first: FirstPage) -> None:
        """Keeps by what a run goes that has more pages, for whoever goes on with it."""
        if first.filling is not None:
            await self._store.group_fillings.put(
                tx, row, first.run.terms, batch_id=first.filling.batch_id
            )

    async def claim(
        self, tx: Transaction, row: GroupSchedule, page: PlannedPage, *, batch_id: str
    ) -> None:
        """Writes down for whom a page is.

        Raises:
            Overtaken: one of them had their run since the page was read.
        """
        where = {"job_id": row.job_id, "tenant_id": row.tenant_id}
        if await self._store.group_runs.claim(tx, page.runs, **where) < len(page.runs):
            raise Overtaken
        await self._store.group_runs.note(tx, page.skips, **where)

    async def take_up(self, due: DueGroup) -> None:
        """Goes on with a batch that nobody fills any more, by what its first page went by."""
        row, filling = due.row, due.row.filling
        if filling is None or row.key in self._open:
            return
        async with self._store.transaction() as tx:
            until = self.lease_from(self._clock.now())
            if not await self._store.group_schedules.take_filling(tx, due, until=until):
                return
        run = await self._run_going_on(due, filling)
        if run is None:
            await self._store_page(row, filling, _nobody())
            return
        try:
            planned = await self._planning.plan_personal(
                submission_of_run(run), tenant_id=row.tenant_id
            )
        except InvalidArgument as error:
            # Its template or its category is gone; those who are in the batch have their run.
            log.warning("group.cut", batch_id=filling.batch_id, error=str(error))
            await self._store_page(row, filling, _nobody())
            return
        self._open[row.key] = _Open(run=run, filling=filling, personal=planned.items)

    async def _run_going_on(self, due: DueGroup, filling: Filling) -> GroupRun | None:
        """Returns the run that a batch is filled for; none when nobody knows it any more."""
        row = due.row
        terms = await self._store.group_fillings.get(row, batch_id=filling.batch_id)
        if terms is not None:
            return await self._pages.run_going_on(row, terms, due_time=filling.due_time)
        if due.job is None:
            return None
        # An older server began it, and kept nothing.
        return await self._pages.run_of(row, due.job, due_time=filling.due_time)

    async def fill(self) -> int:
        """Gives each batch that this process fills its next page; tells how many there were.

        Raises:
            Unavailable: a source or the database is away; nothing is lost.
        """
        opened = list(self._open.items())
        for key, each in opened:
            try:
                await self._fill(key, each)
            except Unavailable:
                # It is taken up again when its lease is over, here or elsewhere.
                self._open.pop(key, None)
                raise
        return len(opened)

    async def _fill(self, key: tuple[str, str, int], each: _Open) -> None:
        del self._open[key]
        place = Place.read(each.filling.after)
        users = await self._pages.page(each.run, place)
        page = await self._planned_page(
            each.run, each.personal, users, batch_id=each.filling.batch_id
        )
        try:
            going_on = await self._store_page(each.run.row, each.filling, page)
        except Overtaken:
            each.personal.forget()
            self._open[key] = each  # the page is read again, without those who had their run
            return
        if going_on is not None:
            self._open[key] = replace(each, filling=going_on)

    async def _store_page(
        self, row: GroupSchedule, filling: Filling, page: PlannedPage
    ) -> Filling | None:
        """Adds a page to a batch, and starts it after the last one; returns where it goes on."""
        now = self._clock.now()
        going_on = _filling(filling.batch_id, filling.due_time, page)
        async with self._store.transaction() as tx:
            after = going_on.after if going_on is not None else None
            moved = await self._store.group_schedules.go_on_filling(
                tx, row, filling, after=after, until=self.lease_from(now)
            )
            if not moved:
                return None
            if going_on is None:
                await self._store.group_fillings.drop(tx, row)
            batch = await self._store.changes.lock(tx, filling.batch_id, tenant_id=row.tenant_id)
            if batch is None or batch.state is not BatchState.DRAFT:
                # Somebody has cancelled it, or it has expired.
                last = going_on and replace(filling, after=going_on.after)
                if last is not None:
                    await self._store.group_schedules.go_on_filling(
                        tx, row, last, after=None, until=now
                    )
                    await self._store.group_fillings.drop(tx, row)
                return None
            changed = await self._append(tx, batch, page, now=now)
            await self.claim(tx, row, page, batch_id=filling.batch_id)
            if going_on is None:
                changed = await self._store.changes.seal(tx, changed, now=now) or changed
        reach("fill.committed")
        self._wakeups.batch_changed(changed)
        tell_found(
            changed,
            page.items,
            page.references.invalid,
            users=page.users,
            found=page.references.found,
            item_users=page.item_users,
            meter=self._meter,
        )
        if going_on is None:
            self._dispatcher.enqueued()
            log.info("batch.sealed", batch_id=filling.batch_id, items=changed.counts.total)
        return going_on

    async def _append(
        self, tx: Transaction, draft: Batch, page: PlannedPage, *, now: datetime
    ) -> Batch:
        options, total = draft.request.options, draft.counts.total
        upload = UploadPage(
            items=page.items,
            chunks=chunks_of(
                page.items,
                options,
                now=now,
                first_index=total,
                first_place=total // options.chunk_size,
            ),
            next_offset=draft.upload_offset + len(page.items),
            user_validation=page.users,
            reference_validation=page.references.found,
        )
        if not page.items and not page.users.total:
            return draft
        await self._store.contexts.add_users(
            tx,
            draft,
            page.item_users,
            first_index=total,
            first_place=draft.request.user_validation.total,
        )
        await self._store.validation_reports.add(
            tx,
            draft,
            page.references.invalid,
            first=draft.request.reference_validation.user_references.invalid,
        )
        return await self._store.uploads.append(tx, draft, upload, now=now) or draft

    async def _planned_page(
        self, run: GroupRun, personal: PersonalItems, users: UserPage, *, batch_id: str
    ) -> PlannedPage:
        before = personal.users
        items = await personal.plan(users.preferences, skipped=users.skipped)
        items = [_bounded(each) for each in items]
        found = personal.users
        reasons = dict(personal.without)
        for each in items:
            if each.item.skip_reason is not None:
                reasons |= dict.fromkeys(each.user_ids, each.item.skip_reason)
        item_ids = {user: each.item.item_id for each in items for user in each.user_ids}
        runs = [
            _run_of(run, users, each.user_id, batch_id, item_ids, reasons)
            for each in users.preferences
        ]
        return PlannedPage(
            items=[each.item for each in items],
            item_users=users_of(items, personal.without),
            runs=[each for each in runs if not each.look_reason],
            skips=[each for each in runs if each.look_reason],
            users=UserValidation(
                total=found.total - before.total,
                valid=found.valid - before.valid,
                invalid=found.invalid - before.invalid,
                unknown=found.unknown - before.unknown,
            ),
            references=personal.references,
            following=users.following,
        )


def submission_of_run(run: GroupRun) -> Submission:
    """Returns what the run of a group asks for."""
    submission = submission_of(run.job, source=SOURCE, due_time=run.due_time)
    return replace(submission, batch_metadata=_metadata(run))


def _metadata(run: GroupRun) -> dict[str, str]:
    """Names the group and its schedule, for people and for other systems."""
    assert run.row.schedule is not None  # noqa: S101  run_of has looked
    schedule = render_schedule(run.row.schedule)
    return {
        "group_key": str(run.row.group_key),
        **{
            name: ", ".join(map(str, value)) if isinstance(value, list) else str(value)
            for name, value in schedule.items()
        },
    }


def _with_items(
    prepared: PreparedBatch, planned: PersonalRun, page: PlannedPage, *, now: datetime
) -> PreparedBatch:
    request = replace(
        planned.request,
        user_validation=page.users,
        reference_validation=page.references.found,
    )
    return replace(
        prepared,
        plan=replace(
            prepared.plan,
            request=request,
            items=page.items,
            item_users=page.item_users,
            invalid_references=page.references.invalid,
        ),
        chunks=chunks_of(page.items, request.options, now=now),
    )


def _filling(batch_id: str, due_time: datetime, page: PlannedPage) -> Filling | None:
    if page.following is None:
        return None
    return Filling(batch_id=batch_id, due_time=due_time, after=str(page.following))


def _run_of(
    run: GroupRun,
    users: UserPage,
    user_id: str,
    batch_id: str,
    item_ids: Mapping[str, str],
    reasons: Mapping[str, str],
) -> UserRun:
    period = users.periods[user_id]
    return UserRun(
        user_id=user_id,
        due_time=run.due_time,
        period_start=period.start,
        due_day=period.day_of(run.due_time),
        period_day=period.first_day,
        batch_id=batch_id,
        item_id=item_ids.get(user_id, ""),
        group_key=run.row.group_key,
        look_due_time=run.due_time,
        look_group_key=run.row.group_key,
        look_batch_id=batch_id,
        look_reason=reasons.get(user_id, ""),
    )


def _bounded(each: MembersItem) -> MembersItem:
    """Skips an item that holds more than one may; the others go on."""
    item = each.item
    if len(item.data_json) * 4 <= LARGEST_ITEM:  # whatever its characters are
        return each
    if item.skip_reason is not None or len(item.data_json.encode()) <= LARGEST_ITEM:
        return each
    cut = replace(item, data_json="{}", skip_reason=MemberSkip.PAYLOAD_TOO_LARGE)
    return replace(each, item=cut)


def _nobody() -> PlannedPage:
    nobody = UserValidation(total=0, valid=0, invalid=0)
    return PlannedPage(items=(), item_users=(), runs=(), skips=(), users=nobody, following=None)
