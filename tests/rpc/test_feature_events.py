"""Batches for a feature are told of by the names that the documents have for its job."""

from __future__ import annotations

import pytest
from batchwork.v1.batch_service_pb2 import BatchEvent, RetryBatchRequest
from batchwork.v1.job_service_pb2 import RunJobRequest
from batchwork_server.errors import ItemFailed

from tests.rpc.api import make_job
from tests.rpc.test_list_references import EDITORS, posts  # noqa: F401  # fixture


def names(events: list[BatchEvent]) -> list[str]:
    told = [event.event_type for event in events]
    return [name for name in told if name not in ("batch:snapshot", "batch:progress")]


@pytest.mark.usefixtures("posts")
async def test_a_run_for_a_feature_is_told_by_its_names(api, processor):
    processor.on("post-1", ItemFailed("BROKEN", "It is broken."))
    await api.import_jobs(make_job(feature_type="montage", **EDITORS))
    run = await api.jobs.RunJob(RunJobRequest(job_id="job-1"))
    failed = await api.watch(run.batch.batch_id, include_items=True)

    await api.batches.RetryBatch(RetryBatchRequest(batch_id=run.batch.batch_id))
    retried = await api.watch(
        run.batch.batch_id, include_items=True, resume_token=failed[-1].resume_token
    )
    afterwards = await api.watch(run.batch.batch_id)

    assert names(failed)[-2:] == ["montage.cache.invalidated", "montage.batch_job.failed"]
    assert names(retried) == [
        "batch:retried",
        "montage.batch_job.started",
        "montage.generated",
        "montage.cache.invalidated",
        "montage.batch_job.completed",
    ]
    assert names(afterwards) == ["montage.batch_job.completed"]


@pytest.mark.usefixtures("posts")
async def test_a_run_for_no_feature_is_told_as_a_batch(api, processor):
    processor.on("post-1", ItemFailed("BROKEN", "It is broken."))
    await api.import_jobs(make_job(**EDITORS))
    run = await api.jobs.RunJob(RunJobRequest(job_id="job-1"))
    failed = await api.watch(run.batch.batch_id, include_items=True)

    await api.batches.RetryBatch(RetryBatchRequest(batch_id=run.batch.batch_id))
    retried = await api.watch(
        run.batch.batch_id, include_items=True, resume_token=failed[-1].resume_token
    )

    assert names(failed)[-1] == "batch:failed"
    assert names(retried) == [
        "batch:retried",
        "batch:started",
        "batch:item_finished",
        "batch:delivered",
        "batch:completed",
    ]
