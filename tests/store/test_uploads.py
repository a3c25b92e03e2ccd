"""Drafts fill page by page, and nothing of them is there twice or missing, on each database."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence

import pytest
from batchwork_server.application.batches import chunks_of
from batchwork_server.application.uploads import PAGE_ITEMS, UploadPart, Uploads
from batchwork_server.application.validation import Validation
from batchwork_server.domain.batch import Batch, BatchState, Counts, UserValidation
from batchwork_server.domain.caller import Caller
from batchwork_server.domain.filters import ItemFilter
from batchwork_server.domain.item import NewItem
from batchwork_server.domain.reference_validation import (
    CategoryCounts,
    ReferenceCounts,
    ReferenceValidation,
)
from batchwork_server.domain.selection import SelectedItem
from batchwork_server.domain.submission import Idempotency
from batchwork_server.engine.dispatch.local import LocalDispatcher
from batchwork_server.errors import (
    AlreadyExists,
    CountMismatch,
    InvalidArgument,
    OffsetGap,
    ShuttingDown,
    Violation,
    WrongState,
)
from batchwork_server.store.sql_store import SqlStore
from batchwork_server.store.store import UploadPage
from batchwork_server.wakeups import Wakeups

from tests.factories import TENANT, make_items, make_options, make_request
from tests.fakes import START, FakeClock, FakeUsers

CALLER = Caller(tenant_id=TENANT, name="ada")


@pytest.fixture
def users() -> FakeUsers:
    return FakeUsers("ada")


@pytest.fixture
def wakeups() -> Wakeups:
    return Wakeups()


@pytest.fixture
def uploads(store: SqlStore, users: FakeUsers, clock: FakeClock, wakeups: Wakeups) -> Uploads:
    return Uploads(
        store=store,
        validation=Validation(users),
        dispatcher=LocalDispatcher(chunks=store.chunks, clock=clock, wakeups=wakeups),
        clock=clock,
        wakeups=wakeups,
    )


async def draft(store: SqlStore, items: Sequence[NewItem] = (), **changes) -> Batch:
    request = make_request(**changes)
    async with store.transaction() as tx:
        return await store.batches.insert(
            tx,
            tenant_id=TENANT,
            batch_id="bat-1",
            request=request,
            items=items,
            chunks=chunks_of(items, request.options, now=START),
            now=START,
            is_draft=True,
        )


def selected(*names: str, user_id: str | None = None, data: str = "{}") -> list[SelectedItem]:
    return [SelectedItem(item_id=name, user_id=user_id, data_json=data) for name in names]


def numbered(count: int, *, first: int = 0) -> list[SelectedItem]:
    return selected(*(str(n) for n in range(first, first + count)))


async def parts(*found: tuple[int, Sequence[SelectedItem]]) -> AsyncIterator[UploadPart]:
    for offset, items in found:
        yield UploadPart(batch_id="bat-1", offset=offset, items=items)


async def seal(uploads: Uploads, expected_count: int | None = None, request_id: str = "") -> Batch:
    return await uploads.seal_batch(
        "bat-1",
        expected_count=expected_count,
        caller=CALLER,
        idempotency=Idempotency(request_id=request_id, request_hash="h"),
    )


async def stored(store: SqlStore) -> Batch:
    found = await store.batches.get("bat-1", tenant_id=TENANT)
    assert found is not None
    kept, counted = await store.chunks.check_counts(found.key)
    assert kept == counted
    return found


async def ids_in(store: SqlStore) -> list[str]:
    found: list[str] = []
    after: int | None = None
    while True:
        page, after = await store.batches.list_items(
            await stored(store), ItemFilter(), page_size=100, after=after
        )
        found += [item.item_id for item in page]
        if after is None:
            return found


async def test_items_come_after_those_of_the_creation(store, uploads):
    await draft(store, make_items(2))

    uploaded = await uploads.upload_items(parts((2, selected("a", "b"))), caller=CALLER)

    assert (uploaded.accepted, uploaded.deduplicated, uploaded.next_offset) == (2, 0, 4)
    assert await ids_in(store) == ["item-0", "item-1", "a", "b"]
    assert (await stored(store)).upload_offset == 4


async def test_tiny_messages_become_one_page_with_whole_chunks(store, uploads):
    batch = await draft(store, options=make_options(chunk_size=100))

    await uploads.upload_items(parts(*((n, selected(str(n))) for n in range(250))), caller=CALLER)
    await seal(uploads)

    events = await store.batches.events(batch.key, after=0, limit=10)
    assert [event.event_type for event in events] == [
        "batch:created",
        "batch:progress",
        "batch:sealed",
    ]
    opened = await store.chunks.next_chunks(now=START, limit=10)
    assert [count for _, count, _ in opened] == [100, 100, 50]


async def test_a_transaction_holds_no_more_than_a_page_however_much_comes(
    store, uploads, monkeypatch
):
    await draft(store)
    sizes: list[int] = []
    append = store.uploads.append

    async def measured(tx, batch: Batch, page: UploadPage, *, now):
        sizes.append(len(page.items))
        return await append(tx, batch, page, now=now)

    monkeypatch.setattr(store.uploads, "append", measured)

    await uploads.upload_items(parts((0, numbered(12_000))), caller=CALLER)

    assert sizes == [PAGE_ITEMS, PAGE_ITEMS, 2000]
    assert (await stored(store)).counts == Counts(total=12_000, pending=12_000)


async def test_a_page_ends_early_when_its_items_are_large(store, uploads):
    batch = await draft(store)
    large = selected(*(str(n) for n in range(5)), data='"' + "x" * 1_000_000 + '"')

    await uploads.upload_items(parts((0, large)), caller=CALLER)

    events = await store.batches.events(batch.key, after=1, limit=10)
    assert [event.counts.total for event in events] == [5]
    more = selected("a", data="[" + "1," * 2_100_000 + "1]")
    await uploads.upload_items(parts((5, more)), caller=CALLER)
    assert (await stored(store)).counts.total == 6


async def test_items_of_invalid_users_are_skipped_and_counted(store, uploads):
    batch = await draft(store)
    found = selected("a", user_id="ada") + selected("b", user_id="nobody") + selected("c")

    await uploads.upload_items(parts((0, found)), caller=CALLER)
    await uploads.upload_items(parts((3, selected("d", user_id="nobody"))), caller=CALLER)
    sealed = await seal(uploads)

    assert sealed.counts == Counts(total=4, pending=2, skipped=2)
    assert (await stored(store)).request.user_validation == UserValidation(
        total=3, valid=1, invalid=2
    )
    events = await store.batches.events(batch.key, after=0, limit=10)
    assert [finished for event in events for finished in event.finished] == [(1, 1), (3, 3)]


async def test_references_are_taken_out_of_each_page_and_counted_together(store, uploads):
    batch = await draft(store)
    first = selected("a", data='{"user_ids":["ada","nobody"]}') + selected("b")
    second = selected("c", data='{"member_ids":["nobody"]}')

    await uploads.upload_items(parts((0, first)), caller=CALLER)
    await uploads.upload_items(parts((2, second)), caller=CALLER)

    request = (await stored(store)).request
    assert request.reference_validation == ReferenceValidation(
        categories=CategoryCounts(total=3, valid=2, invalid=1),
        user_references=ReferenceCounts(total=3, valid=1, invalid=2),
        things=CategoryCounts(total=3, valid=2, invalid=1),
    )
    assert request.user_validation == UserValidation()
    found, _ = await store.validation_reports.invalid_references(batch, page_size=9, after=None)
    assert [each.item_id for each in found] == ["a", "c"]
    events = await store.batches.events(batch.key, after=1, limit=10)
    assert [event.kind for event in events] == ["PROGRESS", "VALIDATION"] * 2


async def test_an_item_that_lost_references_is_known_when_it_comes_again(store, uploads):
    await draft(store)
    found = selected("a", data='{"n": 1, "user_ids": ["nobody", "ada"]}')
    await uploads.upload_items(parts((0, found)), caller=CALLER)

    again = await uploads.upload_items(parts((0, found)), caller=CALLER)
    other = selected("a", data='{"n": 2, "user_ids": ["nobody", "ada"]}')
    with pytest.raises(AlreadyExists):
        await uploads.upload_items(parts((0, other)), caller=CALLER)

    assert again.deduplicated == 1
    assert (await stored(store)).request.reference_validation.user_references.total == 2


async def test_items_of_a_batch_of_users_are_users(store, uploads):
    await draft(store, batch_type="INDIVIDUAL_USERS")

    await uploads.upload_items(parts((0, selected("ada", "nobody"))), caller=CALLER)
    again = await uploads.upload_items(parts((0, selected("ada", "nobody"))), caller=CALLER)

    assert again.deduplicated == 2
    assert (await stored(store)).counts == Counts(total=2, pending=1, skipped=1)


async def test_what_is_there_with_the_same_content_is_ignored(store, uploads):
    await draft(store)
    await uploads.upload_items(parts((0, numbered(3))), caller=CALLER)

    again = await uploads.upload_items(parts((1, numbered(4, first=1))), caller=CALLER)

    assert (again.accepted, again.deduplicated, again.next_offset) == (2, 2, 5)
    assert await ids_in(store) == ["0", "1", "2", "3", "4"]


async def test_a_repeated_id_counts_for_the_offset_but_not_for_the_batch(store, uploads):
    await draft(store)

    uploaded = await uploads.upload_items(parts((0, selected("a", "b", "a", "c"))), caller=CALLER)

    assert (uploaded.accepted, uploaded.deduplicated, uploaded.next_offset) == (3, 1, 4)
    assert await ids_in(store) == ["a", "b", "c"]
    assert (await stored(store)).upload_offset == 4


@pytest.mark.parametrize(
    ("offset", "items"),
    [
        pytest.param(1, selected("b", data="[]"), id="at its place"),
        pytest.param(3, selected("x") + selected("b", data="[]"), id="at another place"),
        pytest.param(3, selected("x") + selected("b", user_id="ada"), id="other user"),
        pytest.param(2, selected("x"), id="another item where the upload was before"),
    ],
)
async def test_an_item_with_other_content_is_refused_by_name(store, uploads, offset, items):
    await draft(store)
    await uploads.upload_items(parts((0, selected("a", "b", "c"))), caller=CALLER)

    with pytest.raises(AlreadyExists, match=repr(items[-1].item_id)):
        await uploads.upload_items(parts((offset, items)), caller=CALLER)

    assert await ids_in(store) == ["a", "b", "c", *(["x"] if len(items) == 2 else [])]


async def test_a_gap_is_refused_and_what_came_before_it_stays(store, uploads):
    await draft(store)

    with pytest.raises(OffsetGap) as refused:
        await uploads.upload_items(parts((0, numbered(2)), (5, numbered(1))), caller=CALLER)

    assert refused.value.metadata == {"offset": "5", "next_offset": "2"}
    assert (await stored(store)).upload_offset == 2


async def test_a_wrong_message_keeps_what_came_before_it(store, uploads):
    await draft(store)

    async def broken() -> AsyncIterator[UploadPart]:
        yield UploadPart(batch_id="bat-1", offset=0, items=numbered(2))
        raise InvalidArgument([Violation("items[0].data_json", "It is not JSON.")])

    with pytest.raises(InvalidArgument, match="not JSON"):
        await uploads.upload_items(broken(), caller=CALLER)

    assert await ids_in(store) == ["0", "1"]


async def test_two_uploads_at_once_leave_neither_a_double_nor_a_hole(store, uploads):
    await draft(store)

    def messages() -> AsyncIterator[UploadPart]:
        return parts(*((n, numbered(100, first=n)) for n in range(0, 11_000, 100)))

    results = await asyncio.gather(
        *(uploads.upload_items(messages(), caller=CALLER) for _ in range(3))
    )

    assert sum(result.accepted for result in results) == 11_000
    assert {result.next_offset for result in results} == {11_000}
    found = await stored(store)
    assert found.counts == Counts(total=11_000, pending=11_000)
    assert found.upload_offset == 11_000


async def test_nothing_is_uploaded_to_a_batch_that_was_sealed(store, uploads):
    await draft(store, make_items(1))
    await seal(uploads)

    with pytest.raises(WrongState, match="PENDING"):
        await uploads.upload_items(parts((1, selected("a"))), caller=CALLER)


async def test_a_seal_in_the_middle_of_an_upload_ends_it(store, uploads):
    await draft(store)

    async def sealed_meanwhile() -> AsyncIterator[UploadPart]:
        yield UploadPart(batch_id="bat-1", offset=0, items=numbered(PAGE_ITEMS))
        await seal(uploads)
        yield UploadPart(batch_id="bat-1", offset=PAGE_ITEMS, items=selected("late"))

    with pytest.raises(WrongState):
        await uploads.upload_items(sealed_meanwhile(), caller=CALLER)

    assert (await stored(store)).counts.total == PAGE_ITEMS


async def test_a_server_that_stops_keeps_what_came(store, uploads):
    await draft(store)

    async def stopped_meanwhile() -> AsyncIterator[UploadPart]:
        yield UploadPart(batch_id="bat-1", offset=0, items=numbered(2))
        uploads.close()
        yield UploadPart(batch_id="bat-1", offset=2, items=selected("late"))

    with pytest.raises(ShuttingDown, match="upload_offset"):
        await uploads.upload_items(stopped_meanwhile(), caller=CALLER)

    assert await ids_in(store) == ["0", "1"]


async def test_watchers_see_an_upload_grow(store, uploads, wakeups):
    await draft(store)
    seen: list[int] = []
    wakeups.subscribe(lambda batch: seen.append(batch.counts.total))

    await uploads.upload_items(parts((0, numbered(PAGE_ITEMS + 1))), caller=CALLER)

    assert seen == [PAGE_ITEMS, PAGE_ITEMS + 1]


async def test_a_draft_is_not_handed_out_before_it_is_sealed(store, uploads):
    await draft(store, make_items(1))
    await uploads.upload_items(parts((1, selected("a"))), caller=CALLER)
    assert await store.chunks.next_chunks(now=START, limit=10) == []

    sealed = await seal(uploads, expected_count=2)

    assert sealed.state is BatchState.PENDING
    assert len(await store.chunks.next_chunks(now=START, limit=10)) == 2


async def test_a_draft_without_items_succeeds_at_once(store, uploads):
    await draft(store)

    assert (await seal(uploads)).state is BatchState.SUCCEEDED


async def test_another_number_of_items_than_expected_is_refused(store, uploads):
    await draft(store, make_items(2))

    with pytest.raises(CountMismatch) as refused:
        await seal(uploads, expected_count=3)

    assert refused.value.metadata == {"expected": "3", "found": "2"}
    assert (await stored(store)).state is BatchState.DRAFT


async def test_a_repeated_seal_returns_the_batch_as_it_is(store, uploads):
    await draft(store)
    await seal(uploads, request_id="r-1")

    again = await seal(uploads, request_id="r-1")

    assert again.state is BatchState.SUCCEEDED
    with pytest.raises(WrongState):
        await seal(uploads, request_id="r-2")
