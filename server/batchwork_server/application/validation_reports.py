"""What the validation of users found in a batch: told in the log."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import islice

from batchwork_server.domain.batch import Batch, UserValidation
from batchwork_server.domain.item import NewItem
from batchwork_server.domain.reference_validation import InvalidReference, ReferenceValidation
from batchwork_server.logs import get_logger

log = get_logger(__name__)

SAMPLE_SIZE = 5
"""So many invalid ids are named in a line of log."""


def tell_invalid(
    batch: Batch,
    items: Iterable[NewItem],
    references: Sequence[InvalidReference],
    *,
    users: UserValidation,
    found: ReferenceValidation,
) -> None:
    """Warns of users who are not valid, with the first of their ids; else it says nothing.

    Args:
        batch: That is stored.
        items: Those that were stored now.
        references: Those that were taken out of them.
        users: What was found of the users of the items.
        found: What was found of the users whom they list.
    """
    counts = found.user_references
    if not users.invalid and not counts.invalid:
        return
    log.warning(
        "batch.validated",
        batch_id=batch.batch_id,
        tenant_id=batch.tenant_id,
        invalid_users=users.invalid,
        invalid_references=counts.invalid,
        invalid_categories=found.categories.invalid,
        sample=list(islice(_invalid_ids(items, references), SAMPLE_SIZE)),
    )


def _invalid_ids(items: Iterable[NewItem], references: Sequence[InvalidReference]) -> Iterable[str]:
    of_items = (
        item.user_id
        for item in items
        if item.user_id is not None and (item.skip_reason or "").startswith("USER_")
    )
    listed = (each.user_id for each in islice(references, SAMPLE_SIZE))
    return dict.fromkeys([*islice(of_items, SAMPLE_SIZE), *listed])
