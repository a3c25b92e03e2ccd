"""Preference: the members of a preference group, each with their own wishes and data.

What becomes an item follows the documents' matrix:

=============================  ===============================================================
PREFERENCE_INDIVIDUAL_…        an item for each member, with the things selected for them
PREFERENCE_BATCH_USERS         an item for many members together, each with their things
PREFERENCE_BATCH_CATEGORIES    an item for all members who wish the same, with whole categories
=============================  ===============================================================
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

import orjson

from batchwork_server.domain.item import ItemUser, NewItem
from batchwork_server.domain.job import DataSource, JobShape
from batchwork_server.domain.selection import SelectedItem
from batchwork_server.planners.selected import array_of, group_object

MOST_MEMBERS = 1000
"""The most members of one item."""

LARGEST_TOGETHER = 512 * 1024
"""An item for several members ends when its data has so many bytes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """A user for whom a preference-based job runs.

    Attributes:
        template_overrides: JSON values.
        things: What was selected for them, by category.
        skip_reason: Set when nothing is to be done for them.
    """

    user_id: str
    template_overrides: Mapping[str, Any]
    things: Mapping[str, Sequence[SelectedItem]]
    skip_reason: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class MembersItem:
    """An item, and the users whom it is for."""

    item: NewItem
    user_ids: tuple[str, ...]


def plan_members(
    members: Sequence[Member], *, shape: JobShape, data_source: DataSource
) -> list[MembersItem]:
    """Returns the items for members, in their order.

    Members who are to be skipped have an item of their own that says why, or are left out where
    several share one. The id of a shared item is made of the first member's, so that it is unique
    in a batch that is planned page by page.
    """
    if shape is JobShape.INDIVIDUAL:
        return [_individual(member) for member in members]
    wanted = [member for member in members if member.skip_reason is None]
    if data_source is DataSource.USERS:
        return list(_users_together(wanted))
    return list(_categories(wanted))


def users_of(items: Sequence[MembersItem], without: Mapping[str, str]) -> list[ItemUser]:
    """Returns the users of items that are for several, and those who are in none of these.

    Args:
        items: Of one page, in the order of their places.
        without: The users of the page for whom nothing is to be done, and why.
    """
    if any(each.item.user_id is not None for each in items):
        return []  # each user has an item of their own, also to say why it is skipped
    served = [
        ItemUser(user_id=user_id, item_index=index)
        for index, each in enumerate(items)
        for user_id in each.user_ids
    ]
    skipped = [
        ItemUser(user_id=user_id, item_index=None, skip_reason=reason)
        for user_id, reason in without.items()
    ]
    return served + skipped


def users_in(data_json: str) -> list[str]:
    """Returns the users for whom an item for several was made."""
    data = orjson.loads(data_json)
    if "users" in data:
        return [member["user_id"] for member in data["users"]]
    return list(data["user_ids"])


def without_users(data_json: str, out: Collection[str]) -> str:
    """Returns the data of an item for several users as if some of them had not been among them."""
    data = orjson.loads(data_json)
    if "users" in data:
        data["users"] = [member for member in data["users"] if member["user_id"] not in out]
        data["count"] = len(data["users"])
    else:
        data["user_ids"] = [user_id for user_id in data["user_ids"] if user_id not in out]
    return orjson.dumps(data).decode()


def overrides_in(data_json: str, user_id: str) -> dict[str, Any]:
    """Returns the overrides with which an item was made for a user; none of another's item."""
    data = orjson.loads(data_json)
    for made in (data, *data.get("users", ())):
        if made.get("user_id") == user_id or user_id in made.get("user_ids", ()):
            overrides: dict[str, Any] = made["template_overrides"]
            return overrides
    return {}


def _individual(member: Member) -> MembersItem:
    things = [thing for group in member.things.values() for thing in group]
    item = NewItem(
        item_id=member.user_id,
        user_id=member.user_id,
        data_json=_member_object(member, things).decode(),
        skip_reason=member.skip_reason,
    )
    return MembersItem(item=item, user_ids=(member.user_id,))


def _member_object(member: Member, things: Sequence[SelectedItem]) -> bytes:
    return b'{"user_id":%b,"template_overrides":%b,"items":%b}' % (
        orjson.dumps(member.user_id),
        orjson.dumps(member.template_overrides),
        array_of(things),
    )


def _users_together(members: Iterable[Member]) -> Iterator[MembersItem]:
    texts: list[bytes] = []
    users: list[str] = []
    size = 0
    for member in members:
        things = [thing for group in member.things.values() for thing in group]
        text = _member_object(member, things)
        if users and (len(users) == MOST_MEMBERS or size + len(text) > LARGEST_TOGETHER):
            yield _together("users", _users_object(texts), users)
            texts, users, size = [], [], 0
        texts.append(text)
        users.append(member.user_id)
        size += len(text)
    if users:
        yield _together("users", _users_object(texts), users)


def _users_object(members: Sequence[bytes]) -> bytes:
    return b'{"count":%d,"users":[%b]}' % (len(members), b",".join(members))


def _categories(members: Iterable[Member]) -> Iterator[MembersItem]:
    alike: dict[bytes, list[Member]] = {}
    for member in members:
        wish = orjson.dumps(member.template_overrides, option=orjson.OPT_SORT_KEYS)
        alike.setdefault(wish, []).append(member)
    for sharing in alike.values():
        for first in range(0, len(sharing), MOST_MEMBERS):
            part = sharing[first : first + MOST_MEMBERS]
            users = [member.user_id for member in part]
            yield _together("categories", _categories_object(part[0], users), users)


def _categories_object(member: Member, users: Sequence[str]) -> bytes:
    groups = b",".join(
        orjson.dumps(category) + b":" + group_object(category, things)
        for category, things in member.things.items()
    )
    return b'{"user_ids":%b,"template_overrides":%b,"categories":{%b}}' % (
        orjson.dumps(users),
        orjson.dumps(member.template_overrides),
        groups,
    )


def _together(name: str, data: bytes, users: Sequence[str]) -> MembersItem:
    digest = blake2b(users[0].encode(), digest_size=8).hexdigest()
    item = NewItem(item_id=f"{name}-{digest}", data_json=data.decode())
    return MembersItem(item=item, user_ids=tuple(users))
