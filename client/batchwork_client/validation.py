"""The client of ValidationService: one method per RPC."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice

import grpc
from batchwork.v1 import validation_service_pb2 as messages
from batchwork.v1.validation_service_pb2_grpc import ValidationServiceStub

from batchwork_client.calls import Calls

IDS_PER_CALL = 10_000


class Validation:
    """Tells whether what a batch would work on is there.

    A verdict is an answer; an exception means that no verdict could be reached.
    """

    def __init__(self, channel: grpc.aio.Channel, calls: Calls) -> None:
        self._stub = ValidationServiceStub(channel)
        self._calls = calls

    async def validate_users(self, user_ids: Iterable[str]) -> messages.ValidateUsersResponse:
        """Returns a verdict for each id, in the order of the ids, and the totals.

        Any number of ids is fine: more than the server takes at once go in several calls, so
        that the verdicts of a long list are not of one instant.

        Raises:
            InvalidArgumentError: There is no id.
        """
        answer = messages.ValidateUsersResponse()
        for chunk in _chunks(user_ids):
            part = await self._calls.unary(
                self._stub.ValidateUsers, messages.ValidateUsersRequest(user_ids=chunk)
            )
            answer.results.extend(part.results)
            answer.totals.total += part.totals.total
            answer.totals.valid += part.totals.valid
            answer.totals.invalid += part.totals.invalid
        return answer


def _chunks(user_ids: Iterable[str]) -> Iterator[list[str]]:
    remaining = iter(user_ids)
    # An empty list goes out too: what it means is the server's to say.
    yield list(islice(remaining, IDS_PER_CALL))
    while chunk := list(islice(remaining, IDS_PER_CALL)):
        yield chunk
