"""Resume tokens: after which message of which watch a stream goes on."""

from __future__ import annotations

from copy import deepcopy

from batchwork.v1.batch_service_pb2 import WatchBatchesRequest

from batchwork_server.application.told import FeedPoint, ResumePoint
from batchwork_server.domain.batch import Batch
from batchwork_server.domain.caller import ALL_TENANTS
from batchwork_server.domain.feed_place import FeedPlace
from batchwork_server.domain.json_object import MAX_INTEGER
from batchwork_server.errors import InvalidArgument, Violation
from batchwork_server.rpc.opaque import binding_of, read_token, write_token

_NO_SNAPSHOT = -1


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


class FeedTokens:
    """Writes and reads the tokens of a watch over all batches that match.

    They are bound to what is watched, not to how: the pace may change from stream to stream.

    Args:
        request: Names the filters.
        tenant_id: Whose batches the caller means; None means everybody's.
    """

    def __init__(self, request: WatchBatchesRequest, *, tenant_id: str | None) -> None:
        filters = deepcopy(request)
        filters.ClearField("resume_token")
        filters.ClearField("min_interval")
        filters.ClearField("without_progress")
        filters.tenant_id = tenant_id or ALL_TENANTS
        kind = request.DESCRIPTOR.full_name.encode()
        content = filters.SerializeToString(deterministic=True)
        self._binding = binding_of(kind + b"\0" + content)

    def write(self, point: FeedPoint) -> str:
        key = _NO_SNAPSHOT if point.snapshot_key is None else point.snapshot_key
        place = point.place
        return write_token(place.transaction_number, place.position, key, binding=self._binding)

    def read(self, token: str) -> FeedPoint | None:
        """Returns where to go on; none without a token.

        Raises:
            InvalidArgument: it is no token, or one of a watch with other filters.
        """
        if not token:
            return None
        match read_token(token, binding=self._binding):
            case [int(number), int(position), int(key)] if (
                0 <= number <= MAX_INTEGER
                and 0 <= position <= MAX_INTEGER
                and _NO_SNAPSHOT <= key <= MAX_INTEGER
            ):
                place = FeedPlace(number, position)
                return FeedPoint(place=place, snapshot_key=None if key == _NO_SNAPSHOT else key)
        message = (
            "This is no resume token of a watch with these filters; repeat the filters, or watch "
            "without a token for snapshots."
        )
        raise InvalidArgument([Violation("resume_token", message)])
