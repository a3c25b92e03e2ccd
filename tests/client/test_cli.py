"""The command line: what it sends, what it writes where, and how it ends.

The command runs its own event loop, so the server here is one of threads.
"""

from __future__ import annotations

import functools
import json
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import pytest
from batchwork.v1 import (
    batch_service_pb2,
    job_service_pb2,
    preference_service_pb2,
    validation_service_pb2,
)
from batchwork.v1.batch_pb2 import (
    Batch,
    BatchCounts,
    BatchOptions,
    BatchPlan,
    BatchState,
    DeliveryCounts,
    PlannedItem,
    WaitReason,
)
from batchwork.v1.batch_pb2 import Warning as BatchWarning
from batchwork.v1.batch_service_pb2 import (
    BatchEvent,
    BatchEventKind,
    WatchBatchesResponse,
    WatchBatchResponse,
)
from batchwork.v1.batch_service_pb2_grpc import BatchServiceServicer
from batchwork.v1.item_pb2 import Item, ItemAttempt, ItemError, ItemState
from batchwork.v1.job_pb2 import Job, JobShape, Priority
from batchwork.v1.job_service_pb2 import (
    BackfillDueTime,
    BackfillFate,
    BackfillOverlap,
    JobChange,
    JobChangeKind,
    Occurrence,
    OccurrenceDecision,
    UpcomingRun,
)
from batchwork.v1.job_service_pb2_grpc import JobServiceServicer
from batchwork.v1.policy_pb2 import FailureAction, FailurePolicy, Overlap, RetryPolicy
from batchwork.v1.preference_pb2 import DefaultPreference, Preference, PreferenceOrigin
from batchwork.v1.preference_service_pb2_grpc import PreferenceServiceServicer
from batchwork.v1.reference_pb2 import REFERENCE_STATE_FAILED
from batchwork.v1.schedule_pb2 import DueRule, Weekday
from batchwork.v1.validation_service_pb2 import UserVerdict
from batchwork.v1.validation_service_pb2_grpc import ValidationServiceServicer
from batchwork_client import cli, connect
from batchwork_client.cli import following, session
from batchwork_client.cli.app import app
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp
from google.rpc.error_details_pb2 import BadRequest
from typer.testing import CliRunner

from tests.client.conftest import add_to_server
from tests.client.servers import END, Refusal, end, event, progress, snapshot

Code = grpc.StatusCode


class Recorder:
    """Answers the methods it is given, and keeps what came to each of them."""

    def __init__(self) -> None:
        self.target = ""
        self.requests: dict[str, list[Any]] = {}
        self.metadata: dict[str, Any] = {}
        self.answers: dict[str, Any] = {}

    def sent(self, method: str) -> Any:
        """Returns the one request that came to ``method``."""
        (request,) = self.requests[method]
        return request

    def answer(self, method: str, request: Any, context: Any) -> Any:
        self.requests.setdefault(method, []).append(request)
        self.metadata = dict(context.invocation_metadata())
        answer = self.answers[method]
        if isinstance(answer, Refusal):
            answer.abort_now(context)
        return answer(context) if callable(answer) else answer


def servicer_of(base: type, recorder: Recorder) -> Any:
    made = base()
    for name in vars(base):
        if not name.startswith("_"):
            setattr(
                made,
                name,
                lambda request, context, name=name: recorder.answer(name, request, context),
            )
    return made


@pytest.fixture
def server() -> Iterator[Recorder]:
    recorder = Recorder()
    running = grpc.server(ThreadPoolExecutor(4), options=(("grpc.so_reuseport", 0),))
    for base in (
        BatchServiceServicer,
        JobServiceServicer,
        PreferenceServiceServicer,
        ValidationServiceServicer,
    ):
        add_to_server(servicer_of(base, recorder), running)
    recorder.target = f"localhost:{running.add_insecure_port('localhost:0')}"
    running.start()
    yield recorder
    running.stop(None).wait()


@pytest.fixture
def batchwork(server: Recorder) -> Callable[..., Any]:
    """Runs the command line against the server."""

    def run(*arguments: str, **options: Any) -> Any:
        return CliRunner().invoke(
            app, ["--target", server.target, *arguments], prog_name="batchwork", **options
        )

    return run


def events(*sent: BatchEvent) -> Callable[[Any], Iterator[WatchBatchResponse]]:
    return lambda _context: iter([WatchBatchResponse(event=each) for each in sent])


def ended(state: BatchState.ValueType) -> BatchEvent:
    batch = Batch(batch_id="bat-1", state=state, counts=BatchCounts(total=2, succeeded=1, failed=1))
    return event(END, 9, batch=batch)


def lines_of(text: str) -> list[Any]:
    return [json.loads(line) for line in text.splitlines()]


class TestSubmit:
    @pytest.fixture(autouse=True)
    def created(self, server):
        server.answers["CreateBatch"] = batch_service_pb2.CreateBatchResponse(
            batch=Batch(batch_id="bat-1", state=BatchState.BATCH_STATE_PENDING)
        )

    def test_prints_only_the_id(self, batchwork, tmp_path):
        file = tmp_path / "items.json"
        file.write_text('[{"item_id": "a", "text": "x"}]')

        result = batchwork("submit", str(file), "--operation", "annotate")

        assert (result.exit_code, result.stdout) == (0, "bat-1\n")

    def test_sends_all_that_is_given(self, batchwork, server, tmp_path):
        file = tmp_path / "posts.csv"
        file.write_text("post,author,text\np1,u1,hello\n")

        result = batchwork(
            *("submit", str(file), "--id-field", "post", "--user-field", "author"),
            *("--template", "summary", "--name", "Posts", "--source", "shop"),
            *("--option", "priority=high", "--option", "chunk_size=10"),
            *("--option", "item_timeout=1.5s", "--option", "retry_limit=0"),
            *("--label", "team=red", "--metadata", "data_source_type=users"),
            *("--request-id", "r1", "--batch-id", "bat-9"),
        )

        assert result.exit_code == 0, result.stderr
        request = server.sent("CreateBatch")
        assert (request.template_id, request.display_name) == ("summary", "Posts")
        assert (request.request_id, request.batch_id) == ("r1", "bat-9")
        assert request.options.priority == Priority.PRIORITY_HIGH
        assert request.options.chunk_size == 10
        assert request.options.item_timeout.ToMilliseconds() == 1500
        assert request.options.HasField("retry_limit")
        assert dict(request.labels) == {"team": "red"}
        assert request.batch_metadata["data_source_type"] == "users"
        (item,) = request.items
        assert (item.item_id, item.user_id) == ("p1", "u1")
        assert json.loads(item.data_json) == {"post": "p1", "author": "u1", "text": "hello"}

    def test_sends_policies_by_their_parts(self, batchwork, server):
        result = batchwork(
            *("submit", "--category", "users", "--option", "batch_timeout=3600s"),
            *("--option", "failure_policy.max_failed=0"),
            *("--option", "failure_policy.max_failed_ratio=0.1"),
            *("--option", "failure_policy.action=fail"),
            *("--option", "retry_policy.initial_backoff=0.5s"),
            *("--option", "retry_policy.non_retryable_reasons=ACCOUNT_GONE,TIMEOUT"),
            *("--option", "notify_on_complete=true", "--option", "notification_targets=ops,mail"),
        )

        assert result.exit_code == 0, result.stderr
        assert server.sent("CreateBatch").options == BatchOptions(
            notify_on_complete=True,
            notification_targets=["ops", "mail"],
            batch_timeout=Duration(seconds=3600),
            failure_policy=FailurePolicy(
                max_failed=0, max_failed_ratio=0.1, action=FailureAction.FAILURE_ACTION_FAIL
            ),
            retry_policy=RetryPolicy(
                initial_backoff=Duration(nanos=500_000_000),
                non_retryable_reasons=["ACCOUNT_GONE", "TIMEOUT"],
            ),
        )

    @pytest.mark.parametrize(
        "option",
        ["failure_policy.action=stop", "failure_policy.max_failed=few", "batch_timeout=1h"],
    )
    def test_a_value_that_an_option_cannot_have_is_refused(self, batchwork, server, option):
        result = batchwork("submit", "--category", "users", "--option", option)

        assert result.exit_code == 2
        assert option.partition("=")[0] in result.stderr
        assert not server.requests

    def test_selects_from_a_category(self, batchwork, server):
        result = batchwork(
            *("submit", "--category", "users", "--limit", "5"),
            *("--filter", "min_age=18", "--filter", 'tags=["a"]', "--filter", "city=Köln"),
        )

        assert result.exit_code == 0, result.stderr
        request = server.sent("CreateBatch")
        assert (request.category, request.limit) == ("users", 5)
        assert dict(request.filters)["min_age"] == 18
        assert list(request.filters["tags"]) == ["a"]
        assert request.filters["city"] == "Köln"

    def test_reads_json_lines_from_stdin(self, batchwork, server):
        result = batchwork("submit", "-", input='{"item_id": "a", "data": 1}\n\n"text"\n')

        assert result.exit_code == 0, result.stderr
        sent = [(item.item_id, item.data_json) for item in server.sent("CreateBatch").items]
        assert sent == [("a", "1"), ("", '"text"')]

    def test_names_every_wrong_line_and_sends_nothing(self, batchwork, server, tmp_path):
        file = tmp_path / "items.jsonl"
        file.write_text('{"item_id": "a"}\n{"item_id": \nNaN\n')

        result = batchwork("submit", str(file))

        assert result.exit_code == 2
        first, second = result.stderr.splitlines()
        assert f"{file}:2: not JSON" in first
        assert f"{file}:3: not JSON" in second
        assert not server.requests

    def test_shows_every_violation_on_a_line(self, batchwork, server):
        wrong = BadRequest(
            field_violations=[
                BadRequest.FieldViolation(field="items[0].data_json", description="not JSON"),
                BadRequest.FieldViolation(field="template_id", description="no such\ntemplate"),
            ]
        )
        server.answers["CreateBatch"] = Refusal(code=Code.INVALID_ARGUMENT, details=[wrong])

        result = batchwork("submit", "--category", "users")

        assert result.exit_code == 2
        assert result.stderr.splitlines() == [
            "error: items[0].data_json: not JSON",
            "error: template_id: no such template",
        ]

    def test_needs_either_items_or_a_category(self, batchwork, tmp_path):
        neither = batchwork("submit")
        both = batchwork("submit", "items.json", "--category", "users")

        assert (neither.exit_code, both.exit_code) == (2, 2)

    def test_unknown_option_is_told_with_the_known_ones(self, batchwork):
        result = batchwork("submit", "--category", "users", "--option", "chunk=10")

        assert result.exit_code == 2
        assert "chunk_size" in result.stderr
        assert "failure_policy.max_failed" in result.stderr

    def test_dry_run_shows_the_plan(self, batchwork, server):
        server.answers["CreateBatch"] = batch_service_pb2.CreateBatchResponse(
            batch=Batch(warnings=[BatchWarning(path="filters.x", message="matches no field")]),
            plan=BatchPlan(item_count=3, skips={"USER_INACTIVE": 2}, sample_item_ids=["a"]),
        )

        text = batchwork("submit", "--category", "users", "--dry-run")
        as_json = batchwork("submit", "--category", "users", "--dry-run", "--json")

        assert "2 USER_INACTIVE" in text.stdout
        assert text.stderr == "warning: filters.x: matches no field\n"
        assert json.loads(as_json.stdout)["plan"]["skips"] == {"USER_INACTIVE": 2}

    def test_watching_shows_it_to_the_end(self, batchwork, server):
        server.answers["WatchBatch"] = events(
            snapshot(1), progress(2, succeeded=4), ended(BatchState.BATCH_STATE_SUCCEEDED)
        )

        result = batchwork("submit", "--category", "users", "--watch")

        assert result.exit_code == 0
        assert "batch bat-1" in result.stderr
        assert "RUNNING: 10 of 10 done" in result.stderr
        assert "SUCCEEDED" in result.stdout


class TestWatch:
    @pytest.fixture(autouse=True)
    def there(self, server):
        server.answers["GetBatch"] = batch_service_pb2.GetBatchResponse(
            batch=Batch(batch_id="bat-1")
        )

    @pytest.mark.parametrize(
        ("state", "code"),
        [
            (BatchState.BATCH_STATE_SUCCEEDED, 0),
            (BatchState.BATCH_STATE_PARTIALLY_SUCCEEDED, 1),
            (BatchState.BATCH_STATE_FAILED, 1),
            (BatchState.BATCH_STATE_CANCELLED, 1),
            (BatchState.BATCH_STATE_EXPIRED, 1),
        ],
        ids=lambda value: BatchState.Name(value) if value > 1 else str(value),
    )
    def test_end_of_the_batch_is_the_exit_code(self, batchwork, server, state, code):
        server.answers["WatchBatch"] = events(snapshot(1), ended(state))

        assert batchwork("watch", "bat-1").exit_code == code

    def test_events_are_json_lines(self, batchwork, server):
        server.answers["WatchBatch"] = events(snapshot(1), progress(2, succeeded=4), end(3))

        result = batchwork("watch", "bat-1", "--json")

        shown = lines_of(result.stdout)
        assert [each["sequence"] for each in shown] == [1, 2, 3]
        assert shown[1]["counts"]["succeeded"] == 4
        assert shown[1]["kind"] == "BATCH_EVENT_KIND_PROGRESS"

    def test_a_delivery_is_told_in_words(self, batchwork, server):
        delivery = event(
            BatchEventKind.BATCH_EVENT_KIND_DELIVERY,
            2,
            event_type="batch:delivered",
            delivery=DeliveryCounts(delivered=3, failed=1),
        )
        server.answers["WatchBatch"] = events(snapshot(1), delivery, end(3))

        result = batchwork("watch", "bat-1")

        assert "delivered: 3 have the results, 1 do not" in result.stderr

    def test_terminal_gets_a_bar_on_stderr(self, batchwork, server, monkeypatch):
        monkeypatch.setattr(following, "stderr_is_terminal", lambda: True)
        server.answers["WatchBatch"] = events(snapshot(1), progress(2, succeeded=4), end(3))

        result = batchwork("watch", "bat-1")

        assert result.exit_code == 0
        assert "SUCCEEDED" in result.stderr
        assert "━" in result.stderr

    def test_interruption_leaves_the_batch_alone_and_says_so(self, batchwork, server):
        main_thread = threading.get_ident()

        def interrupted(context):
            gone = threading.Event()
            context.add_callback(gone.set)
            signal.pthread_kill(main_thread, signal.SIGINT)
            gone.wait()
            return iter(())

        server.answers["WatchBatch"] = interrupted

        result = batchwork("watch", "bat-1")

        assert result.exit_code == 130, result.stderr
        assert "bat-1 goes on" in result.stderr
        assert "CancelBatch" not in server.requests

    def test_unknown_batch_is_told_before_watching(self, batchwork, server):
        server.answers["GetBatch"] = Refusal(code=Code.NOT_FOUND, message="There is no batch 'x'.")

        result = batchwork("watch", "x")

        assert (result.exit_code, result.stderr) == (4, "error: There is no batch 'x'.\n")

    def test_all_batches_are_a_line_each_time(self, batchwork, server):
        def told(context):
            for batch_id, each in (("a", snapshot(1)), ("b", progress(2, succeeded=4))):
                each.batch_id = batch_id
                each.event_type = "batch:progress"
                yield WatchBatchesResponse(event=each)
            context.abort(Code.PERMISSION_DENIED, "enough")

        server.answers["WatchBatches"] = told

        result = batchwork("watch", "--operation", "annotate", "--label", "team=blue")

        first, second = result.stdout.splitlines()
        assert first.startswith("a progress: ")
        assert second == "b progress: 10 of 10 done"
        assert server.sent("WatchBatches").operation == "annotate"
        assert dict(server.sent("WatchBatches").labels) == {"team": "blue"}

    def test_a_batch_and_filters_do_not_go_together(self, batchwork, server):
        result = batchwork("watch", "bat-1", "--job", "job-1")

        assert result.exit_code == 2
        assert "not both" in result.stderr


class TestReading:
    def test_list_shows_batches_without_cutting_their_ids(self, batchwork, server):
        long_id = "bat_user_management_20260701080910_" + "x" * 60
        server.answers["ListBatches"] = batch_service_pb2.ListBatchesResponse(
            batches=[
                Batch(
                    batch_id=long_id,
                    state=BatchState.BATCH_STATE_RUNNING,
                    counts=BatchCounts(total=200, pending=150, running=10, failed=1),
                    operation="annotate",
                    create_time=Timestamp(seconds=1_783_000_000),
                )
            ]
        )

        result = batchwork("list", "--state", "running", "--state", "FAILED", "--label", "a=b")

        assert result.exit_code == 0, result.stderr
        assert long_id in result.stdout
        assert "40 of 200 done, 1 failed, 10 running" in result.stdout
        assert "2026-07-02 13:46:40Z" in result.stdout
        request = server.sent("ListBatches")
        assert list(request.states) == [
            BatchState.BATCH_STATE_RUNNING,
            BatchState.BATCH_STATE_FAILED,
        ]
        assert request.page_size == 20

    def test_unknown_state_is_told_with_the_known_ones(self, batchwork):
        result = batchwork("list", "--state", "done")

        assert result.exit_code == 2
        assert "succeeded" in result.stderr

    def test_numbers_are_numbers_in_json(self, batchwork, server):
        # Protobuf's JSON has 64-bit integers as strings, and "10" < "9".
        server.answers["GetBatch"] = batch_service_pb2.GetBatchResponse(
            batch=Batch(batch_id="bat-1", counts=BatchCounts(total=10), labels={"n": "1"})
        )

        shown = json.loads(batchwork("show", "bat-1", "--json").stdout)

        assert shown["counts"]["total"] == 10
        assert shown["counts"]["failed"] == 0
        assert shown["labels"] == {"n": "1"}

    def test_show_tells_a_person_about_a_batch(self, batchwork, server):
        server.answers["GetBatch"] = batch_service_pb2.GetBatchResponse(
            batch=Batch(
                batch_id="bat-1",
                job_id="daily",
                job_revision=3,
                warnings=[BatchWarning(path="filters.x", message="matches no field")],
            )
        )

        result = batchwork("--tenant", "acme", "show", "bat-1")

        assert "daily (revision 3)" in result.stdout
        assert "warning: filters.x" in result.stderr
        assert server.sent("GetBatch").tenant_id == "acme"

    def test_results_show_what_became_of_items(self, batchwork, server):
        server.answers["ListItems"] = batch_service_pb2.ListItemsResponse(
            items=[
                Item(
                    item_id="a",
                    state=ItemState.ITEM_STATE_FAILED,
                    error=ItemError(reason="ITEM_TIMEOUT", message="[red]slow\x1b[2J"),
                ),
                Item(item_id="b", state=ItemState.ITEM_STATE_SUCCEEDED, result_json='{"n":1}'),
            ]
        )

        result = batchwork("results", "bat-1", "--failed", "--state", "succeeded")

        assert "ITEM_TIMEOUT: [red]slow [2J" in result.stdout
        assert "\x1b" not in result.stdout
        assert '{"n":1}' in result.stdout
        assert list(server.sent("ListItems").states) == [
            ItemState.ITEM_STATE_SUCCEEDED,
            ItemState.ITEM_STATE_FAILED,
        ]

    def test_results_are_json_lines(self, batchwork, server):
        server.answers["ListItems"] = batch_service_pb2.ListItemsResponse(
            items=[Item(item_id="a", item_index=7), Item(item_id="b")]
        )

        shown = lines_of(batchwork("results", "bat-1", "--json").stdout)

        assert [each["item_id"] for each in shown] == ["a", "b"]
        assert shown[0]["item_index"] == 7

    def test_one_item_is_shown_with_its_attempts(self, batchwork, server):
        server.answers["GetItem"] = batch_service_pb2.GetItemResponse(
            item=Item(
                item_id="a",
                result_json="42",
                attempts=[
                    ItemAttempt(number=1, error=ItemError(reason="BUSY", message="later")),
                    ItemAttempt(number=2),
                ],
            )
        )

        result = batchwork("results", "bat-1", "--item", "a")

        assert "BUSY: later" in result.stdout
        assert "succeeded" in result.stdout
        assert server.sent("GetItem").item_id == "a"

    def test_cancel_tells_the_new_state(self, batchwork, server):
        server.answers["CancelBatch"] = batch_service_pb2.CancelBatchResponse(
            batch=Batch(batch_id="bat-1", state=BatchState.BATCH_STATE_CANCELLING)
        )

        assert batchwork("cancel", "bat-1").stdout == "bat-1 CANCELLING\n"

    def test_cancel_stops_what_is_in_flight_when_it_is_told_to(self, batchwork, server):
        server.answers["CancelBatch"] = batch_service_pb2.CancelBatchResponse(
            batch=Batch(batch_id="bat-1", state=BatchState.BATCH_STATE_CANCELLING)
        )

        batchwork("cancel", "bat-1", "--stop", "--note", "Wrong list.")

        sent = server.sent("CancelBatch")
        assert sent.mode == batch_service_pb2.CANCEL_MODE_STOP_IN_FLIGHT
        assert sent.note == "Wrong list."

    def test_pause_and_resume_tell_the_new_state(self, batchwork, server):
        server.answers["PauseBatch"] = batch_service_pb2.PauseBatchResponse(
            batch=Batch(batch_id="bat-1", state=BatchState.BATCH_STATE_PAUSED)
        )
        server.answers["ResumeBatch"] = batch_service_pb2.ResumeBatchResponse(
            batch=Batch(batch_id="bat-1", state=BatchState.BATCH_STATE_RUNNING)
        )

        paused = batchwork("pause", "bat-1", "--note", "Lunch.", "--request-id", "r1")
        resumed = batchwork("resume", "bat-1")

        assert (paused.stdout, resumed.stdout) == ("bat-1 PAUSED\n", "bat-1 RUNNING\n")
        sent = server.sent("PauseBatch")
        assert (sent.note, sent.request_id) == ("Lunch.", "r1")

    def test_retry_tells_how_many_items_are_tried_again(self, batchwork, server):
        server.answers["RetryBatch"] = batch_service_pb2.RetryBatchResponse(
            batch=Batch(batch_id="bat-1", state=BatchState.BATCH_STATE_PENDING), retried_count=3
        )

        result = batchwork(
            *("retry", "bat-1", "--state", "failed", "--state", "expired"),
            *("--item", "a", "--item", "b", "--user", "u1", "--error-reason", "BUSY"),
        )

        assert result.stdout == "bat-1 PENDING, items to try again: 3\n"
        sent = server.sent("RetryBatch")
        assert list(sent.states) == [ItemState.ITEM_STATE_FAILED, ItemState.ITEM_STATE_EXPIRED]
        assert (sent.user_id, sent.error_reason) == ("u1", "BUSY")
        assert list(sent.item_ids) == ["a", "b"]

    def test_retry_can_watch_the_batch_to_its_end(self, batchwork, server):
        server.answers["RetryBatch"] = batch_service_pb2.RetryBatchResponse(retried_count=3)
        server.answers["WatchBatch"] = events(ended(BatchState.BATCH_STATE_PARTIALLY_SUCCEEDED))

        result = batchwork("retry", "bat-1", "--watch")

        assert result.exit_code == 1
        assert "items to try again: 3" in result.stderr
        assert "PARTIALLY_SUCCEEDED" in result.stdout

    def test_show_tells_why_a_batch_does_not_go_on(self, batchwork, server):
        batch = Batch(
            batch_id="bat-1",
            state=BatchState.BATCH_STATE_PAUSED,
            state_reason="PROVIDER_DOWN",
            state_message="No answer.",
            attempt_number=2,
            wait_reasons=[
                WaitReason(reason="PROVIDER_DOWN", message="No answer."),
                WaitReason(reason="RETRY_BACKOFF", message="It waits."),
            ],
        )
        batch.due_time.FromSeconds(500)
        batch.resume_time.FromSeconds(1_000)
        batch.expire_time.FromSeconds(2_000)
        batch.wait_reasons[1].until.FromSeconds(3_000)
        server.answers["GetBatch"] = batch_service_pb2.GetBatchResponse(batch=batch)

        facts = [line.split(maxsplit=1) for line in batchwork("show", "bat-1").stdout.splitlines()]

        shown = {line[0]: line[1].strip() for line in facts if len(line) == 2}
        assert shown["reason"] == "PROVIDER_DOWN: No answer."
        assert shown["resumes"] == "1970-01-01 00:16:40Z"
        assert shown["waits"] == "for  RETRY_BACKOFF: It waits. Until 1970-01-01 00:50:00Z."
        assert shown["attempt"] == "2"
        assert shown["due"] == "1970-01-01 00:08:20Z"
        assert shown["expires"] == "1970-01-01 00:33:20Z"


class TestDeletion:
    @pytest.fixture(autouse=True)
    def answers(self, server):
        server.answers["DeleteBatch"] = batch_service_pb2.DeleteBatchResponse()
        server.answers["PurgeBatches"] = batch_service_pb2.PurgeBatchesResponse(
            batch_count=2, item_count=30, sample_batch_ids=["bat-1", "bat-2"]
        )

    def test_delete_says_what_is_gone(self, batchwork, server):
        result = batchwork("delete", "bat-1", "--request-id", "r1")

        assert (result.exit_code, result.stdout) == (0, "bat-1 deleted\n")
        request = server.sent("DeleteBatch")
        assert (request.batch_id, request.request_id) == ("bat-1", "r1")

    def test_purge_shows_what_it_would_delete(self, batchwork, server):
        result = batchwork("purge", "--older-than-days", "30", "--state", "failed")

        assert result.exit_code == 0, result.stderr
        assert "would delete  2 batches with 30 items" in result.stdout
        assert "bat-1, bat-2" in result.stdout
        assert "--force" in result.stderr
        request = server.sent("PurgeBatches")
        assert (request.older_than_days, request.force) == (30, False)
        assert list(request.states) == [BatchState.BATCH_STATE_FAILED]

    def test_purge_deletes_when_it_is_told_to(self, batchwork, server):
        text = batchwork("purge", "--older-than-days", "0", "--force")
        as_json = batchwork("purge", "--older-than-days", "0", "--force", "--json")

        assert "deleted     2 batches with 30 items" in text.stdout
        assert text.stderr == ""
        assert json.loads(as_json.stdout)["batch_count"] == 2
        request = server.requests["PurgeBatches"][0]
        assert (request.HasField("older_than_days"), request.force) == (True, True)

    def test_purge_wants_to_know_how_old(self, batchwork, server):
        assert batchwork("purge", "--force").exit_code == 2
        assert not server.requests

    def test_purge_leaves_other_tenants_alone(self, batchwork, server):
        result = batchwork("--tenant", "acme", "purge", "--older-than-days", "0", "--force")

        assert result.exit_code == 2
        assert not server.requests


class TestJobs:
    def test_jobs_are_listed(self, batchwork, server):
        job = Job(job_id="daily", revision=2, batch_type="INDIVIDUAL_USERS")
        job.schedule.daily.at = "09:00"
        server.answers["ListJobs"] = job_service_pb2.ListJobsResponse(jobs=[job])

        text = batchwork("jobs", "--shape", "individual")
        as_json = batchwork("jobs", "--json")

        assert "daily  2         INDIVIDUAL_USERS" in text.stdout
        assert json.loads(as_json.stdout)["schedule"]["daily"] == {"at": "09:00"}
        assert server.requests["ListJobs"][0].shape == JobShape.JOB_SHAPE_INDIVIDUAL

    def test_job_is_shown(self, batchwork, server):
        job = Job(
            job_id="daily",
            revision=2,
            batch_type="INDIVIDUAL_USERS",
            categories=["posts", "news"],
            pause_note="Holidays.",
            etag="e2",
        )
        job.schedule.daily.at = "09:00"
        job.filters["min_likes"] = 3
        job.pause_time.FromJsonString("2026-03-01T08:00:00Z")
        server.answers["GetJob"] = job_service_pb2.GetJobResponse(job=job)

        text = batchwork("--tenant", "acme", "job-show", "daily")
        as_json = batchwork("job-show", "daily", "--json")

        shown = dict(line.split("  ", 1) for line in text.stdout.splitlines() if "  " in line)
        assert {name: value.strip() for name, value in shown.items() if name.strip()} == {
            "job": "daily (revision 2)",
            "type": "INDIVIDUAL_USERS",
            "categories": "posts, news",
            "filters": '{"min_likes": 3.0}',
            "schedule": '{"daily": {"at": "09:00"}}',
            "paused": "2026-03-01 08:00:00Z",
            "why": "Holidays.",
            "etag": "e2",
        }
        assert json.loads(as_json.stdout)["schedule"]["daily"] == {"at": "09:00"}
        request = server.requests["GetJob"][0]
        assert (request.job_id, request.tenant_id) == ("daily", "acme")

    def test_job_without_a_schedule_runs_on_request(self, batchwork, server):
        server.answers["GetJob"] = job_service_pb2.GetJobResponse(job=Job(job_id="daily"))

        assert "on request" in batchwork("job-show", "daily").stdout

    def test_job_that_is_not_there_is_named(self, batchwork, server):
        missing = Refusal(code=Code.NOT_FOUND, message="There is no job 'dayly'.")
        server.answers["GetJob"] = missing

        result = batchwork("job-show", "dayly")

        assert result.exit_code == 4
        assert result.stderr == "error: There is no job 'dayly'.\n"

    def test_upcoming_runs_are_listed_with_their_rules(self, batchwork, server):
        run = UpcomingRun(
            job_id="daily",
            time_zone="Europe/Berlin",
            local_time="2026-03-29T03:00:00+02:00",
            scheduled_local_time="2026-03-29T02:30:00",
            rules=[DueRule.DUE_RULE_GAP],
        )
        run.due_time.FromJsonString("2026-03-29T01:00:00Z")
        server.answers["ListUpcomingRuns"] = job_service_pb2.ListUpcomingRunsResponse(runs=[run])

        text = batchwork("upcoming", "daily", "--since", "2026-03-28", "--until", "2026-03-30")
        as_json = batchwork("upcoming", "--json")

        assert "2026-03-29 01:00:00Z  2026-03-29 03:00:00+02:00  Europe/Berlin" in text.stdout
        assert "02:30 is left out by the clock; at the first instant after" in text.stdout
        assert json.loads(as_json.stdout)["rules"] == ["DUE_RULE_GAP"]
        bounded, everything = server.requests["ListUpcomingRuns"]
        assert list(bounded.job_ids) == ["daily"]
        assert (bounded.HasField("start_time"), bounded.HasField("end_time")) == (True, True)
        assert not everything.HasField("start_time")

    def test_occurrences_are_listed_with_their_batch_or_reason(self, batchwork, server):
        fired = Occurrence(
            job_id="daily",
            decision=OccurrenceDecision.OCCURRENCE_DECISION_FIRED,
            batch_id="bat_schedule_1",
        )
        fired.due_time.FromJsonString("2026-03-29T01:00:00Z")
        skipped = Occurrence(
            job_id="daily",
            decision=OccurrenceDecision.OCCURRENCE_DECISION_SKIPPED,
            reason="OVERLAP",
            message="Another run of the job went on.",
        )
        server.answers["ListOccurrences"] = job_service_pb2.ListOccurrencesResponse(
            occurrences=[fired, skipped]
        )

        text = batchwork("occurrences", "daily", "--since", "2026-03-28", "--until", "2026-03-30")
        as_json = batchwork("occurrences", "daily", "--json", "--limit", "1")

        assert "2026-03-29 01:00:00Z" in text.stdout
        assert "FIRED     bat_schedule_1" in text.stdout
        assert "SKIPPED   OVERLAP          Another run of the job went on." in text.stdout
        assert json.loads(as_json.stdout)["decision"] == "OCCURRENCE_DECISION_FIRED"
        bounded, everything = server.requests["ListOccurrences"]
        assert bounded.job_id == "daily"
        assert (bounded.HasField("start_time"), bounded.HasField("end_time")) == (True, True)
        assert not everything.HasField("start_time")

    def test_references_are_listed_with_their_state(self, batchwork, server):
        answer = batch_service_pb2.ListReferencesResponse()
        answer.references.add(
            user_id="ada",
            batch_id="bat_job_1",
            item_id="ada",
            is_own=True,
            job_id="daily",
            state=REFERENCE_STATE_FAILED,
            reason="BROKEN",
        )
        server.answers["ListReferences"] = answer

        text = batchwork("references", "--user", "ada", "--job", "daily", "--feature", "posts")
        as_json = batchwork("references", "--json")

        assert "ada   bat_job_1  ada   daily  FAILED  BROKEN" in text.stdout
        assert json.loads(as_json.stdout)["reason"] == "BROKEN"
        asked, everything = server.requests["ListReferences"]
        assert (asked.user_id, asked.job_id, asked.feature_type) == ("ada", "daily", "posts")
        assert (everything.user_id, everything.batch_id) == ("", "")

    def test_notifications_are_listed_with_their_state(self, batchwork, server):
        answer = batch_service_pb2.ListNotificationsResponse()
        answer.notifications.add(
            batch_id="bat_job_1",
            target="ops",
            kind=batch_service_pb2.NOTIFICATION_KIND_END,
            state=batch_service_pb2.NOTIFICATION_STATE_PENDING,
            attempts=3,
            error="The target answered with 503.",
        )
        server.answers["ListNotifications"] = answer

        text = batchwork("notifications", "bat_job_1", "--state", "pending", "--state", "failed")
        as_json = batchwork("notifications", "--json")

        assert "bat_job_1  ops     END   PENDING  3" in text.stdout
        assert "The target answered with 503." in text.stdout
        assert json.loads(as_json.stdout)["target"] == "ops"
        asked, everything = server.requests["ListNotifications"]
        assert asked.batch_id == "bat_job_1"
        assert list(asked.states) == [
            batch_service_pb2.NOTIFICATION_STATE_PENDING,
            batch_service_pb2.NOTIFICATION_STATE_FAILED,
        ]
        assert (everything.batch_id, list(everything.states)) == ("", [])

    def test_batches_are_counted_in_a_table(self, batchwork, server):
        some = batch_service_pb2.BatchStatistics(
            name="annotate",
            batch_count=4,
            completion_ratio=0.75,
            batch_count_by_state={"FAILED": 1},
        )
        some.item_counts.total, some.item_counts.succeeded = 7, 5
        server.answers["GetBatchStatistics"] = batch_service_pb2.GetBatchStatisticsResponse(
            total=some, groups=[some], group_count=1
        )

        text = batchwork("stats", "--by", "operation", "--since", "2026-03-28", "--user", "ada")
        as_json = batchwork("stats", "--json")

        header, group, total = text.stdout.splitlines()
        assert header.split()[:3] == ["OPERATION", "BATCHES", "COMPLETED"]
        assert group.split()[:3] == ["annotate", "4", "75%"]
        assert total.split() == ["all", *group.split()[1:]]
        assert total.rstrip().endswith("5 of 7")
        assert json.loads(as_json.stdout)["group_count"] == 1
        bounded, everything = server.requests["GetBatchStatistics"]
        assert bounded.group_by == batch_service_pb2.STATISTICS_GROUP_OPERATION
        assert (bounded.user_id, bounded.HasField("created_after")) == ("ada", True)
        assert not everything.ListFields()

    def test_occurrences_of_groups_name_the_group(self, batchwork, server):
        fired = Occurrence(
            decision=OccurrenceDecision.OCCURRENCE_DECISION_FIRED, batch_id="bat-1", group_key=4711
        )
        server.answers["ListOccurrences"] = job_service_pb2.ListOccurrencesResponse(
            occurrences=[fired]
        )

        result = batchwork("occurrences", "daily")

        assert "GROUP" in result.stdout
        assert "4711" in result.stdout

    def test_occurrences_tell_what_waits_and_what_a_backfill_made(self, batchwork, server):
        decisions = OccurrenceDecision
        server.answers["ListOccurrences"] = job_service_pb2.ListOccurrencesResponse(
            occurrences=[
                Occurrence(decision=decisions.OCCURRENCE_DECISION_QUEUED, message="It waits."),
                Occurrence(decision=decisions.OCCURRENCE_DECISION_BACKFILLED, batch_id="bat-1"),
            ]
        )

        result = batchwork("occurrences", "daily", "--backfill", "bfl_1")

        assert "QUEUED" in result.stdout
        assert "BACKFILLED  bat-1" in result.stdout
        assert server.sent("ListOccurrences").backfill_id == "bfl_1"

    def test_backfill_tells_what_becomes_of_each_due_time(self, batchwork, server):
        queued = BackfillDueTime(fate=BackfillFate.BACKFILL_FATE_QUEUED)
        queued.due_time.FromJsonString("2026-03-29T01:00:00Z")
        run = BackfillDueTime(fate=BackfillFate.BACKFILL_FATE_ALREADY_RUN, batch_id="bat-1")
        run.due_time.FromJsonString("2026-03-30T01:00:00Z")
        server.answers["BackfillJob"] = job_service_pb2.BackfillJobResponse(
            backfill_id="bfl_1", due_times=[queued, run]
        )
        days = ("--from", "2026-03-29", "--to", "2026-03-31")

        result = batchwork("backfill", "daily", *days, "--parallel")
        dry = batchwork("backfill", "daily", *days, "--dry-run", "--json")

        assert "2026-03-29 01:00:00Z  QUEUED" in result.stdout
        assert "2026-03-30 01:00:00Z  ALREADY_RUN  bat-1" in result.stdout
        assert "bfl_1" in result.stderr
        assert json.loads(dry.stdout)["backfill_id"] == "bfl_1"
        parallel, planned = server.requests["BackfillJob"]
        assert parallel.overlap == BackfillOverlap.BACKFILL_OVERLAP_ALLOW
        assert not parallel.validate_only
        assert (planned.overlap, planned.validate_only) == (
            BackfillOverlap.BACKFILL_OVERLAP_QUEUE,
            True,
        )
        assert parallel.HasField("start_time")
        assert parallel.HasField("end_time")

    def test_a_backfill_in_which_nothing_is_left_says_so(self, batchwork, server):
        server.answers["BackfillJob"] = job_service_pb2.BackfillJobResponse()

        result = batchwork("backfill", "daily", "--from", "2026-03-29", "--to", "2026-03-30")

        assert "nothing is left to be made up for" in result.stderr

    def test_a_cancelled_backfill_tells_how_much_waited(self, batchwork, server):
        server.answers["CancelBackfill"] = job_service_pb2.CancelBackfillResponse(cancelled_count=3)

        text = batchwork("backfill-cancel", "bfl_1")
        as_json = batchwork("backfill-cancel", "bfl_1", "--json")

        assert text.stdout == "bfl_1 cancelled; due times that waited: 3\n"
        assert json.loads(as_json.stdout) == {"cancelled_count": 3}

    def test_a_job_is_paused_with_a_note_and_resumed(self, batchwork, server):
        server.answers["PauseJob"] = job_service_pb2.PauseJobResponse()
        server.answers["ResumeJob"] = job_service_pb2.ResumeJobResponse()

        paused = batchwork("job-pause", "daily", "--note", "Holidays.")
        resumed = batchwork("job-resume", "daily", "--request-id", "the-one-request")

        assert (paused.stdout, resumed.stdout) == ("daily paused\n", "daily resumed\n")
        [pause], [resume] = server.requests["PauseJob"], server.requests["ResumeJob"]
        assert (pause.job_id, pause.note) == ("daily", "Holidays.")
        assert (resume.job_id, resume.request_id) == ("daily", "the-one-request")

    def test_import_shows_what_changed(self, batchwork, server, tmp_path):
        server.answers["ImportJobs"] = job_service_pb2.ImportJobsResponse(
            changes=[
                JobChange(
                    job_id="daily",
                    kind=JobChangeKind.JOB_CHANGE_KIND_UPDATED,
                    revision=2,
                    changed_fields=["limit"],
                )
            ],
            warnings=[BatchWarning(path="$.jobs[0]", message="no time zone")],
        )
        file = tmp_path / "jobs.json"
        file.write_text('{"batch_processing_jobs": []}')

        result = batchwork("job-import", str(file), "--source", "deploy", "--dry-run")

        assert result.exit_code == 0, result.stderr
        assert "UPDATED" in result.stdout
        assert "warning: $.jobs[0]: no time zone" in result.stderr
        request = server.sent("ImportJobs")
        assert (request.source, request.validate_only) == ("deploy", True)
        assert not request.prune

    def test_sync_shows_what_was_deleted(self, batchwork, server, tmp_path):
        server.answers["ImportJobs"] = job_service_pb2.ImportJobsResponse(
            changes=[
                JobChange(job_id="daily", kind=JobChangeKind.JOB_CHANGE_KIND_DELETED, revision=2)
            ]
        )
        file = tmp_path / "jobs.json"
        file.write_text('{"batch_processing_jobs": []}')

        result = batchwork("job-import", str(file), "--prune")

        assert result.exit_code == 0, result.stderr
        assert "daily  DELETED" in result.stdout
        assert server.sent("ImportJobs").prune

    def test_job_is_deleted(self, batchwork, server):
        server.answers["DeleteJob"] = job_service_pb2.DeleteJobResponse()

        result = batchwork("job-delete", "daily", "--etag", "e1", "--allow-missing")

        assert result.stdout == "daily deleted\n"
        request = server.sent("DeleteJob")
        assert (request.job_id, request.etag, request.allow_missing) == ("daily", "e1", True)

    def test_job_of_another_tenant_is_not_deleted(self, batchwork, server):
        result = batchwork("--tenant", "acme", "job-delete", "daily")

        assert result.exit_code == 2
        assert not server.requests

    def test_export_writes_the_job_file(self, batchwork, server, tmp_path):
        server.answers["ExportJobs"] = job_service_pb2.ExportJobsResponse(jobs_json='{"a": "ü"}')
        file = tmp_path / "jobs.json"

        to_stdout = batchwork("job-export", "daily")
        to_file = batchwork("job-export", "--output", str(file))

        assert to_stdout.stdout == '{"a": "ü"}\n'
        assert (to_file.stdout, file.read_text("utf-8")) == ("", '{"a": "ü"}\n')

    def test_run_prints_the_id_of_the_batch(self, batchwork, server):
        server.answers["RunJob"] = job_service_pb2.RunJobResponse(batch=Batch(batch_id="bat-1"))

        result = batchwork(
            "run", "daily", "--user", "u1", "--user", "u2", "--plan", "t1", "--overlap", "skip"
        )

        assert result.stdout == "bat-1\n"
        request = server.sent("RunJob")
        assert (list(request.user_ids), request.plan_token) == (["u1", "u2"], "t1")
        assert request.overlap == Overlap.OVERLAP_SKIP

    def test_run_that_would_not_be_what_was_planned_is_told(self, batchwork, server):
        server.answers["RunJob"] = Refusal(
            code=Code.ABORTED, reason="PLAN_STALE", message="It differs in: items."
        )

        result = batchwork("run", "daily", "--plan", "t1")

        assert (result.exit_code, result.stdout) == (6, "")
        assert result.stderr == "error: It differs in: items.\n"

    def test_plan_is_shown_with_its_token_at_the_end(self, batchwork, server):
        server.answers["PlanJob"] = job_service_pb2.PlanJobResponse(
            batch=Batch(
                job_id="daily",
                job_revision=3,
                template_id="post",
                warnings=[BatchWarning(path="filters.x", message="matches no field")],
            ),
            plan=BatchPlan(
                item_count=40,
                skips={"USER_NOT_FOUND": 1, "USER_INACTIVE": 2},
                sample=[
                    PlannedItem(item_id="a", user_id="u1", data_beginning="{}", data_bytes=2),
                    PlannedItem(item_id="b", data_beginning="x" * 500, data_bytes=900),
                    PlannedItem(item_id="c", skip_reason="USER_INACTIVE", data_bytes=2),
                ],
            ),
            plan_token="t1",
        )

        text = batchwork("plan", "daily", "--user", "u1")
        as_json = batchwork("plan", "daily", "--json")

        assert "daily (revision 3)" in text.stdout
        assert "2 USER_INACTIVE, 1 USER_NOT_FOUND" in text.stdout
        assert f"{'x' * 60}…\n" in text.stdout
        assert text.stdout.endswith("plan t1\n")
        assert text.stderr == "warning: filters.x: matches no field\n"
        assert json.loads(as_json.stdout)["plan"]["sample"][1]["data_bytes"] == 900
        with_user, _ = server.requests["PlanJob"]
        assert (with_user.job_id, list(with_user.user_ids)) == ("daily", ["u1"])

    def test_job_of_another_tenant_is_not_planned(self, batchwork, server):
        result = batchwork("--tenant", "acme", "plan", "daily")

        assert result.exit_code == 2
        assert not server.requests

    def test_file_that_is_not_there_is_told(self, batchwork):
        result = batchwork("job-import", "missing.json")

        assert result.exit_code == 2
        assert "missing.json" in result.stderr


class TestPreferences:
    @pytest.fixture(autouse=True)
    def stored(self, server):
        preference = Preference(user_id="u1", feature_type="posts", enabled=True, etag="e1")
        preference.template_overrides.update({"tone": "dry"})
        server.answers["GetPreference"] = preference_service_pb2.GetPreferenceResponse(
            preference=preference
        )
        server.answers["SetPreference"] = preference_service_pb2.SetPreferenceResponse(
            preference=preference
        )
        server.answers["ListPreferences"] = preference_service_pb2.ListPreferencesResponse(
            preferences=[preference]
        )

    def test_preference_is_shown(self, batchwork):
        text = batchwork("preferences", "get", "u1", "posts")
        as_json = batchwork("preferences", "get", "u1", "posts", "--json")

        assert '{"tone": "dry"}' in text.stdout
        assert json.loads(as_json.stdout)["etag"] == "e1"

    def test_preferences_are_listed(self, batchwork, server):
        result = batchwork("preferences", "list", "--feature", "posts", "--disabled")

        assert "u1    posts" in result.stdout
        request = server.sent("ListPreferences")
        assert (request.HasField("enabled"), request.enabled) == (True, False)

    def test_only_what_is_given_is_set(self, batchwork, server):
        result = batchwork(
            *("preferences", "set", "u1", "posts", "--disabled", "--etag", "e0"),
            *("--schedule", "weekly mon,thursday 09:00", "--time-zone", "Europe/Berlin"),
        )

        assert result.exit_code == 0, result.stderr
        request = server.sent("SetPreference")
        assert list(request.update_mask.paths) == ["enabled", "schedule"]
        assert request.preference.etag == "e0"
        schedule = request.preference.schedule
        assert (schedule.weekly.at, schedule.time_zone) == ("09:00", "Europe/Berlin")
        assert list(schedule.weekly.days) == [Weekday.WEEKDAY_MONDAY, Weekday.WEEKDAY_THURSDAY]

    @pytest.mark.parametrize(
        "arguments",
        [
            pytest.param([], id="nothing to set"),
            pytest.param(["--time-zone", "UTC"], id="zone without schedule"),
            pytest.param(["--schedule", "sometimes"], id="no schedule"),
            pytest.param(["--schedule", "weekly someday 09:00"], id="no day"),
            pytest.param(["--override", "tone"], id="no value"),
        ],
    )
    def test_what_makes_no_sense_is_refused_here(self, batchwork, server, arguments):
        result = batchwork("preferences", "set", "u1", "posts", *arguments)

        assert result.exit_code == 2
        assert not server.requests


class TestPreferencesOfAllTenants:
    @pytest.fixture(autouse=True)
    def stored(self, server):
        preferences = preference_service_pb2.ListPreferencesResponse()
        preferences.preferences.add(tenant_id="acme", user_id="u1", feature_type="posts")
        groups = preference_service_pb2.ListPreferenceGroupsResponse()
        groups.groups.add(tenant_id="acme", group_key=7, feature_type="posts")
        changes = preference_service_pb2.ListPreferenceChangesResponse()
        changes.changes.add(tenant_id="acme", sequence=5, feature_type="posts", user_id="u1")
        server.answers["ListPreferences"] = preferences
        server.answers["ListPreferenceGroups"] = groups
        server.answers["ListPreferenceChanges"] = changes

    @pytest.mark.parametrize(
        ("verb", "rpc"),
        [
            ("list", "ListPreferences"),
            ("groups", "ListPreferenceGroups"),
            ("changes", "ListPreferenceChanges"),
        ],
    )
    def test_the_tenant_is_shown_where_several_are_listed(self, batchwork, server, verb, rpc):
        of_all = batchwork("--tenant", "-", "preferences", verb)
        sent = server.sent(rpc)
        of_one = batchwork("--tenant", "acme", "preferences", verb)

        assert sent.tenant_id == "-"
        heading, *rows = of_all.stdout.splitlines()
        assert heading.startswith("TENANT")
        assert [row.split()[0] for row in rows] == ["acme"]
        assert "acme" not in of_one.stdout

    def test_json_names_the_tenant(self, batchwork):
        result = batchwork("--tenant", "-", "preferences", "list", "--json")

        assert json.loads(result.stdout)["tenant_id"] == "acme"


class TestPreferenceGroups:
    def test_groups_are_listed_with_their_next_run(self, batchwork, server):
        answer = preference_service_pb2.ListPreferenceGroupsResponse()
        group = answer.groups.add(group_key=7, feature_type="posts", member_count=12)
        group.schedule.daily.at = "09:00"
        group.next_runs.add(
            job_id="daily", local_time="2026-03-28T09:00:00+01:00", time_zone="Europe/Berlin"
        )
        server.answers["ListPreferenceGroups"] = answer

        text = batchwork("preferences", "groups", "--feature", "posts")
        as_json = batchwork("preferences", "groups", "--json")

        assert "2026-03-28 09:00:00+01:00 Europe/Berlin, daily" in text.stdout
        assert json.loads(as_json.stdout)["member_count"] == 12

    def test_members_are_listed(self, batchwork, server):
        answer = preference_service_pb2.ListGroupMembersResponse()
        answer.preferences.add(user_id="u1")
        server.answers["ListGroupMembers"] = answer

        result = batchwork("preferences", "members", "7")

        assert "u1" in result.stdout
        assert server.sent("ListGroupMembers").group_key == 7

    def test_categories_are_listed_with_why_they_suit(self, batchwork, server):
        answer = preference_service_pb2.ListCompatibleCategoriesResponse()
        answer.categories.add(category="fashion", job_ids=["daily"], missing_fields=["tags"])
        server.answers["ListCompatibleCategories"] = answer

        result = batchwork("preferences", "categories", "posts", "--user", "u1")

        assert "fashion" in result.stdout
        assert "tags" in result.stdout
        assert server.sent("ListCompatibleCategories").user_id == "u1"

    def test_changes_are_listed(self, batchwork, server):
        answer = preference_service_pb2.ListPreferenceChangesResponse(newest=5)
        answer.changes.add(
            sequence=5, kind="PREFERENCE_CHANGE_KIND_DELETED", user_id="u1", group_left=7
        )
        server.answers["ListPreferenceChanges"] = answer

        result = batchwork("preferences", "changes", "--after", "4")

        assert "deleted" in result.stdout
        assert server.sent("ListPreferenceChanges").after == 4

    def test_what_counts_for_a_user_is_told_with_who_said_it(self, batchwork, server):
        answer = preference_service_pb2.GetEffectivePreferenceResponse(
            enabled=True, enabled_origin=PreferenceOrigin.PREFERENCE_ORIGIN_TENANT_DEFAULT
        )
        answer.template_overrides.update({"tone": "dry"})
        answer.override_origins["tone"] = PreferenceOrigin.PREFERENCE_ORIGIN_USER
        server.answers["GetEffectivePreference"] = answer

        result = batchwork("preferences", "effective", "u1", "posts")

        assert "tenant default" in result.stdout
        assert '"dry"' in result.stdout

    def test_load_is_foretold_hour_by_hour_with_a_chart(self, batchwork, server):
        answer = preference_service_pb2.ForecastLoadResponse(user_count=60, run_count=3)
        for time, users in (("07:00", 30), ("07:30", 10), ("08:00", 20)):
            bucket = answer.buckets.add(user_count=users, run_count=1)
            bucket.start_time.FromJsonString(f"2026-03-29T{time}:00Z")
        server.answers["ForecastLoad"] = answer

        text = batchwork("preferences", "forecast", "--since", "2026-03-29", "--hours", "48")
        as_json = batchwork("preferences", "forecast", "--feature", "posts", "--json")

        _, seven, eight = text.stdout.splitlines()
        assert seven.split() == ["2026-03-29", "07:00", "40", "2", "07:00", "(30)", "#" * 40]
        assert eight.split() == ["2026-03-29", "08:00", "20", "1", "08:00", "(20)", "#" * 20]
        assert "60 users in 3 runs" in text.stderr
        assert json.loads(as_json.stdout)["user_count"] == 60
        bounded, of_feature = server.requests["ForecastLoad"]
        length = bounded.end_time.ToSeconds() - bounded.start_time.ToSeconds()
        assert (length, of_feature.feature_type) == (48 * 3600, "posts")

    def test_why_a_user_got_nothing_is_told(self, batchwork, server):
        answer = preference_service_pb2.ExplainUserResponse()
        answer.periods.add(
            job_id="daily",
            period="2026-03-29",
            decision="USER_DECISION_SKIPPED",
            reason="ALREADY_DONE",
            message="They were skipped.",
        )
        server.answers["ExplainUser"] = answer

        result = batchwork("preferences", "explain", "u1", "--feature", "posts")

        assert "2026-03-29" in result.stdout
        assert "ALREADY_DONE" in result.stdout
        request = server.sent("ExplainUser")
        assert (request.user_id, request.feature_type) == ("u1", "posts")

    def test_what_the_config_database_says_of_a_user_is_told(self, batchwork, server):
        answer = preference_service_pb2.ExplainUserResponse()
        answer.source_note.state = preference_service_pb2.SOURCE_STATE_DIFFERENT
        answer.source_note.message = "It says now something else than is stored (enabled)."
        answer.source_note.differences.add(field="enabled", stored="true", source="false")
        server.answers["ExplainUser"] = answer

        result = batchwork("preferences", "explain", "u1", "--feature", "posts")

        assert "config database  It says now something else" in result.stdout
        assert "stored true, there false" in result.stdout

    def test_schedule_is_previewed(self, batchwork, server):
        answer = preference_service_pb2.PreviewScheduleResponse()
        answer.runs.add(
            local_time="2026-03-29T03:00:00+02:00",
            scheduled_local_time="2026-03-29T02:30:00",
            time_zone="Europe/Berlin",
            rules=["DUE_RULE_GAP"],
        )
        server.answers["PreviewSchedule"] = answer

        result = batchwork("preferences", "preview", "daily 02:30", "--limit", "3")

        assert "02:30 is left out by the clock" in result.stdout
        assert server.sent("PreviewSchedule").count == 3

    def test_default_is_set_and_shown(self, batchwork, server):
        default = DefaultPreference(feature_type="posts", enabled=True, etag="r1")
        server.answers["SetDefaultPreference"] = (
            preference_service_pb2.SetDefaultPreferenceResponse(default_preference=default)
        )
        server.answers["GetDefaultPreference"] = (
            preference_service_pb2.GetDefaultPreferenceResponse(default_preference=default)
        )

        written = batchwork("preferences", "set-default", "posts", "--schedule", "daily 09:00")
        read = batchwork("preferences", "get-default", "posts")

        assert written.exit_code == 0, written.stderr
        assert list(server.sent("SetDefaultPreference").update_mask.paths) == ["schedule"]
        assert "the job's" in read.stdout

    def test_many_are_set_from_a_file(self, batchwork, server, tmp_path):
        file = tmp_path / "wishes.json"
        file.write_text('[{"user_id": "u1", "feature_type": "posts", "enabled": true}]')
        answer = preference_service_pb2.BatchSetPreferencesResponse()
        answer.results.add(user_id="u1", feature_type="posts", changed=True, group_joined=7)
        server.answers["BatchSetPreferences"] = answer

        result = batchwork("preferences", "set-many", str(file))
        file.write_text("[{]")
        broken = batchwork("preferences", "set-many", str(file))

        assert "yes" in result.stdout
        assert server.sent("BatchSetPreferences").preferences[0].enabled
        assert broken.exit_code == 2
        assert "wishes.json" in broken.stderr

    def test_import_shows_the_difference(self, batchwork, server, tmp_path):
        file = tmp_path / "preferences.json"
        file.write_text('{"tenant_id": "u1", "features": {"posts": {}}}')
        answer = preference_service_pb2.ImportPreferencesResponse()
        answer.preferences.add(
            user_id="u1",
            feature_type="posts",
            kind=preference_service_pb2.PREFERENCE_IMPORT_KIND_UPDATED,
            changed_fields=["schedule"],
        )
        server.answers["ImportPreferences"] = answer

        result = batchwork("preferences", "import", str(file), "--dry-run")

        assert "updated" in result.stdout
        assert "schedule" in result.stdout
        request = server.sent("ImportPreferences")
        assert (request.validate_only, request.preferences_json) == (True, file.read_text())

    def test_preference_is_deleted(self, batchwork, server):
        server.answers["DeletePreference"] = preference_service_pb2.DeletePreferenceResponse(
            group_left=7
        )

        result = batchwork("preferences", "delete", "u1", "posts")

        assert "left group" in result.stdout
        assert server.sent("DeletePreference").request_id


class TestValidateUsers:
    @pytest.fixture(autouse=True)
    def verdicts(self, server):
        answer = validation_service_pb2.ValidateUsersResponse()
        answer.results.add(user_id="u1", verdict=UserVerdict.USER_VERDICT_VALID)
        answer.results.add(user_id="u2", verdict=UserVerdict.USER_VERDICT_INACTIVE)
        answer.totals.total, answer.totals.valid, answer.totals.invalid = 2, 1, 1
        server.answers["ValidateUsers"] = answer

    def test_invalid_user_is_an_exit_code(self, batchwork):
        result = batchwork("validate-users", "u1", "u2")

        assert result.exit_code == 1
        assert "u2    INACTIVE" in result.stdout
        assert result.stderr == "1 of 2 are valid\n"

    def test_ids_come_from_a_file_too(self, batchwork, server, tmp_path):
        file = tmp_path / "ids.txt"
        file.write_text("u1\n\nu2\n")

        result = batchwork("validate-users", "u0", "--file", str(file), "--json")

        totals = json.loads(result.stdout)["totals"]
        assert (totals["total"], totals["valid"], totals["invalid"]) == (2, 1, 1)
        assert list(server.sent("ValidateUsers").user_ids) == ["u0", "u1", "u2"]

    def test_of_very_many_users_only_those_who_are_not_valid_are_listed(self, batchwork, server):
        answers = [validation_service_pb2.StreamValidateUsersResponse() for _ in range(2)]
        answers[0].running_totals.total = answers[0].running_totals.valid = 10_000
        answers[1].results.add(user_id="u2", verdict=UserVerdict.USER_VERDICT_INACTIVE)
        answers[1].running_totals.total, answers[1].running_totals.valid = 10_002, 10_001
        asked: list[str] = []

        def read_and_answer(_context: Any) -> Iterator[Any]:
            for request in server.sent("StreamValidateUsers"):
                asked.extend(request.user_ids)
            return iter(answers)

        server.answers["StreamValidateUsers"] = read_and_answer

        result = batchwork("validate-users", "u1", "u2", "--only-invalid")

        assert asked == ["u1", "u2"]
        assert result.exit_code == 1
        assert result.stdout.split() == ["USER", "VERDICT", "u2", "INACTIVE"]
        assert result.stderr == "10001 of 10002 are valid\n"

    def test_no_id_is_refused_here(self, batchwork, server):
        assert batchwork("validate-users").exit_code == 2
        assert not server.requests


class TestEnding:
    @pytest.mark.parametrize(
        ("code", "exit_code"),
        [
            (Code.INVALID_ARGUMENT, 2),
            (Code.DEADLINE_EXCEEDED, 3),
            (Code.NOT_FOUND, 4),
            (Code.UNAUTHENTICATED, 5),
            (Code.PERMISSION_DENIED, 5),
            (Code.ALREADY_EXISTS, 6),
            (Code.ABORTED, 6),
            (Code.FAILED_PRECONDITION, 6),
            (Code.INTERNAL, 7),
        ],
    )
    def test_refusal_is_one_line_and_an_exit_code(self, batchwork, server, code, exit_code):
        server.answers["GetBatch"] = Refusal(code=code, message="what it was")

        result = batchwork("show", "bat-1")

        assert result.exit_code == exit_code
        assert result.stdout == ""
        (line,) = result.stderr.splitlines()
        assert line.startswith("error: what it was")

    def test_fault_tells_how_to_find_it_in_the_log(self, batchwork, server):
        server.answers["GetBatch"] = Refusal(code=Code.INTERNAL, message="a fault")

        result = batchwork("show", "bat-1")

        assert server.metadata["x-correlation-id"] in result.stderr

    def test_unreachable_server_is_an_exit_code(self, tmp_path, monkeypatch):
        without_retries = functools.partial(connect, options=(("grpc.enable_retries", 0),))
        monkeypatch.setattr(session, "connect", without_retries)

        result = CliRunner().invoke(app, ["--target", f"unix:{tmp_path}/nobody.sock", "list"])

        assert result.exit_code == 3

    def test_tenant_is_refused_where_something_changes(self, batchwork, server):
        result = batchwork("--tenant", "acme", "cancel", "bat-1")

        assert result.exit_code == 2
        assert "--tenant" in result.stderr
        assert not server.requests

    def test_api_key_comes_from_the_environment_and_is_not_shown(self, batchwork, server):
        server.answers["GetBatch"] = Refusal(code=Code.UNAUTHENTICATED, message="unknown key")

        result = batchwork("show", "bat-1", env={"BATCHWORK_API_KEY": "secret"})

        assert server.metadata["authorization"] == "Bearer secret"
        assert "secret" not in result.output

    def test_api_key_is_not_sent_in_clear_text(self):
        result = CliRunner().invoke(
            app,
            ["--target", "batchwork.example:80", "--allow-clear-text", "list"],
            env={"BATCHWORK_API_KEY": "secret"},
        )

        assert result.exit_code == 2
        assert "batchwork.example:80" in result.stderr
        assert "secret" not in result.output

    def test_certificates_that_cannot_be_read_are_told(self, batchwork):
        result = batchwork("--tls-ca", "missing.pem", "list")

        assert result.exit_code == 2
        assert "missing.pem" in result.stderr

    def test_help_lists_the_exit_codes(self, batchwork):
        assert "130  interrupted" in batchwork("--help").stdout


def test_without_the_extra_one_line_says_what_to_install(monkeypatch, capsys):
    monkeypatch.setattr(cli, "find_spec", lambda _name: None)

    with pytest.raises(SystemExit) as ended_with:
        cli.main()

    assert ended_with.value.code == 2
    assert capsys.readouterr().err == (
        "The command line needs typer and rich: pip install 'batchwork[cli]'\n"
    )


def test_entry_point_runs_the_application(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["batchwork", "--help"])

    with pytest.raises(SystemExit) as ended_with:
        cli.main()

    assert ended_with.value.code == 0
    assert "Usage: batchwork" in capsys.readouterr().out
