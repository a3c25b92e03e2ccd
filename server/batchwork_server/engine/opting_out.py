"""Looks again, before an attempt, at who wants what a preference-based run has for them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Protocol

from batchwork_server.domain.batch import Batch
from batchwork_server.domain.group_schedules import MemberSkip
from batchwork_server.domain.item import PendingItem
from batchwork_server.errors import ItemSkipped
from batchwork_server.planners.preference import users_in, without_users


class OptOuts(Protocol):
    """Knows who is not to be served; ``store.opt_outs`` in a server."""

    async def reason_of(self, user_id: str, *, feature_type: str, tenant_id: str) -> str | None: ...

    async def take_out(self, batch: Batch, user_ids: Sequence[str]) -> Mapping[str, str]: ...


async def of_those_who_want(batch: Batch, item: PendingItem, opt_outs: OptOuts) -> PendingItem:
    """Returns an item of a preference-based batch, without the users who opted out of it.

    Raises:
        ItemSkipped: nobody is left.
        StoreUnavailable: it cannot be told.
    """
    if item.user_id is None:
        return await _without_opted_out(batch, item, opt_outs)
    reason = await opt_outs.reason_of(
        item.user_id, feature_type=batch.request.feature_type, tenant_id=batch.tenant_id
    )
    if reason is not None:
        raise ItemSkipped(reason)
    return item


async def _without_opted_out(batch: Batch, item: PendingItem, opt_outs: OptOuts) -> PendingItem:
    users = users_in(item.data_json)
    out = await opt_outs.take_out(batch, users)
    if not out:
        return item
    if out.keys() >= set(users):
        reasons = set(out.values())
        raise ItemSkipped(reasons.pop() if len(reasons) == 1 else MemberSkip.PREFERENCE_DISABLED)
    return replace(item, data_json=without_users(item.data_json, out.keys()))
