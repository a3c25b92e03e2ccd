"""The access log tells who called what, and no secret."""

from __future__ import annotations

from datetime import timedelta

from batchwork.v1.batch_service_pb2 import GetBatchRequest
from batchwork.v1.item_pb2 import ItemInput

from tests.rpc.api import ADA, as_caller, refused


async def test_a_call_is_logged_with_its_caller_and_without_its_key(
    guarded, guarded_server, logged
):
    items = [ItemInput(item_id="a", data_json='{"note": "only for ada"}')]

    await guarded.create_batch(items=items, metadata=as_caller(ADA))
    await refused(
        guarded.batches.GetBatch(GetBatchRequest(batch_id="no-such-batch"), metadata=as_caller(ADA))
    )
    await guarded_server.rpc.stop(timedelta(minutes=1))  # a caller can be ahead of the log

    logs = logged()
    lines = [entry for entry in logs if entry["event"] == "rpc.finished"]
    assert [(line["method"].rpartition("/")[2], line["code"]) for line in lines] == [
        ("CreateBatch", "OK"),
        ("GetBatch", "NOT_FOUND"),
    ]
    assert {(line["caller"], line["tenant_id"]) for line in lines} == {("ada", "blue")}
    assert ADA not in str(logs)
    assert "only for ada" not in str(logs)


async def test_a_refused_key_is_not_logged_either(guarded, guarded_server, logged):
    await refused(guarded.batches.GetBatch(GetBatchRequest(), metadata=as_caller("stolen-key")))
    await guarded_server.rpc.stop(timedelta(minutes=1))

    logs = logged()
    [line] = [entry for entry in logs if entry["event"] == "rpc.finished"]
    assert (line["code"], line["caller"]) == ("UNAUTHENTICATED", None)
    assert "stolen-key" not in str(logs)
