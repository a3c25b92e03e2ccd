"""Contexts: what stands in them, and how several become one."""

from __future__ import annotations

import json
from datetime import timedelta

from batchwork_server.domain.batch import BatchState, Counts, UserValidation
from batchwork_server.domain.context import (
    Context,
    ContextEntry,
    ContextItems,
    ContextProgress,
    merged_validation,
    metadata_of,
    validation_of,
)
from batchwork_server.domain.reference_validation import CategoryCounts, ReferenceValidation
from batchwork_server.domain.user_context import ContextPreference, preference_of
from batchwork_server.planners.preference import overrides_in

from tests.factories import make_batch, make_request
from tests.fakes import START


def entry(place: int, user_id: str | None = None, **changes) -> ContextEntry:
    return ContextEntry(place=place, item_id=f"item-{place}", user_id=user_id, **changes)


def context_of(*batches, items: ContextItems | None = None) -> Context:
    validation = merged_validation(validation_of(batch) for batch in batches)
    return Context(batches=batches, validation=validation, items=items or ContextItems())


def test_progress_counts_what_was_worth_work_as_the_documents_do():
    progress = ContextProgress(counts=Counts(total=12, succeeded=8, failed=2, skipped=2))

    assert (progress.processed, progress.total, progress.percent) == (10, 10, 100)


def test_what_was_cancelled_was_worth_work_and_is_not_processed():
    progress = ContextProgress(counts=Counts(total=4, succeeded=1, cancelled=3))

    assert (progress.processed, progress.total, progress.percent) == (1, 4, 25)


def test_when_nothing_was_worth_work_all_of_it_is_done():
    assert ContextProgress(counts=Counts(total=2, skipped=2)).percent == 100


def test_a_user_is_invalid_only_when_the_validation_said_so():
    items = ContextItems.of(
        [
            entry(0, "ada"),
            entry(1, "bob", skip_reason="USER_NOT_FOUND"),
            entry(2, "cyd", skip_reason="PREFERENCE_DISABLED"),
            entry(3),
            entry(4, "ada", is_repeated=True),
        ],
        by_categories=False,
    )

    assert items == ContextItems(valid_users=("ada", "cyd"), invalid_users=("bob",))


def test_in_a_batch_by_categories_the_items_are_categories():
    entries = [entry(0), entry(1, "bob", skip_reason="USER_INACTIVE")]

    items = ContextItems.of(entries, by_categories=True)

    assert items.valid_categories == ("item-0",)
    assert items.invalid_categories == ("item-1",)
    assert items.invalid_users == ("bob",)


def test_of_categories_the_validation_counts_all_items():
    found = UserValidation(total=3, valid=1, invalid=2)
    batch = make_batch(
        counts=Counts(total=5), request=make_request(user_validation=found, batch_type="X_USERS")
    )
    by_categories = make_batch(counts=Counts(total=5), request=make_request(user_validation=found))

    assert validation_of(batch) == found
    assert validation_of(by_categories) == UserValidation(total=5, valid=3, invalid=2)


def test_what_an_older_server_stored_of_categories_is_never_negative():
    request = make_request(
        user_validation=UserValidation(total=2, invalid=1, unknown=1),
        reference_validation=ReferenceValidation(categories=CategoryCounts(total=1, invalid=1)),
    )

    found = validation_of(make_batch(counts=Counts(total=1), request=request))

    assert found == UserValidation(total=1, invalid=1)


def test_metadata_holds_the_caller_s_and_cannot_be_deceived_by_it():
    request = make_request(
        batch_type="PREFERENCE_BATCH_USERS",
        categories=("news",),
        feature_type="podcast",
        batch_metadata={"category_type": "press", "batch_id": "another", "region": "eu"},
    )

    metadata = metadata_of(make_batch(batch_id="mine", request=request))

    assert (metadata["data_source_type"], metadata["processing_method"]) == ("users", "batch")
    assert (metadata["batch_id"], metadata["category_type"]) == ("mine", "press")
    assert (metadata["feature_type"], metadata["region"]) == ("podcast", "eu")
    assert "job_id" not in metadata


def test_counts_of_several_batches_add_up():
    found = UserValidation(total=2, valid=1, invalid=1)
    request = make_request(batch_type="INDIVIDUAL_USERS", user_validation=found)
    one = make_batch(batch_id="one", request=request, counts=Counts(total=2, succeeded=1))
    two = make_batch(batch_id="two", request=request, counts=Counts(total=3, failed=1, pending=2))

    merged = context_of(one, two)

    assert merged.progress.counts == Counts(total=5, succeeded=1, failed=1, pending=2)
    assert merged.validation == UserValidation(total=4, valid=2, invalid=2)


def test_metadata_keeps_what_is_alike_and_tells_the_rest_by_batch():
    one = make_batch(batch_id="one", request=make_request(job_id="job", labels={"a": "1"}))
    two = make_batch(batch_id="two", request=make_request(job_id="job"))

    metadata = context_of(one, two).metadata

    assert metadata["job_id"] == "job"
    assert "batch_id" not in metadata
    assert metadata["batches"] == {
        "one": {"batch_id": "one", "labels": {"a": "1"}},
        "two": {"batch_id": "two"},
    }


def test_lists_are_united_without_doubles_and_a_user_may_stand_in_both():
    one = ContextItems(valid_users=("ada", "bob"), invalid_users=("cyd",))
    two = ContextItems(valid_users=("cyd", "ada"), invalid_users=("bob",))

    assert one + two == ContextItems(
        valid_users=("ada", "bob", "cyd"), invalid_users=("cyd", "bob")
    )
    assert two.without(one) == ContextItems(valid_users=("cyd",), invalid_users=("bob",))


def test_the_span_goes_from_the_first_to_the_last():
    hour = timedelta(hours=1)
    one = make_batch(create_time=START, end_time=START + 3 * hour, state=BatchState.SUCCEEDED)
    two = make_batch(create_time=START + hour, end_time=START + 2 * hour)
    going_on = make_batch(create_time=START + hour)

    merged = context_of(two, one)

    assert (merged.start_time, merged.end_time) == (START, START + 3 * hour)
    assert context_of(one, going_on).end_time is None


def test_a_run_of_a_group_says_by_what_schedule_it_was_made():
    request = make_request(
        batch_type="PREFERENCE_INDIVIDUAL_USERS",
        feature_type="podcast",
        job_id="job",
        batch_metadata={
            "group_key": "7",
            "frequency": "daily",
            "at": "10:00",
            "time_zone": "Europe/Berlin",
        },
    )

    assert preference_of(make_batch(request=request), {"tone": "dry"}) == ContextPreference(
        feature_type="podcast",
        job_id="job",
        frequency="daily",
        time="10:00",
        time_zone="Europe/Berlin",
        template_overrides={"tone": "dry"},
        group_key="7",
    )
    assert preference_of(make_batch()) is None


def test_overrides_are_found_in_each_kind_of_item():
    dry, loud = {"tone": "dry"}, {"tone": "loud"}
    alone = {"user_id": "ada", "template_overrides": dry, "items": []}
    together = {"count": 2, "users": [alone, {"user_id": "bob", "template_overrides": loud}]}
    alike = {"user_ids": ["ada", "bob"], "template_overrides": loud, "categories": {}}

    assert overrides_in(json.dumps(alone), "ada") == dry
    assert overrides_in(json.dumps(together), "bob") == loud
    assert overrides_in(json.dumps(alike), "ada") == loud
    assert overrides_in(json.dumps(alone), "bob") == {}
    assert overrides_in("{}", "ada") == {}
