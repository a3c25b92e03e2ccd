"""Drafts, and the pages they take."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from batchwork_server.domain.batch import Batch, UserValidation
from batchwork_server.domain.item import NewItem
from batchwork_server.domain.reference_validation import NOTHING_FOUND, ReferenceValidation
from batchwork_server.domain.selection import SelectedItem
from batchwork_server.store.protocols.chunks import NewChunk
from batchwork_server.store.protocols.transaction import Transaction


@dataclass(frozen=True, slots=True, kw_only=True)
class UploadPage:
    """Items that one transaction adds to a draft.

    Attributes:
        items: Those that are new.
        next_offset: From where the upload goes on, items that were there already included.
        user_validation: What was found of the users of ``items``.
        reference_validation: What was found of the users whom their data lists.
    """

    items: Sequence[NewItem]
    chunks: Sequence[NewChunk]
    next_offset: int
    user_validation: UserValidation
    reference_validation: ReferenceValidation = NOTHING_FOUND


class UploadStore(Protocol):
    """Drafts, which take items page by page. The caller holds the batch's ``lock``."""

    async def present(
        self, tx: Transaction, batch_key: int, item_ids: Sequence[str]
    ) -> Mapping[str, SelectedItem]:
        """Returns those of the items that are there, by id."""
        ...

    async def append(
        self, tx: Transaction, batch: Batch, page: UploadPage, *, now: datetime
    ) -> Batch | None:
        """Stores a page with its chunks, counts and event; nothing of it is handed out.

        Returns:
            The batch after it; none when it is no draft any more, or its upload went on.
        """
        ...
