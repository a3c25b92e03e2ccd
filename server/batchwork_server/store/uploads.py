"""Drafts: items added page by page, each page with its place in the upload."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime

import orjson

from batchwork_server.domain.batch import Batch, BatchRequest
from batchwork_server.domain.selection import SelectedItem
from batchwork_server.store import events
from batchwork_server.store.batches import insert_chunks, insert_items
from batchwork_server.store.rows import BATCH_COLUMNS, batch_from, request_to
from batchwork_server.store.statements import Row, dialect_of, run
from batchwork_server.store.store import Transaction, UploadPage
from batchwork_server.store.times import to_micros

_APPEND = f"""
UPDATE batches SET
  total = total + ?, pending = pending + ?, skipped = skipped + ?, open_chunks = open_chunks + ?,
  upload_offset = ?, request_json = COALESCE(?, request_json),
  event_sequence = event_sequence + ?, update_time = ?
WHERE batch_key = ? AND state = 'DRAFT' AND upload_offset = ?
RETURNING {BATCH_COLUMNS}
"""
_PRESENT = "SELECT item_id, user_id, data_json FROM items WHERE batch_key = ? AND item_id "


class SqlUploads:
    """Implements ``UploadStore``."""

    async def present(
        self, tx: Transaction, batch_key: int, item_ids: Sequence[str]
    ) -> Mapping[str, SelectedItem]:
        if dialect_of(tx.connection) == "sqlite":
            condition = "IN (SELECT value FROM json_each(?))"
            ids: str | list[str] = orjson.dumps(list(item_ids)).decode()
        else:
            condition, ids = "= ANY(?::text[])", list(item_ids)
        rows = await run(tx.connection, _PRESENT + condition, (batch_key, ids))
        return {
            item_id: SelectedItem(item_id=item_id, user_id=user_id, data_json=data_json)
            for item_id, user_id, data_json in rows
        }

    async def append(
        self, tx: Transaction, batch: Batch, page: UploadPage, *, now: datetime
    ) -> Batch | None:
        first = batch.counts.total
        skipped = [n for n, item in enumerate(page.items, first) if item.skip_reason is not None]
        rows = await run(
            tx.connection,
            _APPEND,
            (
                *(len(page.items), len(page.items) - len(skipped), len(skipped)),
                *(len(page.chunks), page.next_offset, _request_with(batch.request, page)),
                *(_facts_in(page), to_micros(now), batch.key, batch.upload_offset),
            ),
        )
        if not rows:
            return None
        appended = batch_from(rows[0])
        if page.items:
            await insert_items(tx.connection, batch.key, page.items, first=first, now=now)
            await insert_chunks(tx.connection, batch.key, page.chunks, state="HELD")
            facts = _facts_of(appended, skipped, page, now=now)
            await events.insert(tx.connection, facts)
        return appended


def _facts_in(page: UploadPage) -> int:
    """Returns how many events a page makes."""
    return bool(page.items) + _has_validated(page)


def _has_validated(page: UploadPage) -> bool:
    return page.user_validation.total > 0 or page.reference_validation.names_users


def _facts_of(
    appended: Batch, skipped: Sequence[int], page: UploadPage, *, now: datetime
) -> list[Row]:
    grown = replace(appended, sequence=appended.sequence - _facts_in(page) + 1)
    facts = [events.progress(grown, skipped, now=now)]
    if _has_validated(page):
        facts.append(events.validated(appended, now=now))
    return facts


def _request_with(request: BatchRequest, page: UploadPage) -> str | None:
    """Returns the request with what the page adds to the validation; none when it adds nothing."""
    added, before = page.user_validation, request.user_validation
    references = page.reference_validation
    if not added.total and not references.categories.total:
        return None
    return request_to(
        replace(
            request,
            user_validation=before + added,
            reference_validation=request.reference_validation + references,
        )
    )
