"""Batches: created, shown, cancelled."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial

from batchwork_server.application.first_answers import FirstAnswers, Request
from batchwork_server.application.plan_digest import PlanDigest, digest_of
from batchwork_server.application.planning import Plan, Planning
from batchwork_server.application.validation_reports import tell_found
from batchwork_server.clock import Clock
from batchwork_server.domain.batch import (
    Batch,
    BatchOptions,
    BatchState,
    Counts,
    StateReason,
    dispatch_time,
)
from batchwork_server.domain.caller import Caller
from batchwork_server.domain.effective_preference import default_wish_of
from batchwork_server.domain.filters import BatchFilter, ItemFilter
from batchwork_server.domain.ids import new_batch_id
from batchwork_server.domain.item import Item, NewItem
from batchwork_server.domain.job import JobShape, PreferenceSource, StoredJob
from batchwork_server.domain.job_policies import Overlap
from batchwork_server.domain.notification import NO_TARGETS, NotificationTargets
from batchwork_server.domain.submission import Idempotency, RequestedOptions, Submission
from batchwork_server.domain.waiting import PROCESSING_IS_OFF, WaitReason, is_idle, wait_reasons
from batchwork_server.errors import InvalidArgument, NotFound, PlanStale, Violation, WrongState
from batchwork_server.failpoints import reach
from batchwork_server.logs import get_logger
from batchwork_server.ports import Dispatcher, Meter
from batchwork_server.store.store import NewChunk, Store, Transaction
from batchwork_server.wakeups import Wakeups

log = get_logger(__name__)

CHUNK_BYTES = 4 * 1024 * 1024
"""A chunk ends when the data of its items has so many characters, however few they are."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PreparedBatch:
    """A batch that is planned and not stored yet."""

    submission: Submission
    tenant_id: str
    batch_id: str
    plan: Plan
    chunks: Sequence[NewChunk]
    expire_time: datetime | None
    create_time: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedRun:
    """A run of a job that nobody has asked for yet; ``digest`` tells it from others."""

    batch: Batch
    plan: Plan
    digest: PlanDigest


class Batches:
    """The use cases around batches, one transaction each.

    Args:
        alone: Whether this process is the only one that writes to the database. Then a batch
            that it works on can be shown from memory, as its last transaction left it.
        draft_timeout: When a draft expires that nobody seals.
        targets: Who can be told of the end of a batch.
        processing: Whether this server takes work.
    """

    def __init__(
        self,
        *,
        store: Store,
        planning: Planning,
        dispatcher: Dispatcher,
        clock: Clock,
        wakeups: Wakeups,
        alone: bool,
        draft_timeout: timedelta,
        processing: bool = True,
        meter: Meter | None = None,
        targets: NotificationTargets = NO_TARGETS,
    ) -> None:
        self._store = store
        self._answers = FirstAnswers(store.requests)
        self._planning = planning
        self._dispatcher = dispatcher
        self._clock = clock
        self._wakeups = wakeups
        self._draft_timeout = draft_timeout
        self._processing = processing
        self._meter = meter
        self._targets = targets
        self._live: dict[tuple[str, str], Batch] = {}
        if alone:
            wakeups.subscribe(self._remember_live)

    def _remember_live(self, batch: Batch) -> None:
        key = (batch.tenant_id, batch.batch_id)
        if batch.state.is_final:
            self._live.pop(key, None)
        else:
            self._live[key] = batch

    async def plan_batch(self, submission: Submission, *, caller: Caller) -> tuple[Batch, Plan]:
        """Returns the batch that ``create_batch`` would store, and its plan; stores nothing."""
        plan = await self._planning.plan(submission, tenant_id=caller.tenant_id)
        now = self._clock.now()
        skipped = sum(plan.skips.values())
        total = len(plan.items)
        batch = Batch(
            key=0,
            batch_id=submission.batch_id,
            tenant_id=caller.tenant_id,
            state=_planned_state(submission, plan),
            counts=Counts(total=total, pending=total - skipped, skipped=skipped),
            request=plan.request,
            create_time=now,
            update_time=now,
        )
        return batch, plan

    async def create_batch(
        self,
        submission: Submission,
        *,
        caller: Caller,
        idempotency: Idempotency,
        method: str = "CreateBatch",
        planned: PlanDigest | None = None,
        overlap: Overlap = Overlap.ALLOW,
    ) -> Batch:
        """Stores a batch and announces its work; the same request again returns the same batch.

        Args:
            submission: What the batch is to be made of.
            caller: Who asks for it.
            idempotency: Names the request.
            method: Of the request.
            planned: When given, what the batch must be.
            overlap: What is done about other runs of the same job; it cannot wait for them.

        Raises:
            InvalidArgument: with every violation at once.
            PlanStale: the batch would not be what was planned.
            WrongState: another run of the job goes on, and ``overlap`` says SKIP.
            AlreadyExists: the batch id is taken.
            RequestIdReused: the request id was used with other content.
            StorageFull: there is too little space to accept more.
            Unavailable: nothing was stored; safe to call again with the same request id.
        """
        tenant_id = caller.tenant_id
        request = Request(method=method, tenant_id=tenant_id, idempotency=idempotency)
        known = await self._first_answer(request)
        if known is not None:
            return known
        prepared = await self.prepare(submission, tenant_id=tenant_id)
        changed = await _changed_since(planned, prepared.plan)
        async with self._store.transaction() as tx:
            answer = await self._answers.replay(tx, request, now=prepared.create_time)
            if answer is not None:
                return await self.get_batch(answer["batch_id"], tenant_id=tenant_id)
            if changed:
                raise PlanStale(submission.job_id, changed)
            cancelled = await self._make_room(tx, prepared, overlap)
            batch = await self.insert(tx, prepared)
            await self._answers.remember(tx, request, {"batch_id": batch.batch_id})
            tell = partial(self.announce, batch, plan=prepared.plan, cancelled=cancelled)
            tx.after_commit.append(tell)
        reach("create.committed")
        return batch

    async def _make_room(
        self, tx: Transaction, prepared: PreparedBatch, overlap: Overlap
    ) -> Sequence[Batch]:
        """Looks at what goes on of a job that is to run; returns what was cancelled for it."""
        if overlap is Overlap.ALLOW:
            return ()
        job_id, tenant_id = prepared.submission.job_id, prepared.tenant_id
        await self._store.occurrences.hold(tx, job_id, tenant_id=tenant_id)
        if overlap is Overlap.CANCEL_PREVIOUS:
            return await self.cancel_runs(tx, prepared, now=prepared.create_time)
        for run in await self._store.changes.open_runs(tx, job_id, tenant_id=tenant_id):
            raise WrongState(
                "job",
                job_id,
                state=run.state,
                verb="run",
                message=f"The run {run.batch_id!r} of the job {job_id!r} is {run.state}; wait for "
                "its end, or leave overlap out to run beside it.",
            )
        return ()

    async def prepare(self, submission: Submission, *, tenant_id: str) -> PreparedBatch:
        """Plans a batch, which reads a lot, outside of the transaction that is to store it.

        Raises:
            InvalidArgument: with every violation at once.
            StorageFull: there is too little space to accept more.
            Unavailable: a source is away.
        """
        self._store.refuse_when_full()
        plan = await self._planning.plan(submission, tenant_id=tenant_id)
        return self.planned(submission, plan, tenant_id=tenant_id)

    def planned(self, submission: Submission, plan: Plan, *, tenant_id: str) -> PreparedBatch:
        """Returns the batch of a plan, which nobody has stored yet."""
        now = self._clock.now()
        return PreparedBatch(
            submission=submission,
            tenant_id=tenant_id,
            batch_id=submission.batch_id or new_batch_id(source=submission.source, now=now),
            plan=plan,
            chunks=chunks_of(plan.items, plan.request.options, now=now),
            expire_time=self._expire_time(submission, plan.request.options, now=now),
            create_time=now,
        )

    async def insert(self, tx: Transaction, prepared: PreparedBatch) -> Batch:
        """Stores a batch; whoever commits announces it.

        Raises:
            AlreadyExists: the batch id is taken.
        """
        batch = await self._store.batches.insert(
            tx,
            tenant_id=prepared.tenant_id,
            batch_id=prepared.batch_id,
            request=prepared.plan.request,
            items=prepared.plan.items,
            chunks=prepared.chunks,
            now=prepared.create_time,
            expire_time=prepared.expire_time,
            is_draft=prepared.submission.is_draft,
            is_deferred=prepared.plan.is_deferred,
        )
        await self._store.references.add(tx, batch, prepared.plan.recipients)
        await self._store.validation_reports.add(tx, batch, prepared.plan.invalid_references)
        await self._store.contexts.add_users(tx, batch, prepared.plan.item_users)
        await self._add_notifications(tx, batch)
        await self._dispatcher.enqueue(tx, len(prepared.chunks))
        return batch

    async def _add_notifications(self, tx: Transaction, batch: Batch) -> None:
        named = (
            self._targets.get(name, tenant_id=batch.tenant_id)
            for name in batch.request.options.notification_targets
        )
        targets = [target for target in named if target is not None]
        await self._store.notifications.add(tx, batch, targets, now=batch.create_time)

    async def cancel_runs(
        self, tx: Transaction, newer: PreparedBatch, *, now: datetime
    ) -> list[Batch]:
        """Cancels the runs of a job that go on, for a newer one; whoever commits announces them."""
        changes, job_id = self._store.changes, newer.submission.job_id
        runs = await changes.open_runs(tx, job_id, tenant_id=newer.tenant_id)
        return await self.cancel_for(tx, runs, newer, now=now)

    async def cancel_for(
        self, tx: Transaction, runs: Sequence[Batch], newer: PreparedBatch, *, now: datetime
    ) -> list[Batch]:
        """Cancels batches that go on, for a newer one; whoever commits announces them."""
        changes = self._store.changes
        cancelled: list[Batch] = []
        for batch in runs:
            closed = await changes.close(
                tx,
                batch.key,
                closing=BatchState.CANCELLED,
                reason=StateReason.NEWER_RUN,
                message=f"The run {newer.batch_id} of the job took its place.",
                stop_in_flight=True,
                now=now,
            )
            changed = closed or await changes.stop_in_flight(tx, batch.key, now=now)
            if changed is not None:
                cancelled.append(changed)
        return cancelled

    def announce(self, batch: Batch, *, plan: Plan, cancelled: Sequence[Batch] = ()) -> None:
        """Tells the engine that there is a batch, once it is durable.

        Args:
            batch: As it was stored.
            plan: Of which it was made.
            cancelled: The batches whose place it took.
        """
        for each in cancelled:
            self._wakeups.batch_changed(each)
            log.info("batch.cancelled", **_named(each), state=each.state, newer=batch.batch_id)
        self._dispatcher.enqueued()
        log.info(
            "batch.created",
            **_named(batch),
            items=batch.counts.total,
            skipped=batch.counts.skipped,
            job_id=batch.request.job_id,
        )
        tell_found(
            batch,
            plan.items,
            plan.invalid_references,
            users=plan.request.user_validation,
            found=plan.request.reference_validation,
            item_users=plan.item_users,
            meter=self._meter,
        )
        if batch.state.is_final:
            self._wakeups.batch_changed(batch)  # nobody else will tell of its end

    def _expire_time(
        self, submission: Submission, options: BatchOptions, *, now: datetime
    ) -> datetime | None:
        """Returns when the batch is over, whatever is left of it; a draft when nobody seals it."""
        longest = self._draft_timeout if submission.is_draft else options.batch_timeout
        return None if longest is None else now + longest

    async def _first_answer(self, request: Request) -> Batch | None:
        """Returns the batch of the same request before, without the cost of planning it again."""
        answer = await self._answers.find(request)
        if answer is None:
            return None
        return await self.get_batch(answer["batch_id"], tenant_id=request.tenant_id)

    async def plan_job(
        self, job: StoredJob, *, caller: Caller, user_ids: frozenset[str] = frozenset()
    ) -> PlannedRun:
        """Returns what ``run_job`` would store now; stores nothing.

        Raises:
            InvalidArgument: with every violation at once.
            Unavailable: a source is away.
        """
        _refuse_users_of_one_object(job, user_ids)
        batch, plan = await self.plan_batch(submission_of(job, user_ids=user_ids), caller=caller)
        digest = await asyncio.to_thread(digest_of, plan)
        return PlannedRun(batch=batch, plan=plan, digest=digest)

    async def run_job(
        self,
        job_id: str,
        *,
        caller: Caller,
        idempotency: Idempotency,
        user_ids: frozenset[str] = frozenset(),
        planned: PlanDigest | None = None,
        overlap: Overlap = Overlap.ALLOW,
    ) -> Batch:
        """Runs a job now; when something was planned, exactly that or nothing.

        The same request again returns the same batch, also of a deleted job.

        Raises:
            NotFound: there is no such job, or it is not the caller's.
            WrongState: another run of it goes on, and ``overlap`` says SKIP.
        """
        request = Request(method="RunJob", tenant_id=caller.tenant_id, idempotency=idempotency)
        known = await self._first_answer(request)
        if known is not None:
            return known
        job = await self._store.jobs.get(job_id, tenant_id=caller.tenant_id)
        if job is None:
            raise NotFound("job", job_id)
        _refuse_users_of_one_object(job, user_ids)
        return await self.create_batch(
            submission_of(job, user_ids=user_ids),
            caller=caller,
            idempotency=idempotency,
            method=request.method,
            planned=planned,
            overlap=overlap,
        )

    async def get_batch(self, batch_id: str, *, tenant_id: str | None) -> Batch:
        """Returns a batch; without a tenant, of any tenant.

        Raises:
            NotFound: there is none that the caller may see.
        """
        live = self._live.get((tenant_id, batch_id)) if tenant_id is not None else None
        batch = live or await self._store.batches.get(batch_id, tenant_id=tenant_id)
        if batch is None:
            raise NotFound("batch", batch_id)
        return batch

    async def wait_reasons(self, batch: Batch) -> list[WaitReason]:
        """Returns what a batch waits for; nothing while it goes on or when it is over."""
        if not is_idle(batch):
            return wait_reasons(batch)
        if not self._processing:
            return [PROCESSING_IS_OFF]
        work = await self._store.batches.open_work(batch.key, now=self._clock.now())
        return wait_reasons(batch, work)

    async def list_batches(
        self, matching: BatchFilter, *, page_size: int, after: int | None, skip: int
    ) -> tuple[Sequence[Batch], int | None]:
        """Returns a page of batches, newest first, and where the next one starts."""
        return await self._store.batches.list(matching, page_size=page_size, after=after, skip=skip)

    async def get_item(self, batch_id: str, item_id: str, *, tenant_id: str | None) -> Item:
        """Returns an item with its attempts.

        Raises:
            NotFound: there is no such batch, or it has no such item.
        """
        batch = await self.get_batch(batch_id, tenant_id=tenant_id)
        item = await self._store.batches.get_item(batch, item_id)
        if item is None:
            raise NotFound("item", f"{batch_id}/{item_id}")
        return item

    async def list_items(
        self,
        batch_id: str,
        matching: ItemFilter,
        *,
        tenant_id: str | None,
        page_size: int,
        after: int | None,
    ) -> tuple[Sequence[Item], int | None]:
        """Returns a page of items in the order of the batch, and where the next one starts."""
        batch = await self.get_batch(batch_id, tenant_id=tenant_id)
        return await self._store.batches.list_items(
            batch, matching, page_size=page_size, after=after
        )


def _planned_state(submission: Submission, plan: Plan) -> BatchState:
    if submission.is_draft:
        return BatchState.DRAFT
    return BatchState.PAUSED if plan.is_deferred else BatchState.PENDING


async def _changed_since(planned: PlanDigest | None, plan: Plan) -> tuple[str, ...]:
    """Returns the parts of a plan that are not as they were planned."""
    if planned is None:
        return ()
    return (await asyncio.to_thread(digest_of, plan)).changed_since(planned)


def _refuse_users_of_one_object(job: StoredJob, user_ids: frozenset[str]) -> None:
    if user_ids and job.definition.shape is not JobShape.INDIVIDUAL:
        raise InvalidArgument(
            [
                Violation(
                    "user_ids",
                    f"The job {job.definition.job_id!r} has the shape {job.definition.shape}, "
                    "one item for all its users; leave user_ids out.",
                )
            ]
        )


def _named(batch: Batch) -> dict[str, str]:
    return {"batch_id": batch.batch_id, "tenant_id": batch.tenant_id}


def chunks_of(
    items: Sequence[NewItem],
    options: BatchOptions,
    *,
    now: datetime,
    first_index: int = 0,
    first_place: int = 0,
) -> list[NewChunk]:
    """Cuts items into ranges that are dispatched and committed together.

    A range without anything to do is left out.

    Args:
        first_index: The place of the first of the items in the batch.
        first_place: The place of the first range among those of the batch.
    """
    chunks: list[NewChunk] = []
    first, size, work = first_index, 0, False
    last = first_index + len(items) - 1
    for index, item in enumerate(items, first_index):
        size += len(item.data_json)
        work = work or item.skip_reason is None
        if index == last or index - first + 1 >= options.chunk_size or size >= CHUNK_BYTES:
            if work:
                chunks.append(
                    NewChunk(
                        first_index=first,
                        item_count=index - first + 1,
                        due_time=now,
                        dispatch_time=dispatch_time(
                            due=now,
                            handicap=options.handicap,
                            place=first_place + len(chunks),
                            chunk_duration=options.chunk_duration,
                        ),
                    )
                )
            first, size, work = index + 1, 0, False
    return chunks


def submission_of(
    job: StoredJob,
    *,
    user_ids: frozenset[str] = frozenset(),
    source: str = "job",
    due_time: datetime | None = None,
) -> Submission:
    """Returns what a run of a job asks for.

    Args:
        job: The job.
        user_ids: Whose items; all of them when there are none.
        source: What made it run.
        due_time: When it was due; none for a run on request.
    """
    definition, wish = job.definition, default_wish_of(job)
    return Submission(
        categories=definition.categories,
        filters=definition.filters,
        limit=definition.limit,
        shape=definition.shape,
        data_source=definition.data_source,
        preference_source=definition.preference_source,
        template_id=definition.template_id,
        operation=definition.operation,
        feature_type=definition.feature_type,
        options=RequestedOptions(
            retry_limit=definition.retry_limit,
            priority=definition.priority,
            retry=definition.retry_policy,
            batch_timeout=definition.batch_timeout,
            failure_policy=definition.failure_policy,
            notify_on_complete=definition.notify_on_complete,
            notification_targets=definition.notification_targets,
            users_away=definition.users_away,
        ),
        display_name=definition.display_name,
        description=definition.description,
        source=source,
        purpose_id=definition.purpose_id,
        job_id=definition.job_id,
        job_revision=job.revision,
        user_ids=user_ids,
        recipient_ids=definition.distribution_user_ids if definition.distribute_results else (),
        delivers_own=definition.distribute_results
        and definition.preference_source is PreferenceSource.DYNAMIC,
        due_time=due_time,
        default_overrides={} if wish is None else wish.template_overrides,
        default_enabled=wish is None or wish.enabled,
        include_all_users=definition.include_all_users,
    )
