"""What a user had set at a moment follows from what they have set and the log of changes."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from batchwork_server.domain.preference_groups import ChangeKind, PreferenceChange
from batchwork_server.domain.preference_history import PreferenceHistory, Standing

from tests.factories import TENANT
from tests.fakes import START

HOUR = timedelta(hours=1)
NOTHING = Standing(has_preference=False, group_key=None)
OUT = Standing(has_preference=True, group_key=None)


def in_group(key: int) -> Standing:
    return Standing(has_preference=True, group_key=key)


def change(hour: int, revision: int, **fields: Any) -> PreferenceChange:
    values: dict[str, Any] = {"kind": ChangeKind.SET, "enabled": True}
    return PreferenceChange(
        tenant_id=TENANT,
        sequence=hour,
        change_time=START + hour * HOUR,
        feature_type="posts",
        user_id="ada",
        revision=revision,
        **values | fields,
    )


JOINED = change(1, 1, group_joined=7)
TONED = change(2, 2)
MOVED = change(3, 3, group_left=7, group_joined=8)
OPTED_OUT = change(4, 4, group_left=8, enabled=False)
DELETED = change(5, 4, kind=ChangeKind.DELETED, enabled=False)
AGAIN = change(6, 1, group_joined=7)
ALL = (JOINED, TONED, MOVED, OPTED_OUT, DELETED, AGAIN)


def history(*changes: PreferenceChange, now: Standing, update_hour: int = 6) -> PreferenceHistory:
    return PreferenceHistory(now=now, update_time=START + update_hour * HOUR, changes=changes)


def test_each_moment_has_what_the_change_before_it_left():
    of_ada = history(*ALL, now=in_group(7))

    found = [of_ada.at(START + (hour + 0.5) * HOUR) for hour in range(7)]

    assert found == [NOTHING, in_group(7), in_group(7), in_group(8), OUT, NOTHING, in_group(7)]
    assert of_ada.groups == [7, 8]


def test_a_change_of_the_overrides_is_no_change_of_the_group():
    of_ada = history(JOINED, TONED, now=in_group(7), update_hour=2)

    assert of_ada.changed_after(START) == JOINED.change_time
    assert of_ada.changed_after(JOINED.change_time) is None


def test_a_move_is_told_of_and_not_a_change_before_it():
    of_ada = history(JOINED, TONED, MOVED, now=in_group(8), update_hour=3)

    assert of_ada.changed_after(JOINED.change_time) == MOVED.change_time
    assert of_ada.left(7, by=START + 4 * HOUR) == MOVED.change_time
    assert of_ada.left(7, by=START + 2 * HOUR) is None


def test_who_opts_out_has_left_for_no_other_group():
    assert history(OPTED_OUT, now=OUT, update_hour=4).left(8, by=START + 5 * HOUR) is None


@pytest.mark.parametrize("moment", [START, START + 2 * HOUR])
def test_what_the_log_has_forgotten_may_have_been_anything(moment):
    of_ada = history(now=in_group(7), update_hour=3)

    assert not of_ada.reaches(moment)
    assert of_ada.changed_after(moment) == START + 3 * HOUR
    assert of_ada.reaches(START + 3 * HOUR)
    assert of_ada.changed_after(START + 3 * HOUR) is None
