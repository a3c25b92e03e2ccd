"""Between the messages of statistics and the numbers of the use cases."""

from __future__ import annotations

from collections.abc import Mapping

from batchwork.v1 import batch_service_pb2 as messages

from batchwork_server.application.statistics import CountedBatches
from batchwork_server.domain.statistics import BatchStatistics, StatisticsGroup
from batchwork_server.rpc.batch_conversion import counts_to

GROUP_FROM: Mapping[int, StatisticsGroup] = {
    messages.STATISTICS_GROUP_OPERATION: StatisticsGroup.OPERATION,
    messages.STATISTICS_GROUP_JOB: StatisticsGroup.JOB,
    messages.STATISTICS_GROUP_TENANT: StatisticsGroup.TENANT,
    messages.STATISTICS_GROUP_FEATURE: StatisticsGroup.FEATURE,
}


def counted_to(counted: CountedBatches) -> messages.GetBatchStatisticsResponse:
    return messages.GetBatchStatisticsResponse(
        total=_statistics_to(counted.total),
        groups=[_statistics_to(group) for group in counted.groups],
        group_count=counted.group_count,
    )


def _statistics_to(statistics: BatchStatistics) -> messages.BatchStatistics:
    return messages.BatchStatistics(
        name=statistics.name,
        batch_count=statistics.batch_count,
        batch_count_by_state={str(state): n for state, n in statistics.by_state.items()},
        batch_count_by_operation=dict(statistics.by_operation),
        completion_ratio=statistics.completion_ratio,
        item_counts=counts_to(statistics.item_counts),
    )
