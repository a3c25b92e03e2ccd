"""Both shapes of the documents tell what a user wishes, and all that is wrong is told at once."""

from __future__ import annotations

import json
from datetime import time
from typing import Any

import pytest
from batchwork_server.domain.config_source import UserWishes
from batchwork_server.domain.preference import Wish
from batchwork_server.domain.preference_documents import (
    MAX_FEATURES,
    parse_preference_document,
    parse_preference_documents,
)
from batchwork_server.domain.preference_file import parse_preference_file
from batchwork_server.domain.schedule import Daily, Schedule, Weekday, Weekly

DAILY = {"enabled": True, "frequency": "daily", "preferred_time": "09:00"}
AT_NINE = Wish(schedule=Schedule(cadence=Daily(at=time(9))))
KEY = "feature_preferences"

GUIDE: dict[str, Any] = {
    "features": {
        "instagram_posts": {
            "enabled": True,
            "frequency": "daily",
            "preferred_time": "09:00",
            "template_overrides": {"tone": "professional", "item_limit": 10},
        },
        "etsy_analysis": {
            "enabled": True,
            "frequency": "weekly",
            "preferred_day": "monday",
            "preferred_time": "10:00",
        },
    },
    "tenant_id": "tenant123",
    "active": True,
}


def read(document: Any, **options: Any) -> UserWishes:
    user, violations = parse_preference_document(document, path="$", **options)
    assert violations == []
    assert user is not None
    return user


def problems(document: Any, **options: Any) -> dict[str, str]:
    user, violations = parse_preference_document(document, path="$", **options)
    assert user is None
    return {violation.path: violation.message for violation in violations}


def test_the_shape_of_the_guide_is_read() -> None:
    user = read(GUIDE)

    assert user == UserWishes(
        user_id="tenant123",
        wishes={
            "instagram_posts": Wish(
                schedule=Schedule(cadence=Daily(at=time(9))),
                template_overrides={"tone": "professional", "item_limit": 10},
            ),
            "etsy_analysis": Wish(
                schedule=Schedule(cadence=Weekly(days=(Weekday.MONDAY,), at=time(10)))
            ),
        },
    )


def test_the_shape_of_the_preference_document_is_read() -> None:
    document = {"tenant_id": "user123", "config_key": KEY, "config_value": {"posts": DAILY}}

    assert read(document, service_key=KEY) == UserWishes(
        user_id="user123", wishes={"posts": AT_NINE}, active=None
    )


@pytest.mark.parametrize(
    "document",
    [
        pytest.param(
            {"tenant_id": "ada", "active": False, "features": {"posts": DAILY}}, id="guide"
        ),
        pytest.param(
            {"tenant_id": "ada", "active": False, "config_value": {"posts": DAILY}}, id="around"
        ),
        pytest.param(
            {"tenant_id": "ada", "config_value": {"active": False, "features": {"posts": DAILY}}},
            id="the guide's inside the other",
        ),
    ],
)
def test_a_user_can_be_inactive(document: dict[str, Any]) -> None:
    assert read(document) == UserWishes(user_id="ada", wishes={"posts": AT_NINE}, active=False)


def test_a_user_may_wish_nothing() -> None:
    assert read({"tenant_id": "ada", "features": {}}) == UserWishes(user_id="ada", active=None)


def test_everything_wrong_is_told_at_once_with_its_path() -> None:
    document = {
        "tenant_id": "",
        "active": "yes",
        "features": {
            "posts": {"frequency": "daily", "preferred_time": "25:00"},
            "tips": {"enabled": 1},
            "x\n": {},
        },
        "extra": 1,
    }

    assert sorted(problems(document)) == [
        "$.active",
        "$.extra",
        "$.features.posts.preferred_time",
        "$.features.tips.enabled",
        '$.features["x\\n"]',
        "$.tenant_id",
    ]


@pytest.mark.parametrize(
    "document, path",
    [
        pytest.param([], "$", id="a list"),
        pytest.param({"features": {}}, "$.tenant_id", id="nobody"),
        pytest.param({"tenant_id": 5, "features": {}}, "$.tenant_id", id="a number as user"),
        pytest.param({"tenant_id": "ada"}, "$.features", id="no features"),
        pytest.param({"tenant_id": "ada", "features": []}, "$.features", id="features as a list"),
        pytest.param(
            {"tenant_id": "ada", "config_key": KEY}, "$.config_value", id="no config_value"
        ),
        pytest.param(
            {"tenant_id": "ada", "config_key": "colours", "config_value": {}},
            "$.config_key",
            id="another key",
        ),
        pytest.param(
            {"tenant_id": "ada", "features": {f"feature_{n}": {} for n in range(MAX_FEATURES + 1)}},
            "$.features",
            id="too many features",
        ),
        pytest.param(
            {"tenant_id": "ada", "features": {"posts": {"template_overrides": {"x": "\0"}}}},
            "$.features.posts.template_overrides.x",
            id="a null character",
        ),
    ],
)
def test_what_is_no_document_is_refused(document: Any, path: str) -> None:
    assert list(problems(document, service_key=KEY)) == [path]


def test_fields_of_a_service_may_stand_around_the_features_but_not_in_a_wish() -> None:
    document = {"tenant_id": "ada", "updated_at": "now", "features": {"posts": DAILY}}
    misspelt = {"tenant_id": "ada", "features": {"posts": {"prefered_time": "09:00"}}}

    assert read(document, service_key=KEY).wishes == {"posts": AT_NINE}
    assert list(problems(document)) == ["$.updated_at"]
    assert list(problems(misspelt, service_key=KEY)) == ["$.features.posts.prefered_time"]


def test_what_is_wrong_in_the_answer_of_a_service_says_whose_it_is() -> None:
    broken = {"tenant_id": "bob", "features": {"posts": {"enabled": 1}}}

    [message] = problems(broken, service_key=KEY).values()

    assert message == '1 is neither true nor false. It is what "bob" wishes.'


def test_one_broken_document_among_many_does_not_lose_the_others() -> None:
    documents = [
        {"tenant_id": "ada", "features": {}},
        {"tenant_id": "bob", "features": {"posts": 5}},
        {"tenant_id": "eve", "features": {}},
        {"tenant_id": "ada", "features": {"posts": DAILY}},
    ]

    users, violations = parse_preference_documents(documents, path="$.configs")

    assert [user.user_id for user in users] == ["ada", "eve"]
    assert [violation.path for violation in violations] == [
        "$.configs[1].features.posts",
        "$.configs[3]",
    ]


def test_a_file_is_one_document_or_a_list_of_both_shapes() -> None:
    other = {"tenant_id": "ada", "config_key": KEY, "config_value": {"posts": DAILY}}

    one, _ = parse_preference_file(json.dumps(GUIDE))
    several, _ = parse_preference_file(json.dumps([GUIDE, other]))

    assert [user.user_id for user in one] == ["tenant123"]
    assert [user.user_id for user in several] == ["tenant123", "ada"]


@pytest.mark.parametrize(
    "text, path, words",
    [
        pytest.param("{", "$", "not JSON", id="cut off"),
        pytest.param("", "$", "not JSON", id="empty"),
        pytest.param('{"tenant_id": NaN}', "$", "NaN", id="NaN"),
        pytest.param(
            '{"tenant_id": "a", "tenant_id": "b", "features": {}}',
            "$.tenant_id",
            "twice",
            id="a key twice",
        ),
    ],
)
def test_a_file_that_cannot_be_read_says_why(text: str, path: str, words: str) -> None:
    users, violations = parse_preference_file(text)

    assert users == []
    assert [violation.path for violation in violations] == [path]
    assert words in violations[0].message
