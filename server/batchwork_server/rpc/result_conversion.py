"""Streams of results between the contract and the use cases."""

from __future__ import annotations

from batchwork.v1.batch_service_pb2 import StreamResultsRequest, StreamResultsResponse

from batchwork_server.application.results import ResultPage, Wanted
from batchwork_server.rpc.checks import Checks
from batchwork_server.rpc.item_conversion import ITEM_STATE_FROM, item_to
from batchwork_server.rpc.result_tokens import ResultTokens

_FINAL_STATE_FROM = {number: state for number, state in ITEM_STATE_FROM.items() if state.is_final}


def wanted_from(request: StreamResultsRequest, *, checks: Checks) -> Wanted:
    return Wanted(
        states=checks.choices("states", request.states, _FINAL_STATE_FROM),
        user_id=checks.line("user_id", request.user_id),
        with_data=not request.without_data,
    )


def page_to(page: ResultPage, tokens: ResultTokens) -> StreamResultsResponse:
    return StreamResultsResponse(
        items=[item_to(item) for item in page.items], resume_token=tokens.write(page.resume)
    )
