"""What a Config Database says of a user, beside what is stored of them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum

from batchwork_server.domain.config_source import Answer, UserWishes
from batchwork_server.domain.json_object import comparable
from batchwork_server.domain.preference import Preference, Wish
from batchwork_server.domain.schedule import Schedule, render_schedule
from batchwork_server.errors import SourceUnavailable
from batchwork_server.ports import ConfigDatabase
from batchwork_server.store.store import Store

PATIENCE = timedelta(seconds=2)
"""How long somebody who asks about a user waits for the source."""

YOUNG = timedelta(seconds=5)
"""An answer that is no older is told again without asking."""

_LONGEST = 1000


class SourceState(StrEnum):
    """How what a source says compares with what is stored."""

    SAME = "SAME"
    DIFFERENT = "DIFFERENT"
    UNANSWERED = "UNANSWERED"  # it is away, or what it answers cannot be read


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceDifference:
    """A part of a wish that is not the same.

    Attributes:
        field: ``preference`` when only one of them has any; else ``enabled``, ``inactive``,
            ``schedule`` or ``template_overrides``.
        stored: As JSON, cut off when it is long; empty when there is none.
        source: Likewise.
    """

    field: str
    stored: str
    source: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceNote:
    """What a source says of a user and a feature, beside what is stored.

    Attributes:
        age: How old the answer is.
        is_stale: Whether it is told only because the source is away.
        message: All that in a sentence for people.
    """

    state: SourceState
    message: str
    differences: tuple[SourceDifference, ...] = ()
    age: timedelta = timedelta(0)
    is_stale: bool = False


class SourceNotes:
    """Asks a source for one user; who explains something waits for it only for a moment.

    Args:
        source: None when there is none.
        tenant_id: Whose users it has.
    """

    def __init__(self, source: ConfigDatabase | None, *, store: Store, tenant_id: str) -> None:
        self._source = source
        self._store = store
        self._tenant_id = tenant_id

    async def of(self, user_id: str, *, feature_type: str, tenant_id: str) -> SourceNote | None:
        """Returns what the source says; none when it does not have the tenant's users.

        Raises:
            StoreUnavailable: safe to call again.
        """
        if self._source is None or tenant_id != self._tenant_id:
            return None
        try:
            async with asyncio.timeout(PATIENCE.total_seconds()):
                answer = await self._source.user(user_id, max_age=YOUNG)
        except SourceUnavailable as error:
            return SourceNote(state=SourceState.UNANSWERED, message=error.message)
        except TimeoutError:
            message = f"The Config Database did not answer within {PATIENCE.seconds} s."
            return SourceNote(state=SourceState.UNANSWERED, message=message)
        stored = await self._store.preferences.get(
            user_id=user_id, feature_type=feature_type, tenant_id=tenant_id
        )
        return _note(answer, stored, feature_type=feature_type)


def _note(
    answer: Answer[UserWishes | None], stored: Preference | None, *, feature_type: str
) -> SourceNote:
    user = answer.value
    wish = None if user is None else user.wishes.get(feature_type)
    is_active = user is None or user.active is not False
    differences = tuple(_differences(stored, wish, is_active=is_active))
    state = SourceState.DIFFERENT if differences else SourceState.SAME
    return SourceNote(
        state=state,
        message=_in_words(answer, differences),
        differences=differences,
        age=answer.age,
        is_stale=answer.is_stale,
    )


def _differences(
    stored: Preference | None, wish: Wish | None, *, is_active: bool
) -> Iterator[SourceDifference]:
    if stored is None or wish is None:
        ours = "" if stored is None else _wish_text(stored.wish)
        theirs = "" if wish is None else _wish_text(wish)
        if ours or theirs:
            yield _difference("preference", ours, theirs)
        return
    if stored.enabled is not wish.enabled:
        yield _difference("enabled", _text(stored.enabled), _text(wish.enabled))
    if stored.active is not is_active:
        yield _difference("inactive", _text(not stored.active), _text(not is_active))
    if stored.schedule != wish.schedule:
        yield _difference(
            "schedule", _schedule_text(stored.schedule), _schedule_text(wish.schedule)
        )
    if comparable(stored.template_overrides) != comparable(wish.template_overrides):
        yield _difference(
            "template_overrides",
            *(_text(stored.template_overrides), _text(wish.template_overrides)),
        )


def _difference(field: str, stored: str, source: str) -> SourceDifference:
    return SourceDifference(field=field, stored=stored, source=source)


def _in_words(answer: Answer[UserWishes | None], differences: tuple[SourceDifference, ...]) -> str:
    seconds = round(answer.age.total_seconds())
    when = f"{seconds} s ago, before it went away," if answer.is_stale else "now"
    if not differences:
        return f"The Config Database says {when} what is stored."
    if answer.value is None:
        return (
            f"The Config Database has no document of the user {when}; what is stored stays until "
            "it tells a change with `deleted`."
        )
    names = ", ".join(difference.field for difference in differences)
    return (
        f"The Config Database says {when} something else than is stored ({names}). A change that "
        "it tells arrives within CONFIG_POLL_INTERVAL, any other within CONFIG_CACHE_TTL."
    )


def _wish_text(wish: Wish) -> str:
    schedule = None if wish.schedule is None else render_schedule(wish.schedule)
    return _text(
        {
            "enabled": wish.enabled,
            "schedule": schedule,
            "template_overrides": wish.template_overrides,
        }
    )


def _schedule_text(schedule: Schedule | None) -> str:
    return "" if schedule is None else _text(render_schedule(schedule))


def _text(value: object) -> str:
    text = json.dumps(value, ensure_ascii=False, sort_keys=True)
    return text if len(text) <= _LONGEST else text[:_LONGEST] + "…"
