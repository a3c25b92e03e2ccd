"""Users who are given the results of a batch: whether anything can be delivered to them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from batchwork_server.application.validation import Validation
from batchwork_server.domain.reference import Recipient
from batchwork_server.domain.user import UsersAway, UserVerdict


async def validated_recipients(
    validation: Validation, user_ids: Sequence[str], *, tenant_id: str, away: UsersAway
) -> list[Recipient]:
    """Returns the users, each once, with what is wrong with them.

    Raises:
        Unavailable: their source is away, and that is not to be taken as it is.
    """
    if not user_ids:
        return []
    verdicts = await validation.verdicts(user_ids, tenant_id=tenant_id, away=away)
    return [
        Recipient(
            user_id=user_id,
            problem="" if verdict.is_served else f"USER_{verdict}",
            is_unknown=verdict is UserVerdict.UNKNOWN,
        )
        for user_id, verdict in verdicts.items()
    ]


def needs_lookup(recipients: Iterable[Recipient]) -> bool:
    """Tells whether somebody is to be looked up later, before the batch begins."""
    return any(each.is_unknown for each in recipients)
