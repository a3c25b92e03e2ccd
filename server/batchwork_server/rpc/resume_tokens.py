"""Resume tokens: after which message of which batch a watch goes on."""

from __future__ import annotations

from batchwork_server.application.watching import ResumePoint
from batchwork_server.domain.batch import Batch
from batchwork_server.domain.json_object import MAX_INTEGER
from batchwork_server.errors import InvalidArgument, Violation
from batchwork_server.rpc.opaque import binding_of, read_token, write_token


class ResumeTokens:
    """Writes and reads the tokens of one batch."""

    def __init__(self, batch: Batch) -> None:
        self._binding = binding_of(f"{batch.tenant_id}/{batch.batch_id}/{batch.key}".encode())

    def write(self, point: ResumePoint) -> str:
        return write_token(point.sequence, point.item_index, binding=self._binding)

    def read(self, token: str) -> ResumePoint | None:
        """Returns where to go on; none without a token.

        Raises:
            InvalidArgument: it is no token, or one of another batch.
        """
        if not token:
            return None
        match read_token(token, binding=self._binding):
            case [int(sequence), int(item_index)] if (
                0 <= sequence <= MAX_INTEGER and -1 <= item_index <= MAX_INTEGER
            ):
                return ResumePoint(sequence=sequence, item_index=item_index)
        message = "This is no resume token of this batch; watch without one for a snapshot."
        raise InvalidArgument([Violation("resume_token", message)])
