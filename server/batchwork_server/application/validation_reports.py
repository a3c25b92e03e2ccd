"""What the validation of users found in a batch: the report, and a line of log."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice

from batchwork_server.domain.batch import Batch, UserValidation
from batchwork_server.domain.context import INVALID_USER_REASONS
from batchwork_server.domain.item import ItemUser, NewItem
from batchwork_server.domain.reference_validation import (
    OWN,
    InvalidReference,
    ReferenceCounts,
    ReferenceValidation,
)
from batchwork_server.domain.user import UserVerdict
from batchwork_server.errors import NotFound
from batchwork_server.logs import get_logger
from batchwork_server.ports import Meter
from batchwork_server.store.store import Store

log = get_logger(__name__)

SAMPLE_SIZE = 5
"""So many invalid ids are named in a line of log."""


USERS = "users"
REFERENCES = "references"
PARTS = (USERS, REFERENCES)
"""The parts of a report, in this order."""

Place = tuple[str, int]
"""Where a page of a report starts: a part of it, and a number there."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ValidationReport:
    """A page of what was found in a batch.

    Attributes:
        batch: Its request has the counts.
        invalid: Users of items and of things, which have the field ``user_id``, and references
            that were taken out.
        following: Where the next page starts; none after the last one.
    """

    batch: Batch
    invalid: Sequence[InvalidReference]
    following: Place | None


class ValidationReports:
    """The use case behind ``GetValidationReport``."""

    def __init__(self, *, store: Store) -> None:
        self._batches = store.batches
        self._reports = store.validation_reports

    async def get_validation_report(
        self, batch_id: str, *, tenant_id: str | None, page_size: int, after: Place | None
    ) -> ValidationReport:
        """Returns a page of the report of a batch; without a tenant, of any tenant.

        Raises:
            NotFound: there is no batch that the caller may see.
        """
        batch = await self._batches.get(batch_id, tenant_id=tenant_id)
        if batch is None:
            raise NotFound("batch", batch_id)
        invalid, following = await self._page(batch, page_size=page_size, after=after)
        return ValidationReport(batch=batch, invalid=invalid, following=following)

    async def _page(
        self, batch: Batch, *, page_size: int, after: Place | None
    ) -> tuple[list[InvalidReference], Place | None]:
        part, first = after or (USERS, 0)
        found: list[InvalidReference] = []
        if part == USERS:
            users, last = await self._reports.invalid_users(
                batch, page_size=page_size, after=first - 1
            )
            if last is not None:
                return list(users), (USERS, last + 1)
            found, first = list(users), 0
        room = page_size - len(found)
        references, last = await self._reports.invalid_references(
            batch, page_size=room or 1, after=first - 1
        )
        if not room:
            return found, (REFERENCES, 0) if references else None
        return [*found, *references], None if last is None else (REFERENCES, last + 1)


def tell_found(
    batch: Batch,
    items: Iterable[NewItem],
    references: Sequence[InvalidReference],
    *,
    users: UserValidation,
    found: ReferenceValidation,
    item_users: Sequence[ItemUser] = (),
    meter: Meter | None = None,
) -> None:
    """Counts references, and warns of users who are not valid, with the first of their ids.

    Args:
        batch: That is stored.
        items: Those that were stored now.
        references: Those that were taken out of them.
        users: What was found of the users of the items.
        found: What was found of the users whom they list.
        item_users: The users of items that are for several together.
    """
    counts = found.user_references
    if meter is not None and counts.total:
        meter.references_validated(_by_verdict(counts, references))
    if not users.invalid and not counts.invalid:
        return
    log.warning(
        "batch.validated",
        batch_id=batch.batch_id,
        tenant_id=batch.tenant_id,
        invalid_users=users.invalid,
        invalid_references=counts.invalid,
        invalid_categories=found.categories.invalid,
        sample=list(islice(_invalid_ids(items, references, item_users), SAMPLE_SIZE)),
    )


def _by_verdict(
    counts: ReferenceCounts, invalid: Iterable[InvalidReference]
) -> Mapping[UserVerdict, int]:
    found = Counter(each.verdict for each in invalid if each.field != OWN)
    return {**found, UserVerdict.VALID: counts.valid, UserVerdict.UNKNOWN: counts.unknown}


def invalid_users_of(
    items: Iterable[NewItem], references: Iterable[InvalidReference]
) -> Iterator[InvalidReference]:
    """Yields the users of items that are to be skipped, and of things that were left out."""
    for item in items:
        if item.user_id is not None and item.skip_reason in INVALID_USER_REASONS:
            yield InvalidReference(
                category="",
                item_id=item.item_id,
                field=OWN,
                user_id=item.user_id,
                verdict=UserVerdict(item.skip_reason.removeprefix("USER_")),
            )
    yield from (each for each in references if each.field == OWN)


def _invalid_ids(
    items: Iterable[NewItem],
    references: Iterable[InvalidReference],
    item_users: Iterable[ItemUser],
) -> Iterable[str]:
    together = (each.user_id for each in item_users if each.skip_reason in INVALID_USER_REASONS)
    return dict.fromkeys(
        [
            *islice((each.user_id for each in invalid_users_of(items, ())), SAMPLE_SIZE),
            *islice(together, SAMPLE_SIZE),
            *islice((each.user_id for each in references), SAMPLE_SIZE),
        ]
    )
