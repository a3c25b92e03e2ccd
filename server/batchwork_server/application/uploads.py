"""Large batches on their way in: drafts that take items page by page, and are sealed."""

from __future__ import annotations

from collections.abc import AsyncIterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

from batchwork_server.application.batches import chunks_of
from batchwork_server.application.first_answers import FirstAnswers, Request
from batchwork_server.application.validation import Validation
from batchwork_server.application.validation_reports import tell_found
from batchwork_server.clock import Clock
from batchwork_server.domain.batch import Batch, BatchState, UserValidation
from batchwork_server.domain.caller import Caller
from batchwork_server.domain.item import NewItem
from batchwork_server.domain.job import DataSource, JobShape, PreferenceSource, batch_type_of
from batchwork_server.domain.selection import SelectedItem
from batchwork_server.domain.submission import Idempotency
from batchwork_server.domain.transition import Verb
from batchwork_server.domain.user import UsersAway, UserVerdict
from batchwork_server.errors import (
    AlreadyExists,
    CountMismatch,
    InvalidArgument,
    NotFound,
    OffsetGap,
    ShuttingDown,
    Violation,
    WrongState,
)
from batchwork_server.failpoints import reach
from batchwork_server.logs import get_logger
from batchwork_server.planners import Selected, plan
from batchwork_server.planners.selected import INLINE
from batchwork_server.planners.user_references import Judged, UserReferences, is_remnant
from batchwork_server.ports import Dispatcher, Meter
from batchwork_server.store.store import Store, Transaction, UploadPage
from batchwork_server.wakeups import Wakeups

log = get_logger(__name__)

PAGE_ITEMS = 5000
"""A transaction of an upload takes at most so many items."""

PAGE_BYTES = 4 * 1024 * 1024
"""It takes no more when the data of its items has so many characters."""

_OF_USERS = batch_type_of(JobShape.INDIVIDUAL, DataSource.USERS, PreferenceSource.STATIC)


@dataclass(frozen=True, slots=True, kw_only=True)
class UploadPart:
    """Items that came in one message, and the place of the first of them in the upload."""

    batch_id: str
    offset: int
    items: Sequence[SelectedItem]


@dataclass(frozen=True, slots=True, kw_only=True)
class Uploaded:
    """What a call has added.

    Attributes:
        deduplicated: Items that were there already.
        next_offset: From where the upload goes on.
    """

    accepted: int
    deduplicated: int
    next_offset: int


class Uploads:
    """The use cases behind ``UploadItems`` and ``SealBatch``."""

    def __init__(
        self,
        *,
        store: Store,
        validation: Validation,
        dispatcher: Dispatcher,
        clock: Clock,
        wakeups: Wakeups,
        meter: Meter | None = None,
    ) -> None:
        self._store = store
        self._answers = FirstAnswers(store.requests)
        self._validation = validation
        self._dispatcher = dispatcher
        self._clock = clock
        self._wakeups = wakeups
        self._meter = meter
        self._closing = False

    def close(self) -> None:
        """Ends every upload with its next message; what came before is stored."""
        self._closing = True

    async def upload_items(self, parts: AsyncIterable[UploadPart], *, caller: Caller) -> Uploaded:
        """Adds items to a draft, some thousands a transaction.

        When it fails in the middle, what was stored before stays, and the draft's upload offset
        tells how much that is.

        Raises:
            InvalidArgument: an item is wrong, and nothing of its part was stored.
            OffsetGap: items before these are missing.
            NotFound: there is no such draft.
            WrongState: the batch is no draft.
            AlreadyExists: an item is there with other content; what came before it was stored.
            Unavailable: go on from the draft's upload offset.
        """
        upload: _Upload | None = None
        try:
            async for part in parts:
                self._refuse_when_closing()
                if upload is None:
                    batch = await self._draft(part.batch_id, tenant_id=caller.tenant_id)
                    upload = _Upload(batch, uploads=self)
                await upload.take(part)
        except (InvalidArgument, ShuttingDown):
            if upload is not None:
                await upload.flush()
            raise
        if upload is None:
            message = "The first message names the draft; there was none."
            raise InvalidArgument([Violation("batch_id", message)])
        await upload.flush()
        log.info(
            "batch.uploaded",
            batch_id=upload.batch.batch_id,
            tenant_id=caller.tenant_id,
            accepted=upload.uploaded.accepted,
            deduplicated=upload.uploaded.deduplicated,
            next_offset=upload.uploaded.next_offset,
        )
        return upload.uploaded

    def _refuse_when_closing(self) -> None:
        if self._closing:
            raise ShuttingDown(
                "The server shuts down; read the draft and go on at its upload_offset."
            )

    async def _draft(self, batch_id: str, *, tenant_id: str) -> Batch:
        batch = await self._store.batches.get(batch_id, tenant_id=tenant_id)
        return _checked(batch, batch_id)

    async def next_offset(self, batch: Batch) -> int:
        """Returns from where the upload to a draft goes on, wherever it comes from."""
        current = await self._draft(batch.batch_id, tenant_id=batch.tenant_id)
        return current.upload_offset

    async def store_page(
        self, batch: Batch, items: Sequence[SelectedItem], *, first: int
    ) -> Uploaded:
        """Stores the items of an upload from the offset ``first`` on, in one transaction.

        Raises:
            AlreadyExists: an item is there with other content; what came before it was stored.
        """
        owned = _owned(items, batch)
        verdicts = await self._verdicts(owned, batch)
        self._store.refuse_when_full()
        async with self._store.transaction() as tx:
            locked = await self._store.changes.lock(tx, batch.batch_id, tenant_id=batch.tenant_id)
            draft = _checked(locked, batch.batch_id)
            if first > draft.upload_offset:
                raise OffsetGap(offset=first, next_offset=draft.upload_offset)
            sorted_out = await self._sort_out(tx, draft, owned, first=first)
            uploaded = Uploaded(
                accepted=len(sorted_out.new),
                deduplicated=sorted_out.taken - len(sorted_out.new),
                next_offset=max(draft.upload_offset, first + sorted_out.taken),
            )
            page = _planned(sorted_out.new, draft, verdicts)
            changed = await self._append(tx, draft, page, next_offset=uploaded.next_offset)
            if changed is not None:
                tx.after_commit.append(partial(self._tell_stored, changed, page))
        reach("upload.committed")
        if sorted_out.taken < len(owned):
            raise _conflict(batch, owned[sorted_out.taken], offset=first + sorted_out.taken)
        return uploaded

    def _tell_stored(self, changed: Batch, page: _Page) -> None:
        self._wakeups.batch_changed(changed)
        tell_found(
            changed,
            page.items,
            page.references.invalid,
            users=page.users,
            found=page.references.found,
            meter=self._meter,
        )

    async def _verdicts(
        self, items: Sequence[SelectedItem], batch: Batch
    ) -> Mapping[str, UserVerdict]:
        """Returns a verdict for every user whom the items name."""
        users = [item.user_id for item in items if item.user_id is not None]
        named = [*users, *_references_in(items, batch).user_ids]
        if not named:
            return {}
        return await self._validation.verdicts(
            named, tenant_id=batch.tenant_id, away=_away_in_a_draft(batch)
        )

    async def _sort_out(
        self, tx: Transaction, draft: Batch, items: Sequence[SelectedItem], *, first: int
    ) -> _SortedOut:
        ids = [item.item_id for item in items]
        present = await self._store.uploads.present(tx, draft.key, ids)
        return _sort_out(items, present, there=draft.upload_offset - first)

    async def _append(
        self, tx: Transaction, draft: Batch, page: _Page, *, next_offset: int
    ) -> Batch | None:
        """Adds what is new to the draft; returns none when nothing is."""
        new = page.items
        if not new and next_offset == draft.upload_offset:
            return None
        now = self._clock.now()
        options, total = draft.request.options, draft.counts.total
        chunks = chunks_of(
            new, options, now=now, first_index=total, first_place=total // options.chunk_size
        )
        upload = UploadPage(
            items=new,
            chunks=chunks,
            next_offset=next_offset,
            user_validation=page.users,
            reference_validation=page.references.found,
        )
        appended = await self._store.uploads.append(tx, draft, upload, now=now)
        if appended is not None:
            before = draft.request.reference_validation.user_references.invalid
            await self._store.validation_reports.add(
                tx, draft, page.references.invalid, first=before
            )
        return appended

    async def seal_batch(
        self,
        batch_id: str,
        *,
        expected_count: int | None,
        caller: Caller,
        idempotency: Idempotency,
    ) -> Batch:
        """Ends the upload to a draft and starts the batch; one without work is over at once.

        Raises:
            NotFound: there is no such batch.
            WrongState: it is no draft.
            CountMismatch: it holds another number of items than expected.
            RequestIdReused: the request id was used with other content.
        """
        tenant_id, now = caller.tenant_id, self._clock.now()
        request = Request(method="SealBatch", tenant_id=tenant_id, idempotency=idempotency)
        async with self._store.transaction() as tx:
            answer = await self._answers.replay(tx, request, now=self._clock.now())
            locked = await self._store.changes.lock(tx, batch_id, tenant_id=tenant_id)
            if answer is not None and locked is not None:
                return locked
            draft = _checked(locked, batch_id, verb=Verb.SEAL)
            if expected_count is not None and expected_count != draft.counts.total:
                raise CountMismatch(
                    "batch", batch_id, expected=expected_count, found=draft.counts.total
                )
            sealed = await self._store.changes.seal(tx, draft, now=now)
            await self._answers.remember(tx, request, {"batch_id": batch_id})
            sealed = sealed or draft
            tx.after_commit.append(partial(self._tell_sealed, sealed))
        reach("seal.committed")
        return sealed

    def _tell_sealed(self, sealed: Batch) -> None:
        self._wakeups.batch_changed(sealed)
        self._dispatcher.enqueued()
        log.info(
            "batch.sealed",
            batch_id=sealed.batch_id,
            tenant_id=sealed.tenant_id,
            items=sealed.counts.total,
            state=sealed.state,
        )


class _Upload:
    """One call: what it has not stored yet, and what it has.

    Tiny messages are gathered, so that they make neither tiny chunks nor a transaction each, and
    large ones are cut, so that memory stays the same however much comes.
    """

    def __init__(self, batch: Batch, *, uploads: Uploads) -> None:
        self.batch = batch
        self.uploaded = Uploaded(accepted=0, deduplicated=0, next_offset=batch.upload_offset)
        self._uploads = uploads
        self._first = batch.upload_offset
        self._items: list[SelectedItem] = []
        self._size = 0

    async def take(self, part: UploadPart) -> None:
        if part.items and part.offset != self._first + len(self._items):
            await self.flush()
            await self._go_on_at(part.offset)
        for item in part.items:
            self._items.append(item)
            self._size += len(item.data_json)
            if len(self._items) >= PAGE_ITEMS or self._size >= PAGE_BYTES:
                await self.flush()

    async def _go_on_at(self, offset: int) -> None:
        next_offset = self.uploaded.next_offset
        if offset > next_offset:
            next_offset = await self._uploads.next_offset(self.batch)
        if offset > next_offset:
            raise OffsetGap(offset=offset, next_offset=next_offset)
        self._first = offset

    async def flush(self) -> None:
        """Stores what came so far."""
        if not self._items:
            return
        items, first = self._items, self._first
        self._items, self._size, self._first = [], 0, first + len(items)
        stored = await self._uploads.store_page(self.batch, items, first=first)
        self.uploaded = replace(
            stored,
            accepted=self.uploaded.accepted + stored.accepted,
            deduplicated=self.uploaded.deduplicated + stored.deduplicated,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class _SortedOut:
    """What of a page is new, and how many of its items can be taken before the first conflict."""

    new: Sequence[SelectedItem]
    taken: int


def _sort_out(
    items: Sequence[SelectedItem], present: Mapping[str, SelectedItem], *, there: int
) -> _SortedOut:
    """Tells new items from repeated ones.

    Args:
        there: So many of the items lie before the end of the upload and must be there.
    """
    known = dict(present)
    new: list[SelectedItem] = []
    for place, item in enumerate(items):
        found = known.get(item.item_id)
        if found is None and place >= there:
            known[item.item_id] = item
            new.append(item)
        elif found is None or not _is_same(item, found):
            return _SortedOut(new=new, taken=place)
    return _SortedOut(new=new, taken=len(items))


def _is_same(item: SelectedItem, found: SelectedItem) -> bool:
    """Tells whether an item is what is there, but for references that were taken out of it."""
    if found == item:
        return True
    return found.user_id == item.user_id and is_remnant(found.data_json, item.data_json)


def _checked(batch: Batch | None, batch_id: str, *, verb: str = "uploaded to") -> Batch:
    if batch is None:
        raise NotFound("batch", batch_id)
    if batch.state is not BatchState.DRAFT:
        raise WrongState("batch", batch_id, state=batch.state, verb=verb)
    return batch


def _owned(items: Sequence[SelectedItem], batch: Batch) -> Sequence[SelectedItem]:
    """Gives each item its user; an item of a batch of users is one."""
    if batch.request.batch_type != _OF_USERS:
        return items
    return [replace(item, user_id=item.user_id or item.item_id) for item in items]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Page:
    """Items as they are to be stored, and what was found of the users whom they list."""

    items: Sequence[NewItem]
    users: UserValidation
    references: Judged


def _planned(
    items: Sequence[SelectedItem], draft: Batch, verdicts: Mapping[str, UserVerdict]
) -> _Page:
    judged = _references_in(items, draft).judged(verdicts)
    selected = Selected(groups={INLINE: items} | dict(judged.groups), verdicts=verdicts)
    return _Page(
        items=plan(JobShape.INDIVIDUAL, selected),
        users=UserValidation.of(verdicts[item.user_id] for item in items if item.user_id),
        references=judged,
    )


def _references_in(items: Sequence[SelectedItem], batch: Batch) -> UserReferences:
    of_users = batch.request.batch_type == _OF_USERS
    return UserReferences({} if of_users else {INLINE: items})


def _away_in_a_draft(batch: Batch) -> UsersAway:
    """Returns what counts while items are uploaded: nothing of a draft begins, so none is deferred.

    Whoever uploads goes on from the draft's offset when the source is back.
    """
    away = batch.request.options.users_away
    return UsersAway.FAIL if away is UsersAway.DEFER else away


def _conflict(batch: Batch, item: SelectedItem, *, offset: int) -> AlreadyExists:
    return AlreadyExists(
        "item",
        f"{batch.batch_id}/{item.item_id}",
        f"The item {item.item_id!r} at offset {offset} is not what the draft {batch.batch_id!r} "
        "holds under its id or at its place; upload it as it was, or give it another id.",
    )
