"""What a Config Database tells about the users of a tenant.

The documents call such users tenants: a document that writes a user where a tenant stands means
that user. They are users of one tenant of ours.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Generic, TypeVar

from batchwork_server.domain.preference import Wish
from batchwork_server.domain.schedule import Schedule
from batchwork_server.errors import Violation

_Value = TypeVar("_Value")


@dataclass(frozen=True, slots=True, kw_only=True)
class UserWishes:
    """All that one user wishes.

    Attributes:
        wishes: By feature; for every other feature the user has no wish.
        active: False while nothing is to be done for the user, whatever is wished. None where
            nobody says: then a user of a Config Database is active.
        path: Where the wishes stand in what was read.
    """

    user_id: str
    wishes: Mapping[str, Wish] = field(default_factory=dict)
    active: bool | None = True
    path: str = field(default="", compare=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class WishPage:
    """Some of the users of a Config Database.

    Attributes:
        problems: What is wrong with documents that are left out, by JSON path.
        next_page_token: Asks for the next page; empty with the last one.
    """

    users: Sequence[UserWishes]
    problems: Sequence[Violation] = ()
    next_page_token: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class WishGroup:
    """The users who wish the same schedule for a feature.

    Attributes:
        schedule: None for the users who name none.
        user_count: Users whose wish is enabled, also those who are not active.
    """

    feature_type: str
    schedule: Schedule | None
    user_count: int


@dataclass(frozen=True, slots=True, kw_only=True)
class WishChanges:
    """Who has changed after a change, and what they wish now.

    Attributes:
        users: Each user once; who is gone wishes nothing.
        problems: What is wrong with documents that are left out, by JSON path.
        last_id: The newest change that is taken into account.
        more_follow: Whether there are changes after that one already.
    """

    users: Sequence[UserWishes]
    last_id: str
    problems: Sequence[Violation] = ()
    more_follow: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer(Generic[_Value]):
    """What a source said, now or a while ago.

    Attributes:
        age: How long ago.
        is_stale: Whether it is told only because the source is away.
    """

    value: _Value
    age: timedelta = timedelta(0)
    is_stale: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class SourcePlace:
    """Up to where a source has been read.

    Attributes:
        change_id: The newest change that is stored.
        read_time: When the last reading of everything began.
        revision: Counts the moves from 1.
    """

    change_id: str
    read_time: datetime
    revision: int
