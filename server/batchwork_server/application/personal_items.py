"""The items of a preference-based run: for each user what they wish, of what the job selects."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

import orjson

from batchwork_server.application.validation import Validation
from batchwork_server.domain.batch import UserValidation
from batchwork_server.domain.declared_overrides import DeclaredOverrides, over_defaults
from batchwork_server.domain.job import DataSource
from batchwork_server.domain.personal import (
    SELECTING_OVERRIDES,
    chosen_categories,
    item_limit_of,
    personal_selection,
)
from batchwork_server.domain.preference import Preference
from batchwork_server.domain.selection import SelectedItem, Selection
from batchwork_server.domain.submission import Submission
from batchwork_server.domain.user import UsersAway, UserVerdict
from batchwork_server.planners.preference import Member, MembersItem, plan_members
from batchwork_server.planners.user_references import NOTHING_JUDGED, Judged, UserReferences
from batchwork_server.ports import CategoryRepository

INVALID_PREFERENCE = "INVALID_PREFERENCE"
"""The skip reason of a user whose overrides cannot be applied."""

NOTHING_SELECTED = "NOTHING_SELECTED"
"""The skip reason of a user for whom there is nothing in the categories."""

_REMEMBERED_CHARACTERS = 32 * 1024 * 1024

_WishKey = tuple[str, bytes]
_ThingsOfUsers = Mapping[tuple[_WishKey, str], Sequence[SelectedItem]]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Wish:
    """What a user is to get of a category.

    Attributes:
        text: The overrides that choose; equal for users who wish the same.
    """

    category: str
    text: bytes
    selection: Selection

    @property
    def key(self) -> _WishKey:
        return self.category, self.text


class PersonalItems:
    """Makes the items of one run, a page of users after the other.

    Users who wish the same share one query.

    Args:
        selections: What the job selects of each category, in the order of the job; none when it
            names no category.
        declared: The overrides that the template knows.
        away: What becomes of users who cannot be validated; they are not deferred.
        now: From where filters that are relative to now count.
    """

    def __init__(
        self,
        submission: Submission,
        selections: Sequence[Selection],
        *,
        declared: DeclaredOverrides | None,
        tenant_id: str,
        categories: CategoryRepository,
        validation: Validation,
        away: UsersAway,
        now: datetime,
    ) -> None:
        self._submission = submission
        self._selections = {selection.category: selection for selection in selections}
        self._declared = declared
        self._tenant_id = tenant_id
        self._categories = categories
        self._validation = validation
        self._away = away
        self._now = now
        self._fields: dict[str, frozenset[str]] = {}
        self._selected = _Remembered()
        self._users = UserValidation()
        self._without: dict[str, str] = {}
        self._references = NOTHING_JUDGED

    @property
    def references(self) -> Judged:
        """What was found of the references in things that were selected for the last page.

        Things that were selected for users before, and are remembered, count no second time.
        """
        return self._references

    @property
    def without(self) -> Mapping[str, str]:
        """The users of the last page for whom nothing is to be done, and why."""
        return self._without

    @property
    def users(self) -> UserValidation:
        """What was found of the users of all pages so far."""
        return self._users

    def forget(self) -> None:
        """Has everything selected anew, because what was found last was not stored."""
        self._selected = _Remembered()

    async def plan(
        self, preferences: Sequence[Preference], *, skipped: Mapping[str, str] | None = None
    ) -> list[MembersItem]:
        """Returns the items for the users of a page.

        Args:
            preferences: One for each user, with what the tenant and the job say besides.
            skipped: Users for whom nothing is to be done, and why.

        Raises:
            Unavailable: a source is away.
        """
        self._references = NOTHING_JUDGED
        users = [preference.user_id for preference in preferences]
        verdicts = await self._validation.verdicts(
            users, tenant_id=self._tenant_id, away=self._away
        )
        self._users += UserValidation.of(verdicts[user] for user in users)
        members = [
            Member(
                user_id=preference.user_id,
                template_overrides=over_defaults(preference.template_overrides, self._declared),
                things={},
                skip_reason=(skipped or {}).get(preference.user_id)
                or _invalid(verdicts[preference.user_id]),
            )
            for preference in preferences
        ]
        members = await self._provided(members)
        self._without = {
            member.user_id: member.skip_reason for member in members if member.skip_reason
        }
        return plan_members(
            members, shape=self._submission.shape, data_source=self._submission.data_source
        )

    async def _provided(self, members: Sequence[Member]) -> list[Member]:
        """Gives each member their things, or the reason why there is nothing to do."""
        wishes = {
            member.user_id: await self._wishes_of(member)
            for member in members
            if member.skip_reason is None
        }
        if self._submission.data_source is DataSource.USERS:
            own = await self._things_of_users(wishes)
        else:
            own = {}
        provided = []
        for member in members:
            if member.skip_reason is None:
                member = await self._provided_one(member, wishes[member.user_id], own)
            provided.append(member)
        return provided

    async def _provided_one(
        self, member: Member, wishes: Sequence[_Wish] | None, own: _ThingsOfUsers
    ) -> Member:
        if wishes is None:
            return replace(member, skip_reason=INVALID_PREFERENCE)
        left = item_limit_of(member.template_overrides)
        things: dict[str, Sequence[SelectedItem]] = {}
        for wish in wishes:
            if self._submission.data_source is DataSource.USERS:
                found = own.get((wish.key, member.user_id), [])
            else:
                found = await self._selected_by(wish)
            things[wish.category] = found[:left]
            left -= len(things[wish.category])
        if wishes and not any(things.values()):
            return replace(member, skip_reason=NOTHING_SELECTED)
        return replace(member, things=things)

    async def _wishes_of(self, member: Member) -> list[_Wish] | None:
        """Returns what a member is to get of each category; none when their overrides are wrong."""
        overrides = member.template_overrides
        wish = {name: overrides.get(name) for name in SELECTING_OVERRIDES}
        text = orjson.dumps(wish, option=orjson.OPT_SORT_KEYS)
        wishes = []
        for category in chosen_categories(overrides, tuple(self._selections)):
            selection, violations = personal_selection(
                self._selections[category],
                overrides,
                fields=await self._fields_of(category),
                now=self._now,
            )
            if violations:
                return None
            wishes.append(_Wish(category=category, text=text, selection=selection))
        return wishes

    async def _things_of_users(
        self, wishes: Mapping[str, Sequence[_Wish] | None]
    ) -> _ThingsOfUsers:
        """Returns the things that are users' own, where the things are users.

        Users who wish the same share a query, whose limit counts for each of them.
        """
        sharing: dict[_WishKey, tuple[Selection, list[str]]] = {}
        for user_id, wished in wishes.items():
            for wish in wished or ():
                sharing.setdefault(wish.key, (wish.selection, []))[1].append(user_id)
        found: dict[tuple[_WishKey, str], Sequence[SelectedItem]] = {}
        for key, (selection, users) in sharing.items():
            own = await self._categories.select_of_users(
                selection, users, tenant_id=self._tenant_id
            )
            found |= {(key, user_id): things for user_id, things in own.items()}
        return found

    async def _selected_by(self, wish: _Wish) -> Sequence[SelectedItem]:
        things = self._selected.get(wish.key)
        if things is None:
            things = await self._categories.select(wish.selection, tenant_id=self._tenant_id)
            things = await self._with_valid_references(wish.category, things)
            self._selected.put(wish.key, things)
        return things

    async def _with_valid_references(
        self, category: str, things: Sequence[SelectedItem]
    ) -> list[SelectedItem]:
        """Takes out references that are not valid, and things that name no valid user."""
        references = UserReferences({category: things})
        named = references.user_ids
        verdicts = await self._validation.verdicts(
            named, tenant_id=self._tenant_id, away=self._away
        )
        judged = references.judged(verdicts)
        before = self._references
        self._references = Judged(
            groups={},
            invalid=[*before.invalid, *judged.invalid],
            found=before.found + judged.found,
        )
        return [thing for thing in judged.groups[category] if thing.skip_reason is None]

    async def _fields_of(self, category: str) -> frozenset[str]:
        if category not in self._fields:
            names = await self._categories.field_names(category, tenant_id=self._tenant_id)
            self._fields[category] = frozenset(names)
        return self._fields[category]


def _invalid(verdict: UserVerdict) -> str | None:
    return None if verdict.is_served else f"USER_{verdict}"


class _Remembered:
    """The newest selections, as many as fit into a bounded number of characters."""

    def __init__(self) -> None:
        self._held: OrderedDict[_WishKey, list[SelectedItem]] = OrderedDict()
        self._size = 0

    def get(self, key: _WishKey) -> list[SelectedItem] | None:
        things = self._held.get(key)
        if things is not None:
            self._held.move_to_end(key)
        return things

    def put(self, key: _WishKey, things: list[SelectedItem]) -> None:
        self._held[key] = things
        self._size += _size(things)
        while self._size > _REMEMBERED_CHARACTERS and len(self._held) > 1:
            self._size -= _size(self._held.popitem(last=False)[1])


def _size(things: Sequence[SelectedItem]) -> int:
    return sum(len(thing.data_json) for thing in things) + 100
