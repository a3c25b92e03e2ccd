"""Tokens of results: after which item of which batch a stream with these filters goes on."""

from __future__ import annotations

from batchwork_server.application.results import ResultPoint, Wanted
from batchwork_server.domain.batch import Batch
from batchwork_server.domain.json_object import MAX_INTEGER
from batchwork_server.errors import InvalidArgument, Violation
from batchwork_server.rpc.opaque import binding_of, read_token, write_token


class ResultTokens:
    """Writes and reads the tokens of one batch and one choice of items."""

    def __init__(self, batch: Batch, wanted: Wanted) -> None:
        states = ",".join(sorted(wanted.states))
        what = f"results/{batch.tenant_id}/{batch.batch_id}/{batch.key}/{states}/{wanted.user_id}"
        self._binding = binding_of(what.encode())

    def write(self, point: ResultPoint) -> str:
        return write_token(point.sequence, point.item_index, binding=self._binding)

    def read(self, token: str) -> ResultPoint | None:
        """Returns where to go on; none without a token.

        Raises:
            InvalidArgument: it is no token, or one of another batch, other states or another user.
        """
        if not token:
            return None
        match read_token(token, binding=self._binding):
            case [int(sequence), int(item_index)] if (
                0 <= sequence <= MAX_INTEGER and 0 <= item_index <= MAX_INTEGER
            ):
                return ResultPoint(sequence=sequence, item_index=item_index)
        message = (
            "This is no token of the results of this batch with these states and this user; "
            "repeat those of the first call, or start again without a token."
        )
        raise InvalidArgument([Violation("resume_token", message)])
